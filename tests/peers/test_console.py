"""The console in a real Chromium: from the notice to the decision, by keyboard only, on a phone, in both languages,
with a hostile message, with two approvers at once. axe-core finds no serious accessibility violation."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pyotp
import pytest
import pytest_asyncio
from playwright.async_api import FilePayload, Locator, Page, expect

from smtpguard.accounts.model import AccountChange, AccountKeys, Role
from smtpguard.database.errors import Unavailable
from smtpguard.holds.model import Choice, State
from smtpguard.journal.event import NOTICES
from smtpguard.notices.links import Link, Links
from smtpguard.notices.notice import Notice, NoticeHead, NoticeTemplates
from smtpguard.policy.freezing import Selector
from tests.console.holding import ANNA, DPO, EVA, NEWS, OMAR, held, hostile
from tests.console.stage import PASSWORD
from tests.guard.house import KEY, MEMBERS, RAMADAN
from tests.notices.test_notice import render, texts
from tests.peers.browsing import DESKTOP, PHONES, Site, missing, signs_in, site, violations
from tests.returns.mails import letter

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
APPROVER, VIEWER, ADMIN = Role.APPROVER, Role.VIEWER, Role.ADMIN
OSKAR = "oskar@example.com"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def web(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("console")) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def leaving(web: Site) -> AsyncIterator[None]:
    yield
    await web.leave()


async def another(web: Site, name: str, *to: str, **more: Any) -> Any:
    """A message that is a copy of no other."""
    web.here.home.clock.pass_(seconds=1)
    return await held(web.here, *to, Subject=f"SV: {name}", Message_ID=f"<{name}@example.com>", **more)


async def link_in_notice(web: Site, hold_id: str, kind: str, to: str) -> str:
    """The link in the notice that this person gets about the hold."""
    intents = [i for i in await web.here.home.outbox() if i.hold_id == hold_id and i.data.get("notice") == kind]
    intent = next(i for i in intents if str(i.recipients[0].address) == to)
    templates = NoticeTemplates(NoticeHead(sender="guard@example.com", console_url=web.url))
    at = datetime(2026, 3, 2, tzinfo=UTC)
    raw = templates.render(
        Notice(id="n", to=intent.recipients[0].address, data=intent.data, language="en", at=at)
    ).decode("utf-8", "replace")
    found = re.search(re.escape(web.url) + r"/held/\w+", raw.replace("=\r\n", ""))
    assert found, raw
    return found[0]


async def test_from_the_notice_to_the_decision(web: Site) -> None:
    hold = await another(web, "story", RAMADAN)
    where = await link_in_notice(web, hold.hold_id, "approve", EVA)
    await web.account(EVA, APPROVER)
    page = await web.visitor()
    await page.goto(where)
    await expect(page).to_have_title(re.compile("Sign in"))
    await signs_in(page, EVA)
    assert page.url == where  # the page of the link
    await expect(page.get_by_role("heading", name="SV: story", exact=True)).to_be_visible()
    await expect(
        page.get_by_text("A reply between colleagues, on its way to 60 people on Ramadan greetings.")
    ).to_be_visible()
    await page.locator("summary", has_text="Why, in detail").click()
    await expect(page.get_by_text("Mail between colleagues never goes to a customer list.")).to_be_visible()
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("button", name="Yes, approve it").click()
    await expect(page.get_by_role("status")).to_contain_text("Your approval counts.")
    await expect(page.get_by_role("status")).to_be_focused()  # so it is read out
    other = await web.signed_in(DPO, APPROVER)
    await other.goto(where)
    await other.get_by_role("button", name="Send to 60 people").click()
    await other.get_by_role("button", name="Yes, send it to 60 people").click()
    await expect(other.get_by_text("It is being sent.")).to_be_visible()
    assert (await web.here.home.hold(hold.hold_id)).state is State.APPROVED


async def tabs_to(page: Page, wanted: str, most: int = 60) -> None:
    """Press Tab until an element of this name has the focus."""
    names = []
    for _ in range(most):
        await page.keyboard.press("Tab")
        name = await page.evaluate(
            "(e => (e.labels && e.labels[0] || e).textContent.trim().replace(/\\s+/g, ' '))(document.activeElement)"
        )
        if name.startswith(wanted):
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"nobody sees that {name} has the focus"
            return
        names.append(name)
    raise AssertionError(f"no Tab came to {wanted}: {names}")


async def test_decisions_by_keyboard_only(web: Site) -> None:
    hold = await another(web, "keyboard", NEWS)
    with_account = await web.signed_in(EVA, APPROVER)  # creates the account
    await with_account.close()
    page = await web.visitor()
    await page.goto("/login")
    await expect(page.locator("#address")).to_be_focused()
    await page.keyboard.type(EVA)
    await page.keyboard.press("Tab")
    await page.keyboard.type("a password that is long")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    await tabs_to(page, "Skip to the content", most=1)
    await tabs_to(page, "Waiting")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    await tabs_to(page, "Skip to the content", most=1)
    await page.keyboard.press("Enter")
    await tabs_to(page, "SV: keyboard")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    await tabs_to(page, "Why is it rejected?")
    await page.keyboard.type("Not this list")
    await page.keyboard.press("Tab")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("It is rejected")
    assert (await web.here.home.hold(hold.hold_id)).state is State.REJECTED


async def test_why_a_sign_in_failed_is_read_out(web: Site) -> None:
    page = await web.visitor()
    await page.goto("/login")
    await page.locator("#address").fill(EVA)
    await page.locator("#password").fill("another password")
    await page.keyboard.press("Enter")
    password = page.locator("#password")
    await expect(password).to_have_accessible_description(re.compile("^Sign-in failed"))
    await expect(password).to_be_focused()


async def test_freeze_and_thaw_by_the_pages(web: Site) -> None:
    page = await web.signed_in(OMAR, APPROVER)
    await page.goto("/policy")
    await page.get_by_role("link", name="Emergency stop").click()
    await page.get_by_label("Reason (everyone who sees the banner reads it)").fill("the wrong list")
    await page.get_by_role("button", name="Freeze now").click()
    await expect(page.get_by_text("Nothing of it is sent from now on.")).to_be_visible()
    await page.goto("/held")
    await expect(page.get_by_role("region", name="Frozen")).to_contain_text("everything (the wrong list)")
    await page.get_by_role("link", name="See what is stopped").click()
    await page.get_by_role("link", name="Thaw: everything").click()
    await expect(page.get_by_role("heading", name="What goes out with it")).to_be_visible()
    await page.get_by_role("button", name=re.compile("^Thaw")).click()
    await expect(page.get_by_text("Nothing. Mail is going.")).to_be_visible()


async def test_a_long_reason_of_a_freeze_leaves_room_for_the_page(web: Site) -> None:
    assert web.here.console is not None
    freezes = web.here.console.freezes
    made = await freezes.freeze(Selector.SENDER, ANNA, reason="The wrong mail is going out. " * 20, by=OMAR)
    page = await web.signed_in(OMAR, APPROVER)
    await page.set_viewport_size(PHONES[0])
    await page.goto("/held")
    await expect(page.get_by_role("heading", name="Waiting for a decision")).to_be_in_viewport(ratio=1)
    await expect(page.get_by_role("link", name="See what is stopped")).to_be_in_viewport(ratio=1)
    box = await page.get_by_role("region", name="Frozen").bounding_box()
    assert box is not None
    assert box["height"] <= 200
    await freezes.thaw(made.freeze.freeze_id, by=OMAR)


async def test_an_approved_message_is_frozen_and_rejected(web: Site) -> None:
    hold = await another(web, "mistake", NEWS)
    await web.here.home.freeze(id="mistake")
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/held/{hold.hold_id}")
    await page.get_by_role("button", name="Send to 2 people once thawed").click()
    await page.get_by_role("button", name="Yes, send it to 2 people").click()
    await expect(page.get_by_role("status")).to_contain_text("Your approval counts.")
    await expect(page.get_by_text("It goes out when this is thawed: everything (frozen by root")).to_be_visible()
    back = page.get_by_role("button", name="Reject it after all, send to nobody")
    await back.click()  # the browser requires a reason first
    assert (await web.here.home.hold(hold.hold_id)).state is State.APPROVED
    await page.get_by_label("Reason (its writer and the approvers read it)").fill("The wrong list")
    async with page.expect_navigation():
        await back.click()
    await expect(page.get_by_text("It was rejected. It is not sent, and never will be.")).to_be_visible()
    await web.here.home.thaw("mistake")
    assert (await web.here.home.hold(hold.hold_id)).state is State.REJECTED
    left = await web.here.home.outbox()
    assert not [intent for intent in left if intent.hold_id == hold.hold_id and "notice" not in intent.data]


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A web server on loopback that must get no request."""
    heard: list[bytes] = []

    async def hears(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(200))
        writer.close()

    server = await asyncio.start_server(hears, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


async def test_a_hostile_message_loads_nothing(web: Site) -> None:
    async with canary() as (there, heard):
        hold = await hostile(web.here, there, Message_ID="<hostile@example.com>")
        page = await web.signed_in(EVA, APPROVER)
        asked: list[str] = []
        page.context.on("request", lambda request: asked.append(request.url))
        page.on("dialog", _no_dialog)
        await page.goto(f"/held/{hold.hold_id}")
        assert await page.title() == '<script>alert("x")</script> · smtpguard'
        await page.locator("summary", has_text="As it looks").click()
        frame = page.frame_locator("iframe")
        await expect(frame.get_by_text("good")).to_be_visible()
        await expect(frame.get_by_role("img", name="a picture from inside")).to_be_visible()
        for name in ("A link", "Another"):
            await frame.get_by_text(name, exact=True).click()  # the link does nothing
        await expect(frame.get_by_text("good")).to_be_visible()
        alone = await page.context.new_page()  # the frame outside its page
        await alone.goto(f"/held/{hold.hold_id}/html")
        await alone.get_by_text("A link", exact=True).click()
        async with page.expect_download() as coming:
            await page.get_by_role("link", name=re.compile("onerror")).click()
        download = await coming.value
        assert (await download.path()).read_bytes() == b"<script>alert(1)</script>"
        assert [url for url in asked if not url.startswith((f"{web.url}/", "data:"))] == []
        assert any(url.endswith("/html") for url in asked)
    assert heard == []


ARABIC = "\u0623\u0643\u0644"  # "he ate"


async def test_text_from_right_to_left_is_read_in_its_order(web: Site) -> None:
    """Each line of a text in its own direction; a file's name ends with its kind."""
    body = (
        "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        f"{ARABIC} bacon {ARABIC} 3 pork.\r\nHej bacon\r\n--b\r\nContent-Type: application/pdf\r\n"
        f"Content-Disposition: attachment; filename*=UTF-8''{quote(ARABIC)}.pdf\r\n\r\nx\r\n--b--\r\n"
    )
    hold = await another(
        web, "right to left", NEWS, body=body, MIME_Version="1.0", Content_Type="multipart/mixed; boundary=b"
    )
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/held/{hold.hold_id}")
    letter, name = page.locator(".letter").first, page.locator(".attachments a")
    assert await _left_of(letter, "3") < await _left_of(letter, ARABIC)
    assert await _left_of(letter, "Hej") < await _left_of(letter, "bacon", last=True)
    assert await _left_of(name, ARABIC) < await _left_of(name, "pdf")


async def _left_of(shown: Locator, word: str, *, last: bool = False) -> float:
    """Where the first (or last) such word of a text begins, in pixels from the left."""
    script = """(shown, [word, last]) => {
      const walk = document.createTreeWalker(shown, NodeFilter.SHOW_TEXT), found = [];
      for (let each; each = walk.nextNode();) for (let at = -1; (at = each.data.indexOf(word, at + 1)) >= 0;) found.push([each, at]);
      const [node, at] = found.at(last ? -1 : 0), range = document.createRange();
      range.setStart(node, at); range.setEnd(node, at + word.length);
      return range.getBoundingClientRect().left;
    }"""
    return float(await shown.evaluate(script, [word, last]))


def _no_dialog(dialog: Any) -> None:
    raise AssertionError(f"a script of the message ran: {dialog.message}")


async def approved_hold(web: Site, name: str) -> Any:
    """A hold that all approvers have just approved. It is sent in a minute."""
    hold = await another(web, name, RAMADAN)
    web.here.delay(60)
    await web.here.home.approve(hold.hold_id)
    web.here.delay(0)
    return await web.here.home.hold(hold.hold_id)


async def test_an_approval_counts_down_and_is_undone(web: Site) -> None:
    hold = await approved_hold(web, "undo")
    await web.account(OMAR, APPROVER)
    page = await web.visitor()
    await page.clock.install()
    await page.goto("/login")
    await signs_in(page, OMAR)
    await page.goto("/held?q=undo")
    await expect(page.get_by_text("goes out at")).to_be_visible()
    await page.get_by_role("link", name="SV: undo").click()
    count = page.locator(".leaving .count")
    await expect(count).to_have_text(re.compile(r"[01]:\d\d"))
    await page.clock.run_for(20_000)
    await expect(count).to_have_text(re.compile(r"0:[0-4]\d"))
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_role("status")).to_contain_text("It is undone. Nothing was sent")
    assert (await web.here.home.hold(hold.hold_id)).release_at is None


