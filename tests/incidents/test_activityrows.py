"""The sums beside the journal agree with the journal for any period."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from string import ascii_lowercase, digits
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from smtpguard.incidents import activityrows
from smtpguard.incidents.activity import WANTED, Activity, ActivityFilter, ActivitySums
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from tests.store.making import T0

MINUTE = timedelta(minutes=1)
STORY: list[tuple[int, Kind, str, dict[str, Any]]] = [
    (0, Kind.VERDICT, "P1", {"action": "relay", "lists": ["news"], "counts": {"customers": 7}}),
    (10, Kind.VERDICT, "H1", {"action": "hold", "rules": ["a", "b"], "lists": ["news"], "hold": "H1"}),
    (70, Kind.VERDICT, "H2", {"action": "hold", "rules": ["a"], "lists": ["vip"], "hold": "H2"}),
    (80, Kind.VERDICT, "C2", {"action": "hold", "rules": ["a", "b"], "lists": ["vip"], "hold": "C2", "with": "H2"}),
    (90, Kind.APPROVED, "H1", {}),
    (100, Kind.REOPENED, "H1", {}),
    (130, Kind.REJECTED, "H1", {}),
    (140, Kind.VERDICT, "R1", {"action": "reject", "rules": ["no"], "lists": []}),
    (150, Kind.VERDICT, "D1", {"action": "defer", "rules": ["a"], "observed": ["watch"]}),
    (190, Kind.VERDICT, "H3", {"action": "hold", "rules": ["b"], "lists": [], "hold": "H3"}),
    (200, Kind.APPROVED, "H2", {}),
    (210, Kind.VOIDED, "H3", {}),
    (260, Kind.ADOPTED, "H3", {}),
    (270, Kind.VERDICT, "P2", {"action": "relay", "lists": [], "counts": {"customers": 3}}),
    (272, Kind.VERDICT, "P3", {"action": "relay", "lists": [], "counts": {"customers": 0}}),
    (273, Kind.VERDICT, "T1", {"action": "relay", "lists": [], "test": True}),
    (274, Kind.VERDICT, "P3", {"action": "relay", "lists": [], "retry": True}),
]


async def record_story(store: Store, story: list[tuple[int, Kind, str, dict[str, Any]]] = STORY) -> None:
    for minute, kind, id, data in story:
        await store.journal.record([Event(kind=kind, id=id, at=T0 + minute * MINUTE, data=data)])


async def summed(store: Store) -> None:
    while await store.journal.index():
        pass


async def by_the_journal(store: Store, since: datetime, until: datetime) -> Activity:
    sums = ActivitySums()
    for entry, _ in await store.ask(lambda connection: journal.read(connection, limit=10_000)):
        if Kind(entry.kind) in WANTED and since <= entry.time < until:
            sums.add(entry.at, entry.kind, entry.id, entry.data)
    return sums.activity(since, until, UTC)


@pytest.mark.parametrize("counted", [0, 3, 5, len(STORY)])
async def test_stored_sums_equal_the_journal_for_any_period(store: Store, counted: int) -> None:
    await record_story(store, STORY[:counted])
    await summed(store)
    await record_story(store, STORY[counted:])
    for begin, end in ((0, 280), (5, 195), (61, 139), (75, 78), (60, 240), (-90, 600), (12, 205)):
        await equal_sums(store, begin, end)
    for _ in ("some are summed", "all are"):
        whole = await store.journal.activity(T0, None, UTC)
        held = {share.name: share.waiting + share.decided.total for share in whole.rules}
        assert held == {"a": 2, "b": 3, "no": 0, "watch": 0}, "a copy adds its rules to its primary hold"
        await summed(store)


async def test_a_hold_counts_for_all_its_rules_and_lists(store: Store) -> None:
    """As many as there are, with names that no compression makes short."""
    chance = random.Random(1)
    names = ["".join(chance.choices(ascii_lowercase + digits, k=63)) for _ in range(200)]
    data = {"action": "hold", "rules": names[:100], "lists": names[100:], "hold": "H1"}
    copy = {"action": "hold", "rules": names[100:], "lists": names[:100], "hold": "C1", "with": "H1"}
    for story in ([(10, Kind.VERDICT, "H1", data)], [(20, Kind.VERDICT, "C1", copy), (30, Kind.REJECTED, "H1", {})]):
        await record_story(store, story)
        await summed(store)
    whole = await store.journal.activity(T0, None, UTC)
    for shares in (whole.rules, whole.lists):
        assert {share.name: share.decided.rejected for share in shares} == dict.fromkeys(names, 1)


def led(id: str, minute: int) -> dict[str, Any]:
    return {"leads": {"hold": id, "held_at": microseconds(T0 + minute * MINUTE), "rules": ["a"], "lists": ["vip"]}}


SUCCESSION: list[tuple[int, Kind, str, dict[str, Any]]] = [
    (10, Kind.VERDICT, "H1", {"action": "hold", "rules": ["a"], "lists": ["vip"], "hold": "H1"}),
    *((11 + n, Kind.VERDICT, f"C{n}", {"action": "hold", "rules": ["a"], "lists": ["vip"], "with": "H1"}) for n in range(4)),
    (20, Kind.VOIDED, "H1", led("C0", 11)),
    (21, Kind.APPROVED, "C0", {}),
    (21, Kind.APPROVED, "C1", {"with": "C0"}),
    (21, Kind.APPROVED, "C2", {"with": "C0"}),
    (22, Kind.ADOPTED, "H1", {"with": "C0"}),
    (30, Kind.STOPPED, "C1", {"with": "C0", **led("C1", 12)}),
    (30, Kind.STOPPED, "C2", {"with": "C1"}),
    (40, Kind.APART, "C3", {"with": "C0", **led("C3", 14)}),
    (50, Kind.REJECTED, "C3", {}),
    (60, Kind.VERDICT, "C4", {"action": "hold", "rules": ["b"], "lists": ["vip"], "with": "C3"}),
]  # fmt: skip


@pytest.mark.parametrize("counted", [0, 6, 11, 13, 15, len(SUCCESSION)])
async def test_a_copy_counts_once_it_is_a_primary_hold(store: Store, counted: int) -> None:
    """From its own time on, whichever entry says so, and by whichever rules and lists it waits then."""
    await record_story(store, SUCCESSION[:counted])
    await summed(store)
    await record_story(store, SUCCESSION[counted:])
    for _ in ("some are summed", "all are"):
        for begin, approved, waiting in ((0, 2, 0), (11, 2, 0), (12, 1, 0), (13, 0, 0)):
            found = await store.journal.activity(T0 + begin * MINUTE, None, UTC)
            ended = found.decided
            assert (ended.approved, ended.rejected, ended.total, found.waiting) == (approved, 1, approved + 1, waiting)
        whole = await store.journal.activity(T0, None, UTC)
        assert {share.name: share.decided.total for share in (*whole.rules, *whole.lists)} == {"a": 3, "b": 1, "vip": 3}
        await summed(store)


async def equal_sums(store: Store, begin: int, end: int) -> None:
    since, until = T0 + begin * MINUTE, T0 + end * MINUTE
    asked = await store.journal.activity(since, until, UTC)
    expected = await by_the_journal(store, since, until)
    assert (asked.messages, asked.copies, asked.customers) == (expected.messages, expected.copies, expected.customers)
    for mine, theirs in ((asked.rules, expected.rules), (asked.lists, expected.lists)):
        assert [(s.name, s.held, s.deferred, s.rejected, s.observed, s.relayed) for s in mine] == [
            (s.name, s.held, s.deferred, s.rejected, s.observed, s.relayed) for s in theirs
        ]
    assert asked.days == expected.days
    if end not in (
        *range(90, 130),
        *range(210, 260),
    ):  # the sums leave out decisions that were revoked after the period
        assert sorted(asked.decided.seconds) == sorted(expected.decided.seconds)
        assert asked.waiting == expected.waiting


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Europe/Stockholm"])
async def test_a_day_begins_within_an_hour_of_the_sums(store: Store, zone: str) -> None:
    """In India at half past six in the evening, UTC."""
    here = ZoneInfo(zone)
    began = datetime(2026, 3, 10, tzinfo=here).astimezone(UTC)
    minutes = (-1500, -20, -1, 0, 10, 29, 31, 61, 1439, 1440, 1470)
    for n, minute in enumerate(minutes):
        data = {"action": "relay", "lists": [], "counts": {"customers": 0}}
        at = began + minute * MINUTE
        await store.journal.record([Event(kind=Kind.VERDICT, id=f"K{n}", at=at, data=data)])
    expected = {date(2026, 3, 8): 1, date(2026, 3, 9): 2, date(2026, 3, 10): 6, date(2026, 3, 11): 2}
    for _ in ("not summed", "summed"):
        for since, until, days in (
            (began - 2 * 1440 * MINUTE, began + 2 * 1440 * MINUTE, expected),
            (began, began + 1440 * MINUTE, {date(2026, 3, 10): 6}),
            (began + 5 * MINUTE, began + 60 * MINUTE, {date(2026, 3, 10): 3}),
        ):
            found = await store.journal.activity(since, until, here)
            assert {day.day: day.relayed for day in found.days} == days
            assert found.relayed == sum(days.values())
        await summed(store)


Told = tuple[int, Kind, str, dict[str, Any]]

RECALLED: list[Told] = [
    (10, Kind.VERDICT, "M1", {"action": "relay", "lists": ["news"], "counts": {"customers": 7}}),
    (11, Kind.OUTCOME, "M1", {"outcome": "recalled", "replies": []}),
    (12, Kind.VERDICT, "M1", {"action": "hold", "rules": ["freeze"], "lists": ["news"], "hold": "M1"}),
    (13, Kind.OUTCOME, "M1", {"outcome": "lost", "part": True, "replies": []}),
    (70, Kind.VERDICT, "M2", {"action": "relay", "lists": [], "counts": {"customers": 0}}),
    (71, Kind.VERDICT, "M2", {"action": "relay", "lists": [], "observed": ["a"], "counts": {"customers": 2}}),
    (72, Kind.OUTCOME, "M2", {"outcome": "recalled", "replies": []}),
    (73, Kind.OUTCOME, "M2", {"outcome": "relayed", "replies": ["250 ok"]}),
    (80, Kind.VERDICT, "M3", {"action": "relay", "lists": ["vip"], "counts": {"customers": 1}}),
    (81, Kind.IN_DOUBT, "M3", {"outcome": "in-doubt", "replies": []}),
    (82, Kind.VERDICT, "M4", {"action": "relay", "lists": ["gone"], "counts": {"customers": 5}}),
    (150, Kind.OUTCOME, "M4", {"outcome": "refused", "replies": ["550 no"]}),
]  # fmt: skip


@pytest.mark.parametrize("counted", [*range(4), 6, 8, 11, len(RECALLED)])
async def test_a_message_counts_once_by_its_last_verdict(store: Store, counted: int) -> None:
    """What a freeze or a new policy recalled, and what the relay refused, did not pass."""
    await record_story(store, RECALLED[:counted])
    await summed(store)
    await record_story(store, RECALLED[counted:])
    for _ in ("not summed", "summed"):
        for begin, end in ((0, 280), (5, 279), (-600, 600)):
            found = await store.journal.activity(T0 + begin * MINUTE, T0 + end * MINUTE, UTC)
            assert (found.messages, found.relayed, found.held, found.customers) == (3, 2, 1, 3)
            assert {each.name: (each.relayed, each.held) for each in found.lists} == {"news": (0, 1), "vip": (1, 0)}
            assert {each.name: (each.held, each.observed) for each in found.rules} == {"freeze": (1, 0), "a": (0, 1)}
        within = await store.journal.activity(T0 + 71 * MINUTE, T0 + 81 * MINUTE, UTC)
        assert (within.relayed, within.customers) == (2, 3)
        passed, _ = await store.journal.verdicts_of(ActivityFilter(did="relayed"), 0, 10)
        assert [entry.id for entry, _ in passed] == ["M3", "M2"]
        await summed(store)


BYPASSED: list[Told] = [
    (10, Kind.VERDICT, "N1", {"action": "relay", "lists": [], "counts": {"customers": 0}}),
    (4000, Kind.BYPASS, "B", {"change": "begun"}),
    (4000, Kind.VERDICT, "N2", {"action": "relay", "lists": [], "bypass": "B", "counts": {"customers": 0}}),
    (4000, Kind.OUTCOME, "N2", {"outcome": "relayed", "replies": ["250 ok"]}),
    (4000, Kind.VERDICT, "N3", {"action": "relay", "lists": [], "bypass": "B", "counts": {"customers": 0}}),
    (4000, Kind.OUTCOME, "N3", {"outcome": "recalled", "replies": []}),
    (4000, Kind.BYPASS, "B", {"change": "adopted", "messages": 2}),
    (4001, Kind.BYPASS, "B", {"change": "ended"}),
    (4010, Kind.VERDICT, "N4", {"action": "relay", "lists": [], "counts": {"customers": 0}}),
]


HAPPENED = {"N2": 90, "N3": 1500}
"""Minute. N3 was recalled, on a day without another message."""


def bypassed(story: list[Told]) -> list[Told]:
    return [
        (minute, kind, id, data | {"happened": microseconds(T0 + HAPPENED[id] * MINUTE)} if id in HAPPENED else data)
        for minute, kind, id, data in story
    ]


@pytest.mark.parametrize("counted", [0, 1, 4, len(BYPASSED)])
async def test_what_a_bypass_relayed_counts_when_it_happened(store: Store, counted: int) -> None:
    """It enters the journal once the store is back: here more than two days later."""
    story = bypassed(BYPASSED)
    await record_story(store, story[:counted])
    await summed(store)
    await record_story(store, story[counted:])
    for _ in ("not summed", "summed"):
        for begin, end, passed in (
            (0, 120, ["N2", "N1"]),
            (60, 120, ["N2"]),
            (89, 91, ["N2"]),
            (91, 4010, []),
            (3990, 4020, ["N4"]),
        ):
            since, until = T0 + begin * MINUTE, T0 + end * MINUTE
            assert (await store.journal.activity(since, until, UTC)).relayed == len(passed), (begin, end)
            found, _ = await store.journal.verdicts_of(ActivityFilter(did="relayed", since=since, until=until), 0, 10)
            assert [entry.id for entry, _ in found] == passed
        days = (await store.journal.activity(T0 - MINUTE, None, UTC)).days
        assert [(day.day, day.relayed) for day in days] == [(T0.date(), 2), ((T0 + 4010 * MINUTE).date(), 1)]
        await summed(store)


async def test_each_look_at_verdicts_is_short_and_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across the stretches between, and those of a bypass."""
    monkeypatch.setattr(journal, "STRETCH", 2)
    monkeypatch.setattr(activityrows, "_LOOKED_THROUGH", 1)
    between = [(300 + n, Kind.VERDICT, f"N{n}", BYPASSED[0][3]) for n in (5, 6)]
    await record_story(store, bypassed([BYPASSED[0], *between, *BYPASSED[1:]]))
    for end, passed in ((120, ["N2", "N1"]), (5000, ["N4", "N2", "N6", "N5", "N1"])):
        about = ActivityFilter(did="relayed", since=T0, until=T0 + end * MINUTE)
        seen, before = await store.journal.verdicts_of(about, 0, 10)
        looks = 1
        while before:
            found, before = await store.journal.verdicts_of(about, before, 10)
            seen, looks = [*seen, *found], looks + 1
        assert ([entry.id for entry, _ in seen], looks > 3) == (passed, True)


