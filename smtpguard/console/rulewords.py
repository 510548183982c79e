"""A policy in words: what each rule checks, and the guide for people who write mail.

A condition is written as "what it looks at: what it asks for", so that any fact and any limit can be put in any language. The value
that a rule saw in a message is written the same way, from the journal. The guide is a page of the console, and a hand-out: one HTML
file in one language without links, pictures or scripts. It has for each list its writers, origins, approvers and the topics it is
spared; how to get a mailing approved beforehand; what each rule stops; and what happens to a held message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from smtpguard.config.durations import Span, seconds
from smtpguard.config.problem import Invalid
from smtpguard.console import labels
from smtpguard.console.rendering import environment
from smtpguard.locale.phrase import N_, span
from smtpguard.locale.speech import Speech
from smtpguard.mail.address import Address
from smtpguard.policy import facts, freezing
from smtpguard.policy import rule as rules
from smtpguard.policy.approvals import Groups
from smtpguard.policy.condition import Condition, EveryWord, SomeWord
from smtpguard.policy.facts import Type
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.models import ListModel
from smtpguard.policy.parse import Policy
from smtpguard.policy.rule import Rule
from smtpguard.policy.stages import Breaker
from smtpguard.policy.verdict import Action, Quorum
from smtpguard.reading.topics import TOPICS, topic_name

FACTS: Mapping[str, str] = {name: fact.label for name, fact in facts.FACTS.items()}
_ANY_NONE: Mapping[str, str] = {"any": N_("any"), "none": N_("none")}
_TRUTHS: Mapping[str, str] = {"true": N_("yes"), "false": N_("no")}
FACT_WORDS: Mapping[str, str] = {word: said for fact in facts.FACTS.values() for word, said in fact.called.items()}
BUILT_IN_FACTS: Mapping[str, str] = {
    FREEZE: N_("what is frozen"),
    "stream.messages": N_("messages of the system"),
    "delivery.in_doubt": N_("an earlier attempt may have reached the list"),
    "message.reports_to": N_("lists that reports on its delivery would go to"),
    "approval.asked": N_("it was sent for approval beforehand"),
    "confirm.not-asked": N_("others decide instead of its writer"),
    "mailing.messages": N_("messages of the mailing until then"),
    "mailing.sent": N_("people whose copies of the mailing had passed before"),
    "mailing.rejected": N_("the mailing was rejected"),
    "sender.waits": N_("other letters of its sender are held with it"),
    "mailing.waits": N_("other copies of it are held"),
    "mailing.copies": N_("copies that are held"),
    "mailing.differs": N_("difference from the approved copies"),
    "mailing.correction": N_("recipients whom the correction is not for"),
    "mailing.stage": N_("progress of the mailing"),
}
"""The facts of the built-in rules, which no policy asks for."""
AIMS: Mapping[str, str] = {FREEZE: freezing.AIM, **rules.AIMS}
"""The purposes of the built-in rules."""
_PROGRESS: Mapping[str, str] = {"running": N_("going"), "paused": N_("pausing"), "stopped": N_("stopped")}
_FORMS: Mapping[str, str] = {
    "one of group ": N_("a member of group {what}"),
    "all match ": N_("all match the pattern {what}"),
    "matches ": N_("matches the pattern {what}"),
}
_STAGE = re.compile(rf"({'|'.join(_PROGRESS)}) after stage (\d+) of (\d+)\Z")
ACTIONS: Mapping[Action, str] = {
    Action.RELAY: N_("is relayed"),
    Action.CONFIRM: N_("waits, and its writer is asked"),
    Action.HOLD: N_("is held"),
    Action.DEFER: N_("is deferred"),
    Action.REJECT: N_("is refused"),
}
_CALLS = N_("alerts a person")
_OPERATORS: Mapping[str, str] = {
    ">=": N_("at least {n}"),
    "<=": N_("at most {n}"),
    ">": N_("more than {n}"),
    "<": N_("less than {n}"),
}
_ELSE: Mapping[Action, str] = {
    Action.CONFIRM: N_("Otherwise you are asked to confirm it."),
    Action.HOLD: N_("Otherwise it is held."),
    Action.DEFER: N_("Otherwise it is deferred."),
    Action.REJECT: N_("Otherwise it is refused."),
}
"""What a rule does otherwise, where its purpose is given."""
_SOON = timedelta(days=31)
"""How far ahead the hand-out names absences."""
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
"""What a breaker counts: as a share, and as a number of people."""
_FIGURE = r"(?:[\d_.,]+(?:e[+-]?\d+)?)(?:\s*%)?"
_COMPARED = re.compile(rf"(>=|<=|==|=|>|<)?\s*({_FIGURE})(?:\s+in\s+(.+))?\Z")
_BETWEEN = re.compile(rf"(?:between\s+)?({_FIGURE})\s+(?:and|to)\s+({_FIGURE}|inf(?:\s*%)?)(?:\s+in\s+(.+))?\Z")
_BETWEEN_PERCENT = re.compile(rf"(?<=between )({_FIGURE}) and(?=.*%)")
_NARROWED = re.compile(
    r"(.+?)(?: and more than x([\d.]+) the usual)?(?: on one list of (.+?))?( with the same mailing)?\Z"
)
_LISTED = re.compile(r"(, | or )")
_FIGURES = frozenset({Type.COUNT, Type.SHARE})
_SAYS = {
    (Type.TRUTH, "true"): "yes", (Type.TRUTH, "false"): "no", (Type.WORDS, "any"): "some", (Type.WORDS, "none"): "none",
    (Type.COUNT, "any"): "many", (Type.COUNT, "none"): "none",
}  # fmt: skip
"""Which sentence of a fact (policy.facts.Fact.says) a limit asks for, by the fact's type and the limit."""
_COUNTS_ONE = re.compile(r"\bone\b|\{n\}", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleText:
    """One rule in words. It hits if all conditions in ``when`` are true, but not if all in ``unless`` are."""

    id: str
    aim: str
    when: tuple[str, ...]
    unless: tuple[str, ...]
    then: str
    observes: bool


def rule_in_words(rule: Rule, said: Speech) -> RuleText:
    own = rule.descriptions.get(said.language) or rule.description
    return RuleText(
        id=rule.rule_id,
        aim=own,
        when=tuple(condition_in_words(c, said) for c in rule.when),
        unless=tuple(condition_in_words(c, said) for c in rule.unless),
        then=said(_CALLS if rule.calls else ACTIONS[rule.then]),
        observes=rule.observes and not rule.alarm,
    )


def condition_in_words(asked: Condition, said: Speech) -> str:
    """Return a condition in words: the fact's own sentence if it has one for this limit ("it is addressed to a customer list"), else
    the fact's label and the limit ("customers that it reaches: at least 20")."""
    whole = not isinstance(asked, SomeWord | EveryWord)  # in a list, "any" is a word as others are
    sentence = asked.fact.says.get(_SAYS.get((asked.fact.type, asked.limit), ""), "") if whole else ""
    if isinstance(sentence, tuple):  # of a number: only if it is said of one without counting it
        sentence = "" if _COUNTS_ONE.search(sentence[0]) else said.ngettext(*sentence, 1)
    if sentence:
        words = said(sentence)
        return words[:1].lower() + words[1:]
    return f"{fact_in_words(asked.fact.name, said)}: {limit_in_words(asked.fact.name, asked.limit, said)}"


def fact_in_words(name: str, said: Speech) -> str:
    """Return what a condition looks at. A fact of another version is shown by its name."""
    words = FACTS.get(name) or BUILT_IN_FACTS.get(name)
    return said(words) if words else name


def limit_in_words(name: str, text: str, said: Speech) -> str:
    """Return a limit on the fact ``name`` in words, from the text of policy.grammar: ">= 300 in 1h" as "at least 300 in 1 hour"."""
    known = facts.FACTS.get(name)
    if known is None or known.type in _FIGURES:
        return _figures(text, said, share=_is_share(name)) or _words(name, text, said)
    if known.type is Type.NETWORK and text.startswith("in "):
        return said("in {what}", what=_words(name, text.removeprefix("in "), said))
    for form, words in _FORMS.items():
        if text.startswith(form):
            return said(words, what=text.removeprefix(form))
    if text.startswith("only "):
        return said("only {words}", words=_words(name, text.removeprefix("only "), said))
    return _words(name, text, said)


def value_in_words(name: str, text: str, said: Speech) -> str:
    """Return a value of the fact ``name`` in words, from the journal's text (policy.condition.journal_text, and built-in rules)."""
    if text.startswith("unknown"):
        why = text.removeprefix("unknown").strip().removeprefix("(").removesuffix(")")
        return said("unknown ({why})", why=why) if why else said("unknown")
    if name == FREEZE:
        selector, _, value = text.partition(" ")
        named = labels.SELECTORS.get(selector, "")
        return said(named, name=value or "\N{HORIZONTAL ELLIPSIS}") if named else text
    if stage := _STAGE.match(text):
        return said("{how} after stage {n} of {all}", how=said(_PROGRESS[stage[1]]), n=stage[2], all=stage[3])
    if text == "at rest":
        return said("at rest")
    if _is_share(name):  # its first figure is in percent too: "between 10 and 50 %"
        text = _BETWEEN_PERCENT.sub(r"\1 % and", text)
    return limit_in_words(name, text, said)


def _is_share(name: str) -> bool:
    return name in facts.FACTS and facts.FACTS[name].type is Type.SHARE


def _figures(text: str, said: Speech, *, share: bool) -> str:
    """Return a comparison or a count in words, "" for anything else."""
    narrowed = _NARROWED.match(text)
    if narrowed and any(narrowed.groups()[1:]):
        much = _figures(narrowed[1], said, share=share)
        if much and narrowed[3]:
            lists = _words("recipients.sensitivity", narrowed[3], said)
            much = said("{much} on one list of {lists}", much=much, lists=lists)
        if much and narrowed[4]:
            much = said("{much} who were sent the same mailing", much=much)
        if much and narrowed[2]:
            much = said(
                "{much} and more than {times} times what is usual", much=much, times=said.number(float(narrowed[2]))
            )
        return much
    if found := _BETWEEN.match(text):
        low, high, window = found.groups()
        if high.startswith("inf"):
            much = said("at least {n}", n=_figure(low, said, share))
        else:
            much = said("between {low} and {high}", low=_figure(low, said, share), high=_figure(high, said, share))
    elif found := _COMPARED.match(text):
        sign, figure, window = found.groups()
        n = _figure(figure, said, share)
        much = said(_OPERATORS[sign], n=n) if sign in _OPERATORS else n
    else:
        return ""
    if not window:
        return much
    try:
        time = span(seconds(window), said)  # as a policy has it: "10m", "2h 30m", "3600 s"
    except Invalid:
        time = window
    return said("{much} in {time}", much=much, time=time)


def _figure(text: str, said: Speech, share: bool) -> str:
    """Return a number in words. A share is given as a fraction of 1, or in percent."""
    n = float(text.rstrip("% ").replace("_", "").replace(",", ""))
    if text.endswith("%"):
        return f"{said.number(n)} %"
    return f"{said.number(round(n * 100, 2))} %" if share else said.number(n)


def _words(name: str, text: str, said: Speech) -> str:
    """Translate words between commas and "or". Names from the policy are not translated."""
    known = facts.FACTS.get(name)
    if known is None:
        ours: Mapping[str, str] = {**_TRUTHS, **FACT_WORDS}
    elif name in facts.OF_TOPICS:
        ours = TOPICS
    else:
        ours = _TRUTHS if known.type is Type.TRUTH else known.called
    parts = _LISTED.split(text)
    for n, part in enumerate(parts):
        if part == " or ":
            parts[n] = " " + said("or") + " "
        elif word := ours.get(part) or _ANY_NONE.get(part):
            parts[n] = said(word)
    return "".join(parts)


def guide(policy: Policy, language: str, now: datetime, *, approve_at: str = "", waits: Span) -> str:
    """Return the hand-out as HTML. ``approve_at``: the address for preapprovals, "" if there is none."""
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
    """Return the values that the hand-out and the page share. ``groups``: with the absences that people have reported, for the page,
    which names the approvers of now; None for a hand-out, which takes the policy's groups and names absences within a month."""
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
    """Yield the purpose of each rule that stops mail, and what happens to a message that it hits."""
    for rule in policy.rules.rules:
        if not rule.observes and rule.then in _ELSE:
            words = rule_in_words(rule, said)
            yield words.aim or _without_aim(words, said), said(_ELSE[rule.then]) if words.aim else ""


def _breakers(policy: Policy, said: Speech) -> Iterator[str]:
    yield from _stopping(policy.breakers.each, said)
    for name, model in policy.lists.items():
        own = policy.breakers_of([name]).each
        for what in _stopping([breaker for breaker in own if breaker not in policy.breakers.each], said):
            yield said("for mailings to {list}: {what}", list=model.title or name, what=what)


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


def _without_aim(words: RuleText, said: Speech) -> str:
    """Describe a rule without a purpose by its conditions."""
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
        "avoid": sorted(said.say(topic_name(word)) for word in model.avoid),
        "decide": list(_deciders(quorums, groups, said)),
        "late": list(_deciders(late, groups, said)),
        "now": [] if open_now is None else list(_deciders(on_duty, groups, said, now)),
        "away": list(_away([*quorums, *late], groups, said, now, timedelta() if open_now is not None else _SOON)),
        "beforehand": f"{at.local}+{name}@{at.domain}" if at is not None else "",
    }


