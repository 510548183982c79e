"""Complete a notice about a decision when it is sent: the state may have changed while a relay outage or a freeze
delayed it.

A notice of an approval that was revoked meanwhile is not sent; while a freeze stops the message, it does not say "go
now".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Ledger
from smtpguard.holds.model import LET_GO, SENDING, Hold, State, held_up_by
from smtpguard.journal.chain import utc_text
from smtpguard.notices.noticedata import nameable
from smtpguard.policy.freezing import Freeze, Selector


async def fill(ledger: Ledger, data: Mapping[str, Any], in_force: InForce, now: datetime) -> Mapping[str, Any] | None:
    """The data of a NOTICE intent for rendering: only a decision's changes. None: it is no longer true, and another
    notice replaces it. Raises LedgerError."""
    if data["notice"] not in ("decided", "doubt"):
        return data
    hold = await ledger.holds.find(data["hold_id"])
    if hold is None:
        return data
    if data["notice"] == "doubt":
        return data if hold.asked_at is not None else None
    match data["outcome"]:
        case "approved" if hold.state is State.WAITING and hold.release_at is not None:
            stopped = held_up_by(hold, (await ledger.gate.read()).freezes, now)
            return {**data, "frozen": rows(stopped, hold, in_force), "release_at": utc_text(hold.release_at)}
        case "approved" | "confirmed" if hold.state in SENDING and hold.state is not State.IN_DOUBT:
            stopped = held_up_by(hold, (await ledger.gate.read()).freezes, now)
            return {**data, "frozen": rows(stopped, hold, in_force)}
        case "approved" | "confirmed" if hold.state is State.RELEASED and not hold.stopped:
            return {**data, "sent": True}
        case "approved" | "confirmed" if hold.state is State.GRANTED:
            return {**data, "test": True}
        case "approved" | "confirmed" if hold.state in LET_GO and not hold.stopped:  # a DSN reports its result
            return data
        case "approved" | "confirmed":
            return None
        case "reopened" | "lapsed" if hold.state is not State.WAITING or hold.release_at is not None:
            return None
        case "released" if hold.state is not State.RELEASED or hold.stopped:
            return None
    return data


def rows(freezes: Iterable[Freeze], hold: Hold, in_force: InForce) -> list[dict[str, Any]]:
    """Freezes as a notice shows them: ``list`` only if it may be named to this reader, and never the reason, which is
    for users of the console."""
    named = nameable(hold, in_force)
    lists = in_force.registry.lists
    return [
        {
            "selector": freeze.selector.value,
            "list": title
            if freeze.selector is Selector.LIST
            and (title := (lists[freeze.value].title or freeze.value) if freeze.value in lists else freeze.value)
            in named
            else None,
            "by": freeze.by,
            "since": utc_text(freeze.at),
            "until": utc_text(freeze.until) if freeze.until is not None else None,
        }
        for freeze in freezes
    ]
