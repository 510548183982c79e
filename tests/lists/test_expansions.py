"""Addresses that the relay expands (aliases of aliases, nested lists, loops) count as the people behind them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.gathering.sender import Sender
from smtpguard.lists.digest import Digester
from smtpguard.lists.expanding import Expander
from smtpguard.lists.expansions import EXPANSIONS, MOST_MEMBERS, Expansions, expansions_path
from smtpguard.lists.recipients import Classified, Count, Kind
from smtpguard.lists.registry import Registry
from smtpguard.lists.sync import News, Report
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Session, Transaction
from smtpguard.mail.message import Message
from tests.cli.stage import rows
from tests.lists.conftest import House
from tests.lists.declaring import expands

CUSTOMERS = [f"k{n}@kund.se" for n in range(20)]
ALIASES = {"aliases": "aliases", "domains": ["example.com", "mail.example.com"]}


@pytest.fixture
def maps(house: House) -> Callable[..., Report]:
    """A function that writes the maps and syncs their expansions."""
    house.list("buyers", CUSTOMERS, addresses=["buyers@lists.example.com"])
    house.list("news", [*CUSTOMERS[:5], "eva@example.com"], addresses=["news@lists.example.com"])
    house.list("staff", ["eva@example.com", "omar@example.com"], audience="staff")
    for name in house.sections:
        assert house.sync(name).ok

    def of(*declared: dict[str, Any], aliases: str = "", virtual: str = "", **options: Any) -> Report:
        (house.path / "aliases").write_text(aliases)
        (house.path / "virtual").write_text(virtual)
        return expander(house, *(declared or (ALIASES,))).sync(None, house.clock.now(), **options)  # type: ignore[arg-type]

    return of


def expander(house: House, *declared: dict[str, Any], registry: Registry | None = None) -> Expander:
    return Expander(
        [expands(each) for each in declared],
        registry or house.registry(expansions=True),
        folder=house.folder,
        base=house.path,
    )


def reached(house: House, *recipients: str) -> Classified:
    return house.registry(expansions=True).classify([Address.parse(r) for r in recipients])


def test_nested_aliases_and_loops_are_found_by_their_members(house: House, maps: Callable[..., Report]) -> None:
    some = ", ".join(CUSTOMERS[:4])
    report = maps(
        aliases=f"all: some, more, all\nsome: {some}, more\nmore: k4@kund.se, all, eva@example.com, nobody@else.where\n"
    )
    assert (report.ok, report.people) == (True, 6)
    for name in ("all", "some", "More"):
        for domain in ("example.com", "mail.example.com"):
            counted = reached(house, f"{name}@{domain}")
            assert counted.list_addresses == Count(1, 1)
            assert counted.customers == Count(6, 6), "five customers, and a colleague who is on a list"
            assert counted.reach == Count(7, 7)
            assert counted.lists == {"buyers", "news"}
            assert counted.addressed == ("buyers", "news")
            assert counted.touched["buyers"].members == Count(5, 5)
            assert counted.touched["buyers"].size == Count(20, 20)
            assert not counted.touched["buyers"].by_address
            assert counted.members == Count(0, 0)
            assert len(counted.people) == 6
    assert reached(house, "all@else.where").list_addresses == Count(0, 0)


def test_colleagues_behind_an_alias_stay_colleagues(house: House) -> None:
    house.list("news", [*CUSTOMERS[:5], *(f"c{n}@example.com" for n in range(8))], addresses=["news@lists.example.com"])
    assert house.sync("news").ok
    (house.path / "aliases").write_text(
        f"team: {', '.join(f'c{n}@example.com' for n in range(8))}\nmixed: team, k0@kund.se\n"
    )
    registry = house.registry(expansions=True, customers_here=False)
    assert expander(house, ALIASES, registry=registry).sync(None, house.clock.now()).ok  # type: ignore[arg-type]
    registry.reopen()
    team, mixed = (registry.classify([Address.parse(f"{name}@example.com")]) for name in ("team", "mixed"))
    assert (team.list_addresses, team.customers) == (Count(0, 0), Count(0, 0))
    assert team.lists == set()
    assert mixed.customers == Count(1, 1)


def test_an_alias_is_recognized_in_every_spelling(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases="Customers: " + ", ".join(CUSTOMERS))
    for spelled in (
        "CUSTOMERS@Example.com",
        '"customers"@example.com',
        "customers+x@example.com",
        "customers@example.com.",
    ):
        assert reached(house, spelled).customers == Count(20, 20), spelled
    assert reached(house, "customers@example.com", "Customers@EXAMPLE.com").reach == Count(20, 20)


def test_an_alias_of_a_lists_address_is_the_list(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases="ours: buyers@lists.example.com, zoe@kund.se, k0@kund.se\n")
    counted = reached(house, "ours@example.com")
    assert counted.touched["buyers"].by_address
    assert counted.list_addresses == Count(1, 1)
    assert counted.customers == Count(21, 21), "one too many rather than too few: k0 is on the list already"
    assert counted.reach == Count(22, 22)


def test_reports_to_an_alias_go_to_the_customer_lists_behind_it(house: House, maps: Callable[..., Report]) -> None:
    some = ", ".join(CUSTOMERS[5:9])
    maps(aliases=f"ours: buyers@lists.example.com\nsome: {some}\nlena: k1@kund.se\nteam: eva@example.com\n")
    registry, lists = house.registry(expansions=True), {}
    for name in ("ours", "some", "lena", "team", "nobody", "buyers"):
        address = Address.parse(f"{name}@example.com")
        lists[name] = registry.lists_behind(address, address.canonical("+"))
    assert lists == {
        "ours": ("buyers",),
        "some": ("buyers",),
        "lena": (),
        "team": (),
        "nobody": (),
        "buyers": ("buyers",),
    }


def test_a_notice_for_its_sender_never_goes_to_the_customers_behind_an_alias(
    house: House, maps: Callable[..., Report]
) -> None:
    maps(aliases=f"ours: {', '.join(CUSTOMERS)}\nlena: k1@kund.se\nteam: eva@example.com, omar@example.com\n")
    registry, told = house.registry(expansions=True), {}
    for name in ("ours", "Ours+x", "lena", "team"):
        session = Session(client_ip="192.0.2.1", auth_user=f"{name}@example.com")
        for path in (f"{name}@example.com", "other@example.org"):
            transaction = Transaction(
                id="T1",
                session=session,
                envelope=Envelope(reverse_path=Address.parse(path), recipients=()),
                message=Message.of(f"From: {name}@example.com\r\n\r\nHello\r\n".encode()),
            )
            told[name, path] = Sender.of(transaction, registry).told
    assert {name for name, path in told if told[name, path]} == {"lena", "team"}
    assert [told["ours", "ours@example.com"], told["ours", "other@example.org"]] == [None, None]


def test_few_customers_behind_an_address_are_no_list(house: House, maps: Callable[..., Report]) -> None:
    """A forwarded mailbox is no list: mail through it to a customer is not held as mail to a list."""
    maps(
        aliases="lena: k1@kund.se\npair: k1@kund.se, k2@kund.se, zoe@kund.se\nfour: k1@kund.se,k2@kund.se,k3@kund.se,k4@kund.se\n"
    )
    counted = reached(house, "lena@example.com")
    (one,) = counted.recipients
    assert one.kind is Kind.INTERNAL_MEMBER
    assert one.digest == house.digester.of_canonical("k1@kund.se"), "recipients are known"
    assert (counted.list_addresses, counted.customers, counted.members) == (Count(0, 0), Count(1, 1), Count(1, 1))
    assert counted.addressed == ()
    counted = reached(house, "pair@example.com")
    assert (counted.list_addresses, counted.customers, counted.reach) == (Count(0, 0), Count(2, 2), Count(3, 3))
    assert reached(house, "four@example.com").list_addresses == Count(1, 1)


def test_colleagues_behind_an_address_count_only_for_reach(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases="team: omar@example.com, ida@example.com, bo\n")
    counted = reached(house, "team@example.com")
    assert (counted.internal, counted.customers, counted.reach) == (Count(1, 1), Count(0, 0), Count(3, 3))
    assert (counted.list_addresses, counted.touched) == (Count(0, 0), {})


def test_people_behind_may_be_on_a_list_without_an_index(house: House, maps: Callable[..., Report]) -> None:
    house.sections["lost"] = {"members": {"csv": "none.csv"}}
    maps(aliases="team: omar@example.com, ida@example.com\nfriends: zoe@kund.se, bo@kund.se, ida@example.com\n"
                 "all: " + ",".join(CUSTOMERS[:10]) + ", zoe@kund.se\n")  # fmt: skip
    assert reached(house, "team@example.com").customers == Count(0, 0), "colleagues stay colleagues"
    friends = reached(house, "friends@example.com")
    assert (friends.customers, friends.outside, friends.internal) == (Count(0, 2), Count(0, 0), Count(1, 1))
    assert set(friends.unsure) == {"lost"}
    everybody = reached(house, "all@example.com")
    assert everybody.customers == Count(10, 11)
    assert everybody.touched["lost"].members == Count(0, 1)
    assert everybody.touched["lost"].size.high == math.inf


def test_virtual_maps_and_domain_aliases_are_followed(house: House, maps: Callable[..., Report]) -> None:
    maps(
        {"virtual": "hash:virtual", "domains": ["example.com"]},
        virtual=f"kund.example anything\nall@example.com {' '.join(CUSTOMERS)}\n@old.example @lists.example.com\n"
        "@older.example @old.example\n@any.example all@example.com\nsome@any.example omar@example.com\n"
        "friends all@old2.example, news@older.example\n@old2.example @example.com\n",
    )
    assert reached(house, "all@example.com").customers == Count(20, 20)
    for moved in ("buyers@old.example", "buyers@older.example", "BUYERS+x@Older.Example"):
        counted = reached(house, moved)
        assert counted.touched["buyers"].by_address, moved
        assert counted.recipients[0].canonical.endswith(moved.lower().rpartition("@")[2])
    assert reached(house, "whoever@any.example").customers == Count(20, 20)
    assert reached(house, "some@any.example").customers == Count(0, 0), "its own entry comes first"
    assert reached(house, "friends@example.com").touched["news"].by_address


def test_expansions_are_as_fresh_as_their_lists(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases="all: zoe@kund.se, bo@kund.se, ida@kund.se, per@kund.se\n")
    assert reached(house, "all@example.com").customers == Count(0, 0)
    registry = house.registry(expansions=True)
    keeping = expander(house, ALIASES, registry=registry)
    (info,) = keeping.due(house.clock.now())
    assert keeping.sync(info, house.clock.now()).ok
    assert not keeping.due(house.clock.now())
    house.clock.pass_(minutes=2)
    (house.path / "news.csv").write_text(
        "email\n" + "".join(f"{n}@kund.se\n" for n in ("zoe", "bo", "ida", "per", "a", "b"))
    )
    assert house.sync("news").ok
    assert keeping.due(house.clock.now()), "a person was added to a list"
    assert keeping.sync(info, house.clock.now()).changed
    assert registry.classify([Address.parse("all@example.com")]).customers == Count(0, 0), "looked at once a second"
    house.clock.pass_(seconds=2)
    assert registry.classify([Address.parse("all@example.com")]).customers == Count(4, 4)
    house.clock.pass_(minutes=16)
    assert keeping.due(house.clock.now())


def test_a_very_large_expansion_counts_once(house: House, maps: Callable[..., Report]) -> None:
    many = [f"m{n}@kund.se" for n in range(MOST_MEMBERS + 1)]
    house.list("many", many)
    assert house.sync("many").ok
    (house.path / "many.txt").write_text("\n".join(many))
    maps(aliases=f"all: :include:{house.path}/many.txt\n")
    counted = reached(house, "all@example.com", "ALL@mail.example.com")
    assert counted.people == ()
    assert [behind.customers for behind in counted.crowds] == [MOST_MEMBERS + 1] * 2
    assert counted.touched["many"].members.low == 2 * (MOST_MEMBERS + 1)


FINE = "all: " + ", ".join(CUSTOMERS) + "\n"


@pytest.mark.parametrize(
    ("aliases", "problem"),
    [
        (None, "No such file"),
        ("/^all/ x@y.se\n", "a map of patterns"),
        ("all: :include:gone\n", "gone: No such file"),
        ("no colon\n" * 4, "4 of 4 lines are invalid"),
    ],
)
def test_an_unreadable_map_leaves_the_last_data_in_use(
    house: House, maps: Callable[..., Report], aliases: str | None, problem: str
) -> None:
    assert News.REPLACED in maps(aliases=FINE).news
    house.clock.pass_(minutes=1)
    if aliases is None:
        report = expander(house, {**ALIASES, "aliases": "gone"}).sync(None, house.clock.now())  # type: ignore[arg-type]
    else:
        report = maps(aliases=aliases)
    assert problem in report.problem
    assert "the last good data stays in use" in report.problem
    assert News.FAILED in report.news
    assert report.people == 2
    assert reached(house, "all@example.com").customers == Count(20, 20)
    assert News.WELL in maps(aliases=FINE).news


def test_a_sync_that_began_earlier_replaces_no_newer_expansions(
    house: House, maps: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a list server answers late."""
    maps(aliases="all: k0@kund.se\n")
    read, began = Expander._read, house.clock.now()

    def late(self: Expander, *more: Any) -> None:
        read(self, *more)
        monkeypatch.setattr(Expander, "_read", read)
        house.clock.pass_(minutes=1)
        assert maps(aliases="all: k0@kund.se, k1@kund.se\n").news == {News.REPLACED}

    monkeypatch.setattr(Expander, "_read", late)
    report = expander(house, ALIASES).sync(None, began)  # type: ignore[arg-type]
    assert (report.news, report.checked_at) == (frozenset(), house.clock.now())
    assert reached(house, "all@example.com").customers == Count(2, 2)
    house.clock.at -= timedelta(days=1)
    maps(aliases="all: k0@kund.se\n")
    assert reached(house, "all@example.com").customers == Count(1, 1), "also after the clock was set back"


