"""The writer's page to confirm a message, and what approvers see until it is confirmed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from smtpguard.accounts.model import Role
from smtpguard.holds.deadlines import REMINDERS
from smtpguard.holds.model import Change, Hold, Move, State
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Held
from tests.console.holding import ANNA, EVA, changed, text
from tests.console.stage import Browser, Stage
from tests.console.test_deciding import link_of
from tests.guard.asking import READERS, copy, put
from tests.guard.house import FakePassage


async def asked(here: Stage, n: int = 10, **more: Any) -> Hold:
    await put(here.home)
    transaction = copy(here.home, *READERS[:n], **more)
    await here.home.intake()(transaction, FakePassage())
    return await here.home.hold(transaction.id)


async def opened(here: Stage, hold: Hold) -> tuple[Browser, str]:
    """A browser without an account, and the path of the mail's link, opened in it."""
    browser, path = here.browser(), f"/mine/{link_of(here, hold)}"
    assert (await browser.get(path)).status_code == 200
    return browser, path


async def enters(browser: Browser, path: str, number: str) -> Any:
    bound = {name: browser.hidden(name) for name in ("content", "envelope")}
    return await browser.post(f"{path}/confirm", number=number, **bound)


async def test_the_right_number_releases_it(here: Stage) -> None:
    hold = await asked(here)
    browser, path = await opened(here, hold)
    page = text(await browser.get(path))
    assert "Is it meant to go to 10 people?" in page
    assert "on its way to 10 people." in page
    assert "If you do not confirm it within 4 hours, others decide." in page
    assert "Ask that it be sent" not in page
    done = await enters(browser, path, "10")
    assert (done.status_code, done.headers["location"]) == (303, f"{path}?done=confirmed")
    now = await here.home.hold(hold.hold_id)
    assert now.state is State.APPROVED
    [(_, data)] = [each for each in await here.home.events(hold.hold_id) if each[0] == "confirmed"]
    assert (data["people"], data["way"], data["proof"]) == (10, "link", "login")
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "Confirmed by its writer: by the link in its notice" in text(await eva.get(f"/history/{hold.hold_id}"))
    page = text(await browser.get(done.headers["location"]))
    assert "You confirmed it, and it is being sent exactly as you wrote it." in page
    assert "Is it meant to go" not in page


@pytest.mark.parametrize("state", [State.APPROVED, State.RELEASED, State.UNDELIVERED, State.IN_DOUBT])
@pytest.mark.parametrize("stopped", [False, True])
async def test_what_its_writer_confirmed_is_not_said_to_be_approved(here: Stage, state: State, stopped: bool) -> None:
    """To approvers and to its writer, also while a freeze stops it."""
    hold = await asked(here)
    browser, path = await opened(here, hold)
    await enters(browser, path, "10")
    eva = await here.signed_in(EVA, Role.APPROVER)
    await changed(here, hold, state=state, stopped_by="reject" * stopped)
    await here.home.freeze(Selector.ALL, "")
    for page in (text(await browser.get(path)), text(await eva.get(f"/held/{hold.hold_id}"))):
        assert "approved" not in page.partition("Why")[0].lower().replace("approvers", "")
    page = text(await eva.get(f"/mailings/{hold.mailing_id}"))
    assert "confirmed by anna@example.com: up to" in page
    assert "Its writer confirmed it." in page
    assert "No decision" not in page
    assert "approved by" not in page


async def test_a_wrong_number_releases_nothing(here: Stage) -> None:
    hold = await asked(here)
    browser, path = await opened(here, hold)
    for number in ("", "9", "11", "ten", "-10", "1" * 20):
        answer = await enters(browser, path, number)
        assert answer.status_code == 422, number
        assert "It was not sent: the number that was typed is not 10." in text(answer)
        assert "Nothing was done: see below why." in text(answer)
    assert (await here.home.hold(hold.hold_id)).asks_writer
    assert (await enters(browser, path, " 10 ")).status_code == 303


