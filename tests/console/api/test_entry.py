"""How the API meets a request: tokens, scopes, bodies, rates; and that it is as its OpenAPI document says."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.audit.chain import Proof
from smtpguard.console.api import entry
from smtpguard.console.api.routes import OPERATIONS
from smtpguard.console.api.tokens import NoToken, Tokens
from smtpguard.policy.admission import Unavailable
from smtpguard.policy.people import ALLOWED, SCOPE_ASKS, May, Role, Scope
from smtpguard.store.people import People
from tests.console.api.program import Program, program
from tests.console.api.test_held import held
from tests.console.stage import URL, Stage, stage
from tests.guard.house import MEMBERS, RAMADAN

EVA, OMAR = "eva@example.com", "omar@example.com"
LETTER = "From: anna@example.com\nTo: ramadan@lists.example.com\nSubject: SV: lunch\n\nBacon at noon?\n"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(tmp_path) as made:
        yield made


def tokens(here: Stage) -> Tokens:
    return Tokens(People(here.home.store), here.home.clock, new_id=lambda: next(here.ids))


# -- tokens


async def test_a_token_is_kept_as_a_hash_alone(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    assert re.fullmatch(r"smtpguard_[0-9A-Z]{16}_[\w-]{43}", asks.token)
    secret = asks.token.split("_", 2)[2]  # which may have such a sign in it
    docs = await here.home.store.ask(lambda c: [str(row) for row in c.exec_driver_sql("SELECT * FROM token")])
    entries = await here.home.store.entries()
    assert secret not in f"{docs}{entries}"


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer rubbish", "Basic dXNlcjp3b3Jk", "other", "id", "longer"]
)
async def test_without_a_right_token_nothing_is_said(here: Stage, given: str) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    right = asks.token
    wrong = {
        "other": f"Bearer {right[:-1]}x",
        "id": "Bearer " + right.replace("A0", "A1", 1),
        "longer": f"Bearer {right}x",
    }
    answer = await asks.http.get("/me", headers={"Authorization": wrong.get(given, given)})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert EVA not in answer.text


async def test_a_token_ends(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    assert (await asks("GET", "/me")).status_code == 200
    here.home.clock.pass_(days=30)
    assert (await asks("GET", "/me")).status_code == 401


async def test_a_revoked_token_is_worth_nothing_at_once(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    token_id = asks.token.split("_")[1]
    await tokens(here).revoke(token_id, by="root")
    assert (await asks("GET", "/me")).status_code == 401
    with pytest.raises(NoToken, match="already"):
        await tokens(here).revoke(token_id, by="root")
    with pytest.raises(NoToken, match="no token"):
        await tokens(here).revoke("NOSUCH", by="root")


async def test_a_disabled_account_s_tokens_are_worth_nothing(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    await here.accounts.disable(await here.accounts.at(EVA), by="root")
    assert (await asks("GET", "/me")).status_code == 401
    await here.accounts.enable(await here.accounts.at(EVA), by="root")
    assert (await asks("GET", "/me")).status_code == 200


async def test_a_token_gets_no_more_than_its_account_may(here: Stage) -> None:
    await here.person(EVA, Role.VIEWER)
    month = timedelta(days=30)
    with pytest.raises(NoToken, match="may not do that itself: held:decide"):
        await tokens(here).add(EVA, name="x", scopes=[Scope.HELD_DECIDE], good_for=month, by="root")
    with pytest.raises(NoToken, match="no account"):
        await tokens(here).add(OMAR, name="x", scopes=[Scope.HELD_READ], good_for=month, by="root")


async def test_a_role_that_is_taken_away_is_taken_from_its_tokens(here: Stage) -> None:
    asks = await program(here, EVA, Role.OPERATOR)
    assert "freezes:lift" in (await asks("GET", "/me")).json()["scopes"]
    await here.accounts.set_roles(await here.accounts.at(EVA), [Role.VIEWER], by="root")
    assert "freezes:lift" not in (await asks("GET", "/me")).json()["scopes"]
    assert (await asks("DELETE", "/freezes/F1")).status_code == 403


async def test_a_browser_s_session_is_no_token(here: Stage) -> None:
    """So that no form of another site can use the API with somebody's cookies."""
    browser = await here.signed_in(EVA, *Role)
    assert (await browser.http.get("/api/v1/me")).status_code == 401
    assert (await browser.http.post("/api/v1/freezes", json={"selector": "all", "reason": "x"})).status_code == 401


# -- every operation asks for its scope


