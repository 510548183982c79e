"""What a random history gives to the relay, and the laws that it keeps there: mail as it comes, with all that can happen to it
before and at its final dot, and what is released."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from smtpguard.admission.model import Explained
from smtpguard.app.explaining import Explainer
from smtpguard.database.errors import StoreError
from smtpguard.holds.model import Hold, State
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Answers, Envelope, Fence, Lost, Recalled, Transaction
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RELAY_UNAVAILABLE
from smtpguard.outbox.attempt import PACE
from smtpguard.policy.verdict import Deferred, Held, Rejected
from smtpguard.reading.request import Surroundings
from smtpguard.store.retention import DOUBTS
from tests.guard.campaign import ANNA, DPO, EVA, OMAR
from tests.guard.hosts import NEWS, READERS, Hosts
from tests.guard.house import RAMADAN, FakePassage
from tests.guard.laws import check_covered, check_hold_not_frozen, check_release, check_sent, check_turned_away
from tests.guard.office import LATER, NO, OK

TRACE = re.compile(rb"X-Smtpguard: id=([^;\s]+)")
RELEASE = re.compile(rb"X-Smtpguard-Release: (\S+)")
Text = tuple[list[str], dict[str, Any]]


def person(address: str) -> str:
    return Address.parse(address).canonical("+")


class Broken(BaseException):
    """A law is broken at the relay. A worker takes every Exception there for a lost connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """An approval in stages, of which only numbers count: ``steps`` before the rest, with ``pause`` between two, None if
    a person ends it. ``before``: how many had it by then."""

    steps: tuple[int, ...]
    pause: timedelta | None
    at: datetime
    before: int


