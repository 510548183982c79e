"""The text of a held message, and questions and answers about it, through the API."""

from __future__ import annotations

import pytest

from smtpguard.accounts.model import Role
from tests.console.api.program import held, program
from tests.console.holding import ANNA, DPO, EVA, again, views
from tests.console.stage import Stage
from tests.guard.house import DOCUMENTS, RAMADAN


async def test_reading_the_text_is_allowed_by_the_policy_and_journalled(here: Stage) -> None:
    hold_id = await held(here, RAMADAN, body="A sentence that is only in the text")
    eva = await program(here, EVA, Role.APPROVER)
    read = await eva("GET", f"/held/{hold_id}/text")
    assert read.json()["text"].strip() == "A sentence that is only in the text"
    assert await views(here, await again(here, hold_id)) == [(EVA, "text")]


@pytest.mark.parametrize(
    ("who", "role"), [("vera@example.com", Role.VIEWER), (ANNA, Role.VIEWER), (DPO, Role.APPROVER)]
)
async def test_the_text_is_404_without_permission(here: Stage, who: str, role: Role) -> None:
    policy = DOCUMENTS["policy.yaml"].replace(
        b"approvals: {from: [communications]}\n",
        b"approvals: {from: [communications]}\npreviews: {compliance: reasons}\n",
    )
    await here.home.put({**DOCUMENTS, "policy.yaml": policy})
    await here.home.follow()
    hold_id = await held(here, RAMADAN)
    asks = await program(here, who, role)
    assert (await asks("GET", f"/held/{hold_id}/text")).status_code == 404
    assert await views(here, await again(here, hold_id)) == []


async def test_a_question_is_asked_answered_and_in_the_history(here: Stage) -> None:
    hold_id = await held(here, RAMADAN)
    eva, anna = await program(here, EVA, Role.APPROVER), await program(here, ANNA, Role.VIEWER)
    asked = await eva("POST", f"/held/{hold_id}/ask", {"question": "Did you mean the list?"})
    assert [(one["who"], one["words"]) for one in asked.json()["items"]] == [(EVA, "Did you mean the list?")]
    assert (await eva("POST", f"/held/{hold_id}/answer", {"words": "Yes"})).status_code == 403
    assert (await anna("POST", f"/held/{hold_id}/ask", {"question": "?"})).status_code == 403
    answered = await anna("POST", f"/held/{hold_id}/answer", {"words": "No, Lotta alone"})
    assert [one["words"] for one in answered.json()["items"]] == ["Did you mean the list?", "No, Lotta alone"]
    assert (await anna("POST", f"/held/{hold_id}/withdraw", {})).status_code == 200
    assert (await eva("POST", f"/held/{hold_id}/ask", {"question": "And now?"})).status_code == 409
    kinds = [one["kind"] for one in (await eva("GET", f"/held/{hold_id}/history")).json()["items"]]
    assert kinds[0] == "verdict"
    assert [kind for kind in kinds if kind in ("asked", "answered", "withdrawn")] == ["asked", "answered", "withdrawn"]
