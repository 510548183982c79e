"""A rule with ``confirm`` asks the proven writer of the message to confirm it. If the writer is not proven, it is held.

Unusual mail that is probably intended needs no approver: its writer confirms it. There are three conditions: the writer
is proven, membership of the lists says nothing about people, and it is not so frequent that it becomes a habit. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field

from smtpguard.config.durations import Rate, RateField, Seconds
from smtpguard.config.validation import Section
from smtpguard.locale.phrase import Phrase
from smtpguard.policy.facts import Facts, Source, Value
from smtpguard.policy.verdict import Action, Mode, Reason, Verdict

FACT = "sender.confirms"
"""The count of how often a person was asked. No rule uses it."""
MEANT = "sender.meant"
"""The count of confirmations of letters to new customers, by the rules that asked."""
MEANT_SECONDS = 7 * 86_400
"""How long they are not asked about these again."""
NOT_ASKED = "confirm.not-asked"
"""The fact of the reason why approvers decide instead."""
NEEDED: Mapping[str, Source] = {
    "sender.internal": Source.HEADERS, "message.automatic": Source.HEADERS, "sender.proven": Source.ORIGIN, "stream": Source.ORIGIN,
}  # fmt: skip
"""Facts that say whether its writer can be asked, and their sources."""
UNPROVEN = Phrase("Nothing proves who wrote it, so that others decide instead of its writer.")
SYSTEM = Phrase("It comes from a system, so that people decide instead of its writer.")
NOT_ALONE = Phrase("Its writer alone cannot release it.")
OTHERS = Phrase("Others decide already on what it waits with.")
TOO_OFTEN = Phrase("Its writer has been asked so often lately that others decide.")


class ConfirmModel(Section):
    within: Seconds = Field(default=4 * 3600, json_schema_extra={"default": "4h"})
    a_person: RateField = Field(default=Rate(3, 7 * 86400), json_schema_extra={"default": "3 in 7d"})


def why_not(values: Mapping[str, Value]) -> Phrase | None:
    """Return why its writer cannot be asked; None if they can. An unknown fact counts against it."""
    if values.get("sender.proven") is not True or values.get("sender.internal") is not True:
        return UNPROVEN
    if values.get("stream") != frozenset() or values.get("message.automatic") is not False:
        return SYSTEM
    kinds = values.get("recipients.sensitivity")
    return None if isinstance(kinds, frozenset) and "special-category" not in kinds else NOT_ALONE


def or_held(verdict: Verdict, facts: Facts) -> Verdict:
    """Return the verdict, with a hold in place of a confirmation if the writer cannot be asked."""
    if verdict.action is not Action.CONFIRM:
        return verdict
    why = why_not(facts.values)
    return verdict if why is None else held(verdict, why)


def held(verdict: Verdict, why: Phrase) -> Verdict:
    """Return the verdict with a hold in place of a confirmation."""
    reason = Reason(fact=NOT_ASKED, observed="true", limit="", public=why)
    hits = tuple(
        replace(hit, action=Action.HOLD, reasons=(*hit.reasons, reason))
        if hit.mode is Mode.ENFORCE and hit.action is Action.CONFIRM
        else hit
        for hit in verdict.hits
    )
    return replace(verdict, action=max(verdict.action, Action.HOLD), hits=hits)