async def test_back_and_reload_show_how_it_stands_now(web: Site) -> None:
    """They neither ask to send a form again, nor say again what was done before."""
    hold = await another(web, "back", NEWS)
    page = await web.signed_in(EVA, APPROVER)
    where = f"{web.url}/held/{hold.hold_id}"
    await page.goto(where)
    web.here.delay(60)
    await page.get_by_role("button", name="Send to 2 people").click()
    await page.get_by_role("button", name="Yes, send it to 2 people").click()
    web.here.delay(0)
    await expect(page.get_by_role("status")).to_contain_text("Your approval counts.")
    for go in (page.reload, page.go_back, page.go_back, page.go_forward, page.go_forward):
        await go()
        assert page.url == where
        await expect(page.get_by_text("It is being sent.")).to_be_visible()
        await expect(page.get_by_text("Your approval counts.")).to_have_count(0)
    for _ in range(2):  # a refused form
        await page.get_by_label("Reason (its writer and the approvers read it)").evaluate("e => e.required = false")
        await page.get_by_role("button", name="Reject it after all, send to nobody").click()
        await expect(page.get_by_role("alert")).to_contain_text("see below why")
        await page.reload()
        assert page.url == where


async def test_without_scripts_the_release_time_is_shown(web: Site) -> None:
    hold = await approved_hold(web, "no-script")
    await web.account(OMAR, APPROVER)
    page = await web.visitor(java_script_enabled=False)
    await page.goto("/login")
    await signs_in(page, OMAR)
    await page.goto(f"/held/{hold.hold_id}")
    await expect(page.get_by_role("heading", name="Approved: it goes out at")).to_be_visible()
    await expect(page.locator(".leaving .count")).to_have_text("")
    await page.get_by_role("button", name="Undo").click()
    assert (await web.here.home.hold(hold.hold_id)).release_at is None


