"""DKIM of our own signing, verified; and what must not count: see RFC 6376 sections 3.5, 3.6 and 8, and RFC 8301."""

from __future__ import annotations

import asyncio
import base64
import mmap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import dkim
import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.message import Message
from smtpguard.policy.facts import Unknown
from smtpguard.reading.origin import Origin
from smtpguard.wire.dkim import (
    MAX_FIELDS,
    MAX_KEY_OCTETS,
    MAX_SIGNATURES,
    DkimSigner,
    DkimVerifier,
    Resolver,
    Unresolved,
    canonical_body,
)

DOMAIN = "campaigns.example.com"
NAME = f"s1._domainkey.{DOMAIN}"
RAW = b"From: Anna <anna@example.com>\r\nTo: bo@example.net\r\nSubject: Offers\r\n\r\nDear Bo,\r\n\r\nlook  here\t\r\n\r\n"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
PUBLIC = base64.b64encode(
    PRIVATE.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
RECORD = f"v=DKIM1; k=rsa; p={PUBLIC}"
SIGNER = DkimSigner(domain=DOMAIN, selector="s1", key=PEM)


@asynccontextmanager
async def verifier(
    record: str | None = RECORD, *, raises: bool = False, **more: object
) -> AsyncIterator[Callable[[bytes], object]]:
    async def lookup(name: str) -> bytes | None:
        if raises:
            raise Unresolved("SERVFAIL")
        return record.encode() if record is not None and name == NAME else None

    checker = DkimVerifier(lookup, **more)  # type: ignore[arg-type]
    try:
        yield lambda raw: checker.origin(Message.of(raw))
    finally:
        await checker.close()


async def origin(raw: bytes, record: str | None = RECORD, **more: object) -> Origin | Unknown:
    async with verifier(record, **more) as ask:  # type: ignore[arg-type]
        return await ask(raw)  # type: ignore[misc, no-any-return]


def proves(answer: Origin | Unknown) -> bool:
    assert isinstance(answer, Origin)
    return answer.domains == {DOMAIN}


def fails(answer: Origin | Unknown, why: str) -> bool:
    assert isinstance(answer, Origin)
    assert not answer.domains
    return len(answer.failed) == 1 and why in answer.failed[0][1]


def sign(raw: bytes = RAW, **more: object) -> bytes:
    signer = dkim.DKIM(raw)
    return bytes(signer.sign(b"s1", DOMAIN.encode(), PEM, **more)) + raw


async def test_what_we_sign_verifies_and_what_is_unsigned_has_no_origin() -> None:
    assert await origin(SIGNER.sign(RAW) + RAW) == Origin(domains=frozenset({DOMAIN}))
    assert await origin(RAW) == Origin()


@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
@pytest.mark.parametrize("head", [b"simple", b"relaxed"])
@pytest.mark.parametrize("raw", [RAW, b"From: a@example.com\r\n\r\n", b"From: a@example.com\r\n\r\n\r\n\r\n"])
async def test_both_canonical_forms(head: bytes, body: bytes, raw: bytes) -> None:
    assert proves(await origin(sign(raw, canonicalize=(head, body))))


async def test_domains_are_in_lower_case() -> None:
    signer = dkim.DKIM(RAW)
    signed = signer.sign(b"S1", DOMAIN.upper().encode(), PEM) + RAW
    assert proves(await origin(signed))


async def test_a_mapped_message(tmp_path: Path) -> None:
    raw = RAW + b"More\r\n" * 100_000
    (tmp_path / "spool").write_bytes(SIGNER.sign(raw) + raw)
    with (tmp_path / "spool").open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
        checker = DkimVerifier(pinned={NAME: RECORD})
        assert proves(await checker.origin(Message.of(content)))
        await checker.close()


async def test_prepended_trace_does_not_break_it() -> None:
    assert proves(await origin(b"Received: from a by b\r\nX-Smtpguard: id=1\r\n" + SIGNER.sign(RAW) + RAW))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"look  here", b"click here", "body was changed"),
        (b"Subject: Offers", b"Subject: Other", "does not match"),
        (b"anna@", b"evil@", "does not match"),
        (b"d=campaigns.example.com", b"d=other.example.com", "no key"),
        (b"s=s1", b"s=s2", "no key"),
        (b"a=rsa-sha256", b"a=rsa-sha1", "algorithm"),
        (b"a=rsa-sha256", b"a=ed25519-sha256", "another type"),
        (b"a=rsa-sha256", b"a=none", "algorithm"),
        (b"v=1", b"v=2", "not a DKIM signature"),
        (b"bh=", b"bh=AAAA", "body was changed"),
        (b"; q=", b"; x=99; q=", "expired"),
        (b"; q=", b"; x=soon; q=", "not a DKIM"),
        (b"; q=", b"; d=evil.example; q=", "not a DKIM"),
        (b"DKIM-Signature: v", b"DKIM-Signature: \xff; v", "not a DKIM"),
        (b"; q=", b"; y=" + b"x" * 5000 + b"; q=", "too long"),
    ],
)
async def test_what_was_changed_does_not_verify(old: bytes, new: bytes, why: str) -> None:
    signed = SIGNER.sign(RAW) + RAW
    assert old in signed
    assert fails(await origin(signed.replace(old, new, 1)), why)


