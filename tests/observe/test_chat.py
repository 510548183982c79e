"""A webhook's payload in the form that chats take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from smtpguard.observe.webhooks.payload import Format, shaped

HELD = {"hold": "T1", "reach": 412318, "rules": ["internal-to-list"], "lists": ["news"], "unnamed_lists": 1,
        "url": "https://guard.example.com/held/T1"}  # fmt: skip
PERSONAL = HELD | {"from": "anna@example.com", "subject": "SV: Dieten"}
FREEZE = {"freeze": "F1", "selector": "all", "value": None, "until": None}


def payload(type_: str, data: Mapping[str, Any], form: Format) -> Mapping[str, Any]:
    return shaped({"id": "7-a3", "type": type_, "at": "2026-11-25T04:31:17.683Z", "data": data}, form)


def slack(type_: str, data: Mapping[str, Any]) -> list[str]:
    body = payload(type_, data, Format.SLACK)
    [block] = body["blocks"]
    assert block["text"] == {"type": "mrkdwn", "text": body["text"], "verbatim": True}
    return str(body["text"]).split("\n")


def teams(type_: str, data: Mapping[str, Any]) -> tuple[list[str], list[Mapping[str, Any]]]:
    [attachment] = payload(type_, data, Format.TEAMS)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}, "plain text has no Markdown"
    return ["".join(run["text"] for run in block["inlines"]) for block in card["body"]], card.get("actions", [])


@pytest.mark.parametrize(
    ("type_", "data", "lines"),
    [
        ("message.held", HELD, ["Held: 412,318 people, news, 1 list of a special category", "Rules: internal-to-list"]),
        ("message.held", HELD | {"reach": 1, "lists": [], "unnamed_lists": 0, "rules": []}, ["Held: 1 person"]),
        ("message.held", PERSONAL, ["Held: 412,318 people, news, 1 list of a special category",
                                    "From anna@example.com: “SV: Dieten”", "Rules: internal-to-list"]),
        ("message.decided", PERSONAL | {"outcome": "rejected", "by": "eva@example.com", "comment": "Wrong list"},
         ["Rejected by eva@example.com: 412,318 people, news, 1 list of a special category",
          "From anna@example.com: “SV: Dieten”", "Rules: internal-to-list", "“Wrong list”"]),
        ("message.decided", {"hold": "T1", "outcome": "expired"}, ["Expired: 0 people"]),
        ("freeze.set", FREEZE | {"by": "eva@example.com", "reason": "It goes wrong", "until": "2026-11-25T06:00:00Z"},
         ["Frozen by eva@example.com: all mail", "It goes wrong", "Until 2026-11-25T06:00:00Z"]),
        ("freeze.lifted", FREEZE | {"selector": "list", "value": "news"}, ["Lifted: list news"]),
        ("freeze.set", FREEZE | {"selector": "list"}, ["Frozen: a list"]),
        ("list.stale", {"lists": ["news"], "unnamed_lists": 0, "stale": True, "problem": None}, ["news is out of date"]),
        ("list.stale", {"lists": [], "unnamed_lists": 1, "stale": False, "problem": "no answer"},
         ["1 list of a special category could not be read", "no answer"]),
        ("alarm", {"title": "The relay is away", "severity": "critical", "phase": "begins", "says": "No answer.", "does": None, "host": "mx1"},
         ["Critical: The relay is away", "No answer.", "mx1"]),
        ("alarm", {"title": "The relay is away", "severity": "critical", "phase": "ends", "host": "mx1"},
         ["Over: The relay is away", "mx1"]),
    ],
)  # fmt: skip
def test_an_event_is_shown_in_each_chats_format(type_: str, data: Mapping[str, Any], lines: list[str]) -> None:
    url = data.get("url")
    assert slack(type_, data) == [f"*{lines[0]}*", *lines[1:], *([f"<{url}|Look at it>"] if url else [])]
    said, actions = teams(type_, data)
    assert said == lines
    assert [(action["type"], action["url"]) for action in actions] == ([("Action.OpenUrl", url)] if url else [])


@pytest.mark.parametrize("form", Format)
def test_json_is_sent_unchanged(form: Format) -> None:
    payload = {"id": "7-a3", "type": "message.held", "at": "x", "data": HELD}
    body = shaped(payload, form)
    assert json.loads(json.dumps(body)) == body
    assert (body == payload) is (form is Format.JSON)


@pytest.mark.parametrize(
    "words", ["<!channel>", "<https://evil.example|Approve>", "*bold* _it_ ~no~ `code`", "a & b", "two\nlines\r\nof it"]
)
def test_text_of_a_message_makes_no_link_mention_or_markup(words: str) -> None:
    text = "\n".join(slack("message.held", PERSONAL | {"subject": words})[1:2])
    assert "<" not in text
    assert ">" not in text
    assert "\n" not in text
    for mark in "*_~`":
        assert mark not in text.replace(f"\u200b{mark}", "")
    said, _ = teams("message.held", PERSONAL | {"subject": words})
    assert said[1] == f"From anna@example.com: “{' '.join(words.split())}”"


def test_a_long_word_is_cut() -> None:
    [_, about, *_] = slack("message.held", PERSONAL | {"subject": "x" * 10_000})
    assert len(about) < 600
