"""Make an RSA key for the demo's campaign tool, and sign with it (RFC 6376)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """``pem``: PKCS #1. ``record``: the TXT record of the selector in DNS."""

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


def make_key(bits: int = 2048) -> Key:
    made = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    plain = serialization.NoEncryption()
    public = made.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(
        pem=made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain),
        record=f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}",
    )