async def test_after_the_delay_the_page_shows_the_release(web: Site) -> None:
    hold = await approved_hold(web, "over")
    await web.account(OMAR, APPROVER)
    page = await web.visitor()
    await page.clock.install()
    await page.goto("/login")
    await signs_in(page, OMAR)
    await page.goto(f"/held/{hold.hold_id}")
    await expect(page.locator(".leaving .count")).to_have_text(re.compile(r"[01]:\d\d"))
    web.here.home.clock.pass_(minutes=1)
    assert await web.here.home.approvals().enact()
    await page.clock.run_for(62_000)
    await expect(page.get_by_text("It is being sent.")).to_be_visible()


async def test_undo_is_on_the_first_screen(web: Site) -> None:
    hold = await approved_hold(web, "first")
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/held/{hold.hold_id}")
    for size in (DESKTOP, PHONES[0]):
        await page.set_viewport_size(size)
        await expect(page.get_by_role("button", name="Undo")).to_be_in_viewport(ratio=1)
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    await web.here.home.approvals().unvote(hold.hold_id, approver=EVA, by="a test")


async def test_new_holds_appear_automatically(web: Site) -> None:
    page = await web.visitor()
    await page.clock.install()
    await web.account("vera@example.com", VIEWER)
    await page.goto("/login")
    await signs_in(page, "vera@example.com")
    await page.goto("/held?q=meanwhile")
    await expect(page.get_by_text("Nothing that waits matches.")).to_be_visible()
    await another(web, "meanwhile", NEWS)
    await page.clock.fast_forward(10_500)
    await expect(page.get_by_role("link", name="SV: meanwhile")).to_be_visible()


