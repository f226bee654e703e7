"""Where tests find what lies outside of this folder."""

from __future__ import annotations

import os
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTDATA = HERE.parent / "testdata"


def missing(test: unittest.TestCase, what: str):
    """Skip with a reason; in CI, where everything is there, fail."""
    if os.environ.get("CI") == "true":
        test.fail(what)
    test.skipTest(what)


def _above(*names: str) -> Path | None:
    for folder in HERE.parents:
        path = folder.joinpath(*names)
        if path.exists():
            return path
    return None


def vectors(test: unittest.TestCase, name: str) -> Path:
    """A file of the project's test/vectors."""
    path = _above("test", "vectors", name)
    if path is None:
        missing(test, f"no test/vectors/{name} above this folder")
    return path


def conformance(test: unittest.TestCase, name: str) -> Path:
    """A file of the folder shared/conformance, or of $CRETO_CONFORMANCE."""
    folder = os.environ.get("CRETO_CONFORMANCE")
    path = Path(folder, name) if folder else _above("shared", "conformance", name)
    if path is None or not path.exists():
        missing(test, f"no shared/conformance/{name} beside the repository, and CRETO_CONFORMANCE does not name it")
    return path


def binary(test: unittest.TestCase) -> Path:
    """The program creto: $CRETO_BINARY, or bin/creto of the repository."""
    named = os.environ.get("CRETO_BINARY")
    path = Path(named) if named else _above("bin", "creto")
    if path is None or not path.exists():
        missing(test, "no program creto: build it with make, or name it with CRETO_BINARY")
    return path
