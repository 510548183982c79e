"""Make an incident report, for the page, the API and the command line alike.

A report with names is journalled. It has what the policies that decided say: the descriptions of rules and lists, whether they
were enforced, and which rules did not hit a message, and by how much, from its recorded facts. The policy in force is not used: a
rule may be gone by now, or mean something else under the same name. A fact that no rule needed was not asked for then; the answer
of a rule that depends on it is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from smtpguard.admission.recorded import Recorded
from smtpguard.config.problem import Broken
from smtpguard.console.services import ConsoleServices
from smtpguard.incidents.query import IncidentQuery, UnknownNames, moment, unknown_names
from smtpguard.incidents.report import Findings, Report, TooMany
from smtpguard.journal.chain import microseconds
from smtpguard.lists.declared import ListInfo
from smtpguard.locale.speech import Speech
from smtpguard.policy.condition import NO, YES, Condition, Range, journal_text
from smtpguard.policy.facts import Count, Unknown, Value
from smtpguard.policy.parse import parse
from smtpguard.policy.rule import Rule
from smtpguard.reading.fold import query_words

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

_SHA256 = 64  # characters
MOST_FOUND = 100
"""The most messages that one word may match."""
Documents = Mapping[str, bytes]
Find = Callable[[IncidentQuery], Awaitable[Findings]]


class Occupied(Exception):
    """Another report is being made by this process."""


class NothingFits(Exception):
    """No message matches the query. ``why``: sentences on the mistakes in it, as far as they are known. ``rest``: whether other parts
    of the query match; a report without the mistaken parts would look as if nothing of that had happened."""

    def __init__(self, why: Sequence[str], *, rest: bool = False) -> None:
        super().__init__("; ".join(why if rest else ("nothing in the journal matches", *why)))
        self.why, self.rest = tuple(why), rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A report that was made. ``query``: the query, with whole ids. ``report``: the one in ``found``. ``at``: when it was asked for.
    ``names``: whether it names people. ``keeps``: how long the content of a hold is kept at least. ``missed``: the rules that did
    not hit the first message that passed, or else the first message."""

    query: IncidentQuery
    found: Findings
    report: Report
    purposes: Purposes
    at: datetime
    names: bool
    keeps: timedelta
    missed: tuple[Missed, ...] = ()


def query_of(
    now: datetime,
    *,
    ids: Iterable[str],
    lists: Iterable[str],
    senders: Iterable[str],
    subject: str,
    alone: bool,
    since: str | None,
    until: str | None,
) -> tuple[IncidentQuery, dict[str, str]]:
    """Return the query, and what is wrong with a time, by its name ("since", "until")."""
    times, wrong = dict[str, int](), dict[str, str]()
    for name, text in (("since", since), ("until", until)):
        try:
            if text is not None:
                times[name] = microseconds(moment(text, now))
        except ValueError as error:
            wrong[name] = str(error)
    query = IncidentQuery(
        ids=frozenset(ids),
        lists=frozenset(lists),
        senders=frozenset(senders),
        subject=subject,
        whole=not alone,
        since=times.get("since"),
        until=times.get("until"),
    )
    return query, wrong


