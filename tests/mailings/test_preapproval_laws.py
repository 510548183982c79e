"""Random histories of a mailing that can be approved beforehand: only an approval in force lets it pass to five customers or more
in a day, and one that was asked for beforehand covers its text, to its lists."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.admission.preapproval import Preapproval
from smtpguard.holds.model import Choice, Refused, State
from smtpguard.mail.address import Address
from smtpguard.policy.verdict import Held, Relayed
from smtpguard.reading.fingerprint import Sketch
from tests.guard.campaign import DPO, EVA, OMAR, Campaign, documents
from tests.guard.house import MEMBERS, FakePassage, House, house, index

READERS = [f"reader{n}@example.org" for n in range(30)]
TEXT = "Our summer offer: come to the shop and see it, it is only for a short time this year."
MORE = " And bacon for everybody."
TIMES = [timedelta(hours=1), timedelta(hours=23), timedelta(hours=25), timedelta(days=3), timedelta(days=6, hours=23)]


@dataclass(frozen=True, slots=True)
class Given:
    """``test``: it was asked for beforehand. Otherwise what it covers is learned from the copies that waited."""

    at: datetime
    lists: frozenset[str]
    test: bool


class Play:
    def __init__(self, home: House, chance: random.Random) -> None:
        self.home, self.chance, self.campaign = home, chance, Campaign(home, copies=50)
        self.given: list[Given] = []
        self.passed: list[tuple[datetime, str]] = []
        self.n = 0
        home.reader.sketch = Sketch(tuple(range(200, 264)))
        home.verifier.domains = frozenset({"campaigns.example.com"})
        self.campaign._intake.own = [
            Preapproval(
                address=Address.parse("approve@guard.example.com"), store=home.store, policies=home, gather=home.gather,
                term=self.campaign.term, notices=home.notices,
            )
        ]  # fmt: skip
        self.read_lists()

    def read_lists(self) -> None:
        for name, people in (("ramadan", MEMBERS), ("news", READERS)):
            index(self.home.folder, name, people, self.home.clock.now())
        self.home.in_force.registry.reopen()

    async def send(self, *to: str, body: str = TEXT) -> object:
        self.n += 1
        signed = "v=1; d=campaigns.example.com"
        message = self.home.transaction(
            *to, sender="campaigns@example.com", reverse_path="campaigns@example.com", X_Looks="mailing", X_Mailing="summer",
            DKIM_Signature=signed, Message_ID=f"<{self.n}@example.com>", body=body,
        )  # fmt: skip
        done = await self.campaign._intake(message, FakePassage())
        await self.campaign.noted()
        return done

    async def ask(self) -> None:
        names: Sequence[str] = self.chance.choice([("ramadan",), ("news",), ("ramadan", "news")])
        assert not isinstance(await self.send(*(f"approve+{name}@guard.example.com" for name in names)), Relayed)

    async def approve(self) -> None:
        waiting = [h for h in await self.home.holds() if h.state is State.WAITING and not h.primary]
        if not waiting:
            return
        hold = self.chance.choice(waiting)
        for who in (EVA, OMAR, DPO):
            try:
                await self.campaign.approvals.vote(hold.hold_id, Choice.APPROVE, approver=who, by="test")
            except Refused:
                continue
        await self.campaign.approvals.follow()
        if (await self.home.hold(hold.hold_id)).state in (State.GRANTED, State.APPROVED):
            self.given.append(Given(self.home.clock.now(), frozenset(hold.lists), hold.kind == "test"))

    async def take_back(self) -> None:
        for mailing in await self.campaign.service.list(least=0):
            acts: list[Any] = [self.campaign.service.reject, self.campaign.service.reopen]
            act = self.chance.choice(acts)
            try:
                await act(mailing.mailing_id, approver=EVA, by="test", comment="no")
            except Refused:
                continue
            self.given.clear()

    async def wait(self) -> None:
        self.home.clock.pass_(seconds=self.chance.choice(TIMES).total_seconds())
        self.read_lists()
        await self.home.watch.read()
        await self.campaign.approvals.follow()

    async def copy(self) -> None:
        to, other = self.chance.choice(self.chance.choice([MEMBERS, MEMBERS, READERS])), self.chance.random() < 0.1
        done, now = await self.send(to, body=TEXT + MORE * other), self.home.clock.now()
        lists = {"ramadan" if to in MEMBERS else "news"}
        given = [one for one in self.given if one.at > now - timedelta(days=7) and lists <= one.lists]
        few = len({to} | {person for at, person in self.passed if at > now - timedelta(days=1)}) < 5
        if isinstance(done, Relayed):
            assert few or any(not one.test or not other for one in given), (to, other)
            self.passed.append((now, to))
        if any(one.test for one in given) and not other:
            assert not isinstance(done, Held), to


@pytest.mark.parametrize("seed", range(2))
async def test_only_an_approval_lets_a_mailing_pass_to_many(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with house(tmp_path, documents=documents()) as home:
        play = Play(home, chance)
        often, rarely = [play.copy] * 5 + [play.approve] * 2, [play.ask, play.wait, play.take_back]
        for _ in range(60):
            await chance.choice([*often, *rarely])()
        assert len(play.passed) > 10
        assert (await home.store.journal.verify()).ok