def body_of(name: str) -> Any:
    seen = {"content_sha256": "0" * 64, "envelope_sha256": "0" * 64, "policy_sha256": "0" * 64, "lists": []}
    return {
        "approveHeld": {"seen": seen}, "rejectHeld": {"seen": seen, "comment": "x"}, "withdrawHeld": {},
        "freeze": {"selector": "all", "reason": "x"}, "reportOnMailing": {"bounces": 1}, "stopMailing": {},
        "continueMailing": {}, "reopenMailing": {}, "askAboutHeld": {"question": "Why?"}, "answerAboutHeld": {"words": "Because."}, "explain": {"message": LETTER, "recipients": [RAMADAN]},
    }.get(name)  # fmt: skip


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.scope], ids=lambda o: o.name)
async def test_every_operation_asks_for_its_scope(here: Stage, operation: entry.Operation) -> None:
    asks = await program(here, EVA, *Role, scopes=[s for s in Scope if s is not operation.scope])
    path = re.sub(r"{\w+}", "NOSUCH", operation.path)
    answer = await asks(operation.method, path, body_of(operation.name))
    assert answer.status_code == 403
    assert operation.scope is not None
    assert operation.scope.value in answer.headers["www-authenticate"]


def test_every_scope_is_somebodys_and_worth_something() -> None:
    assert set(SCOPE_ASKS) == set(Scope)
    assert {o.scope for o in OPERATIONS} - {None} == set(Scope)
    assert {may for allowed in ALLOWED.values() for may in allowed} == set(May)
    assert May.DECIDE not in ALLOWED[Role.ADMIN]


# -- what is not understood


@pytest.mark.parametrize(
    ("body", "status", "at"),
    [
        (b"", 400, ""), (b"{", 400, ""), (b"\xff", 400, ""), (b"[" * 60_000, 400, ""), (b"[]", 422, ""), (b"7", 422, ""),
        (b"{}", 422, "body.selector"), (b'{"selector": "everything", "reason": "x"}', 422, "body.selector"),
        (b'{"selector": "all", "reason": ""}', 422, "body.reason"), (b'{"selector": "all", "reason": "x", "colour": 1}', 422, "body.colour"),
        (b'{"selector": "list", "value": "nosuch", "reason": "x"}', 422, "body.value"), (b'{"selector": "list", "reason": "x"}', 422, "body.value"),
        (b'{"selector": "sender", "value": "nobody", "reason": "x"}', 422, "body.value"), (b'{"selector": "all", "value": "news", "reason": "x"}', 422, "body.value"),
        (b'{"selector": "all", "reason": "x", "minutes": 0}', 422, "body.minutes"), (b'{"reason": "' + b"x" * 70_000 + b'"}', 413, ""),
    ],
)  # fmt: skip
async def test_a_body_that_is_not_understood_does_nothing(here: Stage, body: bytes, status: int, at: str) -> None:
    asks = await program(here, EVA, *Role)
    await asks("GET", "/me")
    headers = {"Authorization": f"Bearer {asks.token}", "Content-Type": "application/json"}
    answer = await asks.http.post("/freezes", content=body, headers=headers)
    asks.check("POST", "/freezes", answer)
    assert answer.status_code == status
    if at:
        assert answer.json()["errors"][0]["at"] == at
    assert (await asks("GET", "/freezes")).json()["items"] == []


async def test_a_form_is_no_json(here: Stage) -> None:
    asks = await program(here, EVA, *Role)
    headers = {"Authorization": f"Bearer {asks.token}"}
    answer = await asks.http.post("/freezes", data={"selector": "all", "reason": "x"}, headers=headers)
    assert answer.status_code == 415


