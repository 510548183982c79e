"""The data of a digest, read when it is sent, so that it has all messages of its window and each person gets one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Ledger
from smtpguard.holds.model import Hold, State, standing_votes
from smtpguard.journal.chain import utc_text
from smtpguard.journal.event import Event
from smtpguard.notices.intents import approvers
from smtpguard.notices.noticedata import nameable, reasons

SHOWN = 50
PAGE = 1000
REJECTED = 10_000
PAGES = 100  # a hundred thousand holds: beyond that the total is "at least"


async def fill(ledger: Ledger, data: Mapping[str, Any], in_force: InForce) -> Mapping[str, Any]:
    """The data of a NOTICE intent for rendering: a digest gets its messages, other data is returned unchanged.

    Raises LedgerError.
    """
    if data.get("notice") not in ("digest", "owner-digest"):
        return data
    since, until = datetime.fromisoformat(data["since"]), datetime.fromisoformat(data["until"])
    states: Counter[str] = Counter()
    undecided = refused = 0
    shown: list[dict[str, Any]] = []
    before, after_id = until, None
    for _ in range(PAGES):
        page = await ledger.holds.newest(limit=PAGE, before=before, after_id=after_id)
        for hold in page:
            if hold.held_at >= since and _concerns(hold, data, in_force):
                states[hold.state.value] += 1
                undecided += hold.state is State.WAITING and data["person"].lower() not in _voters(hold)
                if len(shown) < SHOWN:
                    shown.append(_line(hold, in_force))
        if len(page) < PAGE or page[-1].held_at < since:
            break
        before, after_id = page[-1].held_at, page[-1].hold_id
    if data["notice"] == "owner-digest":
        for event in await ledger.journal.rejected(data["first"], until, REJECTED):
            if not event.data.get("tellable", True) and data["list_name"] in event.data["lists"]:
                states[State.REJECTED.value] += 1
                refused += 1
                if len(shown) < SHOWN:
                    shown.append(_rejected(event, in_force, data["list_name"]))
    total = sum(states.values())
    return {
        **data,
        "total": total,
        "refused": refused,
        "states": dict(states),
        "undecided": undecided,
        "messages": shown,
    }


def _voters(hold: Hold) -> frozenset[str]:
    """People who need not vote on it again."""
    return frozenset(vote.approver for vote in standing_votes(hold))


def _concerns(hold: Hold, data: Mapping[str, Any], in_force: InForce) -> bool:
    if data["notice"] == "owner-digest":
        return hold.sender is None and data["list_name"] in hold.lists
    if data["role"] == "approver":
        return data["person"].lower() in approvers(hold, in_force, hold.held_at)
    return hold.sender is not None and hold.sender.lower() == data["person"].lower()


def _line(hold: Hold, in_force: InForce) -> dict[str, Any]:
    return {
        "hold_id": hold.hold_id,
        "subject": hold.subject,
        "from": hold.sender or "",
        "state": "stopped" if hold.stopped else hold.state.value,
        "held_at": utc_text(hold.held_at),
        "expires_at": utc_text(hold.expires_at),
        "reach": hold.reach,
        "reach_at_least": hold.reach_at_least,
        "lists": nameable(hold, in_force),
        "reasons": reasons(hold, in_force)[:1],
    }


def _rejected(event: Event, in_force: InForce, name: str) -> dict[str, Any]:
    """A message that was rejected at once was never held: it has no id, and does not wait."""
    return {
        "hold_id": None,
        "subject": next(iter(event.private.get("subject", ())), ""),
        "from": next(iter(event.private.get("from", ())), ""),
        "state": State.REJECTED.value,
        "held_at": utc_text(event.at),
        "expires_at": None,
        "reach": int(event.data["counts"]["reach"]),
        "reach_at_least": bool(event.data.get("reach_at_least")),
        "lists": [in_force.registry.lists[name].title or name] if name in in_force.registry.lists else [],
        "reasons": [],
    }