async def test_what_was_confirmed_and_taken_back_is_an_ordinary_hold(here: Stage) -> None:
    """Others decide on it, whether a freeze stops it or not."""
    hold = await asked(here)
    browser, path = await opened(here, hold)
    await enters(browser, path, "10")
    await here.home.freeze()
    eva = await here.signed_in(EVA, Role.APPROVER)
    page = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "Its writer confirmed it, Mon 2 Mar at 09:00." in page
    assert page.count("Take back what its writer confirmed") == 2
    assert here.console is not None
    await here.console.mailings.reopen(hold.mailing_id, approver=EVA, by="test")
    waits = text(await browser.get(path))
    assert "It has not been sent. It waits for approval." in waits
    assert "Nobody has decided yet." in text(await eva.get(f"/held/{hold.hold_id}"))
    await here.home.approve(hold.hold_id, EVA)
    await here.home.thaw()
    assert "It was approved, and is being sent exactly as you wrote it." in text(await browser.get(path))


async def test_what_its_client_sent_again_is_confirmed_by_its_writer(here: Stage) -> None:
    hold = await asked(here, Message_ID="<1@a>")

    def voided(hold: Hold) -> Change:
        return Change(hold=hold.moved(Move.VOID))

    await here.home.store.holds.change(hold.hold_id, voided)
    here.home.clock.pass_(minutes=1)
    transaction = copy(here.home, *READERS[:10], Message_ID="<1@a>")
    assert isinstance(await here.home.intake()(transaction, FakePassage()), Held)
    browser, path = await opened(here, hold)
    assert "It has not been sent yet. Is it meant?" in text(await browser.get(path))
    here.home.clock.pass_(minutes=1)
    await enters(browser, path, "10")
    assert "You confirmed it, and it is being sent" in text(await browser.get(path))


async def test_in_a_second_tab_it_is_already_confirmed(here: Stage) -> None:
    hold = await asked(here)
    (one, path), (two, _) = await opened(here, hold), await opened(here, hold)
    assert (await enters(one, path, "10")).status_code == 303
    late = await enters(two, path, "10")
    assert late.status_code == 409
    assert "Nothing was done: it has changed since you looked." in text(late)
    kinds = [kind for kind, _ in await here.home.events(hold.hold_id)]
    assert kinds.count("confirmed") == 1


async def test_copies_that_arrived_since_are_in_the_number(here: Stage) -> None:
    hold = await asked(here)
    browser, path = await opened(here, hold)
    await here.home.intake()(copy(here.home, READERS[10]), FakePassage())
    answer = await enters(browser, path, "10")
    assert answer.status_code == 422
    assert "Is it meant to go to 11 people?" in text(answer)
    assert "2 messages wait, and go together." in text(answer)
    assert (await enters(browser, path, "11")).status_code == 303


async def test_the_writer_withdraws_with_one_button(here: Stage) -> None:
    hold = await asked(here)
    browser, path = await opened(here, hold)
    assert (await browser.post(f"{path}/withdraw")).status_code == 303
    assert (await here.home.hold(hold.hold_id)).state is State.WITHDRAWN
    assert (await enters(browser, path, "10")).status_code == 409


async def test_a_writer_with_an_account_confirms_by_it(here: Stage) -> None:
    hold = await asked(here)
    anna, path = await here.signed_in(ANNA), f"/held/{hold.hold_id}"
    assert "Is it meant to go to 10 people?" in text(await anna.get(path))
    assert (await enters(anna, path, "10")).status_code == 303
    [(_, data)] = [each for each in await here.home.events(hold.hold_id) if each[0] == "confirmed"]
    assert data["way"] == "account"


async def test_approvers_see_that_the_writer_is_asked(here: Stage) -> None:
    hold = await asked(here)
    eva = await here.signed_in(EVA, Role.APPROVER)
    rows = await eva.get("/held")
    assert "its writer is asked" in text(rows)
    assert f'id="pick-{hold.hold_id}"' not in rows.text
    assert "0 messages wait for you. 1 message waits for others." in text(rows)
    assert "Waiting 1 none for you" in text(await eva.get("/")), "Overview says the same"
    assert "Nothing that waits matches." in text(await eva.get("/held?mine=1"))
    seer = await here.signed_in("vera@example.com", Role.VIEWER)
    assert "1 of 1 that wait" in text(await seer.get("/held?since=2026-01-01"))
    page = text(await eva.get(f"/held/{hold.hold_id}"))
    assert "Its writer is asked to confirm it. Nobody else can let it go. If they do not confirm it by" in page
    assert ", you are asked." in page
    assert "Send to 10 people" not in page
    bound = {name: eva.hidden(name) for name in ("content", "envelope", "policy")}
    forced = await eva.post(f"/held/{hold.hold_id}/vote", choice="approve", scope=hold.scope_text, people="10", **bound)
    assert forced.status_code == 409
    assert (await here.home.hold(hold.hold_id)).asks_writer
    done = await eva.post(f"/held/{hold.hold_id}/vote", choice="reject", comment="Not this", **bound)
    assert done.status_code == 303
    assert (await here.home.hold(hold.hold_id)).state is State.REJECTED


