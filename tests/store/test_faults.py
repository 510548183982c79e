"""Faults: kill -9, two processes at once, a full disk, a database that is lost or hangs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import (
    AdminShutdown,
    DiskFull,
    InsufficientPrivilege,
    LockNotAvailable,
    OperationalError,
    QueryCanceled,
    ReadOnlySqlTransaction,
    SerializationFailure,
    TooManyConnections,
    UndefinedTable,
)
from sqlalchemy import create_engine, delete, insert, make_url

from smtpguard.database import schema
from smtpguard.database.batch import Batch
from smtpguard.database.engine import Database
from smtpguard.database.errors import Full, StoreError, Unavailable, Unusable
from smtpguard.database.migrate import migrate
from smtpguard.database.statements import rows_of
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Outcome
from smtpguard.store import queue
from smtpguard.store.store import open_store
from tests import program
from tests.clocks import Clock
from tests.peers.chain import PATIENCE
from tests.store.making import POLICY, SECRET, a_hold, event, holds, item, relays
from tests.store.servers import a_server

ROOT = Path(__file__).parent.parent.parent


async def child(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    given = list(map(str, words))
    return await asyncio.to_thread(program.run, given, timeout=PATIENCE, module="tests.store.child", **more)


def lines(text: str, key: str) -> list[Any]:
    return [row[key] for row in map(json.loads, text.splitlines()) if key in row]


# Each hold takes two commits: the hold, and its acknowledgement.
@pytest.mark.parametrize("when", ["before-commit", "after-commit"])
@pytest.mark.parametrize("point", ["acknowledgement <H0>", "admission <H1>", "acknowledgement <H1>", "admission <H2>"])
async def test_killed_around_a_commit_nothing_acknowledged_is_lost(
    url: str, tmp_path: Path, clock: Clock, when: str, point: str
) -> None:
    migrate(url)
    armed = tmp_path / "armed"
    armed.mkdir()
    (armed / "point").write_text(f"{when} {point}")
    killed = await child(url, tmp_path, "hold", "H", 4, env={**os.environ, "SMTPGUARD_FAILPOINT": str(armed)})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    answered = lines(killed.stdout, "answered")
    assert answered == [f"H{n}" for n in range(int(point[-2]))]
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as store:
        assert (await store.journal.verify()).ok
        there = {h.hold_id: h for h in await store.holds.newest()}
        assert set(answered) <= set(there)
        assert all(there[id].acknowledged for id in answered)
        left = set(there) - set(answered)
        assert len(left) == (
            1 if "ack" in point or when == "after-commit" else 0
        )  # written, perhaps acknowledged, but the process was killed before the answer
        # the client sends again, and adopts the same hold
        for id in left:
            await store.admit(item(f"R{id}", of=id), holds(a_hold(f"R{id}")))
        assert {h.hold_id for h in await store.holds.newest() if h.acknowledged} == set(there)
        clock.pass_(days=10_000)  # the child uses the real clock
        leases = await store.outbox.lease("me", 100, 60)
        assert sorted(lease.intent.intent_id for lease in leases) == sorted(f"N{id}" for id in there)


async def test_two_processes_share_one_chain(url: str, tmp_path: Path, clock: Clock) -> None:
    migrate(url)
    n = 160
    said = await asyncio.gather(*(child(url, tmp_path, "count", name, n) for name in ("A", "B")))
    assert [one.returncode for one in said] == [0, 0], said
    counts = [lines(one.stdout, "count") for one in said]
    assert sorted(counts[0] + counts[1]) == list(range(1, 2 * n + 1))
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as store:
        proof = await store.journal.verify()
        assert proof.ok
        assert proof.entries >= 2 * n + 1


def test_a_full_disk_is_reported_and_recovers(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=3m none {disk} && head -c 1000000 /dev/zero > {disk}/ballast && "
        f"exec {sys.executable} -m tests.store.child sqlite:///{disk}/guard.db {disk} fill {disk} 0"
    )
    ran = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False
    )
    if ran.returncode and ("unshare" in ran.stderr or "mount" in ran.stderr):
        pytest.skip(f"no disk of one's own to fill: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    assert lines(ran.stdout, "full") == [f"no space left for {disk}/guard.db. Make room on its disk"]
    assert lines(ran.stdout, "proof") == [True]
    answered = lines(ran.stdout, "answered")
    assert answered[-1] == "after"
    assert len(answered) > 3
    assert set(answered[:-1]) <= set(lines(ran.stdout, "there"))


@pytest.mark.parametrize(
    ("number", "why"),
    [(errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "Disk quota exceeded"), (errno.EIO, "")],
)
def test_no_inode_and_no_quota_are_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    """SQLite cannot open or write its files, and does not say why. A start is tried again."""

    def refused(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    database = Database(f"sqlite:///{tmp_path}/guard.db")
    with pytest.raises(sqlite3.OperationalError) as raised:
        sqlite3.connect(tmp_path)
    monkeypatch.setattr("smtpguard.config.statefiles.tempfile.TemporaryFile", refused)
    found = database.translate(raised.value)
    database.close()
    assert (type(found), str(found)) == (
        (Full, f"no space left for {database.path}: {why}. Make room on its disk")
        if why
        else (
            Unusable,
            f"{database.path} cannot be opened (SQLITE_CANTOPEN). Look whether it is there, and whose it is",
        )
    )


@pytest.fixture
def server() -> Iterator[Any]:
    """A PostgreSQL server that the test may stop."""
    with a_server() as running:
        yield running


def kill(server: Any) -> None:
    """Kill at once, as in a power cut, and wait until the process is gone."""
    watch = os.pidfd_open(server.get_pid())
    try:
        os.kill(server.get_pid(), signal.SIGQUIT)
        assert select.select([watch], [], [], PATIENCE)[0]
    finally:
        os.close(watch)


async def test_a_killed_database_comes_back(server: Any, tmp_path: Path, clock: Clock) -> None:
    url = server.get_uri()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        await store.admit(item("T1"), relays("T1"))
        with psycopg.connect(url, autocommit=True) as connection:
            ended = (
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
            connection.execute(f"{ended} AND pid <> pg_backend_pid()")
        await store.admit(item("T2"), relays("T2"))  # on a new connection

        await asyncio.to_thread(kill, server)
        for n in range(3):
            with pytest.raises(Unavailable):
                await store.admit(item(f"D{n}"), relays(f"D{n}"))
        with pytest.raises(Unavailable):
            await store.gate.read()
        store.journal.note(event(Kind.OUTCOME, "T1", outcome="relayed"))

        await asyncio.to_thread(server.ensure_postgres_running)
        await store.admit(item("T4"), relays("T4"))
        assert await store.journal.outcomes(["T1"]) == {"T1": Outcome.DELIVERED}
        assert (await store.journal.verify()).ok
        assert await store.journal.history("D0") == []


async def test_a_connection_that_ends_within_a_batch_is_told_in_our_words(
    server: Any, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver logs what happens to its objects too, at each batch."""
    async with open_store(server.get_uri(), secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))

        def cut(batch: Batch) -> None:
            batch.record([event(Kind.OUTCOME, "T1", outcome="relayed")])
            [(pid,)] = batch.select("SELECT pg_backend_pid()")
            with psycopg.connect(server.get_uri(), autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])

        for _ in range(3):
            with pytest.raises(Unavailable):
                await store.write(cut)
        await store.admit(item("T2"), relays("T2"))
        assert await store.journal.history("T1") == []
    assert [record.getMessage() for record in caplog.records if not record.name.startswith("smtpguard")] == []


