"""How the API handles a request: invalid bodies, rate limits, and errors."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.console.api import entry
from smtpguard.database.errors import CommitUnknown, Unavailable
from smtpguard.journal.proof import Proof
from tests.console.api.program import LETTER, held, program
from tests.console.holding import EVA, OMAR
from tests.console.stage import Stage, stage
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN

INVALID: list[tuple[bytes, int, str]] = [
    (b"", 400, ""), (b"{", 400, ""), (b"\xff", 400, ""), (b"[" * 60_000, 400, ""), (b"[]", 422, ""), (b"7", 422, ""), ('{"selector": "all", "reason": "x"}'.encode("utf-16"), 400, ""),
    (b"{}", 422, "body.selector"), (b'{"selector": "everything", "reason": "x"}', 422, "body.selector"),
    (b'{"selector": "all", "reason": ""}', 422, "body.reason"), (b'{"selector": "all", "reason": "x", "colour": 1}', 422, "body.colour"),
    (b'{"selector": "list", "value": "nosuch", "reason": "x"}', 422, "body.value"), (b'{"selector": "list", "reason": "x"}', 422, "body.value"),
    (b'{"selector": "sender", "value": "nobody", "reason": "x"}', 422, "body.value"), (b'{"selector": "mailing", "value": "nosuch", "reason": "x"}', 422, "body.value"), (b'{"selector": "all", "value": "news", "reason": "x"}', 422, "body.value"),
    (b'{"selector": "all", "reason": "x", "minutes": 0}', 422, "body.minutes"), (b'{"reason": "' + b"x" * 70_000 + b'"}', 413, ""),
]  # fmt: skip


async def test_an_invalid_body_does_nothing(here: Stage) -> None:
    asks = await program(here, EVA, *Role)
    await asks("GET", "/me")
    headers = {"Authorization": f"Bearer {asks.token}", "Content-Type": "application/json"}
    for body, status, at in INVALID:
        answer = await asks.http.post("/freezes", content=body, headers=headers)
        asks.check("POST", "/freezes", answer)
        assert answer.status_code == status, body[:80]
        if at:
            assert answer.json()["errors"][0]["at"] == at, body
        assert (await asks("GET", "/freezes")).json()["items"] == []


async def test_half_a_character_and_a_nul_are_no_text(here: Stage) -> None:
    asks = await program(here, EVA, *Role)
    headers = {"Authorization": f"Bearer {asks.token}", "Content-Type": "application/json"}
    for text, status in (("\\uD800", 400), ("\\udfff x", 400), ("From: a@example.com\\n\\n\\ud83d\\ude00", 200),
                         ("a\\u0000", 422), ("\\\\\\u0000", 422), ("From: a@example.com\\n\\n\\\\u0000", 200)):  # fmt: skip
        body = f'{{"message": "{text}", "recipients": ["anna@example.com"]}}'
        assert (await asks.http.post("/policy/explain", content=body, headers=headers)).status_code == status, text


async def test_a_form_body_is_refused(here: Stage) -> None:
    asks = await program(here, EVA, *Role)
    headers = {"Authorization": f"Bearer {asks.token}"}
    answer = await asks.http.post("/freezes", data={"selector": "all", "reason": "x"}, headers=headers)
    assert answer.status_code == 415


async def test_nul_is_in_no_address(here: Stage) -> None:
    """PostgreSQL refuses it in a text; the answer has the shape of the API's errors."""
    asks = await program(here, EVA, *Role)
    for path in ("/held/a%00", "/held?list=a%00"):
        answer = await asks.http.get(path, headers={"Authorization": f"Bearer {asks.token}"})
        assert (answer.status_code, answer.json()["detail"]) == (422, "No address has a NUL."), path