async def test_its_writer_reads_that_it_may_reach_more(here: Stage) -> None:
    hold = await asked(here)
    await changed(here, hold, reach_at_least=True)
    page = text(await (await here.signed_in(ANNA)).get(f"/held/{hold.hold_id}"))
    assert "How many people it reaches is not known" in page


async def test_its_writer_is_asked_until_it_expires(here: Stage) -> None:
    """That is not before its last reminder."""
    hold = await asked(here)
    assert hold.confirm is not None
    until = here.home.clock.now()
    await changed(here, hold, confirm=replace(hold.confirm, expires=True, until=until), expires_at=until)
    anna, path = await here.signed_in(ANNA), f"/held/{hold.hold_id}"
    page = text(await anna.get(path))
    assert "Its time is over, but its last reminder is still due: a decision counts." in page
    assert "It is meant: send to 10 people" in page
    await changed(here, hold, reminded=len(REMINDERS))
    page = text(await anna.get(path))
    assert "Its time is over: it is not sent." in page
    assert "It is meant: send to 10 people" not in page


async def test_approvers_see_what_expires_if_its_writer_does_not_confirm_it(here: Stage) -> None:
    hold = await asked(here)
    assert hold.confirm is not None
    await changed(here, hold, confirm=replace(hold.confirm, expires=True), expires_at=hold.confirm.until)
    page = text(await (await here.signed_in(EVA, Role.APPROVER)).get(f"/held/{hold.hold_id}"))
    assert re.search(r"If they do not confirm it by [^.]+, it is not sent\.", page)
    assert "you are asked" not in page


async def test_after_the_time_approvers_decide(here: Stage) -> None:
    hold = await asked(here)
    browser, path = await opened(here, hold)
    here.home.clock.pass_(hours=4)
    assert (await enters(browser, path, "10")).status_code == 409
    await here.home.approvals().sweep()
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "Send to 10 people" in text(await eva.get(f"/held/{hold.hold_id}"))
    page = text(await browser.get(path))
    assert "It waits for approval." in page
    assert "Ask that it be sent" in page


async def test_a_frozen_message_is_confirmed_but_not_sent(here: Stage) -> None:
    hold = await asked(here)
    await here.home.freeze(Selector.ALL, "")
    browser, path = await opened(here, hold)
    done = await enters(browser, path, "10")
    assert "You confirmed it, and it has not been sent yet." in text(await browser.get(done.headers["location"]))


async def test_the_page_is_in_swedish(here: Stage) -> None:
    hold = await asked(here)
    browser, path = await opened(here, hold)
    page = text(await browser.get(path, **{"Accept-Language": "sv"}))
    assert "Är det meningen att det ska gå till 10 personer?" in page
    assert "Om du inte svarar inom 4 timmar beslutar andra." in page


async def test_the_pages_describe_a_rule_that_asks(here: Stage) -> None:
    await put(here.home)
    eva = await here.signed_in(EVA, Role.APPROVER)
    assert "waits, and its writer is asked" in text(await eva.get("/policy"))
    for page in ("/", "/held", "/history", "/policy/try"):
        assert (await eva.get(page)).status_code == 200, page


async def test_the_incident_report_calls_no_confirmation_an_approval(here: Stage) -> None:
    """A further copy of what its writer confirmed passes, and no approver has seen it."""
    hold = await asked(here)
    browser, path = await opened(here, hold)
    await enters(browser, path, "10")
    later = copy(here.home, READERS[3])
    await here.home.intake()(later, FakePassage())
    admin = await here.signed_in(EVA, Role.ADMIN)
    await admin.get("/incident")
    said = text(await admin.post("/incident", id=later.id))
    assert "an earlier approval or confirmation let pass what a rule would have held" in said
