"""Following the policy in force: an absence is known in a process as soon as the gate has moved."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from smtpguard.app import policies as module
from smtpguard.app.files import parse_policy
from smtpguard.app.policies import Following, surroundings
from smtpguard.config.settings import settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.database.errors import Unavailable
from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import Digester
from smtpguard.mail.message import Message
from smtpguard.policy import parse as parsing
from smtpguard.policy.approvals import Absence
from smtpguard.policy.parse import parse
from smtpguard.reading.looks import Looks
from smtpguard.reading.read import read
from tests.clocks import MONDAY
from tests.guard.house import DOCUMENTS, KEY, House, PatchedStore, house

EVA = "eva@example.com"


async def declare_absence(home: House, *, until: date) -> None:
    made = Absence(person=EVA, since=MONDAY.date(), until=until)
    event = Event(kind=Kind.ABSENCE, id="E", at=MONDAY)
    await home.store.people.change_absence(EVA, lambda said: (made, event))


async def until_true(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not so():  # noqa: ASYNC110 - another task changes it
            await asyncio.sleep(0.01)


async def test_an_absence_is_known_once_the_gate_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    async with house(tmp_path) as home:
        silent = 0

        async def absences() -> object:
            nonlocal silent
            if silent:
                silent -= 1
                raise Unavailable("no store")
            return await home.store.people.absences()

        settings = settings_of(load_yaml("{}\n"), tmp_path, {})
        store: Any = PatchedStore(home.store, {"people.absences": absences})
        following = Following(store, settings, Digester(KEY, "+"), home.clock)
        await following.begin()
        watch = GateWatch(home.store.gate, home.clock, moved=following.moved)
        await watch.read()
        before = following.current()
        assert before.groups.away(EVA, MONDAY) is None
        silent = 2
        await declare_absence(home, until=MONDAY.date())
        await watch.read()
        await until_true(lambda: following.current().groups.away(EVA, MONDAY) is not None)
        assert silent == 0
        assert following.current().registry is before.registry, "nothing else is rebuilt"
        await declare_absence(home, until=date(2026, 3, 9))
        await watch.read()
        await declare_absence(home, until=date(2026, 3, 10))
        await watch.read()
        await until_true(lambda: [a.until.day for a in following.current().groups.absences] == [10])


async def test_a_part_uses_what_its_supervisor_made_of_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the policy in force at the start only: another one is read when it comes."""
    monkeypatch.setattr(module, "_SHARED", {})
    async with house(tmp_path) as home:
        settings = settings_of(load_yaml("{}\n"), tmp_path, {})
        policy = parse(DOCUMENTS)
        module.share(settings, home.in_force.sha256, policy)
        following = Following(home.store, settings, Digester(KEY, "+"), home.clock, reading=True)
        await following.follow()
        _, shared = module._SHARED[home.in_force.sha256]
        assert following.around()[1] is shared
        assert following.policy.rules is policy.rules
        await home.put({**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"] + b"# another\n"})
        await following.follow()
        assert following.policy.rules is not policy.rules
        assert following.around()[1] is not shared


async def test_a_replaced_policy_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although Python rarely collects what has lived long: a process would keep the caches of each policy since its start."""
    monkeypatch.setattr(module, "FORGET_SECONDS", 0.0)
    monkeypatch.setattr(parsing, "_remembered", lru_cache(1)(parsing._remembered.__wrapped__))
    async with house(tmp_path) as home:
        following = Following(home.store, settings_of(load_yaml("{}\n"), tmp_path, {}), Digester(KEY, "+"), home.clock)
        text = DOCUMENTS["policy.yaml"]
        await home.put({**DOCUMENTS, "policy.yaml": text + b"# one\n"})
        first = weakref.ref((await following.follow()).rules._questions)
        await home.put({**DOCUMENTS, "policy.yaml": text + b"# another\n"})
        gc.disable()
        try:
            await following.follow()
            await until_true(lambda: first() is None)
        finally:
            gc.enable()


POLICY = """
organization: {domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: communications}
own_marks:
  project: {side: internal, weight: 6, term: project heron}
  tool: {side: internal, weight: 6, header: X-Our-Tool}
rules: []
"""


def test_marks_of_the_policy_are_looked_for(tmp_path: Path) -> None:
    settings = settings_of(load_yaml(b"hostname: guard.example.com\n", "smtpguard.yaml"), tmp_path, {})
    policy = parse_policy(settings, {"policy.yaml": POLICY.encode()})
    around = surroundings(settings, policy)
    for head, body, name in (("", "About Project Heron.", "project"), ("X-Our-Tool: 1\r\n", "Hello.", "tool")):
        found = read(Message.of(f"From: a@example.net\r\n{head}Subject: x\r\n\r\n{body}\r\n".encode()), around)
        assert name in {m.name for m in found.marks}
        assert found.looks is Looks.INTERNAL
