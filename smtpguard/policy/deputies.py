"""Turn ``people`` of a policy into absences, with the problems of each; and warn of quorums that the people present
cannot fill.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime, time

from smtpguard.config.problem import Invalid, Problem, Severity, Undeclared
from smtpguard.config.validation import Findings
from smtpguard.config.yaml import Document, Place
from smtpguard.policy.absences import Absence, Groups
from smtpguard.policy.grammar import canonical
from smtpguard.policy.models import OutOfHoursModel, PersonModel, lacking
from smtpguard.policy.verdict import Quorum


def absences(
    people: Mapping[str, PersonModel], groups: Groups, delimiters: str, findings: Findings
) -> Iterator[Absence]:
    """Every valid absence. A deputy whom the policy names need not be in the person's groups: the policy's author
    vouches."""
    known = frozenset().union(*groups.values())
    first: dict[str, str] = {}
    for key, model in people.items():
        place: Place = ("people", key)
        person = _named(key, known, delimiters, place, findings, key=True, anybody=bool(groups.elsewhere))
        if person and first.setdefault(min(groups.aliases.get(person, {person})), key) != key:
            findings.problem(
                place,
                f"{key} is also {first[min(groups.aliases.get(person, {person}))]}",
                "each person once",
                key=True,
            )
        deputy = ""
        if model.deputy is not None:
            deputy = _named(model.deputy, known, delimiters, (*place, "deputy"), findings, anybody=True)
        if person and deputy in groups.aliases.get(person, {person}):
            findings.problem((*place, "deputy"), f"{key} decides for {key}", "somebody else")
        last = None
        for n, span in enumerate(model.away):
            here: Place = (*place, "away", n) if (*place, "away", n) in findings.document.values else (*place, "away")
            if last is not None and span.since <= last:
                findings.problem(here, f"the absences of {key} overlap, or are not in order", "one after the other")
            last = span.until
            if person:
                yield Absence(person=person, since=span.since, until=span.until, deputy=deputy, confirmed=bool(deputy))


def _named(
    text: str,
    known: Set[str],
    delimiters: str,
    place: Place,
    findings: Findings,
    *,
    key: bool = False,
    anybody: bool = False,
) -> str:
    """The canonical address of a member of a group, by address or local part; "" if there is none. ``anybody``: any
    address is accepted."""
    if "@" not in text:
        called = sorted(person for person in known if person.rpartition("@")[0] == text.lower())
        if len(called) == 1:
            return called[0]
        if called:
            findings.problem(place, f"{text} may be {' or '.join(called)}", "the full address", key=key)
        else:
            findings.invalid(Undeclared("person", text, {p.rpartition("@")[0] for p in known}), place, key=key)
        return ""
    try:
        address = canonical(text, delimiters)
    except Invalid as error:
        findings.invalid(error, place, key=key)
        return ""
    if address not in known and not anybody and findings.sound:
        findings.problem(place, f"{text} is in no group, so cannot decide on anything", "a member of a group", key=key)
        return ""
    return address


def short(document: Document, groups: Groups, asked: Mapping[Place, Quorum], now: datetime) -> Iterator[Problem]:
    """Warnings of quorums that the people present cannot fill, each at the absence with which it begins. ``asked``:
    every quorum of the policy, by its place."""
    coming = [absence for absence in groups.absences if not absence.over(now, groups.zone)]
    told: set[tuple[str, Place]] = set()
    for absence in sorted(coming, key=lambda a: (a.since, a.person)):
        at = max(now, datetime.combine(absence.since, time(12), groups.zone).astimezone(UTC))
        for place, quorum in asked.items():
            if not groups.elsewhere.isdisjoint(quorum.groups):
                continue  # how many there are nobody knows here
            model = OutOfHoursModel.model_validate({"from": list(quorum.groups), "each": quorum.each})
            if (absence.person, place) in told or not any(absence.person in groups.of(g) for g in model.from_):
                continue
            if not (lacks := lacking(model, {group: groups.there(group, at) for group in model.from_})):
                continue
            if lacking(model, groups):
                continue  # it is so with everybody present, and reported elsewhere
            told.add((absence.person, place))
            why = (
                "no one decides for them"
                if not groups.deputy(absence.person, at, model.from_)
                else f"{absence.deputy} decides for them"
            )
            text = (
                f"from {absence.since} to {absence.until} {'.'.join(map(str, place))} cannot be met: it {lacks}, since "
                f"{absence.person} is away and {why}"
            )
            found = document.problem(
                _place(document, absence), text, hint="a deputy who is not in a group that is already asked"
            )
            yield replace(found, severity=Severity.WARNING)


def _place(document: Document, absence: Absence) -> Place:
    """Its place in the file, or the nearest one."""
    local = absence.person.rpartition("@")[0]
    people = document.value.get("people") or {}
    key = next(
        (k for k in people if k.lower() in (absence.person, local) or k.partition("@")[0].lower() == local), None
    )
    return ("people", key, "away") if key is not None else ("people",)
