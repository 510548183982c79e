"""Mailings in the store: found again, each person counted once, on both engines and by several processes; and
forgotten."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.database.batch import Batch
from smtpguard.journal.event import Kind
from smtpguard.lists.persons import Person
from smtpguard.mailings import finder, forgetting, mailingrow
from smtpguard.mailings.finder import MOST, KnownMailing, Memory
from smtpguard.mailings.model import CopyStatus, PeopleCounts
from smtpguard.policy.counted import DAY, Ask
from smtpguard.policy.verdict import Action, Deferred, Verdict
from smtpguard.reading.fingerprint import Identity, Sketch
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import SECRET, Gathered, event, item, on_sqlite, relays

CUSTOMERS = Ask(fact="mailing.customers", key="", window_seconds=DAY)
REACH = Ask(fact="mailing.reach", key="", window_seconds=DAY)
NEWS = Ask(fact="mailing.share", key="news", window_seconds=DAY)
ALL = (CUSTOMERS, REACH, NEWS)
SPRING = Identity(exact="spring")


async def test_every_mailing_is_on_one_page(store: Store, clock: Clock) -> None:
    for n in range(7):
        if n % 3 == 0:
            clock.pass_(seconds=1)
        await admit(store, of(f"T{n}", "a", identity=Identity(exact=f"mailing {n}")))
    whole = [one.mailing_id for one in await store.mailings.newest()]
    assert len(whole) == 7
    found: list[str] = []
    before: tuple[datetime, str] | None = None
    while page := await store.mailings.newest(limit=2, before=before):
        found += [one.mailing_id for one in page]
        before = page[-1].last_at, page[-1].mailing_id
    assert found == whole
    assert before is not None
    assert await store.mailings.newest(before=(before[0], "one that was forgotten meanwhile")) == []


async def test_the_people_of_a_list_count_once_after_it_is_renamed(store: Store) -> None:
    """Their copy was deferred before, and their client sent it again after: nobody waits for one."""
    for n, (name, action) in enumerate((("news", Action.DEFER), ("nyheter", Action.RELAY), ("noticias", Action.DEFER))):
        whole = person(f"list {name} v1", lists=(name,), weight=60, version="v1")
        await admit(store, of(f"T{n}", whole, "a", content="one"), action)
    await store.journal.record([])
    [mailing] = await store.mailings.newest()
    assert mailing.people == PeopleCounts(admitted=61)


def person(name: str, **more: Any) -> Person:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return Person(**{"digest": digest, "customer": True, "lists": ("news",), **more})


def of(id: str, *people: Person | str, identity: Identity = SPRING, content: str = "", **more: Any) -> Item:
    everybody = tuple(p if isinstance(p, Person) else person(p) for p in people)
    sha256 = hashlib.sha256((content or id).encode()).hexdigest()
    return item(id, asks=ALL, identity=identity, everybody=everybody, content_sha256=sha256, **more)


async def admit(store: Store, one: Item, action: Action = Action.RELAY) -> Seen:
    """What the admission saw. It decides ``action``."""
    seen: list[Seen] = []

    def step(live: Seen) -> Admission:
        seen.append(live)
        if action is Action.RELAY:
            return relays(one.id)(live)
        entry = event(Kind.VERDICT, one.id, at=live.now, action=action.word)
        return Admission(verdict=Verdict(action=action), events=(entry,), disposition=Deferred(reply=None))  # type: ignore[arg-type]

    await store.admit(one, step)
    return seen[0]


async def counts(store: Store, one: Item, action: Action = Action.RELAY) -> tuple[int, ...]:
    live = await admit(store, one, action)
    return tuple(live.counts[ask] for ask in ALL)


async def outcome(store: Store, id: str, said: str) -> None:
    store.journal.note(event(Kind.OUTCOME, id, outcome=said))
    await store.journal.record([])


async def the_tally(store: Store) -> PeopleCounts:
    (mailing,) = await store.mailings.newest()
    return mailing.people


@on_sqlite
async def test_each_person_counts_once(store: Store) -> None:
    assert await counts(store, of("T1", "a", "b")) == (2, 2, 2)
    assert await counts(store, of("T2", "b", "c")) == (3, 3, 3)
    colleague = person("colleague", customer=False, lists=())
    assert await counts(store, of("T3", "a", colleague, person("d", lists=()))) == (4, 5, 3)


@on_sqlite
async def test_items_of_one_batch_see_each_other(store: Store) -> None:
    async with Gathered(store):
        tasks = [asyncio.create_task(counts(store, of(f"T{n}", f"p{n}", "shared"))) for n in range(5)]
    assert [c[0] for c in await asyncio.gather(*tasks)] == [2, 3, 4, 5, 6]
    assert len(await store.mailings.newest()) == 1


@on_sqlite
async def test_a_list_counts_as_its_people_at_its_version(store: Store) -> None:
    listed = person("news v1", weight=400_000)
    assert await counts(store, of("T1", "a", listed)) == (400_001,) * 3
    assert await counts(store, of("T2", listed)) == (400_001,) * 3
    assert await counts(store, of("T3", person("news v2", weight=400_000))) == (800_001,) * 3


@on_sqlite
async def test_possible_customers_are_counted_separately(store: Store) -> None:
    unsure = person("a", customer=False, lists=(), doubt=("news",))
    await admit(store, of("T1", unsure))
    live = await admit(store, of("T2", "b"))
    assert (live.counts[CUSTOMERS], live.maybe[CUSTOMERS]) == (1, 1)
    live = await admit(store, of("T3", "a"))
    assert (live.counts[CUSTOMERS], live.maybe[CUSTOMERS]) == (2, 0), "now it is known"


@on_sqlite
async def test_a_possible_customer_is_certain_once_the_list_has_an_index(store: Store) -> None:
    """An uncertain customer is one only as long as the list has no index, and not for a day."""
    for n, name in enumerate("abc"):
        await admit(store, of(f"T{n}", person(name, customer=False, lists=(), doubt=("news",))))
    for n, name in enumerate("ab"):
        live = await admit(store, of(f"U{n}", person(name, customer=False, lists=())))
    assert (live.counts[CUSTOMERS], live.maybe[CUSTOMERS]) == (0, 1)
    [mailing] = await store.mailings.newest()
    assert (mailing.customers, mailing.people.all) == (1, 3)


@on_sqlite
async def test_the_window_slides_and_a_retry_does_not_prolong(store: Store, clock: Clock) -> None:
    await admit(store, of("T1", "a", "b", content="one"))
    clock.pass_(hours=12)
    await admit(store, of("T2", "a", content="one"))
    await admit(store, of("T3", "b", "c", content="another"))
    clock.pass_(hours=12, seconds=1)
    assert await counts(store, of("T4", "d")) == (3, 3, 3), "a's only copy is a day old"


@on_sqlite
async def test_a_clock_that_was_ahead_for_days_stops_no_count(store: Store, clock: Clock) -> None:
    await admit(store, of("T0", "z"))
    clock.pass_(days=3)
    assert await counts(store, of("T1", "a")) == (1, 1, 1), "z's copy is three days old"
    clock.pass_(days=-3)
    for n, name in enumerate("bcd", 3):
        assert await counts(store, of(f"T{n}", name)) == (n, n, n), "z's came just now"
    clock.pass_(days=1, seconds=1)
    assert await counts(store, of("T9", "e")) == (2, 2, 2), "only a's came later"


async def test_a_mailing_that_is_a_day_old_leaves_the_window_unread(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have hundreds of thousands of people, and all mail waits for the writer. A clock that is set back changes nothing."""
    clock.pass_(hours=2)
    await admit(store, of("T1", "a", "b"))
    clock.pass_(hours=-2)
    await admit(store, of("T2", "c"))
    read: list[str] = []
    select = Batch.select

    def noted(batch: Batch, sql: str, values: Sequence[Any] = ()) -> Any:
        read.append(sql)
        return select(batch, sql, values)

    monkeypatch.setattr(Batch, "select", noted)
    clock.pass_(hours=25)
    assert await counts(store, of("T3", "c")) == (3, 3, 3), "c has another copy"
    assert any("SUM" in sql for sql in read)
    read.clear()
    clock.pass_(hours=24)
    assert await counts(store, of("T4", "d", "a")) == (2, 2, 2)
    assert await counts(store, of("T5", "e", "c")) == (4, 4, 4)
    assert not any("SUM" in sql for sql in read)


