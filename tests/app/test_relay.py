"""Which of the relays of the settings has a recipient."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from smtpguard.app.lists import names
from smtpguard.app.relay import Relays, relay_target
from smtpguard.config.problem import Broken
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.database.errors import Unavailable
from smtpguard.mail.address import Address
from smtpguard.policy.parse import parse
from smtpguard.wire.target import Tls
from tests.every import every

SETTINGS = b"""
listen:
  smtp: [{port: 10025, name: office}, {port: 10026, name: shop}, {port: 10027, name: mixed}]
  milter: [{unix: milter.sock, name: mta}]
relay: {host: one.example.com, port: 25}
routes:
  - {name: both, listeners: [shop], domains: [partner.example], relay: {host: both.example.com}}
  - {name: shop, listeners: [shop, mta], relay: {host: shop.example.com, names: [shop-list.example.com]}}
  - {name: bulk, lists: [ramadan], relay: {host: bulk.example.com, fallbacks: [{host: bulk2.example.com}]}}
  - {name: partners, domains: ["*.partner.example", "br\xc3\xbcder.example"], relay: {host: partners.example.com}}
"""
RAMADAN = Address.parse("ramadan@lists.example.com")


def list_at(address: Address) -> str:
    return "ramadan" if address == RAMADAN else ""


@pytest.fixture
async def relays(tmp_path: Path) -> AsyncIterator[Relays]:
    made = Relays(settings_of(load_yaml(SETTINGS, "smtpguard.yaml"), tmp_path, {}))
    yield made
    await made.close()


@every(
    ("listener", "recipient", "route"),
    [
        ("office", "bo@example.net", ""),
        ("office", "ramadan@lists.example.com", "bulk"),
        ("office", "bo@sub.partner.example", "partners"),
        ("office", "bo@SUB.Partner.Example", "partners"),
        ("office", "bo@partner.example", ""),
        ("office", "bo@xn--brder-lva.example", "partners"),
        ("shop", "bo@partner.example", "both"),
        ("shop", "bo@example.net", "shop"),
        ("shop", "ramadan@lists.example.com", "shop"),  # the first that takes it
        ("mta", "ramadan@lists.example.com", "shop"),
        ("", "bo@example.net", ""),
        ("", "bo@sub.partner.example", "partners"),  # mail of our own
        ("renamed", "bo@example.net", ""),
    ],
)
async def test_the_first_matching_route_is_used(relays: Relays, listener: str, recipient: str, route: str) -> None:
    assert relays.to(listener, Address.parse(recipient), list_at) is relays.pools[route]


async def test_a_listener_offers_what_its_relays_share(relays: Relays) -> None:
    office, shop = relays.routing("office", list_at), relays.routing("shop", list_at)
    assert (office.first, shop.first) == (relays.pools[""], relays.pools["shop"])
    assert office.choose is not None
    assert office.choose(RAMADAN) is relays.pools["bulk"]
    for name, pool in relays.pools.items():
        pool.offered = {name.upper() or "DEFAULT": ""} | {"DSN": ""}
    assert office.offered == {"DSN": ""}


async def test_each_relay_has_its_own_tls_login_and_limits(tmp_path: Path) -> None:
    """Clients log in at the relay of their listener."""
    (tmp_path / "password").write_text("hunter2")
    text = b"""
listen: {smtp: [{port: 10025, name: people, auth: {without_tls: true}}, {port: 10026, name: others}]}
relay: {host: 127.0.0.1, tls: none, connections: 7}
routes:
  - name: people
    listeners: [people]
    relay: {host: localhost, port: 587, tls: require, auth: {user: guard, password_file: password}, client_share: 0.1}
"""
    made = Relays(settings_of(load_yaml(text, "smtpguard.yaml"), tmp_path, {}))
    default, people = (made.pools[name].target for name in ("", "people"))
    assert (default.tls, default.user, default.connections, default.client_share) == (Tls.NONE, None, 7, 0.5)
    assert (people.tls, people.user, people.password, people.port) == (Tls.REQUIRE, "guard", "hunter2", 587)
    assert (people.connections, people.client_share) == (20, 0.1)
    assert list(made.logins()) == [made.pools["people"]]
    await made.close()


async def test_if_the_list_is_unknown_there_is_no_relay(relays: Relays) -> None:
    def away(address: Address) -> str:
        raise Unavailable("no policy")

    choose = relays.routing("office", away).choose
    assert choose is not None
    assert choose(RAMADAN) is None


async def test_without_routes_by_recipient_no_lookup_is_made(tmp_path: Path) -> None:
    text = SETTINGS.split(b"  - {name: bulk")[0].replace(b", domains: [partner.example]", b"")
    made = Relays(settings_of(load_yaml(text, "smtpguard.yaml"), tmp_path, {}))
    assert made.routing("shop", list_at).choose is None
    await made.close()


def test_host_names_of_every_relay_are_known(tmp_path: Path) -> None:
    settings = settings_of(load_yaml(SETTINGS, "smtpguard.yaml"), tmp_path, {})
    policy = parse(
        {
            "policy.yaml": b"""
version: 1
organization: {name: Example AB, domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: [communications], each: 1}
rules: [{id: a, when: {recipients.list_addresses: any}, then: hold}]
"""
        }
    )
    found = names(settings, policy)
    hosts = "one.example.com", "bulk.example.com", "bulk2.example.com", "shop-list.example.com"
    assert all(map(found.is_ours, hosts))


def test_one_relay_needs_no_password_file_of_another(tmp_path: Path) -> None:
    """Else an alarm would not be sent for as long as a route's password cannot be read."""
    auth = b"tls: require, auth: {user: guard, password_file: missing}"
    text = SETTINGS.replace(b"host: both.example.com", b"host: both.example.com, " + auth)
    settings = settings_of(load_yaml(text, "smtpguard.yaml"), tmp_path, {})
    assert relay_target(settings, settings.route("", "", "example.net")).host == "one.example.com"
    with pytest.raises(Broken):
        relay_target(settings, "both")
