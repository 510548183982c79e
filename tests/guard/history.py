"""Random histories of a guard: mail of all kinds, a relay that does as drawn, people who decide and take back, absences,
freezes, corrections, returns, erasure, other policies, restarts, and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sqlalchemy import select

from smtpguard.database.schema import outbox, underway
from smtpguard.holds.model import LIVE, Refused
from smtpguard.observe import figures
from smtpguard.outbox.asking import report_doubts
from tests.guard.acts import VOTERS, Acts

ACTS = {
    "post": 3, "copy": 3, "copies": 3, "work": 8, "chores": 6, "vote": 3, "let_go": 8, "answer": 6, "decide": 2, "take_back": 3, "time": 3,
    "again": 3, "returned": 3, "thaw": 4, "freeze": 1, "absence": 1, "words": 1, "policy": 1, "sync": 1, "back": 1, "correct": 1,
    "ask_before": 1, "campaign": 2, "restart": 1, "retain": 1, "preserve": 1, "renew": 1, "outage": 1, "back_up": 1,
    "letters": 3, "voids": 2, "reject_copy": 1,
}  # fmt: skip
"""What happens, and how often. Histories that erase or forget do some of it more often."""
ERASING, FORGETTING = {"erase": 2, "preserve": 2}, {"preserve": 2, "retain": 2}


class History(Acts):
    """Acts and chores as drawn, until an end in which nothing fails."""

    async def act(self) -> None:
        if self.chance.random() < 0.3:
            await self.move()
        acts = Counter(ACTS) + Counter(ERASING if self.erases else {}) + Counter(FORGETTING if self.forgets else {})
        [what] = self.chance.choices([*acts], [*acts.values()])
        act: Callable[[], Awaitable[None]] = getattr(self, what)
        await act()

    async def chores(self) -> None:
        journal = self.store.journal
        some: list[Callable[[], Awaitable[object]]] = [
            *self.regular(),
            journal.index,
            journal.move_fronts,
            journal.checkpoint,
            self.tell,
            self.count,
        ]
        for one in self.chance.sample(some, 4):
            await one()

    def regular(self) -> list[Callable[[], Awaitable[object]]]:
        approvals = self.approvals
        lift = replace(self.freezes, thaw_two=False).lift_ended  # as the delivery part does
        return [approvals.sweep, approvals.enact, approvals.follow, approvals.ask, lift, self.doubts]

    async def doubts(self) -> None:
        await report_doubts(self.store, self.clock)

    async def tell(self) -> int:
        return await self.teller.tell(self.hook)

    async def count(self) -> None:
        """As the metrics part does, a few entries at a time."""
        found, last = await self.store.ask(lambda c: figures.news(c, self.tallied, self.chance.choice([3, 1000])))
        held = await self.store.ask(lambda c: figures.held(c, found))
        for event in found:
            self.tally.add(event, held.get(event.id))
        self.tallied = last

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def end(self) -> None:
        """Nothing fails any more, nothing is frozen, nobody decides; until nothing waits, or a month has passed."""
        self.faults = self.unsynced = False
        for n in range(60):
            if n and not await self.left():
                break
            await self.thaw()
            for one in self.regular():
                await one()
            for hold in await self.store.holds.asked_about():
                for who in VOTERS:
                    try:
                        await self.say(hold, who, sent=True)
                        break
                    except Refused:
                        continue
            for lease in await self.store.outbox.lease(self.owner, 500, 60):
                await self.office.worker.carry_out(lease)
            await self.pass_(hours=10)

    async def left(self) -> list[str]:
        """What waits: holds, messages without an outcome, and what is in the outbox."""
        wait = [hold.hold_id for hold in await self.home.holds() if hold.state in LIVE or hold.asked_at]
        ids = select(underway.c.id).where(underway.c.doubt.is_(False))
        going = ids.union(select(outbox.c.intent_id).where(outbox.c.done.is_(False)))
        return wait + list(await self.store.ask(lambda c: c.execute(going).scalars().all()))
