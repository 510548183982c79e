"""A policy's own tests: cases of facts, and what is to become of each. ``smtpguard test`` runs them.

::

    # what every case begins with may be set once
    facts: {sender.address: anna@example.com}
    cases:
      - name: A letter of colleagues to the Ramadan list
        facts:                               # what is not said is that of a letter to one outsider (ORDINARY)
          message.looks: internal
          recipients.list_addresses: 1
          recipients.lists: [ramadan-greetings]
          recipients.customers: 0 to 400000  # an interval, or a number, or unknown
          recipients.reach: unknown
        frozen: all                          # or {list: NAME}, {sender: ADDRESS}
        expect: hold                         # relay, hold, defer or reject
        hits: [internal-to-list]             # these rules are among those that hit, observing ones included
        misses: [very-busy-writer]           # and these are not
        observed: hold                       # the strictest that observing rules would have done
        quorum: [communications, compliance] # the groups that would decide, in any order

Never here: reading messages (that is ``smtpguard explain``), or printing (cli).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from smtpguard.config.problem import Broken, Invalid, Problem, did_you_mean
from smtpguard.config.validation import Section, validate
from smtpguard.config.yaml import Document, Place
from smtpguard.mail.client import client_address
from smtpguard.policy.admission import Freeze, Live, Selector
from smtpguard.policy.engine import RuleSet
from smtpguard.policy.facts import FACTS, Count, Fact, Facts, Source, Type, Unknown, Value
from smtpguard.policy.grammar import fact_named
from smtpguard.policy.verdict import Verdict

NOW = datetime(2026, 1, 14, 12, 0, tzinfo=UTC)
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:\s+to\s+([0-9]+(?:\.[0-9]+)?|inf))?\Z")
_ONE = Count(1, 1)

ORDINARY: Mapping[str, Value] = {
    **{f.name: Count(0, 0) for f in FACTS.values() if f.type in (Type.COUNT, Type.SHARE) and f.source is not Source.LIVE},
    **{f.name: False for f in FACTS.values() if f.type is Type.TRUTH and f.source is not Source.LIVE},
    **{f.name: frozenset() for f in FACTS.values() if f.type is Type.WORDS},
    "message.looks": "unclear",
    "message.correspondence": True,
    "message.readable": "yes",
    "recipients.total": _ONE,
    "recipients.outside": _ONE,
    "recipients.reach": _ONE,
    "sender.address": "somebody@example.com",
    "client": "192.0.2.1",
    "listener": "127.0.0.1:10025",
}  # fmt: skip
"""A letter to one person outside, who is on no list."""

Action = Literal["relay", "hold", "defer", "reject"]


class FrozenModel(Section):
    list: str | None = None
    sender: str | None = None
    thread: str | None = None


class CaseModel(Section):
    name: str = Field(min_length=1)
    facts: dict[str, Any] = Field(default={})
    frozen: Literal["all"] | FrozenModel | None = None
    expect: Action = Field(title="action")
    hits: list[str] = Field(default=[])
    misses: list[str] = Field(default=[])
    observed: Action | None = Field(default=None, title="action")
    quorum: list[str] | None = None


class SuiteModel(Section):
    facts: dict[str, Any] = Field(default={})
    cases: list[CaseModel] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """``failures``: a sentence for everything that was not as expected; none where the case holds."""

    name: str
    line: int
    verdict: Verdict
    failures: tuple[str, ...]


def run(document: Document, rules: RuleSet) -> list[Outcome]:
    """Every case of one file. Raises Broken for a file that is no suite, or names rules that there are not."""
    model = validate(document, SuiteModel)
    if isinstance(model, list):
        raise Broken(model)
    problems: list[Problem] = []
    shared = _values(document, ("facts",), model.facts, problems)
    known = {rule.rule_id for rule in rules.rules} | {"freeze"}
    outcomes = []
    for n, case in enumerate(model.cases):
        place: Place = ("cases", n)
        values = {**ORDINARY, **shared, **_values(document, (*place, "facts"), case.facts, problems)}
        for key, names in (("hits", case.hits), ("misses", case.misses)):
            for m, name in enumerate(names):
                if name not in known:
                    text, hint = f'unknown rule "{name}"', did_you_mean(name, known)
                    problems.append(document.problem((*place, key, m), text, hint=hint))
        if not problems:
            verdict = _verdict(rules, values, case.frozen)
            line = document.mark((*place, "name")).line
            outcomes.append(
                Outcome(name=case.name, line=line, verdict=verdict, failures=tuple(_failures(case, verdict)))
            )
    if problems:
        raise Broken(problems)
    return outcomes


def _verdict(rules: RuleSet, values: Mapping[str, Value], frozen: Literal["all"] | FrozenModel | None) -> Verdict:
    """Live facts are given with the others here: counts stand in Live, and an approved mailing among the approved."""
    lists, sender = values["recipients.lists"], values["sender.address"]
    if "mailing.customers" in values and values["recipients.customers"] == Count(0, 0):
        values = {**values, "recipients.customers": _ONE}  # the message itself is one of the mailing's
    touched = sorted(lists) if isinstance(lists, frozenset) and lists else [_LIST]
    letter = values["message.looks"] != "mailing" and not values["stream"]
    facts = Facts(
        values={k: v for k, v in values.items() if FACTS[k].source is not Source.LIVE},
        lists=lists if isinstance(lists, frozenset) else frozenset(),
        senders=frozenset({sender}) if isinstance(sender, str) else frozenset(),
        thread="thread",
        threads=("thread",),
        reply="reply",
        sizes=dict.fromkeys(touched, Count.exactly(_PEOPLE)),
        letter_from=("sender",) if letter else (),
    )
    plan = rules.plan(facts)
    counts, maybe = {}, {}
    for ask in plan.asks:
        given = values.get(ask.fact, _of_this_message(ask.fact, values))
        if isinstance(given, bool):  # whether anybody is left who is not answered
            counts[ask] = int(not given)
        elif isinstance(given, Count):
            whole = _PEOPLE if FACTS[ask.fact].type is Type.SHARE else 1
            counts[ask] = round(given.low * whole)
            maybe[ask] = round(given.high * whole) - counts[ask] if given.high != float("inf") else _PEOPLE
    approved = values.get("mailing.approved") is True
    return plan.close(Live(now=NOW, counts=counts, maybe=maybe, approved=approved, freezes=_freezes(frozen)))


_LIST, _PEOPLE = "a list", 1_000_000
"""A case's shares are of this one."""
_OWN = {
    "mailing.customers": "recipients.customers",
    "mailing.reach": "recipients.reach",
    "mailing.share": "recipients.share",
    "thread.reach": "recipients.reach",
}


