"""Laws of revocation, for any order of actions of people, freezes, the relay and failures. Mail that is said to be
revoked is not sent, mail that is said never to have been sent was not, and no other mail is lost."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.holds.model import Choice, Conflict, Hold, Refused, State
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import RELAY_LOST, RELAY_UNAVAILABLE
from smtpguard.outbox.model import IntentKind, Lease
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign, documents
from tests.guard.house import MEMBERS, house
from tests.guard.office import LATER, NO

OVER = {State.REJECTED, State.WITHDRAWN, State.EXPIRED, State.WAITING}
"""States that say that no recipient has the message."""
STEPS = st.sampled_from(
    [
        *("work", "work", "take up", "carry out", "freeze", "thaw", "minute", "hour", "follow"),
        *("reject", "withdraw", "reopen", "reject all", "approve", "new owner"),
    ]
)
RELAYS = st.sampled_from(["well", "later", "no", "away", "lost", "lost, but taken", "recalled", "killed"])


class Play:
    """An approved mailing of three messages, the first to several people. ``gone``: how many recipients of each had it
    when it was said to be revoked."""

    def __init__(self, campaign: Campaign, relays: list[str]) -> None:
        self.campaign, self.home, self.office = campaign, campaign.home, campaign.office
        self.relays = relays
        self.in_hand: list[Lease] = []
        self.frozen, self.freezes = False, 0
        self.gone: dict[str, int] = {}

    def has(self, hold: Hold) -> int:
        return sum(self.office.relay.has(str(a)) for a in hold.envelope.addresses)

    def end(self, what: str) -> None:
        """Set what the relay does next."""
        relay = self.office.relay
        relay.says = {m: {"later": LATER, "no": NO}[what] for m in MEMBERS[::2]} if what in ("later", "no") else {}
        relay.raises = {
            "away": Lost(RELAY_UNAVAILABLE),
            "lost": Lost(RELAY_LOST, after_dot=True),
            "lost, but taken": Lost(RELAY_LOST, after_dot=True),
            "killed": asyncio.CancelledError(),
        }.get(what)
        relay.takes_before_raising = what in ("lost, but taken", "killed")
        relay.before_dot = self.freeze if what == "recalled" else lambda: None

    async def freeze(self) -> None:
        if not self.frozen:
            self.freezes += 1
            await self.home.freeze(id=f"F{self.freezes}")
        self.frozen = True

    async def thaw(self) -> None:
        if self.frozen:
            await self.home.thaw(f"F{self.freezes}")
        self.frozen = False

    async def carry_out(self, leases: list[Lease]) -> None:
        for lease in leases:
            of_people = lease.intent.kind is IntentKind.RELEASE
            self.end(self.relays.pop(0) if of_people and self.relays else "well")
            try:
                await self.office.worker.carry_out(lease)
            except asyncio.CancelledError:
                pass

    async def step(self, what: str) -> None:
        home, office = self.home, self.office
        lead = (await self.home.holds())[0]
        mailing = await self.campaign.service.show(lead.mailing_id)
        match what:
            case "work":
                await office.go(seconds=1)
                await self.carry_out(list(await home.store.outbox.lease("one", 20, 60)))
            case "take up":
                self.in_hand += await home.store.outbox.lease("two", 20, 60)
            case "carry out":
                self.in_hand, late = [], self.in_hand
                await self.carry_out(late)
            case "new owner":
                office.worker = office.hire("another")
            case "freeze":
                await self.freeze()
            case "thaw":
                await self.thaw()
            case "minute" | "hour":
                await office.go(**{f"{what}s": 1})
            case "follow":
                await self.campaign.approvals.follow()
            case "reject all" | "reopen":
                act: Any = self.campaign.service.reject if what == "reject all" else self.campaign.service.reopen
                await self.revoke(act(mailing.mailing_id, approver=EVA, by="test", comment="no"), None)
            case "approve" if mailing.entry:
                for who in (EVA, DPO):
                    try:
                        await self.campaign.approvals.vote(mailing.entry, Choice.APPROVE, approver=who, by="test")
                    except Conflict:
                        pass
                self.gone = {}
            case "reject":
                vote = self.campaign.approvals.vote(lead.hold_id, Choice.REJECT, approver=OMAR, by="test", comment="no")
                await self.revoke(vote, lead.hold_id)
            case "withdraw":
                withdrawal = self.campaign.approvals.withdraw(lead.hold_id, sender=ANNA, by="test")
                await self.revoke(withdrawal, lead.hold_id)

    async def revoke(self, act: Any, hold_id: str | None) -> None:
        try:
            await act
        except Refused:
            return
        for hold in await self.home.holds():
            if hold_id is None or hold.state in OVER or hold.stopped:
                self.gone[hold.hold_id] = self.has(hold)

    async def check(self) -> None:
        for hold in await self.home.holds():
            id, has = hold.hold_id, self.has(hold)
            if hold.state in OVER:
                assert has == 0, f"{id} is {hold.state.value}, and the relay has it"
            if id in self.gone:
                assert has == self.gone[id], f"{id} was taken back, and the relay got more of it"


@given(st.lists(STEPS, max_size=14), st.lists(RELAYS, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_revoked_mail_is_not_sent_and_other_mail_is_not_lost(
    tmp_path: Path, steps: list[str], relays: list[str]
) -> None:
    async def play(folder: Path) -> None:
        async with house(folder, documents=documents()) as home:
            campaign = Campaign(home, copies=50)
            await campaign.send(*MEMBERS[:6])
            for n in (10, 11):
                await campaign.send(MEMBERS[n])
            one = Play(campaign, list(relays))
            await campaign.decide((await home.holds())[0].hold_id)
            for what in steps:
                await one.step(what)
                await one.check()
            one.relays.clear()
            await one.thaw()
            for _ in range(8):  # a recipient in doubt is retried after half an hour
                await campaign.approvals.follow()
                await one.step("work")
                await one.check()
                await campaign.office.go(minutes=40)
            for hold in await home.holds():
                id = hold.hold_id
                assert hold.state not in (State.APPROVED, State.RELEASING), f"{id} is neither sent nor taken back"
                assert not (await home.store.holds.outgoing(id)).stoppable, f"something of {id} could still be sent"
                if hold.state is State.RELEASED and not hold.stopped:
                    failed = sum(
                        d["outcome"] == "failed" for k, d in await home.events(id) if k in ("release", "in-doubt")
                    )
                    assert one.has(hold) or failed, "lost"
            proof = await home.store.journal.verify()
            assert proof.ok

    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        asyncio.run(play(Path(folder)))


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_without_interference_the_steps_send_or_revoke_all(tmp_path: Path) -> None:
    """The steps work: without interference all three are sent; revoked at once, none."""

    async def play(folder: Path, what: str) -> list[str]:
        async with house(folder, documents=documents()) as home:
            campaign = Campaign(home, copies=50)
            await campaign.send(*MEMBERS[:6])
            for n in (10, 11):
                await campaign.send(MEMBERS[n])
            one = Play(campaign, [])
            await campaign.decide((await home.holds())[0].hold_id)
            await one.step(what)
            await one.step("work")
            return [hold.state.value for hold in await home.holds()]

    assert asyncio.run(play(made(tmp_path / "a"), "minute")) == ["released"] * 3
    assert asyncio.run(play(made(tmp_path / "b"), "reject")) == ["rejected"] * 3
    assert asyncio.run(play(made(tmp_path / "c"), "withdraw")) == ["withdrawn"] * 3
    assert asyncio.run(play(made(tmp_path / "d"), "reopen")) == ["waiting"] * 3
