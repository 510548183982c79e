"""The forms of a person's own account, and of the admins' page of people."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pyotp
import pytest

from smtpguard.accounts.model import AccountChange, AccountKeys, Role
from smtpguard.console.pages.people import new_password
from smtpguard.console.people.credentials import SHORTEST, BadPassword, Factors, check_password
from tests.console.holding import text
from tests.console.stage import PASSWORD, Browser, Stage

EVA, OMAR = "eva@example.com", "omar@example.com"
NEW = "another password altogether"


# -- a person's own account


async def test_a_new_password_ends_all_sessions(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    answer = await browser.post("/me/password", current=PASSWORD, new=NEW, again=NEW)
    assert answer.headers["location"] == "/login?changed=1"
    assert "Sign in again" in (await browser.get("/login?changed=1")).text
    assert (await browser.get("/me")).status_code == 303
    assert (await here.browser().sign_in(EVA)).status_code == 401
    assert (await here.browser().sign_in(EVA, NEW)).status_code == 303
    assert [e["change"] for e in (await here.kinds("account"))] == ["added", "password"]


@pytest.mark.parametrize(
    ("current", "new", "again", "status", "said"),
    [
        ("wrong", NEW, NEW, 403, "That is not your password."),
        (PASSWORD, NEW, NEW + "x", 400, "The two new passwords are not the same."),
        (PASSWORD, "short", "short", 400, f"The password must have at least {SHORTEST} characters."),
        (PASSWORD, "x" * 300, "x" * 300, 400, "The password may have at most 256 characters."),
        (PASSWORD, "aaaaaaaaaaaaaa", "aaaaaaaaaaaaaa", 400, "The password needs more different characters."),
    ],
)
async def test_a_refused_password_gives_the_reason(
    here: Stage, current: str, new: str, again: str, status: int, said: str
) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    answer = await browser.post("/me/password", current=current, new=new, again=again)
    assert answer.status_code == status
    assert said in html.unescape(answer.text)
    assert (await browser.get("/me")).status_code == 200
    assert new not in answer.text or new == "short"


async def test_after_many_wrong_passwords_the_right_one_is_refused(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    for _ in range(8):
        await browser.post("/me/password", current="guess", new=NEW, again=NEW)
    assert (await browser.post("/me/password", current=PASSWORD, new=NEW, again=NEW)).status_code == 403


@pytest.mark.parametrize("password", ["eva-2026-03", "Eva12345!!"])
def test_an_own_address_is_no_valid_password(password: str) -> None:
    with pytest.raises(BadPassword):
        check_password(password, address="eva-2026@example.com" if "2026" in password else "eva12345@example.com")


def test_full_width_characters_are_accepted() -> None:
    check_password("ＡＢＣＤＥＦＧＨＩＪ", address=EVA)  # ten full-width characters
    check_password("a long sentence about nothing", address=EVA)
    check_password(new_password(), address=EVA)


async def turned_on(here: Stage, browser: Browser) -> list[str]:
    page = await browser.get("/me/factor")
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page.text)
    assert secret is not None
    totp = pyotp.TOTP(secret[1].replace(" ", ""))
    answer = await browser.post(
        "/me/factor", sealed=browser.hidden("sealed"), code=totp.at(here.home.clock.now()), password=PASSWORD
    )
    assert answer.status_code == 200, answer.text
    return re.findall(r"<code>([a-z0-9-]+)</code>", answer.text)


async def test_a_second_factor_is_turned_on_and_off(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    codes = await turned_on(here, browser)
    assert len(codes) == 10
    assert (await here.browser().sign_in(EVA)).status_code == 401
    browser = here.browser()
    assert (await browser.sign_in(EVA, code=codes[0])).status_code == 303
    await browser.get("/me")
    assert (await browser.post("/me/factor/off", password="wrong")).status_code == 403
    assert (await browser.post("/me/factor/off", password=PASSWORD)).status_code == 303
    assert (await here.browser().sign_in(EVA)).status_code == 303
    assert [e["change"] for e in (await here.kinds("account"))] == ["added", "second-factor", "second-factor-off"]


async def test_turning_on_a_second_factor_needs_code_and_password(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me/factor")
    sealed = browser.hidden("sealed")
    wrong = await browser.post("/me/factor", sealed=sealed, code="000000", password=PASSWORD)
    assert wrong.status_code == 400
    assert browser.hidden("sealed") == sealed  # the same QR code: it was read already
    assert (await browser.post("/me/factor", sealed=sealed, code="000000", password="wrong")).status_code == 403
    for other in ("rubbish", "", "å", Factors(b"x" * 32).new_secret(), sealed[:-4]):
        answer = await browser.post("/me/factor", sealed=other, code="000000", password=PASSWORD)
        assert answer.status_code == 400
    assert (await here.accounts.get(EVA)).totp == ""


async def test_a_language_is_chosen(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    assert (await browser.post("/me/language", language="tlh")).status_code == 400
    assert (await browser.post("/me/language", language="sv")).headers["location"] == "/me?done=done"
    assert "Ditt konto Det är klart." in text(await browser.get("/me?done=done"))
    assert "Logga ut" in (await browser.get("/me")).text


async def test_the_sign_in_page_follows_the_browsers_language(here: Stage) -> None:
    assert "Logga in" in (await here.browser().get("/login", **{"accept-language": "sv-SE,sv;q=0.9"})).text
    assert "Sign in" in (await here.browser().get("/login", **{"accept-language": "de"})).text


async def test_an_account_without_a_password_cannot_change_it(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    account = await here.accounts.get(EVA)
    await here.accounts._set(account, "x", "root", lambda a: replace(a, password="", subject="https://id u-1"))
    token, session = here.signing.sessions.new(account.account_id, how="sso")
    await here.home.store.people.turn(AccountKeys(), lambda found: AccountChange(begins=session))
    browser.http.cookies.set("__Host-smtpguard", token, domain="guard.example.com")
    page = await browser.get("/me")
    assert 'action="/me/password"' not in page.text
    assert (await browser.post("/me/password", current="", new=NEW, again=NEW)).status_code == 400
    assert (await browser.get("/me/factor")).status_code == 400


# -- the admins' page


async def test_mismatched_accounts_and_groups_are_listed(here: Stage) -> None:
    await here.person("sven@example.com", Role.APPROVER)  # in no group
    await here.person(OMAR, Role.VIEWER)  # in an approving group, without the role
    gone = await here.person("dpo@example.com", Role.APPROVER)
    await here.accounts.disable(gone, by="root")
    admin = await here.signed_in(EVA, Role.ADMIN, Role.APPROVER)
    said = text(await admin.get("/people"))
    assert "sven@example.com has the approver's role and is in no group of the policy" in said
    assert "omar@example.com is asked to decide (communications) and has an account without the approver's role" in said
    assert "dpo@example.com is asked to decide (compliance) and has an account that is disabled" in said
    assert "duty@example.com is asked to decide (duty) and has no account" in said
    assert "eva@example.com is asked" not in said


async def test_a_new_account_gets_a_password_shown_once(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.ADMIN)
    await browser.get("/people")
    answer = await browser.post("/people", address="Omar@Example.com", name="Omar", roles=["approver", "viewer"])
    password = re.search(r"<code>([\w-]+)</code>", answer.text)
    assert password is not None
    assert password[1] not in (await browser.get("/people")).text
    assert (await here.browser().sign_in(OMAR, password[1])).status_code == 303
    assert (await here.accounts.get(OMAR)).roles == (Role.VIEWER, Role.APPROVER)
    added = [e for e in await here.events() if e.data.get("change") == "added"][-1]
    assert added.private["actor"] == (EVA,)
    assert password[1] not in str(await here.events())


@pytest.mark.parametrize(("address", "status"), [(EVA, 409), ("nobody", 400), ("", 400)])
async def test_invalid_accounts_are_refused(here: Stage, address: str, status: int) -> None:
    browser = await here.signed_in(EVA, Role.ADMIN)
    await browser.get("/people")
    assert (await browser.post("/people", address=address)).status_code == status


async def test_an_account_without_a_password_waits_for_single_sign_on(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.ADMIN)
    await browser.get("/people")
    assert (await browser.post("/people", address=OMAR, sso="yes")).status_code == 303
    assert "waits for single sign-on" in (await browser.get("/people")).text
    assert (await here.browser().sign_in(OMAR, "")).status_code == 401


async def test_every_change_takes_effect_and_is_journalled(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.ADMIN)
    omar = await here.signed_in(OMAR, Role.VIEWER)
    account = await here.accounts.get(OMAR)
    await turned_on(here, omar)
    await browser.get("/people")
    at = f"/people/{account.account_id}"
    assert (await browser.post(f"{at}/roles", roles=["operator"])).status_code == 303
    assert (await here.accounts.get(OMAR)).roles == (Role.OPERATOR,)
    assert (await browser.post(f"{at}/factor-off")).status_code == 303
    assert (await browser.post(f"{at}/factor-off")).status_code == 409
    await browser.get("/people")
    made = await browser.post(f"{at}/password")
    password = re.search(r"<code>([\w-]+)</code>", made.text)
    assert password is not None
    assert (await here.browser().sign_in(OMAR, password[1])).status_code == 303
    await browser.get("/people")
    assert (await browser.post(f"{at}/disable")).status_code == 303
    assert (await here.browser().sign_in(OMAR, password[1])).status_code == 401
    assert (await browser.post(f"{at}/enable")).status_code == 303
    assert (await here.browser().sign_in(OMAR, password[1])).status_code == 303
    assert (await browser.post(f"{at}/roles")).status_code == 303
    assert (await here.accounts.get(OMAR)).roles == ()
    assert [e["change"] for e in (await here.kinds("account"))][2:] == [
        "second-factor", "roles", "second-factor-off", "password", "disabled", "enabled", "roles",
    ]  # fmt: skip


async def test_the_last_admin_keeps_the_role(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.ADMIN)
    await browser.get("/people")
    at = f"/people/{(await here.accounts.get(EVA)).account_id}"
    assert (await browser.post(f"{at}/disable")).status_code == 409
    assert (await browser.post(f"{at}/roles", roles=["viewer"])).status_code == 409
    assert (await browser.post(f"{at}/roles", roles=["admin", "approver"])).status_code == 303


async def test_an_unknown_account_is_404(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.ADMIN)
    await browser.get("/people")
    assert (await browser.post("/people/NOSUCH/disable")).status_code == 404


async def test_every_change_says_that_it_is_done(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.APPROVER, Role.ADMIN)
    omar = await here.accounts.add(OMAR, roles=[Role.APPROVER], password=PASSWORD, by="root")
    await eva.get("/away")
    today = here.home.clock.now().date().isoformat()
    for path, fields in (
        ("/away", {"since": today, "until": today}),
        ("/away/back", {}),
        (f"/people/{omar.account_id}/disable", {}),
        ("/people", {"address": "new@example.com", "sso": "yes"}),
    ):
        answer = await eva.post(path, **fields)
        assert "It is done." in text(await eva.get(answer.headers["location"])), path


async def test_markup_in_a_name_is_escaped(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.ADMIN)
    await here.accounts.add(OMAR, roles=[], name="<script>alert(1)</script>", by="root")
    text = (await browser.get("/people")).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
