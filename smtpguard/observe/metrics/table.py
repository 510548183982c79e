"""The table of all metrics: name, labels and help text. docs/metrics.md has the same tables.

A label's value is a word of a fixed vocabulary, or one that settings or policy declare: never an address, a subject, an
id, or anything else that mail brings.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Kind(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"  # 1, with what it says in its labels
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    kind: Kind
    labels: tuple[str, ...]
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A histogram: ``counts`` are those up to each of ``bounds``, and all of them at last; ``total``: the sum of the
    values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


Numbers = Mapping[str, Mapping[tuple[str, ...], "float | Spread"]]
"""Values by the name of the family and by its label values, in their order. The default relay has no last value, since it has
no ``route``."""


def _table(kind: Kind, *rows: tuple[str, str, str]) -> tuple[Family, ...]:
    return tuple(Family(f"smtpguard_{name}", kind, tuple(labels.split()), says) for name, labels, says in rows)


JOURNAL = _table(
    Kind.COUNTER,
    ("events_total", "kind", "Entries of the journal: verdict, vote, freeze, thaw, reminded, escalated, sign-in-refused, viewed and others"),
    ("verdicts_total", "action", "Verdicts: relay, confirm, hold, defer, reject. A message that comes again is decided on again"),
    (
        "rule_messages_total",
        "rule effect",
        "Messages in whose verdict a rule counted, by effect: confirm, hold, defer, reject; observed: it only observes; "
        "approved: people had approved the mailing",
    ),
    (
        "outcomes_total",
        "outcome",
        "Outcomes of verdicts to relay, and of colleagues' parts that an MTA passes on itself: relayed, refused, lost, recalled, "
        "gone (the client), in-doubt",
    ),
    (
        "rcpt_refused_total",
        "code",
        "Recipients whom the relay refused at RCPT, so that the message was not for them, by the first digit of its reply: 4 or 5",
    ),
    (
        "customers_reached_total",
        "",
        "Customers reached by relayed mail. A customer is counted once for each message. A lower bound "
        "if a list could not say. Releases are not counted",
    ),
    ("holds_total", "copy", "Messages that were held; copy: yes if it is stored under a primary hold"),
    ("hold_ends_total", "end copy", "Ends of holds: approved, confirmed, rejected, withdrawn, expired, void"),
    (
        "rule_hold_ends_total",
        "rule end",
        "Ends of holds by each rule that held, without copies of a mailing. A high share of approved ends says that a rule is too "
        "strict",
    ),
    (
        "release_recipients_total",
        "outcome",
        "Recipients of releases and of colleagues' parts, counted at each attempt: sent, retry, failed, in-doubt",
    ),
    ("notice_recipients_total", "notice outcome", "Recipients of notices and DSNs, by kind of notice, counted at each attempt"),
    (
        "list_news_total",
        "list news",
        "Changes that syncs of a list found: replaced (its members changed), failed (an outage began), otherwise (it has another "
        "problem), stale, well (it ended)",
    ),
    ("webhooks_given_up_total", "hook", "Entries that a webhook did not accept for a day, or answered with 410"),
)  # fmt: skip
SECONDS = Family(
    "smtpguard_outcome_seconds", Kind.HISTOGRAM, (), "From a verdict to relay to its outcome, the relay's answer mostly"
)
DECISION = Family(
    "smtpguard_decision_seconds",
    Kind.HISTOGRAM,
    ("end",),
    "From the verdict to hold to the last vote or its end, nights and holidays included: approved, confirmed, rejected, withdrawn, expired. Copies of a mailing "
    "are not among them",
)
STORE = (
    *_table(
        Kind.GAUGE,
        ("store_up", "", "Whether the database answered the last query; if 0, the other values are as old as smtpguard_store_looked_seconds says"),
        ("store_looked_seconds", "", "Seconds since the database last answered"),
        ("journal_entry", "", "The number of the journal's last entry"),
        ("journal_unread_entries", "", "Entries that are not in the counters yet"),
        ("holds_waiting", "", "Holds that wait for a decision; a mailing counts as one"),
        ("holds_oldest_seconds", "", "How long the oldest of them has waited; 0 if none waits"),
        ("holds_asked", "", "Posts to a list that are in doubt, about which people are asked"),
        ("holds_near_deadline", "", "Holds that expire within two hours, among the 1,000 that have waited longest"),
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
        (
            "checkpoints_refused_seconds",
            "receiver",
            "How long a receiver of checkpoints (audit: witness, syslog, timestamps) has taken none that was sent; 0 if it takes them",
        ),
        ("store_put_back", "", "1 if the store was put back to an earlier state, and all mail is frozen until a thaw"),
        ("policy_enforced", "", "enforce: 0 if the policy only observes"),
    ),
    *_table(Kind.INFO, ("policy_info", "sha256", "The policy in force")),
)  # fmt: skip
HOST = _table(
    Kind.GAUGE,
    ("policy_unreadable", "", "1 if smtpguard on this host cannot read the policy in force: mail is answered 451"),
    ("policy_file_differs", "", "1 if the policy file of this host is not the policy in force, has mistakes or cannot be read"),
    (
        "policy_file_differed_at_start",
        "",
        "1 if it differs, and already differed when a part of this host was started",
    ),
    ("list_people", "list", "People in a list's index; absent without one"),
    ("list_checked_seconds", "list", "Seconds since the index was last found to match its sources; absent if it never was"),
    ("list_stale", "list", "1 if the index is too old to rely on, or missing"),
    ("list_failing", "list", "Whether its last sync failed"),
    (
        "certificate_end_timestamp_seconds",
        "certificate",
        "When the certificate ends that its file has now, in Unix time: of a listener by its address and port, of the console, and "
        "the one that is shown to the relay; absent where it cannot be used",
    ),
    ("certificate_usable", "certificate", "Whether its file and its key's can be read and used; if 0, the earlier certificate stays in use"),
)  # fmt: skip
TREE = (
    *_table(
        Kind.GAUGE,
        ("connections", "listener", "Connections of clients and MTAs that are open"),
        ("connections_limit", "", "limits: {connections}: of all listeners together"),
    ),
    *_table(
        Kind.COUNTER,
        ("connections_accepted_total", "listener", "Connections that were given to a part"),
        (
            "connections_refused_total",
            "listener reason",
            "Connections that were refused: limit (too many, 421), client (not among the listener's clients, 554), descriptor "
            "(the process had no file descriptor left, 421)",
        ),
    ),
    *_table(
        Kind.GAUGE,
        ("part_processes", "part", "Processes of a part that are ready"),
        (
            "part_memory_bytes",
            "part",
            "Memory of the processes of a part, and of the supervisor; shared pages count for each of them",
        ),
    ),
    *_table(
        Kind.COUNTER,
        (
            "certificates_refused_total",
            "",
            "Renewed certificates that a process could not use, so that the earlier one stays in use",
        ),
        ("part_deaths_total", "part", "Processes that died or were killed for their silence, and are started again"),
        ("answers_total", "answer", "Messages whose content was received, by the answer to the client: taken (2xx), deferred (4xx), refused (5xx)"),
        (
            "undecided_total",
            "why",
            "Messages that were answered 451 or 452 without a verdict: full (no space), busy (too many wait), policy (the policy in "
            "force cannot be read by this version), store (the database is away or too slow), rounds (freezes or policies moved too often), failed (an error of smtpguard)",
        ),
        ("bypassed_total", "", "Messages relayed without the database, under an emergency bypass"),
    ),
    *_table(
        Kind.GAUGE,
        ("relay_up", "route", "Whether the relay answered the last connection that any part opened; it is asked every half minute at least"),
        ("relay_tried_seconds", "route", "Seconds since that connection"),
    ),
    *_table(
        Kind.GAUGE,
        ("relay_connections", "state route", "Connections to the relay, of all processes: in-use (also those being opened and closed), idle"),
        ("relay_connections_limit", "route", "relay: {connections}: of all processes together"),
        ("relay_waiting", "route", "Transactions, logins and deliveries that wait for a connection to the relay"),
    ),
    *_table(
        Kind.COUNTER,
        ("relay_waits_total", "route", "Requests for a relay connection that did not get one at once"),
        ("relay_wait_seconds_total", "route", "Total time that they waited"),
        (
            "turned_away_total",
            "why",
            "Mail that was answered 4xx or 5xx without a verdict, all of it or for some recipients; each is a line of the log. Why: "
            "connections, relay-down, relay-slow, relay-busy, relay-lost, sender-refused, recipient-refused, too-many-recipients, "
            "other-route, rate-limit, too-large, bad-content, too-slow, gave-up, stopping, undecided, failed",
        ),
    ),
    Family(
        "smtpguard_admission_seconds",
        Kind.HISTOGRAM,
        (),
        "From a whole message, its final dot, to its verdict in the journal: reading, lists, DKIM and the commit, without the relay",
    ),
    *_table(Kind.INFO, ("build_info", "version", "This smtpguard")),
)  # fmt: skip

FAMILIES: tuple[Family, ...] = (*JOURNAL, SECONDS, DECISION, *STORE, *HOST, *TREE)
BY_NAME = {family.name: family for family in FAMILIES}
