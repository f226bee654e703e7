"""The trust file: which ledger, which keys, how many of them (docs/formats.md, 7).

Trust.parse(bytes) reads it; trust.endorse(checkpoint) says under which keys a checkpoint counts; trust.fingerprint() gives the twelve words
to be compared over another channel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib import resources

from .errors import CretoError, DecodeError, TrustError
from .merkle import MAX_SIZE
from .note import (
    TYPE_COSIGNATURE_ED25519,
    TYPE_COSIGNATURE_MLDSA44,
    TYPE_ED25519,
    Checkpoint,
    VerifierKey,
)
from .text import MAX_SECONDS, NANOSECOND, parse_decimal, parse_hex, parse_id

MAX_TRUST_FILE = 512 << 10
MAX_LOGS = 32
MAX_WITNESSES = 256
MAX_GROUPS = 128
MAX_RECEIPT_KEYS = 256
NO_END = (1 << 63) - 1


@dataclass(frozen=True)
class Interval:
    """POSIX seconds; begin is included, end is not. Without a bound they are 0 and 2^63 - 1."""

    begin: int = 0
    end: int = NO_END

    def holds(self, seconds: int) -> bool:
        return self.begin <= seconds < self.end


@dataclass(frozen=True)
class Group:
    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Cosignature:
    key: VerifierKey
    seconds: int


@dataclass(frozen=True)
class Endorsement:
    """A checkpoint that counts: the log key that signed it, and the cosignatures that were counted, in the note's order."""

    log: VerifierKey
    cosignatures: tuple[Cosignature, ...]

    @property
    def oldest(self) -> int | None:
        """The time of the oldest counted cosignature in POSIX seconds; None if there is none."""
        return min((c.seconds for c in self.cosignatures), default=None)


class EndorsementError(CretoError):
    """A checkpoint is not endorsed. forged: a signature by a known key is wrong or stands there twice."""

    def __init__(self, detail: str, forged: bool = False) -> None:
        super().__init__(detail)
        self.forged = forged


