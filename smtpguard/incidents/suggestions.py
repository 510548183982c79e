"""What the journal's verdicts say of the policy: what an observing policy (``enforce: false``) would have
held, by rule, sender and list; and what to add: systems that send, writers of lists, colleagues who are customers, and
bounds.

A person decides once on a mailing, however many copies it has, so messages and decisions are counted apart. Every
suggestion gives its reason in numbers, and says so if it would let more pass than before. Nothing is suggested for a
sender whose name others could have used: if nothing in the journal proves the sender, the result says that instead.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from smtpguard.journal.chain import Clear, instant

STRICTNESS = ("hold", "defer", "reject")
EXAMPLES = 3
_WEEK = 7 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """``sender`` and ``subject``: "" if they are erased. ``because``: fact, observed value, condition."""

    id: str
    at: datetime
    sender: str
    subject: str
    recipients: int
    because: Sequence[tuple[str, str, str]]


@dataclass(slots=True, kw_only=True)
class ObservedShare:
    """For a rule, a sender or a list. ``customers``: recipients, summed over messages. ``decided``: mailings and messages
    on which a person would decide. ``action``: of a rule, "" otherwise."""

    name: str
    action: str = ""
    messages: int = 0
    customers: int = 0
    decided: set[str] = field(default_factory=set)
    examples: list[Example] = field(default_factory=list)

    @property
    def decisions(self) -> int:
        return len(self.decided)

    def add(self, customers: int, decision: str) -> bool:
        """Whether it needs another decision than those before."""
        self.messages += 1
        self.customers += customers
        other = bool(decision) and decision not in self.decided
        if other:
            self.decided.add(decision)
        return other


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """``weeks``: from the first message to the last, at least one. ``messages``: all that were judged; ``would``: how
    many of them would have been held, deferred and rejected. ``enforced``: how many in fact were, since the policy did
    not always observe. ``decisions``: on messages that would have been held. Shares: the most first."""

    since: datetime
    until: datetime
    weeks: float
    messages: int
    enforced: int
    would: Mapping[str, int]
    decisions: int
    rules: Sequence[ObservedShare]
    senders: Sequence[ObservedShare]
    lists: Sequence[ObservedShare]


class ObservedSums:
    """``acts``: for each rule its action once it is enforced; "" for those that would then still only observe or call a
    person. A rule that is missing, of an earlier policy, counts as hold."""

    def __init__(self, acts: Mapping[str, str], *, examples: int = EXAMPLES) -> None:
        self._acts, self._examples = acts, examples
        self._messages = self._enforced = self._first = self._last = 0
        self._would = dict.fromkeys(STRICTNESS, 0)
        self._decisions: set[str] = set()
        self._by: dict[str, dict[str, ObservedShare]] = {"rules": {}, "senders": {}, "lists": {}}

    def add(self, at: int, id: str, data: Mapping[str, Any], clear: Clear | None) -> None:
        """A verdict of the journal; ``at`` in microseconds. Total: another version's shape counts as far as it is
        understood."""
        if data.get("retry") or data.get("test") or "counts" not in data:
            return
        self._messages += 1
        self._first, self._last = self._first or at, at
        if data.get("action") != "relay":
            self._enforced += 1
            return
        hits = [rule for rule in data.get("observed") or () if self._act(rule)]
        if not hits:
            return
        action = max((self._act(rule) for rule in hits), key=STRICTNESS.index)
        self._would[action] += 1
        decision = str(data.get("mailing") or id) if action == "hold" else ""
        if decision:
            self._decisions.add(decision)
        customers = data["counts"].get("customers") or 0
        sender = next(iter((clear or {}).get("from", ())), "")
        for rule in hits:
            share = self._of("rules", rule, self._act(rule))
            if (share.add(customers, decision) or not decision) and len(share.examples) < self._examples:
                share.examples.append(_example(at, id, data, clear, rule))
        self._of("senders", sender).add(customers, decision)
        for name in data.get("lists") or ():
            self._of("lists", name).add(customers, decision)

    def _act(self, rule: str) -> str:
        return self._acts.get(rule, "hold")

    def _of(self, kind: str, name: str, action: str = "") -> ObservedShare:
        return self._by[kind].setdefault(name, ObservedShare(name=name, action=action))

    def observed(self, since: datetime, until: datetime) -> Observed:
        return Observed(
            since=since,
            until=until,
            weeks=max((self._last - self._first) / _WEEK, 1.0),
            messages=self._messages,
            enforced=self._enforced,
            would=dict(self._would),
            decisions=len(self._decisions),
            **{kind: _most(shares.values()) for kind, shares in self._by.items()},
        )


def acts(rules: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """For rules as the policy file has them, the action of each once ``enforce`` is true."""
    return {str(rule.get("id")): _act(rule) for rule in rules}


def _act(rule: Mapping[str, Any]) -> str:
    then = rule.get("then")
    if rule.get("mode", "enforce") != "enforce" or then == "alarm":
        return ""
    return then if then in STRICTNESS else "hold"


def _most(shares: Iterable[ObservedShare]) -> list[ObservedShare]:
    return sorted(shares, key=lambda share: (-share.decisions, -share.messages, share.name))


def _example(at: int, id: str, data: Mapping[str, Any], clear: Clear | None, rule: str) -> Example:
    names = clear or {}
    return Example(
        id=id,
        at=instant(at),
        sender=next(iter(names.get("from", ())), ""),
        subject=next(iter(names.get("subject", ())), ""),
        recipients=int(data["counts"].get("total") or 0),
        because=tuple(
            (str(r.get("fact")), str(r.get("observed")), str(r.get("limit")))
            for r in data.get("reasons") or ()
            if r.get("rule") == rule and r.get("observed") is not None
        ),
    )


AUTOMATIC = re.compile(
    r"(?:.*[._+-])?(?:no-?reply|do-?not-?reply|noreply|notifications?|receipts?|orders?|invoices?|billing|kvitton?|faktura|system|robot|mailer|alerts?)"
    r"(?:[._+-].*)?\Z"
)
"""Local parts of automatic senders."""
LETTERS_A_WEEK = 10
"""The number of single letters to customers a week that makes a system if its name is typical; ten times as many for
any name."""
MAILINGS = 2
"""The number of days with a message to a list address that looks like a mailing that makes a writer."""
TIMES = (1.5, 2.0, 3.0, 5.0)
"""Multiples of a bound that are tried."""
_HOUR, _DAY = 3_600_000_000, 86_400_000_000
_LEAST = 3
"""The least number of senders, people or decisions that is evidence."""
_NUMBER = re.compile(r"\d[\d ,\N{NO-BREAK SPACE}]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A key of the policy. ``path``: of its mapping; ``value``: plain, as in YAML. ``looser``: more may pass."""

    path: tuple[str | int, ...]
    key: str
    value: Any
    reason: str
    looser: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """``notes``: findings that cannot be a line of a policy yet."""

    suggestions: Sequence[Suggestion]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A number that a rule of the policy file has. ``rule``: its id; ``path``: of the rule's ``when``; ``fact``; ``least``."""

    rule: str
    path: tuple[str | int, ...]
    key: str
    fact: str
    least: float
    rest: str = ""
    """The text after the number: " in 1h"."""
    more: Mapping[str, Any] | None = None
    """The whole mapping, if the condition is one with ``at_least``."""

    def value(self, least: int) -> Any:
        """The condition with another number."""
        return f">= {least}{self.rest}" if self.more is None else {**self.more, "at_least": least}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContents:
    """The contents of the policy file: ``domains``, by list its ``writers``, the senders of ``streams``,
    ``customers_here``. ``ours``: addresses outside that it calls colleagues."""

    domains: Collection[str]
    writers: Mapping[str, Collection[str]]
    streams: Collection[str]
    customers_here: bool
    bounds: Sequence[Bound]
    owner: str = ""
    stream_names: Collection[str] = ()
    holding: Collection[str] = ()
    """Rules that hold once ``enforce`` is true."""


