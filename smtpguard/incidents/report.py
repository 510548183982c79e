"""The incident report, from the journal alone: who sent what, when, to how many, what the outcome was, and who decided.
Pure.

The query selects verdicts. All entries on those messages and their mailings belong to the case, and so do the freezes,
policies and lists of that time. A case may be a mailing of 400,000 messages, so it is summed while its entries are
read. If something cannot be known, the report says so.

A verdict names its recipients by sealed digests, and so do the entries on its release. Entries of earlier versions do
not, so for those only numbers are known, given as bounds. A list server may send what it expands back through the
guard. Its copies are messages of their own to the guard, and not to people: who is behind the list's address is counted
with the original, without those whose copies were all stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from smtpguard.admission.packedfacts import unpack
from smtpguard.incidents.intrusion import Ingress, Traits, Usual, traits_of
from smtpguard.incidents.people import PeopleByOutcome, stopped_copies
from smtpguard.incidents.query import NAMES, Digests, IncidentQuery
from smtpguard.incidents.statement import Entries, Step, Timeline
from smtpguard.journal.chain import ERASED, Clear, Entry, Pair, Seal, first_of, instant
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.deliverystatus import DeliveryEvent, DeliveryStatus, delivery_entry
from smtpguard.journal.distinct import (
    Asked,
    Changes,
    Interval,
    Unit,
    more,
    units,
)
from smtpguard.journal.event import Kind, happened
from smtpguard.journal.outcome import OPEN, REACHED, Message, Outcome, Sum, relayed
from smtpguard.journal.proof import Proof
from smtpguard.mailings.model import Mailing

DAY = 86_400 * 1_000_000
"""How long after the last entry on its messages a freeze, a policy or a list belongs to a case, in microseconds."""
SURROUNDING = frozenset({Kind.FREEZE.value, Kind.THAW.value, Kind.THAW_ASKED.value, Kind.POLICY.value, Kind.LIST.value,
                          Kind.STREAM.value, Kind.TRIPPED.value})  # fmt: skip
"""The kinds of entries that belong to a case without being on one of its messages."""
MOST = 1_000_000
"""The most messages of one case; a mailing of 400,000 takes 300 MB of memory while it is summed."""
FEW = 4
"""The most held messages that are named one by one."""
MOST_WAYS = 1000
"""The most different ways in, and the most that are compared with the writers' earlier mail."""
STOPS = frozenset(
    {Kind.FREEZE.value, Kind.REJECTED.value, Kind.WITHDRAWN.value, Kind.STOPPED.value, Kind.REOPENED.value}
)
"""The kinds of entries that stop messages which a rule relayed, or would have relayed."""
CAME, RULE, LIST, WENT, AGAIN = "came", "rule", "list", "went", "again"
"""The first parts of keys of ``Report.entries``, before an end, a rule's mode and name, a list's name, or a role and
address."""
_SINGLE = {
    "mailings": "mailing", "clients": "client", "contents": "content", "policies": "policy", "bypasses": "bypass",
}  # fmt: skip
"""The counters of Report that count the values of one key of verdicts, with that key."""
_COUNTED = (*_SINGLE, "lists", "writers", "subjects", "rules", "reasons", "refused")


