"""The kinds of each recipient, and the reach of a message: with good, old, damaged and missing indexes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.lists.declared import Origin
from smtpguard.lists.index import State, index_path
from smtpguard.lists.recipients import Count, Kind
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session
from tests.every import every
from tests.lists.conftest import House

Parse = Callable[..., list[Address]]
LIST = "ramadan@lists.example.com"


@pytest.fixture
def ready(house: House) -> House:
    house.list(
        "ramadan", [*(f"c{i}@kund.se" for i in range(50)), "eva@example.com"], addresses=[LIST],
        list_ids=["<Ramadan.lists.example.com>"], writers=["Campaigns@Example.com"],
        origin={"dkim": "campaigns.example.com"}, avoid=["pork"],
    )  # fmt: skip
    house.list("vip", ["c0@kund.se", "c1@kund.se", "v@kund.se"], addresses=["vip@lists.example.com"])
    house.sync("ramadan")
    house.sync("vip")
    return house


def test_each_recipient_has_a_kind(ready: House, parse: Parse) -> None:
    got = ready.registry().classify(
        parse("bo@example.com", LIST, "c0@kund.se", "x@annan.se", "eva@example.com", "y@sub.corp.example")
    )
    assert [r.kind.word for r in got.recipients] == ["internal", "list", "member", "outside", "member", "internal"]
    assert got.recipients[4].kind is Kind.INTERNAL_MEMBER
    assert got.recipients[2].lists == ("ramadan", "vip")
    assert (got.total, got.internal, got.outside) == (6, (3, 3), (1, 1))
    assert (got.list_addresses, got.members) == ((1, 1), (2, 2))
    assert got.customers == (51, 51)  # both members are on the addressed list, and count once
    assert got.reach == (51 + 3, 51 + 3)
    assert got.addressed == ("ramadan",)
    assert got.lists == {"ramadan", "vip"}
    assert len(got.people) == 2
    assert got.doubtful == ()
    assert got.unsure == {}
    touched = got.touched["vip"]
    assert (touched.by_address, touched.members, touched.size) == (False, (1, 1), (3, 3))
    assert got.touched["ramadan"].version


def test_a_message_is_compared_with_each_declared_origin_once(ready: House) -> None:
    """A large company has hundreds of lists, most without an origin, the others with that of one system."""
    ready.list("offers", addresses=["offers@lists.example.com"], origin={"dkim": "campaigns.example.com"})
    shop = {"from": ["noreply@example.com"], "origin": {"clients": ["192.0.2.9"]}, "max": "20 in 1h"}
    campaigns = Origin(dkim=frozenset({"campaigns.example.com"}))
    assert ready.registry({"shop": shop}).origins == (campaigns, Origin(clients=(ip_network("192.0.2.9"),)))


def test_a_colleague_on_a_list_stays_a_colleague(ready: House, parse: Parse) -> None:
    registry = ready.registry(customers_here=False)
    got = registry.classify(parse("eva@example.com", "Eva+x@example.com", "c0@kund.se"))
    assert [r.kind.word for r in got.recipients] == ["internal", "internal", "member"]
    assert (got.internal, got.members, got.customers) == ((1, 1), (1, 1), (1, 1))
    assert registry.classify(parse(LIST)).customers == (51, 51), "mail to the list reaches all of it"


def test_a_person_in_several_spellings_counts_once(ready: House, parse: Parse) -> None:
    got = ready.registry().classify(
        parse("c0@kund.se", "C0@KUND.SE", '"c0"@kund.se', "c0+x@kund.se", "c0%kund.se@x.se")
    )
    assert got.total == 5
    assert got.members == got.customers == got.reach == (1, 1)


def test_no_recipients_count_nothing(ready: House) -> None:
    got = ready.registry().classify([])
    assert got.total == 0
    assert got.customers == got.reach == (0, 0)


@every(
    "spelling",
    [
        "RAMADAN@lists.example.com.",
        '"ramadan"@lists.example.com',
        "ramadan+anything@lists.example.com",
        "ramadan+anna=kund.se@lists.example.com",
        "ramadan%lists.example.com@relay.example",
        "ramadan%lists.example.com+x@relay.example",
        "lists.example.com!ramadan@relay.example",
        '"ramadan@lists.example.com"@relay.example',
        "ramadan@mail.example.com",
        "ramadan+x@[192.0.2.25]",
        "ramadan@[127.0.0.1]",
        "ramadan@[IPv6:::1]",
        "Ramadan+x@localhost",
        "ramadan%lists.example.com@[127.0.0.1]",
        "lists.example.com!ramadan@localhost",
    ],
)
def test_a_list_is_recognized_in_every_spelling(ready: House, parse: Parse, spelling: str) -> None:
    registry = ready.registry(host_names=["mail.example.com"])
    got = registry.classify(parse(spelling))
    assert got.recipients[0].kind is Kind.LIST
    assert got.customers == (51, 51)
    found = registry.list_at(parse(spelling)[0])
    assert found is not None
    assert found.name == "ramadan"


@every("delimiters", ["", "+", "-", "+-"])
@every(
    "local",
    [
        "ramadan-request",
        "ramadan-owner",
        "ramadan-bounces",
        "ramadan-unsubscribe",
        "ramadan-bounces+a=b.se",
        "owner-ramadan",
    ],
)
def test_similar_addresses_are_not_the_list(ready: House, parse: Parse, delimiters: str, local: str) -> None:
    from smtpguard.lists.digest import Digester

    ready.digester = Digester(b"k" * 32, delimiters)
    assert ready.registry().list_at(parse(f"{local}@lists.example.com")[0]) is None


@every(
    ("address", "delimiters", "found"),
    [
        ("eid-greetings@lists.example.com", "-", True),  # the list's own name contains the delimiter
        ("eid-greetings-x@lists.example.com", "-", True),
        ("eid-requests@lists.example.com", "-", False),
        ("eid@lists.example.com", "-", False),
        ("eid-greetings-x@lists.example.com", "+", False),
        ("eid-greetings@elsewhere.example", "-", False),
        ("eid-greetings-x@lists.example.com", "+ lists.example.com=-", True),
        ("eid-greetings+x@lists.example.com", "+ lists.example.com=-", False),
        ("eid-greetings-x@lists.example.com", "- lists.example.com=+", False),
        ("eid-greetings-x%lists.example.com@relay.example", "+ *.example.com=-", True),
    ],
)
def test_a_delimiter_in_the_name_of_a_list(
    house: House, parse: Parse, address: str, delimiters: str, found: bool
) -> None:
    from smtpguard.lists.digest import Digester

    house.digester = Digester(b"k" * 32, delimiters)
    house.list("eid", addresses=["eid-greetings@lists.example.com"])
    assert (house.registry().list_at(parse(address)[0]) is not None) is found


def test_homographs_are_other_addresses(ready: House, parse: Parse) -> None:
    got = ready.registry().classify(parse("rаmadan@lists.example.com", "ramadan@lists.exаmple.com"))
    assert [r.kind for r in got.recipients] == [Kind.OUTSIDE, Kind.OUTSIDE]
    assert got.recipients[1].canonical == "ramadan@lists.xn--exmple-4nf.com"


def test_an_own_host_name_is_internal(house: House, parse: Parse) -> None:
    got = house.registry(host_names=["mail.example.com"]).classify(parse("bo@mail.example.com", "bo@mail.example.org"))
    assert [r.kind for r in got.recipients] == [Kind.INTERNAL, Kind.OUTSIDE]


def test_without_an_index_a_recipient_may_be_a_customer(house: House, parse: Parse) -> None:
    house.list("ramadan", ["c@kund.se"], addresses=[LIST], options={"at_least": 1000})
    registry = house.registry()
    got = registry.classify(parse("c@kund.se", "d@kund.se", "bo@example.com"))
    assert got.members == got.customers == got.outside == (0, 2)
    assert got.internal == (1, 1)
    assert got.reach == (3, 3)
    assert got.people == ()
    assert len(got.doubtful) == 2
    assert got.lists == frozenset()
    assert got.touched["ramadan"].members == (0, 2)
    assert "never synced" in got.unsure["ramadan"]
    assert registry.classify(parse(LIST)).reach == (1000, math.inf)
    assert registry.classify(parse("bo@example.com")).unsure == {}


def test_members_of_a_stale_index_stay_members(ready: House, parse: Parse) -> None:
    registry = ready.registry()
    ready.clock.pass_(days=2)
    got = registry.classify(parse("c0@kund.se", "x@annan.se"))
    assert registry.statuses["vip"].state is State.STALE
    assert got.members == (1, 2)
    assert got.recipients[0].lists == ("ramadan", "vip")
    assert got.recipients[1].doubt == ("ramadan", "vip")
    assert "stale" in got.unsure["vip"]
    assert registry.classify(parse(LIST)).customers == Count(51, math.inf)
    ready.sync("ramadan")
    ready.sync("vip")
    ready.clock.pass_(seconds=2)
    assert registry.classify(parse("c0@kund.se", "x@annan.se")).members == (1, 1)


def test_a_replaced_index_is_used_within_a_second(ready: House, parse: Parse) -> None:
    registry = ready.registry()
    ready.list("vip", ["new@kund.se", "b@kund.se", "c@kund.se", "d@kund.se"], addresses=["vip@lists.example.com"])
    assert ready.sync("vip").changed
    assert registry.classify(parse("new@kund.se")).members == (0, 0)
    ready.clock.pass_(seconds=1)
    assert registry.classify(parse("new@kund.se")).members == (1, 1)
    assert not registry.reopen()


def test_after_the_clock_is_set_back_lists_are_stale(ready: House, parse: Parse) -> None:
    """Lists read while the clock was ahead count as stale until they are read again."""
    registry = ready.registry()
    ready.clock.pass_(days=400)
    assert ready.sync("ramadan").ok
    assert ready.sync("vip").ok
    ready.clock.pass_(seconds=2)
    assert registry.classify(parse("x@annan.se")).members == (0, 0)
    ready.clock.pass_(days=-400)
    assert registry.classify(parse("x@annan.se")).members == (0, 1), "it looks at once"
    assert registry.classify(parse("c0@kund.se")).members == (1, 1)
    assert ready.sync("ramadan").ok
    assert not ready.sync("vip").stale
    ready.clock.pass_(seconds=1)
    assert registry.classify(parse("x@annan.se")).members == (0, 0)


def test_an_index_damaged_later_leaves_the_open_one_in_use(ready: House, parse: Parse) -> None:
    registry = ready.registry()
    path = index_path(ready.folder, "vip")
    path.unlink()
    path.write_bytes(b"rubbish")
    registry.reopen()
    assert registry.statuses["vip"].state is State.STALE
    assert "one before it is in use" in registry.statuses["vip"].why
    assert "vip" in registry.classify(parse("v@kund.se")).recipients[0].lists
    fresh = ready.registry()
    assert fresh.statuses["vip"].state is State.MISSING
    assert "not a membership index" in fresh.statuses["vip"].why


def test_an_index_of_another_secret_is_refused(ready: House) -> None:
    from smtpguard.lists.digest import Digester

    ready.digester = Digester(b"j" * 32, "+")
    standing = ready.registry().statuses["ramadan"]
    assert standing.state is State.MISSING
    assert "another secret" in standing.why


def test_a_list_without_sources_makes_no_one_uncertain(house: House, parse: Parse) -> None:
    house.list("news", addresses=["news@lists.example.com"])
    registry = house.registry()
    assert registry.statuses["news"].state is State.UNLISTED
    assert registry.classify(parse("x@annan.se")).members == (0, 0)
    assert registry.classify(parse("news@lists.example.com")).customers == (1, math.inf)


def test_nested_lists_and_loops_end(house: House, parse: Parse) -> None:
    house.list("all", ["a@kund.se", "north@lists.example.com"], addresses=["all@lists.example.com"])
    house.list("north", ["b@kund.se", "c@kund.se", "all+x@lists.example.com"], addresses=["north@lists.example.com"])
    house.list("alias", ["all@lists.example.com"], addresses=["everybody@example.com"])
    for name in ("all", "north", "alias"):
        assert house.sync(name).ok
    got = house.registry().classify(parse("everybody@example.com"))
    assert got.addressed == ("alias", "all", "north")
    assert got.customers.low >= 3
    assert got.list_addresses == (1, 1)


def test_a_list_of_colleagues_has_reach_but_no_customers(house: House, parse: Parse) -> None:
    house.list("staff", ["bo@example.com", "x@annan.se"], addresses=["staff@example.com"], audience="employees")
    house.sync("staff")
    got = house.registry().classify(parse("staff@example.com", "x@annan.se"))
    assert got.customers == got.members == (0, 0)
    assert got.reach == (3, 3)  # too many rather than too few
    assert got.addressed == ("staff",)


def test_declared_streams_and_expanders_are_recognized(ready: House) -> None:
    registry = ready.registry(
        streams={
            "receipts": {
                "from": ["NoReply@Example.com"],
                "origin": {"clients": ["10.1.2.0/24"], "dkim": "Shop.example.com"},
                "max": "20000 in 1h",
                "max_per_person": "20 in 1d",
            }
        },
        expanders=[ip_network("192.0.2.0/24")],
    )
    info = registry.list_with_id("RAMADAN.lists.example.com")
    assert info is not None
    assert info.writers == {"campaigns@example.com"}
    assert info.origin.dkim == {"campaigns.example.com"}
    assert registry.list_with_id("other.example.com") is None
    (stream,) = registry.streams_from("noreply@example.com")
    assert stream.max is not None
    assert stream.max_per_person is not None
    assert (stream.max.count, stream.max.window_seconds, stream.max_per_person.count) == (20000, 3600, 20)
    assert registry.streams_from("bo@example.com") == ()
    assert registry.is_expander("192.0.2.7")
    assert registry.is_expander("::ffff:192.0.2.7")
    assert not registry.is_expander("unix")


@every(
    ("client", "signed", "proven"),
    [
        ("10.1.2.3", {"shop.example.com"}, True),
        ("10.1.3.3", {"shop.example.com"}, False),  # one of each declared kind must match
        ("10.1.2.3", {"other.example.com"}, False),
        ("10.1.2.3", set(), False),
    ],
)
def test_an_origin_matches_by_each_kind_of_proof(client: str, signed: set[str], proven: bool) -> None:
    origin = Origin(dkim=frozenset({"shop.example.com"}), clients=(ip_network("10.1.2.0/24"),))
    session = Session(client_ip=client)
    assert origin.proven(session, frozenset(signed)) is proven
    below = Origin(dkim=frozenset({"*.example.com"}))
    assert below.proven(session, frozenset(signed)) is ("example" in str(signed))
    assert not below.proven(session, frozenset({"example.com", "badexample.com"}))
    assert not Origin().proven(session, frozenset(signed))


@every(
    ("client", "login", "proven"),
    [("10.1.2.3", "News", True), ("10.1.2.3", None, False), ("10.1.2.3", "anna", False), ("10.9.9.9", "news", False)],
)
def test_an_origin_matches_by_login(client: str, login: str | None, proven: bool) -> None:
    """An origin may name logins of systems, which no person uses. If clients are declared too, both must match."""
    session = Session(client_ip=client, auth_user=login)
    both = Origin(clients=(ip_network("10.1.2.0/24"),), logins=frozenset({"news"}))
    assert both.proven(session, frozenset()) is both.names(session) is proven
    alone = Origin(logins=frozenset({"news"}))
    assert alone.declared
    assert alone.proven(session, frozenset()) is (login in ("News", "news"))
    signed = Origin(dkim=frozenset({"shop.example.com"}), logins=frozenset({"news"}))
    assert signed.names(session) is alone.names(session)
    assert not signed.proven(session, frozenset())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["c0@kund.se", "c1@kund.se", "eva@example.com", "bo@example.com", "x@annan.se", LIST,
                                 "vip+a@lists.example.com"]), max_size=8))  # fmt: skip
def test_counts_are_consistent(ready: House, texts: list[str]) -> None:
    addresses = [Address.parse(t) for t in texts]
    got = ready.registry().classify(addresses)
    assert got.total == len(addresses) == len(got.recipients)
    assert got.members.low <= got.customers.low <= got.reach.low
    assert got.lists == {name for r in got.recipients for name in r.lists}
    assert got == ready.registry().classify(addresses)
    more = ready.registry().classify([*addresses, Address.parse("c7@kund.se")])
    assert more.customers.low >= got.customers.low


def test_fifty_recipients_and_twenty_lists_are_fast(house: House, parse: Parse) -> None:
    for n in range(20):
        house.list(f"l{n}", [f"m{n}-{i}@kund.se" for i in range(200)], addresses=[f"l{n}@lists.example.com"])
        house.sync(f"l{n}")
    registry = house.registry()
    addresses = parse(*(f"person{i}@kund.se" for i in range(50)))
    registry.classify(addresses)
    best = math.inf
    for _ in range(20):
        begun = time.thread_time()
        registry.classify(addresses)
        best = min(best, time.thread_time() - begun)
    assert best < 0.02  # 0.4 ms on an idle machine
