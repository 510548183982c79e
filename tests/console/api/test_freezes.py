"""Freezes through the API: set, lifted, and lifted by two people where the policy requires two."""

from __future__ import annotations

from datetime import timedelta

from smtpguard.accounts.model import Role, Scope
from tests.console.api.program import Program, program, tokens
from tests.console.holding import EVA, OMAR
from tests.console.stage import Stage


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
