"""An alarm is reported once when it begins, again while it lasts, and once when it ends; over restarts, nodes and
failures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from smtpguard.observe import rounds
from smtpguard.observe.alarms import RaisedAlarm, Seen
from smtpguard.observe.rounds import CLAIM, AlarmMessage, Phase, Rounds, Shared, take
from smtpguard.observe.rows import Alarmed
from smtpguard.store.store import Store
from tests.observe.test_conditions import ALL, BYPASS, MANY, NOW, WELL
from tests.store.making import T0


class AlarmMemory:
    def __init__(self) -> None:
        self.rows: dict[str, RaisedAlarm] = {}
        self.away = False
        self.reads_only = self.hangs = False

    async def known(self) -> Mapping[str, RaisedAlarm]:
        if self.away:
            raise TimeoutError
        return dict(self.rows)

    async def swap(self, before: RaisedAlarm | None, after: RaisedAlarm | None) -> bool:
        if self.away or self.reads_only:
            raise TimeoutError
        if self.hangs:
            await asyncio.Event().wait()
        key = (before or after).key  # type: ignore[union-attr]
        if self.rows.get(key) != before:
            return False
        self.rows.pop(key, None)
        if after is not None:
            self.rows[key] = after
        return True


class House:
    """Several nodes: one store for all, and a state folder for each."""

    def __init__(self) -> None:
        self.shared, self.own = AlarmMemory(), AlarmMemory()
        self.now = NOW
        self.told: list[tuple[str, Phase]] = []
        self.reaches = True
        self.began: list[datetime] = []

    def node(self, own: AlarmMemory | None = None) -> Rounds:
        async def tell(told: AlarmMessage) -> bool:
            if self.reaches:
                self.told.append((told.alarm.key, told.phase))
                self.began.append(told.began)
            return self.reaches

        return Rounds(shared=Shared(self.shared), own=own or self.own, tell=tell)

    async def round(self, node: Rounds, found: dict[str, Any] | Seen, **passes: float) -> None:
        self.now += timedelta(**passes)
        seen = found if isinstance(found, Seen) else replace(WELL, **found)
        await node.round(replace(seen, at=self.now))


FROZEN = {"frozen": (ALL,)}
AWAY = {"relay": "Connection refused"}


async def test_an_acknowledged_alarm_is_repeated_daily_and_its_end_reported() -> None:
    house = House()
    node = house.node()
    await house.round(node, FROZEN)
    assert await take(house.shared, "frozen", "eva", NOW)
    for _ in range(100):
        await house.round(node, FROZEN, minutes=10)
    assert house.told == [("frozen", Phase.BEGINS)]
    for _ in range(100):
        await house.round(node, FROZEN, minutes=10)
    assert house.told == [("frozen", Phase.BEGINS), ("frozen", Phase.LASTS)]
    for _ in range(3):
        await house.round(node, {}, seconds=5)
    assert house.told[2:] == [("frozen", Phase.ENDS)]
    assert len(set(house.began)) == 1
    assert house.shared.rows == {}
    await house.round(node, FROZEN, seconds=5)
    assert house.told[3:] == [("frozen", Phase.BEGINS)]


async def test_an_alarm_that_ends_early_is_not_reported() -> None:
    house = House()
    node = house.node()
    for _ in range(10):
        await house.round(node, AWAY, seconds=8)  # it has to last 90 s
        if _ % 5 == 4:
            await house.round(node, {}, seconds=5)
    assert house.told == []
    assert list(node.active) == []
    for _ in range(13):
        await house.round(node, AWAY, seconds=8)
    assert house.told == [("relay-away", Phase.BEGINS)]
    assert [alarm.key for alarm in node.active] == ["relay-away"]


async def test_a_restart_does_not_repeat_an_alarm() -> None:
    house = House()
    await house.round(house.node(), FROZEN)
    await house.round(house.node(), FROZEN, minutes=5)
    assert house.told == [("frozen", Phase.BEGINS)]
    await house.round(house.node(), {}, minutes=5)
    assert house.told[1:] == [("frozen", Phase.ENDS)]


async def test_shared_alarms_are_reported_once_and_host_alarms_by_each() -> None:
    house = House()
    nodes = [house.node(AlarmMemory()) for _ in range(3)]
    for _ in range(20):
        for node in nodes:
            await house.round(node, FROZEN | AWAY, seconds=3)
    assert sorted(house.told, key=lambda told: told[0]) == [("frozen", Phase.BEGINS)] + 3 * [
        ("relay-away", Phase.BEGINS)
    ]


async def test_a_failed_report_is_retried_by_any_node() -> None:
    house = House()
    one, other = house.node(), house.node()
    house.reaches = False
    await house.round(one, FROZEN)
    house.reaches = True
    await house.round(other, FROZEN, seconds=5)
    assert house.told == [], "another node has claimed it"
    await house.round(other, FROZEN, seconds=CLAIM.total_seconds())
    assert house.told == [("frozen", Phase.BEGINS)]
    house.reaches = False
    await house.round(one, {}, seconds=5)
    house.reaches = True
    await house.round(one, {}, seconds=CLAIM.total_seconds() + 1)
    assert house.told[1:] == [("frozen", Phase.ENDS)]


async def test_the_end_of_an_unreported_alarm_is_not_reported() -> None:
    house = House()
    node = house.node()
    house.reaches = False
    await house.round(node, FROZEN)
    house.reaches = True
    await house.round(node, {}, seconds=CLAIM.total_seconds() + 1)
    assert house.told == []
    assert house.shared.rows == {}


async def test_without_the_store_host_alarms_are_reported() -> None:
    house = House()
    node = house.node()
    await house.round(node, FROZEN)
    house.shared.away = True
    dark = replace(WELL, store="no answer", frozen=None, put_back=None, enforced=None, behind=None)
    for _ in range(20):
        await house.round(node, dark, seconds=5)
    assert house.told == [("frozen", Phase.BEGINS), ("store-away", Phase.BEGINS)]
    house.shared.away = False
    await house.round(node, FROZEN, seconds=5)
    assert house.told[2:] == [("store-away", Phase.ENDS)]


async def test_an_alarm_of_another_version_is_ignored() -> None:
    house = House()
    house.shared.rows["levitating"] = RaisedAlarm(key="levitating", began=NOW, told=NOW)
    await house.round(house.node(), {}, hours=1)
    assert house.told == []
    assert "levitating" in house.shared.rows


async def test_a_clock_set_back_does_not_delay_a_report() -> None:
    house = House()
    node = house.node()
    house.reaches = False
    await house.round(node, FROZEN)
    house.reaches = True
    await house.round(node, FROZEN, days=-1)
    assert house.told == [("frozen", Phase.BEGINS)]


@pytest.mark.parametrize("how", ["reads_only", "hangs"])
async def test_with_a_read_only_store_each_host_reports_once(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the store can be read but not written, each host reports by its own memory, once."""
    monkeypatch.setattr(rounds, "PATIENCE_SECONDS", 0.05)
    house = House()
    setattr(house.shared, how, True)
    node = house.node()
    for _ in range(5):
        await house.round(node, FROZEN | AWAY, seconds=30)
    await house.round(house.node(), FROZEN | AWAY, seconds=30)
    assert sorted(house.told) == [("frozen", Phase.BEGINS), ("relay-away", Phase.BEGINS)]
    assert house.shared.rows == {}
    setattr(house.shared, how, False)
    for _ in range(3):
        await house.round(house.node(AlarmMemory()), {"frozen": None, "put_back": None}, seconds=5)
        await house.round(node, FROZEN | AWAY, seconds=5)
    assert len(house.told) == 2, "the shared memory is used again, and nothing is repeated"
    assert list(house.shared.rows) == ["frozen"]
    for _ in range(3):
        await house.round(node, AWAY, seconds=5)
    assert house.told[2:] == [("frozen", Phase.ENDS)]


