"""Values as text: ids in base32, times in RFC 3339, strict base64 and decimals."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime, timedelta

from .errors import DecodeError

_EPOCH = datetime(1970, 1, 1)
NANOSECOND = 1_000_000_000
# The last POSIX second of the year 9999.
MAX_SECONDS = 253402300799


def id_text(data: bytes) -> str:
    """An id of 16 bytes as 26 characters of lower-case base32 without padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def parse_id(text: str) -> bytes:
    """The 16 bytes of an id. Raises DecodeError unless text is its one form."""
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != 16 or id_text(data) != text:
        raise DecodeError(f"{text!r} is no id: 26 characters of lower-case base32")
    return data


def time_text(ns: int) -> str:
    """Unix nanoseconds in RFC 3339, UTC, with as many decimals as are needed."""
    seconds, rest = divmod(ns, NANOSECOND)
    whole = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{whole}{fraction}Z"


def parse_decimal(text: str, limit: int) -> int:
    """A decimal without sign and leading zeros, at most limit. Raises DecodeError."""
    if not text.isascii() or not text.isdigit() or len(text) > 20 or (text[0] == "0" and text != "0"):
        raise DecodeError(f"{text[:40]!r} is no canonical decimal")
    number = int(text)
    if number > limit:
        raise DecodeError(f"{number} is too large")
    return number


def parse_base64(text: str) -> bytes:
    """Standard base64 with padding, in its one form. Raises DecodeError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError(f"{text[:40]!r} is no base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise DecodeError(f"{text[:40]!r} is no canonical base64")
    return data


def parse_hex(text: str, size: int) -> bytes:
    """Lower-case hex of exactly size bytes. Raises DecodeError."""
    if len(text) != 2 * size or any(c not in "0123456789abcdef" for c in text):
        raise DecodeError(f"{text[:80]!r} is not {2 * size} hex digits")
    return bytes.fromhex(text)
