"""What the policies that decided say: the descriptions of rules and lists, in their admins' words, whether they were enforced, and which
rules did not take effect on a message, and by how much, from its recorded facts.

A rule may be gone by now, or mean something else under the same name, so the policy in force is not used. A fact that no rule needed was
not asked for then; the answer of a rule that depends on it is unknown. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf

from smtpguard.admission.recorded import Recorded
from smtpguard.config.problem import Broken
from smtpguard.policy.condition import NO, YES, Condition, Range, shown
from smtpguard.policy.facts import Count, Unknown, Value
from smtpguard.policy.models import ListModel
from smtpguard.policy.parse import parse
from smtpguard.policy.rule import Rule

Documents = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purposes:
    """``of``: rule to description. ``lists``: as the last policy that decided declares them, each with a title; so is ``zone``, the
    organization's. ``watching``: policies, by SHA-256, that only observed (``enforce: false``). ``calling``: rules that
    only alert a person. ``lost``: policies whose documents are erased or unreadable for this version."""

    of: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    watching: tuple[str, ...] = ()
    calling: frozenset[str] = frozenset()
    lists: Mapping[str, ListModel] = field(default_factory=dict)
    zone: str = ""


def purposes(policies: Mapping[str, Documents | None], *, delimiters: str, language: str) -> Purposes:
    """In ``language`` if the admin wrote it. ``policies``: in order, each with its documents; a tenth of a second each."""
    of: dict[str, str] = {}
    lists: dict[str, ListModel] = {}
    lost: list[str] = []
    watching: list[str] = []
    calling: set[str] = set()
    zone = ""
    for sha256, documents in policies.items():
        try:
            if documents is None:
                raise KeyError(sha256)
            policy = parse(documents, delimiters=delimiters)
        except (KeyError, Broken):
            lost.append(sha256)
            continue
        of |= policy.rules.purposes(language)
        lists |= {name: one.model_copy(update={"title": one.title or name}) for name, one in policy.lists.items()}
        zone = str(policy.organization.hours.zone)
        calling |= {rule.rule_id for rule in policy.rules.alarms}
        if not policy.enforce:
            watching.append(sha256)
    return Purposes(
        of=of, lost=tuple(lost), watching=tuple(watching), calling=frozenset(calling), lists=lists, zone=zone
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """``fact``, ``observed``, ``limit``: of the condition that said no; "" if an exception did (``excepted``), or if it
    is unknown (``unsaid``: the facts that are not recorded). ``by``: how much a count was short, in its own unit; None
    if it is no count. ``milder``: it could not have made the verdict stricter."""

    rule: str
    observes: bool
    fact: str = ""
    observed: str = ""
    limit: str = ""
    by: float | None = None
    excepted: bool = False
    unsaid: tuple[str, ...] = ()
    milder: bool = False


def missed(message: Recorded, documents: Mapping[str, bytes] | None, *, delimiters: str) -> tuple[Missed, ...]:
    """In the policy's order; none if its documents are not stored."""
    if documents is None or not message.decided:
        return ()
    try:
        rules = parse(documents, delimiters=delimiters).rules.rules
    except Broken:
        return ()
    return tuple(one for rule in rules if rule.rule_id not in message.hits for one in _of(rule, message))


def _of(rule: Rule, message: Recorded) -> Iterator[Missed]:
    values = {c.slot: value for c in rule.conditions if (value := message.value(c.slot)) is not None}
    known = {slot: value for slot, value in values.items() if not isinstance(value, Unknown)}
    answer = rule.answer(known)
    if answer is YES:
        yield Missed(rule=rule.rule_id, observes=rule.observes, milder=True)
    elif answer is not NO:
        unsaid = dict.fromkeys(c.fact.name for c in rule.conditions if c.slot not in known)
        yield Missed(rule=rule.rule_id, observes=rule.observes, unsaid=tuple(unsaid))
    else:
        because = _nearest(rule, known)
        if because is None:
            yield Missed(rule=rule.rule_id, observes=rule.observes, excepted=True)
            return
        value = known[because.slot]
        yield Missed(
            rule=rule.rule_id,
            observes=rule.observes,
            fact=because.fact.name,
            observed="" if because.fact.personal else shown(because.fact, value),
            limit="" if because.fact.personal else because.limit,
            by=_lacking(because, value),
        )


def _nearest(rule: Rule, known: Mapping[str, Value]) -> Condition | None:
    """A count among the conditions that said no, since it says by how much; else the first. None if an exception said
    no."""
    against = [c for c in rule.when if c.answer(known) is NO]
    return next((c for c in against if _lacking(c, known[c.slot]) is not None), against[0] if against else None)


def _lacking(condition: Condition, value: Value) -> float | None:
    """How far it is from a bound, if it has one alone."""
    if not isinstance(value, Count) or not isinstance(condition, Range):
        return None
    if condition.most == inf:
        return condition.least - value.high
    return value.low - condition.most if condition.least == -inf else None
