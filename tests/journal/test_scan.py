"""Long reads beside mail: they block nothing, and changes during the read are neither missed nor taken for tampering."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from smtpguard.database import engine as database
from smtpguard.database.batch import Batch
from smtpguard.database.errors import Unavailable
from smtpguard.incidents import rows as incident
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Findings
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import NO_COLUMNS
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.proof import Bad, Proof
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.journal.test_rows import filled, tamper
from tests.store.making import SECRET, event, on_sqlite

SHORT = Retention(journal=timedelta(days=400), addresses=timedelta(days=90))
NEWS = IncidentQuery(lists=frozenset({"news"}))


def positions(name: str, positions: Iterable[int], of_postgresql: Iterable[int]) -> pytest.MarkDecorator:
    """Every position of a walk with SQLite, some with PostgreSQL: the walk is the same, its statements are not."""
    cases = [*(("sqlite", n) for n in positions), *(("postgresql", n) for n in of_postgresql)]
    return pytest.mark.parametrize(("url", name), cases, indirect=["url"])


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "STRETCH", 4)
    monkeypatch.setattr(incident, "_MANY", 2)


class Between:
    """After each transaction of a long read, ``then`` is awaited with the number of transactions so far."""

    def __init__(self, store: Store, then: Callable[[int], Awaitable[object]]) -> None:
        self._store, self._then = store, then
        self._open, self._loop = store._open, asyncio.get_running_loop()
        self.transactions = 0

    @contextmanager
    def _opened(self) -> Iterator[Connection]:
        with self._open() as connection:
            yield connection
        self.transactions += 1
        asyncio.run_coroutine_threadsafe(self._happens(self.transactions), self._loop).result(120)

    async def _happens(self, n: int) -> None:
        await self._then(n)

    def __enter__(self) -> Between:
        self._store._open = self._opened  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        self._store._open = self._open  # type: ignore[method-assign]


def once(at: int, do: Callable[[], Awaitable[object]]) -> Callable[[int], Awaitable[object]]:
    async def then(n: int) -> None:
        if n == at:
            await do()

    return then


async def verified(store: Store, then: Callable[[int], Awaitable[object]]) -> Proof:
    with Between(store, then):
        return await store.journal.verify()


async def retained(store: Store) -> None:
    while (await store.retain(SHORT)).more:
        pass


# -- blocking nothing


async def test_sqlites_log_restarts_during_a_walk(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk does not keep SQLite from restarting the write-ahead log, although mail writes more than its limit after
    each stretch."""
    monkeypatch.setattr(database, "_LONG_PAGES", 100)
    log, sizes = tmp_path / "guard.db-wal", []
    url = f"sqlite:///{tmp_path}/guard.db"
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        written_back = store._database._write_back
        assert written_back is not None
        await store.journal.record([event(Kind.OUTCOME, f"T{n}") for n in range(60)])

        async def mail(n: int) -> None:
            for m in range(4):
                await store.journal.record([event(Kind.OUTCOME, f"T{n}-{m}", said="x" * 100_000)])
            await asyncio.to_thread(written_back.run)
            sizes.append(log.stat().st_size)

        for walked in (store.journal.verify, lambda: store.journal.incident(IncidentQuery(since=0), prove=True)):
            before = await store.journal.last()
            with Between(store, mail) as between:
                await walked()
            assert between.transactions > 15
            assert await store.journal.last() == before + 4 * between.transactions
        assert max(sizes) < 4 * 100 * 4096


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_no_transaction_is_open_between_stretches(store: Store) -> None:
    """No transaction is open between two stretches: PostgreSQL cannot vacuum what one may still see."""
    await filled(store, 20)
    seen: list[Any] = []

    async def look(_: int) -> None:
        query = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL"
        seen.append(await store.ask(lambda c: c.exec_driver_sql(query).scalars().all()))

    with Between(store, look):
        await store.journal.incident(IncidentQuery(since=0), prove=True)
    assert len(seen) > 10
    assert all(states == ["active"] for states in seen), "only the connection that looks"


async def test_a_walk_ends_when_the_store_is_closed(url: str, tmp_path: Path, clock: Clock) -> None:
    """A walk ends when the store is closed, so a process that is told to stop does not wait for it."""
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        await store.journal.record([event(Kind.OUTCOME, f"T{n}") for n in range(20)])

        async def close() -> None:
            asyncio.get_running_loop().call_soon(lambda: closing.append(asyncio.ensure_future(store.close())))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        closing: list[asyncio.Future[None]] = []
        with Between(store, once(3, close)) as between, pytest.raises(Unavailable, match="closed"):
            await store.journal.verify()
        assert between.transactions == 3
        await closing[0]


