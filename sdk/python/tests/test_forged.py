"""Rules of times, intervals and membership, on ledgers made for them. The Go verifier gives the same answers."""

import tempfile
import unittest
from pathlib import Path

from creto_verify import Trust, verify_file
from creto_verify.text import id_text
from tests.encode import completeness_file, encode, frames_of
from tests.forge import LOG_VKEY, NS, START, Ledger, Node, vkey

A, B, C, D, E = (Node(i) for i in range(5))


class Case(unittest.TestCase):
    def check(self, label: str, data: bytes, trust: str, code: int = 0, step: str = "", skipped: bool = False):
        with self.subTest(label), tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            path.write_bytes(data)
            report = verify_file(path, Trust.parse(trust.encode()))
            self.assertEqual((report.exit_code, report.failure.step if report.failure else ""), (code, step), report.failure)
            if code == 0 and skipped:
                self.assertTrue(report.steps[-1].skipped)
            return report


def interval(node: Node, begin, end) -> list[str]:
    return [f"valid {id_text(node.id)}-{kind} {begin} {end}" for kind in ("ed", "pq")]


class Keys(Case):
    def keys(self, label, code=0, *, events=(), lines=(), nodes=(A, B, C), trusted=None, change=None, step="keys", skipped=False, **genesis):
        ledger = Ledger(list(nodes), **genesis)
        ledger.found()
        for kind, seconds, body in events:
            ledger.event(kind, seconds, body)
        ledger.seal(1000)
        data = ledger.completeness(ledger.checkpoint([A], 1001))
        if change is not None:
            data = completeness_file(change(frames_of(data)))
        trust = ledger.trust(list(trusted if trusted is not None else nodes), *lines)
        self.check(label, data, trust, code, step if code else "", skipped)

    def test_genesis(self):
        self.keys("founders")
        self.keys("a founder is not in the trust file", 13, trusted=(A, B))
        self.keys("a node that the log does not know", 13, trusted=(A, B, C, D))
        self.keys("a witness of somebody else", lines=[f"witness w {vkey('elsewhere/w', 4, D.ed)}"])
        self.keys("a name like a node's", 13, lines=[f"witness w {vkey('forged/node/x', 4, D.ed)}"])
        self.keys("another log key", 13, lines=["log " + vkey("forged/spine", 1, D.ed)])
        self.keys("log of another origin", lines=["log " + vkey("other/spine", 1, D.ed)])
        self.keys("genesis names another log key", 13, log_key=vkey("forged/spine", 1, D.ed))
        self.keys("genesis log key is none", 14, log_key="x")
        self.keys("an unknown field", 14, f12=1)
        self.keys("two nodes with one id", 14, f9=[A.genesis(), A.genesis()], trusted=(A,))
        self.keys("a founder without a cosigning key", 14, f9=[A.genesis() | {4: b""}], trusted=(A,))
        self.keys("a founder with a key of small order", 14, f9=[A.genesis() | {3: b"\1" * 1952 + bytes(32)}], trusted=(A,))
        self.keys("a founder with a degenerate key", 14, f9=[A.genesis() | {3: bytes(1952) + A.ed}], trusted=(A,))
        self.keys("no bodies", change=lambda f: [x for x in f if x[0] != 3], skipped=True)

    def test_votes(self):
        add, promote = ("admin.node.add", 10, D.add_body()), ("admin.member", 20, {1: 2, 2: D.id})
        four = (A, B, C, D)
        self.keys("added without a vote", events=[add, ("admin.member", 15, {1: 1, 2: D.id})])
        self.keys("added without a vote, trusted", 13, events=[add], trusted=four)
        self.keys("promoted, not trusted", 13, events=[add, promote])
        for begin, code in ((START - 41, 13), (START - 40, 0), (START + 500, 0), ("-", 13)):
            self.keys(f"promoted, from {begin}", code, events=[add, promote], trusted=four, lines=interval(D, begin, "-"))
        self.keys("half of the interval", 13, events=[add, promote], trusted=four, lines=interval(D, START, "-")[:1])
        remove = ("admin.member", 30.5, {1: 3, 2: C.id})
        for end, code in ((START + 90, 0), (START + 91, 13), ("-", 13)):
            self.keys(f"removed, to {end}", code, events=[remove], lines=interval(C, "-", end))
        self.keys("removed, not trusted", events=[remove], trusted=(A, B))
        back = ("admin.member", 100, {1: 2, 2: C.id})
        self.keys("removed and back", events=[remove, back])
        self.keys("removed, back and removed", events=[remove, back, ("admin.member", 200, {1: 3, 2: C.id})], lines=interval(C, "-", START + 260))

    def test_bad_bodies(self):
        self.keys("vote for a stranger", 14, events=[("admin.member", 20, {1: 2, 2: D.id})])
        self.keys("vote without cosigning keys", 14, events=[("admin.node.add", 10, D.add_body(False)), ("admin.member", 20, {1: 2, 2: D.id})])
        self.keys("added twice", 14, events=[("admin.node.add", 10, D.add_body()), ("admin.node.add", 11, D.add_body())])
        self.keys("a founder's keys changed", 14, events=[("admin.node.add", 10, E.add_body() | {1: C.id})])
        self.keys("one cosigning key", 14, events=[("admin.node.add", 10, {k: v for k, v in D.add_body().items() if k != 7})])
        self.keys("unknown field", 14, events=[("admin.node.add", 10, D.add_body() | {9: 1})])
        self.keys("empty address", 14, events=[("admin.member", 10, {1: 3, 2: C.id, 3: ""})])
        self.keys("body of a removal left out", events=[("admin.member", 10, {1: 3, 2: C.id})], change=lambda f: f[:-1], skipped=True)


