"""The project's own vectors (test/vectors)."""

import json
import tempfile
import unittest
from pathlib import Path

from creto_verify import Trust, composite, ed25519, events, merkle, records, verify_file
from creto_verify.cbor import Fields, decode
from creto_verify.errors import CretoError, DecodeError
from creto_verify.note import parse_checkpoint
from tests.paths import vectors


class Ledger(unittest.TestCase):
    def setUp(self):
        self.v = json.loads(vectors(self, "ledger.json").read_text())
        self.trust = Trust.parse(self.v["trust"].encode())

    def test_leaves(self):
        for want in self.v["leaves"]:
            with self.subTest(want["name"]):
                leaf = records.parse_leaf(bytes.fromhex(want["bytes"]))
                self.assertEqual(leaf.hash.hex(), want["hash"])
                self.assertEqual((str(leaf.index), str(leaf.time), leaf.kind), (want["index"], want["time"], want["kind"]))
                self.assertEqual(records.name_of(records.OUTCOMES, "outcome", leaf.outcome), want["outcome"])
                self.assertEqual({m: str(n) for m, n in leaf.quantities}, want.get("quantities", {}))

    def test_bad_leaves(self):
        for bad in self.v["bad_leaves"]:
            with self.subTest(bad["name"]), self.assertRaises(DecodeError):
                records.parse_leaf(bytes.fromhex(bad["bytes"]))

    def test_heads(self):
        for parse, name in ((records.parse_head, "head_leaves"), (records.parse_spine_leaf, "spine_leaves")):
            for want in self.v[name]:
                data = bytes.fromhex(want["bytes"])
                self.assertEqual(parse(data).data, data)
                self.assertEqual(merkle.leaf_hash(data).hex(), want["hash"])

    def test_trust(self):
        self.assertEqual(self.trust.fingerprint(), self.v["fingerprint"])
        endorsement = self.trust.endorse(parse_checkpoint(self.v["checkpoint"].encode()))
        self.assertEqual(len(endorsement.cosignatures), 2)

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            for want in self.v["files"]:
                with self.subTest(want["name"]):
                    path = Path(folder, "file")
                    path.write_bytes(bytes.fromhex(want["bytes"]))
                    report = verify_file(path, self.trust)
                    self.assertEqual((report.kind, report.exit_code), (want["kind"], int(want["exit_code"])))
                    if report.failure is not None:
                        self.assertEqual(report.failure.step, want["step"])
                        self.assertEqual(report.failure.failure_class, want["class"])


class Composite(unittest.TestCase):
    def test_cases(self):
        for name in ("composite.json", "composite-negative.json"):
            v = json.loads(vectors(self, name).read_text())
            for key in v["keys"].values():
                self.assertEqual(composite.key_id(bytes.fromhex(key["pk"])).hex(), key["key_id"])
            for case in v["cases"]:
                with self.subTest(case["name"]):
                    self.assertEqual(self.holds(v, case), case["valid"])

    @staticmethod
    def holds(v: dict, case: dict) -> bool:
        public = bytes.fromhex(case["pk"] if "pk" in case else v["keys"][case["key"]]["pk"])
        message, signature = bytes.fromhex(case.get("msg", "")), bytes.fromhex(case.get("sig", ""))
        try:
            if case["api"] == "composite":
                return composite.PublicKey(1, public).verify(message, signature, case.get("ctx", "").encode())
            if case["api"] == "ed25519":
                return not composite.is_composite_message(message) and ed25519.PublicKey(public[-32:]).verify(message, signature)
            composite.PublicKey(1, public)
            return True
        except CretoError:
            return False

    def test_envelope(self):
        v = json.loads(vectors(self, "composite-envelope.json").read_text())
        payloads = [bytes.fromhex(p) for p in v["payloads"]]
        self.assertEqual(events.pae(payloads[0]).hex(), v["pae_of_payload_0"])
        self.assertEqual([events.payload_digest(p).hex() for p in payloads], v["payload_digests"])
        for payload in payloads:
            self.assertEqual(events.parse_event(payload).data, payload)
        batch = v["batch"]
        proof = events.parse_batch_proof(Fields(decode(bytes.fromhex(batch["proof"])), "batch proof"))
        self.assertEqual(proof.statement.hex(), batch["statement"])
        digest = events.payload_digest(payloads[batch["proof_of"]])
        self.assertTrue(merkle.included(digest, proof.k, proof.n, proof.path, bytes.fromhex(batch["root"])))
        self.assertFalse(merkle.included(digest, proof.k, proof.n, [*proof.path, bytes(32)], bytes.fromhex(batch["root"])))


if __name__ == "__main__":
    unittest.main()
