"""Every form of the console: a refused form comes back filled in, with the error beside the field."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.console.app import PAGES
from tests.console.holding import ANNA, EVA, held, several, text
from tests.console.stage import Browser, Stage
from tests.guard.house import RAMADAN

FORMS: list[tuple[str, str, dict[str, Any], str, str]] = [
    # (who, path, fields, the invalid field, the error beside it)
    (EVA, "/freeze", {"selector": "sender", "sender": "nobody", "reason": "my reason"}, "f-sender", "Not an address"),
    (EVA, "/freeze", {"selector": "all", "reason": " ", "hours": "4"}, "reason", "Give a reason"),
    (EVA, "/decided", {"choice": "reject", "comment": " "}, "comment", "Give a reason"),
    (EVA, "/decided", {"choice": "approve", "number": "77", "comment": "my note"}, "number", "Type how many messages"),
    (EVA, "/held/{hold}/ask", {"question": " "}, "question", "Write what you want to know"),
    (ANNA, "/held/{mine}/answer", {"words": " "}, "words", "Write your message"),
    (ANNA, "/held/{mine}/plea", {"words": " "}, "plea", "Write why it should be sent"),
    (EVA, "/incident", {"subject": "my subject", "since": "last week"}, "i-since", "Not a time"),
    (EVA, "/incident", {"until": "soon", "alone": "on"}, "i-until", "Not a time"),
    (EVA, "/incident", {"alone": "on"}, "i-id", "Say what the report is about"),
    (EVA, "/policy/try", {"text": "", "to": "my@example.org"}, "text", "Paste a message"),
    (EVA, "/policy/try", {"text": "Subject: x\n\nx", "to": "no address", "from": EVA}, "to", "Not an address"),
    (EVA, "/policy/try", {"text": "Subject: x\n\nx", "to": ANNA, "from": "nobody"}, "from", "Not an address"),
    (EVA, "/policy/try", {"text": "Subject: x\n\nx"}, "to", "There are no recipients"),
    (EVA, "/away", {"since": "2026-03-02", "until": "soon"}, "until", "Not a day"),
    (EVA, "/away", {"until": "2026-03-09", "deputy": "nobody"}, "deputy", "Not an address"),
    (EVA, "/me/password", {"current": "my old guess", "new": "long enough 1", "again": "another one"}, "current", "not your password"),
    (EVA, "/people", {"address": "nobody", "name": "My Name", "roles": ["viewer"], "sso": "yes"}, "address", "ot an address"),
    (EVA, "/people", {"address": ANNA, "name": "My Name"}, "address", "already has an account"),
]  # fmt: skip
NOTHING_TYPED = {
    # buttons, and choices of which every value is valid
    "/decide", "/logout", "/alarms/take", "/me/language", "/thaw/{freeze_id}", "/login/sso/back", "/held/{hold_id}/withdraw", "/held/{hold_id}/settle", "/held/{hold_id}/unvote", "/mine/{link}/unvote", "/mine/{link}/withdraw", "/held/{hold_id}/judge", "/mine/{link}/judge",
    "/people/{account_id}/roles", "/people/{account_id}/disable", "/people/{account_id}/enable", "/people/{account_id}/password",
    "/people/{account_id}/factor-off", "/people/{account_id}/delete", "/people/{account_id}/sso", "/me/sso",
    "/away/back", "/away/agree", "/away/refuse",
    # with tests of their own, some since a password or a code never comes back
    "/held/{hold_id}/vote", "/login", "/me/factor", "/me/factor/off", "/mailings/{mailing_id}", "/mailings/{mailing_id}/people", "/mailings/{mailing_id}/correct", "/mine/{link}/answer", "/mine/{link}/plea", "/held/{hold_id}/confirm", "/mine/{link}/confirm",
}  # fmt: skip
SECRET = {"current", "new", "again", "password", "code"}


async def at(here: Stage, who: str) -> Browser:
    browser = await here.signed_in(who, *(Role if who == EVA else ()))
    await browser.get("/me")
    return browser


@pytest.mark.parametrize(("who", "where", "filled", "field", "said"), FORMS)
async def test_a_refused_form_is_returned_filled_in(
    here: Stage, who: str, where: str, filled: dict[str, Any], field: str, said: str
) -> None:
    theirs = await held(here, RAMADAN, Subject="SV: theirs")
    await here.person(ANNA if who == EVA else EVA, Role.VIEWER)
    browser = await at(here, who)
    if where == "/decided":
        shown = await browser.post("/decide", choice=filled["choice"], hold=theirs.hold_id)
        for name in ("seen", "policy"):
            filled = filled | {name: html.unescape(re.findall(rf'name="{name}" value="([^"]*)"', shown.text)[0])}
    path = where.format(hold=theirs.hold_id, mine=theirs.hold_id)
    answer = await browser.post(path, **filled)
    assert 400 <= answer.status_code < 500
    page = answer.text
    assert re.search(rf'id="{field}-wrong">[^<]*{re.escape(said)}', page), "the error is beside the field"
    assert page.count('role="alert">Nothing was done: see below why.') == 1, "a long page says so at its top"
    forms = [f for f in re.findall(r"<form.*?</form>", page, re.S) if f'action="{path}"' in f]
    [form] = [f for f in forms if f'id="{field}-wrong"' in f]
    fields = _Fields(form)
    assert fields.attributes[field]["aria-invalid"] == "true"
    assert (fields.attributes[field]["aria-describedby"] or "").startswith(f"{field}-wrong")
    for name, value in filled.items():
        for one in [value] if isinstance(value, str) else value:
            if name in SECRET:
                assert one not in page
            elif one.strip() and name not in ("seen", "policy"):
                assert (name, one) in fields.sent


class _Fields(HTMLParser):
    """The fields of a form: name and value as a browser would send them, and the attributes of each."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self.attributes: dict[str, dict[str, str | None]] = {}
        self._area = self._select = ""
        self.feed(form)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        field = dict(attrs)
        name = field.get("name") or ""
        self.attributes[field.get("id") or ""] = field
        if tag == "select":
            self._select = name
        elif tag == "option" and "selected" in field:
            self.sent.append((self._select, field.get("value") or ""))
        elif tag == "textarea":
            self._area = name
        elif tag == "input" and (field.get("type") not in ("checkbox", "radio") or "checked" in field):
            self.sent.append((name, field.get("value") or "on"))

    def handle_data(self, data: str) -> None:
        if self._area:
            self.sent.append((self._area, data))

    def handle_endtag(self, tag: str) -> None:
        self._area = "" if tag == "textarea" else self._area


def test_every_form_is_tested() -> None:
    """Every form is in the table, or has no field to type in."""
    posts = {route.path for route in PAGES if "POST" in (getattr(route, "methods", None) or ())}
    tried = {re.sub(r"\{\w+\}", "{hold_id}", where) for _, where, *_ in FORMS}
    assert posts == tried | NOTHING_TYPED


async def test_a_missing_reason_is_reported_beside_its_field(here: Stage) -> None:
    [hold] = await several(here, 1)
    await here.home.approve(hold.hold_id)
    browser = await at(here, EVA)
    refused = await browser.post(f"/mailings/{hold.mailing_id}", move="reject", comment=" ")
    assert refused.status_code == 422
    assert "Give a reason for the rejection" in text(refused)


async def test_after_success_the_form_is_empty(here: Stage) -> None:
    browser = await at(here, EVA)
    done = await browser.post("/people", address="tove@example.com", name="Tove", roles=["viewer"])
    assert done.status_code == 200
    assert 'value="Tove"' not in done.text
