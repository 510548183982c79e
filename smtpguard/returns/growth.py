"""How the returns of a mailing grow and fall over time, beside what was done about it meanwhile. Pure."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from smtpguard.journal.chain import Entry, utc_text
from smtpguard.journal.event import Kind
from smtpguard.locale.phrase import N_
from smtpguard.mailings.model import Mailing
from smtpguard.returns.model import Sort, SortCount

WIDTHS = tuple(timedelta(minutes=n) for n in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080, 40_320))
MOST = 48
"""The most stretches of one chart, give or take one."""
_FEW = 10
_FIGURES = ("breaker", "limit", "counted", "people", "what")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Trend(enum.Enum):
    """How the returns of the last span compare with those of the span before it."""

    NOTHING = "nothing"
    FEW = "too few to tell"
    GROWS = "grows"
    FALLS = "falls"
    LASTS = "goes on"


TRENDS: Mapping[Trend, str] = {
    Trend.NOTHING: N_("Nothing came back in the last {span}."),
    Trend.FEW: N_("{now} came back in the last {span}, {before} in the {span} before: too few to tell."),
    Trend.GROWS: N_("It grows: {now} came back in the last {span}, {before} in the {span} before."),
    Trend.FALLS: N_("It falls: {now} came back in the last {span}, {before} in the {span} before."),
    Trend.LASTS: N_("It goes on as before: {now} came back in the last {span}, {before} in the {span} before."),
}


class Deed(enum.Enum):
    """What was done about a mailing, or happened to it."""

    WENT = "went"
    ENDED = "ended"
    FIRST = "first"
    STOPPED = "stopped"
    OBSERVED = "observed"
    FROZEN = "frozen"
    THAWED = "thawed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One deed. ``data``: the data of its journal entry, empty if there is none."""

    at: datetime
    deed: Deed
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of time that begins at ``at``. ``by``: the number of returns of each sort in it, without likely ones."""

    at: datetime
    by: Mapping[Sort, int]

    def of(self, sort: Sort) -> int:
        return self.by.get(sort, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The returns of one sort. ``all``: without likely ones; ``counted``: how many breakers count; ``likely``: how many match
    by likeness alone."""

    sort: Sort
    all: int = 0
    counted: int = 0
    likely: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """The returns of a mailing over time. ``width``: of one stretch. ``now``, ``before``: the returns in the last ``span``, and
    in the span before it."""

    width: timedelta
    stretches: tuple[Stretch, ...]
    totals: tuple[Total, ...]
    now: int
    before: int
    done: tuple[Done, ...]

    @property
    def span(self) -> timedelta:
        return span(self.width)

    @property
    def trend(self) -> Trend:
        return trend(self.now, self.before)


def width(first: datetime, last: datetime) -> timedelta:
    """Return the width of a stretch by which fewer than ``MOST`` cover the time."""
    return next((each for each in WIDTHS if (last - first) / each < MOST - 1), WIDTHS[-1])


def growth(
    mailing: Mailing, counts: Iterable[SortCount], each: timedelta, now: int, before: int, done: Sequence[Done]
) -> Growth:
    """Return how the returns of a mailing grow. ``counts``: by stretches of ``each``; ``now``, ``before``: the returns in the
    last ``span(each)``, and in the span before it."""
    totals: dict[Sort, Counter[str]] = {}
    by: dict[datetime, Counter[Sort]] = {}
    for count in counts:
        total = totals.setdefault(count.sort, Counter())
        total["likely" if count.likely else "all"] += count.all
        total["counted"] += count.counted
        if not count.likely:
            by.setdefault(count.at, Counter())[count.sort] += count.all
    began = mailing.went_first_at or mailing.first_at
    first, last = min((*by, began)), max((*by, began))
    begin = _EPOCH + each * ((first - _EPOCH) // each)
    n = min((last - begin) // each + 1, 2 * MOST)
    return Growth(
        width=each,
        stretches=tuple(Stretch(at=begin + each * i, by=dict(by.get(begin + each * i, {}))) for i in range(n)),
        totals=tuple(Total(sort=sort, **found) for sort, found in sorted(totals.items(), key=lambda one: list(Sort).index(one[0]))),
        now=now,
        before=before,
        done=tuple(sorted(done, key=lambda one: one.at)),
    )  # fmt: skip


def span(each: timedelta) -> timedelta:
    """Return the span that is compared for stretches of ``each``: ten minutes, an hour, a day or a week."""
    return next((s for s in (timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)) if each < s), timedelta(days=7))  # fmt: skip


def trend(now: int, before: int) -> Trend:
    """Compare two numbers of returns. They differ if the difference is more than twice its standard deviation (Poisson)."""
    if not now:
        return Trend.NOTHING
    if now + before < _FEW:
        return Trend.FEW
    differs = 2 * math.sqrt(now + before)
    return Trend.GROWS if now - before > differs else Trend.FALLS if before - now > differs else Trend.LASTS


def deeds(mailing: Mailing, first: datetime | None, entries: Iterable[Entry]) -> list[Done]:
    """Return what was done about a mailing. ``first``: the time of its first return; ``entries``: the journal's entries on the
    mailing, and on freezes."""
    found = []
    for at, deed in ((mailing.went_first_at, Deed.WENT), (mailing.went_last_at, Deed.ENDED), (first, Deed.FIRST)):
        if at is not None:
            found.append(Done(at=at, deed=deed, data={}))
    frozen: set[str] = set()
    for _, entry in sorted({one.seq: one for one in entries}.items()):
        data, deed_of = entry.data, None
        if entry.kind == Kind.TRIPPED.value:
            deed_of = Deed.OBSERVED if data["observed"] else Deed.STOPPED
        elif entry.kind == Kind.MAILING.value and data.get("what") != "feedback":
            deed_of = Deed.CHANGED
        elif entry.kind == Kind.FREEZE.value and entry.time >= mailing.first_at and _stops(mailing, data):
            frozen.add(entry.id)
            deed_of = Deed.FROZEN
        elif entry.kind == Kind.THAW.value and entry.id in frozen:
            deed_of = Deed.THAWED
        if deed_of is not None:
            found.append(Done(at=entry.time, deed=deed_of, data=data))
    return found


def _stops(mailing: Mailing, data: Mapping[str, Any]) -> bool:
    """Return whether a freeze, by its entry, stops all mail, this mailing, or a list of it."""
    value = data.get("value")
    stops = {"all": True, "mailing": value == mailing.mailing_id, "list": value in mailing.lists}
    return stops.get(str(data.get("selector")), False)


def row(mailing: Mailing, found: Growth) -> Mapping[str, Any]:
    """Return the JSON object of a growth, for programs."""
    return {
        "mailing": mailing.mailing_id,
        "subject": mailing.subject,
        "at_least": mailing.people.at_least,
        "at_most": mailing.people.at_most,
        "trend": found.trend.value,
        "seconds": int(found.span.total_seconds()),
        "now": found.now,
        "before": found.before,
        "sorts": [
            {"sort": one.sort.value, "returns": one.all, "counted": one.counted, "likely": one.likely} for one in found.totals
        ],
        "stretch_seconds": int(found.width.total_seconds()),
        "stretches": [
            {"at": utc_text(one.at), **{sort.value: one.of(sort) for sort in Sort}} for one in found.stretches if any(one.by.values())
        ],
        "done": [{"at": utc_text(one.at), "deed": one.deed.value, **{name: one.data.get(name) for name in _FIGURES}} for one in found.done],
    }  # fmt: skip
