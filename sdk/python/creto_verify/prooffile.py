"""The container of proof files, and bundles of a spine leaf's proof (docs/formats.md, 8; c2sp.org/tlog-proof).

parse_container(bytes) gives type, body and whether the checksum fits; parse_tlog_proof(bytes) gives index, path and checkpoint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from . import cbor, merkle
from .cbor import Fields
from .errors import DecodeError
from .note import MAX_NOTE, Checkpoint, parse_checkpoint
from .text import parse_base64, parse_decimal

MAX_FILE = 1 << 20
MAGIC = b"\xa4\x01\x01\x02"
SPINE_SUFFIX = "/spine"
TLOG_PROOF_MAGIC = b"c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Container:
    """A proof file: its type, its body, and whether its checksum is that of type and body."""

    type: str
    body: bytes = field(repr=False)
    intact: bool


def parse_container(data: bytes) -> Container:
    if len(data) > MAX_FILE:
        raise DecodeError(f"a proof file has at most {MAX_FILE} bytes")
    f = Fields(cbor.decode(data), "proof file")
    f.version()
    kind, body, checksum = f.text(2, 1, 64), f.bstr(3), f.bstr(4, 32)
    f.done()
    want = hashlib.sha256(b"creto/file/v1\0" + kind.encode() + b"\0" + body).digest()
    return Container(kind, body, checksum == want)


@dataclass(frozen=True)
class TlogProof:
    """An inclusion proof and the bytes of its checkpoint's note. extra: it has a line that nothing authenticates."""

    index: int
    path: list[bytes]
    note: bytes = field(repr=False)
    extra: bool = False


def parse_tlog_proof(data: bytes, allow_extra: bool = False) -> TlogProof:
    """Parse a tlog-proof@v1 but for its note. allow_extra: a line `extra` may stand there. Raises DecodeError."""
    if len(data) > MAX_NOTE:
        raise DecodeError(f"a tlog-proof has at most {MAX_NOTE} bytes")
    head, gap, note = data.partition(b"\n\n")
    if not gap:
        raise DecodeError("a tlog-proof without a checkpoint")
    try:
        magic, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise DecodeError("a tlog-proof that is not ASCII before its checkpoint") from None
    if magic.encode() != TLOG_PROOF_MAGIC:
        raise DecodeError("no tlog-proof@v1")
    extra = allow_extra and bool(lines) and lines[0].startswith("extra ")
    if extra:
        parse_base64(lines.pop(0)[len("extra ") :])
    if not lines:
        raise DecodeError("a tlog-proof without an index")
    word, _, number = lines[0].partition(" ")
    if word != "index":
        raise DecodeError("a tlog-proof whose second line is not the index")
    index = parse_decimal(number, merkle.MAX_SIZE)
    if len(lines) - 1 > merkle.MAX_PROOF:
        raise DecodeError(f"a tlog-proof has at most {merkle.MAX_PROOF} hashes")
    path = [parse_base64(line) for line in lines[1:]]
    if any(len(one) != 32 for one in path):
        raise DecodeError("a path with something other than hashes of 32 bytes")
    return TlogProof(index, path, note, extra)


@dataclass(frozen=True)
class SpineProof:
    """The proof of a spine leaf: index and path in the spine, and its checkpoint; note is the checkpoint's bytes."""

    index: int
    path: list[bytes]
    note: bytes = field(repr=False)
    checkpoint: Checkpoint = field(repr=False)


def parse_spine_proof(data: bytes) -> SpineProof:
    """Parse a tlog-proof whose checkpoint is of a spine. Raises DecodeError."""
    proof = parse_tlog_proof(data)
    checkpoint = parse_checkpoint(proof.note)
    if not checkpoint.origin.endswith(SPINE_SUFFIX) or checkpoint.origin == SPINE_SUFFIX:
        raise DecodeError(f"origin {checkpoint.origin!r} is not that of a spine")
    return SpineProof(proof.index, proof.path, proof.note, checkpoint)
