"""The three laws, with random messages and failures: the record comes first; a 250 follows durable storage; an unknown
fact takes effect."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from smtpguard.database.errors import Busy, ContentMissing, Full, Gone, PolicyMoved, Unavailable
from smtpguard.gathering.gather import Gather
from smtpguard.mail.envelope import Lost, Recalled
from smtpguard.mail.reply import OK, Reply
from smtpguard.policy.verdict import Deferred, Held, Rejected, Relayed
from tests.admission.ways import home as home
from tests.guard.house import KEY, MEMBERS, RAMADAN, FakePassage, House

FAULTS: list[type[Exception]] = [
    Busy,
    ContentMissing,
    Full,
    Gone,
    PolicyMoved,
    Unavailable,
    OSError,
    ValueError,
    KeyError,
]
RECIPIENTS = [RAMADAN, "news@lists.example.com", "ulf@example.com", "x@example.org", *MEMBERS[:30]]


NOUNS = {"contents", "holds", "mailings", "outbox", "gate", "policies", "journal"}
"""The parts of a store, such as its holds and its journal."""


class Unreliable:
    """A store or part whose methods fail at random, before they do their work or after it, like a lost answer."""

    def __init__(self, room: Any, chance: random.Random, rate: float) -> None:
        self._room, self._chance, self._rate = room, chance, rate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._room, name)
        if name in NOUNS:
            return Unreliable(method, self._chance, self._rate)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **named: Any) -> Any:
            before, after = self._chance.random() < self._rate, self._chance.random() < self._rate
            if before:
                raise self._chance.choice(FAULTS)
            result = await method(*args, **named)
            if after:
                raise self._chance.choice(FAULTS)
            return result

        return call


def relay_way(chance: random.Random) -> FakePassage:
    broken: list[BaseException | None] = [
        None, None, None, Lost(Reply(451, ("4.4.2 lost",))), Lost(Reply(451, ("4.4.2 lost",)), after_dot=True),
        Recalled(), OSError("a fault on the way"),
    ]  # fmt: skip
    replies = (chance.choice([OK, OK, OK, Reply(451, ("4.2.0 later",)), Reply(550, ("5.1.1 no",))]),)
    return FakePassage(replies=replies, raises=chance.choice(broken))


@pytest.mark.parametrize("seed", range(8))
async def test_the_three_laws_hold_under_random_failures(home: House, seed: int) -> None:
    chance = random.Random(seed)
    rate = chance.choice([0.0, 0.05, 0.3])
    home.given_store = Unreliable(home.store, chance, rate)
    home.gather = Gather(
        reader=Unreliable(home.reader, chance, rate), verifier=Unreliable(home.verifier, chance, rate), trace_key=KEY
    )
    home.watch = type(home.watch)(home.store.gate, home.clock)
    await home.watch.read()
    intake = home.intake()
    for n in range(40):
        transaction = home.transaction(
            *dict.fromkeys(chance.choices(RECIPIENTS, k=chance.choice([1, 1, 3, 30]))),
            X_Looks=chance.choice(["internal", "mailing", "unclear"]),
            X_Readable=chance.choice(["yes", "yes", "unreadable", "too-complex"]),
            X_Topics=chance.choice(["", "pork"]),
            X_Labels=chance.choice(["", "", "", "contract"]),
            reverse_path=chance.choice(["anna@example.com", "anna@example.com", ""]),
            sender=chance.choice(["anna@example.com", "campaigns@example.com", "a@example.com, b@example.com"]),
            body=str(chance.choice([n, n - 1])),
        )
        onward = relay_way(chance)
        done = await intake(transaction, onward)
        await home.store.journal.record(())
        events = await home.events(transaction.id)
        actions = [d["action"] for k, d in events if k == "verdict"]
        match done:
            case Relayed():
                assert actions[-1] == "relay"  # committed before it was sent
                assert onward.sent
                assert done.replies == onward.replies
            case Held():
                assert not onward.sent
                hold = await home.hold(done.hold_id)
                assert hold.acknowledged
                assert bytes((await home.store.contents.load(hold.content_sha256)).raw[:]) == transaction.message.raw
            case Rejected():
                assert actions[-1] == "reject"  # a rule's verdict, not a failure of ours
                assert done.reply.permanent
                assert not onward.sent
            case Deferred():
                assert done.reply.transient
        if onward.sent:
            assert isinstance(done, Relayed)
            assert RAMADAN not in map(str, transaction.envelope.addresses) or actions[-1] == "relay"
        assert len(onward.sent) <= 1
        assert onward.abandoned <= 1
