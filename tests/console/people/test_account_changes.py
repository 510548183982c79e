"""Ends and changes of ways to sign in: idle sessions, deleted accounts, a change from password to single sign-on, a
second factor that a role requires."""

from __future__ import annotations

import re
from pathlib import Path

from smtpguard.accounts.model import Role
from smtpguard.console.people.credentials import qr_svg
from tests.console.holding import ANNA, EVA, OMAR, held, text
from tests.console.people.signon import SignOn
from tests.console.people.test_pages import turned_on
from tests.console.stage import URL, Browser, Stage, stage

REFRESH = {"hx-request": "true", "hx-target": "rows"}


async def test_automatic_refresh_does_not_keep_a_session_alive(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.APPROVER)
    for _ in range(12):
        here.home.clock.pass_(minutes=9)
        assert 'id="rows"' in (await eva.get("/held", **REFRESH)).text
    here.home.clock.pass_(minutes=13)  # two hours since the last action
    ended = await eva.get("/held", **REFRESH)
    assert ended.status_code == 200, "htmx would ignore another status"
    assert re.sub(r"<[^>]+>", "", ended.text).split() == ["You", "have", "been", "signed", "out.", "Sign", "in"]
    assert ended.text.startswith('<div id="rows">')
    assert "hx-get" not in ended.text, "it no longer refreshes"
    assert 'href="/login?next=/held"' in ended.text


async def test_actions_keep_a_session_alive(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.APPROVER)
    for _ in range(5):
        here.home.clock.pass_(minutes=110)
        assert (await eva.get("/held")).status_code == 200


async def test_after_the_session_ended_a_form_leads_to_sign_in_and_back(here: Stage) -> None:
    hold = await held(here)
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get(f"/held/{hold.hold_id}")
    here.home.clock.pass_(hours=3)
    there = f"/held/{hold.hold_id}"
    sent = await eva.post(f"{there}/ask", {"Referer": URL + there}, question="Is this meant?")
    assert (sent.status_code, sent.headers["location"]) == (303, f"/login?next={there}&ended=1")
    assert 'data-kept="What you typed is kept."' in (await eva.get(sent.headers["location"])).text
    assert "Is this meant" not in sent.headers["location"]
    again = await eva.post(f"{there}/ask", {"Referer": URL + there}, question="x")  # with the token of the sign-in page
    assert again.headers["location"] == f"/login?next={there}"
    other = await eva.post(f"{there}/ask", {"Referer": "https://elsewhere.example/x"}, question="x", csrf="another")
    assert other.headers["location"] == "/login?next=/&ended=1"


async def test_after_signing_out_in_another_tab_a_form_leads_to_sign_in_and_back(here: Stage) -> None:
    """The browser has dropped the cookie then, as it does when it is closed."""
    hold = await held(here)
    there = f"/held/{hold.hold_id}"
    eva = await here.signed_in(EVA, Role.APPROVER)
    await eva.get(there)
    typed = eva.csrf
    await eva.post("/logout")
    sent = await eva.post(f"{there}/ask", {"Referer": URL + there}, question="Is this meant?", csrf=typed)
    assert (sent.status_code, sent.headers["location"]) == (303, f"/login?next={there}&ended=1")


async def test_a_person_without_a_role_sees_their_own_mail(here: Stage) -> None:
    hold = await held(here)
    anna = await here.signed_in(ANNA)
    page = await anna.get("/mine")
    assert hold.subject in text(page)
    other = await here.signed_in("berit@example.com")
    assert "None of your messages is held." in text(await other.get("/mine"))
    for link in ('href="/mine"', 'href="/me"', 'action="/logout"'):
        assert link in page.text
    assert 'href="/mine"' in (await anna.get("/me")).text
    assert (await anna.post("/logout")).headers["location"] == "/login"
    assert (await anna.get("/mine")).status_code == 303


async def test_a_deleted_account_loses_its_sessions_and_stays_in_the_journal(here: Stage) -> None:
    omar = await here.signed_in(OMAR, Role.APPROVER)
    admin = await here.signed_in(EVA, Role.ADMIN)
    await admin.get("/people")
    account, own = await here.accounts.get(OMAR), await here.accounts.get(EVA)
    unsure = await admin.post(f"/people/{account.account_id}/delete")
    assert unsure.status_code == 409
    assert "Confirm it" in text(unsure)
    assert (await admin.post(f"/people/{own.account_id}/delete", sure="yes")).status_code == 409
    gone = await admin.post(f"/people/{account.account_id}/delete", sure="yes")
    assert gone.status_code == 303
    assert [a.address for a in await here.accounts.people.everybody()] == [EVA]
    assert (await omar.get("/held")).status_code == 303
    assert (await here.browser().sign_in(OMAR)).status_code == 401
    assert (await here.kinds("account"))[-1] == {"change": "deleted"}
    assert "omar@example.com is asked to decide (communications) and has no account" in text(await admin.get("/people"))
    again = await here.signed_in(OMAR, Role.VIEWER)
    assert (await again.get("/held")).status_code == 200, "the address is free again"


