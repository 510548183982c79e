"""Incidents searched in a real journal: every match is found, by any name or the beginning of an id, and in pages of any size."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.holds.model import State
from smtpguard.incidents import rows as incident
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Findings
from smtpguard.incidents.rows import MOST_NAMED as MOST
from smtpguard.journal import rows as journalrows
from smtpguard.journal import scan as journalscan
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.outcome import Outcome
from smtpguard.reading.fingerprint import Identity
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.mailings.test_mailingbatch import admit, of
from tests.store.making import a_freeze, event, held, on_sqlite


def verdict(store: Store, id: str, **data: Any) -> Event:
    private = {"from": (str(data.pop("sender", "anna@example.com")),), "subject": (str(data.pop("subject", "lunch")),)}
    return Event(kind=Kind.VERDICT, id=id, at=store.now(), data={"action": "relay", **data}, private=private)


async def ids(store: Store, **query: Any) -> set[str]:
    """The ids of the verdicts in the report."""
    found = await store.journal.incident(IncidentQuery(**query), prove=False)
    return {step.entry.id for step in found.report.steps if step.entry.kind == "verdict"} if found.report else set()


async def found(store: Store, **query: Any) -> Findings:
    return await store.journal.incident(IncidentQuery(**query), prove=True)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journalrows, "STRETCH", 3)
    monkeypatch.setattr(incident, "_MANY", 2)


async def test_matches_are_found_across_pages(store: Store) -> None:
    await store.journal.record([verdict(store, f"T{n}", lists=["news" if n % 2 else "ads"]) for n in range(20)])
    assert await ids(store, lists=frozenset({"news"})) == {f"T{n}" for n in range(1, 20, 2)}
    one = await found(store, lists=frozenset({"news"}))
    assert one.report is not None
    assert (one.report.messages, one.seq) == (10, 21)
    assert one.proof is not None
    assert one.proof.ok


@on_sqlite
async def test_a_journal_without_a_match_is_not_proved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes minutes, and the answer would be the same."""
    await store.journal.record([verdict(store, "T1")])
    walked: list[object] = []
    monkeypatch.setattr(journalscan.Walk, "prove", lambda *asked, **more: walked.append(asked))
    one = await found(store, subject="no such thing")
    assert (one.report, one.proof, walked) == (None, None, [])
    everything = IncidentQuery(ids=frozenset({"T1"}))
    hidden = await store.journal.incident(everything, prove=True, may=lambda report: report.messages > 1)
    assert (hidden.proof, walked) == (None, []), "who may not see it does not learn by the time that something fits"


@on_sqlite
async def test_a_name_is_no_pattern(store: Store) -> None:
    names = ["100%", "a_b", 'the "big" one', "back\\slash", "Nyhetsbrev på svenska", "*"]
    for n, name in enumerate(names):
        await store.journal.record([verdict(store, f"T{n}", lists=[name])])
    await store.journal.record([verdict(store, "T9", lists=["another", "axb", "100 people"])])
    for n, name in enumerate(names):
        assert await ids(store, lists=frozenset({name})) == {f"T{n}"}


@on_sqlite
async def test_all_conditions_must_match(store: Store, clock: Clock) -> None:
    await store.journal.record([verdict(store, "T1", lists=["news"]), verdict(store, "T2", subject="Möte")])
    clock.pass_(hours=1)
    await store.journal.record([verdict(store, "T3", lists=["news"]), verdict(store, "T4", sender="otto@example.com")])
    then = microseconds(clock.now())
    assert await ids(store, since=then) == {"T3", "T4"}
    assert await ids(store, until=then, lists=frozenset({"news"})) == {"T1"}
    assert await ids(store, subject="möte") == {"T2"}
    assert await ids(store, senders=frozenset({"otto@example.com"})) == {"T4"}
    assert await ids(store, senders=frozenset({"otto@example.com"}), lists=frozenset({"news"})) == set()


