"""The same answer as the program creto, on thousands of files that neither has seen: step, class, exit code, and the whole report.

CRETO_BINARY names the program; CRETO_STRIDE=1 compares every file instead of a sample.
"""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from creto_verify import load_trust, verify_file
from tests import mutate
from tests.paths import binary, vectors

STRIDE = int(os.environ.get("CRETO_STRIDE", "0"))
# What the two may say in words of their own: details, and the order in which a list of keys is built.
FIELDS = ("kind", "ok", "statement", "not_proved", "as_of", "epoch", "test", "subject", "period", "keys")


def answer(report: dict) -> dict:
    failure = report.get("failure")
    steps = [(s["name"], s["ok"], s.get("skipped", False)) for s in report["steps"]]
    if failure is not None:
        return {"steps": steps, **{k: failure[k] for k in ("step", "class", "exit_code")}}
    return {"steps": steps, **{k: report.get(k) for k in FIELDS}}


class Differential(unittest.TestCase):
    def setUp(self):
        self.program = binary(self)
        self.v = json.loads(vectors(self, "ledger.json").read_text())
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.trust_path = self.folder / "trust.txt"
        self.trust_path.write_text(self.v["trust"])
        self.trust = load_trust(self.trust_path)

    def file(self, name: str) -> bytes:
        return bytes.fromhex(next(f["bytes"] for f in self.v["files"] if f["name"] == name))

    def compare(self, files):
        paths, labels = [], []
        for label, data in files:
            path = self.folder / f"{len(paths):06d}"
            path.write_bytes(data)
            paths.append(path)
            labels.append(label)
        self.assertGreater(len(paths), 10)
        for at in range(0, len(paths), 300):
            part = paths[at : at + 300]
            command = [self.program, "verify", *part, "--trust", self.trust_path, "-o", "json"]
            theirs = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
            for path, label, their in zip(part, labels[at:], theirs, strict=False):
                ours = json.loads(json.dumps(verify_file(path, self.trust).to_json()))
                self.assertEqual(answer(ours), answer(their), f"{label}: {their.get('failure')} against {ours.get('failure')}")
                path.unlink()

    def test_vectors(self):
        self.compare((f["name"], bytes.fromhex(f["bytes"])) for f in self.v["files"])

    def test_event(self):
        for name in ("event signed alone", "event of a batch", "event of a batch, erased", "system leaf"):
            self.compare(mutate.proof_files(self.file(name), STRIDE or 13))

    def test_receipt(self):
        self.compare(mutate.proof_files(self.file("receipt"), STRIDE or 7))

    def test_consistency(self):
        for name in ("second epoch extends the first", "second epoch does not extend the first"):
            self.compare(mutate.proof_files(self.file(name), STRIDE or 3))

    def test_completeness(self):
        for name in ("complete from the first leaf", "complete between two epochs"):
            self.compare(mutate.completeness_files(self.file(name), STRIDE or 31))

    def test_flips(self):
        for file in self.v["files"]:
            self.compare(mutate.flips(bytes.fromhex(file["bytes"]), STRIDE or 89))
        self.compare(mutate.flips(self.v["checkpoint"].encode(), STRIDE or 7))


if __name__ == "__main__":
    unittest.main()
