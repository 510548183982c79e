"""Freezes, as a verdict and a release meet them: which one stops a message, or may, and the hit that it makes.

A freeze looks at what a message is, whatever the rules say; one that nobody can say it does not mean stops the message too.
What is held is known, and ``stopped_by`` is the one answer to whether it may go now. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from smtpguard.admission.model import Freeze, Live, Selector
from smtpguard.holds.model import Hold
from smtpguard.policy.facts import Facts, Unknown
from smtpguard.policy.verdict import Action, Hit, Reason

FREEZE = "freeze"
"""The id of the hit that a freeze makes; no rule may have it."""

DEFERRED = "Mail is being stopped at the moment, and waits until people let it go on."
HELD = "Mail like this is being stopped at the moment. It waits until people decide on it, also when other mail goes on again."

_TOLD_BY = {Selector.SENDER: "sender.address", Selector.LIST: "recipients.lists", Selector.THREAD: "sender.address"}
"""The fact without which nobody knows whether a freeze of that kind means a message."""


def stopped_by(
    freezes: Iterable[Freeze],
    *,
    lists: Iterable[str],
    senders: frozenset[str],
    mailing: str,
    thread: str,
    now: datetime,
) -> tuple[Freeze, ...]:
    """Those that stop a message with these properties. It goes when all of them are lifted."""
    touched = frozenset(lists)
    return tuple(f for f in freezes if f.stops(lists=touched, senders=senders, mailing=mailing, thread=thread, now=now))


def held_up_by(hold: Hold, freezes: Iterable[Freeze], now: datetime) -> tuple[Freeze, ...]:
    """Those that keep a held message from going, whether it is approved or will be."""
    return stopped_by(
        freezes, lists=hold.lists, senders=hold.senders, mailing=hold.mailing_id, thread=hold.thread, now=now
    )


def frozen(facts: Facts, live: Live, answer: Action) -> tuple[Freeze, Hit] | None:
    """The first freeze that stops it, or that nobody can say does not; the strictest first. ``answer``: HOLD or DEFER, where the freeze
    itself does not say."""
    mailing = live.mailing.mailing_id if live.mailing is not None else ""
    freezes = sorted(live.freezes, key=lambda freeze: not freeze.defers)
    certain = stopped_by(
        freezes, lists=facts.lists, senders=facts.senders, mailing=mailing, thread=facts.thread, now=live.now
    )
    if certain:
        return certain[0], _hit(certain[0], answer, uncertain=False)
    for freeze in freezes:
        if _may_stop(freeze, facts, live):
            return freeze, _hit(freeze, answer, uncertain=True)
    return None


def _may_stop(freeze: Freeze, facts: Facts, live: Live) -> bool:
    if freeze.until is not None and live.now >= freeze.until:
        return False
    name = _TOLD_BY.get(freeze.selector)
    return name is not None and (name not in facts.values or isinstance(facts.values[name], Unknown))


def _hit(freeze: Freeze, answer: Action, *, uncertain: bool) -> Hit:
    """What is held by it waits for people's decision, and goes on by no thaw; they read why somebody froze,
    where that surely means them. What is deferred comes again by itself, and its answer goes to whatever client there is."""
    answer = Action.DEFER if freeze.defers else answer
    what = " ".join(part for part in (freeze.selector.value, freeze.value) if part)
    # what is observed is chained for good, so whom it names only the detail says
    named = freeze.selector is Selector.SENDER
    reason = Reason(
        fact=FREEZE,
        observed=freeze.selector.value if named else what,
        limit="",
        public=_held("" if uncertain else freeze.reason) if answer is Action.HOLD else DEFERRED,
        detail=f"frozen ({what}) by {freeze.by} at {freeze.at:%Y-%m-%dT%H:%M:%SZ}: {freeze.reason}",
    )
    return Hit(rule=FREEZE, action=answer, description="A freeze is in force", reasons=(reason,), uncertain=uncertain)


def _held(reason: str) -> str:
    return f"{HELD} The reason given: {reason.strip().rstrip('.')}." if reason.strip() else HELD
