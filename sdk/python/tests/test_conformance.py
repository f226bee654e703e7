"""Public vectors: NIST ACVP, Wycheproof, LAMPS, RFC 6962, C2SP."""

import base64
import json
import unittest

from creto_verify import composite, ed25519, merkle, mldsa
from creto_verify.errors import DecodeError, KeyFormatError
from creto_verify.note import Note, VerifierKey, checkpoint_of, parse_note
from tests.paths import conformance


def load(test: unittest.TestCase, name: str):
    return json.loads(conformance(test, name).read_text())


class MLDSA(unittest.TestCase):
    def test_acvp(self):
        sets = {p.name: p for p in (mldsa.MLDSA44, mldsa.MLDSA65)}
        for group in load(self, "acvp_mldsa_sigVer_subset.json")["testGroups"]:
            key = mldsa.PublicKey(sets[group["parameterSet"]], bytes.fromhex(group["pk"]))
            for test in group["tests"]:
                got = key.verify_internal(bytes.fromhex(test["message"]), bytes.fromhex(test["signature"]))
                self.assertEqual(got, test["expected"]["testPassed"], test["tcId"])

    def test_wycheproof(self):
        for group in load(self, "wycheproof_mldsa_65_verify_subset.json")["testGroups"]:
            for test in group["tests"]:
                try:
                    key = mldsa.PublicKey(mldsa.MLDSA65, bytes.fromhex(group["publicKey"]))
                    got = key.verify(*(bytes.fromhex(test.get(name, "")) for name in ("msg", "sig", "ctx")))
                except KeyFormatError:
                    got = False
                self.assertEqual(got, test["result"] == "valid", f"{test['tcId']} {test['comment']}")

    def test_degenerate(self):
        for parameters in (mldsa.MLDSA44, mldsa.MLDSA65):
            data = bytes([1]) * 32 + bytes(parameters.public_key_size - 32)
            self.assertTrue(mldsa.PublicKey(parameters, data).degenerate)
            with self.assertRaises(KeyFormatError):
                mldsa.strong_key(parameters, data)


class Ed25519(unittest.TestCase):
    def test_wycheproof(self):
        for group in load(self, "wycheproof_ed25519.json")["testGroups"]:
            key = ed25519.PublicKey(bytes.fromhex(group["publicKey"]["pk"]))
            for test in group["tests"]:
                got = key.verify(bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
                self.assertEqual(got, test["result"] == "valid", f"{test['tcId']} {test['comment']}")

    def test_speccheck(self):
        """None of the cases on which libraries disagree passes: keys of small and mixed order, S and encodings out of range."""
        for i, case in enumerate(load(self, "ed25519_speccheck_cases.json")["cases"]):
            with self.subTest(i):
                try:
                    key = ed25519.PublicKey(bytes.fromhex(case["pub_key"]))
                except KeyFormatError:
                    continue
                self.assertFalse(key.verify(bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])))


class Composite(unittest.TestCase):
    def test_lamps(self):
        v = load(self, "lamps_composite_mldsa_ed25519.json")
        message, context = base64.b64decode(v["m"]), base64.b64decode(v["ctx"])
        case = next(t for t in v["tests"] if t["tcId"] == "id-MLDSA65-Ed25519-SHA512")
        key = composite.PublicKey(composite.SUITE, base64.b64decode(case["pk"]))
        plain, with_context = base64.b64decode(case["s"]), base64.b64decode(case["sWithContext"])
        self.assertTrue(key.verify(message, plain, b""))
        self.assertTrue(key.verify(message, with_context, context))
        self.assertFalse(key.verify(message, plain, context))
        self.assertFalse(key.verify(message + b"x", plain, b""))


class Merkle(unittest.TestCase):
    def test_inclusion(self):
        for v in load(self, "merkle-inclusion.json")["vectors"]:
            path, root, leaf = _path(v), base64.b64decode(v["root"]), base64.b64decode(v["leafHash"])
            got = merkle.included(leaf, v["leafIdx"], v["treeSize"], path, root)
            self.assertEqual(got, not v["wantErr"], v["file"])

    def test_consistency(self):
        for v in load(self, "merkle-consistency.json")["vectors"]:
            got = merkle.consistent(v["size1"], base64.b64decode(v["root1"]), v["size2"], base64.b64decode(v["root2"]), _path(v))
            # A proof from size 0 proves nothing, and is refused here though the reference accepts it.
            self.assertEqual(got, not v["wantErr"] and v["size1"] > 0, v["file"])

    def test_reference_tree(self):
        v = load(self, "rfc6962-reference-tree.json")
        tree = merkle.CompactRange()
        roots = [tree.root()]
        for leaf in v["leaf_inputs_hex"]:
            tree.append(merkle.leaf_hash(bytes.fromhex(leaf)))
            roots.append(tree.root())
        self.assertEqual([r.hex() for r in roots], v["roots_hex_by_size"])

    def test_boundary(self):
        v = load(self, "synthetic-boundary.json")
        roots = {r["size"]: base64.b64decode(r["root"]) for r in v["roots"]}
        for p in v["proofs"]:
            path = [base64.b64decode(h) for h in p["proof"]]
            if p["kind"] == "inclusion":
                leaf = merkle.leaf_hash(p["index"].to_bytes(8, "big"))
                self.assertTrue(merkle.included(leaf, p["index"], p["size"], path, roots[p["size"]]), p)
                self.assertFalse(merkle.included(leaf, p["index"], p["size"], path + [bytes(32)], roots[p["size"]]), p)


def _path(v: dict) -> list[bytes]:
    return [base64.b64decode(h) for h in v["proof"] or []]


class C2SP(unittest.TestCase):
    def test_checkpoint_bodies(self):
        for case in load(self, "c2sp-examples.json")["checkpoint_bodies"]:
            with self.subTest(case["desc"]):
                try:
                    # A body stands in a note: what the note refuses, the body never reaches.
                    note = parse_note((case["text"] + "\n— a.example AAAAAAAA\n").encode())
                    checkpoint_of(Note(case["text"], note.signatures))
                    got = note.text == case["text"]
                except DecodeError:
                    got = False
                self.assertEqual(got, case["ok"])

    def test_note(self):
        case = next(n for n in load(self, "c2sp-examples.json")["notes"] if n["name"].startswith("sigsum"))
        key = VerifierKey(case["vkey"])
        checkpoint = checkpoint_of(parse_note(case["note"].encode()))
        line = checkpoint.signatures[0]
        self.assertEqual((line.name, line.key_id), (key.name, key.key_id))
        self.assertEqual(key.verify(checkpoint, line.signature), 0)
        self.assertIsNone(key.verify(checkpoint, line.signature[:-1] + bytes(1)))


if __name__ == "__main__":
    unittest.main()
