"""The policy's rules as people read them: what each asks, in words.

A condition is said as "what it looks at: what is asked of it", so that any fact and any limit can be told in any language.
Never here: the rules (policy), or what they saw in a message (policy.sentence).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from smtpguard.console.speech import Speech
from smtpguard.mail import swedish
from smtpguard.policy.condition import Condition
from smtpguard.policy.facts import Type
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action

FACTS: Mapping[str, str] = {
    "message.looks": "what the message looks like",
    "message.correspondence": "it is correspondence with a few who all stand in To or Cc",
    "message.topics": "topics in it",
    "message.unsuitable_topics": "topics in it that the audience is to be spared",
    "message.readable": "its text can be read",
    "message.labels": "labels of confidentiality",
    "message.automatic": "it is an automatic message",
    "message.size_mb": "its size in MiB",
    "recipients.total": "recipients",
    "recipients.internal": "colleagues among the recipients",
    "recipients.outside": "recipients who are on no list",
    "recipients.list_addresses": "lists that it is addressed to",
    "recipients.members": "recipients who are on a list themselves",
    "recipients.customers": "customers that it reaches",
    "recipients.undisclosed": "customers whom neither To nor Cc shows",
    "recipients.lists": "lists that it touches",
    "recipients.audience": "audiences that it reaches",
    "recipients.sensitivity": "sensitivity of the lists that it touches",
    "recipients.reach": "people that it reaches",
    "recipients.share": "share of a list that it reaches",
    "mailing.customers": "customers that the same mailing reaches",
    "mailing.reach": "people that the same mailing reaches",
    "mailing.share": "share of a list that the same mailing reaches",
    "mailing.approved": "the mailing is approved",
    "stream": "a system whose mail is approved beforehand",
    "sender.address": "its From",
    "sender.internal": "its From is a colleague's",
    "sender.proven": "its sender is proven",
    "sender.is_writer": "its sender may write to every list that it is addressed to",
    "sender.customers": "customers that its sender wrote to",
    "list.customers": "people of one list who were written to",
    "thread.replies": "messages in the conversation",
    "thread.reach": "people that the conversation reaches",
}
WORDS: Mapping[str, str] = {
    "internal": "mail between colleagues",
    "mailing": "a mailing",
    "unclear": "unclear",
    "any": "any",
    "none": "none",
    "true": "yes",
    "false": "no",
    "yes": "yes",
    "unreadable": "unreadable",
    "too-complex": "too complex",
    "special-category": "special category",
    "normal": "normal",
}
ACTIONS: Mapping[Action, str] = {
    Action.RELAY: "is sent on",
    Action.HOLD: "is held",
    Action.DEFER: "is put off",
    Action.REJECT: "is refused",
}
_COMPARED = re.compile(r"(>=|<=|>|<|=)?\s*([\d_.,]+)(?:\s+in\s+(\w+))?\Z")
OPERATORS: Mapping[str, str] = {">=": "at least {n}", "<=": "at most {n}", ">": "more than {n}", "<": "less than {n}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One rule. ``when``: all must be so; ``unless``: not if all of these are."""

    id: str
    aim: str
    when: tuple[str, ...]
    unless: tuple[str, ...]
    then: str
    observes: bool


def in_words(rule: Rule, said: Speech) -> Said:
    own = rule.descriptions.get(said.language) or rule.descriptions.get("") or rule.description
    return Said(
        id=rule.rule_id,
        aim=swedish.description(own) if said.language == "sv" else own,
        when=tuple(condition(c, said) for c in rule.when),
        unless=tuple(condition(c, said) for c in rule.unless),
        then=said(ACTIONS[rule.then]),
        observes=rule.observes,
    )


def condition(asked: Condition, said: Speech) -> str:
    name = asked.fact.name
    figure = asked.limit
    if asked.fact.type is Type.SHARE and (found := _COMPARED.match(figure)):
        share = f"{said.number(round(float(found[2].replace('_', '')) * 100, 2))} %"
        return f"{said(FACTS[name])}: {said(OPERATORS[found[1]], n=share) if found[1] in OPERATORS else share}"
    return f"{said(FACTS[name]) if name in FACTS else name}: {limit(figure, said)}"


def limit(text: str, said: Speech) -> str:
    """ ">= 300 in 1h" as "at least 300 in 1 hour"; "internal or unclear" word by word; anything else as it is written."""
    if found := _COMPARED.match(text):
        sign, figure, window = found.groups()
        n = said.number(float(figure.replace("_", "").replace(",", "")))
        compared = said(OPERATORS[sign], n=n) if sign in OPERATORS else n
        if window:
            length = swedish.spelled_window(window, swedish=said.language == "sv")
            return said("{much} in {time}", much=compared, time=length)
        return compared
    words = text.split(" or ")
    if all(word in WORDS for word in words):
        return f" {said('or')} ".join(said(WORDS[word]) for word in words)
    return text
