"""What happens in a random history: people write, decide and take back, are away, freeze, correct, and complain."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from smtpguard.admission.preapproval import NotAll
from smtpguard.freezes.service import SecondPersonNeeded
from smtpguard.holds.model import SENDING, Choice, Hold, Refused, State
from smtpguard.holds.questions import Questions
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.message import Message
from smtpguard.mailings.model import NoSuch
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.attempt import PACE
from smtpguard.policy.approvals import Absence
from smtpguard.policy.freezing import Selector
from smtpguard.reading.fingerprint import Sketch
from smtpguard.returns.model import Sort
from tests.guard import campaign
from tests.guard.campaign import ANNA, DPO, EVA, OMAR
from tests.guard.hosts import DEPUTY, NEWCOMERS, NEWS, READERS, TOOL
from tests.guard.house import MEMBERS, RAMADAN, mail
from tests.guard.laws import check_seat
from tests.guard.policies import STAGES, documents
from tests.guard.relaying import Staged
from tests.guard.upkeep import Upkeep
from tests.returns.mails import arf, dsn, letter

COLLEAGUES = ["ulf@example.com", "bo@example.com"]
VOTERS = (EVA, OMAR, DPO, DEPUTY, "new@example.com", "duty@example.com", ANNA)
Decision = Callable[["Acts", Hold, str], Awaitable[object]]
DECISIONS: dict[str, Decision] = {
    "reject": lambda it, hold, who: it.approvals.vote(
        hold.hold_id, Choice.REJECT, approver=who, by="test", comment="no"
    ),
    "withdraw": lambda it, hold, who: it.approvals.withdraw(
        hold.hold_id, sender=it.chance.choice([ANNA, TOOL]), by="test"
    ),
    "unvote": lambda it, hold, who: it.approvals.unvote(hold.hold_id, approver=who, by="test"),
    "say": lambda it, hold, who: it.say(hold, who, sent=it.chance.random() < 0.5),
    "confirm": lambda it, hold, who: it.approvals.confirm(hold.hold_id, writer=ANNA, by="test", people=hold.reach),
    "reopen": lambda it, hold, who: it.mailings.reopen(hold.mailing_id, approver=who, by="test", comment="no"),
    "reject all": lambda it, hold, who: it.mailings.reject(hold.mailing_id, approver=who, by="test", comment="no"),
    "go on": lambda it, hold, who: it.mailings.go_on(hold.mailing_id, approver=who, by="test", comment="no"),
    "stop": lambda it, hold, who: it.mailings.stop(hold.mailing_id, approver=who, by="test", comment="no"),
    "feedback": lambda it, hold, who: it.mailings.feedback(
        hold.mailing_id, bounces=it.chance.choice([1, 3]), by="test"
    ),
}
"""Against an approval, on stages, or on a doubt."""


class Acts(Upkeep):
    """``absent``: who has been away."""

    def __init__(self, folder: Path, seed: int, url: str = "") -> None:
        super().__init__(folder, seed, url)
        self.absent: set[str] = set()
        self._complaints, self._tripped = Counter[str](), set[str]()

    # mail

    async def post(self) -> None:
        chance = self.chance
        one, two = chance.sample([*MEMBERS, *NEWCOMERS], 2)
        some = [
            [one],
            [one, two],
            [RAMADAN],
            [RAMADAN, one],
            [one, one.replace("@", "+a@")],
            [NEWS],
            [NEWS, RAMADAN],
            COLLEAGUES[:1],
        ]
        many = [chance.sample(MEMBERS, 6), [*COLLEAGUES, *chance.sample(MEMBERS, 24)]]
        to, looks = chance.choice(some + many), chance.choice(["internal", "mailing", "unclear"])
        await self.submit(
            to, X_Looks=looks, X_Labels=chance.choice(["", "", "", "contract"]), body=f"Bacon {next(self._numbers)}?",
            sender=chance.choice([ANNA, ANNA, ANNA, EVA]), session=chance.choice([{}, {}, {}, {"auth_user": "eva"}]),
        )  # fmt: skip

    async def copy(self) -> None:
        chance = self.chance
        one = [chance.choice(MEMBERS)]
        to = chance.choice([one, one, one, chance.sample(MEMBERS, 3), [chance.choice(READERS)], [RAMADAN]])
        mailing = chance.choice(["spring", "spring", "wine"])
        one = [chance.choice(NEWCOMERS)] if chance.random() < 0.1 else one
        body = chance.choice([f"Copy {next(self._numbers)}", f"Copy of {mailing}"])
        session = {"auth_user": ANNA} if chance.random() < 0.4 else {}
        await self.submit(
            to,
            X_Looks="mailing",
            X_Mailing=mailing,
            body=body,
            sender=chance.choice([TOOL, ANNA, ANNA]),
            session=session,
        )

    async def copies(self) -> None:
        for _ in range(self.chance.choice([3, 5])):
            await self.copy()

    async def letters(self) -> None:
        """One person writes to one customer after the other, and to a list between."""
        chance, who = self.chance, self.chance.choice([ANNA, ANNA, EVA])
        session = chance.choice([{}, {"auth_user": who}])
        for _ in range(chance.choice([2, 4])):
            one, two = chance.sample(MEMBERS, 2)
            more = {"X_Mailing": chance.choice(["spring", "wine"])} if chance.random() < 0.3 else {}
            await self.submit(
                chance.choice([[one], [one], [one, two], [RAMADAN, one], [NEWS]]),
                X_Looks="unclear",
                sender=who,
                session=session,
                body=f"Letter {next(self._numbers)}",
                **more,
            )

    async def again(self) -> None:
        """A client tries again, mostly after a 451; or it sends once more what it has sent."""
        some = self.chance.choice([self._put_off, self._put_off, self._texts])[-30:]
        if some:
            await self._submitted(*self.chance.choice(some))

    async def correct(self) -> None:
        self.home.reader.sketch = Sketch(tuple(range(100, 164)))
        text = {"X_Looks": "mailing", "X_Mailing": "sorry", "Subject": "We are sorry", "body": "It was wrong."}
        some = await self.mailings.list(least=1)
        try:
            message, doubt = Message.of(mail(RAMADAN, **text)), self.chance.random() < 0.5
            hold = await self.corrections.begin(self.chance.choice(some), message, starter=EVA, by="test", doubt=doubt)
            for who in (OMAR, DPO):
                await self.approvals.vote(hold.hold_id, Choice.APPROVE, approver=who, by="test")
        except (Refused, NotAll, IndexError):
            pass
        for to in self.chance.sample(MEMBERS, 3):
            await self.submit([to], **text)
        self.home.reader.sketch = Sketch()

    async def ask_before(self) -> None:
        self.home.reader.sketch = Sketch(tuple(range(200, 264)))
        to, mailing = self.chance.choice(["ramadan", "news"]), self.chance.choice(["spring", "wine"])
        await self.submit(
            [f"approve+{to}@guard.example.com"],
            X_Looks="mailing",
            X_Mailing=mailing,
            body="Copy of spring",
            sender=TOOL,
        )
        self.home.reader.sketch = Sketch()

    async def campaign(self) -> None:
        """A mailing that must be approved; people decide; and some time later its writer goes on with it, as before or with what
        nobody has seen, or another one does."""
        chance, name = self.chance, f"campaign{next(self._numbers)}"
        people, internal = chance.sample(MEMBERS, 14), chance.random() < 0.4
        text: dict[str, Any] = {"X_Looks": "internal" if internal else "mailing", "X_Mailing": name, "body": name}
        text |= {"sender": chance.choice([ANNA, TOOL, EVA]), "session": chance.choice([{}, {"auth_user": ANNA}])}
        ids = [await self.submit(people[:6], To="all", **text)]
        ids += [await self.submit([one], **text) for one in people[6 : chance.choice([6, 8])]]
        waiting = [hold for hold in await self.home.holds() if hold.state is State.WAITING and not hold.primary]
        lead = next((hold for hold in waiting if hold.hold_id in ids), None)
        if lead is None:
            return
        most, rejects = chance.choice([0, 0, 9, 10]), chance.random()
        if rejects > 0.3:
            await self.approved(lead, [OMAR, DPO], most)
            await self.pass_(seconds=61)
            await self.approvals.enact()
            await self.approvals.follow()
        rejected = False
        try:
            if rejects < 0.3:
                await self.approvals.vote(lead.hold_id, Choice.REJECT, approver=OMAR, by="test", comment="no")
                rejected = True
            elif rejects < 0.5:
                await self.mailings.reject(lead.mailing_id, approver=OMAR, by="test", comment="no")
                rejected = True
        except Refused:
            pass
        later = chance.choice([timedelta(seconds=1), timedelta(hours=20), timedelta(days=8), timedelta(days=8)])
        await self.pass_(seconds=later.total_seconds())
        again = text | chance.choice([{}, {}, {"X_Looks": "internal"}, {"sender": "ulf@example.com", "session": {}}])
        for to in (people[6:12], [people[12]], [people[13]]):
            id = await self.submit(to, **again | ({"To": "all"} if to[1:] else {}))
            if rejected and later.days < 1 and not {*to}.isdisjoint(self.behind[id][RAMADAN]):
                hold = await self.store.holds.find(id)
                assert id not in self.sent, (lead.hold_id, "it was rejected", id)
                assert hold is None or hold.mailing_id != lead.mailing_id, (lead.hold_id, "people are asked again", id)

    async def let_go_in_stages(self, most: int) -> None:
        """A campaign that is surely let go: nothing is frozen or fails, and those who are asked agree. While they do, a copy may
        come to another list: who agreed before has not seen that. It goes in stages until the rest, and then its writer goes
        on, beyond what was approved, while again all may fail. ``most``: the people that the approvers name, 0 for none."""
        chance, name, stages = self.chance, f"staged{next(self._numbers)}", self.chance.choice(STAGES)
        await self._calm(campaign.documents(stages=stages))
        people = chance.sample([one for one in MEMBERS[:50] if one in self.indexed], 26)
        text: dict[str, Any] = {
            "X_Looks": "mailing",
            "X_Mailing": name,
            "body": name,
            "sender": chance.choice([ANNA, TOOL]),
        }
        ids = [await self.submit([one], **text) for one in people[:5]]
        lead = await self.home.hold(ids[-1])
        await self.approved(lead, [OMAR], most and most + 9)
        if most:
            await self.submit([next(one for one in MEMBERS[50:] if one in self.indexed)], **text)
            await self.approved(lead, [DPO], most)
            await self._enacted()
        pause = re.search(r"pause: (\d+)([mh])", stages)
        unit = {"m": 60, "h": 3600}
        self.staged[name] = Staged(
            steps=tuple(int(step) for step in re.findall(r"\b\d+(?=,)", stages)),
            pause=timedelta(seconds=int(pause[1]) * unit[pause[2]]) if pause else None,
            at=self.clock.now(),
            before=len(self._having(name)),
        )
        await self.approved(lead, [OMAR, EVA, DPO], most)
        await self._enacted()
        for n in range(5, 15, 2):
            for one in people[n : n + 2]:
                await self.submit([one], **text)
            await self._enacted()
            if n > 7:
                self.staged.clear()
                await self.pass_(hours=3)
                try:
                    await self.mailings.go_on(lead.mailing_id, approver=OMAR, by="test")
                except Refused:
                    pass
        self.faults = True
        some: list[tuple[list[str], dict[str, Any]]] = [
            (people[15:16], {}),
            (people[15:21], {"X_Looks": "internal", "To": "all"}),
            (["reader@example.org"], {}),
            (people[21:22], {"sender": "ulf@example.com"}),
            *((people[n : n + 1], {}) for n in (20, 22, 23, 24, 25)),
        ]
        for to, more in chance.sample(some, len(some)):
            await self.submit(to, **text | more)

    async def turn_away(self) -> None:
        """A campaign that is surely rejected: its copies are turned away for a day, and then people are asked again."""
        name = f"rejected{next(self._numbers)}"
        await self._calm(campaign.documents())
        people = self.chance.sample([one for one in MEMBERS[:50] if one in self.indexed], 8)
        text: dict[str, Any] = {"X_Looks": "mailing", "X_Mailing": name, "body": name}
        ids = [await self.submit([one], **text) for one in people[:5]]
        lead = await self.home.hold(ids[-1])
        await self.approvals.vote(lead.hold_id, Choice.REJECT, approver=OMAR, by="test", comment="no")
        assert await self.store.holds.find(await self.submit([people[5]], **text)) is None, "people are asked again"
        await self.pass_(hours=25)
        again = await self.submit([people[6]], **text)
        assert again in self.sent or await self.store.holds.find(again) is not None, (again, "rejected for good")
        self.faults = True

    async def _calm(self, policy: dict[str, bytes]) -> None:
        """Nothing is frozen or fails under this policy, until it may again."""
        self.faults = self.unsynced = False
        await self.pass_(seconds=61)
        await self.thaw()
        await self.home.put(policy)
        await self.follow()

    async def _enacted(self) -> None:
        await self.pass_(seconds=61)
        await self.approvals.enact()
        await self.approvals.follow()
        await self.work()

    async def returned(self) -> None:
        """Some of what arrived comes back: reports, complaints and answers, and what somebody invents, which never counts. At
        the second complaint a mailing stops, if the policy says so."""
        chance = self.chance
        for to, raw, message_id in chance.sample(self._arrived[-20:], min(len(self._arrived), chance.choice([1, 3]))):
            who, invented = chance.choice([*to, "stranger@example.org"]), chance.random() < 0.3
            raw = raw.replace(b"X-Smtpguard: id=", b"X-Smtpguard: id=Z") if invented else raw
            back = chance.choice(
                [
                    arf(raw),
                    arf(raw),
                    dsn(raw, who),
                    letter(who, "Re: lunch", message_id),
                    letter(who, "unsubscribe", message_id),
                ]
            )
            receipt = await self.returns.take(back)
            for one in receipt.returns:
                written = one.sort in (Sort.REPLY, Sort.UNSUBSCRIBE)
                assert not one.counts or (who in to or RAMADAN in to or NEWS in to if written else not invented), one
                self._complaints[one.match.mailing] += one.counts and one.sort is Sort.COMPLAINT
                due = self.home.in_force.breakers.each and self._complaints[one.match.mailing] > 1 and one.counts
                if due and await self.store.mailings.find(one.match.mailing) is not None:  # it is not forgotten
                    assert receipt.freezes or one.match.mailing in self._tripped, one
            self._tripped |= {stop.value for stop in receipt.freezes}
        await self.home.watch.read()

    # decisions

    async def answer(self) -> None:
        await self.mailboxes.answer()

    async def vote(self) -> None:
        await self._approve(self.chance.sample(VOTERS, self.chance.choice([1, 3])))

    async def let_go(self) -> None:
        """All agree, or one does; nobody takes it back, and it goes out if that is enough."""
        await self._approve(self.chance.sample(VOTERS, self.chance.choice([1, 7, 7])))
        await self._enacted()

    async def reject_copy(self) -> None:
        some = [hold for hold in await self.home.holds() if hold.primary]
        try:
            await DECISIONS["reject"](self, self.chance.choice(some), self.chance.choice([EVA, OMAR, DPO]))
        except (Refused, IndexError):
            pass

    async def take_back(self) -> None:
        """All agree, and somebody decides against it before it goes out."""
        await self.decide(await self._approve(VOTERS))

    async def _approve(self, people: Sequence[str]) -> str:
        """Returns on which hold."""
        waiting = [hold for hold in await self.home.holds() if hold.state is State.WAITING]
        if not waiting:
            return ""
        hold, most = self.chance.choice(waiting), self.chance.choice([0, 0, 0, 2, 10])
        await self.approved(hold, people, most)
        return hold.hold_id

    async def approved(self, hold: Hold, people: Sequence[str], most: int) -> None:
        lead = hold.primary or hold.hold_id
        for who in people:
            first = await self.home.hold(lead)
            try:
                await self.approvals.vote(
                    hold.hold_id, Choice.APPROVE, approver=who, by="test", all_at_once=hold.reach, people=most
                )
            except Refused:
                continue
            assert first.acknowledged, (lead, "its client still has it")
            assert who not in self.wrote.get(lead, ()), (lead, "on their own message", who)
            check_seat(first.verdict.quorum, who)

    async def decide(self, id: str = "") -> None:
        """``id``: of the hold; "" for any."""
        self.staged.clear()
        chance, holds = self.chance, await self.home.holds()
        if not holds:
            return
        some = chance.choice(
            [[hold for hold in holds if hold.state in SENDING], [hold for hold in holds if hold.release_at]]
        )
        hold = chance.choice([hold for hold in holds if hold.hold_id == id] or some or holds)
        try:
            await DECISIONS[chance.choice([*DECISIONS])](self, hold, chance.choice([EVA, OMAR, DPO]))
        except (Refused, NoSuch):
            pass

    async def say(self, hold: Hold, who: str, *, sent: bool) -> None:
        """A person's word about a release in doubt counts as the relay's."""
        asked = await self.store.ask(lambda c: outboxes.asked(c, hold.hold_id, self.store.now_us()))
        await self.approvals.answer_doubt(hold.hold_id, sent=sent, approver=who, by="test")
        self.doubted = {one for one in self.doubted if not one.startswith(hold.hold_id.encode())}
        self.tries = Counter({way: n for way, n in self.tries.items() if not way[0].startswith(hold.hold_id.encode())})
        if sent:
            has = {str(one.outcome.recipient.address) for some in asked.values() for one in some}
            self.said[hold.hold_id] |= has
            self.took[hold.hold_id] |= has

    async def words(self) -> None:
        """Somebody who decides asks the writer, who answers; or the writer asks for the release."""
        waiting = [hold for hold in await self.home.holds() if hold.state is State.WAITING]
        if not waiting:
            return
        chance, hold = self.chance, self.chance.choice(waiting)
        said = Questions(
            self.store, self.home, self.clock, new_id=lambda: f"Q{next(self._numbers)}", notices=self.home.notices
        )
        some: list[Callable[[], Awaitable[None]]] = [
            partial(said.ask, hold.hold_id, "Bacon?", approver=chance.choice(VOTERS), by="test"),
            partial(said.answer, hold.hold_id, "Yes", sender=chance.choice([ANNA, TOOL]), by="test"),
            partial(said.plead, hold.hold_id, "Please", sender=chance.choice([ANNA, TOOL]), by="test"),
        ]
        for one in chance.sample(some, 2):
            try:
                await one()
            except Refused:
                pass

    async def absence(self) -> None:
        chance, now = self.chance, self.clock.now()
        who, deputy = chance.choice([EVA, OMAR, DPO]), chance.choice(["", OMAR, DEPUTY])
        ended, until = now if chance.random() < 0.3 else None, now.date() + timedelta(days=chance.choice([0, 2]))
        made = Absence(
            person=who, since=now.date(), until=until, deputy=deputy, confirmed=chance.random() < 0.7, ended=ended
        )
        self.absent.add(who)
        event = Event(kind=Kind.ABSENCE, id="E", at=now, private={"account": (who,)})
        await self.store.people.change_absence(who, lambda said: (made, event))
        await self.follow()

    # freezes, policies, time, and the delivery worker

    async def meanwhile(self, id: str) -> None:
        """While a release of this hold is at the relay."""
        acts: list[Callable[[], Awaitable[None]]] = [
            partial(self.decide, id),
            self.decide,
            self.freeze,
            partial(self.freeze, everything=True),
            self.dawdle,
        ]
        await self.chance.choice(acts)()

    async def freeze(self, *, everything: bool = False) -> None:
        chance = self.chance
        kept = [("list", "ramadan"), ("list", "news"), ("sender", ANNA), ("all", "")]
        kept += [("mailing", one.mailing_id) for one in await self.mailings.list(least=1)]
        selector, value = ("all", "") if everything else chance.choice(kept)
        lasts = timedelta(hours=2) if chance.random() < 0.2 else None
        await self.freezes.freeze(Selector(selector), value, reason="a fire", by="root", for_=lasts)
        await self.home.watch.read()

    async def thaw(self) -> None:
        """Where two must agree, one alone lifts nothing."""
        for one in (await self.store.gate.read()).freezes:
            for who in ("root", "root", EVA) if self.freezes.thaw_two else (EVA,):
                try:
                    await self.freezes.thaw(one.freeze_id, by=who)
                except SecondPersonNeeded:
                    assert who == "root", (one, "two have agreed")
                    assert one in (await self.store.gate.read()).freezes, (one, "lifted by one")
        await self.home.watch.read()

    async def policy(self) -> None:
        self.staged.clear()
        await self.home.put(made := documents(self.chance))
        self.absent |= {OMAR} if OMAR.encode() not in made["policy.yaml"].partition(b"lists:")[0] else set()
        await self.follow()

    async def time(self) -> None:
        await self.pass_(seconds=self.chance.choice([1, 61, 61, 1900, 1900, 4000, 4000, 20_000, 90_000]))

    async def voids(self) -> None:
        """What a client still has is void after a while; it may come again."""
        await self.pass_(minutes=16)
        await self.approvals.sweep()
        for _ in range(self.chance.choice([0, 3])):
            await self.again()

    async def back(self) -> None:
        self.clock.at -= timedelta(seconds=self.chance.choice([1, 40]))
        await self.home.watch.read()

    async def dawdle(self) -> None:
        """The relay takes so long that another attempt may have begun."""
        self.clock.pass_(seconds=PACE.doubt.total_seconds())
        await self.home.watch.read()

    async def work(self) -> None:
        await self.office.go(seconds=self.chance.choice([1, 60, 400]))
        for lease in await self.store.outbox.lease(self.owner, self.chance.choice([1, 50]), 60):
            try:
                await self.office.worker.carry_out(lease)
            except asyncio.CancelledError:  # it is killed
                pass