class Relaying(Hosts):
    """``said``: for each message the recipients that the relay, or a person about it, said that it has; ``took``: those that
    it has. ``lost``: the messages whose connection was lost after the dot. By release and recipient: whom the relay ``refused``, and
    how many ``tries`` it may have taken. ``foretold``: what ``explain`` said of a message just before it was sent. ``staged``: the
    approval in stages of a campaign, as long as nothing but time can end a pause; ``copies_of``: the messages of a campaign;
    ``behind``: who was on its lists as it came; ``released``: and as its last attempt began;
    ``looked``: how often a law was looked at."""

    def __init__(self, folder: Path, seed: int, url: str = "") -> None:
        super().__init__(folder, seed, url)
        self.said: dict[str, set[str]] = defaultdict(set)
        self.took: dict[str, set[str]] = defaultdict(set)
        self.doubted: set[bytes] = set()
        self.refused: set[tuple[bytes, str]] = set()
        self.tries = Counter[tuple[bytes, str]]()
        self.lost: set[str] = set()
        self.staged: dict[str, Staged] = {}
        self.copies_of: dict[str, set[str]] = defaultdict(set)
        self.looked = Counter[str]()
        self.sent: set[str] = set()
        self.to: dict[str, list[str]] = {}
        self.wrote: dict[str, set[str]] = {}
        self.behind: dict[str, dict[str, Sequence[str]]] = {}
        self.released: dict[str, dict[str, Sequence[str]]] = {}
        self.foretold: dict[str, Explained] = {}
        self._texts: list[Text] = []
        self._put_off: list[Text] = []
        self._maybe: dict[str, datetime] = {}
        self._customers: dict[str, list[tuple[datetime, str, set[str]]]] = defaultdict(list)
        self._arrived: list[tuple[list[str], bytes, str]] = []

    # of Acts: what may happen while a message is on its way

    async def meanwhile(self, id: str) -> None:
        raise NotImplementedError

    async def freeze(self, *, everything: bool = False) -> None:
        raise NotImplementedError

    async def policy(self) -> None:
        raise NotImplementedError

    async def approved(self, hold: Hold, people: Sequence[str], most: int) -> None:
        raise NotImplementedError

    # what is released

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        try:
            return await self._delivered(envelope, content, prepend, fence)
        except AssertionError as broken:
            raise Broken from broken

    async def _delivered(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        found, everyone = TRACE.search(prepend), [str(a) for a in envelope.addresses]
        if found is None:  # a notice, or a report on a delivery
            self.mailboxes.put(everyone[0], content)
            return Answers(replies=[OK] * len(everyone))
        id, luck = found.group(1).decode(), self.chance.random() if self.faults else 1
        replies = [self.chance.choice([OK, OK, OK, LATER, NO]) if self.faults else OK for _ in everyone]
        if luck < 0.08:
            raise Lost(RELAY_UNAVAILABLE)
        if not await fence():
            raise Recalled
        self.released[id] = {**self.behind[id], **{one: some for one, some in self.lists().items() if one in everyone}}
        await check_release(self.store, id, prepend, everyone, self.wrote)
        began = self.clock.now()
        if self.faults and self.chance.random() < 0.4:
            await self.meanwhile(id)
        good = {a for a, reply in zip(everyone, replies, strict=True) if reply.positive}
        [release] = RELEASE.findall(prepend) or [b""]
        assert RAMADAN not in everyone or release not in self.doubted, (id, "the list may have it already")
        ways = [(release, one) for one in everyone]
        assert self.refused.isdisjoint(ways), (id, "refused for good")
        assert all(self.tries[way] < 2 for way in ways), (id, "a second duplicate")
        if luck < (0.6 if self.faults and release in self.doubted else 0.24):
            self.doubted.add(release)
            self.tries.update(ways)
            self.took[id] |= good if self.chance.random() < 0.5 else set()
            raise asyncio.CancelledError if 0.2 < luck < 0.24 else Lost(LATER, after_dot=True)
        if not await fence():
            raise Recalled
        await check_hold_not_frozen(self.store, id)
        assert self.clock.now() - began < PACE.doubt, (id, "another attempt may have begun")
        self.took[id] |= good
        self.said[id] |= good
        self._check_stage(id)
        self.refused |= {way for way, reply in zip(ways, replies, strict=True) if reply.permanent}
        return Answers(replies=replies, reports=luck > 0.4)

    # what comes

    async def submit(self, to: list[str], **more: Any) -> str:
        """Its id."""
        more["Message_ID"] = f"<{next(self._numbers)}@example.com>"
        self._texts.append((to, more))
        return await self._submitted(to, more)

    async def _submitted(self, to: list[str], more: dict[str, Any]) -> str:
        chance, luck = self.chance, self.chance.random() if self.faults else 1
        message = self.home.transaction(*to, **more)
        way = FakePassage(
            message=bytes(message.message.raw[:]),
            replies=(chance.choice([OK, OK, OK, OK, *([NO, LATER] if self.faults else [])]),),
        )
        self.to[message.id] = to
        self.copies_of[more.get("X_Mailing", "")].add(message.id)
        login = more.get("session", {}).get("auth_user", "")
        self.wrote[message.id] = {more.get("sender", ANNA)} | (
            {login if "@" in login else f"{login}@example.com"} if login else set()
        )
        if luck < 0.06:
            way.before_dot = chance.choice([self.freeze, self.freeze, self.policy])
        elif luck < 0.17:
            way.raises = (
                Lost(LATER, after_dot=True) if luck < 0.12 else Lost(LATER) if luck < 0.15 else asyncio.CancelledError()
            )
        elif luck < 0.22:
            asked, stays = itertools.count(), chance.choice([1, 2, 2, 3])
            message = replace(message, gone=lambda: next(asked) >= stays)
        if luck >= 0.06 and chance.random() < 0.3 and not to[0].endswith("@guard.example.com"):
            self.foretold[message.id] = await self.explain(message)
        answered = False
        try:
            done = await self.intake(message, way)
            answered = not isinstance(done, Deferred)
            if isinstance(done, Rejected):
                await check_turned_away(self.store, message.id)
            if isinstance(done, Held) and done.hold_id == message.id:
                await self.mailboxes.held(done.hold_id)
        except (asyncio.CancelledError, StoreError):  # its process ends; or its client gets 451
            pass
        self.behind[message.id] = self.lists()
        if not answered:
            self._put_off.append((to, more))
        if way.sent:
            self.sent.add(message.id)
            await self._was_sent(message.id, to, str(more["Message_ID"]), login)
        if way.sent and way.replies[0].positive:
            self.said[message.id] |= {*to}
            self.took[message.id] |= {*to}
            self._arrived.append((to, way.sent[0], more["Message_ID"]))
            self._check_stage(message.id)
        elif way.failed and getattr(way.raises, "after_dot", True):
            self.took[message.id] |= {*to} if chance.random() < 0.5 else set()
            self._maybe[more["Message_ID"]] = self.clock.now()
            self.lost.add(message.id)
        unanswered = None if answered else await self.store.holds.find(message.id)
        if unanswered is not None and unanswered.state is State.WAITING:  # its client still has it
            self.looked["unanswered"] += 1
            await self.approved(unanswered, [OMAR, EVA, DPO], 0)
        return message.id

    def lists(self) -> dict[str, Sequence[str]]:
        """Who is on each list by now, by its address."""
        known = self.home.in_force.registry.lists  # another policy may have come in between
        news = {} if known.keys().isdisjoint({"news", "nyheter"}) else {NEWS: READERS}
        return {RAMADAN: self.indexed, **news}

    def _check_stage(self, id: str) -> None:
        """No more people have its campaign than its stages allow by now."""
        name = next((name for name in self.staged if id in self.copies_of[name]), "")
        if not name:
            return
        staged, have = self.staged[name], self._having(name)
        pauses = 0 if staged.pause is None else (self.clock.now() - staged.at) // staged.pause
        if pauses < len(staged.steps):
            self.looked["stage"] += 1
            assert len(have) <= staged.before + sum(staged.steps[: pauses + 1]), (id, staged, have)

    def _having(self, name: str) -> set[str]:
        return {person(one) for id in self.copies_of[name] for one in self.said[id] | self.took[id]}

    async def _was_sent(self, id: str, to: list[str], message_id: str, login: str) -> None:
        """Nothing stopped it: neither a freeze, nor a rejection, nor that its list may have it already, nor its number."""
        await self.settle()
        data = await check_sent(self.store, id, to, self.behind[id], self.wrote[id])
        doubted = self._maybe.get(message_id, self.began - DOUBTS)
        assert RAMADAN not in to or self.clock.now() - doubted >= DOUBTS, (id, "the list may have it already")
        everybody = {one for some in self.behind[id].values() for one in some}
        customers = {person(one) for one in to if person(one) in everybody and not one.endswith("@example.com")}
        if not data["mailing"] or not customers or data.get("bypass"):
            return
        known = self._customers[data["mailing"]]
        known.append((self.clock.now(), id, customers))
        since = self.clock.now() - timedelta(hours=23)
        several = set().union(*(some for at, one, some in known if at > since and (one == id or self.said[one])))
        self.looked[await check_covered(self.store, data, self.wrote[id], login, len(several))] += 1

    async def explain(self, one: Transaction) -> Explained:
        """As a person does with ``explain`` before it is sent."""
        made = Explainer(self.home.in_force, self.home.gather, Surroundings())
        return await made.explain(one.message, one.envelope.reverse_path, one.envelope.addresses, one.session)
