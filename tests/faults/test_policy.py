"""A part or node that starts with an edited, older, bad or unreadable policy file: the policy in force stays in force."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from smtpguard.app import start
from smtpguard.app.clock import SystemClock
from smtpguard.app.files import CannotStart
from smtpguard.app.policies import Following, Look
from smtpguard.config.problem import Broken
from smtpguard.config.settings import read_settings
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import Digester
from tests.faults.machine import ANNA, RAMADAN, Machine, policy, synced
from tests.faults.mta import Mta
from tests.peers.chain import Recorder, until
from tests.peers.letters import story
from tests.store.servers import new_database

TEXT = policy()
OBSERVING = TEXT.replace("version: 1\n", "version: 1\nenforce: false\n")
OLDER = TEXT[: [m.end() for m in re.finditer(r"then: hold\n", TEXT)][2]]
BESIDE = {
    "edited": OBSERVING,
    "older": OLDER,
    "half written": TEXT[: len(TEXT) // 2],
    "bad": TEXT.replace("then: hold", "then: hodl"),
    "empty": "",
    "no text": "\udcff\udcfe",
}
CONSOLE = {"console": "{address: 127.0.0.1, port: 0}"}


@pytest.fixture
def guard(tmp_path: Path) -> Machine:
    """A guard that does not run, with its policy in force."""
    made = Machine(tmp_path / "guard", 25)
    prepared(made)
    return made


def prepared(guard: Machine, **more: Any) -> start.Prepared:
    return asyncio.run(start.prepare(read_settings(guard.config), by="test", parts=("proxy",), **more))


def write(guard: Machine, text: str) -> None:
    (guard.root / "policy.yaml").write_text(text, errors="surrogateescape")


def starts(guard: Machine) -> list[dict[str, object]]:
    return [
        dict(e.data) for e, _ in guard.ask(lambda store: store.journal.entries(after=0)) if e.kind == Kind.START.value
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:///var/guard.db"
    return new_database(request.getfixturevalue("postgresql"), empty=True).replace(":@", "@")


def test_a_restarted_console_leaves_the_policy_in_force(tmp_path: Path, url: str) -> None:
    """A restarted console leaves the policy in force, although the file says ``enforce: false``."""
    with Recorder() as recorder:
        first = Machine(tmp_path / "guard", recorder.port, store=url, only=["proxy"])
        synced(first)
        console = Machine(first.root, recorder.port, store=url, only=["console"], settings=CONSOLE)
        with first, console:
            before = first.ask(lambda store: store.gate.read())
            write(first, OBSERVING)
            console.kill_all()
            console.log.write_bytes(b"")
            console.start()
            assert first.ask(lambda store: store.gate.read()).policy_sha256 == before.policy_sha256
            answer = Mta(first).deliver(story("story@example.com"), ANNA, RAMADAN)
            assert answer.code == 250
            assert len(first.holds("story@example.com")) == 1
            assert recorder.with_id("story@example.com") == []
            said = console.said()
            assert '"event":"the policy file is not the policy in force, which stays in force"' in said
            assert '"differing":["policy.yaml"]' in said
        first.verified()


def test_a_node_with_an_older_file_leaves_the_policy_in_force(tmp_path: Path, postgresql: str) -> None:
    """A node with an older file leaves the policy in force; each has its own folder, and both use one store on
    PostgreSQL."""
    with Recorder() as recorder:
        url = new_database(postgresql, empty=True).replace(":@", "@")
        one = Machine(tmp_path / "one", recorder.port, store=url)
        synced(one)
        with one:
            before = one.ask(lambda store: store.gate.read())
            other = Machine(tmp_path / "other", recorder.port, store=url)
            (other.root / "var").mkdir(mode=0o700)
            secret = other.root / "var" / "secret"
            secret.write_bytes((one.root / "var" / "secret").read_bytes())
            secret.chmod(0o600)
            write(other, OBSERVING)
            with other:
                assert other.ask(lambda store: store.gate.read()).policy_sha256 == before.policy_sha256
                for node, id in ((one, "one@example.com"), (other, "other@example.com")):
                    assert Mta(node).deliver(story(id), ANNA, RAMADAN).code == 250
                    assert len(node.holds(id)) == 1
            assert recorder.with_id("one@example.com") + recorder.with_id("other@example.com") == []
            one.verified()


@pytest.mark.parametrize("text", BESIDE.values(), ids=BESIDE.keys())
def test_a_changed_file_does_not_stop_a_start(guard: Machine, text: str) -> None:
    before = guard.ask(lambda store: store.gate.read())
    write(guard, text)
    done = prepared(guard)
    assert guard.ask(lambda store: store.gate.read()) == before
    assert (done.sha256, done.put, done.unreadable) == (before.policy_sha256, None, "")
    assert done.file.differs
    assert starts(guard)[-1]["policy_file"] == done.file.state != "same"
    guard.verified()


def test_a_missing_file_does_not_stop_a_start(guard: Machine) -> None:
    (guard.root / "policy.yaml").unlink()
    done = prepared(guard)
    assert done.file.state == "unusable"
    assert "cannot be read" in done.file.problem
    assert starts(guard)[-1]["policy_file_sha256"] is None


def looked(guard: Machine) -> Look | None:
    settings = read_settings(guard.config)
    return guard.ask(lambda store: Following(store, settings, Digester(bytes(32)), SystemClock()).look())


def test_the_state_of_the_file_is_known(guard: Machine) -> None:
    seen = looked(guard)
    assert seen is not None
    assert (seen.file.state, seen.started_beside, seen.unreadable) == ("same", False, "")
    write(guard, OBSERVING)
    seen = looked(guard)
    assert seen is not None
    assert seen.current.put is not None
    assert seen.current.put.by == "test"
    assert (seen.file.state, seen.started_beside) == ("differs", False), "edited, and nothing started since"
    prepared(guard)
    seen = looked(guard)
    assert seen is not None
    assert seen.started_beside
    write(guard, TEXT)
    seen = looked(guard)
    assert seen is not None
    assert (seen.started_beside, seen.file.differs) == (False, False)


def test_the_first_start_needs_a_valid_file(tmp_path: Path) -> None:
    guard = Machine(tmp_path / "guard", 25)
    write(guard, BESIDE["bad"])
    for _ in range(2):
        with pytest.raises(Broken):
            prepared(guard)
    done = guard.run("serve", exits=2)
    problems = [json.loads(line).get("problem", "") for line in done.stderr.splitlines()]
    assert any(re.match(r'\S*policy.yaml:\d+:\d+: unknown action "hodl"', problem) for problem in problems)
    write(guard, TEXT)
    put = prepared(guard).put
    assert put is not None
    assert (put.changed, put.before) == (True, "")


def test_a_start_takes_the_file_named_by_its_hash(guard: Machine) -> None:
    before = prepared(guard).sha256
    write(guard, OBSERVING)
    named = prepared(guard).file.sha256
    for wrong in ("", named[:11], "f" * 64, "policy.yaml"):
        if wrong:
            with pytest.raises(CannotStart):
                prepared(guard, from_file=wrong)
        assert prepared(guard).sha256 == before
    done = prepared(guard, from_file=named[:12].upper())
    assert done.put is not None
    assert (done.put.before, done.sha256) == (before, named)
    entry = [e for e, _ in guard.ask(lambda store: store.journal.entries(after=0)) if e.kind == Kind.POLICY.value][-1]
    assert entry.data["how"] == "start with --policy-from-file"
    write(guard, TEXT)
    assert prepared(guard, from_file=named).put is None, "it is in force already, although the file changed"


async def _lost(guard: Machine, text: bytes) -> None:
    """Put a policy in force that this version cannot read, as may happen after an upgrade."""
    from datetime import UTC, datetime

    from smtpguard.app.services import opened

    async with opened(read_settings(guard.config)) as (store, _):
        event = Event(kind=Kind.POLICY, id="P", at=datetime.now(UTC), data={"sha256": "f" * 64})
        await store.policies.put("f" * 64, {"policy.yaml": text}, event)


def test_an_unreadable_policy_in_force_answers_451(tmp_path: Path) -> None:
    with Recorder() as recorder:
        guard = Machine(tmp_path / "guard", recorder.port, settings=CONSOLE)
        synced(guard)
        prepared(guard)
        asyncio.run(_lost(guard, b"version: 2\nrules: []\n"))
        with guard:
            answer = Mta(guard).once(story("lost@example.com"), ANNA, RAMADAN)
            assert answer.code == 451
            assert recorder.with_id("lost@example.com") == []
            assert "cannot be read by smtpguard" in guard.said()
            guard.run("freeze", "--all", "--reason", "still possible")
            guard.run("thaw", "--all")
            until(lambda: len(guard.parts()) == 4, "all parts to run")
            assert "part died" not in guard.said(), "of it"
            guard.run("reload", "--yes")
            assert Mta(guard).deliver(story("found@example.com"), ANNA, RAMADAN).code == 250
            assert len(guard.holds("found@example.com")) == 1
        guard.verified()
