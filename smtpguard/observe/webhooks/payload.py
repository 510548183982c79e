"""The webhook payload of a journal entry. Pure: the same entry always gives the same payload.

It never has a body or a recipient. Writers, deciders and their comments are included only if the hook is allowed to
know persons; a list of a special category (GDPR Art. 9) is named only if the hook is allowed to know that. Data that
retention has erased meanwhile is left out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtpguard.journal.chain import Clear, Entry, utc_text
from smtpguard.journal.event import Kind

Told = Sequence[tuple[Entry, Clear | None]]


class Topic(enum.Enum):
    """The topics to which a hook can subscribe."""

    HELD = "message.held"
    DECIDED = "message.decided"
    FROZEN = "freeze.set"
    LIFTED = "freeze.lifted"
    STALE = "list.stale"


KINDS: Mapping[Topic, tuple[Kind, ...]] = {
    Topic.HELD: (Kind.VERDICT, Kind.UNCONFIRMED),
    Topic.DECIDED: (
        Kind.APPROVED,
        Kind.CONFIRMED,
        Kind.REJECTED,
        Kind.WITHDRAWN,
        Kind.EXPIRED,
        Kind.REOPENED,
        Kind.STOPPED,
    ),
    Topic.FROZEN: (Kind.FREEZE,),
    Topic.LIFTED: (Kind.THAW,),
    Topic.STALE: (Kind.LIST,),
}
_TOPICS = {kind.value: topic for topic, kinds in KINDS.items() for kind in kinds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The data that a hook may get. ``nameable``: whether a list is of no special category."""

    persons: bool = False
    special: bool = False
    nameable: Callable[[str], bool] = lambda name: True
    url: str = ""


def topic_of(entry: Entry) -> Topic | None:
    """None for an entry that no hook gets: a verdict that holds nothing new, a list that was read well, and copies. For
    a mailing of thousands of messages only the primary hold is sent."""
    topic, data = _TOPICS.get(entry.kind), entry.data
    match topic:
        case Topic.HELD if entry.kind == Kind.UNCONFIRMED.value:
            return topic
        case Topic.HELD if data.get("action") != "hold" or data.get("hold") != entry.id or data.get("retry"):
            return None
        case Topic.HELD | Topic.DECIDED if data.get("with"):
            return None
        case Topic.STALE if not (data.get("problem") or data.get("stale")):
            return None
    return topic


def payload(entry: Entry, clear: Clear | None, history: Told, allowed: Allowed) -> dict[str, Any]:
    """``history``: the entries on the same id, this one among them. Only for an entry with a topic."""
    topic = topic_of(entry)
    assert topic is not None
    data: dict[str, Any]
    match topic:
        case Topic.HELD:
            verdict = next(((e, c) for e, c in history if e.kind == Kind.VERDICT.value), (entry, clear))
            data = _message(*verdict, allowed)
        case Topic.DECIDED:
            data = _decided(entry, clear, history, allowed)
        case Topic.FROZEN | Topic.LIFTED:
            data = _freeze(entry, clear, allowed)
        case Topic.STALE:
            told = {name: entry.data.get(name) for name in ("problem", "failing_since")}
            data = {"stale": bool(entry.data.get("stale")), **told, **_lists([entry.id], allowed)}
    return {"id": event_id(entry), "type": topic.value, "at": utc_text(entry.time, "milliseconds"), "data": data}


def event_id(entry: Entry) -> str:
    """The same at every attempt, so that a receiver can drop repetitions."""
    return f"{entry.seq}-{entry.hash.hex()[:16]}"


def _message(verdict: Entry, clear: Clear | None, allowed: Allowed) -> dict[str, Any]:
    data = verdict.data
    told: dict[str, Any] = {
        "hold": verdict.id,
        "reach": int((data.get("counts") or {}).get("reach") or 0),
        "rules": list(data.get("rules") or ()),
        **_lists(data.get("lists") or (), allowed),
        "url": f"{allowed.url}/held/{verdict.id}" if allowed.url else None,
    }
    if allowed.persons:
        told |= {"from": _first(clear, "from"), "subject": _first(clear, "subject")}
    return told


def _decided(entry: Entry, clear: Clear | None, history: Told, allowed: Allowed) -> dict[str, Any]:
    verdict = next(((e, c) for e, c in history if e.kind == Kind.VERDICT.value), None)
    told = {"hold": entry.id} if verdict is None else _message(*verdict, allowed)
    told["outcome"] = entry.kind
    if allowed.persons:
        votes = [(e, c) for e, c in history if e.kind == Kind.VOTE.value and e.seq <= entry.seq]
        said = votes[-1][1] if votes and entry.kind in (Kind.APPROVED.value, Kind.REJECTED.value) else clear
        told |= {"by": _first(said, "actor"), "comment": _first(said, "comment")}
    return told


def _freeze(entry: Entry, clear: Clear | None, allowed: Allowed) -> dict[str, Any]:
    data = entry.data
    selector = data.get("selector")
    value = data.get("value")
    if selector == "list" and value and not (allowed.special or allowed.nameable(str(value))):
        value = None
    told = {"freeze": entry.id, "selector": selector, "value": value, "until": data.get("until")}
    if allowed.persons:
        told |= {"by": _first(clear, "actor"), "reason": _first(clear, "comment")}
        if selector == "sender":
            told["value"] = _first(clear, "from")
    return told


def _lists(names: Sequence[str], allowed: Allowed) -> dict[str, Any]:
    """The lists that may be named, and the number of the others."""
    named = [name for name in names if allowed.special or allowed.nameable(name)]
    return {"lists": named, "unnamed_lists": len(names) - len(named)}


def _first(clear: Clear | None, role: str) -> str | None:
    values = (clear or {}).get(role)
    return str(values[0])[:500] if values else None