class TooMany(Exception):
    """More messages match than a report can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report on a case: figures, and the entries behind them.

    Times. ``first``, ``last``: when its messages came; ``went_first``, ``went_last``: when the relay accepted the first
    and the last, None if it accepted none. ``until``: the time of the last entry on its messages.

    Messages. ``again``: retries of held messages. ``ends``: the ends that occurred, each with its messages and its
    distinct people; ``reached``, ``open``: their totals, each message and each person once. ``copies``: the copies that
    a list server made of messages of the case, by their end; their people are counted with the original's. ``erased``:
    the messages whose names are erased; ``unsettled``: the ids whose end is unknown. ``held``: the first messages whose
    content is stored, and since when. ``parts``: the messages whose colleagues' part was delivered.

    People. ``perhaps``: how many more people may have it, since all their copies are in doubt; ``unreached``: for how
    many others it came, of whom no copy is delivered or in doubt; who has it, and waits for another copy, is not among
    them. ``of_lists``: the members of each list who have it; ``perhaps_of_lists``: how many more may. ``shown``: the
    most addresses in To and Cc of a message that was or may have been delivered. ``refused``: the recipients that the
    relay refused at RCPT, so that no message was for them, by its reply; ``undelivered``: the recipients of released
    messages that the relay refused for good. ``crowds``: whether it went, or may have gone, to addresses with several
    people behind them.

    Counters of messages. ``writers``: by role and address; ``rules``: by name and mode; ``reasons``: by enforced rule,
    fact, observed value and limit; ``policies``: by SHA-256; ``bypasses``: by the emergency bypass under which they
    were relayed.

    Entries. ``entries``: those behind each figure (CAME and others); ``ways``: those of each way in; ``usual``: how
    earlier mail of the same writers came in; ``watched``: events of the guard itself. ``let_through``: the verdict of
    the first message that was relayed at once, else of the first one. ``stopped``: the first entry that stopped any
    message; ``went_after``: the first delivery of each message that went out after it."""

    first: datetime
    last: datetime
    went_first: datetime | None
    went_last: datetime | None
    messages: int
    refused: Counter[str]
    again: int
    ends: Mapping[Outcome, Sum]
    reached: Sum
    open: Sum
    perhaps: Interval
    unreached: Interval
    of_lists: Mapping[str, Interval]
    perhaps_of_lists: Mapping[str, Interval]
    copies: Mapping[Outcome, int]
    shown: int
    lists: Counter[str]
    mailings: Counter[str]
    writers: Counter[tuple[str, str]]
    clients: Counter[str]
    subjects: Counter[str]
    contents: Counter[str]
    rules: Counter[tuple[str, str]]
    reasons: Counter[tuple[str, str, str, str]]
    policies: Counter[str]
    undelivered: int
    parts: int
    erased: int
    unsettled: Sequence[str]
    held: Sequence[tuple[str, datetime]]
    steps: Sequence[Step]
    until: datetime
    entries: Mapping[tuple[str, str], Entries]
    ways: Mapping[Ingress, Entries]
    usual: Usual
    watched: Mapping[str, Entries]
    let_through: Pair | None
    stopped: Entry | None
    went_after: Entries
    crowds: bool
    bypasses: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the journal has on an incident. ``report``: None if no message matches. ``mailings``: as they are now, over
    all of their time. ``seq``, ``hash``: the journal's last entry at the start, up to which everything was read;
    ``checkpoint``: the last one signed. ``proof``: None if it was not asked for."""

    report: Report | None
    mailings: Sequence[Mailing]
    journal: str
    seq: int
    hash: bytes
    checkpoint: Checkpoint | None
    proof: Proof | None


class Case:
    """The messages of one report, summed while their entries are read. First, ``add_verdict`` takes every candidate
    verdict. Then ``ids`` names all messages whose entries ``add_entry`` needs. At last, ``add_surrounding`` takes the
    entries around the case. Each may take entries in any order, except that those of one id come in theirs."""

    def __init__(self, query: IncidentQuery, seal: Seal, asked: Asked | None = None) -> None:
        """``asked``: returns whether a person is on a list, if its index is the one that was counted by."""
        self._query = query
        self._asked = asked
        self._changes = Changes()
        self._people_of: dict[str, Sequence[Sequence[Unit]]] = {}  # for each recipient, the people of it
        self._digests = Digests(query.senders, seal)
        self._messages: dict[str, Message] = {}
        self._copies: dict[str, Message] = {}
        self._copied: dict[str, str] = {}  # for each copy its original
        self._timeline = Timeline()
        self._counters: dict[str, Counter[Any]] = {name: Counter() for name in _COUNTED}
        self._entries: dict[tuple[str, str], Entries] = {}
        self._seqs: dict[str, tuple[int, int]] = {}  # for each message its verdict's entry, and the last one
        self._ways: dict[Ingress, Entries] = {}
        self.traits = set[Traits]()  # of its messages
        self._sample: tuple[bool, Entry, Clear | None] | None = None
        self._stop: Entry | None = None
        self._deliveries: list[tuple[int, int, str]] = []  # time, entry and message of each delivery
        self._stored: list[tuple[str, datetime]] = []
        self._holds: set[str] = set()  # also those under which copies are stored
        self._freezes: set[str] = set()
        self._stopped_by: set[str] = set()  # all freezes that concern the case
        self._trips: dict[str, Pair] = {}  # by freezes: breakers that tripped for another mailing
        self._streams: set[str] = set()
        self.writers: set[str] = set()  # as keyed digests
        self._erased = self._undelivered = 0
        self._from = self._to = 0
        self._went: tuple[int, int] | None = None
        self._end = 0  # the last entry

    @property
    def mailings(self) -> list[str]:
        """The mailings of the case, those with the most messages first."""
        return [name for name, _ in self._counters["mailings"].most_common()]

    @property
    def messages(self) -> int:
        return len(self._messages)

    @property
    def ids(self) -> frozenset[str]:
        """The ids that entries of the case can be about: messages, holds, mailings, and the freezes that stopped
        them."""
        return frozenset().union(self._messages, self._copies, self._holds, self._counters["mailings"], self._freezes)

    def add_verdict(self, entry: Entry, clear: Clear | None) -> bool:
        """Count a verdict if it belongs to the case. Returns whether it does. Raises TooMany."""
        content = entry.content
        if not self._query.fits(entry, content, clear, self._digests):
            return False
        self._add(entry, content["data"], content["private"], clear)
        return True

    def _add(self, entry: Entry, data: Mapping[str, Any], sealed: Mapping[str, Any], clear: Clear | None) -> None:
        at = happened(entry.at, data)
        self._from = min(self._from, at) if self._from else at
        self._to = max(self._to, at)
        self._note(entry, clear)
        hold = data.get("hold")
        if hold:
            self._holds.update(name for name in (hold, data.get("with")) if name)
        if data.get("freeze"):
            self._freezes.add(str(data["freeze"]))
        id = str(hold) if data.get("retry") and hold else entry.id
        known = id in self._messages or id in self._copies
        if known and "action" not in data:
            return
        if known and data.get("retry"):  # of a client that did not get our 250
            self._entries.setdefault((AGAIN, ""), Entries()).add(entry.seq)
            return
        copy = data.get("expanded_from") in self._messages  # its people are counted with the original's
        (self._copies if copy else self._messages)[id] = Message.of(data, sealed)
        if copy:
            self._copied[id] = str(data["expanded_from"])
        if copy or not self._messages[id].test:
            self._people_of[id] = tuple(units(data, tuple(sealed.get("recipients", ())), id))
        if data.get("action") in ("hold", "confirm") and hold and len(self._stored) < FEW:
            self._stored.append((str(hold), instant(entry.at)))
        if known:  # a freeze or another policy recalled it before its final dot: the last verdict counts
            self._count_again(entry, data)
            return
        self._seqs[id] = entry.seq, entry.seq
        self._count_ingress(entry, data, sealed, clear)
        if len(self._messages) + len(self._copies) > MOST:
            raise TooMany(f"more than {MOST:,} messages fit: ask for less at a time")
        self._count(data, sealed, clear)
        self._add_to_entries(entry.seq, data, clear)

    def _add_to_entries(self, seq: int, data: Mapping[str, Any], clear: Clear | None) -> None:
        keys = [(CAME, ""), *((LIST, str(name)) for name in data.get("lists", ()))]
        keys += [(key, str(data[key])) for key in _SINGLE.values() if data.get(key)]
        for mode, key in (("enforce", "rules"), ("observe", "observed"), ("approved", "approved")):
            keys += [(RULE, f"{mode} {rule}") for rule in data.get(key, ())]
        named = (clear or {}).items()
        keys += [(role, value) for role, values in named if role in NAMES or role == "subject" for value in values]
        for at in keys:
            self._entries.setdefault(at, Entries()).add(seq)

    def _count_again(self, entry: Entry, data: Mapping[str, Any]) -> None:
        """Count what a later verdict on a message says. That the message came is counted already."""
        self._note_verdict_stop(entry, data)
        self._count_rules(data)
        for rule in data.get("rules", ()):
            self._entries.setdefault((RULE, f"enforce {rule}"), Entries()).add(entry.seq)
        policy = data.get("policy")
        if policy and policy not in self._counters["policies"]:
            self._counters["policies"].update([policy])
            self._entries.setdefault(("policy", str(policy)), Entries()).add(entry.seq)

    def _count_ingress(
        self, entry: Entry, data: Mapping[str, Any], sealed: Mapping[str, Any], clear: Clear | None
    ) -> None:
        """Count how a message came in; and keep the first message that was relayed at once, else the first one."""
        if "action" not in data:
            return
        facts = first_of(clear, "facts")
        proven = unpack(facts).get("sender.proven") if facts else None
        way = Ingress.of(data, sealed, clear, proven if isinstance(proven, bool) else None)
        if way in self._ways or len(self._ways) < MOST_WAYS:
            self._ways.setdefault(way, Entries()).add(entry.seq)
        if len(self.traits) < MOST_WAYS:
            self.traits.add(traits_of(data, sealed))
        through = data["action"] == "relay"
        self._note_verdict_stop(entry, data)
        before = self._sample
        if before is None or (through, -entry.seq) > (before[0], -before[1].seq):
            self._sample = through, entry, clear

    def _note_verdict_stop(self, entry: Entry, data: Mapping[str, Any]) -> None:
        """Note a verdict that stops its message. A message that is deferred without a freeze comes again, and is
        decided on then."""
        if data["action"] not in ("relay", "defer") or data.get("freeze"):
            self._note_stop(entry)

    def _note_stop(self, entry: Entry) -> None:
        if self._stop is None or (entry.at, entry.seq) < (self._stop.at, self._stop.seq):
            self._stop = entry

    @property
    def first_entry(self) -> int:
        return min((first for first, _ in self._seqs.values()), default=0)

    def _count(self, data: Mapping[str, Any], sealed: Mapping[str, Any], clear: Clear | None) -> None:
        counters = self._counters
        counters["lists"].update(data.get("lists", ()))
        counters["refused"].update({str(code): int(n) for code, n in data.get("refused_codes", {}).items()})
        for name, key in _SINGLE.items():
            counters[name].update([data[key]] if data.get(key) else ())
        for mode, key in (("observe", "observed"), ("approved", "approved")):
            counters["rules"].update((rule, mode) for rule in data.get(key, ()))
        self._count_rules(data)
        self._streams.update(data.get("streams", ()))
        self.writers.update(digest for role in NAMES for digest in sealed.get(role, ()))
        if clear is None:
            self._erased += bool(sealed)
            return
        self._erased += any(ERASED in clear.get(role, ()) for role in (*NAMES, "subject"))
        counters["subjects"].update(subject for subject in clear.get("subject", ()) if subject and subject != ERASED)
        for role in NAMES:
            some = (address for address in clear.get(role, ()) if address and address != ERASED)
            counters["writers"].update((role, address) for address in some)

    def _count_rules(self, data: Mapping[str, Any]) -> None:
        enforced = data.get("rules", ())
        self._counters["rules"].update((rule, "enforce") for rule in enforced)
        self._counters["reasons"].update(
            (r["rule"], r["fact"], _text(r.get("observed")), _text(r.get("limit")))
            for r in data.get("reasons", ())
            if r["rule"] in enforced
        )

    def add_entry(self, entry: Entry, clear: Clear | None) -> None:
        """Add an entry on one of ``ids``, other than a verdict."""
        message = self._messages.get(entry.id) or self._copies.get(entry.id)
        self._note(entry, clear)
        if entry.kind in STOPS and entry.kind != Kind.FREEZE.value:
            self._note_stop(entry)
        if message is None:
            return
        content = entry.content
        data = content["data"]
        message.add(entry.kind, data, content["private"])
        if "behind" in data and entry.id in self._people_of:  # lists may have changed since it came
            people, now = list(self._people_of[entry.id]), list(units(data["behind"], (), entry.id))
            for n, place in message.named_in(content["private"]).items():
                people[n] = now[place] or people[n]
            self._people_of[entry.id] = people
        self._seqs[entry.id] = self._seqs[entry.id][0], max(entry.seq, self._seqs[entry.id][1])
        one = delivery_entry(entry.kind, data)
        if relayed(entry.kind, data) is Outcome.DELIVERED or (one is not None and one.event is DeliveryEvent.TAKE):
            at = happened(entry.at, data)
            first, last = self._went or (at, at)
            self._went = min(first, at), max(last, at)
            self._deliveries.append((at, entry.seq, entry.id))
        if one is not None and one.status is DeliveryStatus.REFUSED:
            self._undelivered += int(data.get("recipients", 0))

    def period(self) -> tuple[int, int]:
        """Return the time of the case in microseconds: from its first message to a day after the last entry on any."""
        return self._from, self._end + DAY

    def add_surrounding(self, entry: Entry, clear: Clear | None) -> bool:
        """Note a freeze, thaw, policy, list, stream or breaker if it concerns the case, and the changes of its lists.
        Returns whether the report uses the entry."""
        begin, end = self.period()
        data, kind = entry.data, entry.kind
        if kind not in SURROUNDING:
            return False
        within = begin <= entry.at <= end
        counted = kind == Kind.LIST.value and entry.id in self._counters["lists"] and self._changes.note(entry.id, data)
        if kind == Kind.POLICY.value:
            concerns = data.get("sha256") in self._counters["policies"] or within
        elif kind == Kind.LIST.value:
            concerns = within and entry.id in self._counters["lists"]
        elif kind == Kind.STREAM.value:
            concerns = within and entry.id in self._streams
        elif kind == Kind.TRIPPED.value:
            if entry.id in self._counters["mailings"]:  # an entry on the case itself
                return False
            freezes = [str(id) for id in data.get("freezes", ())]
            concerns = not self._stopped_by.isdisjoint(freezes)
            self._trips |= {} if concerns else dict.fromkeys(freezes, (entry, clear))
        else:
            concerns = within and self._is_stopped_by(entry, data)
        if concerns:
            self._timeline.add(entry, clear)
            if kind == Kind.FREEZE.value:
                self._stopped_by.add(entry.id)
                if (trip := self._trips.pop(entry.id, None)) is not None:
                    self._timeline.add(*trip)
                if entry.at <= self._end:
                    self._note_stop(entry)
        return concerns or counted

    def _is_stopped_by(self, entry: Entry, data: Mapping[str, Any]) -> bool:
        value = str(data.get("value", ""))
        return entry.id in self._freezes or {
            "all": True,
            "list": value in self._counters["lists"],
            "sender": not self.writers.isdisjoint(entry.content["private"].get("from", ())),
            "mailing": value in self._counters["mailings"],
        }.get(str(data.get("selector")), False)

    def _note(self, entry: Entry, clear: Clear | None) -> None:
        self._end = max(self._end, entry.at)
        self._timeline.add(entry, clear)

    def _deliveries_after_stop(self) -> Entries:
        """Return the first delivery of each message that went out after the case was stopped."""
        stop = self._stop
        first: dict[str, int] = {}
        for at, seq, id in self._deliveries:
            if stop is not None and at > stop.at:
                first.setdefault(id, seq)
        return Entries.of(*first.values())

    def report(self, usual: Usual, watched: Mapping[str, Entries]) -> Report:
        """Return the report. ``usual``: how earlier mail of the same writers came in; ``watched``: the events of the
        guard itself from a day before on. Raises ValueError if there is no message."""
        if not self._from:
            raise ValueError("no message fits")
        shown = 0
        messages: Counter[Outcome] = Counter()
        went = still = 0
        people = PeopleByOutcome(self._counters["lists"].keys(), self._asked, self._changes)
        stopped = stopped_copies(self._copies, self._copied, self._people_of)
        for id, message in self._messages.items():
            came = message.outcomes
            messages.update(came)
            for end in came:
                self._entries.setdefault(("end", end.value), Entries()).add(*dict.fromkeys(self._seqs[id]))
            went += not came.isdisjoint(REACHED)
            still += not came.isdisjoint(OPEN)
            if not came.isdisjoint((*REACHED, Outcome.IN_DOUBT)):
                shown = max(shown, message.shown)
            people.add(id, message, self._people_of.get(id, ()), stopped.get(id, {}))
        reached = people.count(REACHED)
        perhaps = people.count([*REACHED, Outcome.IN_DOUBT])
        lists = people.of_lists()
        copies = Counter(next(iter(copy.shares())).end for copy in self._copies.values())
        return Report(
            first=instant(self._from),
            last=instant(self._to),
            went_first=instant(self._went[0]) if self._went is not None else None,
            went_last=instant(self._went[1]) if self._went is not None else None,
            messages=len(self._messages),
            again=self._entries.get((AGAIN, ""), Entries()).many,
            ends={end: Sum(messages=messages[end], people=people.count([end])) for end in Outcome if end in messages},
            reached=Sum(messages=went, people=reached),
            open=Sum(messages=still, people=people.count(OPEN)),
            perhaps=more(reached, perhaps),
            unreached=more(perhaps, people.count(Outcome)),
            of_lists={name: got for name, (got, _) in lists.items()},
            perhaps_of_lists={name: may for name, (_, may) in lists.items()},
            copies={end: copies[end] for end in Outcome if end in copies},
            shown=shown,
            undelivered=self._undelivered,
            parts=sum(message.got_part for message in self._messages.values()),
            erased=self._erased,
            held=self._stored,
            unsettled=[id for id, one in (self._messages | self._copies).items() if Outcome.IN_DOUBT in one.outcomes],
            steps=self._timeline.steps(),
            until=instant(self._end),
            entries=self._entries | {(WENT, ""): Entries.of(*(seq for _, seq, _ in self._deliveries))},
            ways=self._ways,
            usual=usual,
            watched=watched,
            let_through=self._sample[1:] if self._sample is not None else None,
            stopped=self._stop,
            went_after=self._deliveries_after_stop(),
            crowds=people.crowds,
            **self._counters,
        )


def _text(value: object) -> str:
    return "" if value is None else str(value)
