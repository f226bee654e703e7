"""Ed25519 verification (RFC 8032, 5.1.7), with keys that must be the canonical encoding of a point of prime order.

The equation is the one without the cofactor, compared on encodings: R must be the canonical encoding of [S]B - [k]A, and S < L. Nothing here
is secret, so nothing here runs in constant time.
"""

from __future__ import annotations

import hashlib

from .errors import KeyFormatError

PUBLIC_KEY_SIZE = 32
SIGNATURE_SIZE = 64

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_2D = 2 * _D % _P
_SQRT_M1 = pow(2, (_P - 1) // 4, _P)

# Extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z (RFC 8032, 5.1.4).
_Point = tuple[int, int, int, int]
_ZERO: _Point = (0, 1, 1, 0)


def _add(a: _Point, b: _Point) -> _Point:
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    p = (y1 - x1) * (y2 - x2) % _P
    q = (y1 + x1) * (y2 + x2) % _P
    c = t1 * _2D % _P * t2 % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = q - p, d - c, d + c, q + p
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(a: _Point) -> _Point:
    x, y, z, _ = a
    p = x * x % _P
    q = y * y % _P
    c = 2 * z * z % _P
    h = p + q
    e = h - (x + y) * (x + y) % _P
    g = p - q
    f = c + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _negate(a: _Point) -> _Point:
    return -a[0] % _P, a[1], a[2], -a[3] % _P


def _encode(a: _Point) -> bytes:
    inverse = pow(a[2], -1, _P)
    x, y = a[0] * inverse % _P, a[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(data: bytes) -> _Point | None:
    """The point that data encodes canonically, or None (RFC 8032, 5.1.3)."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P == -u % _P:
        x = x * _SQRT_M1 % _P
    elif v * x * x % _P != u:
        return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _table(a: _Point) -> list[_Point]:
    """The multiples 0 to 15 of a point."""
    multiples = [_ZERO, a]
    for _ in range(14):
        multiples.append(_add(multiples[-1], a))
    return multiples


def _multiply(pairs: list[tuple[int, list[_Point]]]) -> _Point:
    """The sum of scalar times point over the pairs, points as tables, scalars below 2^256; four bits at a time."""
    total = _ZERO
    for shift in range(252, -1, -4):
        if total is not _ZERO:
            total = _double(_double(_double(_double(total))))
        for scalar, table in pairs:
            digit = scalar >> shift & 15
            if digit:
                total = _add(total, table[digit])
    return total


_BASE_Y = 4 * pow(5, -1, _P) % _P
_BASE_POINT = _decode(_BASE_Y.to_bytes(32, "little"))
assert _BASE_POINT is not None
_BASE = _table(_BASE_POINT)


class PublicKey:
    """A checked Ed25519 public key. Raises KeyFormatError unless it is the canonical encoding of a point of prime order."""

    def __init__(self, data: bytes) -> None:
        if len(data) != PUBLIC_KEY_SIZE:
            raise KeyFormatError(f"an Ed25519 key has {PUBLIC_KEY_SIZE} bytes, not {len(data)}")
        point = _decode(data)
        if point is None:
            raise KeyFormatError("the Ed25519 key is not the canonical encoding of a point")
        if point[0] == 0 and point[1] == 1:
            raise KeyFormatError("the Ed25519 key is the neutral element")
        product = _multiply([(_L, _table(point))])
        if product[0] % _P or (product[1] - product[2]) % _P:
            raise KeyFormatError("the Ed25519 key is not of prime order")
        self.data = data
        self._minus = _table(_negate(point))

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether signature (64 bytes) is one of this key over message."""
        if len(signature) != SIGNATURE_SIZE:
            return False
        s = int.from_bytes(signature[32:], "little")
        if s >= _L:
            return False
        k = int.from_bytes(hashlib.sha512(signature[:32] + self.data + message).digest(), "little") % _L
        return _encode(_multiply([(s, _BASE), (k, self._minus)])) == signature[:32]
