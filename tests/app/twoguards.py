"""Two guards under two policies that get the same mail, freezes and decisions; and the replay of the first's journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from smtpguard.admission.recorded import Recorded
from smtpguard.app.replaydiff import CompiledPolicy
from smtpguard.app.replayed import Judgement, Replay
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.model import Choice, Refused, State
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import Reply
from smtpguard.policy.freezing import Freeze
from smtpguard.policy.parse import parse
from smtpguard.policy.verdict import Action
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, FakePassage, House, house, index

Plain = dict[str, Any]
COPIES = 4
LATER = Reply(451, ("4.4.2 lost",))
NEWS = "news@lists.example.com"
STAFF = "staff@lists.example.com"


def documents(policy: Plain) -> dict[str, bytes]:
    more = {"vocabularies/wine.yaml": b"groups: [{language: en, terms: [wine]}]\n"}
    return {**DOCUMENTS, **more, "policy.yaml": yaml.dump(policy, Dumper=yaml.CSafeDumper, sort_keys=False).encode()}


def sample() -> Plain:
    """The house's policy, plus rules on the other facts."""
    policy: Plain = yaml.load(POLICY, Loader=yaml.CSafeLoader)
    policy["lists"]["news"]["avoid"] = ["wine"]
    policy["lists"]["staff"] = {"addresses": [STAFF], "members": {"csv": "staff.csv"}, "audience": "staff"}
    policy["rules"] += [
        {"id": "many-of-a-list", "when": {"mailing.share": ">= 0.2", "mailing.customers": ">= 5"}, "then": "hold"},
        {"id": "unapproved", "when": {"mailing.customers": ">= 12", "mailing.approved": False}, "unless": {"stream": "any"}, "then": "hold"},
        {"id": "busy", "when": {"sender.customers": ">= 25 in 1h"}, "then": "defer"},
        {"id": "storm", "when": {"recipients.reach": ">= 20", "thread.replies": ">= 3 in 10m"}, "then": "hold", "stop": "2h"},
        {"id": "watched", "when": {"recipients.reach": ">= 10"}, "then": "hold", "mode": "observe"},
        {"id": "strangers", "when": {"sender.internal": False, "recipients.audience": "customers"}, "then": "reject"},
    ]  # fmt: skip
    return policy


class TwoGuards:
    def __init__(self, first: House, second: House, before: Plain, after: Plain) -> None:
        self.first, self.second = first, second
        self.before, self.after = before, after
        self._grounds = {parse(documents(before)).sha256: before}
        for home in (first, second):
            home.term = Deadlines(copies=COPIES, release_delay_seconds=0)

    async def send(self, *to: str, lost: bool = False, **more: Any) -> None:
        """Submit the same message to both. ``lost``: the relay's answer after the dot is lost."""
        for home in (self.first, self.second):
            gone = Lost(LATER, after_dot=True) if lost else None
            await home.intake()(home.transaction(*to, **deepcopy(more)), FakePassage(raises=gone))

    async def reload(self, policy: Plain) -> None:
        """Put another policy in force in the first."""
        self._grounds[await self.first.put(documents(policy))] = policy
        await self.first.follow()
        await self.first.watch.read()

    async def really(self, id: str) -> Action:
        """The second's action. A retry of a message that it holds counts as held, whatever its verdict."""
        [data] = [data for kind, data in await self.second.settled(id) if kind == Kind.VERDICT.value]
        return Action.HOLD if data["retry"] or "mailing-stored" in data["rules"] else Action[data["action"].upper()]

    async def freeze(self, freeze: Freeze) -> None:
        for home in (self.first, self.second):
            event = Event(kind=Kind.FREEZE, id=freeze.freeze_id, at=home.clock.now())
            await home.store.gate.freeze(freeze, event)
            await home.watch.read()

    async def thaw(self, freeze_id: str) -> None:
        for home in (self.first, self.second):
            await home.store.gate.thaw(freeze_id, Event(kind=Kind.THAW, id=freeze_id, at=home.clock.now()))
            await home.watch.read()

    async def decide(self, hold_id: str, choice: Choice) -> None:
        """Vote on a hold of the first, and of the second if it waits there too."""
        for home in (self.first, self.second):
            hold = await home.store.holds.find(hold_id)
            for who in ("eva@example.com", "dpo@example.com"):
                if hold is None or hold.state is not State.WAITING:
                    break
                try:
                    await home.approvals().vote(hold_id, choice, approver=who, by="test")
                except Refused:
                    break
                hold = await home.store.holds.find(hold_id)

    def pass_(self, **time: float) -> None:
        for home in (self.first, self.second):
            home.clock.pass_(**time)

    async def foreseen(self, *, full: bool = True, kept: bool = True) -> dict[str, Judgement]:
        """The replay of the first's journal under the second's policy, by message. Without ``full``: names and facts
        are erased. Without ``kept``: the policies of that time are gone."""
        grounds = {sha256: ground(self.first, policy) for sha256, policy in self._grounds.items() if kept}
        other = ground(self.first, self.after)
        course, found = Replay(other, copies=COPIES), {}
        await self.first.store.journal.catch_up()
        for entry, clear in await self.first.store.journal.entries(limit=100_000):
            if entry.kind != Kind.VERDICT.value:
                continue
            message = Recorded(entry, clear if full else None)
            if message.decided and not message.again:
                found[message.id] = course.judge(message, grounds.get(message.policy))
        return found


def ground(home: House, policy: Plain) -> CompiledPolicy:
    return CompiledPolicy(home.build(documents(policy)))


@asynccontextmanager
async def two_guards(folder: Path, before: Plain, after: Plain) -> AsyncIterator[TwoGuards]:
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
        index(folder / name / "indexes", "staff", [f"colleague{n}@example.com" for n in range(30)])
        index(folder / name / "indexes", "offers", ["x1@example.org", *MEMBERS[:3]])
    async with (
        house(folder / "first", documents=documents(before)) as first,
        house(folder / "second", documents=documents(after)) as second,
    ):
        yield TwoGuards(first, second, before, after)
