"""Suggestions for the policy, from the journal's verdicts: systems that send, writers of lists, colleagues who are
customers, and bounds. Pure.

Every suggestion gives its reason in numbers, and says so if it would let more pass than before. Nothing is suggested
for a sender whose name others could have used: if nothing in the journal proves the sender, the result says that
instead.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smtpguard.journal.chain import Clear, first_of

AUTOMATIC = re.compile(
    r"(?:.*[._+-])?(?:no-?reply|do-?not-?reply|noreply|notifications?|receipts?|orders?|invoices?|billing|kvitton?|faktura|system|robot|mailer|alerts?)"
    r"(?:[._+-].*)?\Z"
)
"""Matches the local parts of automatic senders."""
LETTERS_A_WEEK = 10
"""The fewest single letters to customers a week by which a sender with a typical name is a system; ten times as many
for any name."""
MAILINGS = 2
"""The fewest days with a mailing to the address of a list by which a sender is a writer of the list."""
TIMES = (1.5, 2.0, 3.0, 5.0)
"""The multiples of a bound that are tried."""
_HOUR, _DAY = 3_600_000_000, 86_400_000_000
_LEAST = 3
"""The fewest people or decisions that are evidence, and the most senders of one client that only systems use."""
_NUMBER = re.compile(r"\d[\d ,\N{NO-BREAK SPACE}]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A key that the policy could have. ``path``: the path of its mapping; ``value``: plain, as in YAML. ``looser``:
    whether more may pass with it."""

    path: tuple[str | int, ...]
    key: str
    value: Any
    reason: str
    looser: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """What to change in the policy. ``notes``: findings that cannot be a line of a policy yet."""

    suggestions: Sequence[Suggestion]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The number in a condition of a rule of the policy file. ``rule``: the rule's id; ``path``, ``key``: of the
    condition in its ``when``; ``least``: the number. ``rest``: the text after the number, like " in 1h". ``more``: the
    whole mapping, if the condition is one with ``at_least``."""

    rule: str
    path: tuple[str | int, ...]
    key: str
    fact: str
    least: float
    rest: str = ""
    more: Mapping[str, Any] | None = None

    def value(self, least: int) -> Any:
        """Return the condition with another number, as in YAML."""
        return f">= {least}{self.rest}" if self.more is None else {**self.more, "at_least": least}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContents:
    """What the policy file has: ``domains``, the ``writers`` of each list, the senders of ``streams``,
    ``customers_here``. ``stream_names``: the names of streams that are taken. ``holding``: the rules that hold once
    ``enforce`` is true."""

    domains: Collection[str]
    writers: Mapping[str, Collection[str]]
    streams: Collection[str]
    customers_here: bool
    bounds: Sequence[Bound]
    owner: str = ""
    stream_names: Collection[str] = ()
    holding: Collection[str] = ()


@dataclass(slots=True)
class _Sender:
    """The mail of one sender. ``letters``: messages to one recipient, a customer; ``internal``: how many of these look
    internal; ``hours``, ``days``, ``clients``: letters by hour, by day and person, and by client. ``others``: messages
    to several recipients. A message to one other person does not count."""

    letters: int = 0
    others: int = 0
    internal: int = 0
    hours: Counter[int] = field(default_factory=Counter)
    days: Counter[tuple[int, str]] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)


class Evidence:
    """The evidence for suggestions, from verdicts that are added in the order of the journal."""

    def __init__(self, known: PolicyContents) -> None:
        self._known = known
        self._senders: defaultdict[str, _Sender] = defaultdict(_Sender)
        self._senders_by_client: defaultdict[str, set[str]] = defaultdict(set)
        self._mailings: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self._members: Counter[str] = Counter()
        self._our_writers: set[str] = set()
        self._largest: defaultdict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        self._decisions: defaultdict[str, set[str]] = defaultdict(set)
        self.messages = 0

    def add(self, at: int, id: str, data: Mapping[str, Any], clear: Clear | None) -> None:
        """Add a verdict. ``at``: in microseconds. An erased one counts only for bounds."""
        counts = data.get("counts")
        if data.get("retry") or data.get("test") or not isinstance(counts, Mapping):
            return
        self.messages += 1
        self._add_to_bounds(id, data)
        sender = first_of(clear, "from").lower()
        if not clear or not sender:
            return
        client = str(data.get("client") or "")
        self._senders_by_client[client].add(sender)
        if self._is_ours(sender):
            self._our_writers.add(sender)
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
        """Return whether an address is in a domain of ours, or below one as those of systems often are."""
        domain = address.rpartition("@")[2]
        return any(domain == own or domain.endswith(f".{own.removeprefix('*.')}") for own in self._known.domains)

    def _add_to_bounds(self, id: str, data: Mapping[str, Any]) -> None:
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
            facts = self._largest[rule].setdefault(str(data.get("mailing") or id), {})
            facts[fact] = max(facts.get(fact, 0.0), value)

    def suggestions(self, weeks: float, holds_a_week: float) -> Suggestions:
        """Return the suggestions. ``weeks``: the time that was read; less than one counts as one. ``holds_a_week``: the
        accepted number of holds for each rule; a bound is raised only above that."""
        notes: list[str] = []
        weeks = max(weeks, 1.0)
        made = [
            *self._writers(),
            *self._systems(weeks, notes),
            *self._colleagues(notes),
            *self._raised_bounds(weeks, holds_a_week, notes),
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
            if sender in self._known.streams or not self._is_system(sender, one, weeks):
                continue
            own = [client for client in one.clients if self._sends_only_for_systems(client)]
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

    def _is_system(self, sender: str, one: _Sender, weeks: float) -> bool:
        if one.letters < LETTERS_A_WEEK * weeks or one.others > one.letters / 4:
            return False
        named = AUTOMATIC.match(sender.partition("@")[0]) is not None
        return named or (one.letters >= 10 * LETTERS_A_WEEK * weeks and one.internal * 20 <= one.letters)

    def _sends_only_for_systems(self, client: str) -> bool:
        """Return whether only systems send from this client. Its address then proves them."""
        behind = self._senders_by_client[client]
        return bool(client) and len(behind) <= _LEAST and all(map(self._looks_like_a_system, behind))

    def _looks_like_a_system(self, sender: str) -> bool:
        one = self._senders.get(sender)
        if one is None or one.letters < 4 * one.others:
            return False
        return AUTOMATIC.match(sender.partition("@")[0]) is not None or one.internal * 20 <= one.letters

    def _colleagues(self, notes: list[str]) -> Iterator[Suggestion]:
        """Suggest that members of lists with an address in our domains are colleagues, if they send mail from it."""
        if not self._known.customers_here or len(self._members) < _LEAST:
            return
        write = sorted(address for address in self._members if address in self._our_writers)
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

    def _raised_bounds(self, weeks: float, holds_a_week: float, notes: list[str]) -> Iterator[Suggestion]:
        bounded = {bound.rule for bound in self._known.bounds}
        for rule, held in sorted(self._decisions.items()):
            if rule not in bounded and len(held) >= _LEAST and len(held) / weeks > holds_a_week:
                notes.append(
                    f"{rule} would hold {len(held) / weeks:.3g} a week, and has no number to raise. report observe says what: mail that ought to "
                    "pass may want a writer, a stream, a proven origin or an exception (unless)"
                )
        for bound in self._known.bounds:
            decisions = self._largest.get(bound.rule, {})
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
    """Round up to one significant digit: 137 gives 200."""
    size: int = 10 ** max(0, len(str(number)) - 1)
    return math.ceil(number / size) * size