class Times(Case):
    def times(self, label, order, code=0, step="", first=None, **header):
        ledger = Ledger([A], slot=1)
        for kind, seconds in order:
            ledger.seal(seconds) if kind == "seal" else ledger.leaf("x", seconds)
        self.check(label, ledger.completeness(ledger.checkpoint([A], 5000), first, **header), ledger.trust([A]), code, step)

    def test_leaves(self):
        for label, inside, code in (
            ("inside", [12, 13], 0),
            ("none", [], 0),
            ("at the start epoch's time", [10, 12], 0),
            ("before the start epoch", [9.5, 12], 11),
            ("at the end epoch's time", [20], 0),
            ("after the end epoch", [20.001], 11),
            ("twice one time", [12, 12], 11),
            ("decreasing", [13, 12], 11),
        ):
            order = [("leaf", 1), ("seal", 10), *(("leaf", t) for t in inside), ("seal", 20)]
            self.times(label, order, code, "leaves" if code else "", first=0)

    def test_period(self):
        order = [("leaf", 1), ("seal", 10), ("leaf", 12), ("seal", 20)]
        at = lambda seconds, ns=0: (START + seconds) * NS + ns  # noqa: E731
        self.times("from inside", order, first=0, f6=at(11))
        self.times("from before the start epoch", order, 12, "epochs", first=0, f6=at(10, -1))
        self.times("to after the end epoch", order, 12, "epochs", first=0, f7=at(20, 1))
        self.times("to before from", order, 14, "file", first=0, f6=at(20), f7=at(19))
        self.times("of another slot", order, 11, "heads tree", f5=2)
        self.times("of another cell", order, 11, "heads tree", f4=2)
        self.times("of another tenant", order, 11, "heads tree", f3=b"\2" * 16)
        self.times("one leaf fewer", order, 11, "heads tree", f9=1)
        self.times("compact range left out", order, 12, "leaves", first=0, f10=None)
        self.times("epochs in reverse", [("leaf", 1), ("seal", 30), ("leaf", 31), ("seal", 20)], 12, "epochs", first=0, f6=at(20), f7=at(20))


class Endorsement(Case):
    def endorsed(self, label, code=0, *, lines=(), quorum="any", cosigners=(A, B), at=5000, trusted=(A, B, C)):
        ledger = Ledger([A], slot=1)
        ledger.leaf("x", 1)
        ledger.seal(10)
        trust = ledger.trust(list(trusted), *lines, quorum=quorum)
        self.check(label, ledger.completeness(ledger.checkpoint(list(cosigners), at)), trust, code, "checkpoint" if code else "")

    def test_quorum(self):
        self.endorsed("any")
        self.endorsed("2 of 3", quorum="2")
        self.endorsed("3 of 3", 13, quorum="3")
        self.endorsed("nobody", 13, cosigners=())
        self.endorsed("none is asked for", cosigners=(), trusted=())
        self.endorsed("a stranger does not count", 13, cosigners=(D,))
        self.endorsed("one cosigner twice", 13, cosigners=(A, A))

    def test_time(self):
        self.endorsed("time 0", 13, at=-START)
        self.endorsed("time 1", at=1 - START)
        self.endorsed("last second of 9999", at=253402300799 - START)
        self.endorsed("the year 10000", 13, at=253402300800 - START)

    def test_interval(self):
        late = START + 5000
        self.endorsed("cosigners in time", quorum="2", lines=interval(A, late, late + 1))
        self.endorsed("a cosigner too early", 13, quorum="2", lines=interval(A, late + 1, "-"))
        self.endorsed("a cosigner too late", 13, quorum="2", lines=interval(A, "-", late))
        self.endorsed("log key from the spine leaf on", lines=[f"valid {LOG_VKEY} {START + 10} {late + 1}"])
        self.endorsed("log key after the spine leaf", 13, lines=[f"valid {LOG_VKEY} {START + 11} -"])
        self.endorsed("log key until the cosignature", 13, lines=[f"valid {LOG_VKEY} - {late}"])


class FirstLeaf(Case):
    def system(self, label, fill, code, step="keys"):
        ledger = Ledger([A, B, C])
        fill(ledger)
        ledger.seal(1000)
        self.check(label, ledger.completeness(ledger.checkpoint([A], 1001)), ledger.trust([A, B, C]), code, step)

    def test_order(self):
        self.system("no genesis", lambda g: g.event("x", 1, {}), 13)
        self.system("no leaf", lambda g: None, 13)
        self.system("genesis second", lambda g: (g.event("x", 1, {}), g.found(2)), 14)
        self.system("two geneses", lambda g: (g.found(1), g.found(2)), 14)
        self.system("genesis refused", lambda g: g.leaf("system.genesis", 1, g.genesis, f14={1: 1}), 13)
        self.system("another body", lambda g: g.leaf("system.genesis", 1, encode({})), 14)


if __name__ == "__main__":
    unittest.main()
