"""A message tried against the policy through the API: its outcome, and that nothing is sent, held or journalled."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from tests.console.api.program import LETTER, program
from tests.console.holding import EVA
from tests.console.stage import Stage
from tests.guard.house import RAMADAN


async def test_trying_a_message_has_no_effect(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    before = len(await here.home.store.journal.entries(limit=1000))
    for body in ({"message": LETTER}, {"message_base64": base64.b64encode(LETTER.encode()).decode()}):
        found = (await asks("POST", "/policy/explain", {**body, "recipients": [RAMADAN]})).json()
        assert (found["action"], found["lists"]) == ("hold", ["ramadan"])
        assert "internal-to-list" in [reason["rule"] for reason in found["reasons"]]
    assert len(await here.home.store.journal.entries(limit=1000)) == before


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"recipients": [RAMADAN]}, "body.message"),
        ({"message": LETTER, "message_base64": "eA==", "recipients": [RAMADAN]}, "body.message"),
        ({"message_base64": "å", "recipients": [RAMADAN]}, "body.message_base64"),
        ({"message": LETTER, "recipients": []}, "body.recipients"),
        ({"message": LETTER, "recipients": [RAMADAN, "nobody"]}, "body.recipients.1"),
        ({"message": LETTER, "recipients": [RAMADAN], "sender": "x"}, "body.sender"),
    ],
)
async def test_an_invalid_message_is_422(here: Stage, body: dict[str, Any], at: str) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    answer = await asks("POST", "/policy/explain", body)
    assert (answer.status_code, answer.json()["errors"][0]["at"]) == (422, at)
