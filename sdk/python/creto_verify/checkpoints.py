"""Files about checkpoints alone: consistency files, checkpoint notes and bare tlog-proofs (docs/formats.md, 8 and 9)."""

from __future__ import annotations

from dataclasses import dataclass

from . import cbor, merkle
from .cbor import Fields
from .errors import EXIT_CONSISTENCY, EXIT_MALFORMED, MALFORMED, NOT_ASKED, DecodeError, StepError
from .note import Checkpoint, Note, checkpoint_of, parse_checkpoint
from .prooffile import TlogProof
from .report import Report
from .spineproof import check_age, check_checkpoint, tampered, vouched
from .text import NANOSECOND, time_text
from .trust import Endorsement, Trust


@dataclass(frozen=True)
class ConsistencyProof:
    ledger_id: bytes
    earlier: Checkpoint
    later: Checkpoint
    path: list[bytes]


def parse_consistency(body: bytes) -> ConsistencyProof:
    f = Fields(cbor.decode(body), "consistency file")
    proof = ConsistencyProof(f.bstr(1, 32), parse_checkpoint(f.bstr(2)), parse_checkpoint(f.bstr(3)), f.opt_hashes(4))
    f.done()
    if proof.earlier.origin != proof.later.origin:
        raise DecodeError("consistency file: the two notes are of two logs")
    if not 0 < proof.earlier.size <= proof.later.size:
        raise DecodeError("consistency file: the earlier note has no leaves, or more than the later one")
    return proof


def check_consistency(report: Report, proof: ConsistencyProof, trust: Trust, asked) -> None:
    """Steps asked, checkpoint (twice), consistency and age. Raises StepError."""
    one, two = proof.earlier, proof.later
    report.passed("asked", f"{one.origin} at sizes {one.size} and {two.size}")
    check_checkpoint(report, trust, one)
    later = check_checkpoint(report, trust, two)
    if not merkle.consistent(one.size, one.root, two.size, two.root, proof.path):
        raise tampered("consistency", f"the path does not lead from the root at size {one.size} to that at {two.size}", EXIT_CONSISTENCY)
    report.passed("consistency", f"the tree of size {one.size} is a prefix of that of size {two.size}")
    check_age(report, _time(later), asked)
    report.as_of = _as_of(later)
    report.statement += [
        f"consistent: {two.origin} at size {two.size} holds every leaf that it held at size {one.size}, unchanged and in its place",
        f"{vouched(trust)}: that {one.origin} had root {one.root.hex()} at size {one.size} and root {two.root.hex()} at size {two.size}",
    ]
    report.not_proved += [
        "anything about a single entry: an event proof does that",
        "that everybody was shown these two heads: compare the first with the checkpoint that you kept",
        f"anything after size {two.size}",
    ]


def _checkpoint(note: Note) -> Checkpoint:
    """Read a bare note as a checkpoint: a part of step checkpoint."""
    try:
        return checkpoint_of(note)
    except DecodeError as err:
        raise StepError("checkpoint", EXIT_MALFORMED, MALFORMED, str(err)) from None


def check_note(report: Report, note: Note, trust: Trust, asked) -> None:
    """Steps checkpoint and age of a checkpoint file. Raises StepError."""
    checkpoint = _checkpoint(note)
    endorsement = check_checkpoint(report, trust, checkpoint)
    check_age(report, _time(endorsement), asked)
    report.as_of = _as_of(endorsement)
    report.statement.append(f"{vouched(trust)}: {checkpoint.origin} had {checkpoint.size} leaves and root {checkpoint.root.hex()}")
    report.not_proved += [
        "anything about a single entry: an event proof does that",
        "that an earlier checkpoint you hold is a prefix of this one: that takes a consistency proof",
    ]


def check_tlog_proof(report: Report, proof: TlogProof, note: Note, trust: Trust, asked) -> None:
    """Steps checkpoint, tenant tree and age of a bare tlog-proof, whose entry the caller gives. Raises StepError."""
    entry, checkpoint = asked.entry, _checkpoint(note)
    endorsement = check_checkpoint(report, trust, checkpoint)
    if not merkle.included(merkle.leaf_hash(entry), proof.index, checkpoint.size, proof.path, checkpoint.root):
        raise tampered("tenant tree", f"the path does not lead from the entry at {proof.index} to the root at size {checkpoint.size}")
    report.passed("tenant tree", f"the entry is leaf {proof.index} of {checkpoint.origin} at size {checkpoint.size}")
    check_age(report, _time(endorsement), asked)
    report.as_of = _as_of(endorsement)
    report.statement.append(f"included: the entry is leaf {proof.index} of {checkpoint.origin}, {vouched(trust)}")
    if proof.extra:
        report.not_proved.append("the extra data of the proof: nothing authenticates it")
    report.not_proved.append("who signed what the entry reports")


def entry_missing() -> StepError:
    return StepError("file", EXIT_MALFORMED, NOT_ASKED, "a tlog-proof does not hold its entry: give the entry's bytes beside it")


def _time(endorsement: Endorsement) -> int | None:
    oldest = endorsement.oldest
    return None if oldest is None else oldest * NANOSECOND


def _as_of(endorsement: Endorsement) -> str:
    at = _time(endorsement)
    return "unknown" if at is None else time_text(at)