@dataclass
class Trust:
    """A trust file. logs, witnesses (by name), groups and intervals are in the file's order; quorum is None for `quorum none`."""

    ledger_id: bytes
    logs: list[VerifierKey] = field(default_factory=list)
    witnesses: dict[str, VerifierKey] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    receipt_keys: list[tuple[bytes, bytes]] = field(default_factory=list)
    intervals: dict[str, Interval] = field(default_factory=dict)
    quorum: str | None = None
    _lines: dict[str, list[str]] = field(default_factory=dict, repr=False)

    @staticmethod
    def parse(data: bytes) -> Trust:
        """Parse a trust file. Raises TrustError."""
        if len(data) > MAX_TRUST_FILE:
            raise TrustError(f"a trust file has at most {MAX_TRUST_FILE} bytes")
        if not data.endswith(b"\n"):
            raise TrustError("trust file: no newline at the end")
        reader = _Reader()
        for number, line in enumerate(data.split(b"\n"), 1):
            try:
                reader.line(line)
            except CretoError as err:
                raise TrustError(f"trust file, line {number}: {err}") from None
        return reader.done()

    def fingerprint(self) -> str:
        """Twelve words: the first 132 bits of the SHA-256 of the file written anew, as indexes into the BIP-39 English words."""
        kinds = ("ledger_id", "log", "witness", "group", "receipt_key", "valid", "quorum")
        text = "".join(line + "\n" for kind in kinds for line in self._lines.get(kind, []))
        bits = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest(), "big") >> (256 - 132)
        words = resources.files(__package__).joinpath("words.txt").read_text("ascii").split()
        return " ".join(words[bits >> shift & 2047] for shift in range(121, -1, -11))

    def interval(self, name: str) -> Interval:
        """The interval of a witness (by name) or log key (by vkey)."""
        return self.intervals.get(name, Interval())

    def endorse(self, checkpoint: Checkpoint, spine_time: int | None = None) -> Endorsement:
        """Find the keys under which a checkpoint counts, or raise EndorsementError.

        spine_time: the time of the proven spine leaf in Unix nanoseconds, against which a log key's interval is held too.
        """
        names = {id(key): name for name, key in self.witnesses.items()}
        known = {(k.name, k.key_id): k for k in [*self.logs, *self.witnesses.values()]}
        seen = set()
        logs, counted = [], []
        for line in checkpoint.signatures:
            key = known.get((line.name, line.key_id))
            if key is None:
                continue
            if (line.name, line.key_id) in seen:
                raise EndorsementError(f"two signatures by {line.name}", forged=True)
            seen.add((line.name, line.key_id))
            seconds = key.verify(checkpoint, line.signature)
            if seconds is None or (key.kind != TYPE_ED25519 and not 0 < seconds <= MAX_SECONDS):
                raise EndorsementError(f"the signature by {line.name} does not hold", forged=True)
            if key.kind == TYPE_ED25519:
                if key.name == checkpoint.origin:
                    logs.append(key)
            elif self.interval(names[id(key)]).holds(seconds):
                counted.append(Cosignature(key, seconds))
        times = [c.seconds for c in counted]
        held = ([min(times)] if times else []) + ([spine_time // NANOSECOND] if spine_time is not None else [])
        log = next((k for k in logs if all(self.interval(k.text).holds(t) for t in held)), None)
        if not logs:
            raise EndorsementError(f"no log key of {checkpoint.origin} that the trust file knows has signed")
        if log is None:
            raise EndorsementError(f"the log key of {checkpoint.origin} was not valid then")
        if self.quorum is not None:
            have = {names[id(c.key)] for c in counted}
            for group in self.groups.values():  # members stand before their group
                if sum(member in have for member in group.members) >= group.threshold:
                    have.add(group.name)
            if self.quorum not in have:
                raise EndorsementError(f'{len(counted)} known cosigners have signed, and quorum "{self.quorum}" is not reached')
        return Endorsement(log, tuple(counted))


class _Reader:
    """Reads a trust file line by line."""

    def __init__(self) -> None:
        self.trust = Trust(b"")
        self._seen_keys: set = set()
        self._seen_members: set[str] = set()
        self._has_quorum = False

    def line(self, raw: bytes) -> None:
        if any((b < 0x20 and b != 0x09) or b == 0x7F for b in raw):
            raise DecodeError("a control character")
        # Words are opaque octets above 0x7f; surrogateescape keeps them one to one.
        text = raw.decode("utf-8", "surrogateescape")
        words = text.replace("\t", " ").split(" ")
        words = [w for w in words if w]
        if not words or words[0].startswith("#"):
            return
        kind, *args = words
        methods = {
            "ledger_id": self._ledger_id,
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "receipt_key": self._receipt_key,
            "valid": self._valid,
            "quorum": self._quorum,
        }
        if kind not in methods:
            raise DecodeError(f"{kind[:40]!r} begins no line of a trust file")
        canonical = methods[kind](args)
        self.trust._lines.setdefault(kind, []).append(" ".join([kind, *canonical]))

    def done(self) -> Trust:
        if not self.trust.ledger_id:
            raise TrustError("trust file: no ledger_id")
        if not self._has_quorum:
            raise TrustError("trust file: no quorum")
        if not self.trust.logs:
            raise TrustError("trust file: no log")
        for name in self.trust.intervals:
            if name not in self.trust.witnesses and all(name != k.text for k in self.trust.logs):
                raise TrustError(f"trust file: an interval of {name[:80]!r}, which is neither a witness nor a log key")
        return self.trust

    def _ledger_id(self, args: list[str]) -> list[str]:
        _count(args, 1, 1)
        if self.trust.ledger_id:
            raise DecodeError("a second ledger_id")
        self.trust.ledger_id = parse_hex(args[0], 32)
        return args

    def _vkey(self, text: str, kinds: tuple[int, ...]) -> VerifierKey:
        key = VerifierKey(text)
        if key.kind not in kinds:
            raise DecodeError(f"a vkey of type {key.kind} does not belong here")
        identity = (TYPE_ED25519 in kinds, key.identity)  # a log and a witness may share a key
        if identity in self._seen_keys:
            raise DecodeError("a public key that stands there twice")
        self._seen_keys.add(identity)
        return key

    def _log(self, args: list[str]) -> list[str]:
        _count(args, 1, 2)
        _room(self.trust.logs, MAX_LOGS)
        self.trust.logs.append(self._vkey(args[0], (TYPE_ED25519,)))
        return args[:1]

    def _name(self, name: str) -> str:
        if name == "none" or name in self.trust.witnesses or name in self.trust.groups:
            raise DecodeError(f"the name {name!r} is taken")
        return name

    def _witness(self, args: list[str]) -> list[str]:
        _count(args, 2, 3)
        _room(self.trust.witnesses, MAX_WITNESSES)
        name = self._name(args[0])
        self.trust.witnesses[name] = self._vkey(args[1], (TYPE_COSIGNATURE_ED25519, TYPE_COSIGNATURE_MLDSA44))
        return args[:2]

    def _group(self, args: list[str]) -> list[str]:
        _count(args, 3, None)
        _room(self.trust.groups, MAX_GROUPS)
        name, threshold, members = self._name(args[0]), args[1], args[2:]
        for member in members:
            if member not in self.trust.witnesses and member not in self.trust.groups:
                raise DecodeError(f"{member!r} is not defined before")
            if member in self._seen_members:
                raise DecodeError(f"{member!r} is a member of two groups, or twice of one")
            self._seen_members.add(member)
        number = {"all": len(members), "any": 1}.get(threshold)
        if number is None:
            number = parse_decimal(threshold, len(members))
        if number < 1:
            raise DecodeError("a threshold of 0")
        self.trust.groups[name] = Group(name, number, tuple(members))
        canonical = "all" if number == len(members) else "any" if number == 1 else str(number)
        return [name, canonical, *members]

    def _quorum(self, args: list[str]) -> list[str]:
        _count(args, 1, 1)
        if self._has_quorum:
            raise DecodeError("a second quorum")
        self._has_quorum = True
        if args[0] != "none":
            if args[0] not in self.trust.witnesses and args[0] not in self.trust.groups:
                raise DecodeError(f"{args[0]!r} is not defined before")
            self.trust.quorum = args[0]
        return args

    def _receipt_key(self, args: list[str]) -> list[str]:
        _count(args, 2, 2)
        _room(self.trust.receipt_keys, MAX_RECEIPT_KEYS)
        pair = parse_id(args[0]), parse_hex(args[1], 32)
        if any(pair[1] == other[1] for other in self.trust.receipt_keys):
            raise DecodeError("a receipt key that stands there twice")
        self.trust.receipt_keys.append(pair)
        return args

    def _valid(self, args: list[str]) -> list[str]:
        _count(args, 3, 3)
        name = args[0]
        if name in self.trust.intervals:
            raise DecodeError("a second interval of one key")
        begin, end = (open_ if a == "-" else parse_decimal(a, MAX_SIZE) for a, open_ in zip(args[1:], (0, NO_END)))
        if begin >= end:
            raise DecodeError("an interval that is empty")
        self.trust.intervals[name] = Interval(begin, end)
        return [name, "-" if begin == 0 else str(begin), "-" if end == NO_END else str(end)]


def _count(args: list[str], low: int, high: int | None) -> None:
    if len(args) < low or (high is not None and len(args) > high):
        raise DecodeError("the wrong number of words")


def _room(have, limit: int) -> None:
    if len(have) >= limit:
        raise DecodeError(f"more than {limit} lines of this kind")
