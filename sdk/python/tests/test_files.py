"""Real files of testdata: they verify, and what is changed in them does not."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

from creto_verify import cbor, load_trust, verify_file
from creto_verify.__main__ import main
from creto_verify.errors import DAMAGED, NOT_ASKED
from creto_verify.text import id_text
from tests.encode import completeness_file, encode, frames_of, proof_file
from tests.paths import TESTDATA

DEV, DEMO = TESTDATA / "dev", TESTDATA / "demo"


def run(*args) -> tuple[int, str]:
    """Exit code and standard output of the command line."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # the locale says nothing about what is written
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main([str(a) for a in args])
        except SystemExit as end:
            code = end.code
    return code, out.buffer.getvalue().decode()


class Files(unittest.TestCase):
    def test_verify(self):
        for folder in (DEV, DEMO):
            trust = load_trust(folder / "trust.txt")
            files = [f for f in sorted(folder.iterdir()) if f.name != "trust.txt"]
            self.assertGreater(len(files), 2)
            for file in files:
                with self.subTest(file.name):
                    report = verify_file(file, trust)
                    self.assertTrue(report.ok, report.failure)
                    self.assertEqual(report.exit_code, 0)

    def test_steps(self):
        want = {
            DEMO / "refusal.creto-proof": "file ledger asked payload identity signature chain tenant_tree heads_tree registration spine "
            "checkpoint integrity",
            DEV / "system.creto-complete": "file ledger asked heads_tree spine epochs checkpoint leaves integrity keys",
            DEV / "consistency.creto-proof": "file ledger asked checkpoint checkpoint consistency integrity",
            DEV / "late.checkpoint": "file checkpoint",
        }
        for file, steps in want.items():
            report = verify_file(file, load_trust(file.parent / "trust.txt"))
            self.assertEqual([s.name.replace(" ", "_") for s in report.steps], steps.split())
            self.assertFalse(any(s.skipped for s in report.steps))

    def test_other_trust(self):
        report = verify_file(DEMO / "refusal.creto-proof", load_trust(DEV / "trust.txt"))
        self.assertEqual((report.failure.step, report.exit_code), ("ledger", 13))

    def test_every_field_is_bound(self):
        """Any field left out, or changed without a change of its form, is refused, though the checksum is right."""
        trust = load_trust(DEMO / "trust.txt")
        container = cbor.decode((DEMO / "refusal.creto-proof").read_bytes())
        body = cbor.decode(container[3])
        optional = {4, 5, 6, 7, 14}  # without them less is proved
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            for key, value in body.items():
                changed = {k: v for k, v in body.items() if k != key}
                path.write_bytes(proof_file("event", encode(changed)))
                report = verify_file(path, trust)
                self.assertEqual(report.ok, key in optional - {5, 6}, f"without field {key}")
                for other in (b"", 0, [], {}, [value], None, bytes(32), bytes(16)):
                    if other != value:
                        path.write_bytes(proof_file("event", encode({**body, key: other})))
                        self.assertFalse(verify_file(path, trust).ok, f"field {key} = {other!r}")

    def test_dropped_leaf(self):
        trust = load_trust(DEV / "trust.txt")
        frames = frames_of((DEV / "log.creto-complete").read_bytes())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            for change in (frames[:-1], frames[:1] + frames[2:], frames[:3] + frames[2:], frames[:2] + frames[3:4] + frames[2:3] + frames[4:]):
                path.write_bytes(completeness_file(change, count=len(frames) - 1))
                report = verify_file(path, trust)
                self.assertEqual((report.failure.step, report.exit_code), ("leaves", 11))

    def test_asked(self):
        trust = load_trust(DEV / "trust.txt")
        file = DEV / "batch.creto-proof"
        index = verify_file(file, trust).subject["index"]
        self.assertTrue(verify_file(file, trust, index=int(index)).ok)
        for asked in ({"index": 1 << 40}, {"tenant": bytes(15) + b"\1"}):
            report = verify_file(file, trust, **asked)
            self.assertEqual((report.failure.step, report.failure.failure_class, report.exit_code), ("asked", NOT_ASKED, 11))
        report = verify_file(file, trust, max_age=3600 * 10**9, now=(1 << 63) - 1)
        self.assertEqual((report.failure.step, report.exit_code), ("age", 13))
        report = verify_file(DEV / "log.creto-complete", trust, begin=5)
        self.assertEqual((report.failure.step, report.failure.failure_class), ("asked", NOT_ASKED))

    def test_age_comes_before_leaves(self):
        report = verify_file(DEV / "log.creto-complete", load_trust(DEV / "trust.txt"), max_age=0, now=(1 << 63) - 1)
        self.assertEqual([s.name for s in report.steps][-2:], ["checkpoint", "age"])

    def test_bare_tlog_proof(self):
        trust = load_trust(DEV / "trust.txt")
        body = cbor.decode(cbor.decode((DEV / "batch.creto-proof").read_bytes())[3])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            path.write_bytes(body[13])
            self.assertEqual(verify_file(path, trust).failure.failure_class, NOT_ASKED)
            self.assertTrue(verify_file(path, trust, entry=body[12]).ok)
            self.assertEqual(verify_file(path, trust, entry=b"x").exit_code, 11)


