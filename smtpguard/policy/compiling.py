"""Compile a policy file: its rules, with what is wrong with each, and its lists and streams, as mail is compared with them
and as their sources are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from math import inf
from typing import Any

from smtpguard.config.durations import LONGEST_SECONDS, in_short
from smtpguard.config.problem import Invalid
from smtpguard.config.validation import Findings
from smtpguard.config.yaml import Document, Place
from smtpguard.lists.declared import ListInfo, Origin, Stream
from smtpguard.lists.members import ListMembers
from smtpguard.mail.address import Address
from smtpguard.policy.condition import Condition, Range
from smtpguard.policy.confirming import ConfirmModel
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.grammar import ConditionNames, condition, facts_of
from smtpguard.policy.models import ListModel, OriginModel, PolicyModel, RuleModel, StreamModel
from smtpguard.policy.rule import FIXED, REPLIES, Rule
from smtpguard.policy.verdict import Action, Mode, Scope


def list_info(name: str, lists: Mapping[str, ListModel], delimiters: str) -> ListInfo:
    model = lists[name]
    included = ways(name, lists)
    sources = tuple(
        members if here == name else members.within(here)
        for here in included
        for members in lists[here].members
        if not isinstance(members, ListMembers)
    )
    return ListInfo(
        name=name,
        title=model.title or name,
        owner=model.owner,
        addresses=tuple(map(Address.parse, model.addresses)),
        addresses_elsewhere=tuple(map(Address.parse, model.addresses_elsewhere)),
        list_ids=frozenset(list_id.strip("<> ").lower() for list_id in model.list_ids),
        audience=model.audience,
        sensitivity=model.sensitivity,
        category=model.category,
        preview=model.preview,
        writers=_canonical(model.writers, delimiters),
        origin=_origin(model.origin) if model.origin is not None else Origin(),
        avoid=frozenset(model.avoid),
        language=frozenset(model.language),
        members=sources,
        includes=frozenset(included.keys() - {name}),
        at_least=max((own.at_least for own in model.members), default=1),
        max_shrink=min((own.max_shrink for own in model.members), default=0.2),
        refresh_seconds=min((each.refresh for each in sources), default=900),
        stale_after_seconds=min((each.stale_after_seconds for each in sources), default=86_400),
    )


def stream(name: str, model: StreamModel, delimiters: str) -> Stream:
    return Stream(
        name=name,
        senders=_canonical(model.from_, delimiters),
        origin=_origin(model.origin),
        max=model.max,
        max_per_person=model.max_per_person,
        owner=model.owner,
    )


def ways(start: str, lists: Mapping[str, ListModel]) -> dict[str, tuple[str, ...]]:
    """Return a list and those that it includes, at any depth, each with the shortest path to it. Each once, so cycles end."""
    found: dict[str, tuple[str, ...]] = {start: (start,)}
    ahead = [start]
    for here in ahead:
        for members in lists[here].members:
            if isinstance(members, ListMembers) and members.list in lists and members.list not in found:
                found[members.list] = (*found[here], members.list)
                ahead.append(members.list)
    return found


def _origin(model: OriginModel) -> Origin:
    return Origin(
        dkim=frozenset(model.dkim), clients=tuple(map(ip_network, model.clients)), logins=frozenset(model.logins)
    )


def _canonical(addresses: Iterable[str], delimiters: str) -> frozenset[str]:
    return frozenset(Address.parse(address).canonical(delimiters) for address in addresses)


MAX_RULES = 10_000
_NO_EXCEPTION = "leave it out where there is no exception"
ALARM = "alarm"
_ACTIONS = {action.word: action for action in Action} | {ALARM: Action.RELAY}


def rules(model: PolicyModel, known: ConditionNames, findings: Findings) -> Iterator[Rule]:
    """Yield every rule, valid or not: problems go to ``findings``, and keep the policy from force."""
    if not model.rules:
        findings.warn(("rules",), "no rules: the guard holds nothing", key=True)
    if len(model.rules) > MAX_RULES:
        findings.problem(("rules",), f"{len(model.rules)} rules", f"at most {MAX_RULES}", key=True)
    _bounded(model.confirm, "within", ("confirm",), findings)
    first: dict[str, int] = {}
    for n, rule in enumerate(model.rules):
        place: Place = ("rules", n)
        if rule.id == FREEZE:
            findings.problem((*place, "id"), f'the id "{FREEZE}" is reserved for freezes', "another id")
        if rule.id in FIXED:
            text = f'the id "{rule.id}" is that of a built-in rule, which is always in force'
            findings.problem((*place, "id"), text, "another id, or no rule")
        if rule.id in first:
            document, there = findings.document, findings.document.mark(("rules", first[rule.id], "id"))
            where = f"on line {there.line}"
            if there.file != document.mark(place).file:
                where = f"in {there.file or document.file}, line {there.line}"
            text = f'duplicate rule "{rule.id}": first {where}'
            findings.problem((*place, "id"), text, "another id")
        first.setdefault(rule.id, n)
        yield _rule(rule, place, known, findings, model)


def left_out(document: Document, known: ConditionNames, findings: Findings) -> None:
    """Find the mistakes in conditions of rules that another mistake keeps out of the model. ``findings``: of the
    document without these rules, ``document`` with them."""
    seen = {mark for place, mark in findings.document.values.items() if len(place) == 2 and place[0] == "rules"}
    found = replace(findings, document=document)  # with the same list of problems
    for n, rule in enumerate(document.value["rules"] if isinstance(document.value.get("rules"), list) else ()):
        place: Place = ("rules", n)
        if document.values[place] in seen or not isinstance(rule, dict):
            continue
        for section in ("when", "unless"):
            if isinstance(raw := rule.get(section), dict):
                _conditions(raw, (*place, section), known, found, every=section == "unless")


def _rule(model: RuleModel, place: Place, known: ConditionNames, findings: Findings, policy: PolicyModel) -> Rule:
    when = _conditions(model.when, (*place, "when"), known, findings, every=False)
    unless: tuple[Condition, ...] = ()
    if model.unless is not None:
        unless = _conditions(model.unless, (*place, "unless"), known, findings, every=True)
    elif "unless" in model.model_fields_set:  # no error, since such a policy may be in force
        findings.warn((*place, "unless"), "unless has no condition", _NO_EXCEPTION, key=True)
    if model.scope == "customers" and model.then not in ("hold", "confirm"):
        text = f"scope: customers on a rule with then: {model.then}"
        findings.problem((*place, "scope"), text, "then: hold, or confirm")
    for key in ("within", "after"):
        if getattr(model, key) is not None and model.then != "confirm":
            text = f"{key} is only for rules with then: confirm"
            findings.problem((*place, key), text, "then: confirm", key=True)
    for key in ("within", "stop"):
        _bounded(model, key, place, findings)
    if model.explain and model.then != "reject":
        text = "explain is only for rules with then: reject"
        findings.warn((*place, "explain"), text)
    return Rule(
        rule_id=model.id,
        then=_ACTIONS[model.then],
        when=when,
        unless=unless,
        description=_own(model.description, policy),
        descriptions={language: text for language, text in model.description.items() if language},
        mode=Mode(model.mode) if policy.enforce and model.then != ALARM else Mode.OBSERVE,
        alarm=model.then == ALARM and model.mode == "enforce",
        scope=Scope(model.scope),
        explain=model.explain,
        stop_seconds=_stop(model, place, when, findings),
        within_seconds=int(model.within or 0),
        expires=model.after == "expire",
    )


def _stop(model: RuleModel, place: Place, when: tuple[Condition, ...], findings: Findings) -> int:
    """Seconds; 0 for none."""
    if model.stop is None:
        return 0
    if not any(c.fact.name == REPLIES for c in when):
        text = f"stop is only for rules with a condition on {REPLIES}"
        findings.problem((*place, "stop"), text, f"a condition on {REPLIES}", key=True)
    return int(model.stop)


def _bounded(section: RuleModel | ConfirmModel, key: str, place: Place, findings: Findings) -> None:
    if (length := getattr(section, key) or 0) > LONGEST_SECONDS:
        findings.problem((*place, key), f"{key}: {in_short(length)}", "at most 31d")


def _own(description: Mapping[str, str], policy: PolicyModel) -> str:
    """Return a description in the organization's main language, if it was written in it."""
    spoken = ("", *policy.organization.languages, *description)
    return next((description[language] for language in spoken if language in description), "")


def _conditions(
    raw: Mapping[str, Any], place: Place, known: ConditionNames, findings: Findings, *, every: bool
) -> tuple[Condition, ...]:
    if not raw:
        why = _NO_EXCEPTION if every else "a rule without it would hit every message"
        findings.problem(place, f"{place[-1]} has no condition: {why}", "at least one condition", key=True)
    made: list[Condition] = []
    for here, fact, value in facts_of(raw, place, findings):
        try:
            made.append(condition(fact, value, every=every, known=known))
        except Invalid as e:
            findings.invalid(e, here)
            continue
        if isinstance(bound := made[-1], Range) and bound.most == inf and bound.least <= 0 and not bound.beyond:
            findings.warn(here, f"{fact.name} is always {bound.limit}")
    return tuple(made)