@on_sqlite
async def test_deferred_copies_are_not_counted_in_the_window(store: Store) -> None:
    assert await counts(store, of("T1", "a", "b"), Action.DEFER) == (2, 2, 2)
    assert await counts(store, of("T2", "c")) == (1, 1, 1)
    assert await the_tally(store) == PeopleCounts(deferred=2, admitted=1)


@on_sqlite
async def test_outcomes_set_the_fates(store: Store) -> None:
    for n, said in enumerate(("relayed", "refused", "lost", "recalled"), 1):
        await admit(store, of(f"T{n}", f"p{n}"))
        await outcome(store, f"T{n}", said)
    await admit(store, of("T9", "p9"))
    assert await the_tally(store) == PeopleCounts(relayed=1, refused=1, deferred=2, admitted=1)
    statuses = await store.mailings.reached_by(
        (await store.mailings.newest())[0].mailing_id, [person(f"p{n}").digest for n in (1, 2, 3, 9, 8)]
    )
    assert sorted(statuses.values()) == [
        CopyStatus.DEFERRED,
        CopyStatus.REFUSED,
        CopyStatus.ADMITTED,
        CopyStatus.RELAYED,
    ]


async def test_processes_count_together(store: Store, url: str, tmp_path: Path, clock: Clock) -> None:
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as other:
        for n in range(20):
            assert (await counts((store, other)[n % 2], of(f"T{n}", f"p{n}")))[0] == n + 1


