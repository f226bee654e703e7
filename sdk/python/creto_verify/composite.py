"""Composite signatures of the suite mldsa65-ed25519 (docs/formats.md, 2).

PublicKey(suite number, 1,984 bytes).verify(message, signature, context): both halves must hold.
"""

from __future__ import annotations

import hashlib

from . import ed25519, mldsa
from .errors import KeyFormatError

SUITE = 1
SUITE_NAME = "mldsa65-ed25519"
PUBLIC_KEY_SIZE = 1984
SIGNATURE_SIZE = 3373

_PREFIX = b"CompositeAlgorithmSignatures2025"
_LABEL = b"COMPSIG-MLDSA65-Ed25519-SHA512"

CTX_EVENT = b"creto/event/v1"
CTX_BATCH = b"creto/batch/v1"
CTX_RECEIPT = b"creto/receipt/v1"


def key_id(public_key: bytes) -> bytes:
    """The 32-byte id of a public key of the suite."""
    return hashlib.sha256(b"creto/key/v1\0" + SUITE_NAME.encode() + b"\0" + public_key).digest()


def is_composite_message(message: bytes) -> bool:
    """Whether plain Ed25519 must refuse the message, because a signature over it could be half of a composite one."""
    return message.startswith(_PREFIX)


class PublicKey:
    """A composite public key. Raises KeyFormatError."""

    def __init__(self, suite: int, data: bytes) -> None:
        if suite != SUITE:
            raise KeyFormatError(f"suite {suite} is not known")
        if len(data) != PUBLIC_KEY_SIZE:
            raise KeyFormatError(f"a key of {SUITE_NAME} has {PUBLIC_KEY_SIZE} bytes, not {len(data)}")
        self.data = data
        self.id = key_id(data)
        size = mldsa.MLDSA65.public_key_size
        self._mldsa = mldsa.strong_key(mldsa.MLDSA65, data[:size])
        self._ed25519 = ed25519.PublicKey(data[size:])

    def verify(self, message: bytes, signature: bytes, context: bytes) -> bool:
        """Whether signature (3,373 bytes) is one of this key over message for context, of at most 255 bytes."""
        if len(signature) != SIGNATURE_SIZE or len(context) > 255:
            return False
        prime = _PREFIX + _LABEL + bytes((len(context),)) + context + hashlib.sha512(message).digest()
        size = mldsa.MLDSA65.signature_size
        return self._ed25519.verify(prime, signature[size:]) and self._mldsa.verify(prime, signature[:size], _LABEL)
