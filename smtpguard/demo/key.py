"""An RSA key for the campaign tool of the play, made on the spot (RFC 8017 appendix A.1), and what it signs with (RFC 6376).

Good for a play and nothing else.
"""

from __future__ import annotations

import base64
import math
import secrets
from dataclasses import dataclass, field

import dkim

_BITS = 2048
_EXPONENT = 65537
_SMALL = tuple(n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """``pem``: PKCS #1. ``record``: what DNS would say at the selector."""

    pem: bytes = field(repr=False)
    record: str

    def sign(self, message: bytes, *, domain: str, selector: str) -> bytes:
        """The DKIM-Signature field."""
        signature: bytes = dkim.sign(
            message,
            selector.encode(),
            domain.encode(),
            self.pem,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=[b"from", b"to", b"subject", b"date", b"message-id", b"list-id"],
        )
        return signature


def make_key(bits: int = _BITS) -> Key:
    while True:
        p, q = _prime(bits // 2), _prime(bits // 2)
        if p != q and math.gcd(_EXPONENT, (p - 1) * (q - 1)) == 1:
            break
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    private = _sequence(0, p * q, _EXPONENT, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    public = _sequence(p * q, _EXPONENT)
    text = base64.encodebytes(private).decode()
    return Key(
        pem=f"-----BEGIN RSA PRIVATE KEY-----\n{text}-----END RSA PRIVATE KEY-----\n".encode(),
        record=f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}",
    )


def _prime(bits: int) -> int:
    while True:
        n = secrets.randbits(bits) | (3 << (bits - 2)) | 1
        if all(n % small for small in _SMALL) and _probably_prime(n):
            return n


def _probably_prime(n: int) -> bool:
    """Miller and Rabin's test, 20 rounds."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(20):
        x = pow(secrets.randbelow(n - 3) + 2, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def _sequence(*numbers: int) -> bytes:
    """DER of a SEQUENCE of INTEGERs (X.690)."""
    body = b"".join(_tagged(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    return _tagged(0x30, body)


def _tagged(tag: int, body: bytes) -> bytes:
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(length)]) + length + body
