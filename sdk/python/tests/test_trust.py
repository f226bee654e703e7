"""Trust files and notes: what is read, what is refused."""

import unittest

from creto_verify import Trust, TrustError
from creto_verify.errors import DecodeError
from creto_verify.note import VerifierKey, parse_checkpoint
from creto_verify.trust import EndorsementError
from tests.forge import LOG_VKEY, Ledger, Node, b64, vkey
from tests.paths import TESTDATA

A, B, C = (Node(i) for i in range(3))
LEDGER = Ledger([A])
ID = f"ledger_id {'ab' * 32}"
LOG = f"log {LOG_VKEY}"
WITNESS = f"witness a {vkey('a', 4, A.ed)}"


def text(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode()


class Parse(unittest.TestCase):
    def test_accepted(self):
        for name, lines in {
            "no witness": (ID, LOG, "quorum none"),
            "one witness": (ID, LOG, WITNESS, "quorum a"),
            "any order, blanks, comments, URLs": ("", "# x", " valid a 5 - \t", WITNESS + " https://a", "quorum a", LOG + " https://b", ID),
            "a group of groups": (ID, LOG, WITNESS, "group g 1 a", "group h all g", "quorum h"),
            "a log key that is a witness too": (ID, LOG, f"witness a {vkey('a', 4, VerifierKey(LOG_VKEY).identity[1])}", "quorum a"),
            "two log keys": (ID, LOG, "log " + vkey("forged/spine", 1, B.ed), "quorum none"),
        }.items():
            with self.subTest(name):
                Trust.parse(text(*lines))

    def test_refused(self):
        base = (ID, LOG, WITNESS)
        for name, lines in {
            "no ledger": (LOG, "quorum none"),
            "no log": (ID, "quorum none"),
            "no quorum": base,
            "two ledgers": (*base, ID, "quorum a"),
            "two quorums": (*base, "quorum a", "quorum a"),
            "unknown line": (*base, "quorum a", "x y"),
            "comment behind": (*base, "quorum a # x"),
            "capital hex": (ID.upper().replace("LEDGER_ID", "ledger_id"), LOG, "quorum none"),
            "one log key twice": (*base, LOG, "quorum a"),
            "one witness key twice": (*base, f"witness b {vkey('b', 4, A.ed)}", "quorum a"),
            "one name twice": (*base, f"witness a {vkey('b', 4, B.ed)}", "quorum a"),
            "the name none": (ID, LOG, f"witness none {vkey('b', 4, B.ed)}", "quorum none"),
            "undefined quorum": (*base, "quorum b"),
            "quorum before its group": (*base, "quorum g", "group g 1 a"),
            "undefined member": (*base, "group g 1 b", "quorum g"),
            "member twice": (*base, "group g 1 a a", "quorum g"),
            "member of two groups": (*base, "group g 1 a", "group h 1 a", "quorum g"),
            "threshold 0": (*base, "group g 0 a", "quorum g"),
            "threshold 2 of 1": (*base, "group g 2 a", "quorum g"),
            "threshold 01": (*base, "group g 01 a", "quorum g"),
            "interval of nobody": (*base, "valid b 0 1", "quorum a"),
            "empty interval": (*base, "valid a 5 5", "quorum a"),
            "two intervals": (*base, "valid a 0 5", "valid a 6 7", "quorum a"),
            "receipt key twice": (*base, *[f"receipt_key {'a' * 26} {'cd' * 32}"] * 2, "quorum a"),
            "node id": (*base, f"receipt_key {'a' * 25}b {'cd' * 32}", "quorum a"),
            "log key of type 4": (ID, "log " + vkey("x", 4, A.ed), "quorum none"),
            "witness key of type 1": (ID, LOG, f"witness a {vkey('a', 1, A.ed)}", "quorum a"),
            "key of small order": (ID, LOG, f"witness a {vkey('a', 4, bytes(32))}", "quorum a"),
            "degenerate key": (ID, LOG, f"witness a {vkey('a', 6, bytes(1312))}", "quorum a"),
            "another key id": (ID, LOG_VKEY.join(("log ", "")).replace("+", "+0", 1)[: len(LOG)], "quorum none"),
            "control character": (*base, "quorum a\x0b"),
            "129 groups": (*base, *(f"group g{i} 1 {'a' if i == 0 else f'g{i - 1}'}" for i in range(129)), "quorum a"),
            "257 receipt keys": (*base, *(f"receipt_key {'a' * 26} {i:064x}" for i in range(257)), "quorum a"),
        }.items():
            with self.subTest(name), self.assertRaises(TrustError):
                Trust.parse(text(*lines))
        for data in (b"", text(ID, LOG, "quorum none")[:-1], text(ID, LOG, "quorum none") + b"#" * (512 << 10) + b"\n"):
            with self.assertRaises(TrustError):
                Trust.parse(data)

    def test_fingerprint(self):
        """It stands for what the file says, not for how."""
        one = Trust.parse(text(ID, LOG, WITNESS, "group g all a", "valid a 0 -", "quorum g"))
        two = Trust.parse(text("# x", LOG + "  https://x", WITNESS, "valid a - -", "group g 1 a", "quorum g", ID))
        self.assertEqual(one.fingerprint(), two.fingerprint())
        self.assertEqual(len(one.fingerprint().split()), 12)
        other = Trust.parse(text(ID, LOG, WITNESS, "group g all a", "valid a 1 -", "quorum g"))
        self.assertNotEqual(one.fingerprint(), other.fingerprint())


class Notes(unittest.TestCase):
    def setUp(self):
        self.note = (TESTDATA / "dev" / "late.checkpoint").read_bytes()
        self.trust = Trust.parse((TESTDATA / "dev" / "trust.txt").read_bytes())

    def test_forms(self):
        body, signatures = self.note.decode().split("\n\n")
        lines = signatures[:-1].split("\n")
        origin, size, root = body.split("\n")

        def note(*body: str, signatures=lines, end="\n") -> bytes:
            return ("\n".join(body) + "\n\n" + "\n".join(signatures) + end).encode()

        self.trust.endorse(parse_checkpoint(note(origin, size, root)))
        self.trust.endorse(parse_checkpoint(note(origin, size, root, signatures=[*lines, "— x AAAAAAA="])))
        for name, data in {
            "extension": note(origin, size, root, "x"),
            "two lines": note(origin, size),
            "leading zero": note(origin, "0" + size, root),
            "sign": note(origin, "+" + size, root),
            "too large": note(origin, str(1 << 53), root),
            "short root": note(origin, size, b64(bytes(31))),
            "loose base64": note(origin, size, root.rstrip("=")),
            "size 0 with a root": note(origin, "0", root),
            "no signature": note(origin, size, root, signatures=[]),
            "101 signatures": note(origin, size, root, signatures=["— x AAAAAAA="] * 101),
            "hyphen": note(origin, size, root, signatures=["- x AAAAAAA="]),
            "signature of 4 bytes": note(origin, size, root, signatures=["— x AAAAAA=="]),
            "loose base64 of a signature": note(origin, size, root, signatures=["— x AAAAAAB="]),
            "space in a name": note(origin, size, root, signatures=["— a\u2003b AAAAAAA="]),
            "plus in a name": note(origin, size, root, signatures=["— a+b AAAAAAA="]),
            "no newline": note(origin, size, root, end=""),
            "CR": note(origin, size + "\r", root),
            "control character": note(origin, size, root).replace(b"spine", b"sp\0ne"),
            "not UTF-8": note(origin, size, root).replace(b"spine", b"sp\xffne"),
        }.items():
            with self.subTest(name), self.assertRaises(DecodeError):
                parse_checkpoint(data)

    def test_endorse(self):
        good = parse_checkpoint(self.note)
        lines = good.signatures
        for name, signatures, forged in (
            ("log key left out", lines[1:], False),
            ("log key alone", lines[:1], False),
            ("a signature twice", (*lines, lines[-1]), True),
            ("a second line by a known key", (*lines, type(lines[0])(lines[1].name, lines[1].key_id, b"x")), True),
        ):
            with self.subTest(name), self.assertRaises(EndorsementError) as caught:
                self.trust.endorse(type(good)(good.text, good.origin, good.size, good.root, signatures))
            self.assertEqual(caught.exception.forged, forged)
        with self.assertRaises(EndorsementError):
            self.trust.endorse(type(good)(good.text + b"x", good.origin, good.size, good.root, lines))


if __name__ == "__main__":
    unittest.main()
