"""Event proofs (docs/formats.md, 8 and 9): parse_event_proof reads a body, check runs the steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from . import cbor, composite, events, merkle
from .cbor import Fields
from .errors import EXIT_SIGNATURE, DecodeError, KeyFormatError
from .events import BatchProof, Event, Evidence, parse_event, parse_evidence, parse_link
from .prooffile import parse_spine_proof
from .records import (
    ASSURANCE_SELF,
    ASSURANCES,
    NO_SEQ,
    OUTCOMES,
    QUALITIES,
    Head,
    Leaf,
    name_of,
    parse_head,
    parse_leaf,
    parse_spine_leaf,
)
from .report import Key, Report
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


@dataclass(frozen=True)
class Registration:
    """The leaf with which the signing key was registered; head is None if it is in the proof's own log."""

    payload: bytes
    leaf: bytes
    path: list[bytes]
    head: bytes | None
    heads_path: list[bytes]


@dataclass(frozen=True)
class EventProof:
    """The body of an event proof, its parts decoded except those whose failure is a step of its own."""

    ledger_id: bytes
    tenant: bytes
    index: int
    event: Event | None
    evidence: Evidence | None
    key: tuple[int, bytes] | None
    links: list[bytes]
    leaf: Leaf
    path: list[bytes]
    bundle: Bundle
    registration: Registration | None


def parse_event_proof(body: bytes) -> EventProof:
    f = Fields(cbor.decode(body), "event proof")
    ledger_id, tenant, index = f.bstr(1, 32), f.bstr(2, 16), f.uint(3)
    payload = f.opt_bstr(4, events.MAX_EVENT)
    evidence = f.opt_submap(5)
    signed = parse_evidence(evidence) if evidence is not None else None
    key = parse_key(f.submap(6)) if f.has(6) else None
    if (signed is None) != (key is None):
        raise DecodeError("event proof: evidence and key stand there together or not at all")
    event = parse_event(payload) if payload is not None else None
    links = _byte_strings(f, 7, events.MAX_CHAIN)
    leaf, path = parse_leaf(f.bstr(8)), f.opt_hashes(9)
    head, heads_path = parse_head(f.bstr(10)), f.opt_hashes(11)
    spine, proof = parse_spine_leaf(f.bstr(12)), parse_spine_proof(f.bstr(13))
    registration = f.opt_submap(14)
    registered = _registration(registration) if registration is not None else None
    f.done()
    bundle = Bundle(head, heads_path, spine, proof)
    return EventProof(ledger_id, tenant, index, event, signed, key, links, leaf, path, bundle, registered)


def parse_key(f: Fields) -> tuple[int, bytes]:
    """A key record: (suite number, public key)."""
    key = f.uint(1, 255), f.bstr(2)
    f.done()
    return key


def _byte_strings(f: Fields, key: int, high: int) -> list[bytes]:
    if not f.has(key):
        return []
    items = f.array(key, 1, high)
    if not all(isinstance(one, bytes) for one in items):
        raise f.fail(key, "holds something other than byte strings")
    return items


def _registration(f: Fields) -> Registration:
    payload, leaf, path = f.bstr(1), f.bstr(2), f.opt_hashes(3)
    head = f.opt_bstr(4, 4096)
    heads_path = f.opt_hashes(5)
    f.done()
    if heads_path and head is None:
        raise DecodeError("registration: a heads path without a head")
    return Registration(payload, leaf, path, head, heads_path)


def check(report: Report, proof: EventProof, trust: Trust, asked) -> None:
    """Run every step after ledger and before integrity. Raises StepError at the first that does not hold."""
    leaf, head = proof.leaf, proof.bundle.head
    report.test = leaf.test or proof.bundle.spine.test
    _check_asked(report, proof, asked)
    _check_payload(report, proof)
    _check_signature(report, proof)
    chain = _check_chain(report, proof)
    if not merkle.included(leaf.hash, leaf.index, head.size, proof.path, head.root):
        raise tampered("tenant tree", f"the path does not lead from leaf {leaf.index} to the root at size {head.size}")
    report.passed("tenant tree", f"leaf {leaf.index} is in the tenant's log at size {head.size}")
    check_head(report, head, proof.bundle.heads_path, proof.bundle, proof.tenant)
    _check_registration(report, proof)
    check_spine(report, proof.bundle)
    spine = proof.bundle.spine
    check_checkpoint(report, trust, proof.bundle.proof.checkpoint, spine.time)
    check_age(report, spine.time, asked)
    report.as_of, report.epoch = time_text(spine.time), spine.epoch
    report.subject = _subject(proof, chain)
    _conclude(report, proof, trust)