async def test_the_end_is_reported_with_a_read_only_store() -> None:
    house = House()
    house.shared.reads_only = True
    node = house.node()
    await house.round(node, FROZEN)
    for _ in range(3):
        await house.round(node, {}, seconds=5)
    assert house.told == [("frozen", Phase.BEGINS), ("frozen", Phase.ENDS)]
    assert house.own.rows == {}


async def test_reported_alarms_are_not_repeated_with_a_read_only_store() -> None:
    house = House()
    await house.round(house.node(AlarmMemory()), FROZEN)
    house.shared.reads_only = True
    await house.round(house.node(), FROZEN, days=2)
    assert house.told == [("frozen", Phase.BEGINS)]


async def test_a_store_failure_after_the_claim_does_not_repeat_the_report() -> None:
    house = House()

    async def tell(told: AlarmMessage) -> bool:
        house.told.append((told.alarm.key, told.phase))
        house.shared.reads_only = True
        return True

    node = Rounds(shared=Shared(house.shared), own=house.own, tell=tell)
    for _ in range(30):
        await house.round(node, FROZEN, seconds=5)
    assert house.told == [("frozen", Phase.BEGINS)]


async def test_an_alarm_is_repeated_until_acknowledged() -> None:
    house = House()
    node = house.node()
    for _ in range(4):
        await house.round(node, FROZEN, minutes=10)
    assert house.told == [("frozen", Phase.BEGINS), ("frozen", Phase.LASTS)], "every quarter of an hour"
    assert await take(house.shared, "frozen", "eva", NOW)
    for _ in range(20):
        await house.round(node, FROZEN, minutes=60)
    assert len(house.told) == 2
    assert await take(house.shared, "frozen", "omar", NOW)
    assert house.shared.rows["frozen"].taken_by == "eva", "the first acknowledgement counts"
    assert not await take(house.shared, "relay-away", "eva", NOW), "which is not active"


