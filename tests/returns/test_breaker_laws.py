"""Random histories of what comes back after a mailing, beside the breakers as the policy says them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from smtpguard.mail.message import Message
from tests.guard.house import MEMBERS
from tests.returns.mails import arf, dsn, letter
from tests.returns.test_breakers import outgoing, trips

BREAKERS = 'complaints: ">= 20% after 8", bounces: ">= 3", replies: ">= 3 in 10m", unsubscribes: ">= 25% after 4"'
BOUNDS: Mapping[str, Callable[[int, int], bool]] = {  # in the order in which they are looked at
    "complaints": lambda n, people: people >= 8 and n >= 0.2 * people,
    "bounces": lambda n, people: n >= 3,
    "replies": lambda n, people: n >= 3,
    "unsubscribes": lambda n, people: people >= 4 and n >= 0.25 * people,
}


class Oracle:
    """Who returned what, and when first. ``since``: when people last let it go on."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], float] = {}
        self.since = 0.0

    def trips(self, sort: str, person: str, now: float, people: int) -> str:
        """The breaker that this return trips, "" for none. One person counts once for each sort."""
        if (sort, person) in self.counted:
            return ""
        self.counted[sort, person] = now
        return next((one for one, bound in BOUNDS.items() if (n := self._n(one, now)) and bound(n, people)), "")

    def _n(self, sort: str, now: float) -> int:
        begin = max(self.since, now - 600) if sort == "replies" else self.since
        return sum(of == sort and at > begin for (of, _), at in self.counted.items())


def returned(sort: str, copy: bytes, id: str, author: str, *, forged: bool) -> Message:
    copy = copy.replace(b"mac=", b"mac=00") if forged else copy
    match sort:
        case "complaints":
            return arf(copy)
        case "bounces":
            return dsn(copy, author)
        case "replies":
            return letter(author, "Re: lunch", id)
        case _:
            return letter(author, "unsubscribe", id)


@pytest.mark.parametrize("seed", range(3))
async def test_breakers_trip_exactly_when_they_should(tmp_path: Path, seed: int) -> None:
    chance, oracle = random.Random(seed), Oracle()
    copies: dict[str, bytes] = {}
    tripped: list[str] = []
    async with outgoing(tmp_path, BREAKERS + (", stops: lists" if seed % 2 else "")) as out:
        clock = out.home.clock
        for _ in range(80):
            clock.pass_(seconds=chance.choice([1, 1, 1, 1, 30, 599, 601]))
            await out.home.watch.read()
            frozen = [freeze.freeze_id for freeze in (await out.home.store.gate.read()).freezes]
            what = chance.random()
            if what < 0.3 and not frozen and len(copies) < 40:
                to = MEMBERS[len(copies)]
                copies[to] = await out.send(to, Message_ID=f"<to-{to}>")
            elif what < 0.4 and frozen:
                for id in frozen:
                    await out.freezes.thaw(id, by="eva@example.com")
                oracle.since = clock.now().timestamp()
            elif copies:
                sort, to, forged = chance.choice([*BOUNDS]), chance.choice([*copies]), chance.random() < 0.2
                author = MEMBERS[50] if forged else to
                mail = returned(sort, copies[to], f"<to-{to}>", author, forged=forged)
                receipt = await out.back(mail)
                assert (await out.back(mail)).again, "the same mail is taken once"
                trip = "" if forged else oracle.trips(sort, to, clock.now().timestamp(), len(copies))
                stops = bool(trip) and not frozen
                tripped += [trip] * stops
                assert len(receipt.freezes) == stops, (sort, to, trip)
        assert [one["breaker"] for one in await trips(out)] == tripped
        assert tripped
        assert (await out.home.store.journal.verify()).ok
