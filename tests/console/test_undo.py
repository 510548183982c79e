"""Undo: no approval is a single click, the page shows until when it can be undone, and no link approves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.holds.model import State
from smtpguard.lists.index import index_path
from smtpguard.notices.links import Link, Links
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, held, text
from tests.console.stage import Browser, Stage
from tests.guard.house import DOCUMENTS, KEY, MEMBERS


@pytest.fixture(autouse=True)
def one_minute_delay(here: Stage) -> None:
    here.delay(60)


async def open_hold(here: Stage, who: str, hold: Any) -> Browser:
    browser = await here.signed_in(who, Role.APPROVER)
    assert (await browser.get(f"/held/{hold.hold_id}")).status_code == 200
    return browser


async def votes(browser: Browser, hold: Any, choice: str = "approve", **fields: str) -> Any:
    names = ("content", "envelope", "policy", "scope", "copies", "people")
    bound = {name: browser.hidden(name) for name in names if f'name="{name}"' in browser.page}
    return await browser.post(f"/held/{hold.hold_id}/vote", choice=choice, **(bound | fields))


async def approved_hold(here: Stage) -> Any:
    """A hold that both groups have just approved."""
    hold = await held(here)
    await here.home.approve(hold.hold_id)
    return await here.home.hold(hold.hold_id)


async def test_an_approval_needs_two_clicks_and_a_rejection_one(here: Stage) -> None:
    hold = await held(here)
    eva, dpo = await open_hold(here, EVA, hold), await open_hold(here, DPO, hold)
    asked = await votes(eva, hold)
    said = text(asked)
    assert asked.status_code == 200
    assert (await here.home.hold(hold.hold_id)).votes == ()
    for each in (
        "Approve it?",
        "What your approval covers",
        "It is for 60 people.",
        "After your approval it still needs 1 of compliance",
    ):
        assert each in said, each
    again_ = {name: eva.hidden(name) for name in ("content", "envelope", "policy", "scope", "copies")}
    sent = await eva.post(f"/held/{hold.hold_id}/vote", choice="approve", sure="yes", **again_)
    assert sent.status_code == 303
    await dpo.get(f"/held/{hold.hold_id}")
    said = text(await votes(dpo, hold))
    for each in ("Send it to 60 people?", "It is sent 1 minute after your approval", "Yes, send it to 60 people"):
        assert each in said, each
    assert (await here.home.hold(hold.hold_id)).release_at is None
    other = await held(here, NEWS)
    omar = await open_hold(here, OMAR, other)
    assert (await votes(omar, other, "reject")).status_code == 303
    assert (await here.home.hold(other.hold_id)).state is State.REJECTED


async def test_the_page_shows_the_release_time_and_undoes(here: Stage) -> None:
    hold = await approved_hold(here)
    browser = await open_hold(here, OMAR, hold)
    said = text(await browser.get(f"/held/{hold.hold_id}"))
    assert "Approved: it goes out at 09:01:00" in said
    assert 'data-seconds="60.0"' in browser.page
    assert "Send to 60 people" not in said
    answer = await browser.post(f"/held/{hold.hold_id}/unvote")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/held/{hold.hold_id}?done=undone")
    said = text(await browser.get(answer.headers["location"]))
    assert "It is undone. Nothing was sent, and it waits for a decision again." in said
    assert "goes out at" not in said
    now = await here.home.hold(hold.hold_id)
    assert (now.state, now.release_at) == (State.WAITING, None)


async def test_a_viewer_sees_the_time_but_cannot_undo(here: Stage) -> None:
    hold = await approved_hold(here)
    vera = await here.signed_in("vera@example.com", Role.VIEWER)
    said = text(await vera.get(f"/held/{hold.hold_id}"))
    assert "Approved: it goes out at 09:01:00" in said
    assert "Until 09:01:00 those who decide, and its writer, can undo that." in said
    assert f'action="/held/{hold.hold_id}/unvote"' not in vera.page
    assert (await vera.post(f"/held/{hold.hold_id}/unvote")).status_code == 403
    assert (await here.home.hold(hold.hold_id)).release_at is not None


@pytest.mark.parametrize("signed_in", [True, False])
async def test_the_writer_undoes_or_withdraws(signed_in: bool, here: Stage) -> None:
    hold = await approved_hold(here)
    link = Links(KEY).sign(Link(hold_id=hold.hold_id, address=ANNA, until=here.home.clock.now() + timedelta(days=1)))
    anna = await here.signed_in(ANNA) if signed_in else here.browser()
    base = f"/held/{hold.hold_id}" if signed_in else f"/mine/{link}"
    said = text(await anna.get(base))
    assert "It was approved, and goes out soon, exactly as you wrote it." in said
    assert "Approved: it goes out at 09:01:00" in said
    assert "Withdraw it: it is never sent" in said
    assert (await here.home.hold(hold.hold_id)).release_at is not None, "a GET request changes nothing"
    answer = await anna.post(f"{base}/unvote")
    assert answer.headers["location"] == f"{base}?done=undone"
    assert (await here.home.hold(hold.hold_id)).release_at is None


async def test_the_list_shows_the_release_time_and_undo(here: Stage) -> None:
    hold = await approved_hold(here)
    omar = await here.signed_in(OMAR, Role.APPROVER)
    said = text(await omar.get("/held"))
    assert "goes out at 09:01:00" in said
    assert f'formaction="/held/{hold.hold_id}/unvote"' in omar.page


async def test_under_a_freeze_no_view_says_that_it_goes_out(here: Stage) -> None:
    hold = await approved_hold(here)
    await here.home.freeze()
    omar, anna = await open_hold(here, OMAR, hold), await here.signed_in(ANNA)
    pages = (omar, f"/held/{hold.hold_id}"), (omar, "/held"), (anna, f"/held/{hold.hold_id}"), (anna, "/mine")
    page, rows, own, mine = [text(await browser.get(path)) for browser, path in pages]
    for said in (page, rows, own, mine):
        assert "goes out at" not in said
        assert "data-seconds" not in said
    for said in (page, own):
        assert "Approved: it goes out once thawed" in said
        assert (
            "It goes out when this is thawed: everything (frozen by root, Mon 2 Mar at 09:00). Until 09:01:00 you can"
            in said
        )
    assert "goes out once thawed Undo" in rows
    assert "approved, can still be undone , frozen" in mine
    await here.home.approvals().unvote(hold.hold_id, approver=OMAR, by="test")
    await here.home.approvals().withdraw(hold.hold_id, sender=ANNA, by="test")
    assert "Nothing waits. As of" in text(await omar.get("/held")), "all is not well"


async def test_a_mailing_that_can_still_be_undone_is_approved(here: Stage) -> None:
    hold = await held(here)
    ola = await here.signed_in("ola@example.com", Role.OPERATOR, Role.APPROVER)
    states = {
        "It waits for a decision.": "Look at it and decide",
        "It is approved, and can still be undone.": "Look at it",
    }
    for state, action in states.items():
        if action == "Look at it":
            await here.home.approve(hold.hold_id)
        assert f"{state} {action} People reached" in text(await ola.get(f"/mailings/{hold.mailing_id}"))
        assert state in text(await ola.get("/mailings"))
        await ola.get("/incident")
        assert f"60 held. {state}" in text(await ola.post("/incident", id=hold.hold_id))
    await here.home.approvals().unvote(hold.hold_id, approver=EVA, by="test")
    assert "It waits for a decision." in text(await ola.get(f"/mailings/{hold.mailing_id}"))


async def test_nobody_is_asked_before_an_approval_that_is_given(here: Stage) -> None:
    hold = await held(here)
    eva = await open_hold(here, EVA, hold)
    assert "Ask its writer first" in text(await eva.get(f"/held/{hold.hold_id}"))
    await here.home.approve(hold.hold_id)
    assert "Ask its writer first" not in text(await eva.get(f"/held/{hold.hold_id}"))


async def test_after_the_delay_the_page_says_approved(here: Stage) -> None:
    hold = await approved_hold(here)
    eva = await open_hold(here, EVA, hold)
    here.home.clock.pass_(seconds=60)
    assert "Approved: it goes out now" in text(await eva.get(f"/held/{hold.hold_id}"))
    assert "data-seconds" not in eva.page
    await here.home.approvals().enact()
    assert (await eva.post(f"/held/{hold.hold_id}/unvote")).status_code == 409


async def test_a_decision_on_several_shows_the_release_time(here: Stage) -> None:
    hold = await held(here)
    await here.home.approve(hold.hold_id, EVA)
    dpo = await here.signed_in(DPO, Role.APPROVER)
    await dpo.get("/held")
    asked = await dpo.post("/decide", choice="approve", hold=hold.hold_id)
    assert "they are sent up to 1 minute later; until then you can undo it" in text(asked)
    seen = f"{hold.hold_id}:{hold.content_sha256}:{hold.envelope.sha256}:60:{hold.scope_text}"
    done = await dpo.post("/decided", choice="approve", seen=seen, number="1", policy=dpo.hidden("policy"))
    said = text(done)
    assert "You can undo this until they are sent" in said
    assert "goes out at 09:01:00" in said
    assert (await dpo.post(f"/held/{hold.hold_id}/unvote")).status_code == 303


async def test_the_journal_shows_approval_and_undo(here: Stage) -> None:
    hold = await approved_hold(here)
    await here.home.approvals().unvote(hold.hold_id, approver=OMAR, by="test", comment="Look again")
    eva = await open_hold(here, EVA, hold)
    said = text(await eva.get(f"/history/{hold.hold_id}"))
    assert "A vote: approve, it can be undone until 09:01:00 (UTC)" in said
    assert "A vote: taken back" in said


async def test_an_unknown_number_of_people_is_never_shown_as_exact(here: Stage) -> None:
    """A list without an index may have any number of members from the policy's minimum on, and any recipient may be one."""
    index_path(here.home.folder, "news").unlink()
    here.home.in_force = here.home.build(DOCUMENTS)
    by_address, singly = await held(here, NEWS), await held(here, *MEMBERS[:30], To="x@example.com")
    eva = await open_hold(here, EVA, singly)
    assert "News : between 0 and 30 people who are on it, addressed singly" in text(
        await eva.get(f"/held/{singly.hold_id}")
    )
    said = text(await eva.get(f"/held/{by_address.hold_id}"))
    assert "on its way to at least 1 person on News." in said
    for each in (
        "News : at least 1 person on the list",
        "Send to at least 1 person",
        "How many people it reaches is not known",
    ):
        assert each in said, each
    asked = await votes(eva, by_address)
    for each in ("Yes, send it to at least 1 person", "How many people it reaches is not known"):
        assert each in text(asked), each
    names = ("content", "envelope", "policy", "scope", "copies", "people")
    sure = {name: eva.hidden(name) for name in names}
    assert (await eva.post(f"/held/{by_address.hold_id}/vote", choice="approve", sure="yes", **sure)).status_code == 303
    assert "It is for at least 1 person." in text(await eva.get(f"/held/{by_address.hold_id}"))
    assert "1 of 1 vote, yours too" in text(await eva.get("/held"))


async def test_its_writer_may_rate_it_while_its_approval_can_be_undone(here: Stage) -> None:
    """The notice of the approval asks for it."""
    hold = await approved_hold(here)
    anna, until = here.browser(), here.home.clock.now() + timedelta(days=1)
    path = f"/mine/{Links(KEY).sign(Link(hold_id=hold.hold_id, address=ANNA, until=until))}"
    assert "Was it right to stop it?" in text(await anna.get(path))
    assert (await anna.post(f"{path}/judge", said="right")).status_code == 303
