"""Random histories of streams, beside their limits as the policy says them: at most so many messages in any hour, and so many to
each person in any day."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from smtpguard.mail.address import Address
from smtpguard.policy.verdict import Deferred, Relayed
from tests.guard.house import MEMBERS, FakePassage, house

PEOPLE = [
    "p0@buyer.example",
    "p0+x@buyer.example",
    "P1@buyer.example",
    "p1@buyer.example",
    MEMBERS[0],
    "bo@example.com",
]
TIMES = [1, 600, 1799, 1800, 3599, 3600, 3601, 20_000, 86_399, 86_401]
ALL, HOUR, DAY = "", 3600, 86_400
STREAM: dict[str, Any] = {"sender": "noreply@example.com", "reverse_path": "noreply@example.com", "X_Looks": "mailing"}


class Oracle:
    """The Message-IDs counted for all and for each person, with the time at which the window first had them."""

    def __init__(self) -> None:
        self.counted: dict[str, dict[str, float]] = defaultdict(dict)

    def _limits(self, to: list[str]) -> list[tuple[str, int, int]]:
        people = {Address.parse(one).canonical("+") for one in to}
        return [(ALL, 3, HOUR), *((person, 2, DAY) for person in people)]

    def takes(self, id: str, to: list[str], now: float) -> bool:
        """Whether it passes; if so it counts. A retry counts once, and prolongs nothing."""
        limits = self._limits(to)
        for key, _, seconds in limits:
            self.counted[key] = {one: at for one, at in self.counted[key].items() if at > now - seconds}
        if any(id not in self.counted[key] and len(self.counted[key]) >= most for key, most, _ in limits):
            return False
        for key, _, _ in limits:
            self.counted[key].setdefault(id, now)
        return True


@pytest.mark.parametrize("seed", range(3))
async def test_a_stream_never_exceeds_its_limits_and_reaches_them(tmp_path: Path, seed: int) -> None:
    chance, oracle = random.Random(seed), Oracle()
    sent: dict[str, list[str]] = {}
    async with house(tmp_path, fronted=bool(seed % 2)) as home:
        for n in range(60):
            if chance.random() < 0.3:
                home.clock.pass_(seconds=chance.choice(TIMES))
                await home.watch.read()
                continue
            id = chance.choice([*sent, ""]) if chance.random() < 0.3 else ""
            id, to = id or f"<{n}@example.com>", chance.sample(PEOPLE, chance.choice([1, 1, 2]))
            shown = sent.setdefault(id, to)  # of one message for several people, each transaction has a part
            proven = chance.random() < 0.85
            home.verifier.domains = frozenset({"shop.example.com"} if proven else ())
            client = {"client_ip": "10.1.2.3" if proven else "192.0.2.9"}
            message = home.transaction(*to, session=client, Message_ID=id, To=shown[0], body=f"Receipt {id}", **STREAM)
            done = await home.intake()(message, FakePassage())
            passes = not proven or oracle.takes(id, to, home.clock.now().timestamp())
            assert isinstance(done, Relayed if passes else Deferred), (n, id, to)
        assert (await home.store.journal.verify()).ok
