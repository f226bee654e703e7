"""Writes what the package only reads: canonical CBOR and proof files, for tests that change a file and keep it well formed."""

from __future__ import annotations

import hashlib


def head(major: int, arg: int) -> bytes:
    if arg < 24:
        return bytes((major << 5 | arg,))
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if arg < 1 << 8 * size:
            return bytes((major << 5 | info,)) + arg.to_bytes(size, "big")
    raise OverflowError(arg)


def encode(value) -> bytes:
    """The canonical encoding of a value that cbor.decode gives."""
    if value is False or value is True or value is None:
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return head(3, len(raw)) + raw
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    pairs = sorted((encode(k), encode(v)) for k, v in value.items())
    return head(5, len(pairs)) + b"".join(k + v for k, v in pairs)


def proof_file(kind: str, body: bytes) -> bytes:
    """A proof file with its checksum."""
    checksum = hashlib.sha256(b"creto/file/v1\0" + kind.encode() + b"\0" + body).digest()
    return encode({1: 1, 2: kind, 3: body, 4: checksum})


def frame(kind: int, content: bytes) -> bytes:
    return bytes((kind,)) + len(content).to_bytes(4, "big") + content


def completeness_file(frames: list[tuple[int, bytes]], count: int | None = None) -> bytes:
    """A completeness file of these frames and an end frame that fits them; count: what the end frame says."""
    data = b"creto-completeness/v1\n" + b"".join(frame(k, c) for k, c in frames)
    if count is None:
        count = sum(k == 2 for k, _ in frames)
    return data + frame(255, count.to_bytes(8, "big") + hashlib.sha256(data).digest())


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """The frames of a completeness file but for its end frame."""
    at, frames = len(b"creto-completeness/v1\n"), []
    while data[at] != 255:
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        frames.append((data[at], data[at + 5 : at + 5 + size]))
        at += 5 + size
    return frames