# -- mail and retention meanwhile


@on_sqlite
async def test_entries_written_meanwhile_are_not_checked(store: Store) -> None:
    await filled(store, 20)
    n = await store.journal.last()
    proof = await verified(store, lambda _: filled(store, 3))
    assert proof == Proof(entries=n, filed=False)
    assert await store.journal.last() > n + 15


@on_sqlite
async def test_names_erased_meanwhile_are_not_missing(store: Store, clock: Clock) -> None:
    await filled(store, 20)
    clock.pass_(days=91)
    await store.journal.record([event(Kind.START, "here")])
    n = await store.journal.last()
    proof = await verified(store, once(5, lambda: retained(store)))
    assert proof.first_bad is None
    assert proof.entries == n + 1, "with the entry of the erasure, which counts only within the chain"


@on_sqlite
async def test_repeated_erasure_meanwhile_is_no_tampering(store: Store, clock: Clock) -> None:
    for _ in range(8):
        await filled(store, 5)
        clock.pass_(days=1)

    async def another_day(n: int) -> None:
        clock.pass_(days=11)
        await retained(store)

    assert (await verified(store, another_day)).first_bad is None


@on_sqlite
async def test_a_forged_erasure_entry_is_found(store: Store) -> None:
    """A forged entry that claims an erasure is found, although it comes after the end of the walk."""
    await filled(store, 20)

    async def forge() -> None:
        def insert(batch: Batch) -> None:
            body = '{"data":{"private_through":15},"private":{}}'
            seq = batch.head.seq + 1
            batch.rows("entry").append((seq, 1, Kind.ERASED.value, str(seq), body, bytes(32), bytes(32), *NO_COLUMNS))
            batch.connection.exec_driver_sql("DELETE FROM clear WHERE seq = 15")
            batch.head.seq += 1

        await store._writer.submit(insert)

    found = (await verified(store, once(3, forge))).first_bad
    assert found is not None
    assert (found.seq, found.problem.split(":")[0]) == (22, "inserted")


@positions("at", [1, 2, 3, 4, 6], [1, 4])
async def test_a_trim_during_the_walk_is_no_tampering(store: Store, clock: Clock, at: int) -> None:
    await filled(store, 20)
    clock.pass_(days=401)
    await filled(store, 10)
    n = await store.journal.last()
    proof = await verified(store, once(at, lambda: retained(store)))
    assert proof.first_bad is None
    assert proof.entries <= n
    assert (await store.journal.entries(limit=1))[0][0].seq == 22
    assert (await store.journal.verify()).ok


@on_sqlite
async def test_a_trim_of_all_remaining_entries_is_no_tampering(store: Store, clock: Clock) -> None:
    await filled(store, 12)

    async def years() -> None:
        clock.pass_(days=401)
        await filled(store, 2)
        await retained(store)

    assert await verified(store, once(4, years)) == Proof(entries=4, filed=False)


async def test_deletions_during_a_trim_are_found(store: Store, clock: Clock) -> None:
    await filled(store, 20)
    clock.pass_(days=401)
    await filled(store, 10)

    async def both() -> None:
        await retained(store)
        await tamper(store, "DELETE FROM entry WHERE seq BETWEEN 25 AND 26")

    found = (await verified(store, once(3, both))).first_bad
    assert found == Bad(seq=25, problem="missing: entries 25 to 26 are gone")


async def test_a_deletion_up_to_a_checkpoint_is_found(store: Store) -> None:
    await filled(store, 20)
    await store.journal.checkpoint()
    await filled(store, 10)
    found = (await verified(store, once(3, lambda: tamper(store, "DELETE FROM entry WHERE seq <= 21")))).first_bad
    assert found is not None
    assert found.problem.startswith("missing")


async def test_a_forged_base_excuses_nothing(store: Store, clock: Clock) -> None:
    await filled(store, 20)
    clock.pass_(days=401)
    await filled(store, 10)

    async def forge() -> None:
        await retained(store)
        await tamper(store, """UPDATE checkpoint SET line = replace(line, '"at"', '"to"')""")

    found = (await verified(store, once(3, forge))).first_bad
    assert found is not None
    assert found.problem.startswith("missing")


@pytest.mark.parametrize(("seq", "seen"), [(2, False), (19, True)])
async def test_an_edit_behind_the_walk_is_found_by_the_next(store: Store, seq: int, seen: bool) -> None:
    await filled(store, 20)
    edit = f"UPDATE entry SET body = replace(body, 'relay', 'hold') WHERE seq = {seq}"
    proof = await verified(store, once(4, lambda: tamper(store, edit)))
    assert proof.ok is not seen
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert found.seq == seq


