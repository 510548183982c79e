"""The table of all metrics: name, labels and help text, as docs/metrics.md has them; and counters summed from the journal:
each event increments some of them. Numbers only, and pure: the same events always give the same numbers.

A label's value is a word of a fixed vocabulary, or one that settings or policy declare: never an address, a subject, an
id, or anything else that mail brings. Counters start at zero when the counting starts; Prometheus handles such resets.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from smtpguard.journal.event import ENDS, NOTICES, Event, Kind, decided_at, follows
from smtpguard.journal.outcome import Outcome, relayed
from smtpguard.policy.verdict import Action


class Type(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"  # 1, with what it says in its labels
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    kind: Type
    labels: tuple[str, ...]
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A histogram: ``counts`` up to each of ``bounds``, and of all at last; ``total``: the sum of the values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


Samples = Mapping[str, Mapping[tuple[str, ...], "float | Spread"]]
"""Values by the name of the family and by its label values, in their order. The default relay has no last value, since it has
no ``route``."""


def _table(*rows: tuple[str, str, str]) -> tuple[Family, ...]:
    """The name says the kind, as Prometheus has it."""
    return tuple(Family(f"smtpguard_{name}", _kind(name), tuple(labels.split()), says) for name, labels, says in rows)


def _kind(name: str) -> Type:
    return Type.COUNTER if name.endswith("_total") else Type.INFO if name.endswith("_info") else Type.GAUGE


JOURNAL = _table(
    ("events_total", "kind", "Entries of the journal: verdict, vote, freeze, thaw, reminded, escalated, sign-in-refused, viewed and others"),
    ("verdicts_total", "action", "Verdicts: relay, confirm, hold, defer, reject. A message that comes again is decided on again"),
    ("rule_messages_total", "rule effect",
     "Messages in whose verdict a rule counted, by effect: confirm, hold, defer, reject; observed: it only observes; "
     "approved: people had approved the mailing, or its writer had confirmed it"),
    ("outcomes_total", "outcome",
     "Outcomes of verdicts to relay, and of colleagues' parts that an MTA passes on itself: relayed, refused, lost, recalled, "
     "gone (the client), in-doubt"),
    ("rcpt_refused_total", "code",
     "Recipients that the relay refused at RCPT, by the first digit of its reply: 4 or 5"),
    ("customers_reached_total", "",
     "Customers reached by relayed mail. A customer is counted once for each message. A lower bound "
     "if a list could not say. Releases are not counted"),
    ("holds_total", "copy", "Messages that were held; copy: yes if it is stored under a primary hold"),
    ("hold_ends_total", "end copy", "Ends of holds: approved, confirmed, rejected, withdrawn, expired, void"),
    ("rule_hold_ends_total", "rule end",
     "Ends of holds by each rule that held, without copies of a mailing. A high share of approved ends says that a rule is too "
     "strict"),
    ("release_recipients_total", "outcome",
     "Recipients of releases and of colleagues' parts, counted at each attempt: sent, retry, failed, in-doubt"),
    ("notice_recipients_total", "notice outcome",
     "Recipients of notices and DSNs, by kind of notice, counted at each attempt: sent, retry, failed, in-doubt, obsolete (no "
     "longer needed, and not sent)"),
    ("list_news_total", "list news",
     "Changes that syncs of a list found: replaced (its members changed), failed (an outage began), otherwise (it has another "
     "problem), stale, well (it ended)"),
    ("webhooks_given_up_total", "hook", "Entries that a webhook did not accept for a day, or answered with 410"),
)  # fmt: skip
SECONDS = Family(
    "smtpguard_outcome_seconds", Type.HISTOGRAM, (), "From a verdict to relay to its outcome, the relay's answer mostly"
)
DECISION = Family(
    "smtpguard_decision_seconds",
    Type.HISTOGRAM,
    ("end",),
    "From the verdict to hold to the last vote or its end, nights and holidays included: approved, confirmed, rejected, withdrawn, expired. Copies of a mailing "
    "are not among them",
)
STORE = _table(
    ("store_up", "", "Whether the database answered the last query, and takes entries; the other values are as old as smtpguard_store_looked_seconds says"),
    ("store_looked_seconds", "", "Seconds since the database last answered"),
    ("journal_entry", "", "The number of the journal's last entry"),
    ("journal_unread_entries", "", "Entries that are not in the counters yet"),
    ("holds_waiting", "", "Holds that wait for a decision; a mailing counts as one"),
    ("holds_oldest_seconds", "", "How long the oldest of them has waited; 0 if none waits"),
    ("holds_asked", "", "Posts to a list that are in doubt, about which people are asked"),
    ("holds_near_deadline", "", "Holds that expire within two hours (not while their writer is asked to confirm), or should have expired, among the 1,000 that have waited longest"),
    ("holds_overdue", "", "Holds that still wait after their deadline: the delivery part does not run"),
    ("kept_bytes", "", "Held content on disk"),
    ("kept_limit_bytes", "", "hold: {quota_gb}; above it messages to be held are answered 452"),
    ("outbox_due", "", "Releases and notices that could be sent now. While anything is frozen: notices alone"),
    ("outbox_oldest_due_seconds", "", "How long the oldest of them could have been sent; 0 if there is none"),
    ("outbox_later", "", "Releases and notices that are due later, or are retried later"),
    ("relaying", "", "Verdicts to relay whose outcome is not known yet"),
    ("relaying_unsettled", "", "Verdicts to relay that are in doubt: older than 15 minutes, and not reported yet"),
    ("freezes", "selector", "Active freezes: all, list, sender, mailing, thread"),
    ("freezes_oldest_seconds", "", "Age of the oldest active freeze; 0 if there is none"),
    ("webhook_lag_entries", "hook", "Entries of the journal that a webhook has not been offered yet"),
    ("webhook_lag_seconds", "hook", "Age of the oldest of them; 0 if there is none"),
    ("checkpoints_refused_seconds", "receiver",
     "How long a receiver of checkpoints (audit: witness, syslog, timestamps) has taken none that was sent; 0 if it takes them"),
    ("store_put_back", "", "1 if the store was put back to an earlier state, and all mail is frozen until a thaw"),
    ("policy_enforced", "", "enforce: 0 if the policy only observes"),
    ("policy_info", "sha256", "The policy in force"),
)  # fmt: skip
HOST = _table(
    ("policy_unreadable", "", "1 if smtpguard on this host cannot read the policy in force: mail is answered 451"),
    ("policy_file_differs", "", "1 if the policy file of this host is not the policy in force, has mistakes or cannot be read"),
    ("policy_file_differed_at_start", "", "1 if it differs, and already differed when a part of this host was started"),
    ("list_people", "list", "People in a list's index; absent without one"),
    ("list_checked_seconds", "list", "Seconds since the index was last found to match its sources; absent if it never was"),
    ("list_stale", "list", "1 if the index is too old to rely on, or missing"),
    ("list_failing", "list", "Whether its last sync failed"),
    ("certificate_end_timestamp_seconds", "certificate",
     "When the certificate ends that its file has now, in Unix time: of a listener by its address and port, of the console, and "
     "the one that is shown to the relay; absent where it cannot be used"),
    ("certificate_usable", "certificate", "Whether its file and its key's can be read and used; if 0, the earlier certificate stays in use"),
)  # fmt: skip
TREE = (
    *_table(
        ("connections", "listener", "Connections of clients and MTAs that are open"),
        ("connections_limit", "", "limits: {connections}: of all listeners together"),
        ("connections_accepted_total", "listener", "Connections that were given to a part"),
        ("connections_refused_total", "listener reason",
         "Connections that were refused: limit (too many, 421), client (not among the listener's clients, 554), descriptor "
         "(the process had no file descriptor left, 421)"),
        ("part_processes", "part", "Processes of a part that are ready"),
        ("part_memory_bytes", "part",
         "Memory of the processes of a part, and of the supervisor; shared pages count for each of them"),
        ("certificates_refused_total", "",
         "Renewed certificates that a process could not use, so that the earlier one stays in use"),
        ("part_deaths_total", "part", "Processes that died or were killed for their silence, and are started again"),
        ("answers_total", "answer", "Messages whose content was received, by the answer to the client: taken (2xx), deferred (4xx), refused (5xx)"),
        ("undecided_total", "why",
         "Messages that were answered 451 or 452 without a verdict: full (no space, or the quota of held content is used up), busy (too many wait), policy (the policy in "
         "force cannot be read by this version), store (the database is away or too slow), rounds (freezes or policies moved too often), failed (an error of smtpguard)"),
        ("bypassed_total", "", "Messages relayed without the database, under an emergency bypass"),
        ("relay_up", "route", "Whether the relay answered the last connection that any part opened; it is asked every half minute at least"),
        ("relay_tried_seconds", "route", "Seconds since that connection"),
        ("relay_connections", "state route", "Connections to the relay, of all processes: in-use (also those being opened and closed), idle"),
        ("relay_connections_limit", "route", "relay: {connections}: of all processes together"),
        ("relay_waiting", "route", "Transactions, logins and deliveries that wait for a connection to the relay"),
        ("relay_waits_total", "route", "Requests for a relay connection that did not get one at once"),
        ("relay_wait_seconds_total", "route", "Total time that they waited"),
        ("turned_away_total", "why",
         "Mail that was answered 4xx or 5xx without a verdict, all of it or for some recipients; each is a line of the log. Why: "
         "connections, relay-down, relay-slow, relay-busy, relay-lost, sender-refused, recipient-refused, bad-address, too-many-recipients, "
         "other-route, rate-limit, too-large, bad-content, too-slow, gave-up, stopping, undecided, failed"),
    ),
    Family(
        "smtpguard_admission_seconds",
        Type.HISTOGRAM,
        (),
        "From a whole message, its final dot, to its verdict in the journal: reading, lists, DKIM and the commit, without the relay",
    ),
    *_table(("build_info", "version", "This smtpguard")),
)  # fmt: skip

FAMILIES: tuple[Family, ...] = (*JOURNAL, SECONDS, DECISION, *STORE, *HOST, *TREE)
BY_NAME = {family.name: family for family in FAMILIES}

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

_ACTIONS = tuple(action.word for action in Action)
_OUTCOMES = ("relayed", "refused", "lost", "recalled", "gone", "in-doubt")
_SENT = ("sent", "retry", "failed", "in-doubt")
_TOLD = (*_SENT, "obsolete")
_DECIDED = ("approved", "confirmed", "rejected", "withdrawn", "expired")
_NEWS = ("replaced", "failed", "otherwise", "stale", "well")
_BEGIN: Mapping[str, Iterable[tuple[str, ...]]] = {
    "events_total": [(kind.value,) for kind in Kind],
    "verdicts_total": [(action,) for action in _ACTIONS],
    "outcomes_total": [(outcome,) for outcome in _OUTCOMES],
    "rcpt_refused_total": [("4",), ("5",)],
    "customers_reached_total": [()],
    "holds_total": [(copy,) for copy in _YES.values()],
    "hold_ends_total": [(end, copy) for end in ENDS.values() for copy in _YES.values()],
    "release_recipients_total": [(outcome,) for outcome in _SENT],
    "notice_recipients_total": [(notice, outcome) for notice in (*NOTICES, "dsn") for outcome in _TOLD],
}


@dataclass(frozen=True, slots=True)
class Held:
    """The verdict that held a message: its time and rules."""

    at: datetime
    rules: Sequence[str]


def ends_hold(event: Event) -> bool:
    """Whether the event is a decision, or the expiry, of a hold that is no copy."""
    return event.kind in ENDS and not follows(event.data)


class _Times:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._seconds = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, began: datetime, ended: datetime) -> None:
        seconds = max(0.0, (ended - began).total_seconds())  # a clock may be set back
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def spread(self) -> Spread:
        return Spread(bounds=self._bounds, counts=tuple(accumulate(self._counts)), total=self._seconds)


class Counters:
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
                for end in ENDS.values():
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
            case Kind.NOTICE if data.get("outcome") in _TOLD:
                told = str(data.get("notice") or OTHER), str(data["outcome"])
                self._count("notice_recipients_total", *told, by=_number(data.get("recipients")))
            case Kind.LIST:
                for news in _words(data.get("news")):
                    self._count("list_news_total", event.id, news)
            case Kind.WEBHOOK:
                self._count("webhooks_given_up_total", str(data.get("hook")))
            case kind if kind in ENDS:
                self._count("hold_ends_total", ENDS[kind], _YES[follows(data)])
                if held is not None and ends_hold(event):
                    self._ended(ENDS[kind], decided_at(event.at, data), held)

    def numbers(self) -> Samples:
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