def _check_asked(report: Report, proof: EventProof, asked) -> None:
    leaf, head = proof.leaf, proof.bundle.head
    if leaf.index != proof.index:
        raise tampered("asked", f"the leaf has index {leaf.index}, the file says {proof.index}")
    if (leaf.slot, leaf.cell) != (head.slot, head.cell):
        raise tampered("asked", "leaf and head are of two logs")
    asked.check_tenant(proof.tenant)
    asked.check_index(proof.index)
    report.passed("asked", f"leaf {proof.index} of tenant {id_text(proof.tenant)}")


def _check_payload(report: Report, proof: EventProof) -> None:
    leaf, event = proof.leaf, proof.event
    if event is None:
        none = leaf.payload_digest is None
        report.skipped(
            "payload",
            "a leaf of the ledger itself, without an event"
            if none
            else "the event is not in the file: erased, or left out; its digest stands in the leaf",
        )
        report.skipped("identity", "no event to compare with")
        return
    if events.payload_digest(event.data) != leaf.payload_digest:
        raise tampered("payload", "the event is not the one whose digest stands in the leaf", EXIT_SIGNATURE)
    report.passed("payload", f"the event of {len(event.data)} bytes is the one whose digest stands in the leaf")
    _check_identity(event, leaf, proof.ledger_id, proof.tenant)
    report.passed("identity", "ledger, tenant, id, kind, agent, chain, sequence, account and addenda are the leaf's")


def _check_identity(event: Event, leaf: Leaf, ledger_id: bytes, tenant: bytes) -> None:
    pairs = (
        ("ledger", event.ledger_id, ledger_id),
        ("tenant", event.tenant, tenant),
        ("id", event.id, leaf.id or events.ZERO_ID),
        ("kind", event.kind, leaf.kind),
        ("agent", event.agent, leaf.agent or events.ZERO_ID),
        ("chain", event.link_id, leaf.link_id or events.ZERO_DIGEST),
        ("sequence", event.seq, leaf.seq or NO_SEQ),
        ("account", event.account, leaf.account or events.ZERO_ID),
        ("addenda", event.addenda, leaf.addenda),
    )
    for name, have, want in pairs:
        if have != want:
            raise tampered("identity", f"the event's {name} is not the leaf's", EXIT_SIGNATURE)


def _check_signature(report: Report, proof: EventProof) -> None:
    leaf, evidence = proof.leaf, proof.evidence
    if evidence is None or proof.key is None:
        if leaf.signature_digest is None:
            report.skipped("signature", "a leaf of the ledger itself, without a signature")
        else:
            report.skipped("signature", "the signature is not in the file: its digest stands in the leaf")
        return

    def bad(detail: str) -> Exception:
        return tampered("signature", detail, EXIT_SIGNATURE)

    if hashlib.sha256(evidence.signature).digest() != leaf.signature_digest:
        raise bad("the signature is not the one whose digest stands in the leaf")
    try:
        key = composite.PublicKey(*proof.key)
    except KeyFormatError as err:
        raise bad(str(err)) from None
    if key.id != evidence.key_id:
        raise bad("the key has not the id that is named")
    report.keys.append(Key("agent", id_text(leaf.agent) if leaf.agent and proof.event else "", key.id.hex()))
    batch = evidence.batch
    if batch is None:
        if proof.event is None:
            report.skipped("signature", "the event is not in the file, and only over it a signature of one event can be checked")
            return
        if not key.verify(events.pae(proof.event.data), evidence.signature, composite.CTX_EVENT):
            raise bad("the signature does not hold")
        report.passed("signature", f"signed alone by key {key.id.hex()[:16]}… ({composite.SUITE_NAME})")
        return
    _check_batch(batch, proof, key, bad)
    if not key.verify(batch.statement, evidence.signature, composite.CTX_BATCH):
        raise bad("the signature does not hold")
    report.passed("signature", f"number {batch.k} of a batch of {batch.n}, signed by key {key.id.hex()[:16]}… ({composite.SUITE_NAME})")


