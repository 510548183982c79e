"""Other names of a list's address: at each of our domains, at the relay's names, behind expansions; and addresses that
only look like it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.config.statefiles import swap
from smtpguard.lists.expanding import Expander
from smtpguard.lists.index import State, index_path
from smtpguard.lists.names import Names
from smtpguard.lists.recipients import Kind
from smtpguard.lists.sync import source_key, source_path
from smtpguard.lists.writing import write
from smtpguard.mail.address import Address
from tests.every import every
from tests.lists.conftest import House
from tests.lists.declaring import expands, lists_of, source

Parse = Callable[..., list[Address]]
LIST = "ramadan@lists.example.com"
DOMAINS = ["example.com", "example.se", "*.corp.example"]


_LOCALS = st.sampled_from(
    ["ramadan", "ramadan-owner", "ramadan-x", "ra-madan", "ra", "ramadan.x", "ramadan_x", "x-ramadan"]
)
_DOMAINS = st.sampled_from(
    ["lists.example.com", "example.com", "it.corp.example", "localhost", "kund.se", "192.0.2.1", "x-y"]
)


@given(_LOCALS, _DOMAINS, st.sampled_from(["", "+", "-", "+_", ". example.com=-", "+ kund.se=-"]))
def test_a_plain_address_has_the_list_that_a_full_look_finds(local: str, domain: str, delimiters: str) -> None:
    declared = {
        "ramadan": {"addresses": [LIST]},
        "ra": {"addresses": ["ra-madan@example.com"], "addresses_elsewhere": ["ra@kund.se"]},
    }
    lists, _ = lists_of(declared, delimiters=delimiters)
    names = Names(lists, domains=DOMAINS, delimiters=delimiters)
    address, full = Address(local, domain), Address(local, domain)
    full.plain = False  # type: ignore[misc]
    key = address.canonical(delimiters)
    assert address.plain
    assert key == full.canonical(delimiters)
    assert names.list_at(address, key) == names.list_at(full, key)
    assert names.is_internal(address) == names.is_internal(full)


@every(
    ("login", "account"),
    [
        ("Anna@Example.com", "anna@example.com"), ("anna+x@example.se", "anna@example.se"), ("anna@it.corp.example", "anna@it.corp.example"),
        ("Anna", "anna"), ("EXAMPLE\\anna", "anna"), ("anna@anything.example", "anna"), ("anna@", "anna"), ("", ""),
    ],
)  # fmt: skip
def test_an_account_is_an_address_of_ours_or_a_name_alone(login: str, account: str) -> None:
    assert Names({}, domains=DOMAINS, delimiters="+").account(login) == account


@pytest.fixture
def ready(house: House) -> House:
    house.list("ramadan", [f"c{i}@kund.se" for i in range(50)], addresses=[LIST])
    house.list(
        "press", ["p@tidning.se"], addresses=["press@lists.example.com"], addresses_elsewhere=["press@example.com"]
    )
    house.sync("ramadan")
    house.sync("press")
    return house


@every(
    "address",
    [
        "ramadan@example.com",
        "Ramadan+x@example.se",
        "ramadan@it.corp.example",
        "ramadan@mx1.example.net",
        "ramadan%example.se@relay.example",
        "example.se!ramadan@mx1.example.net",
        "IMCEASMTP-ramadan+40example+2Ese@exchange.example.org",
        "press@example.se",
        "press+x@lists.example.com",
        "ramadan@post.example.org",  # another list has an address there
        "ramadan%@lists.example.com",
        "!ramadan@lists.example.com",
        "ramadan%localhost%mx1.example.net@mx1.example.net",  # routing to a full name, then to one without dots
        '"ramadan@localhost."@mx1.example.net',
        "kund.se!ramadan%example.se@mx1.example.net",  # a relay may undo either first
        "IMCEASMTP-ramadan+25localhost+40mx1+2Eexample+2Enet@exchange.example.org",
        '" ramadan +x"@example.com',
    ],
)
def test_the_local_part_means_the_list_at_every_own_domain(ready: House, parse: Parse, address: str) -> None:
    ready.list("post", ["p@tidning.se"], addresses=["post@post.example.org"])
    registry = ready.registry(domains=DOMAINS, host_names=["mx1.example.net"])
    got = registry.classify(parse(address))
    assert got.recipients[0].kind is Kind.LIST
    assert got.list_addresses == (1, 1)


@every(
    ("address", "kind"),
    [
        ("press@example.com", Kind.INTERNAL),  # the policy says that it is something else
        ("press+x@example.com", Kind.INTERNAL),
        ("ramadan@example.org", Kind.OUTSIDE),  # not one of our domains
        ("ramadan@kund.se", Kind.OUTSIDE),
        ("ramadan-owner@lists.example.com", Kind.OUTSIDE),
        ("ramadan-bounces+anna=kund.se@lists.example.com", Kind.OUTSIDE),
        ("ramadans@example.com", Kind.INTERNAL),
        ("ramadan%kund.se@mx1.example.net", Kind.OUTSIDE),
        ("bo%localhost%example.com@example.com", Kind.INTERNAL),
        ("kund.se!ramadan%kund.se@kund.se", Kind.OUTSIDE),
    ],
)
@every("delimiters", ["+", "+-"])
def test_other_addresses_are_not_the_list(
    ready: House, parse: Parse, address: str, kind: Kind, delimiters: str
) -> None:
    from smtpguard.lists.digest import Digester

    ready.digester = Digester(b"k" * 32, delimiters)
    ready.sync("ramadan")
    ready.sync("press")
    ready.sections["ramadan"]["list_ids"] = ["ramadan.lists.example.com"]
    got = ready.registry(domains=DOMAINS).classify(parse(address))
    assert got.recipients[0].kind is kind


MAILMAN = {"mailman": "http://127.0.0.1:8001/3.1", "list_id": "ramadan.lists.example.com", "password_file": "password"}


@pytest.mark.parametrize(
    ("address", "on_server", "is_list"),
    [
        ("ramadan-owner@lists.example.com", {}, True),
        ("ramadan-owner@lists.example.com", {"list_ids": ["ramadan.lists.example.com"]}, False),
        ("ramadan-bounces+a=b.se@lists.example.com", {"members": MAILMAN}, False),
        ("ramadan-request@example.com", {"list_ids": ["ramadan.lists.example.com"]}, True),  # perhaps an alias
        ("ramadan-request%example.se@relay.example", {}, True),
        ("ramadan-owner@example.org", {}, False),
    ],
)
def test_addresses_beside_a_list_are_the_list_where_no_list_server_has_them(
    house: House, parse: Parse, address: str, on_server: dict[str, Any], is_list: bool
) -> None:
    """Postfix with ``recipient_delimiter = -`` and a plain alias takes ``list-owner`` for the list."""
    from smtpguard.lists.digest import Digester

    house.digester = Digester(b"k" * 32, "+-")
    house.sections["ramadan"] = {"addresses": [LIST], **on_server}
    found = house.registry(domains=DOMAINS).list_at(parse(address)[0])
    assert (found is not None) is is_list


def test_a_mailbox_named_in_the_policy_is_not_the_list(ready: House, parse: Parse) -> None:
    registry = ready.registry(domains=DOMAINS, mailboxes=parse("ramadan@example.com"))
    kinds = [one.kind for one in registry.classify(parse("ramadan@example.com", "ramadan@example.se", LIST)).recipients]
    assert kinds == [Kind.INTERNAL, Kind.LIST, Kind.LIST]
    assert dict(registry.names.implied()) == {"ramadan@example.se": "ramadan", "press@example.se": "press"}


def test_another_name_of_a_list_among_members_nests_it(ready: House, parse: Parse) -> None:
    ready.list("all", ["ramadan@example.se", "x@kund.se"], addresses=["all@lists.example.com"])
    ready.sync("all")
    got = ready.registry(domains=DOMAINS).classify(parse("all@lists.example.com"))
    assert set(got.addressed) == {"all", "ramadan"}


@every(
    ("address", "is_list"),
    [
        ("customers@example.com", True),
        ("customers@example.se", True),
        ("customers@mx1.example.net", True),
        ("customers@localhost", True),
        ("customers@it.corp.example", True),
        ("customers%localhost@mx1.example.net", True),
        ("customers%localhost%mx1.example.net@mx1.example.net", True),
        ("customers@example.org", False),
        ("kunder@example.se", False),  # something else
        # an address for a few people is no list, so at another domain it may be another address
        ("few@example.se", False),
    ],
)
def test_expanded_addresses_have_other_names_too(ready: House, parse: Parse, address: str, is_list: bool) -> None:
    members = ", ".join(f"c{i}@kund.se" for i in range(5))
    (ready.path / "aliases").write_text(f"customers: {members}\nkunder: {members}\nfew: c1@kund.se\n")
    options: dict[str, Any] = {"domains": DOMAINS, "host_names": ["mx1.example.net"], "expansions": True,
               "elsewhere": parse("kunder@example.se")}  # fmt: skip
    registry = ready.registry(**options)
    expander = Expander([expands({"aliases": "aliases", "domains": ["example.com"]})], ready.registry(**options),
                        folder=ready.folder, base=ready.path)  # fmt: skip
    assert expander.sync(expander.info, ready.clock.now()).ok
    registry.reopen()
    assert (registry.classify(parse(address)).recipients[0].kind is Kind.LIST) is is_list


def test_dots_at_gmail_are_ignored(ready: House, parse: Parse) -> None:
    ready.list("news", ["anna.b@gmail.com", "bo@googlemail.com", "x@kund.se"], addresses=["news@lists.example.com"])
    ready.sync("news")
    got = ready.registry().classify(parse("annab@gmail.com", "a.n.n.a.b@googlemail.com", "B.o@gmail.com"))
    assert [one.lists for one in got.recipients] == [("news",)] * 3
    assert (got.total, got.members, got.customers, got.reach) == (3, (2, 2), (2, 2), (2, 2))
    assert len(got.people) == 2


def test_an_index_of_an_earlier_version_is_used_until_rebuilt(ready: House, parse: Parse) -> None:
    """An index of the earlier version is used until the next sync: its digests are of addresses as spelled, its key id
    names no form."""
    ready.list("news", ["anna.b@gmail.com", "x@kund.se"], addresses=["news@lists.example.com"])
    key_id = hashlib.blake2b(b"+", digest_size=8, key=b"k" * 32, person=b"key id").digest()

    def before(address: str) -> bytes:
        return hashlib.blake2b(address.encode(), digest_size=8, key=b"k" * 32, person=b"address").digest()

    for path in (
        index_path(ready.folder, "news"),
        source_path(ready.folder, "news", source_key(source({"csv": "news.csv"}))),
    ):
        digests = [before("anna.b@gmail.com"), before("x@kund.se")]
        draft = write(path, digests, key_id=key_id, built_at=datetime(2026, 3, 2, tzinfo=UTC), fingerprint=b"f" * 32)
        swap(draft, path)
    registry = ready.registry(look_seconds=0)
    assert registry.statuses["news"].index is not None
    got = registry.classify(parse("Anna.B@gmail.com", "x@kund.se", "y@kund.se"))
    assert [one.lists for one in got.recipients] == [("news",), ("news",), ()]

    (ready.path / "news.csv").rename(ready.path / "away.csv")  # the source fails meanwhile: the old index stays in use
    report = ready.sync("news")
    assert report.problem.endswith("the last good index stays in use")
    registry.reopen()
    assert registry.classify(parse("anna.b@gmail.com")).recipients[0].lists == ("news",)

    (ready.path / "away.csv").rename(ready.path / "news.csv")
    assert ready.sync("news").ok
    registry.reopen()
    assert registry.statuses["news"].index.header.key_id == ready.digester.key_id
    assert registry.statuses["news"].state is State.READY
    assert registry.classify(parse("annab@gmail.com")).recipients[0].lists == ("news",)
