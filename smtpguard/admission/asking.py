"""Decide whether the writer of a message is asked to confirm it, and who that is. Pure.

The engine has settled what the facts say (policy.confirming). This file checks what no fact says: whether the question
would reach the mailbox of the proven person who wrote the message, and how often that person was asked lately.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpguard.admission.builtinrules import is_automatic
from smtpguard.gathering.gather import Gathered
from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.address import Address
from smtpguard.policy import confirming
from smtpguard.policy.confirming import FACT, MEANT, MEANT_SECONDS, NOT_ALONE, SYSTEM, TOO_OFTEN, UNPROVEN
from smtpguard.policy.counted import Ask, Live
from smtpguard.policy.facts import OF_SENDERS
from smtpguard.policy.verdict import Action, Mode, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """``address``: canonical; ``proof``: what proves the address: "login", "listener", or "origin"."""

    address: str
    proof: str


def writer_of(gathered: Gathered) -> Writer | Phrase:
    """The writer to ask, or the reason why nobody can be asked."""
    sender, registry = gathered.sender, gathered.in_force.registry
    why = confirming.why_not(gathered.facts.values)
    if why is not None or sender.claimed is None:
        return why or UNPROVEN
    if sender.told is None or gathered.post is not None or is_automatic(gathered.transaction):
        return SYSTEM
    if gathered.streams or registry.streams_from(sender.claimed):
        return SYSTEM
    if Address.parse(sender.told).canonical(registry.digester.delimiters) != sender.claimed:
        return UNPROVEN
    reach = gathered.everyone.reach
    if reach.low != reach.high or not gathered.facts.sizes.keys().isdisjoint(gathered.in_force.stages):
        return NOT_ALONE
    session = gathered.transaction.session
    proof = "origin" if not sender.authenticated else "login" if session.auth_user else "listener"
    return Writer(address=sender.claimed, proof=proof)


def asks_of(gathered: Gathered) -> tuple[Ask, ...]:
    """The counts of the writer that the admission reads: how often they were asked, and to which rules' questions they
    have said yes. Empty if nobody can be asked."""
    writer = writer_of(gathered)
    if isinstance(writer, Phrase):
        return ()
    rules = gathered.in_force.rules
    asking = (rule for rule in rules.rules if rule.then is Action.CONFIRM and not rule.observes)
    return (
        _asked(writer, gathered),
        *(_meant(r.rule_id, writer.address) for r in asking if any(c.fact.name in OF_SENDERS for c in r.conditions)),
    )


def _asked(writer: Writer, gathered: Gathered) -> Ask:
    """The count of questions to the writer, this one included."""
    seconds = gathered.in_force.rules.confirming.a_person.window_seconds
    return Ask(fact=FACT, key=writer.address, window_seconds=seconds)


def is_meant(verdict: Verdict, gathered: Gathered, live: Live) -> bool:
    """Whether a letter is stopped only by the number of people that its sender writes to, and the sender has confirmed
    exactly that within a week. Then the sender is not asked again until a rule holds the letter."""
    if verdict.action is not Action.CONFIRM or not gathered.facts.letter_from:
        return False
    writer = writer_of(gathered)
    hits = [h for h in verdict.hits if h.mode is Mode.ENFORCE]
    return isinstance(writer, Writer) and all(
        live.counts.get(_meant(hit.rule, writer.address), 0) > 1  # more than this message
        and any(reason.fact in OF_SENDERS for reason in hit.reasons)
        for hit in hits
    )


def _meant(rule: str, writer: str) -> Ask:
    return Ask(fact=MEANT, key=f"{writer} {rule}", window_seconds=MEANT_SECONDS)


def or_held(verdict: Verdict, gathered: Gathered, live: Live | None = None) -> Verdict:
    """The verdict, with a hold instead of a confirmation if nobody can be asked, or the writer was asked too often.
    ``live`` None: do not check how often."""
    if verdict.action is not Action.CONFIRM:
        return verdict
    writer = writer_of(gathered)
    if isinstance(writer, Phrase):
        return confirming.held(verdict, writer)
    most = gathered.in_force.rules.confirming.a_person.count
    often = live is not None and live.counts.get(_asked(writer, gathered), 0) > most
    return confirming.held(verdict, TOO_OFTEN) if often else verdict


def is_asked_of(hold: Hold | None, gathered: Gathered) -> bool:
    """Whether the message's writer is being asked about a waiting hold, so that the question can cover this message
    too."""
    if hold is None or not hold.asks_writer or hold.confirm is None:
        return False
    writer = writer_of(gathered)
    return isinstance(writer, Writer) and writer.address == hold.confirm.writer
