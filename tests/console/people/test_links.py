"""The signed link in a writer's notice: it opens one message, for a limited time, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from smtpguard.accounts.model import Role
from smtpguard.holds.model import State
from smtpguard.notices.links import Link, Links
from tests.console.holding import ANNA, NEWS, held
from tests.console.stage import Stage
from tests.guard.house import KEY


def link(here: Stage, hold_id: str, address: str = ANNA, **more: timedelta) -> str:
    until = here.home.clock.now() + more.get("good_for", timedelta(days=1))
    return "/mine/" + Links(KEY).sign(Link(hold_id=hold_id, address=address, until=until))


async def state(here: Stage, hold_id: str) -> State:
    return (await here.home.hold(hold_id)).state


async def test_opening_shows_the_message_and_acting_needs_the_form(here: Stage) -> None:
    hold_id = (await held(here, NEWS)).hold_id
    at, browser = link(here, hold_id), here.browser()
    page = await browser.get(at)
    assert page.status_code == 200
    assert "SV: lunch" in page.text
    assert (await browser.post(f"{at}/withdraw", csrf="0" * 40)).status_code == 403
    assert await state(here, hold_id) is State.WAITING
    assert (await browser.post(f"{at}/withdraw", comment="Sorry")).status_code == 303
    assert await state(here, hold_id) is State.WITHDRAWN


async def test_a_link_opens_only_its_message(here: Stage) -> None:
    hold_id = (await held(here, NEWS)).hold_id
    other = (
        await held(here, NEWS, body="Another one altogether, about the budget of next year", Subject="Budget")
    ).hold_id
    browser = here.browser()
    await browser.get(link(here, hold_id))
    for path in (f"/held/{other}", f"/held/{hold_id}", "/held", "/me", "/people", "/still", "/history", "/policy"):
        answer = await browser.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login"), path
    assert (await browser.post(f"/held/{other}/withdraw")).status_code in (303, 404)
    assert await state(here, other) is State.WAITING


@pytest.mark.parametrize("what", ["expired", "changed", "another installation", "rubbish"])
async def test_an_invalid_link_is_refused(here: Stage, what: str) -> None:
    hold_id = (await held(here, NEWS)).hold_id
    good = link(here, hold_id)
    bad = {
        "expired": link(here, hold_id, good_for=timedelta(0)),
        "changed": good[:-2] + "AA",
        "another installation": "/mine/"
        + Links(b"x" * 32).sign(Link(hold_id=hold_id, address=ANNA, until=here.home.clock.now() + timedelta(days=1))),
        "rubbish": "/mine/rubbish",
    }[what]
    browser = here.browser()
    page = await browser.get(bad)
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/mine&link=1")
    assert "This link is not valid, or has expired." in (await browser.get(page.headers["location"])).text
    await browser.get("/login")
    assert (await browser.post(f"{bad}/withdraw")).status_code in (303, 404)
    assert await state(here, hold_id) is State.WAITING


async def test_an_invalid_link_leads_a_person_who_is_signed_in_to_their_messages(here: Stage) -> None:
    """Sign-in sends them on, and must not send them back to the link."""
    browser = await here.signed_in("eva@example.com", Role.APPROVER)
    there = (await browser.get("/mine/rubbish")).headers["location"]
    assert (await browser.get(there)).headers["location"] == "/mine"
    assert (await browser.get("/mine")).status_code == 200


async def test_a_link_is_refused_if_the_writer_is_another_address(here: Stage) -> None:
    """A link opens nothing if the hold's writer is another address: it proves control of a mailbox only."""
    hold_id = (await held(here, NEWS)).hold_id
    at, browser = link(here, hold_id, "omar@example.com"), here.browser()
    assert (await browser.get(at)).status_code == 404
    await browser.get("/login")
    assert (await browser.post(f"{at}/withdraw")).status_code == 404
    assert await state(here, hold_id) is State.WAITING


async def test_a_link_cannot_decide(here: Stage) -> None:
    hold_id = (await held(here, NEWS)).hold_id
    at, browser = link(here, hold_id, "eva@example.com"), here.browser()
    assert (await browser.get(at)).status_code == 404
    await browser.get("/login")
    for path in (f"{at}/vote", f"/held/{hold_id}/vote", "/freeze", "/decide"):
        answer = await browser.post(path, choice="approve", selector="all", reason="x")
        assert answer.status_code in (303, 404, 405), path
    assert await state(here, hold_id) is State.WAITING


async def test_a_form_cannot_be_used_by_another_browser(here: Stage) -> None:
    hold_id = (await held(here, NEWS)).hold_id
    at, anna, mallory = link(here, hold_id), here.browser(), here.browser()
    await anna.get(at)
    await mallory.get(at)
    assert (await mallory.post(f"{at}/withdraw", csrf=anna.csrf)).status_code == 403


async def test_a_signed_in_person_acts_by_the_link_as_the_writer(here: Stage) -> None:
    hold_id = (await held(here, NEWS)).hold_id
    browser = await here.signed_in("eva@example.com", Role.APPROVER)
    at = link(here, hold_id)
    await browser.get(at)
    await browser.post(f"{at}/withdraw", comment="x")
    withdrawn = [c for e, c in await here.home.store.journal.history(hold_id) if e.kind == "withdrawn"]
    assert withdrawn[0] is not None
    assert withdrawn[0]["actor"][0] == ANNA
