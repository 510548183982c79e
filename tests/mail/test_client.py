"""Client addresses: every form of an IPv4 address is that address, zones are ignored, and a missing address is in no
network."""

from __future__ import annotations

from ipaddress import ip_network

from smtpguard.mail.envelope import client_address, within


def test_client_addresses_are_normalized() -> None:
    assert str(client_address("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(client_address("fe80::1%eth0")) == "fe80::1"
    assert client_address("") is None
    assert within("192.0.2.1", (ip_network("192.0.2.0/24"),))
    assert not within("2001:db8::1", (ip_network("192.0.2.0/24"),))
    assert not within("", (ip_network("0.0.0.0/0"),))
