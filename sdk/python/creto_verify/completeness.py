"""Completeness files (docs/formats.md, 8 and 9), read frame by frame: memory does not grow with the file.

read_header(file) gives the header, check(…) runs the steps, intact(file, count) says whether its end frame fits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from . import cbor, events, merkle
from .cbor import Fields
from .errors import (
    DAMAGED,
    EXIT_CONSISTENCY,
    EXIT_MALFORMED,
    EXIT_SIGNATURE,
    MALFORMED,
    DecodeError,
    StepError,
)
from .events import payload_digest
from .keyleaves import KeyHistory
from .prooffile import parse_spine_proof
from .records import (
    MAX_INDEX,
    MAX_LEAF,
    MAX_SLOT,
    MAX_TIME,
    OUTCOMES,
    Leaf,
    name_of,
    parse_head,
    parse_leaf,
    parse_spine_leaf,
)
from .report import Report
from .spineproof import (
    SYSTEM_TENANT,
    Bundle,
    check_age,
    check_checkpoint,
    check_head,
    check_spine,
    tampered,
    vouched,
)
from .text import id_text, time_text
from .trust import Trust

MAGIC = b"creto-completeness/v1\n"
FRAME_HEADER, FRAME_LEAF, FRAME_PAYLOAD, FRAME_END = 1, 2, 3, 255
MAX_HEADER = 512 << 10
# More kinds, outcomes or meters than this are not counted, and the report says so: no file makes it grow without bound.
MAX_TALLY = 1024
END_SIZE = 40
_LIMITS = {FRAME_HEADER: MAX_HEADER, FRAME_LEAF: MAX_LEAF, FRAME_PAYLOAD: events.MAX_EVENT, FRAME_END: END_SIZE}


@dataclass(frozen=True)
class Header:
    """What the file is about: the leaves [a, b) of a log, all that it has in [begin, end) nanoseconds."""

    ledger_id: bytes
    tenant: bytes
    cell: int
    slot: int
    begin: int
    end: int
    a: int
    b: int
    compact: list[bytes]
    first: Bundle | None
    last: Bundle


def intact(file: BinaryIO, count: int) -> bool:
    """Whether the first end frame counts so many leaves, has the checksum of everything before it, and ends the file.

    Reads from the beginning of the file and leaves it where it was.
    """
    before = file.tell()
    file.seek(0)
    try:
        digest = hashlib.sha256(file.read(len(MAGIC)))
        while True:
            kind, content = _frame(file)
            if kind == FRAME_END:
                return content == count.to_bytes(8, "big") + digest.digest() and not file.read(1)
            digest.update(bytes((kind,)) + len(content).to_bytes(4, "big"))
            digest.update(content)
    except DecodeError:
        return False
    finally:
        file.seek(before)


def _frame(file: BinaryIO) -> tuple[int, bytes]:
    head = file.read(5)
    if len(head) < 5:
        raise DecodeError("the file ends early")
    kind, size = head[0], int.from_bytes(head[1:], "big")
    if kind not in _LIMITS:
        raise DecodeError(f"a frame of unknown type {kind}")
    if size > _LIMITS[kind]:
        raise DecodeError(f"{size} bytes in a frame of type {kind}")
    content = file.read(size)
    if len(content) < size:
        raise DecodeError("the file ends early")
    return kind, content


def read_header(file: BinaryIO) -> Header:
    """Read magic and header. Raises DecodeError."""
    if file.read(len(MAGIC)) != MAGIC:
        raise DecodeError("no completeness file")
    kind, content = _frame(file)
    if kind != FRAME_HEADER:
        raise DecodeError(f"the first frame is of type {kind}")
    return _parse_header(content)


def _parse_header(data: bytes) -> Header:
    f = Fields(cbor.decode(data), "completeness header")
    f.version()
    header = Header(
        ledger_id=f.bstr(2, 32),
        tenant=f.bstr(3, 16),
        cell=f.uint(4),
        slot=f.uint(5, MAX_SLOT),
        begin=f.uint(6, MAX_TIME),
        end=f.uint(7, MAX_TIME),
        a=f.uint(8, MAX_INDEX + 1),
        b=f.uint(9, MAX_INDEX + 1),
        compact=f.opt_hashes(10),
        first=_parse_bundle(f, 11) if f.has(11) else None,
        last=_parse_bundle(f, 12),
    )
    f.done()
    if header.begin > header.end or header.a > header.b:
        raise DecodeError("completeness header: a period or range that ends before it begins")
    if (header.first is None) != (header.a == 0):
        raise DecodeError("completeness header: a start head exactly if the range does not begin at leaf 0")
    if header.first is not None and header.first.proof.note != header.last.proof.note:
        raise DecodeError("completeness header: two checkpoints")
    return header


def _parse_bundle(f: Fields, key: int) -> Bundle:
    sub = f.submap(key)
    bundle = Bundle(
        parse_head(sub.bstr(1)),
        sub.opt_hashes(2),
        parse_spine_leaf(sub.bstr(3)),
        parse_spine_proof(sub.bstr(4)),
    )
    sub.done()
    return bundle


@dataclass
class Tally:
    """What the leaves of the period add up to. Quantities of accepted leaves count; those of a leaf that reverses another one subtract."""

    leaves: int = 0
    payloads: int = 0
    first_time: int | None = None
    last_time: int | None = None
    outcomes: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    partial: bool = False

    def add(self, leaf: Leaf) -> None:
        self.leaves += 1
        if self.first_time is None:
            self.first_time = leaf.time
        self.last_time = leaf.time
        self._count(self.outcomes, name_of(OUTCOMES, "outcome", leaf.outcome), 1)
        self._count(self.kinds, leaf.kind, 1)
        if leaf.accepted:
            sign = 1 if leaf.reverses is None else -1
            for meter, units in leaf.quantities:
                self._count(self.totals, meter, sign * units)

    def _count(self, into: dict[str, int], name: str, number: int) -> None:
        if name not in into and len(into) >= MAX_TALLY:
            self.partial = True
        else:
            into[name] = into.get(name, 0) + number


def check(report: Report, header: Header, file: BinaryIO, trust: Trust, asked) -> KeyHistory | None:
    """Run every step after ledger and before integrity; the file stands behind its header. Raises StepError.

    Gives the history of keys, for step keys, of a whole system log.
    """
    _check_asked(report, header, asked)
    for bundle, size in ((header.first, header.a), (header.last, header.b)):
        if bundle is not None:
            head = bundle.head
            report.test = report.test or bundle.spine.test
            if (head.slot, head.cell, head.size) != (header.slot, header.cell, size):
                raise tampered("heads tree", f"the head of epoch {bundle.spine.epoch} is of another log or size than the header says")
            check_head(report, bundle.head, bundle.heads_path, bundle, header.tenant)
            check_spine(report, bundle)
    _check_epochs(report, header)
    last = header.last
    check_checkpoint(report, trust, last.proof.checkpoint, last.spine.time)
    check_age(report, last.spine.time, asked)
    history = KeyHistory(header.ledger_id) if header.tenant == SYSTEM_TENANT and header.a == 0 else None
    tally = _check_leaves(report, header, file, history)
    report.as_of, report.epoch = time_text(last.spine.time), last.spine.epoch
    _conclude(report, header, tally, trust)
    return history


def _check_asked(report: Report, header: Header, asked) -> None:
    asked.check_tenant(header.tenant)
    asked.check_period(header.begin, header.end)
    report.passed("asked", f"tenant {id_text(header.tenant)}, from {time_text(header.begin)} until before {time_text(header.end)}")


def _check_epochs(report: Report, header: Header) -> None:
    first, last = header.first, header.last

    def bad(detail: str) -> StepError:
        return tampered("epochs", detail, EXIT_CONSISTENCY)

    if last.spine.time < header.end:
        raise bad(f"the end epoch is of {time_text(last.spine.time)}, before the end of the period")
    if first is None:
        report.passed("epochs", f"from the log's first leaf through epoch {last.spine.epoch} ({time_text(last.spine.time)})")
        return
    if first.spine.time > header.begin:
        raise bad(f"the start epoch is of {time_text(first.spine.time)}, after the beginning of the period")
    if first.spine.epoch > last.spine.epoch or first.spine.time > last.spine.time:
        raise bad("the start epoch comes after the end epoch")
    report.passed(
        "epochs",
        f"from epoch {first.spine.epoch} ({time_text(first.spine.time)}) through epoch {last.spine.epoch} ({time_text(last.spine.time)})",
    )


def _frames(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    while True:
        try:
            kind, content = _frame(file)
        except DecodeError as err:
            raise StepError("file", EXIT_MALFORMED, DAMAGED, str(err)) from None
        yield kind, content
        if kind == FRAME_END:
            return


def _check_leaves(report: Report, header: Header, file: BinaryIO, history: KeyHistory | None) -> Tally:
    """Step leaves: every one in its place, and together the end head's root."""
    tally = Tally()
    try:
        compact = merkle.CompactRange(header.a, header.compact)
    except ValueError as err:
        raise tampered("leaves", str(err), EXIT_CONSISTENCY) from None
    if header.first is not None and compact.root() != header.first.head.root:
        raise tampered("leaves", "the compact range does not give the root of the start head", EXIT_CONSISTENCY)
    low = header.first.spine.time if header.first is not None else -1
    high = header.last.spine.time
    last_time = low
    leaf: Leaf | None = None
    for kind, content in _frames(file):
        if kind == FRAME_LEAF:
            if history is not None and leaf is not None:
                history.add(leaf, None)
            leaf = _leaf(content, header, compact.size, last_time, low, high)
            last_time = leaf.time
            compact.append(leaf.hash)
            report.test = report.test or leaf.test
            if header.begin <= leaf.time < header.end:
                tally.add(leaf)
        elif kind == FRAME_PAYLOAD and leaf is not None:
            if payload_digest(content) != leaf.payload_digest:
                raise tampered("payload", f"the event behind leaf {leaf.index} is not the one whose digest stands in it", EXIT_SIGNATURE)
            tally.payloads += 1
            if history is not None:
                history.add(leaf, content)
            leaf = None
        elif kind != FRAME_END:
            raise StepError("file", EXIT_MALFORMED, MALFORMED, f"a frame of type {kind} in the wrong place")
    if history is not None and leaf is not None:
        history.add(leaf, None)
    if compact.size != header.b:
        raise tampered("leaves", f"{compact.size - header.a} leaves instead of {header.b - header.a}")
    if compact.root() != header.last.head.root:
        raise tampered("leaves", f"the leaves do not give the root of the end head at size {header.b}", EXIT_CONSISTENCY)
    report.passed("leaves", f"{header.b - header.a} leaves, without a gap, rebuild the root at size {header.b}")
    return tally