def _origins(model: ListModel, said: Speech) -> Iterator[str]:
    """Yield each declared kind of origin. One of each kind must match."""
    if model.origin is None:
        return
    if model.origin.dkim:
        yield said("signed (DKIM) by {names}", names=", ".join(model.origin.dkim))
    if model.origin.clients:
        yield said("sent from {names}", names=", ".join(map(str, model.origin.clients)))
    if model.origin.logins:
        yield said("sent with the login {names}", names=", ".join(model.origin.logins))


def _deciders(quorums: Sequence[Quorum], groups: Groups, said: Speech, now: datetime | None = None) -> Iterator[str]:
    """Yield how many people of each group decide, with their names. ``now``: name only people who are not away then, and
    deputies."""
    for quorum in quorums:
        for group in quorum.groups:
            found = groups.of(group) if now is None else groups.present(group, now)
            people = ", ".join(sorted(found)) or said("no one is present")
            yield said.ngettext(
                "{n} person of {group} ({people})",
                "{n} people of {group} ({people})",
                quorum.each,
                group=group,
                people=people,
            )


def _away(quorums: Sequence[Quorum], groups: Groups, said: Speech, now: datetime, soon: timedelta) -> Iterator[str]:
    """Yield the approvers who are away now or within ``soon``, with their deputies."""
    asked = dict.fromkeys(group for quorum in quorums for group in quorum.groups)
    for absence in sorted(groups.absences, key=lambda a: (a.since, a.person)):
        at = now if absence.covers(now, groups.zone) else datetime.combine(absence.since, time(12), groups.zone)
        mine = [group for group in asked if absence.person in groups.of(group)]
        if not mine or absence.is_over(now, groups.zone) or at - now > soon:
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
