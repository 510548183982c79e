"""The guide to the policy for people who write mail: a page of the console, and a hand-out, one HTML file in one
language without links, pictures or scripts.

It has for each list its writers, origins, approvers and the topics it is spared; how to get a mailing approved
beforehand; what each rule stops; and what happens to a held message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Any

from smtpguard.config.quantity import Span
from smtpguard.console import labels
from smtpguard.console.messageview import topic
from smtpguard.console.rendering import environment
from smtpguard.console.rulewords import Said, in_words
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.mail.address import Address
from smtpguard.policy.absences import Groups
from smtpguard.policy.approvals import Breaker
from smtpguard.policy.models import ListModel
from smtpguard.policy.parse import Policy
from smtpguard.policy.verdict import Action, Quorum

_ELSE: Mapping[Action, str] = {
    Action.CONFIRM: N_("Otherwise you are asked to confirm it."),
    Action.HOLD: N_("Otherwise it is held."),
    Action.DEFER: N_("Otherwise it is deferred."),
    Action.REJECT: N_("Otherwise it is refused."),
}

SOON = timedelta(days=31)


def guide(policy: Policy, language: str, now: datetime, *, approve_at: str = "", waits: Span) -> str:
    """``approve_at``: the address for preapprovals, "" if there is none."""
    said = Speech(language, policy.organization.hours.zone)
    return (
        environment()
        .get_template("guide.html")
        .render(
            _=said,
            ngettext=said.ngettext,
            pgettext=said.pgettext,
            language=language,
            **guide_values(policy, said, now, approve_at=approve_at, waits=waits),
        )
    )


def guide_values(
    policy: Policy, said: Speech, now: datetime, *, approve_at: str, waits: Span, groups: Groups | None = None
) -> dict[str, Any]:
    """What the hand-out and the page share. ``groups``: with the absences that people have reported: for the page,
    which names the approvers of now. None: from the policy, for a hand-out, which names absences within a month."""
    at_once, groups = groups is not None, groups or policy.groups
    open_now = policy.organization.hours.open_at(now) if at_once else None
    lists = [
        _list(name, model, policy, groups, approve_at, said, now, open_now) for name, model in policy.lists.items()
    ]
    return {
        "organization": policy.organization.name,
        "lists": sorted(lists, key=lambda each: each["title"].lower()),
        "open_now": open_now,
        "rules": list(_rules(policy, said)),
        "breakers": list(_breakers(policy, said)),
        "enforce": policy.enforce,
        "approve_at": approve_at,
        "waits": _waits(waits, said),
        "made": said.whole(now),
        "sha256": policy.sha256,
    }


def _rules(policy: Policy, said: Speech) -> Iterator[tuple[str, str]]:
    """For each rule that stops mail its purpose, and what happens to a message that it hits."""
    for rule in policy.rules.rules:
        if not rule.observes and rule.then in _ELSE:
            words = in_words(rule, said)
            yield words.aim or _without_aim(words, said), said(_ELSE[rule.then]) if words.aim else ""


_BREAKERS: Mapping[str, tuple[str, str]] = {
    "complaints": (
        N_("{share} of those who have it complain"), N_("{n} people complain"),
    ),
    "bounces": (
        N_("{share} of those to whom it went cannot be reached"), N_("{n} people cannot be reached"),
    ),
    "replies": (
        N_("{share} of those who have it answer"), N_("{n} people answer"),
    ),
    "unsubscribes": (
        N_("{share} of those who have it unsubscribe"), N_("{n} people unsubscribe"),
    ),
}  # fmt: skip


def _breakers(policy: Policy, said: Speech) -> Iterator[str]:
    """The breakers, in words."""
    yield from _stopping(policy.breakers.each, said)
    for name, own in policy.list_breakers.items():
        title = policy.lists[name].title or name
        for what in _stopping([breaker for breaker in own.each if breaker not in policy.breakers.each], said):
            yield said("for mailings to {list}: {what}", list=title, what=what)


def _stopping(breakers: Iterable[Breaker], said: Speech) -> Iterator[str]:
    for breaker in breakers:
        limit = breaker.limit
        part, number = _BREAKERS[breaker.name]
        n = said.number(int(limit.least)) if not limit.share else ""
        share = said("{n} %", n=said.number(float(limit.least * 100))) if limit.share else ""
        what = said(part, share=share) if limit.share else said(number, n=n)
        if limit.window_seconds:
            what = said("{what} within {time}", what=what, time=said.span(timedelta(seconds=limit.window_seconds)))
        if limit.after:
            what = said("{what}, once {n} people have it", what=what, n=said.number(limit.after))
        yield what


def _without_aim(words: Said, said: Speech) -> str:
    """A rule without a purpose is described by its conditions."""
    if not words.unless:
        return said("A message {then} if {when}", then=words.then, when="; ".join(words.when))
    return said(
        "A message {then} if {when}; but not if {unless}",
        then=words.then,
        when="; ".join(words.when),
        unless="; ".join(words.unless),
    )


def _waits(waits: Span, said: Speech) -> str:
    time = said.span(timedelta(seconds=waits.seconds))
    if waits.working:
        return said("If nobody decides within {time} of working time, it is not sent, and you are notified.", time=time)
    return said("If nobody decides within {time}, it is not sent, and you are notified.", time=time)


def _list(
    name: str,
    model: ListModel,
    policy: Policy,
    groups: Groups,
    approve_at: str,
    said: Speech,
    now: datetime,
    open_now: bool | None,
) -> dict[str, Any]:
    special, category = model.special, model.category or ""
    quorums = policy.rules.quorum([name])
    late = [quorum.out_of_hours for quorum in quorums if quorum.out_of_hours is not None]
    on_duty = [quorum.out_of_hours or quorum for quorum in quorums] if open_now is False else quorums
    at = Address.parse(approve_at) if approve_at else None
    return {
        "title": model.title or name,
        "addresses": [str(address) for address in model.addresses],
        "category": said(labels.CATEGORIES[category]) if special else "",
        "writers": [str(writer) for writer in model.writers],
        "origins": list(_origins(model, said)),
        "avoid": sorted(topic(word, said) for word in model.avoid),
        "decide": list(_deciders(quorums, groups, said)),
        "late": list(_deciders(late, groups, said)),
        "now": [] if open_now is None else list(_deciders(on_duty, groups, said, now)),
        "away": list(_away([*quorums, *late], groups, said, now, timedelta() if open_now is not None else SOON)),
        "beforehand": f"{at.local}+{name}@{at.domain}" if at is not None else "",
    }


def _origins(model: ListModel, said: Speech) -> Iterator[str]:
    """Each declared kind of origin; one of each must match."""
    if model.origin is None:
        return
    if model.origin.dkim:
        yield said("signed (DKIM) by {names}", names=", ".join(model.origin.dkim))
    if model.origin.clients:
        yield said("sent from {names}", names=", ".join(map(str, model.origin.clients)))
    if model.origin.logins:
        yield said("sent with the login {names}", names=", ".join(model.origin.logins))


def _deciders(quorums: Sequence[Quorum], groups: Groups, said: Speech, now: datetime | None = None) -> Iterator[str]:
    """``now``: name those who are not away then, and deputies."""
    for quorum in quorums:
        for group in quorum.groups:
            found = groups.of(group) if now is None else groups.there(group, now)
            people = ", ".join(sorted(found)) or said("no one is present")
            yield said.ngettext(
                "{n} person of {group} ({people})",
                "{n} people of {group} ({people})",
                quorum.each,
                group=group,
                people=people,
            )


def _away(quorums: Sequence[Quorum], groups: Groups, said: Speech, now: datetime, soon: timedelta) -> Iterator[str]:
    """Approvers who are away now or within ``soon``, and their deputies."""
    asked = dict.fromkeys(group for quorum in quorums for group in quorum.groups)
    for absence in sorted(groups.absences, key=lambda a: (a.since, a.person)):
        at = now if absence.covers(now, groups.zone) else datetime.combine(absence.since, time(12), groups.zone)
        mine = [group for group in asked if absence.person in groups.of(group)]
        if not mine or absence.over(now, groups.zone) or at - now > soon:
            continue
        days = since = said.day(absence.since)
        if absence.until != absence.since:
            days = said("{since} to {until}", since=since, until=said.day(absence.until))
        deputy = groups.deputy(absence.person, at, mine)
        if deputy:
            yield said(
                "{person} is away {days}: {deputy} decides for them", person=absence.person, days=days, deputy=deputy
            )
        else:
            yield said("{person} is away {days}", person=absence.person, days=days)