RFC8463_SIGNATURE = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
"""
RFC8463_MESSAGE = b"""\
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
"""
RFC8463_KEY = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


@pytest.mark.parametrize(
    ("record", "old", "why"),
    [
        (RFC8463_KEY, b"", ""),
        (RFC8463_KEY, b"dinner", "does not match"),
        (RFC8463_KEY, b"hungry", "body was changed"),
        (RECORD, b"", "another type"),
        (RFC8463_KEY.replace("p=11", "p=22"), b"", "does not match"),
        ("v=DKIM1; k=ed25519; p=AAAA", b"", "does not match"),
    ],
)
async def test_ed25519_as_in_appendix_a_of_rfc_8463(record: str, old: bytes, why: str) -> None:
    raw = (RFC8463_SIGNATURE + RFC8463_MESSAGE).replace(b"\n", b"\r\n")
    checker = DkimVerifier(pinned={"brisbane._domainkey.football.example.com": record})
    answer = await checker.origin(Message.of(raw.replace(old, b"lunch", 1) if old else raw))
    await checker.close()
    assert isinstance(answer, Origin)
    assert answer.domains == (frozenset() if why else {"football.example.com"})
    assert not why or why in answer.failed[0][1]


async def test_a_signature_that_leaves_body_unsigned_does_not_count() -> None:
    signed = sign(RAW, length=True)
    assert proves(await origin(signed))
    assert fails(await origin(signed + b"Buy bacon\r\n"), "l=")


async def test_a_signature_that_does_not_cover_from_does_not_count() -> None:
    signed = SIGNER.sign(RAW).replace(b"from", b"frog") + RAW
    assert fails(await origin(signed), "From is not signed")


@pytest.mark.parametrize(
    "changed",
    [
        b"From: evil@example.com\r\n%s",
        b"from : evil@example.com\r\n%s",
        b"no field at all\r\n%s",
    ],
)
async def test_an_ambiguous_header_proves_nothing(changed: bytes) -> None:
    assert fails(await origin(changed % (SIGNER.sign(RAW) + RAW)), "ambiguous")


async def test_headers_we_freeze_cannot_be_added() -> None:
    for name in (b"Subject", b"To"):
        added = name + b": other\r\n" + SIGNER.sign(RAW) + RAW
        assert fails(await origin(added), "does not match")


async def test_expiry_is_by_the_clock_that_was_given() -> None:
    # expired signatures are made by hand: dkimpy writes no x=
    signed = SIGNER.sign(RAW).replace(b"; q=", b"; x=2000000000; q=") + RAW
    assert fails(await origin(signed, now=lambda: 2_000_000_001.0), "expired")
    assert fails(await origin(signed, now=lambda: 1_999_999_999.0), "does not match")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (None, "no key"),
        ("", "revoked"),
        ("v=DKIM1; p=", "revoked"),
        ("v=DKIM1; k=rsa", "revoked"),
        (f"v=DKIM1; t=y; p={PUBLIC}", "testing"),
        (f"v=DKIM1; h=sha1; p={PUBLIC}", "SHA-256"),
        (f"v=DKIM2; p={PUBLIC}", "does not match"),
        (f"v=DKIM1; k=dsa; p={PUBLIC}", "another type"),
        ("v=DKIM1; p=AAAA", ""),
        ("v=DKIM1; p=%%%", ""),
        ("v=DKIM1; p=" + "A" * MAX_KEY_OCTETS, "too long"),
        ("spam spam", "not a DKIM"),
    ],
)
async def test_keys_that_are_none(record: str | None, why: str) -> None:
    assert fails(await origin(SIGNER.sign(RAW) + RAW, record), why)


async def test_a_small_key_does_not_count() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    tiny_pem = small.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = small.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = "v=DKIM1; p=" + base64.b64encode(public).decode()
    signed = DkimSigner(domain=DOMAIN, selector="s1", key=tiny_pem).sign(RAW) + RAW
    assert proves(await origin(signed, record))  # 1024 is the least that counts (RFC 8301)
    assert fails(await origin(signed, RECORD), "does not match")


async def test_a_key_for_the_domain_alone_does_not_sign_for_its_subdomains() -> None:
    signed = sign(RAW, identity=b"@news." + DOMAIN.encode())
    assert proves(await origin(signed))
    assert fails(await origin(signed, f"v=DKIM1; t=s; p={PUBLIC}"), "subdomains")


async def test_a_resolver_that_cannot_say_is_unknown_never_no() -> None:
    signed = SIGNER.sign(RAW) + RAW
    answer = await origin(signed, raises=True)
    assert isinstance(answer, Unknown)
    assert DOMAIN in answer.why
    # pinned keys need no resolver; what else was signed is told apart
    other = dkim.DKIM(RAW).sign(b"x", b"esp.example", PEM)
    answer = await origin(other + signed, raises=True, pinned={NAME: RECORD})
    assert answer == Origin(domains=frozenset({DOMAIN}), unresolved=frozenset({"esp.example"}))


async def test_time_is_bounded() -> None:
    async def never(name: str) -> bytes | None:
        await asyncio.Event().wait()
        return None

    checker = DkimVerifier(never, seconds=0.02)
    assert isinstance(await checker.origin(Message.of(SIGNER.sign(RAW) + RAW)), Unknown)
    await checker.close()


async def test_signatures_are_bounded_in_number() -> None:
    junk = SIGNER.sign(RAW).replace(b"s=s1", b"s=s9") * MAX_SIGNATURES
    answer = await origin(junk + SIGNER.sign(RAW) + RAW)
    assert isinstance(answer, Origin)
    assert not answer.domains
    assert len(answer.failed) == MAX_SIGNATURES + 1
    assert not isinstance(await origin(b"X: y\r\n" * MAX_FIELDS + SIGNER.sign(RAW) + RAW), Unknown)
    assert proves(await origin(junk[: len(junk) // 2] + SIGNER.sign(RAW) + RAW))


@pytest.mark.parametrize(
    "hostile",
    [
        b" " * 2_000_000 + b"x",
        b"\t " * 1_000_000 + b"x",
        b"\r\n" * 1_000_000 + b"x",
        b"a " * 1_000_000,
    ],
    ids=["spaces", "tabs", "lines", "words"],
)
async def test_hostile_bodies_take_linear_time(hostile: bytes) -> None:
    raw = RAW + hostile + b"\r\n"
    assert fails(await origin(SIGNER.sign(RAW) + raw), "body was changed")


@given(st.binary(max_size=300), st.binary(max_size=120))
@settings(max_examples=150, deadline=None)
def test_any_signature_and_any_key_give_an_answer(signature: bytes, key: bytes) -> None:
    raw = b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s; h=from; " + signature + b"\r\n" + RAW

    async def lookup(name: str) -> bytes | None:
        return key

    async def ask() -> Origin | Unknown:
        checker = DkimVerifier(lookup)
        try:
            return await checker.origin(Message.of(raw))
        finally:
            await checker.close()

    answer = asyncio.run(ask())
    assert isinstance(answer, Origin)
    assert not answer.domains


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"b c", b"."]), max_size=20))
@settings(max_examples=300, deadline=None)
def test_canonical_bodies_are_those_of_dkimpy(parts: list[bytes]) -> None:
    body = b"".join(parts) + b"\r\n"
    assert canonical_body(body, relaxed=True) == Relaxed.canonicalize_body(body)
    assert canonical_body(body, relaxed=False) == Simple.canonicalize_body(body)


# keys from the DNS


class FakeDns(asyncio.DatagramProtocol):
    """Answers TXT for NAME; SERVFAIL for names with "broken", nothing for "silent"."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.asked = 0

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked += 1
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        reply = dns.message.make_response(query)
        if "silent" in name:
            return
        if "broken" in name:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif name == NAME + ".":
            halves = f'"{RECORD[:200]}" "{RECORD[200:]}"'
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", halves))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(reply.to_wire(), address)  # type: ignore[attr-defined]


