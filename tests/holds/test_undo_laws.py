"""The law of the release delay, for any order of actions of people, freezes, clocks, restarts and copies: nothing is
sent before it is due, and after Undo nothing is sent until a new approval is due."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.holds.model import Choice, Hold, Refused, State
from smtpguard.holds.service import Approvals
from smtpguard.policy.verdict import Held
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign, documents
from tests.guard.house import DOCUMENTS, MEMBERS, house

SECONDS = 60
STEPS = st.sampled_from(
    [
        *(f"approve {who}" for who in (EVA, DPO, OMAR)),
        *(f"undo {who}" for who in (EVA, OMAR, ANNA)),
        *("second", "20 seconds", "minute", "minute", "back", "work", "work", "enact", "enact", "follow", "sweep"),
        *(
            "freeze",
            "thaw",
            "restart",
            "copy",
            "copy",
            "left",
            "joined",
            "reject",
            "withdraw",
            "reject all",
            "reopen all",
        ),
    ]
)


class Play:
    """A mailing of two messages, to 25 people and to one. ``since``: when the last vote of the quorum was cast; None if
    it is incomplete or was undone."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign, self.home, self.office = campaign, campaign.home, campaign.office
        self.since: datetime | None = None
        self.released: set[str] = set()
        self.frozen, self.still = 0, False
        self.lead = ""
        self.next = 30

    @property
    def approvals(self) -> Approvals:
        return self.campaign.approvals

    async def begin(self) -> None:
        term = replace(self.campaign.term, copies=50, release_delay_seconds=SECONDS)
        self.home.term = self.approvals.term = self.campaign._intake.term = term
        self.campaign.service.term = term
        first = await self.campaign.send(*MEMBERS[:25])
        assert isinstance(first, Held)
        self.lead = first.hold_id
        await self.campaign.send(MEMBERS[26])

    async def hold(self) -> Hold:
        return await self.home.hold(self.lead)

    def sent(self) -> int:
        """The number of messages to customers that the relay has."""
        return sum(not {str(a) for a in e.addresses}.isdisjoint(MEMBERS) for e, _ in self.office.relay.taken)

    async def policy(self, compliance: str) -> None:
        policy = (
            (documents()["policy.yaml"]).decode().replace("compliance: [dpo@example.com", f"compliance: [{compliance}")
        )
        await self.home.put({**DOCUMENTS, "policy.yaml": policy.encode()})
        await self.home.follow()
        await self.home.watch.read()

    async def step(self, what: str) -> None:
        before, now = await self.hold(), self.home.clock.now()
        word, _, rest = what.partition(" ")
        try:
            await self.do(word, rest)
            if word == "undo":
                self.since = None
        except Refused:
            pass
        after = await self.hold()
        if after.release_at is not None and before.release_at is None:
            assert after.release_at.timestamp() == now.timestamp() + SECONDS
            self.since = now
        elif after.state is State.WAITING and after.release_at is None:
            self.since = None

    async def do(self, word: str, rest: str) -> None:
        home, office = self.home, self.office
        match word:
            case "approve":
                await self.approvals.vote(self.lead, Choice.APPROVE, approver=rest, by="test")
            case "undo":
                await self.approvals.unvote(self.lead, approver=rest, by="test")
            case "reject" | "reopen" if rest == "all":
                [one] = await self.campaign.service.list(least=1)
                act = self.campaign.service.reject if word == "reject" else self.campaign.service.reopen
                await act(one.mailing_id, approver=EVA, by="test", comment="no")
            case "reject":
                await self.approvals.vote(self.lead, Choice.REJECT, approver=OMAR, by="test", comment="no")
            case "withdraw":
                await self.approvals.withdraw(self.lead, sender=ANNA, by="test")
            case "second" | "20" | "minute":
                await office.go(seconds={"second": 1, "20": 20, "minute": 60}[word])
            case "back":  # the clock is set back
                home.clock.at = home.clock.at.fromtimestamp(home.clock.at.timestamp() - 40, home.clock.at.tzinfo)
                await home.watch.read()
            case "work":
                for lease in await home.store.outbox.lease("one", 50, 0):
                    await office.worker.carry_out(lease)
            case "enact":
                await self.approvals.enact()
            case "follow":
                await self.approvals.follow()
            case "sweep":
                await self.approvals.sweep()
            case "freeze" if not self.still:
                self.frozen, self.still = self.frozen + 1, True
                await home.freeze(id=f"F{self.frozen}")
            case "thaw" if self.still:
                self.still = False
                await home.thaw(f"F{self.frozen}")
            case "restart":
                self.campaign.approvals = home.approvals()
                office.worker = office.hire("another")
            case "copy":
                self.next += 1
                await self.campaign.send(MEMBERS[self.next])
            case "left":
                await self.policy("new@example.com")
            case "joined":
                await self.policy("dpo@example.com")

    async def check(self) -> None:
        """Assert that the outbox has no release, and the relay no message, that was not due."""
        now, lead = self.home.clock.now(), await self.hold()
        sendings = {h.hold_id: (await self.home.store.holds.outgoing(h.hold_id)).own for h in await self.home.holds()}
        out = {id for id, sending in sendings.items() if sending is not None}
        due = self.since is not None and lead.release_at is None
        fresh = out - self.released
        assert not fresh or due, f"{fresh} is in the outbox, and nobody's approval stands"
        if fresh and self.since is not None:
            assert (now - self.since).total_seconds() >= SECONDS or self.released, (
                "it is in the outbox before it is due"
            )
        if lead.state is State.WAITING:
            assert self.lead not in out
        self.released |= out