async def test_an_acknowledgement_during_a_report_is_kept() -> None:
    house = House()

    async def tell(told: AlarmMessage) -> bool:
        house.told.append((told.alarm.key, told.phase))
        if told.phase is Phase.LASTS:
            assert await take(house.shared, "frozen", "eva", NOW)
        return True

    node = Rounds(shared=Shared(house.shared), own=house.own, tell=tell)
    for _ in range(9):
        await house.round(node, FROZEN, minutes=10)
    assert house.told == [("frozen", Phase.BEGINS), ("frozen", Phase.LASTS)]
    assert house.shared.rows["frozen"].taken_by == "eva"
    assert house.shared.rows["frozen"].claimed_until is None


ENDS = ["certificate-ends d.pem", "certificate-ends-now c.pem"]


async def test_a_hanging_report_delays_no_other_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the relay is slow with one alarm's mail, another alarm is reported in the same round, and a new one in the
    next."""
    monkeypatch.setattr(rounds, "PATIENCE_SECONDS", 0.05)
    house, free = House(), asyncio.Event()
    begun: list[str] = []

    async def tell(told: AlarmMessage) -> bool:
        begun.append(told.alarm.key)
        if told.alarm.key in ENDS:
            await free.wait()
        house.told.append((told.alarm.key, told.phase))
        return True

    node = Rounds(shared=Shared(house.shared), own=house.own, tell=tell)
    fails = {"certificates": {"c.pem": NOW + timedelta(days=1), "d.pem": NOW + timedelta(days=9)}}
    await house.round(node, fails | FROZEN)
    assert house.told == [("frozen", Phase.BEGINS)]
    await house.round(node, fails | FROZEN | {"called": (MANY,)}, seconds=5)
    assert house.told[1:] == [("rule-calls many-write (news)", Phase.BEGINS)]
    assert sorted(key for key in begun if key in ENDS) == ENDS, "their reports are still being sent"
    free.set()
    async with asyncio.timeout(300):
        while len(house.told) < 4:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    await house.round(node, fails | FROZEN | {"called": (MANY,)}, seconds=5)
    assert sorted(house.told[2:], key=lambda one: one[0]) == [(key, Phase.BEGINS) for key in ENDS]


async def test_a_bypass_is_reported_every_five_minutes_whoever_takes_it() -> None:
    house = House()
    node, found = house.node(), {"bypass": (BYPASS,)}
    await house.round(node, found)
    assert await take(house.own, "bypass", "eva", house.now)
    for seconds in (299, 1, 300):
        await house.round(node, found, seconds=seconds)
    await house.round(node, {}, seconds=5)
    assert [phase for _, phase in house.told] == [Phase.BEGINS, Phase.LASTS, Phase.LASTS, Phase.ENDS]


STANDING = RaisedAlarm(key="frozen", began=T0)
CLAIMED = replace(STANDING, claimed_until=T0 + timedelta(seconds=60))
TOLD = replace(STANDING, told=T0 + timedelta(microseconds=1), taken_by="eva", taken_at=T0 + timedelta(seconds=2))


async def test_an_alarm_is_stored_until_it_ends(store: Store) -> None:
    alarmed = Alarmed(store)
    assert await alarmed.known() == {}
    assert await alarmed.swap(None, CLAIMED)
    assert await alarmed.known() == {"frozen": CLAIMED}
    assert await alarmed.swap(CLAIMED, TOLD)
    assert not await alarmed.swap(CLAIMED, STANDING)
    assert await alarmed.known() == {"frozen": TOLD}
    assert await alarmed.swap(TOLD, None)
    assert await alarmed.known() == {}
    assert not await alarmed.swap(TOLD, None)


async def test_one_of_several_claims_succeeds(store: Store) -> None:
    claims = [replace(STANDING, claimed_until=T0 + timedelta(seconds=n + 1)) for n in range(10)]
    won = await asyncio.gather(*(Alarmed(store).swap(None, claim) for claim in claims))
    assert won.count(True) == 1
    assert (await Alarmed(store).known())["frozen"] == claims[won.index(True)]


async def test_a_certificate_that_cannot_be_used_ends_no_alarm_about_it() -> None:
    """And the warning is not over when the stronger alarm takes its place."""
    house = House()
    node = house.node()

    async def find(at: datetime | None) -> list[tuple[str, Phase]]:
        before = len(house.told)
        await house.round(node, {"certificates": {"c.pem": at}}, seconds=5)
        return sorted(house.told[before:], key=lambda one: one[0])

    assert await find(NOW + timedelta(days=8)) == [("certificate-ends c.pem", Phase.BEGINS)]
    assert await find(None) == []
    assert await find(NOW + timedelta(days=6)) == [("certificate-ends-now c.pem", Phase.BEGINS)]
    assert await find(None) == []
    assert await find(NOW + timedelta(days=90)) == [
        (f"certificate-{name} c.pem", Phase.ENDS) for name in ("ends", "ends-now")
    ]
