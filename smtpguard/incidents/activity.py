"""Activity of the guard and of its people in a period, by rule and by list, summed from the journal. Pure.

A message counts once, by its last verdict, when that happened. A verdict to relay does not count as relayed if the
relay does not have the message (outcome.STAYED).

Decisions are those on messages that were held within the period, as they were at its end: people's decisions and
expiries alike. A copy of a mailing follows its primary hold, which then counts for the copy's rules and lists too; the
copy is counted apart and is no decision. A copy that becomes a primary hold is one from then on (``follows``).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Any

from smtpguard.journal.chain import instant, microseconds
from smtpguard.journal.event import DECISIONS, ENDS, Kind, decided_at, follows, happened

WANTED = frozenset({Kind.VERDICT, Kind.JUDGED, Kind.STOPPED, *DECISIONS})
"""The kinds of entries that are summed."""
HOUR = 3_600_000_000
"""The unit of time of stored sums, in microseconds."""
EXACT = 1_000_000
"""A unit of time in microseconds within which no day begins, in any time zone."""
OFTEN = 5
"""The fewest decisions on what a rule held by which the rule can be called too strict."""
ALL = ""
"""The name under which every message is counted, whatever its rules and lists."""
ACTIONS: Mapping[str, str] = {
    "relay": "relayed", "confirm": "asked", "hold": "held", "defer": "deferred", "reject": "rejected",
}  # fmt: skip
"""What was done with a message, by the action of its verdict."""
_WAITS = ("asked", "held")
_ENDS: Mapping[str, str] = {kind.value: ENDS.get(kind, "") for kind in DECISIONS}
"""How each decision ends a hold, "" if it waits again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFilter:
    """A query for the messages of one sum. ``did``: relayed, held, deferred, rejected or observed; ``rule``, ``list``:
    "" for any."""

    did: str
    rule: str = ""
    list: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Decisions on messages that were held, or about which their writers were asked: the number of each end.
    ``confirmed``: by the writer alone. ``seconds``: the time of each from hold to end. ``right``, ``mistaken``: the
    number of messages of which the writers say that it was right to stop them, or a mistake."""

    approved: int = 0
    confirmed: int = 0
    rejected: int = 0
    withdrawn: int = 0
    expired: int = 0
    seconds: Sequence[float] = ()
    right: int = 0
    mistaken: int = 0

    @property
    def total(self) -> int:
        return self.approved + self.confirmed + self.rejected + self.withdrawn + self.expired

    @property
    def median_seconds(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def p90_seconds(self) -> float | None:
        return sorted(self.seconds)[int(0.9 * len(self.seconds) - 0.5)] if self.seconds else None

    @property
    def share_approved(self) -> float | None:
        """The share that people approved, 0 to 1, of all that ended without a writer's confirmation."""
        others = self.total - self.confirmed
        return self.approved / others if others else None

    @property
    def too_strict(self) -> bool:
        others = self.total - self.confirmed
        return others >= OFTEN and 2 * self.approved > others


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproverShare:
    """The votes of one approver. A vote that was revoked counts. ``approver``: "" for all whose names are erased.
    ``seconds``: the time of each from hold to vote, for holds that are kept."""

    approver: str
    approved: int = 0
    rejected: int = 0
    seconds: Sequence[float] = ()

    @property
    def total(self) -> int:
        return self.approved + self.rejected

    @property
    def share_approved(self) -> float:
        return self.approved / self.total

    @property
    def median_seconds(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


def approver_shares(votes: Iterable[tuple[str, str, float | None]]) -> list[ApproverShare]:
    """Return the shares of these votes (approver, choice, seconds since the hold), most votes first."""
    known: dict[str, tuple[Counter[str], list[float]]] = {}
    for approver, choice, seconds in votes:
        counted, took = known.setdefault(approver, (Counter(), []))
        counted[choice] += 1
        if seconds is not None:
            took.append(seconds)
    shares = (
        ApproverShare(approver=who, approved=counted["approve"], rejected=counted["reject"], seconds=tuple(took))
        for who, (counted, took) in known.items()
    )
    return sorted(shares, key=lambda share: (-share.total, share.approver))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers of messages by what was done with them. ``asked``: those about which their writers were asked."""

    relayed: int = 0
    asked: int = 0
    held: int = 0
    deferred: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCounts(Counts):
    """The messages of one rule or one list, and the decisions on those that were held. ``waiting``: how many of these
    wait, without copies. ``relayed``: only of lists, since no rule relays."""

    name: str
    observed: int = 0
    waiting: int = 0
    decided: Decided = Decided()


@dataclass(frozen=True, slots=True, kw_only=True)
class Day(Counts):
    """The messages of one day in the organization's time zone."""

    day: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity(Counts):
    """The activity of a period. ``copies``: copies of mailings among the ``held`` and the ``asked``; ``waiting``: how
    many of the others wait. ``customers``: recipients of relayed messages, summed over messages. ``rules`` and
    ``lists`` begin with those that held most. ``days``: those with any message, in order. ``uncounted``: the number of
    journal entries that are not included yet."""

    since: datetime
    until: datetime
    copies: int = 0
    customers: int = 0
    waiting: int
    decided: Decided
    rules: Sequence[NamedCounts]
    lists: Sequence[NamedCounts]
    days: Sequence[Day] = ()
    uncounted: int = 0

    @property
    def messages(self) -> int:
        return self.relayed + self.asked + self.held + self.deferred + self.rejected


@dataclass(slots=True)
class SummedHold:
    """A hold that is no copy, as far as it is summed. Times are in microseconds. ``how``: its end, "" while it waits,
    "void" if its client never got an answer; ``at``: when it ended, 0 while it waits. ``judgement``: the writer's,
    right or mistake."""

    held_at: int
    rules: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    how: str = ""
    at: int = 0
    judgement: str = ""

    def grow(self, rules: Sequence[str], lists: Sequence[str]) -> None:
        """Add the rules and lists of a copy that waits under it."""
        self.rules = tuple(dict.fromkeys((*self.rules, *rules)))
        self.lists = tuple(dict.fromkeys((*self.lists, *lists)))


class ActivitySums:
    """The sums of entries, which are added in the order of the journal. An entry of another version counts as far as it
    is understood.

    ``hours``: counts by the hour, the subject (ALL, "rule:NAME", "list:NAME") and what was done. ``holds``: the holds
    whose verdict was added, by id. For other holds, ``grown``: the rules and lists that copies add; ``ends``: how and
    when they ended; ``judgements``: those of their writers.
    """

    def __init__(self, unit: int = HOUR) -> None:
        """``unit``: the unit of time by which added entries are counted, in microseconds."""
        self._unit = unit
        self.hours: dict[tuple[int, str, str], int] = {}
        self.holds: dict[str, SummedHold] = {}
        self.grown: dict[str, SummedHold] = {}
        self.ends: dict[str, tuple[str, int]] = {}
        self.judgements: dict[str, str] = {}

    def add(self, at: int, kind: str, id: str, data: Mapping[str, Any]) -> None:
        """Add an entry of the journal (journal.chain.Entry). ``at``: in microseconds."""
        if kind == Kind.VERDICT.value:
            at = happened(at, data)
            if self.count_action(at, data) in _WAITS:
                found = SummedHold(
                    at, _words(data.get("rules")), _words(data.get("lists")) + _words(data.get("reports_to"))
                )
                if "with" in data:
                    lead = str(data["with"])
                    known = self.holds.get(lead) or self.grown.setdefault(lead, SummedHold(0))
                    known.grow(found.rules, found.lists)
                else:
                    self.holds[id] = found
            return
        leads, how = data.get("leads"), _ENDS.get(kind)
        if isinstance(leads, Mapping):
            self._lead(at, leads)
            how = "approved" if how is None else how  # some of it was sent
        elif follows(data):
            return
        hold = self.holds.get(id)
        if kind == Kind.JUDGED.value and hold is not None:
            hold.judgement = str(data.get("said"))
        elif kind == Kind.JUDGED.value:
            self.judgements[id] = str(data.get("said"))
        elif how is not None and hold is not None:
            hold.how, hold.at = how, microseconds(decided_at(instant(at), data))
        elif how is not None:
            self.ends[id] = how, microseconds(decided_at(instant(at), data))

    def _lead(self, at: int, leads: Mapping[str, Any]) -> None:
        held_at = leads.get("held_at")
        made = SummedHold(held_at if isinstance(held_at, int) else at)
        self.holds.setdefault(str(leads.get("hold")), made).grow(_words(leads.get("rules")), _words(leads.get("lists")))

    def count(self, hour: int, about: str, did: str, n: int = 1) -> None:
        self.hours[hour, about, did] = self.hours.get((hour, about, did), 0) + n

    def count_action(self, at: int, data: Mapping[str, Any], n: int = 1) -> str:
        """Count what was done with a message, and return it; "" if the message is not counted. ``at``: when it
        ``happened``; ``n``: -1 to undo the count."""
        did = ACTIONS.get(str(data.get("action")))
        if did is None or data.get("retry") or data.get("test"):
            return ""
        hour = at - at % self._unit
        self.count(hour, ALL, did, n)
        for name in _words(data.get("lists")):
            self.count(hour, f"list:{name}", did, n)
        for rule in _words(data.get("observed")):
            self.count(hour, f"rule:{rule}", "observed", n)
        if did == "relayed":
            counts = data.get("counts")
            customers = counts.get("customers") if isinstance(counts, Mapping) else None
            if isinstance(customers, int) and customers:
                self.count(hour, ALL, "customers", n * customers)
            return did
        for rule in _words(data.get("rules")):
            self.count(hour, f"rule:{rule}", did, n)
        if did in _WAITS and "with" in data:
            self.count(hour, ALL, "copies", n)
        return did

    def activity(
        self, since: datetime, until: datetime, zone: tzinfo, *, ended: bool = True, uncounted: int = 0
    ) -> Activity:
        """Return the totals. ``zone``: the time zone of days. ``ended``: False to include decisions after ``until``."""
        did: dict[str, dict[str, Any]] = {}
        days: dict[date, dict[str, int]] = {}
        for (hour, about, what), n in self.hours.items():
            counts = did.setdefault(about, {})
            counts[what] = counts.get(what, 0) + n
            if about == ALL and what in ACTIONS.values():
                counts = days.setdefault(instant(hour).astimezone(zone).date(), {})
                counts[what] = counts.get(what, 0) + n
        holds: dict[str, list[SummedHold]] = {ALL: []}
        for hold in self.holds.values():
            if hold.how != "void":  # its client never got an answer, and sends it again
                for about in (ALL, *(f"rule:{name}" for name in hold.rules), *(f"list:{name}" for name in hold.lists)):
                    holds.setdefault(about, []).append(hold)
        latest = microseconds(until) if ended else math.inf
        rules, lists = (
            _sorted(
                NamedCounts(name=about.removeprefix(prefix), **_decided(holds.get(about, ()), latest), **counts)
                for about, counts in did.items()
                if about.startswith(prefix) and any(counts.values())
            )
            for prefix in ("rule:", "list:")
        )
        return Activity(
            since=since,
            until=until,
            **did.get(ALL, {}),
            **_decided(holds[ALL], latest),
            rules=rules,
            lists=lists,
            days=[Day(day=day, **counts) for day, counts in sorted(days.items()) if any(counts.values())],
            uncounted=uncounted,
        )


def _decided(holds: Sequence[SummedHold], latest: float) -> dict[str, Any]:
    """Return how many of these holds wait, and the decisions on the others. One that ended after ``latest``
    (microseconds) waits."""
    over = [hold for hold in holds if hold.how and hold.at <= latest]
    judgements = Counter(hold.judgement for hold in holds)
    decided = Decided(
        **Counter(hold.how for hold in over),
        seconds=tuple(max(0, hold.at - hold.held_at) / 1e6 for hold in over),  # a clock may be set back
        right=judgements["right"],
        mistaken=judgements["mistake"],
    )
    return {"waiting": len(holds) - len(over), "decided": decided}


def _sorted(shares: Iterable[NamedCounts]) -> list[NamedCounts]:
    """Sort by what was held most. Lists whose messages were all relayed come last."""
    return sorted(
        shares,
        key=lambda share: (
            -share.held - share.asked,
            -share.rejected,
            -share.deferred,
            -share.observed,
            -share.relayed,
            share.name,
        ),
    )


def _words(value: Any) -> tuple[str, ...]:
    """Return names without line ends, since line ends separate names in the store."""
    return tuple(str(word).replace("\n", " ") for word in value) if isinstance(value, list) else ()
