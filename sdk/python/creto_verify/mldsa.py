"""ML-DSA-44 and ML-DSA-65 verification (FIPS 204, algorithms 3 and 8), over hashlib's SHAKE.

PublicKey(parameters, data).verify(message, signature, context). Nothing here is secret, so nothing here runs in constant time. A key expands
its matrix once, on the first signature.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .errors import KeyFormatError

_Q = 8380417
_D = 13


@dataclass(frozen=True)
class Parameters:
    """A parameter set (FIPS 204, table 1 and 2); sizes in bytes."""

    name: str
    rows: int  # k
    columns: int  # l
    tau: int
    gamma1_bits: int  # gamma1 = 2^gamma1_bits
    gamma2: int
    omega: int
    challenge_size: int
    public_key_size: int
    signature_size: int

    @property
    def beta(self) -> int:
        return self.tau * (2 if self.columns == 4 else 4)  # tau times eta


MLDSA44 = Parameters("ML-DSA-44", 4, 4, 39, 17, (_Q - 1) // 88, 80, 32, 1312, 2420)
MLDSA65 = Parameters("ML-DSA-65", 6, 5, 49, 19, (_Q - 1) // 32, 55, 48, 1952, 3309)


def _reverse8(i: int) -> int:
    return int(f"{i:08b}"[::-1], 2)


_ZETAS = [pow(1753, _reverse8(i), _Q) for i in range(256)]
# One list of 128 factors for each of the eight layers. Layer s has 2^s blocks; with the two halves of every block kept in the two halves of
# the list, position i of the first half belongs to block i mod 2^s, so that a layer is three list comprehensions.
_FORWARD = [_ZETAS[1 << s : 2 << s] * (128 >> s) for s in range(8)]
_BACKWARD = [[pow(z, -1, _Q) for z in _ZETAS[1 << s : 2 << s]] * (128 >> s) for s in range(8)]
_INVERSE_256 = pow(256, -1, _Q)


def _ntt(w: list[int]) -> list[int]:
    """FIPS 204, algorithm 41. Sums stay unreduced: eight layers add at most eight times q."""
    for factors in _FORWARD:
        low = w[:128]
        high = [z * x % _Q for z, x in zip(factors, w[128:])]
        w = [0] * 256
        w[0::2] = [a + b for a, b in zip(low, high)]
        w[1::2] = [a - b for a, b in zip(low, high)]
    return w


def _inverse_ntt(w: list[int]) -> list[int]:
    """FIPS 204, algorithm 42; coefficients from 0 to q - 1."""
    for factors in reversed(_BACKWARD):
        low, high = w[0::2], w[1::2]
        w = [a + b for a, b in zip(low, high)] + [(a - b) * z % _Q for a, b, z in zip(low, high, factors)]
    return [x * _INVERSE_256 % _Q for x in w]


def _unpack(data: bytes, bits: int) -> list[int]:
    """256 little-endian integers of so many bits."""
    whole = int.from_bytes(data, "little")
    mask = (1 << bits) - 1
    return [whole >> shift & mask for shift in range(0, 256 * bits, bits)]


def _pack(values: list[int], bits: int) -> bytes:
    whole = 0
    for value in reversed(values):
        whole = whole << bits | value
    return whole.to_bytes(32 * bits, "little")


def _uniform(seed: bytes) -> list[int]:
    """256 coefficients below q by rejection (FIPS 204, algorithm 30)."""
    size = 840
    while True:
        stream = hashlib.shake_128(seed).digest(size)
        found = [x for x in (a | b << 8 | (c & 127) << 16 for a, b, c in zip(stream[0::3], stream[1::3], stream[2::3])) if x < _Q]
        if len(found) >= 256:
            return found[:256]
        size += 840


def _challenge(seed: bytes, tau: int) -> list[int]:
    """A polynomial with tau coefficients of 1 or -1 (FIPS 204, algorithm 29)."""
    size = 272
    while True:
        stream = hashlib.shake_256(seed).digest(size)
        signs = int.from_bytes(stream[:8], "little")
        c = [0] * 256
        at = 8
        i = 256 - tau
        while i < 256 and at < size:
            j = stream[at]
            at += 1
            if j > i:
                continue
            c[i] = c[j]
            c[j] = 1 - 2 * (signs & 1)
            signs >>= 1
            i += 1
        if i == 256:
            return c
        size += 272


def _hints(data: bytes, k: int, omega: int) -> list[set[int]] | None:
    """Positions of the hint bits of each polynomial, or None (FIPS 204, algorithm 21)."""
    hints = []
    index = 0
    for i in range(k):
        end = data[omega + i]
        if end < index or end > omega:
            return None
        positions = data[index:end]
        if any(a >= b for a, b in zip(positions, positions[1:])):
            return None
        hints.append(set(positions))
        index = end
    if any(data[index:omega]):
        return None
    return hints


class PublicKey:
    """An ML-DSA public key. Raises KeyFormatError if data has not the parameter set's length."""

    def __init__(self, parameters: Parameters, data: bytes) -> None:
        if len(data) != parameters.public_key_size:
            raise KeyFormatError(f"an {parameters.name} key has {parameters.public_key_size} bytes, not {len(data)}")
        self.parameters = parameters
        self.data = data
        self._expanded: tuple | None = None

    @property
    def degenerate(self) -> bool:
        """Whether t1 is zero, so that anybody can sign under the key. FIPS 204 verifies under such keys; this project refuses them."""
        return not any(self.data[32:])

    def _expand(self) -> tuple:
        """(matrix A in NTT form by rows, NTT of t1 times 2^d by rows, hash of the key)."""
        if self._expanded is None:
            par, rho = self.parameters, self.data[:32]
            matrix = [[_uniform(rho + bytes((s, r))) for s in range(par.columns)] for r in range(par.rows)]
            t1 = [_ntt([x << _D for x in _unpack(self.data[32 + 320 * i : 352 + 320 * i], 10)]) for i in range(par.rows)]
            self._expanded = matrix, t1, hashlib.shake_256(self.data).digest(64)
        return self._expanded

    def verify(self, message: bytes, signature: bytes, context: bytes = b"") -> bool:
        """Whether signature is one of this key over message, with a context of at most 255 bytes."""
        if len(context) > 255:
            return False
        return self.verify_internal(bytes((0, len(context))) + context + message, signature)

    def verify_internal(self, message: bytes, signature: bytes) -> bool:
        """Verify over the message that algorithm 8 sees, its context already in front: for test vectors of the internal interface."""
        par = self.parameters
        if len(signature) != par.signature_size:
            return False
        seed = signature[: par.challenge_size]
        gamma1, z_size = 1 << par.gamma1_bits, 32 * (par.gamma1_bits + 1)
        z = []
        for i in range(par.columns):
            at = par.challenge_size + i * z_size
            poly = [gamma1 - x for x in _unpack(signature[at : at + z_size], par.gamma1_bits + 1)]
            if max(poly) >= gamma1 - par.beta or min(poly) <= par.beta - gamma1:
                return False
            z.append(_ntt(poly))
        hints = _hints(signature[par.challenge_size + par.columns * z_size :], par.rows, par.omega)
        if hints is None:
            return False

        matrix, t1, key_hash = self._expand()
        mu = hashlib.shake_256(key_hash + message).digest(64)
        c = _ntt(_challenge(seed, par.tau))
        commitment = hashlib.shake_256(mu)
        for row, t, hint in zip(matrix, t1, hints):
            total = [-a * b for a, b in zip(c, t)]
            for a_poly, z_poly in zip(row, z):
                total = [s + a * b for s, a, b in zip(total, a_poly, z_poly)]
            w = _inverse_ntt([x % _Q for x in total])
            commitment.update(self._high_bits(w, hint))
        return commitment.digest(par.challenge_size) == seed

    def _high_bits(self, w: list[int], hint: set[int]) -> bytes:
        """UseHint on every coefficient, packed (FIPS 204, algorithms 36, 40 and 28)."""
        gamma2 = self.parameters.gamma2
        alpha = 2 * gamma2
        m = (_Q - 1) // alpha
        high = []
        for i, r in enumerate(w):
            r0 = r % alpha
            if r0 > gamma2:
                r0 -= alpha
            if r - r0 == _Q - 1:
                r1, r0 = 0, r0 - 1
            else:
                r1 = (r - r0) // alpha
            if i in hint:
                r1 = (r1 + (1 if r0 > 0 else -1)) % m
            high.append(r1)
        return _pack(high, (m - 1).bit_length())


def strong_key(parameters: Parameters, data: bytes) -> PublicKey:
    """A public key that is not degenerate. Raises KeyFormatError."""
    key = PublicKey(parameters, data)
    if key.degenerate:
        raise KeyFormatError(f"the {parameters.name} key is degenerate: anybody can sign under it")
    return key
