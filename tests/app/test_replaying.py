"""Replaying the journal with the policies of that time, and with entries of earlier versions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from smtpguard.admission.recorded import FACTS, OLD, REJECTED
from smtpguard.app import explaining
from smtpguard.app.replayed import DECIDED, PEOPLE
from smtpguard.cli import replaypassed
from smtpguard.cli.replaypassed import Compared
from smtpguard.config.settings import Settings, read_settings
from smtpguard.database.batch import Batch
from smtpguard.database.schema import clear, document, entry
from smtpguard.lists.digest import Digester
from smtpguard.policy.parse import parse
from smtpguard.policy.rule import ASTRAY
from smtpguard.policy.verdict import Action
from tests.app.twoguards import Plain, documents, sample
from tests.cli.installing import install
from tests.clocks import MONDAY
from tests.guard.house import KEY, MEMBERS, FakePassage, House, house

COPY = {"X_Mailing": "wine", "X_Looks": "mailing"}


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    install(tmp_path, KEY)
    (tmp_path / "policy.yaml").write_text("")
    for name in ("ramadan", "news", "staff"):
        (tmp_path / f"{name}.csv").write_text("email\n")
    async with house(tmp_path, documents=documents(policy())) as made:
        for module in (replaypassed, explaining):
            monkeypatch.setattr(module, "SystemClock", lambda: made.clock)
        yield made


def policy(*rules: Plain) -> Plain:
    return {**sample(), "rules": list(rules)}


def many(least: int, **more: Any) -> Plain:
    return {"id": "many", "when": {"mailing.customers": f">= {least}"}, "then": "hold", **more}


async def sent(home: House, *names: str) -> None:
    for name in names:
        number = int(name[1:])
        mail = home.transaction(MEMBERS[number], id=name, Message_ID=f"<{name}>", body=name, **COPY)
        await home.intake()(mail, FakePassage())
        home.clock.pass_(minutes=1)


async def compared(
    home: House, after: Plain, *, now: Plain | None = None, since: timedelta = timedelta(days=3)
) -> list[Compared]:
    settings, until = settings_of(home), home.clock.now() + timedelta(seconds=1)
    before = parse(documents(now if now is not None else policy()))
    async with AsyncExitStack() as undo:
        other = parse(documents(after))
        walk = replaypassed.Replaying(
            home.store, settings, Digester(KEY, "+"), before, other, until - since, until, undo
        )
        found = [one async for one in walk.passed()]
        assert walk.undecided == 0
        return found


def settings_of(home: House) -> Settings:
    return read_settings(home.folder.parent / "smtpguard.yaml")


def actions(found: list[Compared]) -> list[tuple[set[Action], set[Action]]]:
    return [(set(one.was.actions), set(one.will.actions)) for one in found]


R, H = {Action.RELAY}, {Action.HOLD}


async def test_counts_are_uncertain_if_customers_are_defined_otherwise(home: House) -> None:
    """If another policy counts customers otherwise, counts in the journal are uncertain."""
    await sent(home, "m1")
    after = policy(many(1))
    assert actions(await compared(home, after)) == [(R, H)]
    after["organization"] = {**after["organization"], "customers_here": False}
    assert actions(await compared(home, after)) == [(R, R | H)]


async def test_each_message_is_judged_by_both_policies(home: House) -> None:
    await sent(home, "T1", "T2")
    reach = {"id": "reach", "when": {"recipients.reach": "any"}, "then": "hold"}
    found = await compared(home, policy(reach))
    assert actions(found) == [(R, H), (R, H)]
    assert [one.message.id for one in found] == ["T1", "T2"]


async def test_a_policy_change_within_the_time_replays_both(home: House) -> None:
    """If the policy changed within the time, both policies are replayed for messages that neither decided."""
    reach: Plain = {"id": "reach", "when": {"recipients.reach": "any"}, "then": "hold"}
    await sent(home, "T1")
    await home.put(documents(policy(reach)))
    await home.follow()
    await sent(home, "T2")
    found = await compared(home, policy(), now=policy(reach))
    assert actions(found) == [(H, R), (H, R)]


async def test_a_policy_that_is_gone_makes_facts_uncertain(home: House) -> None:
    looks: Plain = {"id": "looks", "when": {"message.topics": "pork"}, "then": "hold"}
    await sent(home, "T1")
    await home.put(documents(policy(looks)))
    await home.follow()
    await home.store.write(
        lambda b: b.connection.execute(delete(document).where(document.c.policy != home.in_force.sha256))
    )
    [one] = await compared(home, policy(), now=policy(looks))
    assert one.was.actions == R | H
    assert set(one.was.depends_on) == {"message.topics"}


async def test_a_policy_of_an_unsupported_version_makes_facts_uncertain(home: House) -> None:
    looks: Plain = {"id": "looks", "when": {"message.topics": "pork"}, "then": "hold"}
    await sent(home, "T1")
    await home.put(documents(policy(looks)))
    await home.follow()
    await home.store.write(
        lambda b: b.connection.execute(
            update(document).where(document.c.policy != home.in_force.sha256).values(data=b"version: 0\n")
        )
    )
    [one] = await compared(home, policy(), now=policy(looks))
    assert one.was.actions == R | H


async def test_facts_of_an_earlier_versions_entry_are_certain(home: House) -> None:
    """The facts and counts of an earlier version's entry are certain, and the others unknown."""
    before = policy(many(30))
    await home.put(documents(before))
    await home.follow()
    await sent(home, "T1", "T2", "T3")
    await home.store.write(_as_before)
    assert actions(await compared(home, policy(many(3)), now=before)) == [(R, R), (R, R), (R, H)]
    labels: Plain = {"id": "labels", "when": {"message.labels": "secret"}, "then": "hold"}
    [*_, last] = await compared(home, policy(many(30), labels), now=before)
    assert last.will.actions == R | H
    assert last.will.depends_on == {"message.labels": OLD}


