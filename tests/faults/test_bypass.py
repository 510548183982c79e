"""The emergency bypass of a real installation, while a real PostgreSQL server is stopped: what passes, what waits, who is
told, and what the journal has afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.machine import ANNA, RAMADAN, Machine, fired, machine
from tests.faults.mta import Mta
from tests.faults.test_front import PETER, check_all_messages, letter
from tests.faults.test_storage import stop
from tests.peers.chain import Recorder, member
from tests.store.servers import a_server

EVA, OMAR = "eva@example.com", "omar@example.com"
BEGINS = ("bypass", "--for", "30m", "--reason", "The server is being restored", "--as", EVA, "--agreed", OMAR)


@pytest.fixture
def server() -> Iterator[Any]:
    with a_server() as running:
        yield running


def told(recorder: Recorder) -> set[str]:
    """Who got the alarm."""
    mails = [m for m in recorder.messages if b"an emergency bypass is in force" in m.field(b"Subject")]
    return {address for each in mails for address in each.recipients}


def changes(guard: Machine, id: str) -> list[str]:
    return [data["change"] for _, data in guard.history(id)]


def test_mail_passes_while_the_server_is_away_and_is_journalled_once(server: Any, tmp_path: Path) -> None:
    settings = {"bypass": f"{{people: [{EVA}, {OMAR}]}}"}
    store = server.get_uri().replace(":@", "@")
    with machine(tmp_path, store=store, workers=2, settings=settings) as (guard, recorder):
        sent: dict[str, Mta] = {}

        def passes(id: str) -> None:
            sent[f"{id}@example.com"] = mta = Mta(guard)
            assert mta.deliver(letter(f"{id}@example.com"), ANNA, PETER).code == 250

        passes("before")
        guard.until(lambda: b'"serving"' in guard.log.read_bytes(), "both workers to be ready")
        guard.idle()
        stop(server)
        assert Mta(guard).once(letter("none@example.com"), ANNA, PETER).code == 451
        guard.run(*BEGINS[:-1], EVA, exits=2)
        begun = json.loads(guard.run("--json", *BEGINS).stdout)
        guard.run(*BEGINS, exits=1)  # there is one
        passes("under")
        for to in (RAMADAN, member(1)):  # a list; and a customer, for whom rules count over messages
            assert Mta(guard).once(letter(f"{to}-no"), ANNA, to).code == 451
        point = guard.arm("after-sync", "bypass", "<killed@example.com>")
        passes("killed")
        assert fired(point)
        assert 0 in [attempt.code for attempt in sent["killed@example.com"].attempts], "it was killed before the dot"
        guard.until(lambda: told(recorder) == {EVA, OMAR, "it@example.com"}, "all to be told")
        shown = json.loads(guard.run("--json", "status", exits=1).stdout)
        assert (shown["bypass"]["id"], shown["store"]["answers"]) == (begun["id"], False)
        assert "bypass" in [alarm["alarm"] for alarm in shown["alarms"]]

        server.ensure_postgres_running()
        passes("after")
        adopted = guard.root / "var" / "bypass"
        guard.until(lambda: changes(guard, begun["id"]).count("adopted") >= 2, "both fronts to be taken over")
        check_all_messages(guard, recorder, sent)
        said = guard.run(
            "audit", "verify"
        ).stdout  # the last one if its process had not seen yet that the server is back
        assert "3 messages were relayed without" in said or "4 messages were relayed without" in said
        [under] = recorder.with_id("under@example.com")
        id = under.field(b"X-Smtpguard").split(b";")[0].split(b"=")[-1].strip().decode()
        assert begun["id"] in guard.run("incident", "report", id).stdout
        assert guard.history(id)[0][1]["bypass"] == begun["id"]
        guard.run("bypass", "--end")
        guard.run("bypass", "--end", exits=1)
        guard.until(lambda: "ended" in changes(guard, begun["id"]), "its end to be journalled")
        guard.until(lambda: not [*adopted.glob("*.front"), *adopted.glob("*.json")], "the files to be removed")


def test_a_freeze_ends_it_although_the_server_is_away(server: Any, tmp_path: Path) -> None:
    """And after a loss of power, the next start takes over what was recorded."""
    settings = {"bypass": f"{{people: [{EVA}, {OMAR}]}}"}
    with machine(tmp_path, store=server.get_uri().replace(":@", "@"), settings=settings) as (guard, recorder):
        mta = Mta(guard)
        stop(server)
        guard.run(*BEGINS)
        assert mta.deliver(letter("under@example.com"), ANNA, PETER).code == 250
        said = guard.run("freeze", "--all", "--reason", "Wrong mail", exits=2)
        assert "Ended: the emergency bypass" in said.stderr
        assert Mta(guard).once(letter("frozen@example.com"), ANNA, PETER).code == 451
        guard.kill_all()
        server.ensure_postgres_running()
        guard.start()
        check_all_messages(guard, recorder, {"under@example.com": mta})
