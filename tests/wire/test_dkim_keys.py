"""DKIM keys: which count, DNS lookups and their failures, and smtpguard's own keys (RFC 6376, section 3.6; RFC 8301).

For what a signature must cover, see test_dkim.
"""

from __future__ import annotations

import asyncio
import base64
import socket

import dkim
import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from smtpguard.mail.fields import DkimResult
from smtpguard.mail.message import Message
from smtpguard.policy.facts import Unknown
from smtpguard.wire.dkim import MAX_KEY_OCTETS, DkimSigner, DkimVerifier, Resolver, Unresolved
from tests.every import every
from tests.wire.signed import (
    DOMAIN,
    NAME,
    PEM,
    PRIVATE,
    PUBLIC,
    RAW,
    RECORD,
    SIGNED,
    SIGNER,
    fails,
    origin,
    proves,
    sign,
)


@every(
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
async def test_unusable_keys_do_not_count(record: str | None, why: str) -> None:
    assert fails(await origin(SIGNED, record), why)


async def test_a_too_small_key_does_not_count() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    tiny_pem = small.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = small.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = "v=DKIM1; p=" + base64.b64encode(public).decode()
    signed = DkimSigner(domain=DOMAIN, selector="s1", key=tiny_pem).sign(RAW) + RAW
    assert proves(await origin(signed, record))  # 1024 bits is the least that counts (RFC 8301)
    assert fails(await origin(signed, RECORD), "does not match")


async def test_a_key_with_t_s_does_not_sign_for_subdomains() -> None:
    signed = sign(RAW, identity=b"@news." + DOMAIN.encode())
    assert proves(await origin(signed))
    assert fails(await origin(signed, f"v=DKIM1; t=s; p={PUBLIC}"), "subdomains")


async def test_a_failed_lookup_is_unknown() -> None:
    answer = await origin(SIGNED, raises=True)
    assert isinstance(answer, Unknown)
    assert DOMAIN in answer.why
    # pinned keys need no DNS; the other domain is reported as unresolved
    other = dkim.DKIM(RAW).sign(b"x", b"esp.example", PEM)
    answer = await origin(other + SIGNED, raises=True, pinned={NAME: RECORD})
    assert isinstance(answer, DkimResult)
    assert (answer.domains, answer.unresolved) == (frozenset({DOMAIN}), frozenset({"esp.example"}))


class FakeDns(asyncio.DatagramProtocol):
    """Answers TXT for NAME, SERVFAIL for names with "broken", and nothing for "silent"."""

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


async def test_keys_are_read_from_dns() -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(FakeDns, local_addr=("127.0.0.1", 0))
    client = dns.asyncresolver.Resolver(configure=False)
    client.nameservers = ["127.0.0.1"]
    client.port = transport.get_extra_info("sockname")[1]
    client.cache = dns.resolver.LRUCache(10)
    resolver, hasty = Resolver(client, seconds=120), Resolver(client, seconds=0.3)
    try:
        assert await resolver.txt(NAME) == RECORD.encode()
        assert await resolver.txt(NAME) == RECORD.encode()
        assert server.asked == 1  # cached
        assert await resolver.txt("nothing._domainkey.example.com") is None
        assert await resolver.txt("x" * 70 + "._domainkey.example.com") is None
        assert await resolver.txt("a..b") is None
        for name in ("broken.example.com", "silent.example.com"):
            with pytest.raises(Unresolved):
                await hasty.txt(name)
        checker = DkimVerifier(resolver.txt)
        assert proves(await checker.origin(Message.of(SIGNED)))
        await checker.close()
    finally:
        transport.close()


async def test_the_servers_of_the_system_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a change of /etc/resolv.conf. What is known stays known."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(FakeDns, local_addr=("127.0.0.1", 0))

    def named() -> dns.asyncresolver.Resolver:
        made = real(configure=False)
        made.nameservers, made.port = ["127.0.0.1"], ports[0]
        return made

    real = dns.asyncresolver.Resolver
    monkeypatch.setattr(dns.asyncresolver, "Resolver", named)
    resolver = Resolver(seconds=0.3)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            ports = [silent.getsockname()[1]]
            with pytest.raises(Unresolved):
                await resolver.txt(NAME)
            ports, resolver._seconds = [transport.get_extra_info("sockname")[1]], 120
            assert await resolver.txt(NAME) == RECORD.encode()
            with pytest.raises(Unresolved):
                await resolver.txt("broken.example.com")
            asked = server.asked
            assert await resolver.txt(NAME) == RECORD.encode()
            assert server.asked == asked
    finally:
        transport.close()


def test_an_invalid_private_key_is_refused_and_never_shown() -> None:
    for key in (b"", b"secret", b"-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n"):
        with pytest.raises(ValueError) as error:
            DkimSigner(domain=DOMAIN, selector="s1", key=key)
        assert "secret" not in str(error.value)
    assert "PRIVATE" not in repr(SIGNER)


async def test_a_pkcs8_key_signs() -> None:
    pem = PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = DkimSigner(domain=DOMAIN, selector="s1", key=pem).sign(RAW)
    assert signed.endswith(b"\r\n")
    assert b"\n" not in signed.replace(b"\r\n ", b"").removesuffix(b"\r\n")
    assert proves(await origin(signed + RAW))
