"""Activity of the guard and of its people in a period, by rule and by list, summed from the journal.

A message counts once, by its last verdict, when it happened: what was decided to relay and the relay does not have
(outcome.STAYED) does not count as relayed.

Decisions are those on messages that were held within the period, as they were at its end: people's decisions and
expiries alike. A copy of a mailing follows its primary hold, which then counts for the copy's rules and lists too; it
is counted apart and is no decision. A copy that becomes a primary hold is one from then on (``follows``).
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
from smtpguard.journal.event import DECISIONS, Kind, decided_at, follows, happened

WANTED = frozenset({Kind.VERDICT, Kind.JUDGED, Kind.STOPPED, *DECISIONS})
"""The kinds of entries that are summed."""
HOUR = 3_600_000_000
"""In microseconds: the unit of the sums."""
EXACT = 1_000_000
"""A unit in which no day begins within one, in any time zone."""
OFTEN = 5
"""The least number of decisions on what a rule held for a statement whether the rule fits."""
ALL = ""
"""The name under which every message is counted, whatever its rules and lists."""
ACTIONS: Mapping[str, str] = {
    "relay": "relayed", "confirm": "asked", "hold": "held", "defer": "deferred", "reject": "rejected",
}  # fmt: skip
_WAITS = ("asked", "held")
_ENDS: Mapping[str, str] = {
    **{kind.value: "" if how == "waiting" else how for kind, how in DECISIONS.items()},
    Kind.CONFIRMED.value: "confirmed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFilter:
    """The subject of a sum. ``did``: relayed, held, deferred, rejected or observed; ``rule``, ``list``: "" for any."""

    did: str
    rule: str = ""
    list: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Decisions on messages that were held, or about which their writers were asked: the number of each end, and the
    seconds from hold to end. ``confirmed``: by the writer alone. ``right``, ``mistaken``: the number about which
    writers say that it was right to stop them, or a mistake."""

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
    """The votes of one approver, "" for those whose names are erased. ``seconds``: from hold to vote, for holds
    that are kept. A vote that was taken back counts."""

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
    """The shares of these votes (approver, choice, seconds since the hold), most votes first."""
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
    """Messages by what was done with them. ``asked``: those about which their writers were asked."""

    relayed: int = 0
    asked: int = 0
    held: int = 0
    deferred: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCounts(Counts):
    """Messages of one rule or one list, and decisions on those that were held. ``waiting``: of these, without copies.
    ``relayed``: of lists only, since no rule relays."""

    name: str
    observed: int = 0
    waiting: int = 0
    decided: Decided = Decided()


@dataclass(frozen=True, slots=True, kw_only=True)
class Day(Counts):
    """Messages of one day in the organization's zone."""

    day: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity(Counts):
    """``copies``: copies of mailings among the ``held`` and the ``asked``; ``waiting``: of those that are no copies.
    ``customers``: recipients of relayed messages, summed over messages. ``rules`` and ``lists`` begin with those that
    held most. ``days``: those with any message, in order. ``uncounted``: the number of journal entries that are not
    included yet."""

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
class Ended:
    """A hold that is no copy. Times in microseconds. ``how``: "" while it waits, "void" if its client never got an
    answer; ``at``: when it ended, 0 for always. ``said``: the writer's judgement, right or mistake."""

    held_at: int
    rules: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    how: str = ""
    at: int = 0
    said: str = ""

    def grow(self, rules: Sequence[str], lists: Sequence[str]) -> None:
        """A copy that waits under it was held by these."""
        self.rules = tuple(dict.fromkeys((*self.rules, *rules)))
        self.lists = tuple(dict.fromkeys((*self.lists, *lists)))