async def test_an_unknown_path_gets_a_problem_document(here: Stage) -> None:
    asks = await program(here, EVA, *Role)
    for method, path, status in [("GET", "/nowhere", 404), ("PATCH", "/freezes", 405), ("GET", "/held/NOSUCH", 404)]:
        answer = await asks.http.request(method, path, headers={"Authorization": f"Bearer {asks.token}"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status


async def test_an_unavailable_store_answers_503(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = await program(here, EVA, *Role)
    for error, said in (
        (Unavailable("no answer"), "Nothing was done"),
        (CommitUnknown("no answer"), "It is not known whether it was done"),
    ):

        async def away(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(here.home.store.gate, "freeze", away)
        answer = await asks("POST", "/freezes", {"selector": "all", "reason": "x"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["detail"].startswith(said)


async def test_an_internal_error_reveals_nothing(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = await program(here, EVA, *Role)

    async def broken(*_: Any) -> Any:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(here.home.store.gate, "read", broken)
    answer = await asks.http.get("/freezes", headers={"Authorization": f"Bearer {asks.token}"})
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_too_many_requests_get_429(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "PER_MINUTE", 3)
    async with stage(here.home.folder.parent / "two") as other:
        first, second = await program(other, EVA, Role.VIEWER), await program(other, OMAR, Role.VIEWER)
        assert [(await first("GET", "/me")).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert (await second("GET", "/me")).status_code == 200
        other.home.clock.pass_(seconds=60)
        assert (await first("GET", "/me")).status_code == 200


async def test_lists_policy_and_own_account_are_read(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    lists = {row["name"]: row for row in (await asks("GET", "/lists")).json()["items"]}
    assert (lists["ramadan"]["people"], lists["ramadan"]["state"]) == (len(MEMBERS), "ready")
    policy = await asks("GET", "/policy")
    assert "internal-to-list" in [rule["id"] for rule in policy.json()["rules"]]
    assert policy.json()["groups"] == {"communications": 2, "compliance": 1, "duty": 1}
    assert "@" not in policy.text
    assert (await asks("GET", "/me")).json()["address"] == EVA


async def test_purposes_are_in_english_as_the_sentences_are(here: Stage) -> None:
    """The organization's first language is Swedish. A purpose that was written once is given as it was written."""
    rules = b"""
  - {id: two, description: {sv: Inte till kunder, en: Not to customers}, when: {recipients.list_addresses: any}, then: hold}
  - {id: one, description: Inte till listor, when: {recipients.list_addresses: any}, then: hold}
"""
    await here.home.put(DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"] + rules})
    await here.home.follow()
    hold_id, asks = await held(here, RAMADAN), await program(here, EVA, Role.APPROVER)
    tried = await asks("POST", "/policy/explain", {"message": LETTER, "recipients": [RAMADAN]})
    for answer in (await asks("GET", f"/held/{hold_id}"), tried):
        purposes = {reason["rule"]: reason["description"] for reason in answer.json()["reasons"]}
        assert (purposes["two"], purposes["one"]) == ("Not to customers", "Inte till listor")
    purposes = {rule["id"]: rule["description"] for rule in (await asks("GET", "/policy")).json()["rules"]}
    assert (purposes["two"], purposes["one"]) == ("Not to customers", "Inte till listor")


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


async def test_an_invalid_message_is_422(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    invalid: list[tuple[dict[str, Any], str]] = [
        ({"recipients": [RAMADAN]}, "body.message"),
        ({"message": LETTER, "message_base64": "eA==", "recipients": [RAMADAN]}, "body.message"),
        ({"message_base64": "å", "recipients": [RAMADAN]}, "body.message_base64"),
        ({"message": LETTER, "recipients": []}, "body.recipients"),
        ({"message": LETTER, "recipients": [RAMADAN, "nobody"]}, "body.recipients.1"),
        ({"message": LETTER, "recipients": [RAMADAN], "sender": "x"}, "body.sender"),
    ]
    for body, at in invalid:
        answer = await asks("POST", "/policy/explain", body)
        assert (answer.status_code, answer.json()["errors"][0]["at"]) == (422, at), body
