"""Strict reader of core deterministic CBOR (RFC 8949, 4.2.1) as docs/formats.md, 1 restricts it.

decode(data) gives int, bytes, str, bool, None, list, or dict with keys that are int, bytes or str. There is exactly one encoding of each value that it
accepts; everything else is a DecodeError: long forms, indefinite lengths, tags, floats, other simple values, keys out of order or twice,
keys below -2^63, more than MAX_DEPTH open arrays and maps, bytes after the value.

Fields(data) reads a map field by field and refuses, in done(), keys that nobody asked for.
"""

from __future__ import annotations

from .errors import DecodeError

MAX_DEPTH = 8
_INT64_MIN = -(1 << 63)
UINT64_MAX = (1 << 64) - 1
# No array that fits into a file has more digests: how long a path may be is for the step that follows it.
MAX_ITEMS = (1 << 20) // 34


def decode(data: bytes):
    """Decode the one value that data holds. Raises DecodeError."""
    value, end = _value(data, 0, 0)
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes after the value")
    return value


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Read one initial byte with its argument: (major type, argument, offset after it)."""
    if at >= len(data):
        raise DecodeError("ends early")
    first = data[at]
    major, info = first >> 5, first & 31
    at += 1
    if info < 24:
        return major, info, at
    if info > 27:
        raise DecodeError("indefinite length" if info == 31 else "reserved length")
    if major == 7:
        raise DecodeError("a float, or a simple value other than true, false and null")
    size = 1 << (info - 24)
    if at + size > len(data):
        raise DecodeError("ends early")
    arg = int.from_bytes(data[at : at + size], "big")
    # The shortest form: one byte from 24 on, and wider only if the next narrower form is too small.
    if arg < (24 if size == 1 else 1 << (4 * size)):
        raise DecodeError("an integer or length that is not in its shortest form")
    return major, arg, at + size


def _value(data: bytes, at: int, depth: int):
    start = at
    major, arg, at = _head(data, at)
    if major == 0:
        return arg, at
    if major == 1:
        return -1 - arg, at
    if major in (2, 3):
        if arg > len(data) - at:
            raise DecodeError("ends early")
        raw = data[at : at + arg]
        if major == 2:
            return raw, at + arg
        try:
            return raw.decode("utf-8"), at + arg
        except UnicodeDecodeError:
            raise DecodeError("text that is not UTF-8") from None
    if major == 4:
        depth += 1
        _bounds(depth, arg, len(data) - at)
        items = []
        for _ in range(arg):
            item, at = _value(data, at, depth)
            items.append(item)
        return items, at
    if major == 5:
        depth += 1
        _bounds(depth, 2 * arg, len(data) - at)
        return _map(data, at, depth, arg)
    if major == 7 and arg in (20, 21, 22):
        return (False, True, None)[arg - 20], at
    raise DecodeError(f"byte 0x{data[start]:02x} begins no value that is allowed")


def _bounds(depth: int, items: int, left: int) -> None:
    if depth > MAX_DEPTH:
        raise DecodeError(f"more than {MAX_DEPTH} open arrays and maps")
    if items > left:  # every item takes a byte at least
        raise DecodeError("ends early")


def _map(data: bytes, at: int, depth: int, count: int):
    fields: dict = {}
    last = b""
    for _ in range(count):
        begin = at
        if at < len(data) and data[at] >> 5 > 3:
            raise DecodeError("a map key that is no integer, byte string or text")
        key, at = _value(data, at, depth)
        if isinstance(key, int) and key < _INT64_MIN:
            raise DecodeError("a map key below -2^63")
        raw = data[begin:at]
        if raw <= last:  # bytewise order of the encodings (RFC 8949, 4.2.1)
            raise DecodeError("map keys out of order, or twice")
        last = raw
        fields[key], at = _value(data, at, depth)
    return fields, at


def encode_uint(value: int) -> bytes:
    """The one encoding of an unsigned integer below 2^64."""
    if value < 24:
        return bytes((value,))
    info, size = next((i, s) for i, s in ((24, 1), (25, 2), (26, 4), (27, 8)) if value < 1 << 8 * s)
    return bytes((info,)) + value.to_bytes(size, "big")


def measure(value) -> tuple[int, int]:
    """How many arrays and maps of a decoded value are open at once, and how many pairs its largest map has."""
    if isinstance(value, dict):
        inner, pairs = [*value.values()], len(value)
    elif isinstance(value, list):
        inner, pairs = value, 0
    else:
        return 0, 0
    deepest = 0
    for one in inner:
        if isinstance(one, (dict, list)):
            depth, most = measure(one)
            deepest, pairs = max(deepest, depth), max(pairs, most)
    return deepest + 1, pairs


_ABSENT = object()


class Fields:
    """The fields of one map, taken by key and checked as they are taken.

    what names the map in errors. Methods raise DecodeError when a field is missing, has another type, or stands there with the value for
    which it is left out (the opt_ methods, which then give None, or 0 or [] where that is the value of an absent field).
    """

    def __init__(self, value, what: str) -> None:
        if not isinstance(value, dict):
            raise DecodeError(f"{what}: not a map")
        self._fields = dict(value)
        self._what = what

    def _take(self, key: int):
        return self._fields.pop(key, _ABSENT)

    def fail(self, key: int, why: str) -> DecodeError:
        return DecodeError(f"{self._what}: field {key} {why}")

    def has(self, key: int) -> bool:
        return key in self._fields

    def raw(self, key: int):
        """The value of a field, of any type."""
        value = self._take(key)
        if value is _ABSENT:
            raise self.fail(key, "is missing")
        return value

    def done(self) -> None:
        """Refuse keys that were not taken."""
        for key in self._fields:
            raise self.fail(key, "is not known")

    def version(self, key: int = 1) -> None:
        if self.uint(key) != 1:
            raise self.fail(key, "is not version 1")

    def uint(self, key: int, limit: int = UINT64_MAX) -> int:
        value = self.raw(key)
        if type(value) is not int or value < 0:
            raise self.fail(key, "is not an unsigned integer")
        if value > limit:
            raise self.fail(key, "is too large")
        return value

    def int64(self, key: int) -> int:
        value = self.raw(key)
        if type(value) is not int or not _INT64_MIN <= value < -_INT64_MIN:
            raise self.fail(key, "is not an integer of 64 bits")
        return value

    def opt_uint(self, key: int, limit: int = UINT64_MAX) -> int:
        if not self.has(key):
            return 0
        value = self.uint(key, limit)
        if value == 0:
            raise self.fail(key, "is present although zero")
        return value

    def boolean(self, key: int) -> bool:
        value = self.raw(key)
        if type(value) is not bool:
            raise self.fail(key, "is not true or false")
        return value

    def bstr(self, key: int, low: int = 0, high: int | None = None) -> bytes:
        """A byte string of low to high bytes; of exactly low bytes if high is None and low is not 0."""
        value = self.raw(key)
        if not isinstance(value, bytes):
            raise self.fail(key, "is not a byte string")
        self._length(key, len(value), low, high)
        return value

    def _length(self, key: int, size: int, low: int, high: int | None) -> None:
        if high is None:
            if low and size != low:
                raise self.fail(key, f"has {size} bytes, not {low}")
        elif not low <= size <= high:
            raise self.fail(key, f"has {size} bytes, allowed are {low} to {high}")

    def opt_id(self, key: int, size: int) -> bytes | None:
        """A byte string of exactly size bytes that is left out when it is all zero."""
        if not self.has(key):
            return None
        value = self.bstr(key, size)
        if not any(value):
            raise self.fail(key, "is present although zero")
        return value

    def opt_bstr(self, key: int, high: int) -> bytes | None:
        """A byte string of 1 to high bytes that is left out when it is empty."""
        if not self.has(key):
            return None
        return self.bstr(key, 1, high)

    def text(self, key: int, low: int, high: int) -> str:
        """UTF-8 text of low to high bytes."""
        value = self.raw(key)
        if not isinstance(value, str):
            raise self.fail(key, "is not text")
        self._length(key, len(value.encode("utf-8")), low, high)
        return value

    def array(self, key: int, low: int, high: int) -> list:
        value = self.raw(key)
        if not isinstance(value, list):
            raise self.fail(key, "is not an array")
        if not low <= len(value) <= high:
            raise self.fail(key, f"has {len(value)} entries, allowed are {low} to {high}")
        return value

    def hashes(self, key: int, high: int = MAX_ITEMS) -> list[bytes]:
        """0 to high byte strings of 32 bytes."""
        hashes = self.array(key, 0, high)
        if not all(isinstance(one, bytes) and len(one) == 32 for one in hashes):
            raise self.fail(key, "holds something other than digests")
        return hashes

    def opt_hashes(self, key: int, high: int = MAX_ITEMS) -> list[bytes]:
        """1 to high byte strings of 32 bytes; [] when left out."""
        if not self.has(key):
            return []
        hashes = self.hashes(key, high)
        if not hashes:
            raise self.fail(key, "is present although empty")
        return hashes

    def submap(self, key: int) -> Fields:
        return Fields(self.raw(key), f"{self._what}: field {key}")

    def opt_submap(self, key: int) -> Fields | None:
        return self.submap(key) if self.has(key) else None
