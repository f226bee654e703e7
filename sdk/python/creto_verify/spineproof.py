"""From a head leaf to an endorsed checkpoint: the part that event proofs and completeness files share (docs/formats.md, 9)."""

from __future__ import annotations

from dataclasses import dataclass

from . import merkle
from .errors import EXIT_INCLUSION, EXIT_UNTRUSTED, OUT_OF_DATE, TAMPERING, StepError
from .note import Checkpoint
from .prooffile import SPINE_SUFFIX, SpineProof
from .records import Head, SpineLeaf
from .report import Key, Report
from .text import NANOSECOND, id_text, time_text
from .trust import Endorsement, EndorsementError, Trust

SYSTEM_TENANT = bytes(16)


def tampered(step: str, detail: str, code: int = EXIT_INCLUSION) -> StepError:
    return StepError(step, code, TAMPERING, detail)


def origin_of(cluster: str, tenant: bytes) -> str:
    """The origin of a tenant's log; the zero id is the system log."""
    return f"{cluster}/system" if tenant == SYSTEM_TENANT else f"{cluster}/t/{id_text(tenant)}"


@dataclass(frozen=True)
class Bundle:
    """A head with what leads from it to a checkpoint."""

    head: Head
    heads_path: list[bytes]
    spine: SpineLeaf
    proof: SpineProof


def check_head(report: Report, head: Head, path: list[bytes], bundle: Bundle, tenant: bytes) -> None:
    """Step heads tree: the head is the tenant's, and the one of its slot in the epoch."""
    spine = bundle.spine
    cluster = bundle.proof.checkpoint.origin.removesuffix(SPINE_SUFFIX)
    if head.origin != origin_of(cluster, tenant):
        raise tampered("heads tree", f"the head is of {head.origin}, not of {origin_of(cluster, tenant)}")
    if (head.slot == 0) != (tenant == SYSTEM_TENANT):
        raise tampered("heads tree", f"slot {head.slot} is not that of {head.origin}")
    if head.cell != spine.cell:
        raise tampered("heads tree", "head and spine leaf are of two cells")
    if not merkle.included(merkle.leaf_hash(head.data), head.slot, spine.heads_size, path, spine.heads_root):
        raise tampered("heads tree", f"the path does not lead from the head of slot {head.slot} to the heads root")
    report.passed(
        "heads tree",
        f"{head.origin} has {head.size} leaves and this root in epoch {spine.epoch}: the one head of slot {head.slot}",
    )


def check_spine(report: Report, bundle: Bundle) -> None:
    """Step spine: the spine leaf is the checkpoint's leaf of its epoch."""
    spine, proof = bundle.spine, bundle.proof
    if spine.epoch != proof.index + 1:
        raise tampered("spine", f"epoch {spine.epoch} cannot be leaf {proof.index} of the spine")
    checkpoint = proof.checkpoint
    if not merkle.included(merkle.leaf_hash(spine.data), proof.index, checkpoint.size, proof.path, checkpoint.root):
        raise tampered("spine", "the path does not lead from the spine leaf to the checkpoint's root")
    report.passed("spine", f"epoch {spine.epoch} is leaf {proof.index} of the spine at size {checkpoint.size}")


def check_checkpoint(report: Report, trust: Trust, checkpoint: Checkpoint, spine_time: int | None = None) -> Endorsement:
    """Step checkpoint: the note is endorsed. spine_time: Unix nanoseconds of the proven spine leaf."""
    try:
        endorsement = trust.endorse(checkpoint, spine_time)
    except EndorsementError as err:
        raise StepError("checkpoint", EXIT_UNTRUSTED, TAMPERING if err.forged else OUT_OF_DATE, str(err)) from None
    report.keys.append(Key("log", endorsement.log.name, endorsement.log.key_id.hex()))
    for c in endorsement.cosignatures:
        report.keys.append(Key("cosigner", c.key.name, c.key.key_id.hex(), time_text(c.seconds * NANOSECOND)))
    quorum = f'quorum "{trust.quorum}" is reached' if trust.quorum is not None else "no cosigners are asked for"
    report.passed(
        "checkpoint",
        f"{checkpoint.origin} at size {checkpoint.size}, signed by the log key and {len(endorsement.cosignatures)} known cosigners: {quorum}",
    )
    return endorsement


def vouched(trust: Trust) -> str:
    """Who answers for what an endorsed checkpoint commits to."""
    if trust.quorum is None:
        return "vouched for by the log key alone"
    return f'vouched for by the node quorum ("{trust.quorum}" of the trust file)'


def check_age(report: Report, at: int | None, asked) -> None:
    """Step age, if the caller asked for it. at: Unix nanoseconds of the head, None if nothing says it."""
    if asked.max_age is None:
        return
    if at is None:
        raise StepError("age", EXIT_UNTRUSTED, OUT_OF_DATE, "nothing in the file says how old the head is")
    age = asked.now - at
    if age > asked.max_age:
        raise StepError("age", EXIT_UNTRUSTED, OUT_OF_DATE, f"the head is {age // NANOSECOND} s old, more than {asked.max_age // NANOSECOND} s")
    report.passed("age", f"the head is {max(age, 0) // NANOSECOND} s old")