async def test_keys_from_the_dns() -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(FakeDns, local_addr=("127.0.0.1", 0))
    client = dns.asyncresolver.Resolver(configure=False)
    client.nameservers = ["127.0.0.1"]
    client.port = transport.get_extra_info("sockname")[1]
    client.cache = dns.resolver.LRUCache(10)
    resolver = Resolver(client, seconds=0.3)
    try:
        assert await resolver.txt(NAME) == RECORD.encode()
        assert await resolver.txt(NAME) == RECORD.encode()
        assert server.asked == 1  # remembered
        assert await resolver.txt("nothing._domainkey.example.com") is None
        assert await resolver.txt("x" * 70 + "._domainkey.example.com") is None
        assert await resolver.txt("a..b") is None
        for name in ("broken.example.com", "silent.example.com"):
            with pytest.raises(Unresolved):
                await resolver.txt(name)
        checker = DkimVerifier(resolver.txt)
        assert proves(await checker.origin(Message.of(SIGNER.sign(RAW) + RAW)))
        await checker.close()
    finally:
        transport.close()


# the signer


def test_a_key_that_is_none_is_refused_and_never_shown() -> None:
    for key in (b"", b"secret", b"-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n"):
        with pytest.raises(ValueError) as error:
            DkimSigner(domain=DOMAIN, selector="s1", key=key)
        assert "secret" not in str(error.value)
    assert "PRIVATE" not in repr(SIGNER)


async def test_a_key_in_pkcs8_signs_too() -> None:
    pem = PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = DkimSigner(domain=DOMAIN, selector="s1", key=pem).sign(RAW)
    assert signed.endswith(b"\r\n")
    assert b"\n" not in signed.replace(b"\r\n ", b"").removesuffix(b"\r\n")
    assert proves(await origin(signed + RAW))
