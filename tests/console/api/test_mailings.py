"""Mailings through the API: shown, reported on, and 404 for those who may not see their lists."""

from __future__ import annotations

from smtpguard.accounts.model import Role
from smtpguard.outbox.model import Delivered
from tests.console.api.program import held, program
from tests.console.holding import DPO, EVA, NEWS, OMAR
from tests.console.stage import Stage
from tests.guard.house import RAMADAN
from tests.mailings.test_copystatus import last


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
        await here.home.store.outbox.settle(lease, last(lease, Delivered.IN_DOUBT, here.home.clock, 1), [])
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
    for what, body, state in (
        ("reopen", {}, "held"),
        ("reject", {"comment": "Wrong text"}, "rejected"),
    ):
        hold_id = await held(here, NEWS, X_Mailing=what, Message_ID=f"<{what}@example.com>", body=f"Bacon {what}")
        seen = (await asks("GET", f"/held/{hold_id}")).json()["seen"]
        await asks("POST", f"/held/{hold_id}/approve", {"seen": seen, "reach": 2})
        mailing_id = (await asks("GET", f"/held/{hold_id}")).json()["mailing"]
        assert (await asks("GET", f"/mailings/{mailing_id}")).json()["state"] == "approved"
        done = await asks("POST", f"/mailings/{mailing_id}/{what}", body)
        assert (done.status_code, done.json()["state"], done.json()["approved"]) == (200, state, None)
        assert (await asks("POST", f"/mailings/{mailing_id}/reject", {})).status_code == 422, "not without a reason"
    assert (await asks("POST", f"/mailings/{mailing_id}/reject", {"comment": "Again"})).status_code == 409
