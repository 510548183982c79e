"""A domain's DKIM key, messages signed with it, and the verifier's answers."""

from __future__ import annotations

import base64
from typing import Any

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from smtpguard.mail.fields import DkimResult
from smtpguard.mail.message import Message
from smtpguard.policy.facts import Unknown
from smtpguard.wire.dkim import DkimSigner, DkimVerifier, Unresolved

DOMAIN = "campaigns.example.com"
NAME = f"s1._domainkey.{DOMAIN}"
RAW = b"From: Anna <anna@example.com>\r\nTo: bo@example.net\r\nSubject: Offers\r\n\r\nDear Bo,\r\n\r\nlook  here\t\r\n\r\n"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # the least that proves anything (RFC 8301)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
PUBLIC = base64.b64encode(
    PRIVATE.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
RECORD = f"v=DKIM1; k=rsa; p={PUBLIC}"
SIGNER = DkimSigner(domain=DOMAIN, selector="s1", key=PEM)
SIGNED = SIGNER.sign(RAW) + RAW


async def origin(raw: bytes, record: str | None = RECORD, *, raises: bool = False, **more: Any) -> DkimResult | Unknown:
    """The verifier's answer for ``raw`` when ``record`` is the key at NAME. ``raises``: DNS fails."""

    async def lookup(name: str) -> bytes | None:
        if raises:
            raise Unresolved("SERVFAIL")
        return record.encode() if record is not None and name == NAME else None

    checker = DkimVerifier(lookup, **more)
    try:
        return await checker.origin(Message.of(raw))
    finally:
        await checker.close()


def proves(answer: DkimResult | Unknown) -> bool:
    assert isinstance(answer, DkimResult)
    return answer.domains == {DOMAIN}


def fails(answer: DkimResult | Unknown, why: str) -> bool:
    assert isinstance(answer, DkimResult)
    assert not answer.domains
    return len(answer.failed) == 1 and why in answer.failed[0][1]


def sign(raw: bytes = RAW, **more: object) -> bytes:
    """Sign by dkimpy, with options that smtpguard's own signer does not use."""
    signer = dkim.DKIM(raw)
    return bytes(signer.sign(b"s1", DOMAIN.encode(), PEM, **more)) + raw