async def test_a_refresh_keeps_a_selection(web: Site) -> None:
    await another(web, "choosing-one", NEWS)
    await web.account(EVA, APPROVER)
    page = await web.visitor()
    await page.clock.install()
    await page.goto("/login")
    await signs_in(page, EVA)
    await page.goto("/held?q=choosing")
    await page.get_by_role("checkbox", name="Choose: SV: choosing-one").check()
    await another(web, "choosing-two", NEWS)
    await page.clock.fast_forward(10_500)
    await page.get_by_role("button", name="Reject selected").click()
    await expect(page.get_by_role("heading", name="Reject 1 message?")).to_be_visible()
    await page.get_by_label("Why? The writers read it.").fill("Wrong list")
    await page.get_by_role("button", name="Reject 1 message").click()
    await expect(page.get_by_role("status")).to_contain_text("1 message is rejected.")


async def test_a_refresh_stays_where_the_reader_is(web: Site) -> None:
    """Also while a row has the focus, as after choosing it and thinking better of it."""
    for n in range(6):
        await another(web, f"staying-{n}", NEWS)
    await web.account(EVA, APPROVER)
    page = await web.visitor()
    await page.clock.install()
    await page.set_viewport_size({"width": 360, "height": 300})
    await page.goto("/login")
    await signs_in(page, EVA)
    await page.goto("/held?q=staying")
    pick = page.get_by_role("checkbox", name="Choose: SV: staying-0")
    await pick.check()
    await pick.uncheck()
    await page.evaluate("scrollTo(0, 350)")
    await another(web, "staying-6", NEWS)
    await page.clock.fast_forward(10_500)
    await expect(page.get_by_role("link", name="SV: staying-6")).to_be_attached()
    await expect(pick).to_be_focused()
    assert await page.evaluate("scrollY") == 350


