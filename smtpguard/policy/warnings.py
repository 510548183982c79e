"""Warnings about a policy that is valid and probably not what its admin meant. None of them keeps it from force.

In each case the guard is weaker, or quieter, than the admin thinks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time
from ipaddress import ip_network

from smtpguard.config.fields import loose_networks
from smtpguard.config.problem import Problem, did_you_mean
from smtpguard.config.validation import Findings
from smtpguard.config.yaml import Document, Place
from smtpguard.mail.address import Address, is_among
from smtpguard.policy.approvals import Absence, Groups
from smtpguard.policy.condition import YES, Condition, Empty, EveryWord, Range, SomeWord, Truth, Word, WordMatches
from smtpguard.policy.engine import RuleSet
from smtpguard.policy.facts import FACTS, NONE, Count, Type, Value
from smtpguard.policy.implication import added, can_be, can_hit, can_meet
from smtpguard.policy.models import ListModel, OriginModel, PolicyModel, StreamModel, lacking
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Quorum
from smtpguard.reading.request import PROVIDERS

_DOMAIN = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\Z|\[.*\]\Z")
_OF_MANY = re.compile(r"(?:(?:ac|co|com|edu|gov|net|org)\.)?[a-z]{2}|biz|com|edu|gov|info|net|org")
"""Domains in which each organization has one of its own."""
_FEW = 2  # an exact number up to this may be intended
_PROVEN = frozenset({"sender.proven", "sender.is_writer", "login"})
_COLLEAGUE: Mapping[str, Value] = {
    "sender.internal": True, "sender.proven": True, "listener.proves_senders": True, "login": frozenset({"somebody"}),
}  # fmt: skip
_DAILY: Sequence[tuple[str, Mapping[str, Value]]] = (
    (
        "between colleagues",
        {"message.looks": "internal", "recipients.internal": Count(1, 1), "recipients.outside": NONE},
    ),
    ("to one person outside who is on no list", {}),
)
"""Letters of every day: a guard that holds these is soon switched off."""


def warn_of_policy(model: PolicyModel, rules: RuleSet, groups: Groups, delimiters: str, findings: Findings) -> None:
    """``rules`` to ``delimiters``: parsed from ``model``, as in Policy, without errors."""
    _domains(model, findings)
    _hours(model, findings)
    _holding(model, findings)
    _addresses(model, delimiters, findings)
    _spared(model, findings)
    _one_person(model, groups, findings)
    _writers(model, rules, groups, delimiters, findings)
    findings.problems += loose_networks(findings.document)
    for section, declared in (("lists", model.lists), ("streams", model.streams)):
        _origins(section, declared, findings)
    for n, rule in enumerate(rules.rules):
        _rule(rule, ("rules", n), findings)
    _usual(rules.rules, findings)


def _domains(model: PolicyModel, findings: Findings) -> None:
    """Warn of probable typing errors in domains. A typing error in a domain turns colleagues into strangers: writers
    of held mail then get no notices."""
    ours = model.organization.domains
    for n, domain in enumerate(ours):
        if domain.removeprefix("*.") in PROVIDERS:
            text = f"{domain} belongs to a mail provider: everyone with an address there would be a colleague"
            findings.warn(("organization", "domains", n), text)
        elif _OF_MANY.fullmatch(domain.removeprefix("*.")):
            text = f"{domain} is no organization's own: many have their domains there"
            findings.warn(("organization", "domains", n), text, "a domain of yours, like example.com")
    named = [_domain_of(address) for address in _own_people(model)]
    if named and not any(is_among(domain, ours) for domain in named):
        findings.warn(
            ("organization", "domains"),
            "no address in this policy is in the organization's domains: it would take colleagues for outsiders",
        )
        return
    owners = [("lists", name, one.owner) for name, one in model.lists.items()]
    owners += [("streams", name, stream.owner) for name, stream in model.streams.items()]
    for section, name, owner in owners:
        domain = _domain_of(owner) if owner else ""
        if domain and not is_among(domain, ours) and (hint := did_you_mean(domain, ours)):
            findings.warn((section, name, "owner"), f"{owner} is in none of the organization's domains", hint)
    for name, group in model.groups.items():
        members = group.addresses
        outside = {n: domain for n, address in enumerate(members) if not is_among(domain := _domain_of(address), ours)}
        near = {n: hint for n, domain in outside.items() if (hint := did_you_mean(domain, ours))}
        for n, hint in near.items():
            findings.warn(("groups", name, n), f"{members[n]} is in none of the organization's domains", hint)
        if members and len(outside) == len(members) and not near:
            text = f"no member of group {name} is in the organization's domains: notices of held mail would go outside"
            findings.warn(("groups", name), text, key=True)


def _hours(model: PolicyModel, findings: Findings) -> None:
    """Deadlines, reminders and other approvers begin and end at these times."""
    said = model.organization.hours.model_fields_set
    if not said.isdisjoint({"from_", "to"}) and "zone" not in said:
        text = "these hours name no zone, so they are hours of UTC"
        findings.warn(("organization", "hours"), text, "zone: Europe/Stockholm, or zone: UTC if that is meant")


def _holding(model: PolicyModel, findings: Findings) -> None:
    """``enforce: false`` is explicit; a policy whose rules all observe is easily overlooked."""
    if model.enforce and model.rules and all(rule.mode == "observe" for rule in model.rules):
        findings.warn(("rules",), "every rule only observes: nothing is held", key=True)


def _spared(model: PolicyModel, findings: Findings) -> None:
    """A member of a list of a special category and of another list is covered by an approval for the other, unless the
    list says no."""
    for name, info in model.lists.items():
        if not info.special or (info.approvals is not None and info.approvals.always):
            continue
        if len(model.lists) > 1:
            text = (
                f"an approval for another list covers those of {name} who are on both, and membership of {name} is sensitive: "
                f"with approvals: always (or always: true beside its approvers) it does not"
            )
            findings.warn(("lists", name, "sensitivity"), text)


def _addresses(model: PolicyModel, delimiters: str, findings: Findings) -> None:
    """Mail to a person whose mailbox has a list's name is mail to the list, and mail from one may be a stream's."""
    people: dict[str, str] = {}
    for name, group in model.groups.items():
        people |= {Address.parse(each).canonical(delimiters): f"of group {name}" for each in group.addresses}
    for address, others in model.organization.aliases.items():
        people |= {Address.parse(each).canonical(delimiters): "with several addresses" for each in (address, *others)}
    for name, stream in model.streams.items():
        for n, address in enumerate(stream.from_):
            if who := people.get(Address.parse(address).canonical(delimiters)):
                text = f"{address} is of stream {name} and of a person {who}: where the person's mail proves its origin too, it needs no approval"
                findings.warn(("streams", name, "from", n), text)
    for info in model.lists.values():
        if info.owner is not None:
            people.setdefault(Address.parse(info.owner).canonical(delimiters), "who owns a list")
    for name, info in model.lists.items():
        for n, address in enumerate(info.addresses):
            if who := people.get(Address.parse(address).canonical(delimiters)):
                text = f"{address} is the address of list {name} and of a person {who}: mail to the person would be mail to the list"
                findings.warn(("lists", name, "addresses", n), text)


def _one_person(model: PolicyModel, groups: Groups, findings: Findings) -> None:
    """Two addresses with one local part in two of our domains are probably one person, who could vote twice."""
    ours = model.organization.domains
    for name, group in model.groups.items():
        members = group.addresses
        called: dict[str, str] = {}
        for n, address in enumerate(members):
            key = Address.parse(address).canonical()
            local, _, domain = key.rpartition("@")
            if not is_among(domain, ours):
                continue
            first = called.setdefault(local, key)
            if first != key and key not in groups.addresses(first):
                text = f"{address} and {first} count as two people of group {name}, who do not decide on mail of each other: if they are one person, declare it in organization: aliases"
                findings.warn(("groups", name, n), text)


def _writers(model: PolicyModel, rules: RuleSet, groups: Groups, delimiters: str, findings: Findings) -> None:
    """Nobody decides on what they wrote: others must decide on mail of a list's writers (guard.inforce.InForce.behind)."""
    ours = model.organization.domains
    for name, info in model.lists.items():
        asked = rules.quorum_of(name)
        place: Place = ("lists", name, "approvals") if asked.list else ("approvals",)
        if not groups.elsewhere.isdisjoint(asked.groups):
            continue
        for writer in info.writers:
            key = Address.parse(writer).canonical(delimiters)
            own_names = groups.named((key,), lambda domain: is_among(domain, ours))
            if lacks := lacking(asked.groups, asked.each, groups, groups.addresses(key) | own_names):
                text = f"no quorum can decide on mail of {writer} to {name}: it {lacks} without them"
                findings.warn((*place, "from"), text)


