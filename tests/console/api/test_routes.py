"""All operations of the API: each requires its scope, and its answers are as the OpenAPI document says."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

from smtpguard.accounts.model import ALLOWED, May, Role, Scope
from smtpguard.console.app import OPERATIONS
from smtpguard.journal.deliverystatus import DeliveryEvent
from tests.console.api.program import LETTER, Program, held, program, tokens
from tests.console.holding import DPO, EVA, NEWS, OMAR
from tests.console.stage import URL, Stage
from tests.guard.house import RAMADAN
from tests.mailings.test_copystatus import last


def body_of(name: str) -> Any:
    seen = {"content_sha256": "0" * 64, "envelope_sha256": "0" * 64, "policy_sha256": "0" * 64, "lists": []}
    return {
        "approveHeld": {"seen": seen}, "rejectHeld": {"seen": seen, "comment": "x"}, "withdrawHeld": {}, "unvoteHeld": {}, "settleHeld": {"choice": "sent"},
        "freeze": {"selector": "all", "reason": "x"}, "reportOnMailing": {"bounces": 1}, "takeReturn": {"message": LETTER}, "stopMailing": {}, "rejectMailing": {"comment": "x"}, "agreeToPeople": {}, "listPeople": {"list": "news"}, "confirmHeld": {"seen": seen, "reach": 1},
        "continueMailing": {}, "reopenMailing": {}, "askAboutHeld": {"question": "Why?"}, "answerAboutHeld": {"words": "Because."}, "pleadForHeld": {"words": "Because."}, "explain": {"message": LETTER, "recipients": [RAMADAN]},
        "reportIncident": {"subject": "lunch", "names": True},
    }.get(name)  # fmt: skip


def test_every_scope_has_a_role_and_an_operation() -> None:
    assert {scope for o in OPERATIONS for scope in (o.scope, *o.more)} - {None} == set(Scope)
    assert {may for allowed in ALLOWED.values() for may in allowed} == set(May)
    assert May.DECIDE not in ALLOWED[Role.ADMIN]


async def test_the_openapi_document_is_complete(here: Stage) -> None:
    """Every reference resolves, operation ids are unique, and the routes are those of the document."""
    asks = Program(here, "")
    answer = await asks.http.get("/openapi.json")
    document = answer.json()
    assert document["openapi"] == "3.1.0"
    assert all(o.summary[:1].isupper() for o in OPERATIONS), "a summary is a sentence, not a name of the code"
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


async def test_a_freeze_is_set_and_lifted(here: Stage) -> None:
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


async def test_two_tokens_of_one_person_do_not_lift_a_freeze(here: Stage) -> None:
    """Two tokens of one person do not count as two people."""
    eva, omar = await program(here, EVA, Role.OPERATOR), await program(here, OMAR, Role.OPERATOR)
    _, text = await tokens(here).add(
        EVA, name="other", scopes=[Scope.FREEZES_LIFT], good_for=timedelta(days=1), by="root"
    )
    here.app.state.console.freezes.thaw_two = True
    freeze_id = (await eva("POST", "/freezes", {"selector": "all", "reason": "x"})).json()["freeze"]["id"]
    for asks in (eva, eva, Program(here, text)):
        answer = await asks("DELETE", f"/freezes/{freeze_id}")
        assert (answer.status_code, answer.json()["lifted"]) == (200, False)
    assert (await omar("DELETE", f"/freezes/{freeze_id}")).json()["lifted"] is True
    assert (await eva("GET", "/freezes")).json()["items"] == []


async def test_a_mailing_is_shown_and_reported(here: Stage) -> None:
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


async def test_the_number_of_recipients_is_an_interval_while_in_doubt(here: Stage) -> None:
    asks = await program(here, EVA, Role.APPROVER)
    hold_id = await held(here, NEWS)
    seen = (await asks("GET", f"/held/{hold_id}")).json()["seen"]
    await asks("POST", f"/held/{hold_id}/approve", {"seen": seen, "reach": 2})
    [row] = (await asks("GET", "/mailings")).json()["items"]
    assert (row["at_least"], row["at_most"], row["admitted"]) == (0, 0, 2), "in flight, and not attempted"
    for lease in await here.home.store.outbox.lease("one", 100, 60):
        await here.home.store.outbox.settle(lease, last(lease, DeliveryEvent.BEGIN, here.home.clock, 1), [])
    row = (await asks("GET", f"/mailings/{row['id']}")).json()
    assert (row["at_least"], row["at_most"], row["relayed"], row["doubted"]) == (0, 2, 0, 2)


async def test_a_mailing_to_other_peoples_lists_is_404(here: Stage) -> None:
    await held(here, NEWS)
    omar = await program(here, OMAR, Role.VIEWER)
    mailing_id = (await omar("GET", "/mailings")).json()["items"][0]["id"]
    asks = await program(here, DPO, Role.APPROVER)
    assert (await asks("GET", "/mailings")).json()["items"] == []
    for method, tail, body in [
        ("GET", "", None),
        ("POST", "/feedback", {"bounces": 1}),
        ("POST", "/stop", {}),
        ("POST", "/go-on", {}),
    ]:
        for id in (mailing_id, mailing_id[:3], "NOSUCH"):
            assert (await asks(method, f"/mailings/{id}{tail}", body)).status_code == 404


async def test_an_approved_mailing_is_rejected_or_reopened(here: Stage) -> None:
    asks = await program(here, EVA, Role.APPROVER)
    for what, body, state in (("reopen", {}, "held"), ("reject", {"comment": "Wrong text"}, "rejected")):
        hold_id = await held(here, NEWS, X_Mailing=what, Message_ID=f"<{what}@example.com>", body=f"Bacon {what}")
        seen = (await asks("GET", f"/held/{hold_id}")).json()["seen"]
        await asks("POST", f"/held/{hold_id}/approve", {"seen": seen, "reach": 2})
        mailing_id = (await asks("GET", f"/held/{hold_id}")).json()["mailing"]
        assert (await asks("GET", f"/mailings/{mailing_id}")).json()["state"] == "approved"
        done = await asks("POST", f"/mailings/{mailing_id}/{what}", body)
        assert (done.status_code, done.json()["state"], done.json()["approved"]) == (200, state, None)
        assert (await asks("POST", f"/mailings/{mailing_id}/reject", {})).status_code == 422, "not without a reason"
    assert (await asks("POST", f"/mailings/{mailing_id}/reject", {"comment": "Again"})).status_code == 409