async def test_what_is_not_there_is_told_as_a_problem(here: Stage) -> None:
    asks = await program(here, EVA, *Role)
    for method, path, status in [("GET", "/nowhere", 404), ("PATCH", "/freezes", 405), ("GET", "/held/NOSUCH", 404)]:
        answer = await asks.http.request(method, path, headers={"Authorization": f"Bearer {asks.token}"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status


async def test_a_store_that_is_away_is_503_and_says_that_nothing_was_done(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = await program(here, EVA, *Role)

    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("no answer")

    monkeypatch.setattr(here.home.store, "freeze", away)
    answer = await asks("POST", "/freezes", {"selector": "all", "reason": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Nothing was done" in answer.text


async def test_a_fault_of_ours_says_nothing_of_itself(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = await program(here, EVA, *Role)

    async def broken(*_: Any) -> Any:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(here.home.store, "gate", broken)
    answer = await asks.http.get("/freezes", headers={"Authorization": f"Bearer {asks.token}"})
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_somebody_who_asks_too_often_waits(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "PER_MINUTE", 3)
    async with stage(here.home.folder.parent / "two") as other:
        first, second = await program(other, EVA, Role.VIEWER), await program(other, OMAR, Role.VIEWER)
        assert [(await first("GET", "/me")).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert (await second("GET", "/me")).status_code == 200
        other.home.clock.pass_(seconds=60)
        assert (await first("GET", "/me")).status_code == 200


# -- freezes


async def test_freezing_and_lifting(here: Stage) -> None:
    asks = await program(here, EVA, Role.OPERATOR)
    made = (
        await asks(
            "POST", "/freezes", {"selector": "sender", "value": "Anna+x@Example.com", "reason": "Stop", "minutes": 60}
        )
    ).json()
    freeze = made["freeze"]
    assert (freeze["selector"], freeze["value"], freeze["until"]) == (
        "sender",
        "anna@example.com",
        "2026-03-02T10:00:00Z",
    )
    assert (made["recalled"], made["past_recall"], made["problems"]) == (0, 0, [])
    assert [row["id"] for row in (await asks("GET", "/freezes")).json()["items"]] == [freeze["id"]]
    assert EVA in freeze["by"]
    assert "token" in freeze["by"]
    assert (await asks("DELETE", f"/freezes/{freeze['id']}")).status_code == 200
    assert (await asks("DELETE", f"/freezes/{freeze['id']}")).status_code == 404
    assert (await asks("GET", "/freezes")).json()["items"] == []


async def test_where_it_takes_two_to_lift_it_takes_two_people(here: Stage) -> None:
    """Two tokens of one person are one person."""
    eva, omar = await program(here, EVA, Role.OPERATOR), await program(here, OMAR, Role.OPERATOR)
    _, text = await tokens(here).add(
        EVA, name="other", scopes=[Scope.FREEZES_LIFT], good_for=timedelta(days=1), by="root"
    )
    here.app.state.desk.freezes.thaw_two = True
    freeze_id = (await eva("POST", "/freezes", {"selector": "all", "reason": "x"})).json()["freeze"]["id"]
    for asks in (eva, eva, Program(here, text)):
        answer = await asks("DELETE", f"/freezes/{freeze_id}")
        assert (answer.status_code, answer.json()["lifted"]) == (200, False)
    assert (await omar("DELETE", f"/freezes/{freeze_id}")).json()["lifted"] is True
    assert (await eva("GET", "/freezes")).json()["items"] == []


# -- what there is to look up


async def test_lists_policy_and_oneself(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    lists = {row["name"]: row for row in (await asks("GET", "/lists")).json()["items"]}
    assert (lists["ramadan"]["people"], lists["ramadan"]["state"]) == (len(MEMBERS), "ready")
    policy = await asks("GET", "/policy")
    assert "internal-to-list" in [rule["id"] for rule in policy.json()["rules"]]
    assert policy.json()["groups"] == {"communications": 2, "compliance": 1, "duty": 1}
    assert "@" not in policy.text
    assert (await asks("GET", "/me")).json()["address"] == EVA


async def test_the_journal_is_verified_one_at_a_time(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = await program(here, EVA, Role.OPERATOR)
    answer = await asks("GET", "/audit/verify")
    assert (answer.json()["ok"], answer.json()["first_bad"]) == (True, None)
    assert answer.json()["entries"] >= 3
    await here.home.store.write(
        lambda b: b.connection.exec_driver_sql("UPDATE entry SET body = replace(body, 'added', 'faked')")
    )
    entered, go = asyncio.Event(), asyncio.Event()
    verify = here.home.store.verify

    async def slow() -> Proof:
        entered.set()
        await go.wait()
        return await verify()

    monkeypatch.setattr(here.home.store, "verify", slow)
    first = asyncio.create_task(asks("GET", "/audit/verify"))
    await entered.wait()
    assert (await asks("GET", "/audit/verify")).status_code == 409
    go.set()
    assert (await first).json()["ok"] is False


# -- a message tried


async def test_a_message_is_tried_and_nothing_comes_of_it(here: Stage) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    before = len(await here.home.store.entries(limit=1000))
    for body in ({"message": LETTER}, {"message_base64": base64.b64encode(LETTER.encode()).decode()}):
        found = (await asks("POST", "/policy/explain", {**body, "recipients": [RAMADAN]})).json()
        assert (found["action"], found["lists"]) == ("hold", ["ramadan"])
        assert "internal-to-list" in [reason["rule"] for reason in found["reasons"]]
    assert len(await here.home.store.entries(limit=1000)) == before


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
async def test_a_message_that_cannot_be_tried(here: Stage, body: dict[str, Any], at: str) -> None:
    asks = await program(here, EVA, Role.VIEWER)
    answer = await asks("POST", "/policy/explain", body)
    assert (answer.status_code, answer.json()["errors"][0]["at"]) == (422, at)


# -- mailings


async def test_a_mailing_is_shown_and_reported_on(here: Stage) -> None:
    hold_id = await held(here, RAMADAN)
    asks = await program(here, EVA, Role.APPROVER)
    listed = (await asks("GET", "/mailings")).json()["items"]
    assert [(row["state"], row["hold"]) for row in listed] == [("held", hold_id)]
    mailing_id = listed[0]["id"]
    assert (await asks("GET", f"/mailings/{mailing_id}")).json() == listed[0]
    told = await asks("POST", f"/mailings/{mailing_id}/feedback", {"complaints": 3})
    assert (told.status_code, told.json()["complaints"]) == (200, 3)
    for what in ("stop", "go-on"):
        assert (await asks("POST", f"/mailings/{mailing_id}/{what}", {})).status_code == 409
    assert (await asks("POST", f"/mailings/{mailing_id}/feedback", {})).status_code == 422


async def test_a_mailing_to_lists_of_others_is_not_there(here: Stage) -> None:
    await held(here, "news@lists.example.com")
    omar = await program(here, OMAR, Role.VIEWER)
    mailing_id = (await omar("GET", "/mailings")).json()["items"][0]["id"]
    asks = await program(here, "dpo@example.com", Role.APPROVER)
    assert (await asks("GET", "/mailings")).json()["items"] == []
    for method, tail, body in [
        ("GET", "", None),
        ("POST", "/feedback", {"bounces": 1}),
        ("POST", "/stop", {}),
        ("POST", "/go-on", {}),
    ]:
        for id in (mailing_id, mailing_id[:3], "NOSUCH"):
            assert (await asks(method, f"/mailings/{id}{tail}", body)).status_code == 404


# -- the document


async def test_the_document_is_whole(here: Stage) -> None:
    """Every reference leads somewhere, every operation has its own name, and the routes are those of the document."""
    asks = Program(here, "")
    answer = await asks.http.get("/openapi.json")
    document = answer.json()
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": f"{URL}/api/v1"}]
    for ref in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)):
        assert ref in document["components"]["schemas"], ref
    names = [o["operationId"] for path in document["paths"].values() for o in path.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)
    assert {(o.method, o.path) for o in OPERATIONS} == {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert [p["name"] for p in operation["parameters"] if p["in"] == "path"] == re.findall(r"{(\w+)}", path)


async def test_every_operation_answers_as_the_document_says(here: Stage) -> None:
    """Each once as it should go; ``Program`` compares every answer with the document."""
    hold_id = await held(here, RAMADAN)
    mine = await held(here, RAMADAN, sender="eva@example.com", reverse_path="eva@example.com", body="Mine")
    asks = await program(here, EVA, *Role)
    mailing_id = (await asks("GET", "/mailings")).json()["items"][0]["id"]
    freeze_id = (await asks("POST", "/freezes", {"selector": "list", "value": "news", "reason": "x"})).json()["freeze"][
        "id"
    ]
    deciding = ("approveHeld", "rejectHeld", "withdrawHeld")
    for operation in sorted(OPERATIONS, key=lambda o: o.name in deciding):
        body = body_of(operation.name)
        if operation.name in ("approveHeld", "rejectHeld"):
            body["seen"] = (await asks("GET", f"/held/{hold_id}")).json()["seen"]
        id = mine if operation.name in ("withdrawHeld", "answerAboutHeld") else hold_id
        path = (
            operation.path.format(hold_id=id, mailing_id=mailing_id, freeze_id=freeze_id)
            if "{" in operation.path
            else operation.path
        )
        await asks(operation.method, path, body)
    done = {(method, path) for method, path, status in asks.asked if status == 200}
    missed = {(o.method, o.path) for o in OPERATIONS} - done
    assert missed == {("POST", f"/mailings/{{mailing_id}}/{move}") for move in ("stop", "go-on", "reopen")}