class ActivitySums:
    """Entries are added in the order of the journal. Total: an entry of another version's shape counts as far as it is
    understood.

    ``hours``: counts by the hour, the subject (ALL, "rule:NAME", "list:NAME") and the action. ``holds``: those whose
    verdict was added, by id; ``grown``: the rules and lists that copies add to others; ``moves``: the ends of others;
    ``says``: their writers' judgements.
    """

    def __init__(self, unit: int = HOUR) -> None:
        """``unit``: by which entries that are added are counted."""
        self._unit = unit
        self.hours: dict[tuple[int, str, str], int] = {}
        self.holds: dict[str, Ended] = {}
        self.grown: dict[str, Ended] = {}
        self.moves: dict[str, tuple[str, int]] = {}
        self.says: dict[str, str] = {}

    def add(self, at: int, kind: str, id: str, data: Mapping[str, Any]) -> None:
        """An entry of the journal (journal.chain.Entry); ``at`` in microseconds."""
        if kind == Kind.VERDICT.value:
            at = happened(at, data)
            if self.judged(at, data) in _WAITS:
                found = Ended(at, _words(data.get("rules")), _words(data.get("lists")) + _words(data.get("reports_to")))
                if "with" in data:
                    lead = str(data["with"])
                    known = self.holds.get(lead) or self.grown.setdefault(lead, Ended(0))
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
            hold.said = str(data.get("said"))
        elif kind == Kind.JUDGED.value:
            self.says[id] = str(data.get("said"))
        elif how is not None and hold is not None:
            hold.how, hold.at = how, microseconds(decided_at(instant(at), data))
        elif how is not None:
            self.moves[id] = how, microseconds(decided_at(instant(at), data))

    def _lead(self, at: int, leads: Mapping[str, Any]) -> None:
        held_at = leads.get("held_at")
        made = Ended(held_at if isinstance(held_at, int) else at)
        self.holds.setdefault(str(leads.get("hold")), made).grow(_words(leads.get("rules")), _words(leads.get("lists")))

    def count(self, hour: int, about: str, did: str, n: int = 1) -> None:
        self.hours[hour, about, did] = self.hours.get((hour, about, did), 0) + n

    def judged(self, at: int, data: Mapping[str, Any], n: int = 1) -> str:
        """Count the action on a message, when it ``happened``, and return it; "" if it is not counted. ``n``: -1 to take
        it back."""
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
        """The totals. ``zone``: by which days begin. ``ended``: False includes decisions after ``until``."""
        did: dict[str, dict[str, Any]] = {}
        days: dict[date, dict[str, int]] = {}
        for (hour, about, what), n in self.hours.items():
            counts = did.setdefault(about, {})
            counts[what] = counts.get(what, 0) + n
            if about == ALL and what in ACTIONS.values():
                counts = days.setdefault(instant(hour).astimezone(zone).date(), {})
                counts[what] = counts.get(what, 0) + n
        holds: dict[str, list[Ended]] = {ALL: []}
        for hold in self.holds.values():
            if hold.how != "void":  # its client never got an answer, and sends it again
                for about in (ALL, *(f"rule:{name}" for name in hold.rules), *(f"list:{name}" for name in hold.lists)):
                    holds.setdefault(about, []).append(hold)
        latest = microseconds(until) if ended else math.inf
        rules, lists = (
            _sorted(
                NamedCounts(name=about.removeprefix(prefix), **_ended(holds.get(about, ()), latest), **counts)
                for about, counts in did.items()
                if about.startswith(prefix) and any(counts.values())
            )
            for prefix in ("rule:", "list:")
        )
        return Activity(
            since=since,
            until=until,
            **did.get(ALL, {}),
            **_ended(holds[ALL], latest),
            rules=rules,
            lists=lists,
            days=[Day(day=day, **counts) for day, counts in sorted(days.items()) if any(counts.values())],
            uncounted=uncounted,
        )


def _ended(holds: Sequence[Ended], latest: float) -> dict[str, Any]:
    """How many of these wait, and the decisions on the others. One that ended after ``latest`` (microseconds) waits."""
    over = [hold for hold in holds if hold.how and hold.at <= latest]
    said = Counter(hold.said for hold in holds)
    decided = Decided(
        **Counter(hold.how for hold in over),
        seconds=tuple(max(0, hold.at - hold.held_at) / 1e6 for hold in over),  # a clock may be set back
        right=said["right"],
        mistaken=said["mistake"],
    )
    return {"waiting": len(holds) - len(over), "decided": decided}


def _sorted(shares: Iterable[NamedCounts]) -> list[NamedCounts]:
    """Lists whose messages were all relayed come last."""
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
    """A name has no line end, since line ends separate names in the store."""
    return tuple(str(word).replace("\n", " ") for word in value) if isinstance(value, list) else ()