async def test_a_message_includes_its_mailing_unless_asked_alone(store: Store) -> None:
    for n in range(1, 8):
        await store.journal.record([verdict(store, f"T{n}", mailing="M1" if n < 6 else "M2")])
    assert await ids(store, ids=frozenset({"T2"})) == {"T1", "T2", "T3", "T4", "T5"}
    assert await ids(store, ids=frozenset({"T2"}), whole=False) == {"T2"}
    assert await ids(store, ids=frozenset({"M2"})) == {"T6", "T7"}


async def test_a_freeze_includes_what_went_out_of_the_mailings_that_it_stopped(store: Store) -> None:
    await store.journal.record([verdict(store, "T1", mailing="M1"), verdict(store, "T2", mailing="M2")])
    await store.journal.record([event(Kind.FREEZE, "F1", selector="all")])
    await store.journal.record([verdict(store, "T3", action="hold", hold="T3", mailing="M1", freeze="F1")])
    assert await ids(store, ids=frozenset({"F1"})) == {"T1", "T3"}
    assert await ids(store, ids=frozenset({"F1"}), whole=False) == {"T3"}


async def test_of_many_mailings_the_largest_are_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident, "MOST_MAILINGS", 2)
    for n in range(3):
        await admit(store, of(f"T{n}", f"p{n}", identity=Identity(exact=f"mailing {n}")))
    names = [one.mailing_id for one in await store.mailings.newest()]
    assert len(names) == 3
    many = [verdict(store, f"V{n}-{m}", mailing=name) for n, name in enumerate(names) for m in range(n + 1)]
    await store.journal.record(many)
    looked = await found(store, since=0)
    assert [one.mailing_id for one in looked.mailings] == [names[2], names[1]]
    assert looked.report is not None
    assert len(looked.report.mailings) == 3


async def test_figures_of_a_mailing_that_are_erased_are_left_out(store: Store, clock: Clock) -> None:
    """Its row stays if it is the newest."""
    await admit(store, of("T1", "p1", identity=Identity(exact="a mailing")))
    [one] = await store.mailings.newest()
    await store.journal.record([verdict(store, "V1", mailing=one.mailing_id)])
    looked = await found(store, ids=frozenset({"V1"}))
    assert [each.mailing_id for each in looked.mailings] == [one.mailing_id]
    clock.pass_(days=100)
    while (await store.retain(Retention())).more:
        pass
    assert (await found(store, ids=frozenset({"V1"}))).mailings == []


async def test_a_hold_with_its_decisions(store: Store) -> None:
    hold = await held(store, "H1")
    await store.journal.record(
        [event(Kind.VOTE, "H1", choice="approve"), event(Kind.APPROVED, "H1"), event(Kind.VOTE, "H2")]
    )
    await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1", selector="all", value=""))
    looked = await found(store, ids=frozenset({"H1"}))
    assert hold.state is State.WAITING
    assert looked.report is not None
    assert list(looked.report.ends) == [Outcome.ON_ITS_WAY]
    kinds = [step.entry.kind for step in looked.report.steps]
    assert kinds == ["policy", "verdict", "vote", "approved", "freeze"]


async def test_erased_messages_are_found_by_their_sender(store: Store, clock: Clock) -> None:
    await store.journal.record([verdict(store, "T1", sender="otto@example.com"), verdict(store, "T2")])
    clock.pass_(days=91)
    while (await store.retain(Retention())).more:
        pass
    looked = await found(store, senders=frozenset({"otto@example.com"}))
    assert looked.report is not None
    assert (looked.report.messages, looked.report.erased, dict(looked.report.writers)) == (1, 1, {})
    assert looked.proof is not None
    assert looked.proof.ok


@on_sqlite
async def test_the_last_checkpoint_is_named(store: Store) -> None:
    await store.journal.record([verdict(store, "T1")])
    made = await store.journal.checkpoint()
    await store.journal.record([verdict(store, "T2")])
    looked = await store.journal.incident(IncidentQuery(ids=frozenset({"T1"})), prove=False)
    assert made is not None
    assert looked.checkpoint is not None
    assert (looked.checkpoint.seq, looked.seq, looked.proof) == (made.seq, made.seq + 1, None)


