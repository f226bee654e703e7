"""Leaves, heads and spine leaves (docs/formats.md, 4 and 5): strict parsers into frozen dataclasses.

Every parse function takes the exact bytes and raises DecodeError; the parsed value keeps those bytes, because hashes are over them. Times are
Unix nanoseconds; ids are bytes, None where a leaf leaves them out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from . import cbor, merkle
from .cbor import Fields
from .errors import DecodeError

MAX_LEAF = 4096
MAX_INDEX = (1 << 53) - 2
MAX_TIME = (1 << 63) - 1
MAX_SLOT = (1 << 32) - 1
MAX_ORIGIN = 255

QUALITIES = ("good", "carried", "single", "stale")
FLAG_TEST = 4
OUTCOMES = (
    "accepted",
    "denied",
    "needs_approval",
    "quota_exhausted",
    "expired",
    "revoked",
    "conflict",
    "invalid",
    "frozen",
    "not_found",
    "not_yet_valid",
    "unauthorized",
    "exists",
    "closed",
    "weak_suite",
    "self_approval",
    "limit",
    "bad_signature",
    "unsupported",
    "time_quality",
    "overflow",
    "voided",
    "accepted_flagged",
)
NO_SEQ = (bytes(8), 0)
ACCEPTED = 0
ACCEPTED_FLAGGED = 22
ASSURANCES = ("system", "self", "gateway", "webauthn")
ASSURANCE_SELF = 1

_KIND = re.compile(r"[a-z][a-z0-9_.]{0,63}\Z")
_METER = re.compile(r"[\x21-\x7e]{1,64}\Z")


def name_of(names: tuple[str, ...], what: str, code: int) -> str:
    """The name of a code, or its number if it is not known, such as outcome-99."""
    return names[code] if code < len(names) else f"{what}-{code}"


@dataclass(frozen=True)
class Leaf:
    """A leaf of a tenant's log or of the system log."""

    data: bytes = field(repr=False)
    cell: int
    slot: int
    index: int
    time: int
    quality: int
    flags: int
    kind: str
    agent: bytes | None
    link_id: bytes | None
    seq: tuple[bytes, int] | None
    id: bytes | None
    payload_digest: bytes | None
    signature_digest: bytes | None
    outcome: int
    detail: bytes | None
    quantities: tuple[tuple[str, int], ...]
    epochs: tuple[int, int, int] | None
    addenda: tuple[bytes, ...]
    cause: tuple[int, int, bytes | None] | None
    account: bytes | None
    reverses: int | None
    lease: tuple[int, int, int] | None
    decision_digest: bytes | None
    assurance: int

    @property
    def hash(self) -> bytes:
        return merkle.leaf_hash(self.data)

    @property
    def accepted(self) -> bool:
        """Whether the event took effect; everything else is a refusal, whose quantities do not count."""
        return self.outcome in (ACCEPTED, ACCEPTED_FLAGGED)

    @property
    def test(self) -> bool:
        return bool(self.flags & FLAG_TEST)


def parse_kind(fields: Fields, key: int) -> str:
    kind = fields.text(key, 1, 64)
    if not _KIND.match(kind):
        raise fields.fail(key, "is no kind")
    return kind


def parse_seq(fields: Fields, key: int) -> tuple[bytes, int]:
    seq = fields.submap(key)
    value = seq.bstr(1, 8), seq.uint(2)
    seq.done()
    return value


def parse_leaf(data: bytes) -> Leaf:
    if len(data) > MAX_LEAF:
        raise DecodeError(f"a leaf has at most {MAX_LEAF} bytes, not {len(data)}")
    f = Fields(cbor.decode(data), "leaf")
    f.version()
    cell, slot, index, time = f.uint(2), f.uint(3, MAX_SLOT), f.uint(4, MAX_INDEX), f.uint(5, MAX_TIME)
    q = f.submap(6)
    quality, flags, _ = q.uint(1, 255), q.opt_uint(2, 255), q.opt_bstr(3, 64)
    q.done()
    kind, agent, link_id = parse_kind(f, 7), f.opt_id(8, 16), f.opt_id(9, 32)
    seq = parse_seq(f, 10) if f.has(10) else None
    if seq == NO_SEQ:
        raise f.fail(10, "is present although zero")
    event_id, payload, signature = f.opt_id(11, 16), f.opt_id(12, 32), f.opt_id(13, 32)
    o = f.submap(14)
    outcome, detail = o.uint(1, 255), o.opt_id(2, 32)
    o.done()
    leaf = Leaf(
        data=data,
        cell=cell,
        slot=slot,
        index=index,
        time=time,
        quality=quality,
        flags=flags,
        kind=kind,
        agent=agent,
        link_id=link_id,
        seq=seq,
        id=event_id,
        payload_digest=payload,
        signature_digest=signature,
        outcome=outcome,
        detail=detail,
        quantities=_quantities(f, 15),
        epochs=_epochs(f, 16),
        addenda=tuple(f.opt_hashes(17, 8)),
        cause=_cause(f, 18),
        account=f.opt_id(19, 16),
        reverses=_reverses(f, 20, index),
        lease=_lease(f, 21),
        decision_digest=f.opt_id(22, 32),
        assurance=f.opt_uint(23, 255),
    )
    f.done()
    return leaf