def sketch(rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(1 << 32), 64))


def near(numbers: Sequence[int], rng: random.Random) -> Sketch:
    """The sketch of a personalised copy: a few of its numbers differ."""
    kept = rng.sample(list(numbers), 58)
    return Sketch.of(sorted({*kept, *rng.sample(range(1 << 32), 6)}))


@on_sqlite
async def test_personalised_copies_are_recognized(store: Store, url: str, tmp_path: Path, clock: Clock) -> None:
    """Personalised copies of many mailings, sent in turn, are found again, also by a process with an empty cache."""
    rng = random.Random(5)
    mailings = [sketch(rng) for _ in range(12)]
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as other:
        for n in range(96):
            one = of(f"T{n}", f"p{n}", identity=Identity(sketch=near(mailings[n % 12], rng)))
            assert (await counts((store, other)[n % 5 == 0], one))[0] == n // 12 + 1
            other._writer._memory = Memory()
    assert len(await store.mailings.newest()) == 12


@on_sqlite
async def test_a_campaign_and_a_text_join_one_mailing(store: Store) -> None:
    rng = random.Random(6)
    text = Sketch.of(sketch(rng))
    await admit(store, of("T1", "a", identity=Identity(exact="c", sketch=text)))
    assert await counts(store, of("T2", "b", identity=Identity(sketch=text))) == (2, 2, 2)
    assert await counts(store, of("T3", "c", identity=Identity(exact="c"))) == (3, 3, 3)
    assert await counts(store, of("T4", "d", identity=Identity(exact="other"))) == (1, 1, 1)
    store._writer._memory = Memory()
    assert await counts(store, of("T5", "e", identity=Identity(exact="other", also=("c",)))) == (4, 4, 4), "the first"


@on_sqlite
async def test_a_too_common_key_is_ignored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "CROWDED", 3)
    rng = random.Random(7)
    common = (1, 2)
    for n in range(9):
        numbers = [*common, *sketch(rng)[2:]]
        assert await counts(store, of(f"T{n}", f"p{n}", identity=Identity(sketch=Sketch.of(numbers)))) == (1, 1, 1)
        assert await counts(store, of(f"U{n}", f"q{n}", identity=Identity(sketch=Sketch.of(numbers)))) == (2, 2, 2)
    rows: list[Any] = []
    await store._writer.submit(lambda b: rows.extend(b.select("SELECT n FROM mailing_key WHERE key = 1")))
    assert len(rows) == 3


@on_sqlite
async def test_a_copy_is_found_behind_many_texts_with_the_same_keys(store: Store, clock: Clock) -> None:
    """As letters with one long footer. Another process, and what comes back, find the newest mailing among them."""
    rng = random.Random(7)
    for n in range(finder._MOST_CANDIDATES + 8):
        text = Sketch.of([*range(1, 9), *sketch(rng)[8:]])
        await counts(store, of(f"T{n}", f"p{n}", identity=Identity(sketch=text)))
    store._writer._memory = Memory()
    assert await store.mailings.like(text, clock.now() - timedelta(days=30))
    assert await counts(store, of("T", "p", identity=Identity(sketch=text))) == (2, 2, 2)


