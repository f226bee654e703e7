"""Signed notes, verifier keys, checkpoints and cosignatures (c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature), read strictly
(docs/formats.md, 6).

parse_checkpoint(bytes) gives the checkpoint with its signature lines; VerifierKey(vkey).verify(checkpoint, signature) checks one of them.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from . import composite, ed25519, merkle, mldsa
from .errors import DecodeError, KeyFormatError
from .records import parse_origin
from .text import parse_base64, parse_decimal, parse_hex

MAX_NOTE = 1 << 20
MAX_SIGNATURES = 100

TYPE_ED25519 = 1
TYPE_COSIGNATURE_ED25519 = 4
TYPE_COSIGNATURE_MLDSA44 = 6


@dataclass(frozen=True)
class SignatureLine:
    """A signature line: key name, key id (4 bytes), and what stands behind it."""

    name: str
    key_id: bytes
    signature: bytes = field(repr=False)


@dataclass(frozen=True)
class Note:
    """A signed note. text is what was signed, with its last newline. Signatures are not checked."""

    text: str = field(repr=False)
    signatures: tuple[SignatureLine, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: a note whose text is origin, size and root. Signatures are not checked."""

    text: bytes = field(repr=False)
    origin: str
    size: int
    root: bytes
    signatures: tuple[SignatureLine, ...]


def parse_note(data: bytes) -> Note:
    """Parse a signed note of at most 1 MiB. Raises DecodeError."""
    if len(data) > MAX_NOTE:
        raise DecodeError(f"a note has at most {MAX_NOTE} bytes")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError:
        raise DecodeError("a note that is not UTF-8") from None
    if any(c < " " and c != "\n" for c in note):
        raise DecodeError("a note with control characters")
    split = note.rfind("\n\n")
    if split < 0:
        raise DecodeError("a note without signatures")
    text, lines = note[: split + 1], note[split + 2 :]
    if not lines.endswith("\n"):
        raise DecodeError("a note that does not end with a newline")
    signed = lines[:-1].split("\n")
    if len(signed) > MAX_SIGNATURES:
        raise DecodeError(f"a note has at most {MAX_SIGNATURES} signatures")
    return Note(text, tuple(_signature_line(line) for line in signed))


def parse_checkpoint(data: bytes) -> Checkpoint:
    """Parse a checkpoint note. Raises DecodeError."""
    return checkpoint_of(parse_note(data))


def _signature_line(line: str) -> SignatureLine:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—" or not encoded:
        raise DecodeError("a note with a malformed signature line")
    raw = parse_base64(encoded)
    if len(raw) < 5:
        raise DecodeError("a note with a signature that is too short")
    return SignatureLine(parse_origin(name), raw[:4], raw[4:])


def checkpoint_of(note: Note) -> Checkpoint:
    """Read a note's text as that of a checkpoint. Raises DecodeError."""
    lines = note.text[:-1].split("\n")
    if len(lines) != 3:
        raise DecodeError("a checkpoint has three lines: origin, size and root")
    origin = parse_origin(lines[0])
    size = parse_decimal(lines[1], merkle.MAX_SIZE)
    root = parse_base64(lines[2])
    if len(root) != 32:
        raise DecodeError(f"a root has 32 bytes, not {len(root)}")
    if size == 0 and root != merkle.EMPTY_ROOT:
        raise DecodeError("a checkpoint of size 0 whose root is not that of the empty tree")
    return Checkpoint(note.text.encode("utf-8"), origin, size, root, note.signatures)


def vkey_text(name: str, kind: int, public: bytes) -> str:
    """The vkey of a cosigning key, which is not checked but for its length. Raises DecodeError or KeyFormatError."""
    size = mldsa.MLDSA44.public_key_size if kind == TYPE_COSIGNATURE_MLDSA44 else ed25519.PUBLIC_KEY_SIZE
    if len(public) != size:
        raise KeyFormatError(f"a key of type {kind} has {size} bytes, not {len(public)}")
    material = bytes((kind,)) + public
    key_id = hashlib.sha256(parse_origin(name).encode() + b"\n" + material).digest()[:4]
    return f"{name}+{key_id.hex()}+{base64.b64encode(material).decode('ascii')}"


class VerifierKey:
    """A vkey: <name>+<key id>+<type and public key>. Raises DecodeError or KeyFormatError.

    kind is the type's number: 1, 4 or 6. identity is what two keys share exactly if they wrap the same public key.
    """

    def __init__(self, vkey: str) -> None:
        name, _, rest = vkey.partition("+")
        hex_id, _, encoded = rest.partition("+")
        self.text = vkey
        self.name = parse_origin(name)
        self.key_id = parse_hex(hex_id, 4)
        material = parse_base64(encoded)
        if not material:
            raise DecodeError("a vkey without a key")
        self.kind, public = material[0], material[1:]
        self._key: ed25519.PublicKey | mldsa.PublicKey
        if self.kind in (TYPE_ED25519, TYPE_COSIGNATURE_ED25519):
            self._key = ed25519.PublicKey(public)
        elif self.kind == TYPE_COSIGNATURE_MLDSA44:
            self._key = mldsa.strong_key(mldsa.MLDSA44, public)
        else:
            raise KeyFormatError(f"a vkey of type {self.kind} is not known")
        self.identity = (isinstance(self._key, mldsa.PublicKey), public)
        if hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4] != self.key_id:
            raise DecodeError(f"vkey of {self.name}: the key id is not that of the key")

    def verify(self, checkpoint: Checkpoint, signature: bytes) -> int | None:
        """The time of a cosignature in POSIX seconds (0 for a log's signature, which has none), or None if it does not hold."""
        if self.kind == TYPE_ED25519:
            return 0 if self._ed25519(checkpoint.text, signature) else None
        if len(signature) < 8:
            return None
        stamp, rest = signature[:8], signature[8:]
        seconds = int.from_bytes(stamp, "big")
        if self.kind == TYPE_COSIGNATURE_ED25519:
            message = b"cosignature/v1\ntime %d\n" % seconds + checkpoint.text
            return seconds if self._ed25519(message, rest) else None
        name, origin = self.name.encode(), checkpoint.origin.encode()
        message = (
            b"subtree/v1\n\0"
            + bytes((len(name),))
            + name
            + stamp
            + bytes((len(origin),))
            + origin
            + bytes(8)
            + checkpoint.size.to_bytes(8, "big")
            + checkpoint.root
        )
        return seconds if self._key.verify(message, rest) else None

    def _ed25519(self, message: bytes, signature: bytes) -> bool:
        return not composite.is_composite_message(message) and self._key.verify(message, signature)
