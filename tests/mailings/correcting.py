"""A mailing that four people got or may have got, and its correction. ``main``, in its own process, sends copies of it and
is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from smtpguard.admission.preapproval import Corrections
from smtpguard.holds.model import Choice, Hold
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Fence, Lost
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RELAY_LOST, Reply
from smtpguard.mailings.model import Mailing
from smtpguard.notices.intents import Notices
from smtpguard.policy.verdict import Disposition
from smtpguard.reading.fingerprint import Sketch
from tests.guard.campaign import DPO, EVA, OMAR, Campaign, documents
from tests.guard.house import KEY, MEMBERS, RAMADAN, FakePassage, House, house, mail

GOT, MAY = MEMBERS[:3], MEMBERS[3]
TEXT: dict[str, Any] = {"X_Looks": "mailing", "X_Mailing": "sorry", "Subject": "We are sorry", "body": "It was wrong."}
SORRY = Sketch(tuple(range(100, 164)))


def digest(address: str) -> bytes:
    return Digester(KEY, "+").of(Address.parse(address))


class _Seen:
    """Passes messages to the relay. ``reached``: the relay has it or may have it."""

    def __init__(self, way: FakePassage) -> None:
        self._way, self.reached = way, False

    def begin(self) -> None:
        self._way.begin()

    async def send(self, prepend: bytes, fence: Fence) -> tuple[Reply, ...]:
        try:
            replies = await self._way.send(prepend, fence)
        except Lost as lost:
            self.reached = lost.after_dot
            raise
        self.reached = any(reply.positive for reply in replies)
        return replies

    async def abandon(self) -> None:
        await self._way.abandon()


class Correcting:
    """``reached``: address -> number of copies of the correction that the relay has or may have."""

    def __init__(self, home: House) -> None:
        self.home, self.campaign = home, Campaign(home)
        self.reached: dict[str, int] = {}
        self._n = 0
        self.corrections = Corrections(
            store=home.store, policies=home, gather=home.gather, clock=home.clock, new_id=lambda: next(home.ids),
            term=self.campaign.term, notices=Notices(),
        )  # fmt: skip

    async def original(self) -> Mailing:
        for one in GOT:
            await self.campaign.send(one)
        transaction = self.home.transaction(
            MAY, X_Looks="mailing", X_Mailing="spring", Message_ID="<doubt@example.com>"
        )
        await self.home.intake()(transaction, FakePassage(raises=Lost(RELAY_LOST, after_dot=True)))
        await self.campaign.noted()
        [mailing] = await self.home.store.mailings.newest()
        return mailing

    def message(self, **more: Any) -> Message:
        self.home.reader.sketch = SORRY
        return Message.of(mail(RAMADAN, **(TEXT | more)))

    async def begin(self, mailing: Mailing, *, starter: str = EVA, doubt: bool = False, **more: Any) -> Hold:
        return await self.corrections.begin(mailing, self.message(**more), starter=starter, by="test", doubt=doubt)

    async def approve(self, hold: Hold) -> None:
        for who in (OMAR, DPO):
            await self.campaign.approvals.vote(hold.hold_id, Choice.APPROVE, approver=who, by="test")

    async def send(self, *to: str, way: FakePassage | None = None, **more: Any) -> Disposition:
        self._n += 1
        headers = TEXT | {"Message_ID": f"<sorry{self._n}.{os.getpid()}@example.com>"} | more
        seen = _Seen(way or FakePassage())
        done = await self.home.intake()(self.home.transaction(*to, **headers), seen)
        if seen.reached:
            for one in to:
                self.reached[one] = self.reached.get(one, 0) + 1
        await self.campaign.noted()
        return done


@asynccontextmanager
async def correcting(folder: Path, url: str | None = None) -> AsyncIterator[Correcting]:
    async with house(folder, documents=documents(), url=url) as home:
        yield Correcting(home)


async def killed(folder: str, url: str, when: str) -> None:
    """Send to the people who got the mailing. The process dies ``before`` or ``after`` the final dot of the second
    message."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Killing(FakePassage):
        async def send(self, prepend: bytes, fence: Any) -> Any:
            done = await super().send(prepend, fence)
            print("sent", flush=True)
            die()
            return done

    async with correcting(Path(folder), url) as here:
        here.home.reader.sketch = SORRY
        here.home.ids = iter(f"K{n:015d}" for n in range(1000))
        await here.send(GOT[0])
        await here.send(GOT[1], way=FakePassage(before_dot=die) if when == "before" else Killing())


def main(folder: str, url: str, when: str) -> None:
    asyncio.run(killed(folder, url, when))