@pytest.mark.parametrize(("url", "hours"), [("sqlite", 1), ("sqlite", 20), ("postgresql", 20)], indirect=["url"])
async def test_a_clock_set_back_hides_no_message(hours: int, store: Store, clock: Clock) -> None:
    """If the clock goes forward, back, and forward again, each message is found by the time in its own entry."""
    begin = clock.now()
    for n in range(12):
        await store.journal.record([verdict(store, f"A{n}", lists=["news"])])
        clock.pass_(minutes=10)
    clock.at += timedelta(hours=hours)
    await store.journal.record([verdict(store, f"B{n}", lists=["news"]) for n in range(12)])
    clock.at -= timedelta(hours=hours)
    for n in range(12):
        await store.journal.record([verdict(store, f"C{n}", lists=["news"])])
        clock.pass_(minutes=10)
    late = microseconds(begin + timedelta(hours=hours))
    every = await written(store)
    for since, until in itertools.pairwise(microseconds(begin + timedelta(minutes=10 * n)) for n in range(30)):
        wanted = {id for id, at in every.items() if since <= at < until}
        assert await ids(store, since=since, until=until) == wanted
    assert {f"B{n}" for n in range(12)} <= await ids(store, since=late)


@on_sqlite
async def test_a_freeze_during_a_wrong_clock_is_included(store: Store, clock: Clock) -> None:
    clock.at += timedelta(hours=20)
    await store.journal.record([verdict(store, f"B{n}") for n in range(12)])
    clock.at -= timedelta(hours=20)
    await store.journal.record([verdict(store, "T1", lists=["news"])])
    await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1", at=clock.now(), selector="all"))
    found = await store.journal.incident(IncidentQuery(ids=frozenset({"T1"})), prove=False)
    assert found.report is not None
    assert "freeze" in [step.entry.kind for step in found.report.steps]


async def written(store: Store) -> dict[str, int]:
    return {entry.id: entry.at for entry, _ in await store.journal.entries() if entry.kind == "verdict"}


def private_verdict(store: Store, id: str, **private: tuple[str, ...]) -> Event:
    return Event(kind=Kind.VERDICT, id=id, at=store.now(), data={"action": "relay"}, private=private)


WORDS: list[tuple[str, list[str]]] = [
    ("01AB", ["01AB1", "01AB2"]),
    ("01ab2", ["01AB2"]),
    ("01AC", ["01AC"]),  # an exact match, although another id begins with it
    (" 01ac9 ", ["01AC9"]),
    ("FREEZE", ["FREEZE1"]),
    ("ZZ", ["ZZ1"]),
    ("0Z", ["0ZZ"]),
    ("09", ["099"]),
    ("01B", []),
    ("news", []),  # a list's name is not an id of a message
    ("%", []),
    ("_1AB1", []),
    ("", []),
]


async def test_an_id_is_found_by_its_beginning(store: Store) -> None:
    await store.journal.record(
        [private_verdict(store, id) for id in ("01AB1", "01AB2", "01AC", "01AC9", "ZZ1", "0ZZ", "099", "0A", "1")]
    )
    await store.journal.record([event(Kind.OUTCOME, "01AB2"), event(Kind.LIST, "NEWSLETTER")])
    await store.journal.record([event(Kind.FREEZE, "FREEZE1")])
    for word, ids in WORDS:
        assert list(await store.journal.matching_ids(word)) == ids, word


@on_sqlite
async def test_only_some_of_many_matches_are_named(store: Store) -> None:
    await store.journal.record([private_verdict(store, f"01AB{n:02}") for n in range(MOST + 5)])
    assert await store.journal.matching_ids("01AB") == [f"01AB{n:02}" for n in range(MOST)]


async def test_recent_senders_are_listed_once_newest_first(store: Store) -> None:
    anna, kalle = ("anna@example.com",), ("kalle@example.com",)
    await store.journal.record(
        [private_verdict(store, "T1", **{"from": anna, "reverse_path": anna, "subject": ("x",)})]
    )
    await store.journal.record(
        [private_verdict(store, "T2", **{"from": kalle, "reverse_path": ("bounces@example.com",)})]
    )
    await store.journal.record([event(Kind.EXPORTED, "journal")])
    assert await store.journal.writers() == ["kalle@example.com", "bounces@example.com", "anna@example.com"]
