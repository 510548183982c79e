"""A webhook's payload as a chat message with a link, for Slack's incoming webhooks or Microsoft Teams' workflows.

Nothing can be decided in the chat: the link leads to the console, where one signs in first. Anybody can write subjects
and addresses, so everything that a chat would take for markup, a link or a mention is escaped.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

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
            return f"Held: {_to(data)}", _message(data)
        case "message.decided":
            by = f" by {_short(data['by'])}" if data.get("by") else ""
            said = [f"“{_short(data['comment'])}”"] if data.get("comment") else []
            return f"{str(data['outcome']).capitalize()}{by}: {_to(data)}", [*_message(data), *said]
        case "freeze.set" | "freeze.lifted":
            what = "Frozen" if type_ == "freeze.set" else "Lifted"
            by = f" by {_short(data['by'])}" if data.get("by") else ""
            until = [f"Until {data['until']}"] if data.get("until") else []
            return f"{what}{by}: {_frozen(data)}", [*([_short(data["reason"])] if data.get("reason") else []), *until]
        case "list.stale":
            named = _lists(data) or "a list"
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
    return ", ".join(filter(None, (people, _lists(data))))


def _lists(data: Mapping[str, Any]) -> str:
    unnamed = int(data.get("unnamed_lists") or 0)
    more = f"{unnamed} {'list' if unnamed == 1 else 'lists'} of a special category" if unnamed else ""
    return ", ".join(filter(None, (*map(_short, data.get("lists") or ()), more)))


def _message(data: Mapping[str, Any]) -> list[str]:
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
