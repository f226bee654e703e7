"""Changes files in every way that a table can think of, each well formed again on the outside."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from creto_verify import cbor
from creto_verify.errors import DecodeError
from tests.encode import completeness_file, encode, frames_of, proof_file

_VALUES = (
    0, 1, 255, 256, 2**32, 2**53 - 2, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, b"", bytes(16), bytes(32), "", "x", "A", [], [0], {},
    {1: 1}, True, None,
)  # fmt: skip


class Embedded(dict):
    """A map that stands in a byte string as its encoding."""


def open_up(value):
    """A decoded value with the maps that its byte strings encode."""
    if isinstance(value, dict):
        return {k: open_up(v) for k, v in value.items()}
    if isinstance(value, list):
        return [open_up(v) for v in value]
    if isinstance(value, bytes) and len(value) > 20:
        try:
            inner = cbor.decode(value)
        except DecodeError:
            return value
        if isinstance(inner, dict):
            return Embedded({k: open_up(v) for k, v in inner.items()})
    return value


def close_up(value):
    """The inverse of open_up."""
    if isinstance(value, Embedded):
        return encode({k: close_up(v) for k, v in value.items()})
    if isinstance(value, dict):
        return {k: close_up(v) for k, v in value.items()}
    if isinstance(value, list):
        return [close_up(v) for v in value]
    return value


def _replacements(value) -> Iterator:
    yield from _VALUES
    if isinstance(value, bytes):
        yield from (bytes(len(value)), value + b"\0", value[:-1], value[:-1] + bytes((value[-1] ^ 1,)) if value else b"x")
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, max(0, value - 1))
    elif isinstance(value, str):
        yield from (value + c for c in ("x", "\x7f", "\n", "\0", "\u2003", "\u0085", " ", "+"))
        yield from ("z" * 64, "z" * 65, "z" * 300, "É")
    elif isinstance(value, list) and value:
        yield from (value[1:], value[:-1], value + value[:1], value[::-1], (value * 64)[:63], (value * 64)[:64])


def mutations(value, path: tuple = ()) -> Iterator[tuple[tuple, str, object]]:
    """(path, "set", value), (path, "delete", None) and (path of a map, "add", key), for every place in a value."""
    if path:
        yield path, "delete", None
        for other in _replacements(value):
            yield path, "set", other
    if isinstance(value, dict):
        for key in (max((k for k in value if isinstance(k, int)), default=0) + 1, -1, 30, "t"):
            yield path, "add", key
        for key, inner in value.items():
            yield from mutations(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:2]):
            yield from mutations(inner, (*path, i))


def _apply(root, path: tuple, what: str, argument):
    changed = copy.deepcopy(root)
    place = changed
    for step in path if what == "add" else path[:-1]:
        place = place[step]
    if what == "add":
        place[argument] = 1
    elif what == "delete":
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(argument)
    return changed


def proof_files(data: bytes, stride: int, start: int = 0) -> Iterator[tuple[str, bytes]]:
    """Every stride-th changed proof file, with its checksum made right, and what was changed."""
    container = cbor.decode(data)
    root = open_up(cbor.decode(container[3]))
    for i, (path, what, argument) in enumerate(mutations(root)):
        if i % stride == start % stride:
            body = encode(close_up(_apply(root, path, what, argument)))
            yield f"{what} {path} {str(argument)[:60]}", proof_file(container[2], body)


def completeness_files(data: bytes, stride: int, start: int = 0) -> Iterator[tuple[str, bytes]]:
    """The same for the frames of a completeness file, and frames left out, doubled and swapped."""
    frames = frames_of(data)
    number = 0
    for at, (kind, content) in enumerate(frames):
        root = open_up(cbor.decode(content))
        for path, what, argument in mutations(root):
            number += 1
            if number % stride == start % stride:
                changed = encode(close_up(_apply(root, path, what, argument)))
                yield f"frame {at}: {what} {path} {str(argument)[:60]}", completeness_file([*frames[:at], (kind, changed), *frames[at + 1 :]])
        yield f"without frame {at}", completeness_file(frames[:at] + frames[at + 1 :])
        yield f"frame {at} twice", completeness_file(frames[: at + 1] + frames[at:])
        yield f"early end at {at}", completeness_file([*frames[:at], (255, bytes(40)), *frames[at:]])
        yield f"unknown type at {at}", completeness_file([*frames[:at], (4, b""), *frames[at:]])
        yield f"swapped at {at}", completeness_file(frames[:at] + frames[at : at + 2][::-1] + frames[at + 2 :])


def flips(data: bytes, stride: int) -> Iterator[tuple[str, bytes]]:
    """Every stride-th byte with one bit changed."""
    for i in range(0, len(data), stride):
        yield f"byte {i}", data[:i] + bytes((data[i] ^ 1 << i % 8,)) + data[i + 1 :]
