"""Receipts (docs/formats.md, 8): a node's signed promise of a leaf, alone or with others of the same command."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import cbor, composite, merkle
from .cbor import Fields
from .errors import (
    EXIT_SIGNATURE,
    EXIT_UNTRUSTED,
    OUT_OF_DATE,
    DecodeError,
    KeyFormatError,
    StepError,
)
from .eventproof import parse_key
from .prooffile import MAX_FILE
from .records import MAX_INDEX, MAX_SLOT, MAX_TIME, OUTCOMES, name_of, parse_leaf
from .report import Key, Report
from .spineproof import tampered
from .text import id_text, time_text
from .trust import Trust

MAX_RECEIPTS = 4096


@dataclass(frozen=True)
class Receipt:
    """A receipt and the signature over it. statement is what the node signed but for the root, which the path gives."""

    data: bytes = field(repr=False)
    version: int
    ledger_id: bytes
    tenant: bytes
    slot: int
    index: int
    leaf_hash: bytes
    time: int
    outcome: int
    node: bytes
    key_id: bytes
    n: int
    k: int
    path: list[bytes]
    signature: bytes = field(repr=False)
    key: tuple[int, bytes] = field(repr=False)
    leaf: bytes | None = field(repr=False)


def parse_receipt_file(body: bytes) -> Receipt:
    f = Fields(cbor.decode(body), "receipt file")
    signed = f.submap(1)
    version, data, node, key_id = signed.uint(1), signed.bstr(2), signed.bstr(3, 16), signed.bstr(4, 32)
    n, k, path = signed.uint(5), signed.uint(6), signed.opt_hashes(7)
    signature = signed.bstr(8)
    signed.done()
    key = parse_key(f.submap(2))
    leaf = f.bstr(3, 1, MAX_FILE) if f.has(3) else None
    f.done()
    r = Fields(cbor.decode(data), "receipt")
    r.version()
    receipt = Receipt(
        data=data,
        version=version,
        ledger_id=r.bstr(2, 32),
        tenant=r.bstr(3, 16),
        slot=r.uint(4, MAX_SLOT),
        index=r.uint(5, MAX_INDEX),
        leaf_hash=r.bstr(6, 32),
        time=r.uint(7, MAX_TIME),
        outcome=r.uint(8, 255),
        node=node,
        key_id=key_id,
        n=n,
        k=k,
        path=path,
        signature=signature,
        key=key,
        leaf=leaf,
    )
    r.done()
    return receipt


def check(report: Report, receipt: Receipt, trust: Trust, asked) -> None:
    """Steps asked, receipt and payload. Raises StepError."""
    asked.check_tenant(receipt.tenant)
    asked.check_index(receipt.index)
    report.passed("asked", f"leaf {receipt.index} of tenant {id_text(receipt.tenant)}")
    _check_signature(report, receipt, trust)
    _check_leaf(report, receipt)
    outcome = name_of(OUTCOMES, "outcome", receipt.outcome)
    report.as_of = time_text(receipt.time)
    report.subject = {
        "ledger_id": receipt.ledger_id.hex(),
        "tenant": id_text(receipt.tenant),
        "cell": "0",
        "slot": receipt.slot,
        "index": str(receipt.index),
        "time": report.as_of,
        "outcome": outcome,
        "payload": "none",
        "leaf_hash": receipt.leaf_hash.hex(),
    }
    report.statement.append(
        f"promised: node {id_text(receipt.node)} signed that leaf {receipt.index} of tenant {id_text(receipt.tenant)} has this hash, "
        f'time {report.as_of} and outcome "{outcome}"'
    )
    report.not_proved += [
        "that the leaf is in the published log: fetch its event proof once it is published; a proof of another leaf at this index is "
        "evidence against the node",
        "anything that the other nodes say",
    ]


def _check_signature(report: Report, receipt: Receipt, trust: Trust) -> None:
    node = id_text(receipt.node)
    if (receipt.node, receipt.key_id) not in trust.receipt_keys:
        raise StepError("receipt", EXIT_UNTRUSTED, OUT_OF_DATE, f"the trust file does not know this receipt key of node {node}")

    def bad(detail: str) -> StepError:
        return tampered("receipt", detail, EXIT_SIGNATURE)

    if receipt.version != 1 or not receipt.k < receipt.n <= MAX_RECEIPTS:
        raise bad("version, number or count of receipts is out of range")
    try:
        key = composite.PublicKey(*receipt.key)
    except KeyFormatError as err:
        raise bad(str(err)) from None
    if key.id != receipt.key_id:
        raise bad("the key has not the id that is named")
    root = merkle.root_from_path(merkle.leaf_hash(receipt.data), receipt.k, receipt.n, receipt.path)
    if root is None:
        raise bad("the path has not the length of one for this number of this command")
    statement = (
        b"\xa5\x01\x01\x02\x58\x20" + receipt.ledger_id + b"\x03\x50" + receipt.node + b"\x04" + cbor.encode_uint(receipt.n) + b"\x05\x58\x20" + root
    )
    if not key.verify(statement, receipt.signature, composite.CTX_RECEIPT):
        raise bad("the signature does not hold")
    report.keys.append(Key("node", node, key.id.hex()))
    report.passed("receipt", f"number {receipt.k} of {receipt.n} receipts under one signature of node {node}")


def _check_leaf(report: Report, receipt: Receipt) -> None:
    if receipt.leaf is None:
        report.skipped("payload", "the leaf is not in the file: its hash stands in the receipt")
        return
    try:
        leaf = parse_leaf(receipt.leaf)
    except DecodeError as err:
        raise tampered("payload", str(err), EXIT_SIGNATURE) from None
    have = (leaf.hash, leaf.slot, leaf.index, leaf.time, leaf.outcome)
    if have != (receipt.leaf_hash, receipt.slot, receipt.index, receipt.time, receipt.outcome):
        raise tampered("payload", "the leaf in the file is not the one promised", EXIT_SIGNATURE)
    report.passed("payload", "the leaf in the file is the one promised")