class CommandLine(unittest.TestCase):
    def test_json(self):
        code, out = run(DEV / "batch.creto-proof", DEV / "late.checkpoint", "--trust", DEV / "trust.txt", "-o", "json")
        self.assertEqual(code, 0)
        reports = json.loads(out)
        self.assertEqual([(r["kind"], r["ok"]) for r in reports], [("event", True), ("checkpoint", True)])
        self.assertEqual(reports[0]["subject"]["payload"], "present")

    def test_text(self):
        code, out = run(DEMO / "refusal.creto-proof", "--trust", DEMO / "trust.txt")
        self.assertEqual(code, 0)
        self.assertTrue(out.startswith("PASS"))
        self.assertIn(load_trust(DEMO / "trust.txt").fingerprint(), out)

    def test_first_failure(self):
        with tempfile.TemporaryDirectory() as folder:
            bad = Path(folder, "bad")
            bad.write_bytes(b"\xa4\x01\x01\x02")
            code, out = run(DEV / "batch.creto-proof", bad, DEMO / "refusal.creto-proof", "--trust", DEV / "trust.txt")
            self.assertEqual(code, 14)
            self.assertIn('failed at step "file", exit code 14', out)

    def test_local(self):
        self.assertEqual(run(DEV / "absent", "--trust", DEV / "trust.txt")[0], 1)
        self.assertEqual(run(DEV / "batch.creto-proof", "--trust", DEV / "absent")[0], 1)
        self.assertEqual(run(DEV / "batch.creto-proof")[0], 1)
        self.assertEqual(run(DEV / "batch.creto-proof", "--trust", DEV / "trust.txt", "--from", "yesterday")[0], 1)
        self.assertEqual(run(DEV / "batch.creto-proof", "--trust", DEV / "batch.creto-proof")[0], 13)

    def test_options(self):
        tenant = id_text(cbor.decode(cbor.decode((DEV / "batch.creto-proof").read_bytes())[3])[2])
        trust = ("--trust", DEV / "trust.txt")
        self.assertEqual(run(DEV / "batch.creto-proof", *trust, "--tenant", tenant)[0], 0)
        self.assertEqual(run(DEV / "batch.creto-proof", *trust, "--max-age", "1ns")[0], 13)
        self.assertEqual(run(DEV / "log.creto-complete", *trust, "--from", "1970-01-01T00:00:00Z")[0], 0)
        self.assertEqual(run(DEV / "log.creto-complete", *trust, "--to", "1970-01-01T00:00:00.5+01:00")[0], 11)


class Damage(unittest.TestCase):
    def test_flip(self):
        """Every byte of a small proof, flipped: refused as damaged, with a step. Of signatures, every seventeenth byte."""
        data = (DEV / "early.checkpoint").read_bytes()
        self.assertGreater(len(data), 5000)
        trust = load_trust(DEMO / "trust.txt")
        body = cbor.decode(cbor.decode((DEMO / "erased-name.creto-proof").read_bytes())[3])
        body = {k: v for k, v in body.items() if k not in (4, 5, 6, 14)}
        data = proof_file("event", encode(body))
        note = data.index("\n\n— ".encode())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            path.write_bytes(data)
            self.assertTrue(verify_file(path, trust).ok)
            for i in range(len(data)):
                if note < i < len(data) - 40 and i % 17:
                    continue
                path.write_bytes(data[:i] + bytes((data[i] ^ 1 << i % 8,)) + data[i + 1 :])
                report = verify_file(path, trust)
                self.assertFalse(report.ok, f"byte {i}")
                if i > 20 and i < len(data) - 40:
                    self.assertEqual(report.failure.failure_class, DAMAGED, f"byte {i}: {report.failure}")

    def test_truncate(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            for name, step in (("batch.creto-proof", 211), ("log.creto-complete", 97), ("late.checkpoint", 101), ("consistency.creto-proof", 211)):
                data = (DEV / name).read_bytes()
                trust = load_trust(DEV / "trust.txt")
                for size in range(0, len(data), step):
                    path.write_bytes(data[:size])
                    self.assertFalse(verify_file(path, trust).ok)


if __name__ == "__main__":
    unittest.main()