@dataclass(slots=True)
class _Sender:
    """Letters: to one recipient, a customer. Others: to several recipients. A letter to anybody else does not count."""

    letters: int = 0
    others: int = 0
    internal: int = 0
    hours: Counter[int] = field(default_factory=Counter)
    days: Counter[tuple[int, str]] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)


class Evidence:
    """Verdicts, added in the order of the journal."""

    def __init__(self, known: PolicyContents) -> None:
        self._known = known
        self._senders: defaultdict[str, _Sender] = defaultdict(_Sender)
        self._behind: defaultdict[str, set[str]] = defaultdict(set)
        self._mailings: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self._members: Counter[str] = Counter()
        self._wrote: set[str] = set()
        self._most: defaultdict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        self._decisions: defaultdict[str, set[str]] = defaultdict(set)
        self.messages = 0

    def add(self, at: int, id: str, data: Mapping[str, Any], clear: Clear | None) -> None:
        """A verdict; ``at`` in microseconds. An erased one counts only for bounds."""
        counts = data.get("counts")
        if data.get("retry") or data.get("test") or not isinstance(counts, Mapping):
            return
        self.messages += 1
        self._bounds(id, data)
        sender = next(iter((clear or {}).get("from", ())), "").lower()
        if not clear or not sender:
            return
        client = str(data.get("client") or "")
        self._behind[client].add(sender)
        if self._is_ours(sender):
            self._wrote.add(sender)
        people = clear.get("recipients", ())
        if data.get("looks") == "mailing" and counts.get("list_addresses"):
            for name in data.get("lists") or ():
                self._mailings[name, sender].add(at // _DAY)
        if self._sends_for_us(sender):
            one = self._senders[sender]
            if counts.get("total") == 1 and counts.get("customers"):
                one.letters += 1
                one.internal += data.get("looks") == "internal"
                one.hours[at // _HOUR] += 1
                one.clients[client] += 1
                one.days[at // _DAY, "".join(people[:1]).lower()] += 1
            elif counts.get("total") != 1:
                one.others += 1
        if counts.get("customers") and counts.get("total") == len(people):
            on = list(data.get("people") or ())
            for address, person in zip(people, on, strict=False):
                if isinstance(person, str) and " " in person.removesuffix(" ?") and self._is_ours(address.lower()):
                    self._members[address.lower()] += 1

    def _is_ours(self, address: str) -> bool:
        return address.rpartition("@")[2] in self._known.domains

    def _sends_for_us(self, address: str) -> bool:
        """Systems often have a domain below ours."""
        domain = address.rpartition("@")[2]
        return any(domain == own or domain.endswith(f".{own.removeprefix('*.')}") for own in self._known.domains)

    def _bounds(self, id: str, data: Mapping[str, Any]) -> None:
        if data.get("action") not in ("relay", "hold"):
            return
        hits = {*(data.get("observed") or ()), *(data.get("rules") or ())}
        for rule in hits & set(self._known.holding):
            self._decisions[rule].add(str(data.get("mailing") or id))
        hits &= {bound.rule for bound in self._known.bounds}
        for reason in data.get("reasons") or ():
            rule = reason.get("rule")
            if rule not in hits or reason.get("observed") is None:
                continue
            number = _NUMBER.search(str(reason["observed"]))
            if number is None:
                continue
            fact = str(reason.get("fact"))
            uncounted = data["action"] == "hold" and fact.startswith(("sender.", "list."))
            value = math.inf if uncounted else float(re.sub(r"\D", "", number[0]))
            facts = self._most[rule].setdefault(str(data.get("mailing") or id), {})
            facts[fact] = max(facts.get(fact, 0.0), value)

    # the result

    def found(self, weeks: float, holds_a_week: float) -> Suggestions:
        """``weeks``: of the time that was read; less than one counts as one. ``holds_a_week``: the accepted number of holds
        for each rule; a bound is raised only above that."""
        notes: list[str] = []
        weeks = max(weeks, 1.0)
        made = [
            *self._writers(),
            *self._systems(weeks, notes),
            *self._here(notes),
            *self._raised(weeks, holds_a_week, notes),
        ]
        return Suggestions(suggestions=made, notes=notes)

    def _writers(self) -> Iterator[Suggestion]:
        by_list: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for (name, sender), days in self._mailings.items():
            if name in self._known.writers and len(days) >= MAILINGS:
                by_list[name].append((sender, len(days)))
        for name, writers in sorted(by_list.items()):
            known = list(self._known.writers[name])
            new = sorted((w for w in writers if w[0] not in known), key=lambda w: (-w[1], w[0]))
            if new:
                told = ", ".join(f"{sender} on {days} days" for sender, days in new)
                yield Suggestion(
                    path=("lists", name), key="writers", value=[*known, *(sender for sender, _ in new)],
                    reason=f"mail to it that looks like a mailing: {told}; let origin prove it", looser=bool(known),
                )  # fmt: skip

    def _systems(self, weeks: float, notes: list[str]) -> Iterator[Suggestion]:
        names = set(self._known.stream_names)
        for sender, one in sorted(self._senders.items(), key=lambda pair: (-pair[1].letters, pair[0])):
            if sender in self._known.streams or not self._automatic(sender, one, weeks):
                continue
            own = [client for client in one.clients if self._alone(client)]
            a_week = one.letters / weeks
            if sum(one.clients[client] for client in own) < one.letters:
                shared = sorted(set(one.clients) - set(own))
                notes.append(
                    f"{sender} sends {a_week:,.0f} letters a week to customers like a system, through {', '.join(shared[:3])}, which people "
                    "use as well: as a stream it needs a DKIM signature or a login of its own as its origin"
                )
                continue
            name = re.sub(r"[^a-z0-9]+", "-", sender.partition("@")[0]).strip("-") or "system"
            while name in names:
                name += "-2"
            names.add(name)
            most, person = _rounded(2 * max(one.hours.values())), _rounded(2 * max(one.days.values()))
            value: dict[str, Any] = {
                "from": [sender], "origin": {"clients": sorted(own)}, "max": f"{most} in 1h", "max_per_person": f"{person} in 1d",
            }  # fmt: skip
            if self._known.owner:
                value["owner"] = self._known.owner
            yield Suggestion(
                path=("streams",), key=name, value=value, looser=True,
                reason=f"{a_week:,.0f} letters a week to customers, one by one, at most {max(one.hours.values()):,} in an hour and "
                f"{max(one.days.values()):,} to one person in a day; nobody else sends from there",
            )  # fmt: skip

    def _automatic(self, sender: str, one: _Sender, weeks: float) -> bool:
        if one.letters < LETTERS_A_WEEK * weeks or one.others > one.letters / 4:
            return False
        named = AUTOMATIC.match(sender.partition("@")[0]) is not None
        return named or (one.letters >= 10 * LETTERS_A_WEEK * weeks and one.internal * 20 <= one.letters)

    def _alone(self, client: str) -> bool:
        """Whether only systems send from this client: then its address proves them."""
        behind = self._behind[client]
        return bool(client) and len(behind) <= _LEAST and all(map(self._like_a_system, behind))

    def _like_a_system(self, sender: str) -> bool:
        one = self._senders.get(sender)
        if one is None or one.letters < 4 * one.others:
            return False
        return AUTOMATIC.match(sender.partition("@")[0]) is not None or one.internal * 20 <= one.letters

    def _here(self, notes: list[str]) -> Iterator[Suggestion]:
        """Members of lists with an address in our domains: colleagues, if they send mail from it."""
        if not self._known.customers_here or len(self._members) < _LEAST:
            return
        write = sorted(address for address in self._members if address in self._wrote)
        if len(write) == len(self._members):
            yield Suggestion(
                path=("organization",), key="customers_here", value=False, looser=True,
                reason=f"all {len(write):,} who are on a list and have an address of ours got mail and write from it themselves: colleagues",
            )  # fmt: skip
        elif write:
            strangers = sorted(set(self._members) - set(write))
            notes.append(
                f"{len(write):,} colleagues who write themselves are on a list ({', '.join(write[:3])}), and {len(strangers):,} addresses of ours are "
                f"on one from which nobody wrote ({', '.join(strangers[:3])}): customers_here: false, if those are no customers"
            )

    def _raised(self, weeks: float, holds_a_week: float, notes: list[str]) -> Iterator[Suggestion]:
        bounded = {bound.rule for bound in self._known.bounds}
        for rule, held in sorted(self._decisions.items()):
            if rule not in bounded and len(held) >= _LEAST and len(held) / weeks > holds_a_week:
                notes.append(
                    f"{rule} would hold {len(held) / weeks:.3g} a week, and has no number to raise. report observe says what: mail that ought to "
                    "pass may want a writer, a stream, a proven origin or an exception (unless)"
                )
        for bound in self._known.bounds:
            decisions = self._most.get(bound.rule, {})
            now = len(decisions) / weeks
            if len(decisions) < _LEAST or now <= holds_a_week:
                continue
            costs = [
                (least, sum(facts.get(bound.fact, math.inf) >= least for facts in decisions.values()) / weeks)
                for least in (math.ceil(bound.least * times) for times in TIMES)
            ]
            told = ", ".join(f">= {least:,}: {cost:.3g}" for least, cost in ((math.ceil(bound.least), now), *costs))
            fits = next((least for least, cost in costs if cost <= holds_a_week), None)
            if fits is None:
                why = f"no bound up to {TIMES[-1]:g} times its own helps ({bound.fact} {told})"
                if math.inf in (facts.get(bound.fact) for facts in decisions.values()):
                    why = f"nobody knows what another bound would hold: {bound.fact} does not count what is held"
                notes.append(f"{bound.rule} would hold {now:.3g} a week, and {why}")
                continue
            yield Suggestion(
                path=bound.path, key=bound.key, value=bound.value(fits), looser=True,
                reason=f"holds a week at {bound.fact} {told}",
            )  # fmt: skip


def _rounded(number: int) -> int:
    """Up, to one significant digit: 137 gives 200."""
    size: int = 10 ** max(0, len(str(number)) - 1)
    return math.ceil(number / size) * size
