"""The webhook payload of a journal entry. Pure: the same entry always gives the same payload.

It never has a body or a recipient. Writers, deciders and their comments are included only if the hook is allowed to
know persons; a list of a special category (GDPR Art. 9) is named only if the hook is allowed to know that. Data that
retention has erased meanwhile is left out.

It goes as JSON, or as a chat message with a link, for Slack's incoming webhooks or Microsoft Teams' workflows. Nothing
can be decided in the chat: the link leads to the console, where one signs in first. Anybody can write subjects and
addresses, so everything that a chat would take for markup, a link or a mention is escaped.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
    id = f"{entry.seq}-{entry.hash.hex()[:16]}"  # the same at every attempt, so that a receiver can drop repetitions
    return {"id": id, "type": topic.value, "at": utc_text(entry.time, "milliseconds"), "data": data}


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


_MOST = 500
"""The most characters of one quoted text."""


class Format(enum.Enum):
    """The format of a receiver."""

    JSON = "json"
    SLACK = "slack"
    TEAMS = "teams"


def shaped(payload: Mapping[str, Any], form: Format) -> Mapping[str, Any]:
    """The body to be sent."""
    if form is Format.JSON:
        return payload
    head, words = _said(payload["type"], payload["data"])
    url = payload["data"].get("url") or ""
    return _slack(head, words, url) if form is Format.SLACK else _teams(head, words, url)


def _slack(head: str, words: Sequence[str], url: str) -> Mapping[str, Any]:
    """https://api.slack.com/messaging/webhooks; three characters are escaped, and so no link or mention can be made."""
    lines = [f"*{_escaped(head)}*", *map(_escaped, words), *([f"<{_escaped(url)}|Look at it>"] if url else [])]
    text = "\n".join(lines)
    return {"text": text, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}]}


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\u200b{c}" if c in "*_~`" else c for c in text)


def _teams(head: str, words: Sequence[str], url: str) -> Mapping[str, Any]:
    """An Adaptive Card (schema 1.4) as a workflow posts it; a TextBlock takes some Markdown, a TextRun none."""

    def line(text: str, **more: Any) -> Mapping[str, Any]:
        return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **more}]}

    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [line(head, weight="Bolder"), *map(line, words)],
    }
    if url:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "View", "url": url}]
    return {
        "type": "message",
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        ],
    }


def _said(type_: str, data: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """A headline, and further lines."""
    match type_:
        case "message.held":
            return f"Held: {_to(data)}", _message_lines(data)
        case "message.decided":
            by = f" by {_short(data['by'])}" if data.get("by") else ""
            said = [f"“{_short(data['comment'])}”"] if data.get("comment") else []
            return f"{str(data['outcome']).capitalize()}{by}: {_to(data)}", [*_message_lines(data), *said]
        case "freeze.set" | "freeze.lifted":
            what = "Frozen" if type_ == "freeze.set" else "Lifted"
            by = f" by {_short(data['by'])}" if data.get("by") else ""
            until = [f"Until {data['until']}"] if data.get("until") else []
            return f"{what}{by}: {_frozen(data)}", [*([_short(data["reason"])] if data.get("reason") else []), *until]
        case "list.stale":
            named = _list_names(data) or "a list"
            what = f"{named} is out of date" if data.get("stale") else f"{named} could not be read"
            return what, [_short(data["problem"])] if data.get("problem") else []
        case "alarm":
            over = "Over: " if data.get("phase") == "ends" else f"{str(data.get('severity')).capitalize()}: "
            return f"{over}{_short(data['title'])}", [
                *(_short(data[name]) for name in ("says", "does", "host") if data.get(name)),
                *(
                    [f"To take it: smtpguard incident ack '{_short(data['key'])}'"]
                    if data.get("key") and data.get("phase") != "ends"
                    else []
                ),
            ]
    return type_, []


def _to(data: Mapping[str, Any]) -> str:
    reach = int(data.get("reach") or 0)
    people = f"{reach:,} {'person' if reach == 1 else 'people'}"
    return ", ".join(filter(None, (people, _list_names(data))))


def _list_names(data: Mapping[str, Any]) -> str:
    unnamed = int(data.get("unnamed_lists") or 0)
    more = f"{unnamed} {'list' if unnamed == 1 else 'lists'} of a special category" if unnamed else ""
    return ", ".join(filter(None, (*map(_short, data.get("lists") or ()), more)))


def _message_lines(data: Mapping[str, Any]) -> list[str]:
    wrote = f"From {_short(data['from'])}" if data.get("from") else ""
    about = f"“{_short(data['subject'])}”" if data.get("subject") else ""
    rules = f"Rules: {', '.join(map(_short, data['rules']))}" if data.get("rules") else ""
    return [line for line in (": ".join(filter(None, (wrote, about))), rules) if line]


def _frozen(data: Mapping[str, Any]) -> str:
    selector, value = str(data.get("selector")), data.get("value")
    if selector == "all":
        return "all mail"
    return f"{selector} {_short(value)}" if value else f"a {selector}"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """``told``: the last entry that was accepted, or skipped. ``attempts`` at the next one, failing since
    ``failing_since``, to be repeated at ``next_at``. ``lease``: fences off a process that was too slow."""

    told: int
    attempts: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """``entries`` of the wanted kinds, in order: all of them up to entry ``through``. ``end``: the journal's last
    entry."""

    entries: Sequence[tuple[Entry, Clear | None]]
    through: int
    end: int