async def test_the_second_click_of_a_double_click_decides_nothing(web: Site) -> None:
    """What decides on the next page may be where the first click was."""
    hold = await another(web, "double", NEWS)
    await web.here.home.freeze(id="double")
    page = await web.signed_in(EVA, APPROVER)
    moments = await page.context.new_cdp_session(page)
    await moments.send("Animation.enable")
    await moments.send("Animation.setPlaybackRate", {"playbackRate": 0})  # each page is at its first moment
    pressed = (
        "e => { const b = e.getBoundingClientRect(); return e.contains(document.elementFromPoint(b.x + 9, b.y + 9)); }"
    )
    await page.goto(f"/held/{hold.hold_id}")
    for name in ("Reject, send to nobody", "Send to 2 people once thawed"):
        assert not await page.get_by_role("button", name=name).evaluate(pressed)
    await page.locator("#approve").evaluate("form => form.requestSubmit()")
    assert not await page.get_by_role("button", name="Yes, send it to 2 people").evaluate(pressed)
    await page.goto("/thaw/double")
    thaw = page.get_by_role("button", name=re.compile("^Thaw"))
    assert not await thaw.evaluate(pressed)
    await moments.send("Animation.setPlaybackRate", {"playbackRate": 1})
    await thaw.click()
    await expect(page.get_by_text("Nothing. Mail is going.")).to_be_visible()


async def test_a_form_whose_sending_was_stopped_is_sent_again(web: Site) -> None:
    hold = await another(web, "stopping", NEWS)
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/held/{hold.hold_id}")
    browser, begun = await page.context.new_cdp_session(page), asyncio.Event()
    await page.route("**/vote", lambda route: begun.set())  # it gets no answer
    reject = page.get_by_role("button", name="Reject, send to nobody")
    await reject.click(no_wait_after=True)
    await begun.wait()
    await browser.send("Page.stopLoading")
    await page.unroute("**/vote")
    await expect(page.locator("#reject")).not_to_have_attribute("data-sent", "yes")
    await reject.click()
    await expect(page.get_by_role("status")).to_contain_text("It is rejected")


async def everything(web: Site, language: str) -> list[str]:
    """The paths of all pages, with content on each."""
    here = web.here
    long = f"Anna <{'anna' * 15}@example.com>"
    hold = await hostile(here, Message_ID=f"<everything-{language}@example.com>", Subject="SV: everything", sender=long)
    done = await another(web, f"done-{language}", NEWS)
    await here.home.approvals().withdraw(done.hold_id, sender=ANNA, by="a test")
    mailings = await here.home.store.mailings.newest(least=1, state=None, limit=1)
    assert here.console is not None
    await here.console.returns.take(
        letter("reader@example.org", f"SV: {done.subject}", f"<done-{language}@example.com>")
    )
    return [
        "/", "/held", "/held?state=new", "/journal?state=held", f"/held/{hold.hold_id}", f"/held/{done.hold_id}", "/history", f"/history/{hold.hold_id}", "/history/freezes",
        f"/incident?id={hold.hold_id}", "/mailings", f"/mailings/{mailings[0].mailing_id}", f"/mailings/{mailings[0].mailing_id}/returns", "/policy", "/guide", "/still",
        "/me", "/mine", "/away", "/approvers", "/people", "/held/NOSUCHHOLD",
    ]  # fmt: skip


async def test_both_buttons_are_always_in_view(web: Site) -> None:
    hold = await another(web, "view", RAMADAN, body="Bacon " * 2_000)
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/held/{hold.hold_id}")
    for size, scroll in itertools.product((DESKTOP, PHONES[0]), (0, 10_000)):
        await page.set_viewport_size(size)
        await page.evaluate(f"scrollTo(0, {scroll})")
        for name in ("Approve", "Reject, send to nobody"):
            await expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
        if not scroll:
            story = page.get_by_text("A reply between colleagues, on its way to 60 people")
            await expect(story).to_be_in_viewport(ratio=1)
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@pytest.mark.parametrize("language", ["en", "sv"])
async def test_a_phones_first_screen_has_the_link_of_every_notice(web: Site, language: str) -> None:
    data: dict[str, Any] = {
        "subject": "SV: " + "Diet" * 40,
        "answer_to": "vote+" + "A" * 60 + "@guard.example.com",
        "again": False,
    }
    page = await web.visitor()
    without = set()
    for kind in NOTICES:
        await page.set_viewport_size(PHONES[-1])
        await page.set_content(texts(render(kind, language, house={"console_url": web.url}, **data))[1])
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONES[-1]["width"], kind
        if not await page.locator("a").count():
            without.add(kind)
            continue
        box = await page.locator("a").first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 300, kind
    assert without == {"checkpoint", "list-well", "owner-digest", "rejected", "stream"}