def _check_batch(batch: BatchProof, proof: EventProof, key: composite.PublicKey, bad) -> None:
    if batch.version != 1:
        raise bad("the batch is of an unknown version")
    if not 1 <= batch.n <= events.MAX_BATCH or batch.k >= batch.n:
        raise bad(f"the batch has {batch.n} events, and this is number {batch.k}")
    if (batch.ledger_id, batch.tenant, batch.key_id) != (proof.ledger_id, proof.tenant, key.id):
        raise bad("the batch is of another ledger, tenant or key")
    if proof.leaf.payload_digest is None:
        raise bad("a batch over a leaf without an event")
    if not merkle.included(proof.leaf.payload_digest, batch.k, batch.n, batch.path, batch.root):
        raise bad("the path does not lead from the event to the batch's root")


def _check_chain(report: Report, proof: EventProof) -> list[bytes]:
    """The identities of the chain, the agent last; [] if no chain was checked."""
    leaf, links = proof.leaf, proof.links
    if not links:
        if leaf.link_id is None:
            report.skipped("chain", "the agent acts for itself")
        else:
            report.skipped("chain", f"the links are not in the file; the chain's id {leaf.link_id.hex()[:16]}… stands in the leaf")
        return []

    def bad(detail: str) -> Exception:
        return tampered("chain", detail, EXIT_SIGNATURE)

    want, subject = leaf.link_id, leaf.agent or events.ZERO_ID
    chain = [subject]
    for i, body in enumerate(links):
        try:
            link = parse_link(body)
        except DecodeError as err:
            raise bad(f"link {i}: {err}") from None
        if link.id != want:
            raise bad(f"link {i} is not the one that is named")
        if (link.ledger_id, link.tenant) != (proof.ledger_id, proof.tenant):
            raise bad(f"link {i} is of another ledger or tenant")
        if link.subject != subject:
            if i == 0 and leaf.outcome != 0:
                report.skipped("chain", f"the leaf names a link that was given to {id_text(link.subject)}, not to its agent")
                return []
            raise bad(f"link {i} was given to somebody else")
        if link.depth != len(links) - 1 - i or (link.parent is None) != (link.depth == 0):
            raise bad(f"link {i} has another depth than its place in the chain")
        want, subject = link.parent, link.issuer
        chain.insert(0, subject)
    report.passed(
        "chain",
        f"{len(links)} links from {id_text(chain[0])} to {id_text(chain[-1])}, by hash; their signatures were checked when they were registered",
    )
    return chain


def _check_registration(report: Report, proof: EventProof) -> None:
    reg = proof.registration
    if reg is None:
        report.skipped("registration", "the key's own leaf is not in the file: whose key it was is vouched for by the node quorum")
        return
    head, tenant = proof.bundle.head, proof.tenant
    try:
        leaf = parse_leaf(reg.leaf)
        if reg.head is not None:
            head, tenant = parse_head(reg.head), SYSTEM_TENANT
        event = parse_event(reg.payload)
        owner, suite, public = events.registered_key(event)
    except DecodeError as err:
        raise tampered("registration", str(err)) from None
    if reg.head is not None:
        check_head(report, head, reg.heads_path, proof.bundle, SYSTEM_TENANT)
    _check_registration_leaf(proof, leaf, head, event, tenant)
    if (suite, public) != proof.key:
        raise tampered("registration", "the registration is of another key")
    if proof.leaf.assurance == ASSURANCE_SELF and owner != (proof.leaf.agent or events.ZERO_ID):
        raise tampered("registration", f"the key was registered for {id_text(owner)}, not for the agent")
    if not merkle.included(leaf.hash, leaf.index, head.size, reg.path, head.root):
        raise tampered("registration", f"the path does not lead from leaf {leaf.index} to the root at size {head.size}")
    report.passed("registration", f"the key was registered for {id_text(owner)} by leaf {leaf.index} of {head.origin}")


