"""Verifies what a Creto ledger proves, from files alone: no server, no network, no other package.

    trust = load_trust("trust.txt")
    report = verify_file("leaf-42.creto-proof", trust)

report.ok says whether every step held, report.exit_code is that of `creto verify`, report.failure names the step that did not hold and whether
the file is damaged, the trust file out of date, or the file evidence of tampering. Compare trust.fingerprint(), twelve words, over another
channel once; everything rests on it.

A file from outside ends in a report, never in an exception; memory is bounded whatever it holds. The rules are those of docs/formats.md, from which
this package was written as a second implementation.
"""

from __future__ import annotations

import errno
import os

from .errors import CretoError, DecodeError, StepError, TrustError
from .report import Key, Report, Step
from .trust import MAX_TRUST_FILE, Trust
from .verify import Asked, verify_file

__all__ = [
    "Asked",
    "CretoError",
    "DecodeError",
    "Key",
    "Report",
    "Step",
    "StepError",
    "Trust",
    "TrustError",
    "load_trust",
    "verify_file",
]
__version__ = "0.1.0"


def load_trust(path: str | os.PathLike) -> Trust:
    """Read a trust file. Raises TrustError, or OSError."""
    with open(path, "rb") as file:
        data = file.read(MAX_TRUST_FILE + 1)
    if len(data) > MAX_TRUST_FILE:
        raise OSError(errno.EFBIG, f"a trust file has at most {MAX_TRUST_FILE} bytes", os.fspath(path))
    return Trust.parse(data)
