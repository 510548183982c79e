"""All operations of the API: each requires its scope, and its answers are as the OpenAPI document says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from smtpguard.accounts.model import ALLOWED, SCOPE_ASKS, May, Role, Scope
from smtpguard.console.api import entry
from smtpguard.console.api.routes import OPERATIONS
from tests.console.api.program import LETTER, Program, held, program
from tests.console.holding import EVA
from tests.console.stage import URL, Stage
from tests.guard.house import RAMADAN


def body_of(name: str) -> Any:
    seen = {"content_sha256": "0" * 64, "envelope_sha256": "0" * 64, "policy_sha256": "0" * 64, "lists": []}
    return {
        "approveHeld": {"seen": seen}, "rejectHeld": {"seen": seen, "comment": "x"}, "withdrawHeld": {}, "unvoteHeld": {}, "settleHeld": {"choice": "sent"},
        "freeze": {"selector": "all", "reason": "x"}, "reportOnMailing": {"bounces": 1}, "takeReturn": {"message": LETTER}, "stopMailing": {},
        "continueMailing": {}, "reopenMailing": {}, "askAboutHeld": {"question": "Why?"}, "answerAboutHeld": {"words": "Because."}, "pleadForHeld": {"words": "Because."}, "explain": {"message": LETTER, "recipients": [RAMADAN]},
        "reportIncident": {"subject": "lunch", "names": True},
    }.get(name)  # fmt: skip


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.scope], ids=lambda o: o.name)
async def test_every_operation_requires_its_scope(here: Stage, operation: entry.Operation) -> None:
    asks = await program(here, EVA, *Role, scopes=[s for s in Scope if s is not operation.scope])
    path = re.sub(r"{\w+}", "NOSUCH", operation.path)
    answer = await asks(operation.method, path, body_of(operation.name))
    assert answer.status_code == 403
    assert operation.scope is not None
    assert operation.scope.value in answer.headers["www-authenticate"]


def test_every_scope_has_a_role_and_an_operation() -> None:
    assert set(SCOPE_ASKS) == set(Scope)
    assert {scope for o in OPERATIONS for scope in (o.scope, *o.more)} - {None} == set(Scope)
    assert {may for allowed in ALLOWED.values() for may in allowed} == set(May)
    assert May.DECIDE not in ALLOWED[Role.ADMIN]


async def test_the_openapi_document_is_complete(here: Stage) -> None:
    """Every reference resolves, operation ids are unique, and the routes are those of the document."""
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


async def test_every_answer_conforms_to_the_document(here: Stage) -> None:
    """Calls each operation once with success; ``Program`` checks every answer against the document."""
    hold_id = await held(here, RAMADAN)
    mine = await held(here, RAMADAN, sender=EVA, reverse_path=EVA, body="Mine")
    asks = await program(here, EVA, *Role)
    mailing_id = (await asks("GET", "/mailings")).json()["items"][0]["id"]
    freeze_id = (await asks("POST", "/freezes", {"selector": "list", "value": "news", "reason": "x"})).json()["freeze"][
        "id"
    ]
    deciding = ("approveHeld", "unvoteHeld", "rejectHeld", "withdrawHeld")
    for operation in sorted(OPERATIONS, key=lambda o: o.name in deciding):
        body = body_of(operation.name)
        if operation.name in ("approveHeld", "rejectHeld"):
            body["seen"] = (await asks("GET", f"/held/{hold_id}")).json()["seen"]
        id = mine if operation.name in ("withdrawHeld", "answerAboutHeld", "pleadForHeld") else hold_id
        path = (
            operation.path.format(hold_id=id, mailing_id=mailing_id, freeze_id=freeze_id)
            if "{" in operation.path
            else operation.path
        )
        await asks(operation.method, path, body)
    done = {(method, path) for method, path, status in asks.asked if status == 200}
    missed = {(o.method, o.path) for o in OPERATIONS} - done
    undone = {("POST", f"/mailings/{{mailing_id}}/{move}") for move in ("stop", "go-on", "reject", "reopen")}
    undone |= {("POST", "/held/{hold_id}/settle"), ("POST", "/held/{hold_id}/confirm")}
    undone |= {("POST", f"/mailings/{{mailing_id}}/people{tail}") for tail in ("", "/agree")}
    # nothing is in doubt, no writer is asked, and the token's account decides on none of its own messages
    assert missed == undone
