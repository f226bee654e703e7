"""What a verification found: steps in order, what is proved and what is not, and the failure if there is one."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import (
    DAMAGED,
    EXIT_OK,
    MALFORMED,
    NOT_ASKED,
    OUT_OF_DATE,
    TAMPERING,
    StepError,
)

_HINTS = {
    DAMAGED: "the file was changed after it was written (in transfer, on disk or by hand): fetch it again and verify the fresh copy; if that "
    "fails too, keep both and ask the operator",
    MALFORMED: "this is no file of a kind and version that this program reads: check that it is complete and try the newest release",
    OUT_OF_DATE: "get the newest trust file over a channel you trust and compare its twelve words with the operator's by telephone; if it "
    "still fails, the checkpoint was not endorsed by the parties you rely on",
    NOT_ASKED: "the proof is about another tenant, entry or period than you asked for: check what you asked",
    TAMPERING: "the file is intact and its proof does not hold: keep the file, your trust file and this report as evidence, fetch the proof "
    "again through another node, and tell the auditor and the operator's witnesses",
}

_MEANINGS = {
    DAMAGED: "the file is damaged: it is not what was written",
    MALFORMED: "the file cannot be read",
    OUT_OF_DATE: "the trust file is out of date, or of another cluster: it does not know the keys, or too few of them have signed",
    NOT_ASKED: "the file is not what was asked for",
    TAMPERING: "an intact file whose proof does not hold: this is evidence of tampering",
}


@dataclass
class Step:
    """One step. skipped: there was nothing to check."""

    name: str
    ok: bool
    detail: str
    skipped: bool = False


@dataclass
class Key:
    """A key that something rests on. id in hex; time: of a cosignature, RFC 3339."""

    role: str
    name: str
    id: str
    time: str = ""


@dataclass
class Report:
    """The result of verifying one file.

    subject: of an event proof or receipt; period: of a completeness file; both as they stand in the JSON report, where integers that can exceed
    2^53 are strings.
    """

    file: str
    kind: str = "unknown"
    steps: list[Step] = field(default_factory=list)
    statement: list[str] = field(default_factory=list)
    not_proved: list[str] = field(default_factory=list)
    as_of: str = "unknown"
    epoch: int = 0
    test: bool = False
    subject: dict | None = None
    period: dict | None = None
    keys: list[Key] = field(default_factory=list)
    failure: StepError | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None

    @property
    def exit_code(self) -> int:
        return EXIT_OK if self.failure is None else self.failure.exit_code

    def passed(self, name: str, detail: str) -> None:
        self.steps.append(Step(name, True, detail))

    def skipped(self, name: str, detail: str) -> None:
        self.steps.append(Step(name, True, detail, skipped=True))

    def fail(self, error: StepError) -> None:
        """End the report with the step that does not hold: nothing is proved then."""
        self.steps.append(Step(error.step, False, error.detail))
        self.failure = error
        self.statement, self.not_proved, self.as_of = [], [], "unknown"

    def to_json(self) -> dict:
        """The report as `creto verify -o json` prints it."""
        out: dict = {
            "file": self.file,
            "kind": self.kind,
            "ok": self.ok,
            "steps": [{"name": s.name, "ok": s.ok, **({"skipped": True} if s.skipped else {}), "detail": s.detail} for s in self.steps],
            "statement": self.statement,
            "not_proved": self.not_proved,
            "as_of": self.as_of,
            "epoch": str(self.epoch),
        }
        if self.test:
            out["test"] = True
        for name, value in (("subject", self.subject), ("period", self.period)):
            if value is not None and self.ok:
                out[name] = value
        out["keys"] = [{"role": k.role, "name": k.name, "id": k.id, **({"time": k.time} if k.time else {})} for k in self.keys]
        if self.failure is not None:
            out["failure"] = {
                "step": self.failure.step,
                "class": self.failure.failure_class,
                "exit_code": self.failure.exit_code,
                "detail": self.failure.detail,
                "hint": _HINTS[self.failure.failure_class],
            }
        return out

    def to_text(self, fingerprint: str) -> str:
        """The report for people, ending with a newline."""
        lines = [f"{'PASS' if self.ok else 'FAIL'}  {self.file}  ({self.kind})"]
        for s in self.steps:
            lines.append(f"  {'--  ' if s.skipped else 'ok  ' if s.ok else 'FAIL'} {s.name:<13} {s.detail}")
        if self.failure is not None:
            lines.append(f'failed at step "{self.failure.step}", exit code {self.failure.exit_code}')
            lines.append(f"  {self.failure.detail}")
            lines.append(f"this means: {_MEANINGS[self.failure.failure_class]}")
            lines.append(f"next: {_HINTS[self.failure.failure_class]}")
            return _printable(lines)
        lines.append("proved:")
        lines += [f"  {s}" for s in self.statement]
        if self.period is not None:
            lines += ["adds up to:", *self._sums()]
        lines += ["as of:", f"  {self.as_of}" + ("  (a test ledger: its clock can be moved)" if self.test else ""), "under the keys:"]
        lines += [f"  {k.role} {k.name} {k.id}" + (f" at {k.time}" if k.time else "") for k in self.keys]
        lines += [f"  trust file: {fingerprint}", "not proved:", *(f"  {s}" for s in self.not_proved)]
        return _printable(lines)

    def _sums(self) -> list[str]:
        p = self.period or {}
        lines = [f"  leaves   {p['leaves']} in [{p['from']}, {p['to']})"]
        for label, key in (("outcomes", "outcomes"), ("kinds", "kinds")):
            if p[key]:
                lines.append(f"  {label:<8} " + ", ".join(f"{n} {name}" for name, n in sorted(p[key].items())))
        lines += [f"  total    {units} {meter}" for meter, units in sorted(p["totals"].items())]
        return lines


def _printable(lines: list[str]) -> str:
    """Lines with what a terminal could obey replaced, since file and trust file come from outside."""
    return "".join("".join(c if c.isprintable() else "?" for c in line) + "\n" for line in lines)