def _leaf(content: bytes, header: Header, index: int, last_time: int, low: int, high: int) -> Leaf:
    try:
        leaf = parse_leaf(content)
    except DecodeError as err:
        raise tampered("leaves", f"leaf {index}: {err}") from None
    if index >= header.b or leaf.index != index:
        raise tampered("leaves", f"leaf {leaf.index} where leaf {index} belongs")
    if (leaf.slot, leaf.cell) != (header.slot, header.cell):
        raise tampered("leaves", f"leaf {index} is of another log")
    if leaf.time <= last_time and not (leaf.time == low and index == header.a):
        raise tampered("leaves", f"the time of leaf {index} does not increase")
    if not low <= leaf.time <= high:
        raise tampered("leaves", f"leaf {index} has a time outside of its epochs")
    return leaf


def _conclude(report: Report, header: Header, tally: Tally, trust: Trust) -> None:
    begin, end, tenant = time_text(header.begin), time_text(header.end), id_text(header.tenant)
    report.period = {
        "from": begin,
        "to": end,
        "first_leaf": str(header.a),
        "end_leaf": str(header.b),
        "leaves": str(tally.leaves),
        "outcomes": dict(sorted(tally.outcomes.items())),
        "kinds": dict(sorted(tally.kinds.items())),
        "totals": {meter: str(units) for meter, units in sorted(tally.totals.items())},
        "payloads": str(tally.payloads),
    }
    if tally.first_time is not None and tally.last_time is not None:
        report.period["first_time"], report.period["last_time"] = time_text(tally.first_time), time_text(tally.last_time)
    if tally.partial:
        report.period["partial"] = True
    report.statement += [
        f"complete: these {tally.leaves} leaves are all that tenant {tenant} has with a commit time from {begin} until before {end}",
        f"{vouched(trust)}: that the two heads are the only ones of this log in their epochs, and that verdicts, outcomes, quantities and "
        "times are as the leaves say",
    ]
    report.not_proved += [
        "that every event reached the ledger: gaps in an agent's own sequence numbers show what did not",
        "that what the events report is true",
        "the signatures over the events: event proofs show them one by one",
        f"anything after {report.as_of}: a later leaf may reverse or void one of these",
    ]
    if report.test:
        report.not_proved.append("real time: this is a test ledger whose clock can be moved")
