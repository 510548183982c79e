"""Tests of a policy: cases of facts or messages, each with the expected verdict. ``smtpguard test`` runs them.

::

    # defaults of every case
    facts: {sender.address: anna@example.com}
    cases:
      - name: A letter of colleagues to the Ramadan list
        facts:                               # others have the value of a letter to one outsider (ORDINARY)
          message.looks: internal
          recipients.list_addresses: 1
          recipients.lists: [ramadan-greetings]
          recipients.customers: 0 to 400000  # an interval, or a number, or unknown
          recipients.reach: unknown
        frozen: all                          # or {list: NAME}, {sender: ADDRESS}; only beside facts
        expect: hold                         # relay, hold, defer or reject
        hits: [internal-to-list]             # these rules hit, observing ones included
        misses: [very-busy-writer]           # and these do not
        observed: hold                       # the strictest action of observing rules
        quorum: [communications, compliance] # the groups that would decide, in any order
      - name: The story, as it was written       # a message instead of facts, read as mail is
        message: mail/story.eml              # relative to this file; or in a few lines:
        # message: {from: anna@example.com, to: ramadan@lists.example.com, subject: "SV: Diet", text: "...", headers: {X-A: b}}
        envelope: {from: anna@example.com, to: [ramadan@lists.example.com], client: 10.0.0.5, login: anna, listener: inside,
                   senders_verified: true}   # defaults are from the header
        counted: {mailing.customers: 60}     # counts, with this message among them
        expect: hold
        found: {message.looks: internal, recipients.lists: [ramadan-greetings]}  # expected facts
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from math import inf
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from smtpguard.config.problem import Broken, Invalid, Undeclared, did_you_mean
from smtpguard.config.validation import Findings, Section, validate
from smtpguard.config.yaml import Document, Place
from smtpguard.lists.members import LISTED
from smtpguard.mail.envelope import client_address
from smtpguard.mail.message import Message
from smtpguard.policy.condition import journal_text
from smtpguard.policy.counted import Live
from smtpguard.policy.engine import RuleSet
from smtpguard.policy.facts import FACTS, NONE, Count, Fact, Facts, Source, Type, Unknown, Value
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.grammar import facts_of
from smtpguard.policy.verdict import Verdict

NOW = datetime(2026, 1, 14, 12, 0, tzinfo=UTC)
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:\s+to\s+([0-9]+(?:\.[0-9]+)?|inf))?\Z")

ORDINARY: Mapping[str, Value] = {fact.name: fact.default for fact in FACTS.values() if fact.source is not Source.LIVE}
"""A letter to one person outside, who is on no list."""

Action = Literal["relay", "confirm", "hold", "defer", "reject"]


class FrozenModel(Section):
    list: str | None = None
    sender: str | None = None

    @model_validator(mode="after")
    def _something(self) -> FrozenModel:
        if self.list is None and self.sender is None:
            raise Invalid("frozen names nothing", "all, {list: NAME} or {sender: ADDRESS}")
        return self


class MessageModel(Section):
    """A message in a few lines. ``to`` and ``cc``: as its header shows them."""

    from_: str = Field(alias="from", min_length=1)
    to: Annotated[list[str], LISTED] = Field(default=[])
    cc: Annotated[list[str], LISTED] = Field(default=[])
    subject: str = ""
    headers: dict[str, str] = Field(default={})
    text: str = ""
    html: str = ""

    @model_validator(mode="after")
    def _one_body(self) -> MessageModel:
        if self.text and self.html:
            raise Invalid("a text and HTML: a message of both is a file", "text, html, or the name of a file")
        return self


class EnvelopeModel(Section):
    from_: str | None = Field(default=None, alias="from")
    to: Annotated[list[str], LISTED] = Field(default=[])
    client: str = "127.0.0.1"
    login: str | None = None
    listener: str | None = None
    senders_verified: bool | None = None


class CaseModel(Section):
    """``facts``, or a ``message``."""

    name: str = Field(min_length=1)
    facts: dict[str, Any] = Field(default={})
    message: str | MessageModel | None = None
    envelope: EnvelopeModel | None = None
    counted: dict[str, Annotated[int, Field(ge=0)]] = Field(default={})
    found: dict[str, Any] = Field(default={})
    frozen: Literal["all"] | FrozenModel | None = None
    expect: Action = Field(title="action")
    hits: list[str] = Field(default=[])
    misses: list[str] = Field(default=[])
    observed: Action | None = Field(default=None, title="action")
    quorum: list[str] | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> CaseModel:
        if self.message is None:
            for key in ("envelope", "counted", "found"):
                if key in self.model_fields_set:
                    raise Invalid(f"{key} is of a message, and there is none", "message, or facts alone")
        elif self.facts or self.frozen is not None:
            raise Invalid(
                f"a message has {'no freeze' if not self.facts else 'facts of its own'}", "a message, or facts"
            )
        return self


class SuiteModel(Section):
    facts: dict[str, Any] = Field(default={})
    cases: list[CaseModel] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A valid case of a file. ``values``: the facts of a case of facts; empty for a case with a message. ``found``: the
    expected facts."""

    model: CaseModel
    line: int
    values: Mapping[str, Value]
    found: Mapping[str, Value]

    @property
    def name(self) -> str:
        return self.model.name

    def verdict(self, rules: RuleSet) -> Verdict:
        """Judge a case of facts. Live facts are among its values: counts go into Live, and an approved mailing into the
        approved."""
        values, frozen = self.values, self.model.frozen
        lists, sender = values["recipients.lists"], values["sender.address"]
        if values["recipients.customers"] == NONE and any(FACTS[name].own == "recipients.customers" for name in values):
            values = {**values, "recipients.customers": Count.exactly(1)}  # the message itself is one of the mailing's
        touched = sorted(lists) if isinstance(lists, frozenset) and lists else [_LIST]
        letter = values["message.looks"] != "mailing" and not values["stream"]
        facts = Facts(
            values={k: v for k, v in values.items() if FACTS[k].source is not Source.LIVE},
            lists=lists if isinstance(lists, frozenset) else frozenset(),
            senders=frozenset({sender}) if isinstance(sender, str) else frozenset(),
            threads=("thread",),
            reply="reply",
            sizes=dict.fromkeys(touched, Count.exactly(_PEOPLE)),
            letter_from=("sender",) if letter else (),
        )
        plan = rules.plan(facts)
        counts, maybe = {}, {}
        for ask in plan.asks:
            own = FACTS[ask.fact].own  # of a count that the case does not give, that of its message alone
            given = values.get(ask.fact, values[own] if own else NONE)
            if isinstance(given, bool):  # True if all recipients are answered
                counts[ask] = int(not given)
            elif isinstance(given, Count):
                whole = _PEOPLE if FACTS[ask.fact].type is Type.SHARE else 1
                counts[ask] = round(given.low * whole)
                maybe[ask] = round(given.high * whole) - counts[ask] if given.high != inf else _PEOPLE
        approved = values.get("mailing.approved") is True
        return plan.close(
            Live(now=NOW, counts=counts, maybe=maybe, approved=approved, freezes=_freezes(frozen)), misses=True
        )

    def failures(self, verdict: Verdict, facts: Mapping[str, Value] | None = None) -> tuple[str, ...]:
        """Return a sentence for each unexpected result; none if the case passes."""
        case, found = self.model, {hit.rule for hit in verdict.hits}
        failures: list[str] = []
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
        for name, value in self.found.items():
            came = facts.get(name) if facts is not None else None
            if isinstance(came, Unknown) and isinstance(value, frozenset) and came.known:
                came = came.known
            if came != value and not (isinstance(came, Unknown) and isinstance(value, Unknown)):
                failures.append(f"expected {name} to be {_shown(name, value)}, but it is {_shown(name, came)}")
        return tuple(failures)