async def test_a_required_second_factor_is_set_up_first(tmp_path: Path) -> None:
    console = f"{{url: '{URL}', second_factor: {{required_for: [approver, admin]}}}}"
    async with stage(tmp_path, console=console) as here:
        viewer = await here.signed_in("vera@example.com", Role.VIEWER)
        assert (await viewer.get("/held")).status_code == 200
        eva = await here.signed_in(EVA, Role.APPROVER)
        for path in ("/held", "/policy", "/me", "/people"):
            answer = await eva.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/me/factor")
        asked = await eva.get("/me/factor")
        assert "Your role asks for a second factor" in text(asked)
        assert (await eva.post("/freeze", selector="all", reason="x")).headers["location"] == "/me/factor"
        assert (await here.home.store.gate.read()).freezes == ()
        codes = await turned_on(here, eva)
        assert (await eva.sign_in(EVA, code=codes[0])).status_code == 303
        assert (await eva.get("/held")).status_code == 200
        await eva.get("/me")
        off = await eva.post("/me/factor/off", password="a password that is long")
        assert off.status_code == 409
        assert (await here.accounts.get(EVA)).totp


def test_the_qr_code_is_dark_on_white_in_every_theme() -> None:
    picture = qr_svg("otpauth://totp/x")
    assert 'fill="#fff"' in picture
    assert '#000"' in picture


async def test_a_second_factor_has_a_link_for_this_device(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.VIEWER)
    page = (await eva.get("/me/factor")).text
    [link] = re.findall(r'href="(otpauth://totp/[^"]+)"', page)
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page)
    assert secret is not None
    assert f"secret={secret[1].replace(' ', '')}" in link


# -- from a password to single sign-on


async def begun(sso: SignOn) -> tuple[Browser, str]:
    browser = await sso.stage.signed_in(EVA, Role.APPROVER)
    await browser.get("/me")
    page = await browser.post("/me/sso")
    [where] = re.findall(r'<a class="button" href="([^"]+)"', page.text)
    return browser, sso.at.consents(where.replace("&amp;", "&"))


async def test_a_person_moves_to_single_sign_on(sso: SignOn) -> None:
    browser, back = await begun(sso)
    assert "Move to single sign-on" in text(await browser.get("/me"))
    done = await sso.comes_back(browser, back)
    assert done.headers["location"] == "/login?linked=1"
    account = await sso.eva()
    assert (account.subject, account.password, account.totp) == (f"{sso.at.issuer} u-17", "", "")
    assert (await sso.stage.browser().sign_in(EVA)).status_code == 401
    assert (await sso.signs_on()).status_code == 303
    assert len(await sso.stage.accounts.people.everybody()) == 1
    assert [e["change"] for e in (await sso.stage.kinds("account"))] == ["added", "single-sign-on"]


async def test_another_person_at_the_provider_is_refused(sso: SignOn) -> None:
    sso.at.claims = {"email": "other@example.com"}
    browser, back = await begun(sso)
    refused = await sso.comes_back(browser, back)
    assert refused.status_code == 409
    assert "has another address for you" in text(refused)
    assert (await sso.eva()).password


async def test_a_move_cannot_be_finished_by_another_session(sso: SignOn) -> None:
    browser, back = await begun(sso)
    await browser.get("/me")
    await browser.post("/logout")
    assert (await sso.comes_back(browser, back)).status_code == 401
    assert (await sso.eva()).password


async def test_an_admin_moves_an_account_to_single_sign_on(sso: SignOn) -> None:
    admin = await sso.stage.signed_in(OMAR, Role.ADMIN)
    account = await sso.stage.person(EVA, Role.APPROVER)
    await admin.get("/people")
    assert (await admin.post(f"/people/{account.account_id}/sso")).status_code == 303
    assert (await sso.stage.browser().sign_in(EVA)).status_code == 401
    assert (await sso.signs_on()).status_code == 303
    assert (await sso.eva()).account_id == account.account_id


async def test_without_a_provider_no_account_moves(here: Stage) -> None:
    admin = await here.signed_in(EVA, Role.ADMIN)
    account = await here.person(OMAR, Role.VIEWER)
    await admin.get("/people")
    assert (await admin.post(f"/people/{account.account_id}/sso")).status_code == 409
    assert (await here.accounts.get(OMAR)).password
