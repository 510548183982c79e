"""Reported alarms in the store, on both engines: of several nodes that swap a row at once, one succeeds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from smtpguard.observe.alarms.rows import Alarmed
from smtpguard.observe.cursor import RaisedAlarm
from smtpguard.store.store import Store
from tests.store.making import T0

FROZEN = RaisedAlarm(key="frozen", began=T0)
CLAIMED = replace(FROZEN, claimed_until=T0 + timedelta(seconds=60))
TOLD = replace(FROZEN, told=T0 + timedelta(microseconds=1), taken_by="eva", taken_at=T0 + timedelta(seconds=2))


async def test_an_alarm_is_stored_until_it_ends(store: Store) -> None:
    alarmed = Alarmed(store)
    assert await alarmed.known() == {}
    assert await alarmed.swap(None, CLAIMED)
    assert await alarmed.known() == {"frozen": CLAIMED}
    assert await alarmed.swap(CLAIMED, TOLD)
    assert not await alarmed.swap(CLAIMED, FROZEN)
    assert await alarmed.known() == {"frozen": TOLD}
    assert await alarmed.swap(TOLD, None)
    assert await alarmed.known() == {}
    assert not await alarmed.swap(TOLD, None)


async def test_one_of_several_claims_succeeds(store: Store) -> None:
    claims = [replace(FROZEN, claimed_until=T0 + timedelta(seconds=n + 1)) for n in range(10)]
    won = await asyncio.gather(*(Alarmed(store).swap(None, claim) for claim in claims))
    assert won.count(True) == 1
    assert (await Alarmed(store).known())["frozen"] == claims[won.index(True)]