async def test_a_tail_cut_during_the_walk_is_found(store: Store) -> None:
    await filled(store, 20)

    async def cut() -> None:
        await tamper(store, "DELETE FROM entry WHERE seq > 15", "UPDATE head SET seq = 15")

    found = (await verified(store, once(4, cut))).first_bad
    assert found == Bad(seq=16, problem="the tail is cut: the journal had entries up to 21")


@pytest.mark.parametrize("doc", ["rubbish", "[1]", '{"from": 7}'])
async def test_invalid_clear_values_are_found(store: Store, doc: str) -> None:
    await filled(store, 6)
    await tamper(store, f"UPDATE clear SET doc = '{doc}' WHERE seq = 3")
    assert (await store.journal.verify()).first_bad == Bad(
        seq=3, problem="edited: private values do not fit their digests"
    )


async def test_an_invalid_erasure_entry_excuses_nothing(store: Store) -> None:
    await filled(store, 6)
    await store.journal.record([Event(kind=Kind.ERASED, id="x", at=store.now())])
    await tamper(store, "UPDATE entry SET body = 'x' WHERE seq = 8", "DELETE FROM clear WHERE seq = 5")
    found = (await store.journal.verify()).first_bad
    assert found == Bad(seq=5, problem="private values are missing")


# -- a report


async def of_news(store: Store, n: int = 12) -> None:
    for m in range(n):
        data = {"action": "relay", "lists": ["news"] if m % 2 else ["ads"], "policy": "P"}
        private = {"from": ("anna@example.com",), "subject": (f"lunch {m}",)}
        await store.journal.record([Event(kind=Kind.VERDICT, id=f"T{m}", at=store.now(), data=data, private=private)])
        await store.journal.record([event(Kind.OUTCOME, f"T{m}", at=store.now(), outcome="relayed")])


async def reported(store: Store, then: Callable[[int], Awaitable[object]], *, prove: bool = True) -> Findings:
    with Between(store, then):
        return await store.journal.incident(NEWS, prove=prove)


@pytest.mark.parametrize("prove", [True, False])
async def test_a_report_describes_one_moment(store: Store, prove: bool) -> None:
    """A report is of one moment: an outcome after it is not in it, and no verdict is without an outcome that came
    before."""
    await of_news(store)
    n = await store.journal.last()
    found = await reported(store, lambda _: of_news(store, 2), prove=prove)
    assert found.report is not None
    assert (found.report.messages, found.seq, found.report.unsettled) == (6, n, [])
    assert max(step.entry.seq for step in found.report.steps) <= n
    assert (found.proof == Proof(entries=n, filed=False)) is prove
    assert await store.journal.last() > n + 20


@on_sqlite
async def test_an_outcome_after_that_moment_is_not_included(store: Store) -> None:
    await of_news(store, 4)
    verdict = Event(kind=Kind.VERDICT, id="late", at=store.now(), data={"action": "relay", "lists": ["news"]})
    await store.journal.record([verdict])
    told = once(2, lambda: store.journal.record([event(Kind.OUTCOME, "late", outcome="relayed")]))
    found = await reported(store, told)
    assert found.report is not None
    assert list(found.report.unsettled) == ["late"]


@positions("at", range(1, 16, 2), [7])
async def test_names_erased_during_a_report_are_not_missing(store: Store, clock: Clock, at: int) -> None:
    await of_news(store)
    clock.pass_(days=91)
    await store.journal.record([event(Kind.START, "here")])
    found = await reported(store, once(at, lambda: retained(store)))
    assert found.report is not None
    assert found.report.messages == 6
    assert found.proof is not None
    assert found.proof.first_bad is None


@pytest.mark.parametrize(
    ("url", "at", "prove"),
    [
        *(("sqlite", n, True) for n in range(1, 16)),
        *(("sqlite", n, False) for n in (1, 4, 7)),
        *(("postgresql", n, prove) for n, prove in ((1, False), (1, True), (9, True))),
    ],
    indirect=["url"],
)
async def test_entries_trimmed_during_a_report_are_not_included(
    store: Store, clock: Clock, at: int, prove: bool
) -> None:
    """If a verdict or outcome is trimmed meanwhile, the report is made again. Entries trimmed behind the walk are
    proved."""
    await of_news(store)
    clock.pass_(days=401)
    await of_news(store, 4)
    found = await reported(store, once(at, lambda: retained(store)), prove=prove)
    assert found.report is not None
    assert found.report.messages in (2, 8)
    assert found.report.unsettled == []
    assert (found.proof is not None) is prove
    assert found.proof is None or found.proof.first_bad is None