@given(st.lists(STEPS, max_size=22))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_is_released_before_its_time_or_after_undo(tmp_path: Path, steps: list[str]) -> None:
    async def play(folder: Path) -> None:
        async with house(folder, documents=documents()) as home:
            one = Play(Campaign(home, copies=50))
            await one.begin()
            for what in (f"approve {EVA}", f"approve {DPO}", *steps):
                sent, hold = one.sent(), await one.hold()
                await one.step(what)
                await one.check()
                if hold.state is State.WAITING and what != "enact":
                    assert one.sent() == sent or one.released, "the relay got a waiting message"
            assert (await home.store.journal.verify()).ok

    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        asyncio.run(play(Path(folder)))


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_without_interference_the_steps_release_or_undo_all(tmp_path: Path) -> None:
    """The steps work: without interference both are sent when they are due; after Undo, neither."""

    async def play(folder: Path, *steps: str) -> tuple[int, list[str]]:
        async with house(folder, documents=documents()) as home:
            one = Play(Campaign(home, copies=50))
            await one.begin()
            for what in (f"approve {EVA}", f"approve {DPO}", *steps):
                await one.step(what)
                await one.check()
            return one.sent(), [hold.state.value for hold in await home.holds()]

    ends = ("enact", "second", "work")
    assert asyncio.run(play(made(tmp_path / "a"), "minute", *ends)) == (2, ["released"] * 2)
    assert asyncio.run(play(made(tmp_path / "b"), "20 seconds", *ends)) == (0, ["waiting"] * 2)
    assert asyncio.run(play(made(tmp_path / "c"), f"undo {OMAR}", "minute", *ends)) == (0, ["waiting"] * 2)
    assert asyncio.run(play(made(tmp_path / "d"), "minute", "restart", *ends)) == (2, ["released"] * 2)
    assert asyncio.run(play(made(tmp_path / "e"), "left", "minute", *ends)) == (0, ["waiting"] * 2)
    assert asyncio.run(play(made(tmp_path / "f"), "freeze", "minute", *ends, "thaw")) == (0, ["approved"] * 2)
    assert asyncio.run(play(made(tmp_path / "h"), "freeze", "minute", *ends, "thaw", "work")) == (2, ["released"] * 2)
    assert asyncio.run(play(made(tmp_path / "i"), "reject", "minute", *ends)) == (0, ["rejected"] * 2)
    assert asyncio.run(play(made(tmp_path / "k"), "reject all", "minute", *ends)) == (0, ["rejected"] * 2)
    assert asyncio.run(play(made(tmp_path / "j"), "withdraw", "minute", *ends)) == (0, ["withdrawn"] * 2)
    assert asyncio.run(play(made(tmp_path / "g"), "copy", "minute", *ends)) == (3, ["released"] * 3)