async def test_a_key_that_nearly_all_letters_have_keeps_no_more_mailings_than_are_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "CROWDED", 3)
    rng = random.Random(7)
    for n in range(9):
        text = Sketch.of([*range(1, 9), *sketch(rng)[8:]])
        assert await counts(store, of(f"T{n}", f"p{n}", identity=Identity(sketch=text))) == (1, 1, 1)
        store._writer._memory = Memory()
        assert await counts(store, of(f"U{n}", f"q{n}", identity=Identity(sketch=text))) == (2, 2, 2)
    rows: list[Any] = []
    await store._writer.submit(lambda b: rows.extend(b.select("SELECT n FROM mailing_key WHERE key = 1")))
    assert len(rows) == 3 + 1


async def test_a_failed_admission_leaves_no_mailing(store: Store) -> None:
    def fails(live: Seen) -> Admission:
        assert live.mailing is not None
        raise ValueError

    with pytest.raises(ValueError):
        await store.admit(of("T1", "a"), fails)
    assert await store.mailings.newest() == []
    assert await counts(store, of("T2", "b")) == (1, 1, 1)


@on_sqlite
async def test_lists_beyond_the_bits_of_a_kind_count_too_many(store: Store) -> None:
    people = [person(f"p{n}", lists=(f"list{n}",)) for n in range(80)]
    asks = tuple(Ask(fact="mailing.share", key=f"list{n}", window_seconds=DAY) for n in range(80))
    await admit(store, of("T1", *people))
    live = await admit(store, item("T2", asks=asks, identity=SPRING, everybody=(person("x", lists=()),)))
    assert all(live.counts[asks[n]] == 1 for n in range(59))
    assert all(live.counts[asks[n]] == 21 for n in range(59, 80)), "too many, never too few"


def test_the_cache_is_bounded_and_drops_the_oldest() -> None:
    memory = Memory()
    for n in range(MOST + 10):
        memory.add(KnownMailing(n=n, mailing_id=str(n), exact=(n, n + 1), sketch=Sketch()))
    assert memory.find((5,), Sketch()) is None
    assert (found := memory.find((MOST,), Sketch())) is not None
    assert found.n in (MOST - 1, MOST)
    for n in range(MOST + 10):
        memory.forget(n)
    assert memory._by_key == {}


@on_sqlite
async def test_one_common_name_joins_two_mailings(store: Store) -> None:
    """Copies with any search key in common are one mailing: a header field that numbers each copy does not separate
    them."""
    for n, id in enumerate(("T1", "T2", "T3"), start=1):
        one = of(id, id, identity=Identity(exact=f"x-campaign {n}", also=("news.example.com spring",)))
        assert await counts(store, one) == (n, n, n)
    assert await counts(store, of("T4", "d", identity=Identity(exact="x-campaign 9"))) == (1, 1, 1)


@on_sqlite
async def test_a_file_common_to_many_texts_joins_no_mailing(store: Store) -> None:
    def with_file(n: int) -> Item:
        return of(f"T{n}", f"p{n}", identity=Identity(exact="files f", instead=f"text {n}", beside=n))

    for n in range(1, 10):
        assert await counts(store, with_file(n)) == (n, n, n)
    for n in range(10, 14):
        assert await counts(store, with_file(n)) == (1, 1, 1)
    same = of("T20", "p20", identity=Identity(exact="files f", instead="text 13", beside=13))
    assert await counts(store, same) == (2, 2, 2)


def test_a_single_name_of_an_earlier_version_is_read() -> None:
    assert (mailingrow._exact(5), mailingrow._exact(None), mailingrow._exact([5, 6])) == ((5,), (), (5, 6))


# forgetting


@on_sqlite
async def test_a_mailing_ends_after_a_long_pause(store: Store, clock: Clock) -> None:
    """A mailing that was quiet for long is over, also for a process that has it in its cache, and before retention has
    run."""
    for id in ("T1", "T2", "T3"):
        await admit(store, of(id, id))
    clock.pass_(days=15)
    assert await counts(store, of("T4", "d")) == (1, 1, 1)
    assert await counts(store, of("T5", "e")) == (2, 2, 2)
    assert len(await store.mailings.newest()) == 2