def _of_this_message(fact: str, values: Mapping[str, Value]) -> Value:
    """What a case does not say of a count is what its message alone comes to."""
    return values[_OWN[fact]] if fact in _OWN else Count(0, 0)


def _freezes(frozen: Literal["all"] | FrozenModel | None) -> tuple[Freeze, ...]:
    if frozen is None:
        return ()
    chosen = {Selector.ALL: ""} if frozen == "all" else {
        selector: value for selector in (Selector.LIST, Selector.SENDER, Selector.THREAD)
        if (value := getattr(frozen, selector.value)) is not None
    }  # fmt: skip
    return tuple(
        Freeze(freeze_id="case", selector=selector, value=value, reason="a test case", by="the case", at=NOW)
        for selector, value in chosen.items()
    )


def _failures(case: CaseModel, verdict: Verdict) -> list[str]:
    found = {hit.rule for hit in verdict.hits}
    failures = []
    if verdict.action.word != case.expect:
        why = ", ".join(sorted(found)) or "no rule"
        failures.append(f"expected {case.expect}, but the verdict is {verdict.action.word} ({why} hit)")
    for rule in case.hits:
        if rule not in found:
            miss = next((m.reason for m in verdict.misses if m.rule == rule), None)
            failures.append(f"{rule} did not hit" + (f": {miss.detail}" if miss else ""))
    failures += [f"{rule} hit" for rule in case.misses if rule in found]
    if case.observed is not None and verdict.observed.word != case.observed:
        failures.append(f"expected observing rules to say {case.observed}, but they say {verdict.observed.word}")
    if case.quorum is not None:
        groups = sorted({group for quorum in verdict.quorum for group in quorum.groups})
        if groups != sorted(case.quorum):
            failures.append(f"expected {_named(case.quorum)} to decide, but it would be {_named(groups)}")
    return failures


def _named(groups: list[str]) -> str:
    return " and ".join(groups) or "nobody"


def _values(document: Document, place: Place, raw: Mapping[str, Any], problems: list[Problem]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, value in raw.items():
        here = (*place, name)
        try:
            fact = fact_named(name)
        except Invalid as e:
            problems.append(document.problem(here, e.text, e.expected, e.hint, key=True))
            continue
        try:
            values[name] = _value(fact, value)
        except Invalid as e:
            problems.append(document.problem(here, e.text, e.expected, e.hint))
    return values


def _value(fact: Fact, raw: Any) -> Value:
    """A fact's value as a case gives it. Raises Invalid."""
    if raw == "unknown" and fact.source is not Source.LIVE:
        return Unknown(why="the case says so")
    match fact.type:
        case Type.TRUTH if isinstance(raw, bool):
            return raw
        case Type.WORD if isinstance(raw, str):
            if fact.words and raw not in fact.words:
                raise Invalid(f'unknown word "{raw}"', f"one of {', '.join(fact.words)}", did_you_mean(raw, fact.words))
            return raw
        case Type.NETWORK if isinstance(raw, str) and client_address(raw) is not None:
            return raw
        case Type.WORDS if isinstance(raw, (str, list)):
            return frozenset([raw] if isinstance(raw, str) else map(str, raw))
        case Type.COUNT | Type.SHARE if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
            if found := _COUNT.match(str(raw)):
                low = float(found[1])
                high = float(found[2]) if found[2] else low
                if low <= high:
                    return Count(low, high)
    raise Invalid(f"no value of {fact.name}", _EXPECTED[fact.type])


_EXPECTED = {
    Type.TRUTH: "true, false or unknown",
    Type.WORD: "a word, or unknown",
    Type.NETWORK: "an address, or unknown",
    Type.WORDS: "a list of words, or unknown",
    Type.COUNT: 'a number, an interval like "0 to 3", or unknown',
    Type.SHARE: 'a number between 0 and 1, an interval like "0 to 0.5", or unknown',
}
