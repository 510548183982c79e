"""Absences in the console: declared by the approver, confirmed by an admin, journalled, and in force at once."""

from __future__ import annotations

from datetime import timedelta

from smtpguard.accounts.model import Role
from tests.console.holding import DPO, DUTY, EVA, OMAR, held, text
from tests.console.stage import Browser, Stage
from tests.guard.house import DOCUMENTS, MONDAY

TODAY = MONDAY.date().isoformat()
LATER = (MONDAY + timedelta(days=4)).date().isoformat()


async def submit_absence(browser: Browser, **fields: str) -> str:
    await browser.get("/away")
    answer = await browser.post("/away", **{"since": TODAY, "until": LATER, "deputy": ""} | fields)
    return text(await browser.get("/away")) if answer.status_code == 303 else f"{answer.status_code} {text(answer)}"


async def test_a_deputy_of_the_same_group_decides_at_once(here: Stage) -> None:
    await here.home.put(DOCUMENTS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    said = await submit_absence(eva, deputy="Omar@example.com")
    assert "You are away 2 Mar to 6 Mar. omar@example.com is the deputy (communications)." in said
    omar = await here.signed_in(OMAR, Role.APPROVER)
    assert "You decide for eva@example.com until 6 Mar." in text(await omar.get("/away"))
    hold = await held(here)
    page = text(await omar.get(f"/held/{hold.hold_id}"))
    assert "Can decide: dpo@example.com, omar@example.com" in page
    assert "eva@example.com is away until 6 Mar, and omar@example.com decides for them." in page
    assert "omar@example.com decides for them" in text(await omar.get("/guide"))
    await eva.get("/away")
    await eva.post("/away/back")
    assert "You are away" not in text(await eva.get("/away"))
    assert (await eva.post("/away/back")).status_code == 409
    assert [event["change"] for event in await here.kinds("absence")] == ["away", "back"]


async def test_another_deputy_decides_after_an_admin_confirms(here: Stage) -> None:
    await here.home.put(DOCUMENTS)
    hold = await held(here)
    dpo = await here.signed_in(DPO, Role.APPROVER, Role.ADMIN)
    sten = await here.signed_in("sten@example.com", Role.APPROVER)
    admin = await here.signed_in("admin@example.com", Role.ADMIN)
    said = await submit_absence(dpo, deputy="sten@example.com")
    await submit_absence(dpo, deputy="sten@example.com")
    [told] = [i for i in await here.home.outbox() if (i.data or {}).get("notice") == "deputy"]
    assert str(told.recipients[0].address) == "admin@example.com", "once, and not to the admin who is away"
    assert (told.data["person"], told.data["deputy"], told.data["groups"]) == (DPO, "sten@example.com", ["compliance"])
    assert "sten@example.com is not in compliance, and can decide there only once an admin agrees." in said
    assert (await sten.get(f"/held/{hold.hold_id}")).status_code == 404
    both = {"person": DPO, "deputy": "sten@example.com"}
    answer = await dpo.post("/away/agree", **both)
    assert (answer.status_code, "another admin must do it" in text(answer)) == (409, True)
    await sten.get("/away")
    assert (await sten.post("/away/agree", **both)).status_code == 404, "for admins only"
    assert "dpo@example.com" in text(await admin.get("/away"))
    assert (await admin.post("/away/agree", **both | {"deputy": DUTY})).status_code == 409, "not the deputy she named"
    assert (await admin.post("/away/agree", **both)).status_code == 303
    assert (await sten.get(f"/held/{hold.hold_id}")).status_code == 200
    said = await submit_absence(dpo, deputy="sten@example.com", until=(MONDAY + timedelta(days=9)).date().isoformat())
    assert "only once an admin agrees" in said, "a longer absence needs a new confirmation"
    await admin.get("/away")
    assert (await admin.post("/away/refuse", **both)).status_code == 303
    assert "No deputy: the notices are not passed on." in text(await dpo.get("/away"))


async def test_an_invalid_absence_is_reported_beside_its_field(here: Stage) -> None:
    await here.home.put(DOCUMENTS)
    eva = await here.signed_in(EVA, Role.APPROVER)
    for fields, said in (
        ({"until": "2026-02-27"}, "The last day is before the first one."),
        ({"since": "2026-02-01", "until": "2026-02-27"}, "The last day is in the past."),
        ({"until": "2027-12-31"}, "The absence is longer than a year."),
        ({"until": "soon"}, "Not a day."),
        ({"deputy": EVA}, "You cannot be your own deputy"),
        ({"deputy": "stranger@example.org"}, "This person is in no group"),
        ({"deputy": "@"}, "Not an address."),
    ):
        answer = await submit_absence(eva, **fields)
        assert answer.startswith("400 ")
        assert said in answer
    assert await here.kinds("absence") == []
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    assert (await vera.get("/away")).status_code == 404