async def test_entries_not_summed_yet_are_included(store: Store) -> None:
    await record_story(store, STORY[:5])
    await summed(store)
    await record_story(store, STORY[5:])
    found = await store.journal.activity(T0 - MINUTE, None, ZoneInfo("Europe/Stockholm"))
    assert (found.relayed, found.held, found.deferred, found.rejected, found.uncounted) == (3, 4, 1, 1, 0)
    assert (found.decided.approved, found.decided.rejected, found.waiting) == (1, 1, 1)
    assert {share.name: share.waiting for share in found.rules} == {"a": 0, "b": 1, "no": 0, "watch": 0}


async def test_too_many_entries_not_summed_yet_are_reported(store: Store) -> None:
    await record_story(store)
    before = await store.journal.activity(T0, None, UTC, most=5)
    assert (before.uncounted >= len(STORY), before.messages) == (True, 0)
    await summed(store)
    after = await store.journal.activity(T0, None, UTC, most=5)
    assert (after.uncounted, after.messages) == (0, 9)


async def test_nothing_is_summed_twice(store: Store) -> None:
    await record_story(store)
    found = await store.ask(lambda connection: journal.unread(connection, 0, 1000, 2000))
    assert found is not None
    made = await store.ask(lambda connection: activityrows.sums_after(connection, found, 0))
    assert await store.write(lambda batch: activityrows.write(batch, made)) is True
    assert await store.write(lambda batch: activityrows.write(batch, made)) is False
    assert (await store.journal.activity(T0, None, UTC)).held == 4