def cases(document: Document, rules: RuleSet, words: Mapping[str, Collection[str]] | None = None) -> list[Case]:
    """Return every case of one file. ``words``: fact -> the words that the policy declares for it. Raises Broken for
    a file that is no suite, or uses names that the policy does not have."""
    model = validate(document, SuiteModel)
    findings, declared = Findings(document=document, sound=True), words or {}
    shared = _values(findings, ("facts",), model.facts, declared)
    known = {rule.rule_id for rule in rules.rules} | {"freeze"}
    groups = {group for quorum in (rules.approvals, *rules.quorums.values()) for group in quorum.groups}
    found = []
    for n, case in enumerate(model.cases):
        place: Place = ("cases", n)
        values = {**ORDINARY, **shared, **_values(findings, (*place, "facts"), case.facts, declared)}
        expected = _values(findings, (*place, "found"), case.found, declared)
        for key, noun, names, there in (
            ("hits", "rule", case.hits, known), ("misses", "rule", case.misses, known), ("quorum", "group", case.quorum or [], groups),
        ):  # fmt: skip
            for m, name in enumerate(names):
                if name not in there and (noun != "group" or words is not None):
                    findings.problem((*place, key, m), f'unknown {noun} "{name}"', hint=did_you_mean(name, there))
        if isinstance(case.frozen, FrozenModel) and case.frozen.list is not None and "recipients.lists" in declared:
            _declared(findings, (*place, "frozen", "list"), "recipients.lists", [case.frozen.list], declared)
        for name in case.counted:
            if name not in FACTS or not FACTS[name].number:
                what = "a fact that is counted"
                findings.problem((*place, "counted", name), f"{name} is not a count", what, key=True)
        found.append(Case(model=case, line=document.mark((*place, "name")).line, values=values, found=expected))
    if findings.problems:
        raise Broken(findings.problems)
    return found