LOOK = """wide => {
  const bad = [], width = document.documentElement.scrollWidth;
  if (width > innerWidth) bad.push(`${width} px wide`);
  if (!wide) for (const e of document.querySelectorAll('button, .button, nav a, input:not([type=hidden]), select, textarea, summary')) {
    const box = ((e.type === 'checkbox' || e.type === 'radio') && e.closest('label') || e).getBoundingClientRect();
    if (e.offsetParent && !e.closest('.hide') && box.height < 43.5) bad.push(`${box.height} px high: ${e.outerHTML.slice(0, 90)}`);
  }
  return bad;
}"""
"""What does not fit, or is too small to tap."""
FAINT = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = color => {
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const contrast = (a, b) => { const [low, high] = [light(a), light(b)].sort((x, y) => x - y); return (high + .05) / (low + .05); };
  const bad = [];
  for (const e of document.querySelectorAll('[placeholder]')) {
    const told = contrast(getComputedStyle(e, '::placeholder').color, getComputedStyle(e).backgroundColor);
    if (told < 4.5) bad.push(`${told}: ${e.outerHTML.slice(0, 90)}`);
  }
  for (const e of document.querySelectorAll('.qr')) {
    const [paper, dots] = e.querySelectorAll('path');
    if (contrast(getComputedStyle(paper).fill, getComputedStyle(dots).stroke) < 10 || e.offsetWidth < 200) bad.push('QR code');
  }
  return bad;
}"""
"""What axe-core does not see: placeholders, and the squares of a QR code."""


@pytest.mark.parametrize("language", ["en-GB", "sv-SE"])
async def test_every_page_is_accessible_and_fits(web: Site, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page has a serious accessibility violation, in light or dark. At no size is anything too wide; on a phone,
    nothing is too small to tap."""
    await web.account("adam@example.com", ADMIN, VIEWER)  # may see every page
    await web.account(EVA, APPROVER)
    await web.account(DPO, APPROVER)
    hold = await another(web, f"fit-{language}", NEWS)
    page = await web.visitor(language=language)
    link = Link(hold_id=hold.hold_id, address=ANNA, until=web.here.home.clock.now() + timedelta(days=1))
    await _examined(page, f"/mine/{Links(KEY).sign(link)}")
    await page.goto("/login/sso/back?error=access_denied")
    await page.get_by_role("alert").wait_for()
    await _examined(page)
    await signs_in(page, EVA)
    found = web.here.signing.sessions.find
    with monkeypatch.context() as away:
        away.setattr(web.here.signing.sessions, "find", _away)
        await _examined(page, "/held")
        away.setattr(web.here.signing.sessions, "find", found)
        away.setattr(web.here.app.state.console.provider, "begin", _begun)
        await page.goto("/me")
        await _pressed(page, "form[action='/me/sso'] button")
        await _examined(page)
    await _examined(page, f"/mailings/{await sent_mailing(web, language)}")  # with the form for its correction
    await _examined(page, f"/held/{hold.hold_id}")  # as an approver sees it
    await page.goto("/away")
    await page.locator("#until").fill(web.here.home.clock.now().date().isoformat())
    await page.locator("#deputy").fill(DPO)  # of another group: an admin has to agree
    await _pressed(page, "form[action='/away'] button")
    await _examined(page)
    await page.goto("/held")
    await page.locator("input[name=hold]").first.check()
    await page.locator("button[name=choice][value=approve]").click()
    await _examined(page)
    leaves = await approved_hold(web, f"leaves-{language}")
    for path in ("/held", f"/held/{leaves.hold_id}"):
        await _examined(page, path)
    link = Link(hold_id=leaves.hold_id, address=ANNA, until=web.here.home.clock.now() + timedelta(days=1))
    await _examined(page, f"/mine/{Links(KEY).sign(link)}")
    await web.here.home.approvals().unvote(leaves.hold_id, approver=EVA, by="a test")
    await page.goto(f"/held/{leaves.hold_id}")
    await page.locator("button[form=approve]").click()
    await page.locator("input[name=sure]").wait_for(state="attached")
    await _examined(page)
    await page.context.clear_cookies()
    await page.goto("/login")
    await signs_in(page, "adam@example.com")
    for path in await everything(web, language):
        await _examined(page, path)
    await page.goto("/policy/try")
    await page.locator("#text").fill(f"From: {ANNA}\nTo: {RAMADAN}\nSubject: SV: lunch\n\nBacon?\n")
    await _pressed(page, "form[action='/policy/try'] button")
    await _examined(page)
    await _frozen(web, language)
    await page.goto("/incident")
    await page.locator("#i-subject").fill("everything")
    await _pressed(page, "section.decide form[action='/incident'] button")
    await page.locator("article.report").wait_for()
    await _examined(page)
    assert await page.evaluate("document.documentElement.lang") == language[:2]
    await _examined(page, "/me/factor")
    code = pyotp.TOTP((await page.locator("code").inner_text()).replace(" ", "")).at(web.here.home.clock.now())
    await page.locator("#code").fill(code)
    await page.locator("#password").fill(PASSWORD)
    await _pressed(page, "main button")
    await _examined(page)  # the recovery codes
    code = await page.locator("code").first.inner_text()
    await page.goto("/login")
    await page.locator("#code").fill(code)
    await signs_in(page, "adam@example.com")
    await page.goto("/me")
    await page.locator("#off-password").fill(PASSWORD)
    await _pressed(page, "form[action='/me/factor/off'] button")