async def test_a_pooler_that_changes_the_connection_is_named(server: Any, tmp_path: Path, clock: Clock) -> None:
    """Another connection lacks what was prepared on the one before."""
    async with open_store(server.get_uri(), secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        for n in range(8):
            await store.admit(item(f"T{n}"), relays(f"T{n}"))

        def other(batch: Batch) -> None:
            for (name,) in batch.select("SELECT name FROM pg_prepared_statements"):
                batch.connection.exec_driver_sql(f'DEALLOCATE "{name}"')
            batch.record([event(Kind.OUTCOME, "T1", outcome="relayed")])

        with pytest.raises(Unavailable, match=r"a pooler gives each transaction another connection.*pool_mode.*26000"):
            await store.write(other)
        await store.admit(item("T8"), relays("T8"))


async def test_a_database_without_a_head_is_away(url: str, tmp_path: Path, clock: Clock) -> None:
    """As long as a dump is being restored into it: nothing ends, and all goes on when the rows are there."""
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        engine = create_engine(make_url(url).set(drivername="sqlite" if "sqlite" in url else "postgresql+psycopg"))
        with engine.begin() as connection:
            head = connection.execute(schema.head.select()).one()
            connection.execute(delete(schema.head))
        for asked in (store.gate.read(), store.admit(item("T1"), relays("T1"))):
            with pytest.raises(Unavailable, match="is it being restored"):
                await asked
        with engine.begin() as connection:
            connection.execute(insert(schema.head).values(**head._mapping))
        engine.dispose()
        await store.admit(item("T2"), relays("T2"))
        assert (await store.journal.verify()).ok


async def test_a_time_limit_of_the_role_ends_no_transaction(server: Any) -> None:
    database = Database(f"{server.get_uri()}&options=-ctransaction_timeout%3D1h")
    with database.read() as reading, database.write() as writing:
        limits = [rows_of(each, "SHOW transaction_timeout") for each in (reading, writing)]
    database.close()
    assert limits == [[("0",)]] * 2


async def test_a_server_that_became_read_only_is_named(server: Any, tmp_path: Path, clock: Clock) -> None:
    read_only = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    async with open_store(server.get_uri(), secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        await store.write(lambda batch: batch.connection.exec_driver_sql(read_only))
        await store.gate.read()
        with pytest.raises(Unavailable, match="the database server is read-only: cannot execute"):
            await store.try_write()
        await store.try_write()  # on a new connection


def ask_for_password(admin: psycopg.Connection[Any]) -> None:
    (hba,) = admin.execute("SHOW hba_file").fetchone() or ("",)
    Path(hba).write_text("local all guard scram-sha-256\n" + Path(hba).read_text())
    admin.execute("SELECT pg_reload_conf()")


async def test_a_password_that_was_changed_is_read_again(server: Any, tmp_path: Path, clock: Clock) -> None:
    """The server ends a connection for any reason: the next one has the password of that moment."""
    file = tmp_path / "password"
    with psycopg.connect(server.get_uri(), autocommit=True) as admin:

        def change(password: str) -> None:
            admin.execute(f"ALTER ROLE guard PASSWORD '{password}'")
            admin.execute("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = 'guard'")

        admin.execute("CREATE ROLE guard LOGIN SUPERUSER PASSWORD 'one of spring'")
        ask_for_password(admin)
        file.write_text("one of spring\n")
        url = make_url(server.get_uri()).set(username="guard").update_query_dict({"password_file": str(file)})
        opened = open_store(str(url), secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True)
        async with opened as store:
            await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
            change("one of summer")
            for asked in (store.gate.read, store.try_write):
                with pytest.raises(Unavailable, match='password authentication failed for user "guard"'):
                    await asked()
            file.unlink()
            with pytest.raises(Unavailable, match=f"{file}.*: cannot be read: No such file"):
                await store.try_write()
            file.write_text("one of summer\n")
            assert (await store.gate.read()).policy_sha256 == POLICY
            await store.admit(item("T1"), relays("T1"))


async def test_a_hanging_database_times_out(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server hangs (SIGSTOP), there is no error, and the deadline answers instead."""
    url = server.get_uri()
    monkeypatch.setattr(queue, "WAIT_SECONDS", 0.3)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=RealClock(), migrate=True) as store:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        pids: list[int] = []
        await store._writer.submit(lambda b: pids.append(b.select("SELECT pg_backend_pid()")[0][0]))
        os.kill(pids[0], signal.SIGSTOP)
        try:
            results = await asyncio.gather(
                store.admit(item("T1"), relays("T1")), store.admit(item("T2"), relays("T2")), return_exceptions=True
            )
        finally:
            os.kill(pids[0], signal.SIGCONT)
        assert all(isinstance(r, StoreError) for r in results)
        monkeypatch.undo()
        await store.admit(item("T3"), relays("T3"))
        assert set((await store.journal.outcomes(["T1", "T2"])).values()) <= {Outcome.NOT_SENT}
        assert (await store.journal.verify()).ok


class RealClock(Clock):
    def monotonic(self) -> float:
        return time.monotonic()


async def test_a_second_store_in_one_process_keeps_the_firsts_locks(tmp_path: Path, clock: Clock) -> None:
    """A second store in the process leaves the first one's locks. Closing any descriptor of a file releases all fcntl
    locks of the process on it; another process would then delete the log to which the first store still writes, and
    its commits would be lost."""
    url = f"sqlite:///{tmp_path}/guard.db"
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as first:
        await first.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as second:
            assert (await second.gate.read()).policy_sha256 == POLICY
        script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT seq FROM head'); c.close()"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, f"{tmp_path}/guard.db"], check=True)
        assert (tmp_path / "guard.db-wal").exists(), "it is in use"
        await first.admit(item("T1"), relays("T1"))
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as third:
            assert await third.journal.history("T1")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OperationalError("connection failed: FATAL:  too many connections"), Unavailable,
         "no connection to the database: FATAL:  too many connections. Correct"),
        (OperationalError("connection failed: 2 is read-only\nAll failures were:\n- host: '1': connection failed: 1 is full\n"
                          "- host: '2': connection failed: 2 is read-only"), Unavailable,
         "no connection to the database: 2 is read-only; 1 is full. Correct"),
        (OperationalError("the connection is lost"), Unavailable, "no connection to the database: the connection is lost. C"),
        (DiskFull("could not extend file"), Full, "no space left for the database: could not extend file (53100). Make room"),
        (TooManyConnections("sorry"), Unavailable, "the database server is at a limit: sorry (53300). Raise"),
        (InsufficientPrivilege("for table entry"), Unavailable,
         "the database user lacks a privilege: for table entry (42501). Grant it"),
        (ReadOnlySqlTransaction("in a read-only one"), Unavailable,
         "the database server is read-only: in a read-only one (25006). Promote it"),
        (QueryCanceled("statement timeout\nCONTEXT: while locking tuple (0,1)"), Unavailable, "the database takes too long: statement timeout (57014). End"),
        (LockNotAvailable("lock timeout"), Unavailable, "the database takes too long: lock timeout (55P03). End"),
        (AdminShutdown("by an administrator"), Unavailable,
         "the database server ended the connection: by an administrator (57P01). If"),
        (SerializationFailure("concurrent update"), Unavailable,
         "the database: SerializationFailure: concurrent update (40001)"),
        (UndefinedTable('relation "anna@example.com"'), Unavailable, "the database: UndefinedTable (42P01)"),
    ],
)  # fmt: skip
def test_a_refusal_of_the_server_says_what_to_do(error: psycopg.Error, kind: type[StoreError], says: str) -> None:
    """By its SQLSTATE; without one it is of the connection. Words that may be of a row are left out."""
    told = Database("postgresql://db/guard").translate(error)
    assert type(told) is kind
    assert str(told).startswith(says)
