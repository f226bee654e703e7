"""Events, the ways in which they are signed, and delegation links (docs/formats.md, 3 and 9).

parse_event and parse_link take the exact bytes and raise DecodeError. verify_signature says whether evidence holds over a payload digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from . import cbor, merkle
from .cbor import Fields
from .errors import DecodeError
from .records import parse_kind, parse_seq

MAX_EVENT = 64 * 1024
MAX_BATCH = 1024
MAX_BODY_DEPTH = 4  # the body itself included
MAX_BODY_PAIRS = 100
MAX_LINK = 4096
MAX_CHAIN = 8
PAYLOAD_TYPE = b"application/vnd.creto.event.v1+cbor"
ZERO_ID = bytes(16)
ZERO_DIGEST = bytes(32)


@dataclass(frozen=True)
class Event:
    """A signed event's payload. Zero ids are bytes of zeros here, as they are in the event."""

    data: bytes = field(repr=False)
    ledger_id: bytes
    tenant: bytes
    id: bytes
    kind: str
    agent: bytes
    link_id: bytes
    seq: tuple[bytes, int]
    account: bytes
    client_time: int
    body: dict = field(repr=False)
    addenda: tuple[bytes, ...]


def pae(payload: bytes) -> bytes:
    """The DSSE pre-authentication encoding of an event."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(payload), payload)


def payload_digest(payload: bytes) -> bytes:
    return merkle.leaf_hash(pae(payload))


def parse_event(data: bytes) -> Event:
    if len(data) > MAX_EVENT:
        raise DecodeError(f"an event has at most {MAX_EVENT} bytes, not {len(data)}")
    f = Fields(cbor.decode(data), "event")
    f.version()
    ledger_id, tenant, event_id = f.bstr(2, 32), f.bstr(3, 16), f.bstr(4, 16)
    kind, agent, link_id = parse_kind(f, 5), f.bstr(6, 16), f.bstr(7, 32)
    seq, account, client_time = parse_seq(f, 8), f.bstr(9, 16), f.int64(10)
    f.bstr(11, 16)
    body = f.raw(12)
    if not isinstance(body, dict):
        raise f.fail(12, "is not a map")
    depth, pairs = cbor.measure(body)
    if depth > MAX_BODY_DEPTH or pairs > MAX_BODY_PAIRS:
        raise f.fail(12, f"has more than {MAX_BODY_DEPTH} open arrays and maps, or {MAX_BODY_PAIRS} pairs in a map")
    addenda = tuple(f.opt_hashes(13, 8))
    f.done()
    return Event(data, ledger_id, tenant, event_id, kind, agent, link_id, seq, account, client_time, body, addenda)


@dataclass(frozen=True)
class BatchProof:
    """That a payload digest is number k of the n of a batch. What it says is checked with the signature, not when it is decoded."""

    version: int
    ledger_id: bytes
    tenant: bytes
    key_id: bytes
    n: int
    root: bytes
    k: int
    path: list[bytes]

    @property
    def statement(self) -> bytes:
        """What was signed: the map {1: v, 2: ledger_id, 3: tenant, 4: key id, 5: n, 6: root} in its one encoding."""
        return b"".join(
            (
                b"\xa6\x01",
                cbor.encode_uint(self.version),
                b"\x02\x58\x20",
                self.ledger_id,
                b"\x03\x50",
                self.tenant,
                b"\x04\x58\x20",
                self.key_id,
                b"\x05",
                cbor.encode_uint(self.n),
                b"\x06\x58\x20",
                self.root,
            )
        )


def parse_batch_proof(f: Fields) -> BatchProof:
    proof = BatchProof(f.uint(1), f.bstr(2, 32), f.bstr(3, 16), f.bstr(4, 32), f.uint(5), f.bstr(6, 32), f.uint(7), f.hashes(8))
    f.done()
    return proof


@dataclass(frozen=True)
class Evidence:
    """Who signed, and how: alone if batch is None."""

    key_id: bytes
    signature: bytes = field(repr=False)
    batch: BatchProof | None


def parse_evidence(f: Fields) -> Evidence:
    key_id = f.bstr(1, 32)
    signature = f.bstr(2)
    batch = f.opt_submap(3)
    evidence = Evidence(key_id, signature, parse_batch_proof(batch) if batch else None)
    f.done()
    return evidence


@dataclass(frozen=True)
class Link:
    """The fields of a delegation link that a proof needs. parent is None at a root."""

    id: bytes
    ledger_id: bytes
    tenant: bytes
    issuer: bytes
    subject: bytes
    parent: bytes | None
    depth: int


def parse_link(data: bytes) -> Link:
    if len(data) > MAX_LINK:
        raise DecodeError(f"a link has at most {MAX_LINK} bytes, not {len(data)}")
    f = Fields(cbor.decode(data), "link")
    parent = f.bstr(9, 32)
    return Link(
        id=hashlib.sha256(b"creto/dlg/v1\0" + data).digest(),
        ledger_id=f.bstr(2, 32),
        tenant=f.bstr(3, 16),
        issuer=f.bstr(5, 16),
        subject=f.bstr(7, 16),
        parent=parent if any(parent) else None,
        depth=f.uint(10, MAX_CHAIN),
    )


def registered_key(event: Event) -> tuple[bytes, int, bytes]:
    """Who gets which key by an event of kind identity.register or identity.rotate: (identity, suite number, public key)."""
    keys = {"identity.register": (3, 4), "identity.rotate": (2, 3)}.get(event.kind)
    if keys is None:
        raise DecodeError(f"an event of kind {event.kind!r} registers no key")
    f = Fields(event.body, "registration")
    return f.bstr(1, 16), f.uint(keys[0], 255), f.bstr(keys[1])
