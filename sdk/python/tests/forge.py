"""Makes small ledgers with keys of its own, for what no fixture shows: times, intervals, changes of membership.

Only Ed25519 keys sign; ML-DSA keys of nodes are any bytes of the right length, and no quorum asks for them.
"""

from __future__ import annotations

import base64
import hashlib

from creto_verify import ed25519, merkle
from creto_verify.events import payload_digest
from creto_verify.text import id_text

from .encode import completeness_file, encode

CLUSTER = "forged"
START = 1_800_000_000  # POSIX seconds
NS = 1_000_000_000


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519 (RFC 8032, 5.1.6)."""
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | 1 << 254
    public = public_key(seed)
    r = int.from_bytes(hashlib.sha512(h[32:] + message).digest(), "little") % ed25519._L
    big_r = ed25519._encode(ed25519._multiply([(r, ed25519._BASE)]))
    k = int.from_bytes(hashlib.sha512(big_r + public + message).digest(), "little") % ed25519._L
    return big_r + ((r + k * a) % ed25519._L).to_bytes(32, "little")


def public_key(seed: bytes) -> bytes:
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | 1 << 254
    return ed25519._encode(ed25519._multiply([(a, ed25519._BASE)]))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def vkey(name: str, kind: int, public: bytes) -> str:
    return f"{name}+{key_id(name, kind, public).hex()}+{b64(bytes((kind,)) + public)}"


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes((kind,)) + public).digest()[:4]


class Node:
    """A node with keys from its number."""

    def __init__(self, number: int) -> None:
        self.id = hashlib.sha256(b"node %d" % number).digest()[:16]
        self.seed = hashlib.sha256(b"seed %d" % number).digest()
        self.ed = public_key(self.seed)
        self.pq = (hashlib.sha256(b"pq %d" % number).digest() * 41)[:1312]
        self.composite = b"\1" * 1952 + self.ed
        self.name = f"{CLUSTER}/node/{id_text(self.id)}"

    def genesis(self) -> dict:
        return {1: self.id, 2: 1, 3: self.composite, 4: self.ed, 5: self.pq, 6: "a:1"}

    def witness_lines(self) -> list[str]:
        return [
            f"witness {id_text(self.id)}-ed {vkey(self.name + '/ed', 4, self.ed)}",
            f"witness {id_text(self.id)}-pq {vkey(self.name + '/pq', 6, self.pq)}",
        ]

    def add_body(self, voter: bool = True) -> dict:
        body = {1: self.id, 2: 1, 3: 1, 4: self.composite, 5: bytes(3373)}
        if voter:
            body |= {6: self.ed, 7: self.pq}
        return body


LOG_SEED = hashlib.sha256(b"log").digest()
LOG_VKEY = vkey(f"{CLUSTER}/spine", 1, public_key(LOG_SEED))


def merkle_root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return merkle.EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return merkle.node_hash(merkle_root(hashes[:split]), merkle_root(hashes[split:]))


def merkle_path(hashes: list[bytes], index: int) -> list[bytes]:
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return merkle_path(hashes[:split], index) + [merkle_root(hashes[split:])]
    return merkle_path(hashes[split:], index - split) + [merkle_root(hashes[:split])]


def opt(fields: dict) -> dict:
    return {k: v for k, v in fields.items() if v is not None and v != [] and v != b""}


class Ledger:
    """One log (the system log if slot is 0) whose epochs are cut by seal()."""

    def __init__(self, founders: list[Node], slot: int = 0, log_key: str = LOG_VKEY, **genesis) -> None:
        self.founders = founders
        self.slot = slot
        fields = {
            1: 1,
            2: CLUSTER,
            3: 1,
            4: "forged.internal",
            5: False,
            6: [{1: bytes(15) + b"a", 2: 1, 3: founders[0].composite if founders else b""}],
            7: 1,
            8: log_key,
            9: [n.genesis() for n in founders],
            10: START * NS,
            11: bytes(16),
        }
        self.genesis = encode(fields | {int(k[1:]): v for k, v in genesis.items()})
        self.ledger_id = hashlib.sha256(b"creto/genesis/v1\0" + self.genesis).digest()
        self.tenant = bytes(16) if slot == 0 else hashlib.sha256(b"tenant").digest()[:16]
        self.leaves: list[bytes] = []
        self.bodies: list[bytes | None] = []
        self.epochs: list[tuple[int, bytes, bytes, int]] = []  # size, head, spine leaf, time

    def leaf(self, kind: str, seconds: float, payload: bytes | None = None, **fields) -> int:
        """Append a leaf; fields by key as f<key>."""
        index = len(self.leaves)
        leaf = {
            1: 1,
            2: 1,
            3: self.slot,
            4: index,
            5: round((START + seconds) * NS),
            6: {1: 0},
            7: kind,
            12: payload_digest(payload) if payload is not None else None,
            14: {1: 0},
        }
        leaf |= {int(k[1:]): v for k, v in fields.items()}
        self.leaves.append(encode(opt(leaf)))
        self.bodies.append(payload)
        return index

    def found(self, seconds: float = 0) -> None:
        self.leaf("system.genesis", seconds, self.genesis, f18={1: 0, 2: 0})

    def event(self, kind: str, seconds: float, body: dict, **fields) -> int:
        """Append the leaf of an event with this body."""
        payload = encode(
            {
                1: 1,
                2: self.ledger_id,
                3: self.tenant,
                4: len(self.leaves).to_bytes(16, "big"),
                5: kind,
                6: bytes(16),
                7: bytes(32),
                8: {1: bytes(8), 2: 1},
                9: bytes(16),
                10: 0,
                11: bytes(16),
                12: body,
            }
        )
        return self.leaf(kind, seconds, payload, **fields)

    def seal(self, seconds: float) -> None:
        """Cut an epoch."""
        hashes = [merkle.leaf_hash(one) for one in self.leaves]
        origin = f"{CLUSTER}/system" if self.slot == 0 else f"{CLUSTER}/t/{id_text(self.tenant)}"
        head = encode({1: 1, 2: 1, 3: self.slot, 4: origin, 5: len(hashes), 6: merkle_root(hashes)})
        heads = self._heads(head)
        spine = encode(
            {
                1: 1,
                2: 1,
                3: len(self.epochs) + 1,
                4: round((START + seconds) * NS),
                5: len(heads),
                6: merkle_root(heads),
                7: bytes(32),
                8: 1,
            }
        )
        self.epochs.append((len(hashes), head, spine, round((START + seconds) * NS)))

    def _heads(self, head: bytes) -> list[bytes]:
        return [merkle.leaf_hash(b"other")] * self.slot + [merkle.leaf_hash(head)]

    def checkpoint(self, cosigners: list[Node], seconds: int) -> bytes:
        spine = [merkle.leaf_hash(s) for _, _, s, _ in self.epochs]
        name = f"{CLUSTER}/spine"
        text = f"{name}\n{len(spine)}\n{b64(merkle_root(spine))}\n"
        note = f"{text}\n— {name} {b64(key_id(name, 1, public_key(LOG_SEED)) + sign(LOG_SEED, text.encode()))}\n"
        for node in cosigners:
            at = START + seconds
            signature = sign(node.seed, b"cosignature/v1\ntime %d\n" % at + text.encode())
            key = f"{node.name}/ed"
            note += f"— {key} {b64(key_id(key, 4, node.ed) + at.to_bytes(8, 'big') + signature)}\n"
        return note.encode()

    def bundle(self, epoch: int, note: bytes) -> dict:
        spine = [merkle.leaf_hash(s) for _, _, s, _ in self.epochs]
        _, head, leaf, _ = self.epochs[epoch]
        heads = self._heads(head)
        lines = [f"index {epoch}", *(b64(h) for h in merkle_path(spine, epoch))]
        proof = ("c2sp.org/tlog-proof@v1\n" + "\n".join(lines) + "\n\n").encode() + note
        return opt({1: head, 2: merkle_path(heads, self.slot), 3: leaf, 4: proof})

    def completeness(self, note: bytes, first: int | None = None, last: int = -1, payloads: bool = True, **header) -> bytes:
        """The completeness file from epoch first (None: the log's beginning) through epoch last; header fields by key as f<key>."""
        last %= len(self.epochs)
        a, b = (self.epochs[first][0] if first is not None else 0), self.epochs[last][0]
        hashes = [merkle.leaf_hash(one) for one in self.leaves]
        compact, at = [], 0
        for bit in reversed(range(a.bit_length())):
            if a >> bit & 1:
                compact.append(merkle_root(hashes[at : at + (1 << bit)]))
                at += 1 << bit
        head = {
            1: 1,
            2: self.ledger_id,
            3: self.tenant,
            4: 1,
            5: self.slot,
            6: self.epochs[first][3] if first is not None else 0,
            7: self.epochs[last][3],
            8: a,
            9: b,
            10: compact,
            11: self.bundle(first, note) if first is not None else None,
            12: self.bundle(last, note),
        }
        head |= {int(k[1:]): v for k, v in header.items()}
        frames = [(1, encode(opt(head)))]
        for leaf, body in zip(self.leaves[a:b], self.bodies[a:b]):
            frames.append((2, leaf))
            if payloads and body is not None:
                frames.append((3, body))
        return completeness_file(frames)

    def trust(self, nodes: list[Node], *lines: str, quorum: str = "any", log: str = LOG_VKEY) -> str:
        """A trust file in which some Ed25519 keys of nodes are the quorum."""
        text = [f"ledger_id {self.ledger_id.hex()}", f"log {log}"]
        for node in nodes:
            text += node.witness_lines()
        if nodes:
            text.append(f"group nodes {quorum} " + " ".join(f"{id_text(n.id)}-ed" for n in nodes))
        text += [*lines, f"quorum {'nodes' if nodes else 'none'}"]
        return "\n".join(text) + "\n"
