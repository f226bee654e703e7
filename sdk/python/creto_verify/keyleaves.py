"""Which node keys were ever in force, as the system log says it, held against the trust file (docs/formats.md, 9, step keys).

KeyHistory(ledger_id).add(leaf, payload) takes the leaves of a whole system log in order; check(report, trust) is the step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from . import cbor, composite, events
from .cbor import Fields
from .errors import (
    EXIT_MALFORMED,
    EXIT_UNTRUSTED,
    MALFORMED,
    OUT_OF_DATE,
    CretoError,
    DecodeError,
    StepError,
)
from .note import TYPE_COSIGNATURE_ED25519, TYPE_COSIGNATURE_MLDSA44, VerifierKey, vkey_text
from .records import Leaf
from .report import Report
from .text import NANOSECOND, id_text
from .trust import NO_END, Interval, Trust

# Cosignatures have whole seconds and the clocks of nodes differ: how far an interval may reach beyond a vote, in seconds.
SLACK = 60
MAX_VOTERS = 4096
_PROMOTE, _REMOVE = 2, 3


@dataclass
class Node:
    """A node that may get a vote: the vkeys of its two cosigning keys, and its votes as [from, to) in ns, to 0 while one lasts."""

    keys: tuple[str, str]
    founder: bool
    votes: list[list[int]] = field(default_factory=list)

    @property
    def votes_now(self) -> bool:
        return bool(self.votes) and self.votes[-1][1] == 0

    def interval(self) -> Interval:
        """The widest interval that a trust file may give this node's keys."""
        first, last = self.votes[0][0], self.votes[-1][1]
        begin = 0 if self.founder else max(0, first // NANOSECOND - SLACK)
        return Interval(begin, last // NANOSECOND + SLACK if last else NO_END)


@dataclass(frozen=True)
class _NodeKeys:
    """What genesis and admin.node.add say of a node."""

    id: bytes
    suite: int
    public: bytes
    ed25519: bytes
    mldsa44: bytes


class KeyHistory:
    """Collects the leaves of a whole system log that say whose keys are in force.

    What is wrong with them is kept for check, because the step comes after those of the file.
    """

    def __init__(self, ledger_id: bytes) -> None:
        self._ledger_id = ledger_id
        self._cluster = ""
        self._log_key: VerifierKey | None = None
        self._nodes: dict[bytes, Node] = {}
        self._problem: str | None = None
        self._incomplete = False

    def add(self, leaf: Leaf, payload: bytes | None) -> None:
        """Take the next leaf, with what stands behind it in the file."""
        takers = {"system.genesis": self._genesis, "admin.node.add": self._add, "admin.member": self._member}
        if self._problem is not None or self._incomplete or not leaf.accepted or leaf.kind not in takers:
            return
        if payload is None:
            self._incomplete = True
            return
        try:
            takers[leaf.kind](leaf, payload)
        except CretoError as err:
            self._problem = f"leaf {leaf.index} ({leaf.kind}): {err}"

    def _genesis(self, leaf: Leaf, payload: bytes) -> None:
        if leaf.index != 0:
            raise DecodeError("a genesis is leaf 0")
        if hashlib.sha256(b"creto/genesis/v1\0" + payload).digest() != self._ledger_id:
            raise DecodeError("it is the genesis of another ledger")
        f = Fields(cbor.decode(payload), "genesis")
        f.uint(1)
        cluster = f.text(2, 1, 255)
        f.uint(3), f.text(4, 0, len(payload)), f.boolean(5)
        for one in f.array(6, 0, len(payload)):
            admin = Fields(one, "genesis: admin")
            admin.bstr(1, 16), admin.uint(2, 255), admin.bstr(3)
            admin.done()
        f.uint(7)
        log_key = f.text(8, 1, len(payload))
        nodes = []
        for one in f.array(9, 0, len(payload)):
            n = Fields(one, "genesis: node")
            nodes.append(_NodeKeys(n.bstr(1, 16), n.uint(2, 255), n.bstr(3), n.bstr(4, 32), n.bstr(5)))
            n.text(6, 0, len(payload))
            n.done()
        f.int64(10), f.bstr(11, 16)
        f.done()
        self._cluster, self._log_key = cluster, VerifierKey(log_key)
        for node in nodes:
            self._register(node, founder=True).votes.append([leaf.time, 0])

    def _add(self, leaf: Leaf, payload: bytes) -> None:
        f = Fields(events.parse_event(payload).body, "admin.node.add")
        node_id, _, suite, public, _ = f.bstr(1, 16), f.uint(2), f.uint(3, 255), f.bstr(4), f.bstr(5)
        ed25519 = f.opt_bstr(6, len(payload))
        mldsa44 = f.opt_bstr(7, len(payload))
        f.opt_id(8, 32)
        f.done()
        if ed25519 is not None:  # without, it never gets a vote
            self._register(_NodeKeys(node_id, suite, public, ed25519, mldsa44 or b""), founder=False)

    def _register(self, node: _NodeKeys, founder: bool) -> Node:
        if not self._cluster:
            raise DecodeError("it comes before the genesis")
        if node.id in self._nodes:
            raise DecodeError(f"node {id_text(node.id)} is registered twice")
        if len(self._nodes) >= MAX_VOTERS:
            raise DecodeError(f"more than {MAX_VOTERS} voters")
        name = f"{self._cluster}/node/{id_text(node.id)}"
        keys = (
            vkey_text(f"{name}/ed", TYPE_COSIGNATURE_ED25519, node.ed25519),
            vkey_text(f"{name}/pq", TYPE_COSIGNATURE_MLDSA44, node.mldsa44),
        )
        composite.PublicKey(node.suite, node.public)
        self._nodes[node.id] = Node(keys, founder)
        return self._nodes[node.id]

    def _member(self, leaf: Leaf, payload: bytes) -> None:
        f = Fields(events.parse_event(payload).body, "admin.member")
        op, node_id = f.uint(1), f.bstr(2, 16)
        if f.has(3):
            f.text(3, 1, len(payload))
        f.done()
        node = self._nodes.get(node_id)
        if node is None:
            raise DecodeError(f"node {id_text(node_id)} is not registered as a voter")
        if op == _PROMOTE and not node.votes_now:
            node.votes.append([leaf.time, 0])
        elif op == _REMOVE and node.votes_now:
            node.votes[-1][1] = leaf.time

    def check(self, report: Report, trust: Trust) -> None:
        """Step keys. Raises StepError."""
        if self._problem is not None:
            raise StepError("keys", EXIT_MALFORMED, MALFORMED, self._problem)
        if self._incomplete:
            report.skipped("keys", "the file has no events, which say whose keys are in force")
            return
        problem = self._against(trust)
        if problem is not None:
            raise StepError("keys", EXIT_UNTRUSTED, OUT_OF_DATE, f"as of epoch {report.epoch}: {problem}")
        voters = sum(bool(n.votes) for n in self._nodes.values())
        report.passed("keys", f"the trust file's log and node keys are those of the genesis and of the {voters} voters after it")
        report.statement.insert(
            0,
            f"keys: from the genesis, whose hash is the ledger id, to epoch {report.epoch} the log names the keys that the trust file takes",
        )

    def _against(self, trust: Trust) -> str | None:
        """What of the trust file the log contradicts."""
        if self._log_key is None:
            return "the log has no genesis"
        for log in trust.logs:
            if log.name == self._log_key.name and log.text != self._log_key.text:
                return f"the genesis names another log key than {log.text}"
        prefix = f"{self._cluster}/node/"
        named = {key.text: name for name, key in trust.witnesses.items() if key.name.startswith(prefix)}
        for node in self._nodes.values():
            for key in node.keys if node.votes else ():
                name = named.pop(key, None)
                if name is None:
                    if node.votes_now:
                        return f"a node has a vote, and the trust file has not its key {key.partition('+')[0]}"
                    continue
                have, most = trust.interval(name), node.interval()
                if have.begin < most.begin or have.end > most.end:
                    return f"the trust file takes signatures of {name} outside of the time of its node's vote"
        for name in named.values():
            return f"the log knows no key {trust.witnesses[name].name} of the trust file"
        return None