def message_of(model: MessageModel) -> Message:
    kind = "text/html" if model.html else "text/plain"
    fields = {"From": model.from_, "To": ", ".join(model.to), "Cc": ", ".join(model.cc), "Subject": model.subject,
              "Date": format_datetime(NOW), "Message-ID": "<case@localhost>", "MIME-Version": "1.0",
              "Content-Type": f"{kind}; charset=utf-8", "Content-Transfer-Encoding": "8bit"} | model.headers  # fmt: skip
    head = "".join(f"{name}: {' '.join(value.split())}\n" for name, value in fields.items() if value)
    return Message.of(f"{head}\n{model.html or model.text}\n".replace("\r\n", "\n").replace("\n", "\r\n").encode())


def _shown(name: str, value: Value | None) -> str:
    """Return a value as a case gives it: a share as a number."""
    match value:
        case None:
            return "nothing"
        case Count(low=low, high=high):
            return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return journal_text(FACTS[name], value)


_LIST, _PEOPLE = "a list", 1_000_000
"""The list of a case's shares, and its size."""


def _freezes(frozen: Literal["all"] | FrozenModel | None) -> tuple[Freeze, ...]:
    if frozen is None:
        return ()
    chosen = {Selector.ALL: ""} if frozen == "all" else {
        selector: value for selector in (Selector.LIST, Selector.SENDER)
        if (value := getattr(frozen, selector.value)) is not None
    }  # fmt: skip
    return tuple(
        Freeze(freeze_id="case", selector=selector, value=value, reason="a test case", by="the case", at=NOW)
        for selector, value in chosen.items()
    )


def _named(groups: list[str]) -> str:
    return " and ".join(groups) or "nobody"


def _values(
    findings: Findings, place: Place, raw: Mapping[str, Any], declared: Mapping[str, Collection[str]]
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for here, fact, value in facts_of(raw, place, findings):
        try:
            values[fact.name] = _value(fact, value)
            if isinstance(values[fact.name], frozenset):
                _declared(findings, here, fact.name, [value] if isinstance(value, str) else value, declared)
        except Invalid as e:
            findings.invalid(e, here)
    return values


def _declared(
    findings: Findings, place: Place, fact: str, words: Sequence[str], declared: Mapping[str, Collection[str]]
) -> None:
    """Report each of ``words`` that the policy does not declare for this fact."""
    for n, word in enumerate(words):
        if fact in declared and word not in declared[fact]:
            at = (*place, n) if (*place, n) in findings.document.values else place
            findings.invalid(Undeclared(FACTS[fact].noun, str(word), declared[fact]), at)


def _value(fact: Fact, raw: Any) -> Value:
    """Parse the value of a fact in a case. Raises Invalid."""
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
        case Type.WORDS if isinstance(raw, str):
            return frozenset({raw})
        case Type.WORDS if isinstance(raw, list) and not any(isinstance(word, (list, dict)) for word in raw):
            return frozenset(map(str, raw))
        case Type.COUNT | Type.SHARE if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
            if found := _COUNT.match(str(raw)):
                low = float(found[1])
                high = float(found[2]) if found[2] else low
                if low <= high and low < inf:
                    return Count(low, high)
    raise Invalid(f"invalid value for {fact.name}", _EXPECTED[fact.type])


_EXPECTED = {
    Type.TRUTH: "true, false or unknown",
    Type.WORD: "a word, or unknown",
    Type.NETWORK: "an address, or unknown",
    Type.WORDS: "a list of words, or unknown",
    Type.COUNT: 'a number, an interval like "0 to 3", or unknown',
    Type.SHARE: 'a number between 0 and 1, an interval like "0 to 0.5", or unknown',
}
