"""Outside addresses that the policy counts as colleagues."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from smtpguard.config.problem import Broken
from smtpguard.config.statefiles import swap
from smtpguard.lists.declared import PEOPLE, ListInfo
from smtpguard.lists.declared import PEOPLE as NAMED
from smtpguard.lists.digest import Digester
from smtpguard.lists.expanding import Graph, resolved
from smtpguard.lists.index import index_path
from smtpguard.lists.names import Names
from smtpguard.lists.recipients import Kind
from smtpguard.lists.registry import Registry
from smtpguard.lists.writing import write
from smtpguard.mail.address import Address
from smtpguard.policy.looser import looser
from smtpguard.policy.parse import parse
from tests.every import every
from tests.lists.declaring import source

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
KEY = Digester(b"k" * 32, "+")
NEWS = ("kim@board.example", "customer@shop.example", "ann@consulting.example")


def registry(folder: Path) -> Registry:
    """A registry with one colleague by address and one by a source; both are on the newsletter too, like a customer."""
    infos = {
        "news": ListInfo(
            name="news", addresses=(Address.parse("news@lists.example.com"),), members=(source({"csv": "n"}),)
        ),
        PEOPLE: ListInfo(name=PEOPLE, members=(source({"csv": "p"}),), audience="colleagues"),
    }
    for name, people in (("news", NEWS), (PEOPLE, ("ann@consulting.example",))):
        path, digests = index_path(folder, name), map(KEY.of_canonical, people)
        swap(write(path, digests, key_id=KEY.key_id, built_at=NOW, fingerprint=bytes(32)), path)
    return Registry(
        names=Names(infos, domains=["example.com"], delimiters="+"), lists=infos, digester=KEY, folder=folder, now=lambda: datetime.now(UTC),
        people=["kim@board.example"],
    )  # fmt: skip


def kinds(found: Registry, *addresses: str) -> list[Kind]:
    return [one.kind for one in found.classify(map(Address.parse, addresses)).recipients]


def test_named_people_count_as_colleagues_on_any_list(tmp_path: Path) -> None:
    found = registry(tmp_path)
    some = ("Kim+private@Board.example", "ann@consulting.example", "customer@shop.example", "bo@example.com")
    assert kinds(found, *some) == [Kind.INTERNAL, Kind.INTERNAL, Kind.MEMBER, Kind.INTERNAL]
    counted = found.classify(map(Address.parse, some))
    assert (counted.internal.low, counted.customers.low, set(counted.touched)) == (3, 1, {"news"})


def test_named_people_are_no_internal_senders(tmp_path: Path) -> None:
    found = registry(tmp_path)
    assert not any(
        found.names.is_internal(Address.parse(one)) for one in ("kim@board.example", "ann@consulting.example")
    )


def test_named_people_behind_an_alias_count_as_colleagues(tmp_path: Path) -> None:
    found = registry(tmp_path)
    graph = Graph(found)
    board = Address.parse("board@example.com")
    for one in ("kim@board.example", "ann@consulting.example", "bo@example.com"):
        graph.leads(board, Address.parse(one))
    (behind,) = resolved(graph, found).values()
    assert (behind.people, behind.customers, behind.unplaced) == (3, 0, 0)


def test_excluded_addresses_are_left_out_of_expansions(tmp_path: Path) -> None:
    found = registry(tmp_path)
    graph = Graph(found)
    graph.excluded.add("customer@shop.example")
    for one in NEWS:
        graph.leads(Address.parse("all@example.com"), Address.parse(one))
    (behind,) = resolved(graph, found).values()
    assert (behind.people, behind.customers) == (2, 0)
    assert graph.leaves_out(Address.parse("Customer@Shop.Example"))


POLICY = """version: 1
organization: {domains: [example.com]%s}
groups: {communications: [eva@example.com, omar@example.com]}
approvals: {from: [communications]}
lists: {news: {addresses: [news@lists.example.com], members: {csv: n.csv, column: email}}}
rules:
  - {id: a, when: {recipients.list_addresses: any}, then: hold}
"""


def policy(people: str = ""):  # type: ignore[no-untyped-def]
    return parse({"policy.yaml": (POLICY % people).encode()})


def test_the_policy_names_people() -> None:
    assert NAMED == PEOPLE
    plain = policy(", people: [Kim@board.example]")
    assert plain.organization.people == {"kim@board.example"}
    assert PEOPLE not in plain.declared_lists
    sourced = policy(", people: {members: [{csv: p.csv, column: email}, {list: news}]}")
    info = sourced.declared_lists[PEOPLE]
    assert (info.of_customers, len(info.members)) == (False, 2)
    assert PEOPLE not in sourced.lists, "no customers, and no list that a rule may name"


@every(
    ("people", "said"),
    [
        (", people: {}", "people, but no addresses and no members"),
        (", people: [kim]", "invalid address"),
        (", people: {members: {list: newz}}", 'unknown list "newz"'),
    ],
)
def test_errors_are_reported_with_their_place(people: str, said: str) -> None:
    with pytest.raises(Broken) as told:
        policy(people)
    (problem,) = (p for p in told.value.problems if p.fatal)
    assert said in problem.text
    assert problem.line == 2


def test_one_more_person_is_looser() -> None:
    assert [str(one) for one in looser(policy(), policy(", people: [kim@board.example]"))] == [
        "policy.yaml:2:40: organization.people: kim@board.example is one of ours"
    ]
    assert looser(policy(", people: [kim@board.example]"), policy()) == ()
