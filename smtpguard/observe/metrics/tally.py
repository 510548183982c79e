"""Counters summed from the journal: each event increments some of them. Pure: the same events always give the same
numbers.

Counters start at zero when the counting starts; Prometheus handles such resets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from smtpguard.journal.event import DECISIONS, NOTICES, Event, Kind, decided_at
from smtpguard.journal.outcome import Outcome, relayed
from smtpguard.observe.metrics.table import DECISION, JOURNAL, SECONDS, Numbers, Spread

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
"""Seconds; the last is how long a relay may take (RFC 5321 section 4.5.3.2.6)."""
DECISION_BOUNDS = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0, 172800.0, 345600.0, 604800.0)
"""Seconds, from a minute to a week."""
MOST_SERIES = 2000
"""The most series of one family. Labels are declared words, so only a journal of many policies exceeds it: the rest is
counted as OTHER."""
OTHER = "other"
_MOST_RELAYING = 10_000
_YES = {True: "yes", False: "no"}

_ACTIONS = ("relay", "confirm", "hold", "defer", "reject")
_OUTCOMES = ("relayed", "refused", "lost", "recalled", "gone", "in-doubt")
_SENT = ("sent", "retry", "failed", "in-doubt")
_ENDS = {kind: state for kind, state in DECISIONS.items() if state != "waiting"} | {Kind.CONFIRMED: "confirmed"}
_DECIDED = ("approved", "confirmed", "rejected", "withdrawn", "expired")
_NEWS = ("replaced", "failed", "otherwise", "stale", "well")
_BEGIN: Mapping[str, Iterable[tuple[str, ...]]] = {
    "events_total": [(kind.value,) for kind in Kind],
    "verdicts_total": [(action,) for action in _ACTIONS],
    "outcomes_total": [(outcome,) for outcome in _OUTCOMES],
    "rcpt_refused_total": [("4",), ("5",)],
    "customers_reached_total": [()],
    "holds_total": [(copy,) for copy in _YES.values()],
    "hold_ends_total": [(end, copy) for end in _ENDS.values() for copy in _YES.values()],
    "release_recipients_total": [(outcome,) for outcome in _SENT],
    "notice_recipients_total": [(notice, outcome) for notice in (*NOTICES, "dsn") for outcome in _SENT],
}


@dataclass(frozen=True, slots=True)
class Held:
    """The verdict that held a message: its time and rules."""

    at: datetime
    rules: Sequence[str]


def ends_hold(event: Event) -> bool:
    """Whether the event is a decision, or the expiry, of a hold that is no copy."""
    return event.kind in _ENDS and "with" not in event.data


class _Times:
    """The counts of one histogram."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._seconds = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, began: datetime, ended: datetime) -> None:
        seconds = max(0.0, (ended - began).total_seconds())  # a clock may be set back
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def spread(self) -> Spread:
        return Spread(bounds=self._bounds, counts=tuple(accumulate(self._counts)), total=self._seconds)


