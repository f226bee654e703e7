"""Errors of the verifier: what a caller can catch, and what each one means."""

from __future__ import annotations

# Exit codes (docs/exit-codes.md).
EXIT_OK = 0
EXIT_LOCAL = 1
EXIT_SIGNATURE = 10
EXIT_INCLUSION = 11
EXIT_CONSISTENCY = 12
EXIT_UNTRUSTED = 13
EXIT_MALFORMED = 14

# Classes of failures (docs/formats.md, 9).
DAMAGED = "damaged"
MALFORMED = "malformed"
OUT_OF_DATE = "trust-out-of-date"
NOT_ASKED = "not-what-was-asked"
TAMPERING = "tampering"


class CretoError(Exception):
    """Base of every error that this package raises on purpose."""


class DecodeError(CretoError):
    """Bytes are not the one encoding of a value of the kind that was expected, or exceed a bound."""


class TrustError(CretoError):
    """The trust file cannot be used."""


class KeyFormatError(CretoError):
    """A public key has the wrong length, or does not encode what its algorithm demands."""


class StepError(CretoError):
    """A step of a verification does not hold.

    step: the step's name (docs/formats.md, 9); exit_code: one of EXIT_*; failure_class: one of the five classes.
    """

    def __init__(self, step: str, exit_code: int, failure_class: str, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.exit_code = exit_code
        self.failure_class = failure_class
        self.detail = detail