def test_a_much_smaller_map_is_refused_unless_accepted(maps: Callable[..., Report]) -> None:
    maps({**ALIASES, "domains": ["example.com"]}, aliases="".join(f"a{n}: k1@kund.se\n" for n in range(30)))
    report = maps({**ALIASES, "domains": ["example.com"]}, aliases="a1: k1@kund.se\n")
    assert "1 address expands, where 30 did before" in report.problem
    assert maps({**ALIASES, "domains": ["example.com"]}, aliases="a1: k1@kund.se\n", accept_shrink=True).ok


def test_invalid_lines_are_reported_and_pipes_counted(house: House, maps: Callable[..., Report]) -> None:
    report = maps(aliases=FINE + "bad line\nscript: |/bin/true, /var/log/x, k1@kund.se\nwrong: not an address@\n")
    assert [str(row) for row in report.shown] == [
        "line 2: no colon after the alias", "line 4: not a mailbox: expected local-part@domain",
    ]  # fmt: skip
    assert report.sources[0].ignored == 2
    assert reached(house, "script@example.com").customers == Count(1, 1)


def test_a_backslash_ends_the_expansion(house: House, maps: Callable[..., Report]) -> None:
    house.list("vips", ["k1@example.com"])
    assert house.sync("vips").ok
    maps(aliases="k1: \\k1, k2@kund.se\n")
    assert reached(house, "k1@example.com").customers == Count(2, 2)