async def make(
    query: IncidentQuery,
    find: Find,
    store: Store,
    *,
    at: datetime,
    names: bool,
    by: tuple[str, ...],
    language: str,
    delimiters: str,
    keeps: timedelta,
    may: Callable[[Report], bool] | None = None,
) -> Made:
    """Make a report. ``by``: the people who ask, for the journal. ``may``: says whether a person who may not see everything may see
    this report; if not, nothing fits. Raises NothingFits, TooMany and StoreError."""
    said = Speech(language)
    matches = {word: await store.journal.matching_ids(word) for word in query.ids}
    if may is not None and any(list(ids) != [word] for word, ids in matches.items()):
        raise NothingFits(())  # what part of an id, or a word, finds would tell of messages that they may not see
    if any(len(ids) > 1 for ids in matches.values()):
        raise NothingFits(list(_ids(matches, said)), rest=True)
    named = {word: ids or await store.journal.find(query_words(word), MOST_FOUND + 1) for word, ids in matches.items()}
    if many := [word for word, ids in named.items() if len(ids) > MOST_FOUND]:
        raise TooMany(f"more than {MOST_FOUND} messages are found by {', '.join(sorted(many))}: ask by sender and time")
    unknown: Mapping[str, Sequence[str]] = {word: () for word, ids in named.items() if not ids}
    if any("@" in word or " " in word for word in unknown):  # perhaps a person's name: it is not journalled
        raise NothingFits(list(_ids(unknown, said)))
    query = replace(query, ids=frozenset(id for word, ids in named.items() for id in ids or (word,)))
    if names and may is None:
        await store.journal.record([query.export_event(at, *by)])
    found = await find(query)
    if may is not None:
        if found.report is None or not may(found.report):
            raise NothingFits(())
        if names:
            await store.journal.record([query.export_event(at, *by)])
    lists = found.report.lists if found.report is not None else ()
    unmatched = await _unknown_names(query, store, lists, delimiters=delimiters, names=names)
    if found.report is None:
        raise NothingFits([*_ids(unknown, said), *_lists(unmatched, said), *_senders(unmatched, said)])
    if unmatched.lists:
        raise NothingFits(list(_lists(unmatched, said)), rest=True)
    documents = {sha256: await store.policies.documents(sha256) for sha256 in found.report.policies}
    then = await asyncio.to_thread(purposes, documents, delimiters=delimiters, language=language)
    missing: tuple[Missed, ...] = ()
    if (through := found.report.let_through) is not None:
        message = Recorded(*through)
        missing = await asyncio.to_thread(missed_rules, message, documents.get(message.policy), delimiters=delimiters)
    return Made(
        query=query, found=found, report=found.report, purposes=then, at=at, names=names, keeps=keeps, missed=missing
    )


async def make_once(
    console: ConsoleServices,
    query: IncidentQuery,
    *,
    prove: bool,
    names: bool,
    by: tuple[str, ...],
    language: str,
    may: Callable[[Report], bool] | None = None,
) -> Made:
    """Make a report unless another is being made: a report needs memory and processor time. Raises Occupied, NothingFits, TooMany and
    StoreError."""
    if console.reporting.locked():
        raise Occupied
    async with console.reporting:
        return await make(
            query,
            partial(console.store.journal.incident, prove=prove, asked=console.on_list, may=may),
            console.store,
            at=console.clock.now(),
            names=names,
            by=by,
            language=language,
            delimiters=console.in_force.registry.digester.delimiters,
            keeps=timedelta(seconds=console.settings.retention.content),
            may=may,
        )


async def _unknown_names(
    query: IncidentQuery, store: Store, lists: Iterable[str], *, delimiters: str, names: bool
) -> UnknownNames:
    """Return the lists and senders in the query that are not known. ``lists``: those that matching messages touched. Writers are
    suggested only in a report with names."""
    if not (query.lists or query.senders):
        return UnknownNames(lists={}, senders={}, bad=frozenset())
    documents = await store.policies.in_force()
    writers = await store.journal.writers() if names and query.senders else ()
    return await asyncio.to_thread(unknown_names, query, documents, delimiters=delimiters, lists=lists, writers=writers)


def _ids(matches: Mapping[str, Sequence[str]], said: Speech) -> Iterator[str]:
    for word, ids in sorted(matches.items()):
        if len(ids) > 1:
            yield said("{word} is ambiguous: {ids}", word=word, ids=", ".join(ids))
        elif not ids and (len(word) < _SHA256 or "@" in word):
            yield said("nothing has the name {word}", word=word)


def _lists(unmatched: UnknownNames, said: Speech) -> Iterator[str]:
    for word, suggestion in unmatched.lists.items():
        yield _with_suggestion(said("the policy in force has no list {word}", word=word), suggestion, said)


def _senders(unmatched: UnknownNames, said: Speech) -> Iterator[str]:
    for word, suggestion in unmatched.senders.items():
        if word in unmatched.bad:
            yield _with_suggestion(said("not an address: {word}", word=word), suggestion, said)
        elif suggestion:
            yield _with_suggestion(said("nothing has come from {word} recently", word=word), suggestion, said)