def _check_registration_leaf(proof: EventProof, leaf: Leaf, head: Head, event: Event, tenant: bytes) -> None:
    if proof.key is None:
        raise tampered("registration", "a registration without the key it registers")
    if (leaf.slot, leaf.cell) != (head.slot, head.cell):
        raise tampered("registration", "the registration is of another log than its head")
    if head is proof.bundle.head and leaf.index > proof.leaf.index:
        raise tampered("registration", "the key was registered after it signed")
    if not leaf.accepted:
        raise tampered("registration", "the registration was refused")
    if events.payload_digest(event.data) != leaf.payload_digest:
        raise tampered("registration", "the registration's leaf is of another event")
    if (event.kind, event.ledger_id, event.tenant) != (leaf.kind, proof.ledger_id, tenant):
        raise tampered("registration", "the registration's event and leaf differ")


def _subject(proof: EventProof, chain: list[bytes]) -> dict:
    leaf = proof.leaf
    subject = {
        "ledger_id": proof.ledger_id.hex(),
        "tenant": id_text(proof.tenant),
        "cell": str(leaf.cell),
        "slot": leaf.slot,
        "index": str(leaf.index),
        "time": time_text(leaf.time),
        "kind": leaf.kind,
    }
    if leaf.agent:
        subject["agent"] = id_text(leaf.agent)
    if chain:
        subject["chain"] = [id_text(one) for one in chain]
    if leaf.account:
        subject["account"] = id_text(leaf.account)
    subject["outcome"] = name_of(OUTCOMES, "outcome", leaf.outcome)
    subject["assurance"] = name_of(ASSURANCES, "assurance", leaf.assurance)
    subject["time_quality"] = name_of(QUALITIES, "quality", leaf.quality)
    subject["payload"] = "present" if proof.event else "absent" if leaf.payload_digest else "none"
    subject["leaf_hash"] = leaf.hash.hex()
    if leaf.quantities:
        subject["quantities"] = {meter: str(units) for meter, units in leaf.quantities}
    return subject


def _conclude(report: Report, proof: EventProof, trust: Trust) -> None:
    leaf, event, evidence = proof.leaf, proof.event, proof.evidence
    outcome = name_of(OUTCOMES, "outcome", leaf.outcome)
    if evidence is not None and event is not None:
        who = id_text(leaf.agent or events.ZERO_ID)
        report.statement.append(f"signed by: key {evidence.key_id.hex()} over the event (kind {leaf.kind}, agent {who})")
    elif evidence is not None and evidence.batch is not None:
        report.statement.append(f"signed by: key {evidence.key_id.hex()} over an event with the digest that stands in the leaf")
    report.statement += [
        f'included: leaf {leaf.index} of tenant {id_text(proof.tenant)} at commit time {time_text(leaf.time)} with outcome "{outcome}"',
        f"{vouched(trust)}: that this head is the only one of its log in epoch {report.epoch}, and that keys, chain, verdict, outcome, "
        "quantities and time were as the leaf says",
    ]
    if event is None and leaf.payload_digest is not None:
        report.not_proved.append(
            "what the event said, its kind and agent included: the event is not in the file, and that the leaf says the same is the node quorum's word"
        )
    if proof.registration is None and evidence is not None:
        report.not_proved.append("whose key it is: that is the node quorum's word, since the key's own leaf is not in the file")
    if event is not None and event.kind == "attestation.sandbox":
        report.not_proved.append("what the in-toto statement in the event says, and who signed it: this program does not read statements")
    report.not_proved += [
        "that what the event reports is true: the ledger proves that it was said, by whom and when",
        "that nothing else happened: a completeness file proves that for a period",
        f"anything after {report.as_of}: a later leaf may reverse, void or revoke",
    ]
    if report.test:
        report.not_proved.append("real time: this is a test ledger whose clock can be moved")
