"""A store restored to an earlier state, on both engines, with stopped and running processes. What was sent since is
sent again only on a person's decision, and ordinary mail waits at its client meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from smtpguard.policy.freezing import PUT_BACK
from tests.faults.machine import ANNA, RAMADAN, Machine, machine, synced
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import mail, story
from tests.store.servers import a_server

PETER = "peter@partner.example"
ID = "story@example.com"
CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'guard'"


def held(guard: Machine) -> str:
    done = Mta(guard).deliver(story(ID), ANNA, RAMADAN)
    assert "Held" in done.text, guard.said()
    guard.idle()
    return done.text.split()[-1]


def notices(recorder: Recorder) -> int:
    return len([m for m in recorder.messages if not m.field(b"X-Smtpguard-Release")])


def check_frozen(guard: Machine, recorder: Recorder, told: int) -> None:
    """Assert that the restore was noticed: a notice is sent again, no release is, and mail gets 451."""
    until(lambda: notices(recorder) > told, "the notice to be sent again; " + guard.said())
    assert len(recorder.releases(ID)) == 1, "no person has said to send it again"
    until(lambda: "the store was put back to an earlier state" in guard.log.read_text(), "the log to say so")
    done = Mta(guard).once(mail(to=PETER, message_id="ordinary@example.com"), ANNA, PETER)
    assert (done.code, done.text[:6]) == (451, "4.7.1 "), done
    assert recorder.with_id("ordinary@example.com") == []
    assert PUT_BACK in guard.run("held", "list").stdout


def relays_again(guard: Machine, recorder: Recorder) -> None:
    """Thaw, and assert that the release is sent a second time."""
    guard.run("thaw", "--all")
    until(lambda: len(recorder.releases(ID)) == 2, "what somebody has let go; " + guard.said())
    assert Mta(guard).deliver(mail(to=PETER, message_id="ordinary@example.com"), ANNA, PETER).code == 250
    told = json.loads(guard.run("--json", "audit", "verify").stdout)
    assert (told["ok"], len(told["lost"])) == (True, 1), told


def test_a_restored_database_file_freezes_all_mail(tmp_path: Path) -> None:
    with machine(tmp_path) as (guard, recorder):
        hold = held(guard)
        guard.stop()
        guard.approve(hold)
        var, copy = guard.root / "var", tmp_path / "copy.db"
        subprocess.run(["sqlite3", str(var / "guard.db"), f".backup {copy}"], check=True)
        guard.start()
        until(lambda: recorder.releases(ID), "the release; " + guard.said())
        guard.idle()
        guard.stop()
        for old in var.glob("guard.db*"):
            old.unlink()
        shutil.copy(copy, var / "guard.db")
        told = notices(recorder)
        guard.start()
        check_frozen(guard, recorder, told)
        guard.stop()
        guard.start()
        assert guard.run("held", "list").stdout.count("Frozen") == 1, "it is reported once"
        relays_again(guard, recorder)


def test_a_removed_or_replaced_database_file_defers_mail(tmp_path: Path) -> None:
    """While the database's file is removed or replaced, mail gets 4xx: a commit to the open file would be lost."""
    with machine(tmp_path, workers=2) as (guard, recorder):
        hold = held(guard)
        var, aside, older = guard.root / "var", tmp_path / "aside", tmp_path / "older.db"
        subprocess.run(["sqlite3", str(var / "guard.db"), f"VACUUM INTO '{older}'"], check=True)
        held_later = Mta(guard).deliver(story("later@example.com"), ANNA, RAMADAN).text
        assert "Held" in held_later
        guard.idle()
        aside.mkdir()

        def takes_nothing(n: int) -> None:
            for kind, to in (
                (mail(to=PETER, message_id=f"o{n}@example.com"), PETER),
                (story(f"s{n}@example.com"), RAMADAN),
            ):
                for _ in range(4):  # to either process
                    done = Mta(guard).once(kind, ANNA, to)
                    assert done.code // 100 == 4, (done, guard.said())
            assert not recorder.with_id(f"o{n}@example.com")

        for file in var.glob("guard.db*"):
            file.rename(aside / file.name)
        takes_nothing(1)
        assert not (var / "guard.db").exists(), "no empty database is created"
        until(lambda: "is gone: put it back" in guard.log.read_text(), "the log to say so; " + guard.said())
        for file in aside.glob("guard.db*"):
            file.rename(var / file.name)
        assert Mta(guard).deliver(mail(to=PETER, message_id="back@example.com"), ANNA, PETER).code == 250, guard.said()
        assert {hold, held_later.split()[-1]} <= {
            row["id"] for row in map(json.loads, guard.run("--json", "held", "list").stdout.splitlines())
        }
        for file in var.glob("guard.db*"):
            file.unlink()
        shutil.copy(older, var / "guard.db")
        takes_nothing(2)
        until(lambda: "the store was put back to an earlier state" in guard.log.read_text(), guard.said())


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with a_server() as running:
        yield running


def test_a_restored_server_is_noticed_by_running_nodes(server: Any, tmp_path: Path) -> None:
    """Nodes that keep running notice that the database server was restored, and freeze all mail."""
    postgres = server.get_uri().replace(":@", "@")
    url = postgres.replace("/postgres?", "/guard?")

    def tell(*statements: str) -> None:
        with psycopg.connect(postgres, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    tell("CREATE DATABASE guard")
    with Recorder() as recorder:
        first = Machine(tmp_path / "first", recorder.port, store=url)
        synced(first)
        second = Machine(tmp_path / "second", recorder.port, store=url)
        (second.root / "var").mkdir(mode=0o700)
        shutil.copy(first.root / "var" / "secret", second.root / "var" / "secret")
        with first, second:
            hold = held(second)
            first.stop()
            second.stop()
            first.approve(hold)
            tell(CUT_OFF, "CREATE DATABASE copy TEMPLATE guard")
            first.start()
            second.start()
            until(lambda: recorder.releases(ID), "the release; " + first.said() + second.said())
            first.idle()
            told = notices(recorder)
            tell(
                "DROP DATABASE guard WITH (FORCE)",
                "CREATE DATABASE guard TEMPLATE copy",
            )
            noticed = until(
                lambda: [g for g in (first, second) if "all mail is frozen" in g.log.read_text()],
                "somebody to notice",
            )
            check_frozen(noticed[0], recorder, told)
            for guard in (first, second):
                guard.until(lambda g=guard: g._greets(), "it to run")  # type: ignore[misc]
                assert Mta(guard).once(mail(to=PETER, message_id="o@example.com"), ANNA, PETER).code == 451
            assert first.run("held", "list").stdout.count("Frozen") == 1, "the other node knows of it"
            relays_again(second, recorder)
            first.verified()
