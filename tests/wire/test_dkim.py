"""DKIM: messages signed by smtpguard verify, and what must not count does not (RFC 6376, sections 3.5 and 8; RFC 8463).

For keys and where they come from, see test_dkim_keys.
"""

from __future__ import annotations

import asyncio
import mmap
from dataclasses import replace
from pathlib import Path

import dkim
import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.fields import DkimResult
from smtpguard.mail.message import Message
from smtpguard.policy.facts import Unknown
from smtpguard.wire.dkim import MAX_FIELDS, MAX_SIGNATURES, DkimVerifier, canonical_body
from tests.every import every
from tests.wire.signed import DOMAIN, NAME, PEM, RAW, RECORD, SIGNED, SIGNER, fails, origin, proves, sign


async def test_signed_messages_have_their_origin_and_unsigned_none() -> None:
    found = await origin(SIGNED)
    assert isinstance(found, DkimResult)
    [one] = found.signatures
    assert replace(found, signatures=()) == DkimResult(domains=frozenset({DOMAIN}))
    assert one.at is not None
    assert (one.domain, one.limited, {"from", "subject"} <= one.fields) == (DOMAIN, False, True)
    assert await origin(RAW) == DkimResult()


@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
@pytest.mark.parametrize("head", [b"simple", b"relaxed"])
@pytest.mark.parametrize("raw", [RAW, b"From: a@example.com\r\n\r\n", b"From: a@example.com\r\n\r\n\r\n\r\n"])
async def test_both_canonicalizations_verify(head: bytes, body: bytes, raw: bytes) -> None:
    assert proves(await origin(sign(raw, canonicalize=(head, body))))


async def test_domains_are_in_lower_case() -> None:
    signer = dkim.DKIM(RAW)
    signed = signer.sign(b"S1", DOMAIN.upper().encode(), PEM) + RAW
    assert proves(await origin(signed))


async def test_a_mapped_message_verifies(tmp_path: Path) -> None:
    raw = RAW + b"More\r\n" * 100_000
    (tmp_path / "spool").write_bytes(SIGNER.sign(raw) + raw)
    with (tmp_path / "spool").open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
        checker = DkimVerifier(pinned={NAME: RECORD})
        assert proves(await checker.origin(Message.of(content)))
        await checker.close()


async def test_a_prepended_trace_does_not_break_it() -> None:
    assert proves(await origin(b"Received: from a by b\r\nX-Smtpguard: id=1\r\n" + SIGNED))


@every(
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
async def test_changed_messages_do_not_verify(old: bytes, new: bytes, why: str) -> None:
    assert old in SIGNED
    assert fails(await origin(SIGNED.replace(old, new, 1)), why)


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


@every(
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
    assert isinstance(answer, DkimResult)
    assert answer.domains == (frozenset() if why else {"football.example.com"})
    assert not why or why in answer.failed[0][1]


async def test_a_partial_body_signature_does_not_count() -> None:
    signed = sign(RAW, length=True)
    assert proves(await origin(signed))
    assert fails(await origin(signed + b"Buy bacon\r\n"), "l=")


async def test_a_signature_without_from_does_not_count() -> None:
    signed = SIGNER.sign(RAW).replace(b"from", b"frog") + RAW
    assert fails(await origin(signed), "From is not signed")


async def test_a_signature_without_subject_does_not_count() -> None:
    """A signature that does not cover the Subject does not count, whether the Subject was changed or added."""
    silent = RAW.replace(b"Subject: Offers\r\n", b"")
    for raw in (RAW, silent):
        signed = sign(raw, include_headers=[b"from", b"to"])
        assert proves(await origin(signed)) is (raw is silent)
        assert fails(
            await origin(b"Subject: Bacon\r\n" + signed.replace(b"Subject: Offers\r\n", b"")), "Subject is not"
        )


@every(
    "changed",
    [
        b"From: evil@example.com\r\n%s",
        b"from : evil@example.com\r\n%s",
        b"no field at all\r\n%s",
    ],
)
async def test_an_ambiguous_header_proves_nothing(changed: bytes) -> None:
    assert fails(await origin(changed % SIGNED), "ambiguous")


async def test_signed_header_fields_cannot_be_added() -> None:
    for name in (b"Subject", b"To"):
        added = name + b": other\r\n" + SIGNED
        assert fails(await origin(added), "does not match")


async def test_expiry_uses_the_given_clock() -> None:
    # x= is put in by hand: dkimpy does not write it
    signed = SIGNER.sign(RAW).replace(b"; q=", b"; x=2000000000; q=") + RAW
    assert fails(await origin(signed, now=lambda: 2_000_000_001.0), "expired")
    assert fails(await origin(signed, now=lambda: 1_999_999_999.0), "does not match")


async def test_verification_is_limited_in_time() -> None:
    async def never(name: str) -> bytes | None:
        await asyncio.Event().wait()
        return None

    checker = DkimVerifier(never, seconds=0.02)
    assert isinstance(await checker.origin(Message.of(SIGNED)), Unknown)
    await checker.close()


async def test_the_number_of_signatures_is_limited() -> None:
    junk = SIGNER.sign(RAW).replace(b"s=s1", b"s=s9") * MAX_SIGNATURES
    answer = await origin(junk + SIGNED)
    assert isinstance(answer, DkimResult)
    assert not answer.domains
    assert len(answer.failed) == MAX_SIGNATURES + 1
    assert not isinstance(await origin(b"X: y\r\n" * MAX_FIELDS + SIGNED), Unknown)
    assert proves(await origin(junk[: len(junk) // 2] + SIGNED))


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
def test_any_signature_and_key_give_a_result(signature: bytes, key: bytes) -> None:
    raw = b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s; h=from; " + signature + b"\r\n" + RAW

    async def lookup(name: str) -> bytes | None:
        return key

    async def ask() -> DkimResult | Unknown:
        checker = DkimVerifier(lookup)
        try:
            return await checker.origin(Message.of(raw))
        finally:
            await checker.close()

    answer = asyncio.run(ask())
    assert isinstance(answer, DkimResult)
    assert not answer.domains


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"b c", b"."]), max_size=20))
@settings(max_examples=300, deadline=None)
def test_canonical_bodies_equal_those_of_dkimpy(parts: list[bytes]) -> None:
    body = b"".join(parts) + b"\r\n"
    assert canonical_body(body, relaxed=True) == Relaxed.canonicalize_body(body)
    assert canonical_body(body, relaxed=False) == Simple.canonicalize_body(body)
