"""verify_file(path, trust): one file of any kind, checked step by step (docs/formats.md, 9).

A hostile file ends in a report with a failure, never in an exception. Only what the caller gives can raise: OSError for a file that cannot be
read, TrustError for a trust file.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import BinaryIO

from . import checkpoints, completeness, eventproof, receipt
from .errors import (
    DAMAGED,
    EXIT_INCLUSION,
    EXIT_MALFORMED,
    EXIT_UNTRUSTED,
    MALFORMED,
    NOT_ASKED,
    OUT_OF_DATE,
    DecodeError,
    StepError,
)
from .note import MAX_NOTE, parse_note
from .prooffile import MAGIC, MAX_FILE, TLOG_PROOF_MAGIC, parse_container, parse_tlog_proof
from .report import Report
from .text import id_text
from .trust import Trust


@dataclass(frozen=True)
class Asked:
    """What the caller demands; None demands nothing.

    tenant: 16 bytes; begin, end, max_age and now in nanoseconds; entry: the bytes that a bare tlog-proof is about.
    """

    tenant: bytes | None = None
    index: int | None = None
    begin: int | None = None
    end: int | None = None
    max_age: int | None = None
    entry: bytes | None = None
    now: int = 0

    def check_tenant(self, tenant: bytes) -> None:
        if self.tenant is not None and self.tenant != tenant:
            raise self._other(f"the proof is about tenant {id_text(tenant)}, not {id_text(self.tenant)}")

    def check_index(self, index: int) -> None:
        if self.index is not None and self.index != index:
            raise self._other(f"the proof is about index {index}, not {self.index}")

    def check_period(self, begin: int, end: int) -> None:
        if self.begin is not None and self.begin != begin:
            raise self._other("the file begins at another time")
        if self.end is not None and self.end != end:
            raise self._other("the file ends at another time")

    @staticmethod
    def _other(detail: str) -> StepError:
        return StepError("asked", EXIT_INCLUSION, NOT_ASKED, detail)


def verify_file(path: str | os.PathLike, trust: Trust, **asked) -> Report:
    """Verify the file at path under trust; keyword arguments are the fields of Asked. Raises OSError alone."""
    asked.setdefault("now", time.time_ns())
    report = Report(os.fspath(path))
    with open(path, "rb") as file:
        verify_stream(report, file, trust, Asked(**asked))
    return report


def verify_stream(report: Report, file: BinaryIO, trust: Trust, asked: Asked) -> None:
    """Verify what a seekable file holds, into report."""
    checker = _Checker(report, trust, asked)
    try:
        checker.run(file)
    except StepError as err:
        # A frame in the wrong place was written there: no damage makes one out of another.
        misplaced = report.kind == "completeness" and err.failure_class == MALFORMED
        if checker.intact is False and not misplaced and err.failure_class != NOT_ASKED:
            err = StepError(err.step, err.exit_code, DAMAGED, err.detail)
        report.fail(err)


class _Checker:
    """One run over one file. intact: whether the file's checksum fits; None if it has none, or none that can be read."""

    def __init__(self, report: Report, trust: Trust, asked: Asked) -> None:
        self.report = report
        self.trust = trust
        self.asked = asked
        self.intact: bool | None = None

    def run(self, file: BinaryIO) -> None:
        start = file.read(len(TLOG_PROOF_MAGIC))
        file.seek(0)
        try:
            if start.startswith(MAGIC):
                self._proof_file(_read(file, MAX_FILE))
            elif start.startswith(completeness.MAGIC):
                self._completeness(file)
            elif start.startswith(TLOG_PROOF_MAGIC):
                self._tlog_proof(_read(file, MAX_NOTE))
            else:
                self._note(_read(file, MAX_NOTE))
        except DecodeError as err:
            raise StepError("file", EXIT_MALFORMED, MALFORMED, str(err)) from None

    def _proof_file(self, data: bytes) -> None:
        report, asked = self.report, self.asked
        report.kind = "event"  # until the file says what it is
        container = parse_container(data)
        self.intact = container.intact
        if container.type == "event":
            proof = eventproof.parse_event_proof(container.body)
            report.passed("file", f"an event proof of {len(data)} bytes")
            self._ledger(proof.ledger_id)
            eventproof.check(report, proof, self.trust, asked)
        elif container.type == "receipt":
            report.kind = "receipt"
            one = receipt.parse_receipt_file(container.body)
            report.passed("file", f"a receipt of {len(data)} bytes")
            self._ledger(one.ledger_id)
            receipt.check(report, one, self.trust, asked)
        elif container.type == "consistency":
            report.kind = "consistency"
            both = checkpoints.parse_consistency(container.body)
            report.passed("file", f"a consistency proof of {len(data)} bytes")
            self._ledger(both.ledger_id)
            checkpoints.check_consistency(report, both, self.trust, asked)
        else:
            raise DecodeError(f"a proof file of type {container.type[:40]!r} is not known")
        self._integrity()

    def _ledger(self, ledger_id: bytes) -> None:
        if ledger_id != self.trust.ledger_id:
            raise StepError(
                "ledger",
                EXIT_UNTRUSTED,
                OUT_OF_DATE,
                f"the file is about ledger {ledger_id.hex()[:8]}…, the trust file about {self.trust.ledger_id.hex()[:8]}…",
            )
        self.report.passed("ledger", f"ledger {ledger_id.hex()}")

    def _integrity(self) -> None:
        if not self.intact:
            raise StepError("integrity", EXIT_MALFORMED, DAMAGED, "the file's checksum does not match its content")
        self.report.passed("integrity", "the file is as it was written")

    def _completeness(self, file: BinaryIO) -> None:
        report = self.report
        report.kind = "completeness"
        header = completeness.read_header(file)
        self.intact = completeness.intact(file, header.b - header.a)
        report.passed("file", f"a completeness file, leaves [{header.a}, {header.b})")
        self._ledger(header.ledger_id)
        history = completeness.check(report, header, file, self.trust, self.asked)
        self._integrity()
        if history is not None:
            history.check(report, self.trust)

    def _tlog_proof(self, data: bytes) -> None:
        report = self.report
        report.kind = "tlog-proof"
        proof = parse_tlog_proof(data, allow_extra=True)
        note = parse_note(proof.note)
        if self.asked.entry is None:
            raise checkpoints.entry_missing()
        report.passed("file", f"a tlog-proof of index {proof.index}")
        checkpoints.check_tlog_proof(report, proof, note, self.trust, self.asked)

    def _note(self, data: bytes) -> None:
        report = self.report
        if "\n\n— ".encode() not in data:
            raise DecodeError("the file begins like no file of this project")
        report.kind = "checkpoint"
        note = parse_note(data)
        report.passed("file", f"a note with {len(note.signatures)} signatures")
        checkpoints.check_note(report, note, self.trust, self.asked)


def _read(file: BinaryIO, limit: int) -> bytes:
    """The whole file, of at most limit bytes. Raises DecodeError."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise DecodeError(f"a file of this kind has at most {limit} bytes")
    return data