def test_an_unchanged_map_is_not_read_again(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases=FINE)
    known = Expansions(house.folder, house.digester.key_id)
    assert known.look()
    before, read_at = known.known, known.read_at
    house.clock.pass_(minutes=20)
    maps(aliases=FINE)
    assert not known.look()
    assert known.known is before
    assert known.read_at == house.clock.now() != read_at
    maps(aliases=FINE + "more: k1@kund.se, k2@kund.se\n")
    assert known.look()


def test_a_damaged_file_leaves_the_last_data_in_use(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases=FINE)
    registry = house.registry(expansions=True)
    path = expansions_path(house.folder)
    whole = path.read_text()
    assert "kund" not in whole
    assert "all" not in whole.replace('"all', "")
    for damaged in ("", "{}", "[]", whole[: len(whole) // 2], whole.replace('"layout": 1', '"layout": 2')):
        path.write_text(damaged)
        house.clock.pass_(seconds=2)
        assert registry.classify([Address.parse("all@example.com")]).customers == Count(20, 20)
    assert registry.expansions is not None
    assert "damaged" in registry.expansions.why
    other = Expansions(house.folder, Digester(b"o" * 32, "+").key_id)
    path.write_text(whole)
    assert not other.look()
    assert not other.known


def test_without_a_sync_or_declaration_nothing_expands(house: House, maps: Callable[..., Report]) -> None:
    assert reached(house, "all@example.com").internal == Count(1, 1)
    assert not expander(house).due(house.clock.now())
    maps(aliases=FINE)
    assert house.registry().classify([Address.parse("all@example.com")]).customers == Count(0, 0)
    assert EXPANSIONS not in house.sections


def test_a_sync_stops_when_asked_to(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases=FINE)
    stopping = Expander(
        (expands(ALIASES),),
        house.registry(expansions=True),
        folder=house.folder,
        base=Path(house.path),
        stop=lambda: True,
    )
    assert "stopped before its end" in stopping.sync(stopping.info, house.clock.now()).problem


def test_an_unexpected_error_leaves_the_last_data_in_use(
    house: House, maps: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps(aliases=FINE)
    before = expansions_path(house.folder).read_bytes()

    def resolved(*_: object) -> object:
        raise KeyError("x")

    monkeypatch.setattr("smtpguard.lists.expanding.resolved", resolved)
    report = maps(aliases=FINE)
    assert report.problem == f"{EXPANSIONS} cannot be read: KeyError (see the log); the last good data stays in use"
    assert expansions_path(house.folder).read_bytes() == before


def test_expansions_are_synced_and_matched_by_command(tmp_path: Path) -> None:
    from tests.lists.test_command import POLICY, run

    (tmp_path / "smtpguard.yaml").write_text("policy: policy.yaml\n")
    expands = "expansions: {aliases: aliases, domains: [example.com]}\n"
    (tmp_path / "policy.yaml").write_text(POLICY.replace("lists:\n", f"{expands}lists:\n", 1))
    (tmp_path / "ramadan.csv").write_text("email\n" + "".join(f"{c}@kund.se\n" for c in "abcdef"))
    assert "The addresses that expand at the relay are not known: it was never synced." in run(tmp_path, "show").stdout
    failed = run(tmp_path, "sync")
    assert failed.exit_code == 1
    assert "aliases: No such file or directory; no address is known to expand" in failed.stderr
    assert f"{EXPANSIONS}: {tmp_path}/aliases: No such file" in run(tmp_path, "show").stderr
    (tmp_path / "aliases").write_text(
        "all: a@kund.se, b@kund.se, c@kund.se, d@kund.se, x@y.se\none: a@kund.se\nway: ramadan@lists.example.com\n"
    )
    assert f"{EXPANSIONS}: 3 addresses from aliases\n" in run(tmp_path, "sync").stdout
    assert "Beside the lists, 3 addresses expand at the relay, read 0 min ago." in run(tmp_path, "show").stdout
    said = run(tmp_path, "match", "All@example.com", "one@example.com", "way@example.com").stdout.splitlines()
    assert said[0] == "All@example.com: list (ramadan; expands to 5 people, of whom 4 are customers)"
    assert said[1] == "one@example.com: member (ramadan, by ramadan.csv; expands to 1 person, of whom 1 is a customer)"
    assert said[2] == "way@example.com: list (ramadan; expands to the list ramadan)"
    (row,) = rows(run(tmp_path, "match", "--json", "all@example.com"))
    assert (row["class"], row["behind"]) == ("list", {"people": 5, "customers": 4, "lists": []})


def test_each_declaration_can_be_tried_separately(house: House, maps: Callable[..., Report]) -> None:
    maps(aliases=FINE)
    before = expansions_path(house.folder).read_bytes()
    tried = list(expander(house, ALIASES, {"virtual": "hash:gone"}).trial())
    assert tried[0] == ("aliases", 2, "")
    assert tried[1][:2] == ("gone", 0)
    assert "No such file" in tried[1][2]
    assert expansions_path(house.folder).read_bytes() == before
