"""Client addresses: every form of an IPv4 address is that address, zones are ignored, and a missing address is in no
network. An envelope for other recipients keeps every parameter of MAIL."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_network
from typing import Any

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, client_address, client_network, within


def test_client_addresses_are_normalized() -> None:
    assert str(client_address("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(client_address("fe80::1%eth0")) == "fe80::1"
    assert client_address("") is None
    assert within("192.0.2.1", (ip_network("192.0.2.0/24"),))
    assert not within("2001:db8::1", (ip_network("192.0.2.0/24"),))
    assert not within("", (ip_network("0.0.0.0/0"),))


def test_all_addresses_of_an_ipv6_network_of_64_bits_are_one_client() -> None:
    assert client_network("2001:db8::1") == client_network("2001:db8:0:0:ffff::9") == "2001:db8::/64"
    assert client_network("2001:db8:0:1::1") == "2001:db8:0:1::/64"
    assert client_network("::ffff:192.0.2.1") == client_network("192.0.2.1") == "192.0.2.1"
    assert client_network("") == ""


def test_an_envelope_for_other_recipients_keeps_every_parameter() -> None:
    """Also one that is added later: each field gets a value of its own here."""
    given: dict[str, Any] = {field.name: object() for field in fields(Envelope)}
    some = [Recipient(address=Address.parse("bob@example.net"))]
    assert Envelope(**given).to(some) == replace(Envelope(**given), recipients=tuple(some))
