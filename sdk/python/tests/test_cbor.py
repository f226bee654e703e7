"""The reader of canonical CBOR against bytes of every kind."""

import random
import unittest

from creto_verify import cbor
from creto_verify.errors import DecodeError
from tests.encode import encode


class Decode(unittest.TestCase):
    def test_values(self):
        for value in (
            0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -1, -24, -25, -(2**64), b"", b"x" * 300, "", "é", [], [1, [2]],
            {}, {1: 2, -1: 3, "a": b"", b"a": ""}, True, False, None,
        ):  # fmt: skip
            self.assertEqual(cbor.decode(encode(value)), value)

    def test_refused(self):
        for name, data in {
            "nothing": "",
            "trailing byte": "0000",
            "long form of 23": "1817",
            "long form of 255": "1900ff",
            "long form of 65535": "1a0000ffff",
            "long form of 2^32-1": "1b00000000ffffffff",
            "long length": "5801ff",
            "truncated integer": "19ff",
            "truncated bytes": "42ff",
            "huge bytes": "5bffffffffffffffff",
            "huge array": "9bffffffffffffffff",
            "huge map": "bbffffffffffffffff",
            "reserved": "1c",
            "indefinite bytes": "5f40ff",
            "indefinite array": "9fff",
            "indefinite map": "bfff",
            "break": "ff",
            "tag": "c000",
            "float 16": "f90000",
            "float 32": "fa00000000",
            "float 64": "fb0000000000000000",
            "undefined": "f7",
            "simple 0": "e0",
            "simple 32": "f820",
            "false in two bytes": "f814",
            "bad UTF-8": "61ff",
            "surrogate": "63eda080",
            "overlong": "62c080",
            "keys out of order": "a201000000",
            "text key before integer": "a26161000100",
            "key twice": "a200000000",
            "array as key": "a18000",
            "map as key": "a1a000",
            "bool as key": "a1f400",
            "key below -2^63": "a13b800000000000000000",
            "nine arrays": "81" * 9 + "00",
            "nine maps": "a100" * 9 + "00",
        }.items():
            with self.subTest(name), self.assertRaises(DecodeError):
                cbor.decode(bytes.fromhex(data))

    def test_depth(self):
        self.assertEqual(cbor.measure(cbor.decode(bytes.fromhex("81" * 8 + "00"))), (8, 0))
        self.assertEqual(cbor.measure(cbor.decode(bytes.fromhex("a100" * 8 + "00"))), (8, 1))

    def test_one_encoding(self):
        """What is accepted of arbitrary bytes is its own encoding."""
        r = random.Random(1)
        seed = encode({1: [1, 2**40, -5, "ab", b"cd", None, True], 2: {3: {"x": []}}, "t": 255})
        accepted = 0
        for _ in range(20_000):
            data = bytearray(seed)
            for _ in range(r.randint(1, 3)):
                data[r.randrange(len(data))] = r.randrange(256)
            try:
                value = cbor.decode(bytes(data))
            except DecodeError:
                continue
            accepted += 1
            self.assertEqual(encode(value), bytes(data))
        self.assertGreater(accepted, 100)

    def test_uint(self):
        for n in (0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1):
            self.assertEqual(cbor.encode_uint(n), encode(n))


if __name__ == "__main__":
    unittest.main()