class Tally:
    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[str, ...], int]] = {family.name: {} for family in JOURNAL}
        self._relaying: OrderedDict[str, tuple[datetime, int]] = OrderedDict()  # time, and number of customers
        self._outcomes = _Times(BOUNDS)
        self._decisions = {end: _Times(DECISION_BOUNDS) for end in _DECIDED}
        for name, series in _BEGIN.items():
            for labels in series:
                self._count(name, *labels, by=0)

    def expect(self, *, rules: Mapping[str, str], lists: Iterable[str], hooks: Iterable[str]) -> None:
        """Create the series that may be counted, with 0, before they grow. ``rules``: id to effect."""
        for rule, effect in rules.items():
            self._count("rule_messages_total", rule, effect, by=0)
            if effect in ("hold", "confirm"):
                for end in _ENDS.values():
                    self._count("rule_hold_ends_total", rule, end, by=0)
        for name in lists:
            for news in _NEWS:
                self._count("list_news_total", name, news, by=0)
        for hook in hooks:
            self._count("webhooks_given_up_total", hook, by=0)

    def add(self, event: Event, held: Held | None = None) -> None:
        """The journal's next event; for one that ends a hold (``ends_hold``) with the verdict that held it, if known.
        Total: an event of another version's shape counts as far as it is understood."""
        self._count("events_total", event.kind.value)
        data = event.data
        if isinstance(codes := data.get("refused_codes"), Mapping):
            for code, recipients in codes.items():
                self._count("rcpt_refused_total", str(code)[:1], by=_number(recipients))
        match event.kind:
            case Kind.VERDICT:
                self._verdict(event, data)
            case Kind.OUTCOME | Kind.IN_DOUBT if (end := relayed(event.kind.value, data)) is not None:
                self._outcome(event, event.kind.value if end is Outcome.IN_DOUBT else str(data.get("outcome")), end)
            case Kind.RELEASE | Kind.IN_DOUBT if data.get("outcome") in _SENT:
                self._count("release_recipients_total", str(data["outcome"]), by=_number(data.get("recipients")))
            case Kind.NOTICE if data.get("outcome") in _SENT:
                told = str(data.get("notice") or OTHER), str(data["outcome"])
                self._count("notice_recipients_total", *told, by=_number(data.get("recipients")))
            case Kind.LIST:
                for news in _words(data.get("news")):
                    self._count("list_news_total", event.id, news)
            case Kind.WEBHOOK:
                self._count("webhooks_given_up_total", str(data.get("hook")))
            case kind if kind in _ENDS:
                self._count("hold_ends_total", _ENDS[kind], _YES["with" in data])
                if held is not None and ends_hold(event):
                    self._ended(_ENDS[kind], decided_at(event.at, data), held)

    def numbers(self) -> Numbers:
        """A snapshot."""
        return {
            **{name: dict(series) for name, series in self._counts.items()},
            SECONDS.name: {(): self._outcomes.spread()},
            DECISION.name: {(end,): times.spread() for end, times in self._decisions.items()},
        }

    def _verdict(self, event: Event, data: Mapping[str, Any]) -> None:
        action = _one_of(_ACTIONS, data.get("action"))
        self._count("verdicts_total", action)
        if action == "relay":
            counts = data.get("counts")
            customers = _number(counts.get("customers")) if isinstance(counts, Mapping) else 0
            self._relaying[event.id] = event.at, customers
            if len(self._relaying) > _MOST_RELAYING:
                self._relaying.popitem(last=False)
        if data.get("retry"):  # of a hold: counted at its first arrival
            return
        if action in ("hold", "confirm"):
            self._count("holds_total", _YES["with" in data])
        for key, effect in (("rules", action), ("observed", "observed"), ("approved", "approved")):
            for rule in _words(data.get(key)):
                self._count("rule_messages_total", rule, effect)

    def _outcome(self, event: Event, outcome: str, end: Outcome) -> None:
        self._count("outcomes_total", _one_of(_OUTCOMES, outcome))
        began = self._relaying.pop(event.id, None)
        if began is None:  # before the counting began, or for the part of a held message that its MTA passed on itself
            return
        at, customers = began
        self._outcomes.add(at, event.at)
        if end is Outcome.DELIVERED:
            self._count("customers_reached_total", by=customers)

    def _ended(self, end: str, at: datetime, held: Held) -> None:
        for rule in held.rules:
            self._count("rule_hold_ends_total", rule, end)
        if end in self._decisions:
            self._decisions[end].add(held.at, at)

    def _count(self, name: str, *labels: str, by: int = 1) -> None:
        series = self._counts[f"smtpguard_{name}"]
        if labels not in series and len(series) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
        series[labels] = series.get(labels, 0) + by


def _one_of(known: tuple[str, ...], value: Any) -> str:
    return value if value in known else OTHER


def _words(value: Any) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []


def _number(value: Any) -> int:
    """A number of people in the journal: never negative."""
    return max(0, value) if isinstance(value, int) else 0