async def test_a_copy_of_a_correction_for_others_is_held_by_any_policy(home: House) -> None:
    """If people had rejected the text for others, a rejection may stand in its place."""
    before = policy(many(30))
    await home.put(documents(before))
    await home.follow()
    await sent(home, "T1")
    for name in ("T2", "T3"):
        other = home.transaction("peter@partner.example", id=name, Message_ID=f"<{name}>", body=name, **COPY)
        await home.intake()(other, FakePassage())
        home.clock.pass_(minutes=1)
    await home.store.write(_held_as_astray)
    found = await compared(home, policy(many(1)), now=before)
    assert actions(found) == [(R, H), (H, H), (H, {Action.RELAY, Action.HOLD, Action.REJECT})]
    assert found[2].will.depends_on == {PEOPLE: DECIDED}


def _held_as_astray(batch: Batch) -> None:
    """T2 and T3, as the verdict on each is recorded if it is a copy of a correction that is for T1's recipient alone. T3 came after
    people had rejected the text for others."""
    query = select(entry.c.seq, entry.c.body).where(entry.c.kind == "verdict").order_by(entry.c.seq)
    (_, first), *others = batch.connection.execute(query).all()
    for (seq, body), decided in zip(others, ([], [REJECTED]), strict=True):
        content = json.loads(body)
        content["data"] |= {"action": "hold", "rules": [ASTRAY], "mailing": json.loads(first)["data"]["mailing"]}
        content["data"]["decided"] = decided
        batch.connection.execute(update(entry).where(entry.c.seq == seq).values(body=json.dumps(content)))


def _as_before(batch: Batch) -> None:
    rows = select(entry.c.seq, entry.c.body, clear.c.doc).where(entry.c.kind == "verdict", clear.c.seq == entry.c.seq)
    for seq, body, doc in batch.connection.execute(rows).all():
        content, names = json.loads(body), json.loads(doc)
        [line] = names.pop(FACTS)
        content["private"].pop(FACTS)
        content["data"][FACTS] = {"mailing.customers": json.loads(line)["mailing.customers"]}
        batch.connection.execute(update(entry).where(entry.c.seq == seq).values(body=json.dumps(content)))
        batch.connection.execute(update(clear).where(clear.c.seq == seq).values(doc=json.dumps(names)))


async def test_a_new_list_of_the_file_is_read_for_the_replay(home: House) -> None:
    """A list that was never synced is read for the replay, and its index is thrown away."""
    (home.folder.parent / "offers.csv").write_text(f"email\n{MEMBERS[0]}\npeter@partner.example\n")
    for name in ("ramadan", "news"):
        (home.folder.parent / f"{name}.csv").write_text("email\nsomebody@example.net\n")
    (home.folder.parent / "staff.csv").write_text("email\nbo@example.com\n")
    for n, to in enumerate(("peter@partner.example", "petra@partner.example")):
        await home.send(to, id=f"T{n}", Message_ID=f"<{n}>", body=to)
    after = deepcopy(policy({"id": "customers", "when": {"recipients.customers": "any"}, "then": "hold"}))
    after["lists"]["offers"] = {"addresses": ["offers@lists.example.com"], "members": {"csv": "offers.csv"}}
    found = await compared(home, after)
    assert [one.will.actions for one in found] == [R | H, R]
    assert set(found[0].will.depends_on) == {"recipients.customers"}
    assert not list(home.folder.glob("offers*"))


async def test_only_messages_of_the_time_are_replayed(home: House) -> None:
    await sent(home, "T1")
    home.clock.pass_(days=5)
    await sent(home, "T2")
    assert [one.message.id for one in await compared(home, policy())] == ["T2"]
    assert [one.message.id for one in await compared(home, policy(), since=timedelta(days=9))] == ["T1", "T2"]
    assert await compared(home, policy(), since=timedelta(seconds=2)) == []
    assert home.clock.now() > MONDAY
