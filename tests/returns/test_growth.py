"""How returns grow over time, with what people did meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from smtpguard.returns.growth import MOST, Deed, Trend, row, span, trend, width
from smtpguard.returns.model import Sort
from tests.every import every
from tests.guard.house import MEMBERS
from tests.returns.mails import arf, dsn, letter
from tests.returns.test_breakers import outgoing

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@every("length", [timedelta(0), timedelta(minutes=47), timedelta(hours=9), timedelta(days=3), timedelta(days=400)])
def test_the_number_of_stretches_is_bounded(length: timedelta) -> None:
    each = width(AT, AT + length)
    assert length / each < MOST
    assert span(each) > each or each >= timedelta(days=7)


@every(
    ("now", "before", "word"),
    [(0, 50, Trend.NOTHING), (5, 4, Trend.FEW), (30, 10, Trend.GROWS), (10, 30, Trend.FALLS), (21, 20, Trend.LASTS), (4, 6, Trend.LASTS)],
)  # fmt: skip
def test_a_trend_is_named_only_if_significant(now: int, before: int, word: Trend) -> None:
    assert trend(now, before) is word


async def test_returns_and_actions_over_time(tmp_path: Path) -> None:
    async with outgoing(tmp_path, 'complaints: ">= 2"') as out:
        copies = await out.to_members(0, 20)
        out.home.clock.pass_(minutes=3)
        for n in range(12):
            await out.back(dsn(copies[n], MEMBERS[n]))
        await out.back(arf(copies[0]))
        await out.back(letter("x@elsewhere.example", "SV: SV: lunch today"))
        out.home.clock.pass_(minutes=10)
        await out.back(arf(copies[1]))
        out.home.clock.pass_(minutes=4)
        await out.freezes.thaw("B1", by="eva@example.com")
        out.home.clock.pass_(minutes=1)
        await out.back(letter("y@elsewhere.example", "Auto: away", more="Auto-Submitted: auto-replied\r\n"))
        mailing = await out.mailing()
        found = await out.service.growth(mailing)
        assert (found.width, found.trend, found.now, found.before) == (timedelta(minutes=1), Trend.FALLS, 1, 13)
        assert {one.sort: (one.all, one.counted, one.likely) for one in found.totals}.items() >= {
            Sort.BOUNCE: (12, 12, 0), Sort.COMPLAINT: (2, 2, 0)
        }.items()  # fmt: skip
        assert [(one.at.minute, one.of(Sort.BOUNCE), one.of(Sort.COMPLAINT)) for one in found.stretches if any(one.by.values())] == [
            (3, 12, 1), (13, 0, 1)
        ]  # fmt: skip
        assert [one.deed for one in found.done] == [
            Deed.WENT, Deed.ENDED, Deed.FIRST, Deed.STOPPED, Deed.FROZEN, Deed.THAWED
        ]  # fmt: skip
        plain = row(mailing, found)
        assert (plain["at_least"], plain["trend"], plain["stretch_seconds"]) == (20, "falls", 60)
        assert next(one for one in plain["done"] if one["deed"] == "stopped")["counted"] == 2


async def test_a_mailing_without_returns(tmp_path: Path) -> None:
    async with outgoing(tmp_path, "stops: lists") as out:
        await out.to_members(0, 1)
        found = await out.service.growth(await out.mailing())
        assert (found.trend, found.totals, [one.by for one in found.stretches]) == (Trend.NOTHING, (), [{}])