def _with_suggestion(sentence: str, suggestion: str, said: Speech) -> str:
    return sentence + " " + said("(did you mean {word}?)", word=suggestion) if suggestion else sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Purposes:
    """What the policies that decided say. ``of``: descriptions by rule. ``lists``: as the last of these policies declares them, each
    with a title; ``zone``: the organization's, from the same policy. ``watching``: the policies, by SHA-256, that only observed
    (``enforce: false``). ``calling``: the rules that only alert a person. ``lost``: the policies whose documents are erased or
    unreadable for this version."""

    of: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    watching: tuple[str, ...] = ()
    calling: frozenset[str] = frozenset()
    lists: Mapping[str, ListInfo] = field(default_factory=dict)
    zone: str = ""


def purposes(policies: Mapping[str, Documents], *, delimiters: str, language: str) -> Purposes:
    """Return what the policies say, in ``language`` as far as admins wrote it. ``policies``: in order, each with its documents. It
    takes a tenth of a second for each."""
    of: dict[str, str] = {}
    lists: dict[str, ListInfo] = {}
    lost: list[str] = []
    watching: list[str] = []
    calling: set[str] = set()
    zone = ""
    for sha256, documents in policies.items():
        try:
            policy = parse(documents, delimiters=delimiters)
        except (KeyError, Broken):
            lost.append(sha256)
            continue
        of |= policy.rules.purposes(language)
        lists |= policy.declared_lists
        zone = str(policy.organization.hours.zone)
        calling |= {rule.rule_id for rule in policy.rules.alarms}
        if not policy.enforce:
            watching.append(sha256)
    return Purposes(
        of=of, lost=tuple(lost), watching=tuple(watching), calling=frozenset(calling), lists=lists, zone=zone
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A rule that did not hit. ``fact``, ``observed``, ``limit``: of the condition that said no; "" if an exception did
    (``excepted``), or if the answer is unknown (``unsaid``: the facts that are not recorded). ``by``: how much a count was short, in
    its own unit; None if it is no count. ``milder``: whether the rule hit, but could not have made the verdict stricter."""

    rule: str
    observes: bool
    fact: str = ""
    observed: str = ""
    limit: str = ""
    by: float | None = None
    excepted: bool = False
    unsaid: tuple[str, ...] = ()
    milder: bool = False


def missed_rules(message: Recorded, documents: Mapping[str, bytes] | None, *, delimiters: str) -> tuple[Missed, ...]:
    """Return the rules that did not hit the message, in the policy's order; none if its documents are not stored."""
    if not documents or not message.decided:
        return ()
    try:
        rules = parse(documents, delimiters=delimiters).rules.rules
    except Broken:
        return ()
    return tuple(one for rule in rules if rule.rule_id not in message.hits for one in _missed(rule, message))


def _missed(rule: Rule, message: Recorded) -> Iterator[Missed]:
    values = {c.slot: value for c in rule.conditions if (value := message.value(c.slot)) is not None}
    known = {slot: value for slot, value in values.items() if not isinstance(value, Unknown)}
    missed = partial(Missed, rule=rule.rule_id, observes=rule.observes)
    answer = rule.answer(known)
    if answer is YES:
        yield missed(milder=True)
    elif answer is not NO:
        unsaid = dict.fromkeys(c.fact.name for c in rule.conditions if c.slot not in known)
        yield missed(unsaid=tuple(unsaid))
    elif (because := _nearest(rule, known)) is None:
        yield missed(excepted=True)
    else:
        value = known[because.slot]
        yield missed(
            fact=because.fact.name,
            observed="" if because.fact.personal else journal_text(because.fact, value),
            limit="" if because.fact.personal else because.limit,
            by=_shortfall(because, value),
        )


def _nearest(rule: Rule, known: Mapping[str, Value]) -> Condition | None:
    """Return a count among the conditions that said no, since it says by how much; else the first of them. Return None if an `unless`
    said no."""
    against = [c for c in rule.when if c.answer(known) is NO]
    return next((c for c in against if _shortfall(c, known[c.slot]) is not None), against[0] if against else None)


def _shortfall(condition: Condition, value: Value) -> float | None:
    """Return how far the value is from the condition's bound, None unless it has a single one."""
    if not isinstance(value, Count) or not isinstance(condition, Range):
        return None
    if condition.most == inf:
        return condition.least - value.high
    return value.low - condition.most if condition.least == -inf else None