@positions("later", [0, 1, 2, 3], [2])
async def test_entries_trimmed_between_report_and_walk_are_not_included(store: Store, clock: Clock, later: int) -> None:
    await of_news(store)
    clock.pass_(days=401)
    await of_news(store, 4)
    transactions: list[int] = []

    async def count(n: int) -> None:
        transactions.append(n)

    await reported(store, count, prove=False)
    found = await reported(store, once(len(transactions) + later, lambda: retained(store)))
    assert found.report is not None
    assert found.proof is not None
    assert found.proof.first_bad is None
    assert (found.report.messages, found.proof.entries) == (2, 9)


@on_sqlite
async def test_a_report_that_retention_always_overtakes_is_given_up(store: Store, clock: Clock) -> None:
    await of_news(store)

    async def always(_: int) -> None:
        clock.pass_(days=401)
        await of_news(store, 2)
        await retained(store)

    with pytest.raises(Unavailable, match="retention is trimming"):
        await reported(store, always)


@pytest.mark.parametrize(
    ("edit", "back", "problem"),
    [
        ("UPDATE entry SET body = replace(body, 'news', 'nows') WHERE seq = {}", None, "edited: the entry does"),
        (
            "UPDATE clear SET doc = replace(doc, 'anna', 'otto') WHERE seq = {}",
            "UPDATE clear SET doc = replace(doc, 'otto', 'anna') WHERE seq = {}",
            "edited: private values",
        ),
        (
            "UPDATE entry SET id = 'T1' WHERE seq = {0}",
            "UPDATE entry SET id = 'T3' WHERE seq = {0}",
            "edited: the entry does not fit its hash",
        ),
    ],
)
async def test_a_report_is_proved_with_the_entries_it_used(
    store: Store, edit: str, back: str | None, problem: str
) -> None:
    """The proof covers the entries that the report used: an edit before the report is found, even if it is undone
    before the walk."""
    await of_news(store)
    seq = next(e.seq for e, _ in await store.journal.entries() if e.id == "T3" and e.kind == "verdict")
    await tamper(store, edit.format(seq))
    transactions = []

    async def restore(n: int) -> None:
        transactions.append(n)
        if back is not None and n == at:
            await tamper(store, back.format(seq))

    at = 0
    await reported(store, restore, prove=False)
    at = len(transactions)  # the reads of the report, before the walk
    found = await reported(store, restore)
    assert found.report is not None
    assert found.proof is not None
    assert found.proof.first_bad is not None
    assert (found.proof.first_bad.seq, found.proof.first_bad.problem[: len(problem)]) == (seq, problem)
    assert back is None or (await store.journal.verify()).ok


async def test_a_time_is_found_despite_missing_entries(store: Store, clock: Clock) -> None:
    for _ in range(5):
        await of_news(store, 2)
        clock.pass_(hours=1)
    await tamper(store, "DELETE FROM entry WHERE seq IN (5, 6, 7, 11, 12, 13)")
    since = clock.now() - timedelta(hours=4)
    found = await store.journal.incident(
        IncidentQuery(since=int(since.timestamp() * 1e6), lists=NEWS.lists), prove=True
    )
    assert found.report is not None
    assert found.report.first >= since
    assert found.proof is not None
    assert found.proof.first_bad == Bad(seq=5, problem="missing: entries 5 to 7 are gone")


# -- shorter reads


async def test_rejected_messages_are_found_across_stretches(store: Store, clock: Clock) -> None:
    for n in range(30):
        data = {"action": "reject" if n % 3 == 0 else "relay"}
        await store.journal.record([Event(kind=Kind.VERDICT, id=f"T{n}", at=clock.now(), data=data)])
        clock.pass_(minutes=1)
    ids = [e.id for e in await store.journal.rejected("T3", clock.now() - timedelta(minutes=5), 100)]
    assert ids == [f"T{n}" for n in range(3, 25, 3)]
    assert [e.id for e in await store.journal.rejected("T3", clock.now(), 4)] == ["T3", "T6", "T9", "T12"]
    assert await store.journal.rejected("nobody", clock.now(), 4) == []


def test_a_sqlite_reader_keeps_the_log_from_restarting(tmp_path: Path) -> None:
    """The premise of the first test: a reader of an old snapshot keeps SQLite from restarting the log."""
    writer, reader = (sqlite3.connect(tmp_path / "x.db", isolation_level=None) for _ in range(2))
    writer.executescript("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=50; CREATE TABLE t (x)")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    for _ in range(20):
        writer.execute("INSERT INTO t VALUES (zeroblob(100000))")
    grown = (tmp_path / "x.db-wal").stat().st_size
    assert grown > 4 * 50 * 4096
    for connection in (writer, reader):
        connection.close()