async def sent_mailing(web: Site, name: str) -> str:
    """The id of a mailing of which one person has a copy."""
    home = web.here.home
    headers = {"X_Looks": "mailing", "X_Mailing": name, "Message_ID": f"<sent-{name}@example.com>"}
    await home.send(MEMBERS[0], body=name, **headers)
    await home.store.journal.record([])  # outcomes are written with a later batch
    return next(m.mailing_id for m in await home.store.mailings.newest() if m.people.at_most)


async def _begun(*_: object, **__: object) -> tuple[str, str]:
    return "https://id.example.com/authorize", "sealed"


async def _away(*_: object, **__: object) -> None:
    raise Unavailable("the database is away")


async def _frozen(web: Site, language: str) -> None:
    """Pages of a freeze, and of an approved hold under it, for those who may revoke the approval."""
    hold = await another(web, f"frozen-{language}", RAMADAN)
    await web.here.home.freeze(id=language)
    approvals = web.here.home.approvals()
    await approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="a test")
    reader = await web.visitor(language=language)
    await reader.goto("/login")
    await signs_in(reader, DPO)
    await _examined(reader, f"/held/{hold.hold_id}")  # the last approver
    await approvals.vote(hold.hold_id, Choice.APPROVE, approver=DPO, by="a test")
    link = Link(hold_id=hold.hold_id, address=ANNA, until=web.here.home.clock.now() + timedelta(days=1))
    paths = (f"/held/{hold.hold_id}", "/history", f"/mailings/{hold.mailing_id}", f"/mine/{Links(KEY).sign(link)}", "/still", f"/thaw/{language}")  # fmt: skip
    for path in paths:
        await _examined(reader, path)
    await web.here.home.thaw(language)


async def _pressed(page: Page, button: str) -> None:
    async with page.expect_navigation():
        await page.locator(button).first.click()


async def _examined(page: Page, path: str = "") -> None:
    """Each page is loaded once. Both languages must fit at every size. Accessibility, which no language changes, is
    examined in English: light on a desktop, dark on a phone."""
    if path:
        await page.goto(path)
    await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    english = await page.evaluate("document.documentElement.lang") == "en"
    told: list[Any] = []
    for size in (PHONES[1], DESKTOP, PHONES[0]):
        await page.set_viewport_size(size)
        told += await page.evaluate(LOOK, size == DESKTOP)
        if english and size != PHONES[1]:
            await page.emulate_media(color_scheme="light" if size == DESKTOP else "dark")
            told += await page.evaluate(FAINT)
            told += await violations(page)
    assert told == [], page.url


async def ended(web: Site, address: str) -> None:
    """End all sessions of the person."""
    await web.here.home.store.people.turn(
        AccountKeys(address=address), lambda found: AccountChange(account=found[0], ends_all=True)
    )


async def test_typed_text_is_kept_when_the_session_ended(web: Site) -> None:
    hold = await another(web, "typed", NEWS)
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/held/{hold.hold_id}")
    await page.get_by_text("Ask its writer first").click()
    await page.get_by_label("Your question to").fill("Is this\nmeant for them?")
    await ended(web, EVA)
    await page.get_by_role("button", name="Send the question").click()
    await expect(page.get_by_text("what you typed is kept")).to_be_visible()
    assert "meant" not in page.url
    await signs_in(page, EVA)
    await expect(page.get_by_label("Your question to")).to_have_value("Is this\nmeant for them?")
    await expect(page.get_by_text("before you signed in again is here. Nothing was sent.")).to_be_visible()
    await page.get_by_role("button", name="Send the question").click()
    await expect(page.get_by_text("The question is on its way to its writer.")).to_be_visible()
    await expect(page.get_by_text("signed in again is here")).to_have_count(0)
    assert "smtpguard" not in await page.evaluate("Object.keys(sessionStorage).join()"), "submitted text is not kept"