def _own_people(model: PolicyModel) -> Iterator[str]:
    """Yield people whom the policy names as the organization's own."""
    for group in model.groups.values():
        yield from group.addresses
    for info in model.lists.values():
        yield from info.writers
        if info.owner is not None:
            yield info.owner


def _domain_of(address: str) -> str:
    return Address.parse(address).canonical().rpartition("@")[2]


def _origins(section: str, declared: Mapping[str, ListModel] | Mapping[str, StreamModel], findings: Findings) -> None:
    for name, model in declared.items():
        origin: OriginModel | None = model.origin
        for n, domain in enumerate(origin.dkim if origin is not None else ()):
            if domain in PROVIDERS:
                text = f"{domain} belongs to a mail provider: it signs for everyone with an account there"
                findings.warn((section, name, "origin", "dkim", n), text)
        for n, network in enumerate(origin.clients if origin is not None else ()):
            if ip_network(network).prefixlen == 0:
                place: Place = (section, name, "origin", "clients", n)
                findings.warn(place, f"{network} is every client: it proves nothing")


def _ordinary(rule: Rule, facts: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return the values that a rule asks for, by slot, in a letter of a proven colleague: the first of its kind, to
    one person."""
    own = {c.slot: FACTS[c.fact.own or c.fact.name] for c in rule.conditions}
    return {slot: facts.get(fact.name, _COLLEAGUE.get(fact.name, fact.default)) for slot, fact in own.items()}


def _asks_nobody(condition: Condition) -> str:
    """Return why a message that meets it never has a writer who can be asked; "" if it may."""
    name = condition.fact.name
    if isinstance(condition, Truth) and name in ("sender.proven", "sender.internal") and not condition.wanted:
        return "only a colleague whose identity is proven is asked"
    if isinstance(condition, Truth) and name == "message.automatic" and condition.wanted:
        return "automatic mail has no writer to ask"
    if name == "stream" and not (isinstance(condition, Empty) and condition.wanted):
        return "a system's mail has no writer to ask"
    if name == "recipients.sensitivity" and isinstance(condition, SomeWord) and condition.words == {"special-category"}:
        return "a writer alone cannot release mail to a list of a special category"
    return ""


def _misread(condition: Condition) -> tuple[str, str]:
    """Return a word that is taken as it is written, and probably means something else; and what may be meant. Two
    empty texts if there is none."""
    name = condition.fact.name
    for word in sorted(condition.words) if isinstance(condition, SomeWord | EveryWord | Word) else ():
        if not isinstance(condition, Word) and (meant := word.strip().lower()) in ("any", "none", ""):
            said = f"{word} is taken for a word here" if meant else "no message has an empty word"
            return f"{name}: {said}", f"{meant or 'none'}, in small letters and without brackets"
        if name == "recipients.domains" and not _DOMAIN.match(word):
            return (
                f"{name}: no domain is called {word}",
                'a name like example.com, or {matches: "(^|[.])example[.]com$"}',
            )
        if name == "sender.address" and "*" in word:
            return f"{name}: no address is {word}: wildcards are not allowed", '{matches: "@example[.]com$"}'
    return "", ""


def _rule(rule: Rule, place: Place, findings: Findings) -> None:
    for section, conditions in (("when", rule.when), ("unless", rule.unless)):
        for condition in conditions:
            said, meant = _misread(condition)
            if said:
                findings.warn((*place, section, condition.fact.name), said, meant)
    never = [condition for condition in rule.when if not can_be(condition)]
    for condition in rule.when:
        if not isinstance(condition, Range) or condition.fact.type is not Type.COUNT:
            continue
        if condition.least == condition.most >= _FEW:
            text = (
                f"rule {rule.rule_id} hits where {condition.fact.name} is {condition.least:g}, and not where it is more"
            )
            findings.warn((*place, "when", condition.fact.name), text, f'">= {condition.least:g}"')
    for condition in never:
        findings.warn((*place, "when", condition.fact.name), f"{condition.fact.name} is never {condition.limit}")
    if not never and not can_meet(rule):
        findings.warn((*place, "when"), f"rule {rule.rule_id} can never hit: no message meets its conditions", key=True)
    elif not never and rule.unless and not can_hit(rule):
        text = f"rule {rule.rule_id} can never hit: its exception covers its whole condition"
        findings.warn((*place, "unless"), text, key=True)
    if not (rule.observes or rule.calls) and (
        letters := [letter for letter, facts in _DAILY if rule.answer(_ordinary(rule, facts)) is YES]
    ):
        text = f"rule {rule.rule_id} takes effect on every ordinary letter {' and '.join(letters)}"
        findings.warn((*place, "when"), text, key=True)
    if rule.then is Action.CONFIRM:
        for condition in rule.when:
            if why := _asks_nobody(condition):
                text = f"rule {rule.rule_id} cannot ask any writer, so it holds every message that it hits: {why}"
                findings.warn((*place, "when", condition.fact.name), text)
    if any(condition.fact.name in _PROVEN for condition in rule.unless):
        return
    for condition in rule.unless:
        name = condition.fact.name
        spared = isinstance(condition, Truth) and condition.wanted and name == "sender.internal"
        if spared or (name == "sender.address" and isinstance(condition, Word | WordMatches)):
            text = f"rule {rule.rule_id} exempts everyone who claims such a From: add sender.proven: true to exempt only proven senders"
            findings.warn((*place, "unless", name), text, key=True)


def _usual(rules: Sequence[Rule], findings: Findings) -> None:
    """Warn once of each count that only a sender's own usual bounds: a patient sender raises that week by week."""
    told: set[str] = set()
    for n, rule in enumerate(rules):
        for one in rule.when:
            name = one.fact.name
            if one.usual is None or not name.startswith("sender.") or name in told:
                continue
            if not any(_bounds(other, rule, one) for other in rules):
                told.add(name)
                text = f"no rule bounds {name} without usual: who sends somewhat more each week is never stopped"
                hint = "a second rule like it, with a higher bound and without usual"
                findings.warn(("rules", n, "when", name), text, hint)


def _bounds(other: Rule, rule: Rule, count: Condition) -> bool:
    """Return whether the other rule bounds the count of a rule absolutely, and is as strict and as wide."""
    new = added(rule.when, other.when)
    if other.then < rule.then or (other.observes and not rule.observes) or not new:
        return False
    return all(
        one.window_seconds and one.usual is None
        and one.fact.name in (count.fact.name, "sender.first_contacts")  # of which the others are a part
        and (count.same or not one.same)
        and (one.lists is None or (count.lists is not None and count.lists <= one.lists))
        for one in new
    )  # fmt: skip


def unfilled_quorums(
    document: Document, groups: Groups, asked: Mapping[Place, Quorum], now: datetime
) -> Iterator[Problem]:
    """Warnings of quorums that the people present cannot fill, each at the absence with which it begins. ``asked``:
    every quorum of the policy, by its place."""
    coming = [absence for absence in groups.absences if not absence.is_over(now, groups.zone)]
    told: set[tuple[str, Place]] = set()
    for absence in sorted(coming, key=lambda a: (a.since, a.person)):
        at = max(now, datetime.combine(absence.since, time(12), groups.zone).astimezone(UTC))
        for place, quorum in asked.items():
            if not groups.elsewhere.isdisjoint(quorum.groups):
                continue  # the members of these groups are not in the policy
            if (absence.person, place) in told or not any(absence.person in groups.of(g) for g in quorum.groups):
                continue
            there = {group: groups.present(group, at) for group in quorum.groups}
            if not (lacks := lacking(quorum.groups, quorum.each, there)):
                continue
            if lacking(quorum.groups, quorum.each, groups):
                continue  # it is so with everybody present, and reported elsewhere
            told.add((absence.person, place))
            why = (
                "no one decides for them"
                if not groups.deputy(absence.person, at, quorum.groups)
                else f"{absence.deputy} decides for them"
            )
            text = (
                f"from {absence.since} to {absence.until} {'.'.join(map(str, place))} cannot be met: it {lacks}, since "
                f"{absence.person} is away and {why}"
            )
            hint = "a deputy who is not in a group that is already asked"
            yield document.problem(_place(document, absence), text, hint=hint, fatal=False)


def _place(document: Document, absence: Absence) -> Place:
    """Return its place in the file, or the nearest one."""
    local = absence.person.rpartition("@")[0]
    people = document.value.get("people") or {}
    key = next(
        (k for k in people if k.lower() in (absence.person, local) or k.partition("@")[0].lower() == local), None
    )
    return ("people", key, "away") if key is not None else ("people",)