async def test_sums_are_trimmed_with_the_journal(store: Store, clock: Any) -> None:
    await record_story(store)
    await summed(store)
    clock.pass_(days=500)
    while (await store.retain(Retention(journal=timedelta(days=400)))).more:
        pass
    left = "SELECT (SELECT count(*) FROM summed) + (SELECT count(*) FROM ended)"
    assert await store.ask(lambda connection: connection.execute(text(left)).scalar()) == 0


FIGURES = [
    (ActivityFilter(did="relayed"), ["P3", "P2", "P1"]),
    (ActivityFilter(did="held"), ["H3", "C2", "H2", "H1"]),
    (ActivityFilter(did="held", rule="b"), ["H3", "C2", "H1"]),
    (ActivityFilter(did="held", list="vip"), ["C2", "H2"]),
    (ActivityFilter(did="relayed", list="news"), ["P1"]),
    (ActivityFilter(did="rejected"), ["R1"]),
    (ActivityFilter(did="observed", rule="watch"), ["D1"]),
    (ActivityFilter(did="held", since=T0 + 75 * MINUTE, until=T0 + 190 * MINUTE), ["C2"]),
    (ActivityFilter(did="nonsense"), []),
]


async def test_messages_behind_a_figure_are_listed(store: Store) -> None:
    await record_story(store)
    for about, ids in FIGURES:
        found, further = await store.journal.verdicts_of(about, 0, 50)
        assert ([entry.id for entry, _ in found], further) == (ids, 0), about
        seen, before = [], 0
        while True:
            some, before = await store.journal.verdicts_of(about, before, 1)
            seen += [entry.id for entry, _ in some]
            if not before:
                break
        assert seen == ids, about


async def test_a_late_message_is_counted_and_listed_by_its_time(store: Store) -> None:
    """The front of a process that died is moved by another one, minutes later."""
    story = [
        (minute, Kind.VERDICT, f"H{n}", {"action": "hold", "hold": f"H{n}"}) for n, minute in enumerate((60, 64, 61))
    ]
    await record_story(store, [*story, (70, Kind.START, "here", {})])
    about = ActivityFilter(did="held", since=T0 + 50 * MINUTE, until=T0 + 63 * MINUTE)
    for _ in ("not summed", "summed"):
        assert about.since is not None
        assert (await store.journal.activity(about.since, about.until, UTC)).held == 2
        found, _ = await store.journal.verdicts_of(about, 0, 10)
        assert [entry.id for entry, _ in found] == ["H2", "H0"]
        await summed(store)