async def test_typed_text_is_kept_when_another_tab_signed_in_again(web: Site) -> None:
    hold = await another(web, "tabs", NEWS)
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/held/{hold.hold_id}")
    await page.get_by_text("Ask its writer first").click()
    await page.get_by_label("Your question to").fill("Is this meant?")
    other = await page.context.new_page()
    await ended(web, EVA)
    await other.goto("/login")
    await signs_in(other, EVA)
    await page.get_by_role("button", name="Send the question").click()
    await expect(page.get_by_text("What you typed is kept")).to_be_visible()
    await page.get_by_role("link", name="Open it again").click()
    await expect(page.get_by_label("Your question to")).to_have_value("Is this meant?")
    await page.get_by_role("button", name="Send the question").click()
    await expect(page.get_by_text("The question is on its way to its writer.")).to_be_visible()


async def signs_in_again(web: Site, page: Page, field: str, who: str = EVA) -> None:
    """Send the form of this field after the session has ended, and sign in."""
    await ended(web, who)
    await page.locator("form", has=page.locator(field)).locator("button[type=submit]").last.click()
    await expect(page.get_by_text("what you typed is kept")).to_be_visible()
    await signs_in(page, who)
    await expect(page.get_by_text("Not found")).to_have_count(0)


async def test_typed_text_is_kept_where_a_form_led_to_the_page(web: Site) -> None:
    """The address of such a page takes forms alone, and what the form is about may first have to be chosen again."""
    hold = await another(web, "led", NEWS)
    page = await web.signed_in(EVA, APPROVER)

    async def chosen() -> None:
        await page.get_by_label("Choose: SV: led").check()
        await page.get_by_role("button", name="Reject selected").click()

    async def reported() -> None:
        await page.locator("#i-id").fill(hold.hold_id)
        await page.get_by_role("button", name="Make the report").click()

    await page.goto("/still")
    await page.locator("#reason").fill("wrong mail")
    await page.locator("#f-sender").fill("nobody")
    await page.get_by_role("button", name="Freeze now").click()
    await expect(page.get_by_text("Not an address")).to_be_visible()
    await signs_in_again(web, page, "#reason")
    await expect(page.locator("#reason")).to_have_value("wrong mail")
    await page.goto("/held")
    await chosen()
    await page.locator("#comment").fill("wrong list")
    await signs_in_again(web, page, "#comment")
    await chosen()
    await expect(page.locator("#comment")).to_have_value("wrong list")
    page = await web.signed_in(OSKAR, Role.OPERATOR)
    await page.goto("/incident")
    await reported()
    await page.locator("#b-contact").fill("the officer")
    await signs_in_again(web, page, "#b-contact", OSKAR)
    await reported()
    await expect(page.locator("#b-contact")).to_have_value("the officer")
    await expect(page.locator("#b-nature")).to_have_value("")


async def test_a_report_is_saved_in_one_form_after_the_other(web: Site) -> None:
    hold = await another(web, "files", NEWS)
    page = await web.signed_in(OSKAR, Role.OPERATOR)
    await page.goto(f"/incident?id={hold.hold_id}")
    await page.get_by_role("button", name="Make the report").click()
    for form in ("HTML", "JSON", "HTML"):
        async with page.expect_download() as saved:
            await page.get_by_role("button", name=form, exact=True).click()
        assert (await saved.value).suggested_filename.endswith(form.lower())


async def test_who_got_it_is_saved_for_one_file_after_the_other(web: Site) -> None:
    id = await sent_mailing(web, "saved")
    assert web.here.console is not None
    for who in (EVA, OMAR):
        await web.here.console.mailings.disclose(id, approver=who, by="test")
    page = await web.signed_in(EVA, APPROVER)
    await page.goto(f"/mailings/{id}")
    for member in MEMBERS[:2]:
        table = FilePayload(name="crm.csv", mimeType="text/csv", buffer=f"mail\n{member}\n".encode())
        await page.locator("#file").set_input_files(table)
        async with page.expect_download() as saved:
            await page.get_by_role("button", name="Save who got it (CSV)").click()
        assert (await saved.value).suggested_filename == f"{id}.csv"


async def test_a_list_whose_session_ended_says_so(web: Site) -> None:
    await another(web, "in one line", NEWS)
    await web.account(EVA, APPROVER)
    page = await web.visitor()
    await page.clock.install()
    await page.goto("/login")
    await signs_in(page, EVA)
    await page.goto("/held")
    await ended(web, EVA)
    await page.clock.fast_forward(10_500)
    await expect(page.get_by_text("You have been signed out.")).to_be_visible()
    await expect(page.get_by_label("Password")).to_have_count(0)
    await expect(page.get_by_role("heading", name="Waiting for a decision")).to_be_visible()
