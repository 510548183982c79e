"""Lists, the policy, the token's own account, and verification of the journal, through the API."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.journal.proof import Proof
from tests.console.api.program import LETTER, program
from tests.console.holding import EVA
from tests.console.stage import Stage
from tests.guard.house import MEMBERS, RAMADAN


async def test_lists_policy_and_own_account_are_read(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    lists = {row["name"]: row for row in (await asks("GET", "/lists")).json()["items"]}
    assert (lists["ramadan"]["people"], lists["ramadan"]["state"]) == (len(MEMBERS), "ready")
    policy = await asks("GET", "/policy")
    assert "internal-to-list" in [rule["id"] for rule in policy.json()["rules"]]
    assert policy.json()["groups"] == {"communications": 2, "compliance": 1, "duty": 1}
    assert "@" not in policy.text
    assert (await asks("GET", "/me")).json()["address"] == EVA


async def test_only_one_verification_runs_at_a_time(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = await program(here, EVA, Role.OPERATOR)
    answer = await asks("GET", "/audit/verify")
    assert (answer.json()["ok"], answer.json()["first_bad"]) == (True, None)
    assert answer.json()["entries"] >= 3
    await here.home.store.write(
        lambda b: b.connection.exec_driver_sql("UPDATE entry SET body = replace(body, 'added', 'faked')")
    )
    entered, go = asyncio.Event(), asyncio.Event()
    audit = here.home.store.journal.audit

    async def slow(host: str) -> Proof:
        entered.set()
        await go.wait()
        return await audit(host)

    monkeypatch.setattr(here.home.store.journal, "audit", slow)
    first = asyncio.create_task(asks("GET", "/audit/verify"))
    await entered.wait()
    assert (await asks("GET", "/audit/verify")).status_code == 409
    go.set()
    assert (await first).json()["ok"] is False


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