@on_sqlite
async def test_people_stay_counted_after_the_window(store: Store, clock: Clock) -> None:
    """``mailing.ever`` counts each person once, over mail to a few people each working day, two weekends and a week."""
    ever = Ask(fact="mailing.ever", key="", window_seconds=30 * DAY)
    keep = Retention(addresses=timedelta(days=90))
    said = []
    for day, people in enumerate(("ab", "bc", "cd", "de")):
        live = await admit(store, replace(of(f"T{day}", *people), asks=(CUSTOMERS, ever)))
        said.append((live.counts[CUSTOMERS], live.counts[ever]))
        clock.pass_(days=3 if day < 2 else 7)
        await store.journal.record([event(Kind.EXPORTED, f"E{day}")])
        await store.retain(keep)
    assert said == [(2, 2), (2, 3), (2, 4), (2, 5)]


async def test_letters_are_forgotten_first_and_the_rest_with_addresses(store: Store, clock: Clock) -> None:
    keep = Retention(addresses=timedelta(days=90))
    many = [f"p{n}" for n in range(forgetting.FEW)]
    await admit(store, of("T1", "a", identity=Identity(exact="letter")))
    await admit(store, of("T2", *many, identity=Identity(exact="mailing")))
    clock.pass_(days=3)
    await admit(store, of("T3", "a", identity=Identity(exact="newest")))
    assert (await store.retain(keep)).mailings == 1
    assert {m.messages for m in await store.mailings.newest()} == {1}
    assert len(await store.mailings.newest()) == 2
    clock.pass_(days=15)
    await admit(store, of("T4", "a", identity=Identity(exact="newest of all")))
    await store.retain(keep)
    assert await counts(store, of("T5", "z", identity=Identity(exact="mailing"))) == (1, 1, 1), "it was over"
    [old] = [m for m in await store.mailings.newest() if m.people.all == forgetting.FEW]
    assert len(await store.mailings.reached_by(old.mailing_id, [person(p).digest for p in many])) == forgetting.FEW
    last = (await store.mailings.newest())[0]
    clock.pass_(days=91)
    await store.retain(keep)
    assert await store.mailings.find(old.mailing_id) is None
    assert await store.mailings.reached_by(old.mailing_id, [person(p).digest for p in many]) == {}
    assert (await store.journal.verify()).ok
    assert await store.mailings.newest() == []
    newest = await store.mailings.find(last.mailing_id)
    assert newest is not None
    assert (newest.subject, newest.sender, newest.lists, newest.people.all) == ("", "", (), 0)
    assert await store.mailings.reached_by(newest.mailing_id, [person(p).digest for p in "az"]) == {}
    assert (await store.retain(keep)).mailings == 0, "once"
    assert await counts(store, of("T6", "z", identity=Identity(exact="mailing"))) == (1, 1, 1)
    assert len(await store.mailings.newest()) == 1


# compared with a model


async def test_counts_agree_with_a_model(store: Store, url: str, tmp_path: Path, clock: Clock) -> None:
    """Counts agree with a model that counts from scratch, for random people, lists, retries, times, verdicts and
    outcomes."""
    rng = random.Random(11)
    seen: dict[str, dict[str, tuple[Any, str]]] = {}  # mailing -> person -> (newest time, content)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as other:
        for n in range(150 if url.startswith("sqlite") else 60):
            clock.pass_(minutes=rng.choice([0, 0, 1, 60, 500]))
            mailing, content = rng.choice("xy"), f"c{rng.randrange(12)}"
            names = rng.sample("abcdefgh", rng.randrange(1, 5))
            action = rng.choice([Action.RELAY, Action.RELAY, Action.DEFER])
            people = seen.setdefault(mailing, {})
            floor = clock.now() - timedelta(days=1)
            within = {p for p, (at, _) in people.items() if at is not None and at > floor}
            one = of(f"T{n}", *names, identity=Identity(exact=mailing), content=content)
            got = await counts(rng.choice([store, other]), one, action)
            assert got[0] == len(within | set(names)), n
            for name in names:
                at, last = people.get(name, (None, ""))
                retry = last == content and name in within
                people[name] = (clock.now() if action is Action.RELAY and not retry else at, content)
    assert sorted(m.customers for m in await store.mailings.newest()) == sorted(len(p) for p in seen.values())