def _quantities(f: Fields, key: int) -> tuple[tuple[str, int], ...]:
    if not f.has(key):
        return ()
    pairs = []
    last = ""
    for pair in f.array(key, 1, 32):
        if not isinstance(pair, list) or len(pair) != 2:
            raise f.fail(key, "holds something other than pairs")
        meter, units = pair
        if not isinstance(meter, str) or not _METER.match(meter):
            raise f.fail(key, "has a meter that is not 1 to 64 bytes of printable ASCII")
        if type(units) is not int or units < 0:
            raise f.fail(key, "has a quantity that is not an unsigned integer")
        if meter <= last:
            raise f.fail(key, "has meters out of order, or twice")
        last = meter
        pairs.append((meter, units))
    return tuple(pairs)


def _epochs(f: Fields, key: int) -> tuple[int, int, int] | None:
    sub = f.opt_submap(key)
    if sub is None:
        return None
    value = sub.uint(1), sub.uint(2), sub.uint(3)
    sub.done()
    if value == (0, 0, 0):
        raise f.fail(key, "is present although zero")
    return value


def _cause(f: Fields, key: int) -> tuple[int, int, bytes | None] | None:
    sub = f.opt_submap(key)
    if sub is None:
        return None
    value = sub.uint(1, 255), sub.uint(2), sub.opt_bstr(3, 64)
    sub.done()
    return value


def _reverses(f: Fields, key: int, index: int) -> int | None:
    if not f.has(key):
        return None
    value = f.uint(key)
    if value >= index:
        raise f.fail(key, "names no earlier leaf")
    return value


def _lease(f: Fields, key: int) -> tuple[int, int, int] | None:
    sub = f.opt_submap(key)
    if sub is None:
        return None
    value = sub.uint(1), sub.uint(2), sub.uint(3)
    sub.done()
    if value[1] > value[2]:
        raise f.fail(key, "ends before it begins")
    return value


@dataclass(frozen=True)
class Head:
    """The head of one log in one epoch: a leaf of the heads tree."""

    data: bytes = field(repr=False)
    cell: int
    slot: int
    origin: str
    size: int
    root: bytes


def parse_origin(text: str) -> str:
    """Check an origin or key name. Raises DecodeError."""
    if not text or len(text.encode("utf-8")) > MAX_ORIGIN:
        raise DecodeError(f"a name has 1 to {MAX_ORIGIN} bytes")
    if "+" in text or any(c.isspace() or c < " " for c in text):
        raise DecodeError(f"{text[:80]!r} has a space, a control character or a plus sign")
    return text


def parse_head(data: bytes) -> Head:
    f = Fields(cbor.decode(data), "head leaf")
    f.version()
    head = Head(
        data=data,
        cell=f.uint(2),
        slot=f.uint(3, MAX_SLOT),
        origin=parse_origin(f.text(4, 1, MAX_ORIGIN)),
        size=f.uint(5, merkle.MAX_SIZE),
        root=f.bstr(6, 32),
    )
    f.done()
    if head.size == 0 and head.root != merkle.EMPTY_ROOT:
        raise DecodeError("head leaf: the root is not that of the empty tree at size 0")
    return head


@dataclass(frozen=True)
class SpineLeaf:
    """The leaf of one epoch."""

    data: bytes = field(repr=False)
    cell: int
    epoch: int
    time: int
    heads_size: int
    heads_root: bytes
    state_hash: bytes
    active_version: int
    flags: int

    @property
    def test(self) -> bool:
        return bool(self.flags & FLAG_TEST)


def parse_spine_leaf(data: bytes) -> SpineLeaf:
    f = Fields(cbor.decode(data), "spine leaf")
    f.version()
    leaf = SpineLeaf(
        data=data,
        cell=f.uint(2),
        epoch=f.uint(3),
        time=f.uint(4, MAX_TIME),
        heads_size=f.uint(5, MAX_SLOT + 1),
        heads_root=f.bstr(6, 32),
        state_hash=f.bstr(7, 32),
        active_version=f.uint(8),
        flags=f.opt_uint(9, 255),
    )
    f.done()
    if leaf.heads_size == 0 and leaf.heads_root != merkle.EMPTY_ROOT:
        raise DecodeError("spine leaf: the heads root is not that of the empty tree at size 0")
    return leaf
