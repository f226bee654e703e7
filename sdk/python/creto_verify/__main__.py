"""python3 -m creto_verify FILE… --trust TRUST: exit codes and steps of `creto verify`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta

from . import __version__, load_trust, verify_file
from .errors import EXIT_LOCAL, EXIT_OK, EXIT_UNTRUSTED, CretoError, DecodeError, TrustError
from .text import parse_id

_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
_MAX_ENTRY = 1 << 20


def _duration(text: str) -> int:
    """A duration such as 24h or 1h30m in nanoseconds."""
    parts = re.findall(r"(\d{1,12})(ns|us|ms|s|m|h)", text, re.ASCII)
    if not parts or "".join(n + unit for n, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 24h, or 1h30m")
    return sum(int(n) * _UNITS[unit] for n, unit in parts)


def _time(text: str) -> int:
    """A time in RFC 3339 as Unix nanoseconds."""
    match = _RFC3339.match(text)
    try:
        whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")) if match else None
    except ValueError:
        whole = None
    if match is None or whole is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 2026-11-01T00:00:00Z")
    return (whole - _EPOCH) // timedelta(seconds=1) * 10**9 + int((match[2] or "0").ljust(9, "0"))


def _tenant(text: str) -> bytes:
    try:
        return parse_id(text)
    except DecodeError as err:
        raise argparse.ArgumentTypeError(str(err)) from None


def _write(text: str) -> None:
    """Write UTF-8 whatever the locale says; names of a trust file that are not UTF-8 are replaced."""
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    sys.stdout.buffer.write(clean.encode("utf-8"))
    sys.stdout.buffer.flush()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """Usage errors have the code of a wrong command line (docs/exit-codes.md)."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_LOCAL, f"creto_verify: {message}\n")


def _parser() -> argparse.ArgumentParser:
    p = _Parser(
        prog="creto_verify",
        description="Check proof, receipt, checkpoint, tlog-proof, consistency and completeness files offline, against a trust file.",
        epilog="Exit codes: 10 signature, 11 inclusion, 12 consistency, 13 untrusted, 14 malformed, 1 wrong command line. With "
        "several files it is that of the first failure.",
    )
    p.add_argument("files", nargs="+", metavar="FILE")
    p.add_argument("--trust", required=True, help="trust file that proofs are checked against")
    p.add_argument("-o", "--output", choices=("table", "json"), default="table", help="form of the output (default table)")
    p.add_argument("--tenant", type=_tenant, help="refuse a proof of another tenant")
    p.add_argument("--index", type=int, help="refuse a proof of another leaf")
    p.add_argument("--from", dest="begin", type=_time, help="refuse a completeness file that does not begin at this time (RFC 3339)")
    p.add_argument("--to", dest="end", type=_time, help="refuse a completeness file that does not end at this time (RFC 3339)")
    p.add_argument("--max-age", type=_duration, help="refuse a proof whose head is older, such as 24h")
    p.add_argument("--leaf", help="file with the entry that a bare tlog-proof is about")
    p.add_argument("--version", action="version", version=__version__)
    return p


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        trust = load_trust(args.trust)
        entry = None
        if args.leaf is not None:
            with open(args.leaf, "rb") as file:
                entry = file.read(_MAX_ENTRY + 1)
            if len(entry) > _MAX_ENTRY:
                raise CretoError(f"{args.leaf}: an entry has at most {_MAX_ENTRY} bytes")
        asked = {
            "tenant": args.tenant,
            "index": args.index,
            "begin": args.begin,
            "end": args.end,
            "max_age": args.max_age,
            "entry": entry,
        }
        reports = []
        for path in args.files:
            reports.append(verify_file(path, trust, **asked))
            if args.output == "table":
                _write(reports[-1].to_text(trust.fingerprint()))
    except TrustError as err:
        print(f"creto_verify: {args.trust}: {err}", file=sys.stderr)
        return EXIT_UNTRUSTED
    except (CretoError, OSError) as err:
        print(f"creto_verify: {err}", file=sys.stderr)
        return EXIT_LOCAL
    if args.output == "json":
        _write(json.dumps([r.to_json() for r in reports], indent=2, ensure_ascii=False) + "\n")
    return next((r.exit_code for r in reports if not r.ok), EXIT_OK)


if __name__ == "__main__":
    sys.exit(main())
