"""Sign-in and sign-out through the real pages: what succeeds, what fails, and what the answers must not reveal."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pyotp
import pytest

from smtpguard.accounts.model import Role
from smtpguard.console.people.credentials import Factors, Passwords
from smtpguard.console.people.signing import PER_CLIENT, PER_PAIR, WINDOW_SECONDS, RateLimit
from smtpguard.journal.event import Kind
from tests.clocks import Clock
from tests.console.stage import PASSWORD, Browser, Stage
from tests.guard.house import KEY

EVA = "eva@example.com"


def shown(text: str, browser: Browser) -> str:
    """The page without what differs at each visit."""
    return text.replace(browser.csrf, "")


async def test_the_right_password_signs_in(here: Stage) -> None:
    await here.person(EVA, Role.VIEWER)
    browser = here.browser()
    assert (await browser.get("/me")).headers["location"] == "/login?next=/me"
    answer = await browser.sign_in("Eva@Example.COM", next="/me")
    assert (answer.status_code, answer.headers["location"]) == (303, "/me")
    assert EVA in (await browser.get("/me")).text
    assert (await here.kinds("signed-in")) == [{"how": "password", "second_factor": False}]


async def test_the_cookie_is_bound_to_this_host(here: Stage) -> None:
    await here.person(EVA)
    answer = await here.browser().sign_in(EVA)
    cookies = answer.headers.get_list("set-cookie")
    session = next(c for c in cookies if c.startswith("__Host-smtpguard="))
    assert {"Path=/", "HttpOnly", "Secure", "SameSite=Lax"} == set(session.split("; ")[1:])
    assert not any("Domain" in c for c in cookies)


async def test_every_failed_sign_in_gets_the_same_answer(here: Stage) -> None:
    """No account, a wrong password, a disabled account and a wrong code get the same answer, and each is journalled."""
    await here.person(EVA)
    gone = await here.person("gone@example.com")
    await here.accounts.disable(gone, by="root")
    careful = await here.person("careful@example.com")
    await here.accounts.set_factor(careful, Factors(KEY).new_secret(), by="root")
    answers = []
    for address, password in [
        (EVA, "another password"), ("nobody@example.com", PASSWORD), ("gone@example.com", PASSWORD),
        ("careful@example.com", PASSWORD), ("no address at all", PASSWORD),
    ]:  # fmt: skip
        browser = here.browser()
        answer = await browser.sign_in(address, password)
        answers.append((answer.status_code, shown(answer.text, browser).replace(address, "")))
        assert "__Host-smtpguard=" not in str(answer.headers.get_list("set-cookie"))
    assert len(set(answers)) == 1
    assert answers[0][0] == 401
    whys = [refusal["why"] for refusal in (await here.kinds("sign-in-refused"))]
    assert whys == ["wrong password", "no such account", "disabled", "no code", "no such account"]


async def test_a_password_typed_as_address_is_not_journalled(here: Stage) -> None:
    await here.browser().sign_in("hunter2 my password", "x")
    refused = [e for e in await here.events() if e.kind is Kind.SIGN_IN_REFUSED]
    assert refused[0].private == {"client": ("192.0.2.7",)}
    assert "hunter2" not in str(refused)


async def test_unknown_accounts_take_as_much_work(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt compares one argon2 hash and makes one commit, whether or not the account exists."""
    compared: list[bool] = []
    compare = here.passwords._compare

    def counted(hashed: Any, password: Any) -> Any:
        compared.append(bool(hashed))
        return compare(hashed, password)

    monkeypatch.setattr(here.passwords, "_compare", counted)
    await here.person(EVA)
    for address in (EVA, "nobody@example.com"):
        await here.browser().sign_in(address, "a wrong password")
    assert compared == [True, False]
    assert len(await here.kinds("sign-in-refused")) == 2


async def test_signing_in_ends_the_former_session(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    before = browser.http.cookies["__Host-smtpguard"]
    page = await browser.get("/me")
    assert page.status_code == 200
    answer = await browser.post("/login", address=EVA, password=PASSWORD)
    assert answer.status_code == 303
    assert browser.http.cookies["__Host-smtpguard"] != before
    other = here.browser()
    other.http.cookies.set("__Host-smtpguard", before, domain="guard.example.com")
    assert (await other.get("/me")).status_code == 303


async def test_signing_out_ends_the_session_in_the_store(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    token = browser.http.cookies["__Host-smtpguard"]
    await browser.get("/me")
    await browser.post("/logout")
    other = here.browser()
    other.http.cookies.set("__Host-smtpguard", token, domain="guard.example.com")
    assert (await other.get("/me")).status_code == 303
    assert len(await here.kinds("signed-out")) == 1


@pytest.mark.parametrize(("idle", "alive"), [(119, True), (121, False)])
async def test_an_idle_session_expires(here: Stage, idle: int, alive: bool) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    here.home.clock.pass_(minutes=idle)
    assert (await browser.get("/me")).status_code == (200 if alive else 303)


async def test_a_session_has_a_maximum_age(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    for _ in range(11):
        here.home.clock.pass_(hours=1)
        assert (await browser.get("/me")).status_code == 200
    here.home.clock.pass_(hours=1)
    assert (await browser.get("/me")).status_code == 303


async def test_last_seen_is_saved_at_intervals_and_survives_a_restart(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    here.home.clock.pass_(minutes=90)
    await browser.get("/me")
    await here.signing.sessions.write()
    here.signing.sessions._seen.clear()  # as in another process, without this cache
    here.home.clock.pass_(minutes=60)
    assert (await browser.get("/me")).status_code == 200
    here.signing.sessions._seen.clear()
    here.home.clock.pass_(minutes=61)
    assert (await browser.get("/me")).status_code == 303
    await here.signing.sessions.write()
    assert await count(here, "session") == 0


async def count(here: Stage, table: str) -> int:
    found: int = await here.home.store.ask(lambda c: c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
    return found


# -- a second factor


async def with_factor(here: Stage) -> tuple[pyotp.TOTP, list[str]]:
    account = await here.person(EVA, Role.VIEWER)
    sealed = Factors(KEY).new_secret()
    codes = await here.accounts.set_factor(account, sealed, by="root")
    return pyotp.TOTP(Factors(KEY).unsealed(sealed)), codes


async def test_a_code_is_accepted_once(here: Stage) -> None:
    totp, _ = await with_factor(here)
    now = totp.at(here.home.clock.now())
    assert (await here.browser().sign_in(EVA, code=f"{now[:3]} {now[3:]}")).status_code == 303
    assert (await here.browser().sign_in(EVA, code=now)).status_code == 401
    here.home.clock.pass_(seconds=30)
    assert (await here.browser().sign_in(EVA, code=totp.at(here.home.clock.now()))).status_code == 303


async def test_of_concurrent_uses_of_one_code_one_succeeds(here: Stage) -> None:
    totp, _ = await with_factor(here)
    code = totp.at(here.home.clock.now())
    answers = await asyncio.gather(*(here.browser().sign_in(EVA, code=code) for _ in range(4)))
    assert sorted(a.status_code for a in answers) == [303, 401, 401, 401]


@pytest.mark.parametrize("off", [-90, -60, 60, 90])
async def test_a_code_of_another_time_is_refused(here: Stage, off: int) -> None:
    totp, _ = await with_factor(here)
    code = totp.at(int(here.home.clock.now().timestamp()) + off)
    assert (await here.browser().sign_in(EVA, code=code)).status_code == 401


async def test_a_recovery_code_is_accepted_once_in_any_spelling(here: Stage) -> None:
    _, codes = await with_factor(here)
    assert (await here.browser().sign_in(EVA, code=codes[3].upper().replace("-", " "))).status_code == 303
    assert (await here.browser().sign_in(EVA, code=codes[3])).status_code == 401
    assert (await here.browser().sign_in(EVA, code=codes[4])).status_code == 303


async def test_secrets_are_not_stored_in_clear(here: Stage) -> None:
    totp, codes = await with_factor(here)
    doc = await here.home.store.ask(lambda c: c.exec_driver_sql("SELECT doc FROM account").scalar_one())
    assert totp.secret not in doc
    assert not any(code in doc or code.replace("-", "") in doc for code in codes)
    assert PASSWORD not in doc


# -- rate limits


async def tries(here: Stage, n: int, *, address: str = EVA, client: str = "198.51.100.9") -> list[int]:
    browser = here.browser(client=client)
    await browser.get("/login")
    return [(await browser.post("/login", address=address, password=f"guess {k}")).status_code for k in range(n)]


async def test_guessing_is_limited_and_the_answer_says_for_how_long(here: Stage) -> None:
    await here.person(EVA)
    assert await tries(here, PER_PAIR + 1) == [401] * PER_PAIR + [429]
    answer = await here.browser(client="198.51.100.9").sign_in(EVA)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS
    here.home.clock.pass_(seconds=WINDOW_SECONDS)
    assert (await here.browser(client="198.51.100.9").sign_in(EVA)).status_code == 303


async def test_guessing_at_an_unknown_account_is_limited_the_same(here: Stage) -> None:
    await here.person(EVA)
    assert await tries(here, PER_PAIR + 1) == await tries(here, PER_PAIR + 1, address="nobody@example.com")


async def test_guesses_by_others_do_not_lock_an_account(here: Stage) -> None:
    """Guesses by others do not lock an account: its owner can sign in from another network, and in the same one with a
    known browser."""
    known = await here.signed_in(EVA)
    await known.get("/me")
    await known.post("/logout")
    await tries(here, PER_PAIR + 1)
    assert (await here.browser(client="203.0.113.5").sign_in(EVA)).status_code == 303
    await tries(here, PER_PAIR + 1, client="192.0.2.7")
    assert (await here.browser().sign_in(EVA)).status_code == 429
    assert (await known.sign_in(EVA)).status_code == 303


async def test_a_known_browser_gets_no_more_attempts(here: Stage) -> None:
    known = await here.signed_in(EVA)
    await known.get("/login")
    await known.get("/me")
    seen = [(await known.post("/login", address=EVA, password="wrong")).status_code for _ in range(PER_PAIR + 1)]
    assert seen == [401] * PER_PAIR + [429]


async def test_a_browser_known_for_one_account_is_unknown_for_another(here: Stage) -> None:
    mallory = await here.signed_in("mallory@example.com", Role.VIEWER)
    await here.person(EVA)
    await mallory.get("/me")
    seen = [(await mallory.post("/login", address=EVA, password="wrong")).status_code for _ in range(PER_PAIR + 1)]
    assert seen[-1] == 429
    assert (await here.browser().sign_in(EVA)).status_code == 429  # counted by network, not by browser


async def test_one_client_is_limited_across_accounts(here: Stage) -> None:
    for n in range(PER_CLIENT):
        assert await tries(here, 1, address=f"person{n}@example.com") == [401]
    assert await tries(here, 1, address="last@example.com") == [429]
    assert await tries(here, 1, address="last@example.com", client="203.0.113.5") == [401]


def test_attempts_that_are_refused_take_no_memory(clock: Clock) -> None:
    limit = RateLimit(clock, most=2, seconds=60)
    limit.take("client")
    assert [limit.wait(f"account {n}") for n in range(100)] == [0.0] * 100
    assert list(limit._tries) == ["client"]
    limit.take("client")
    assert limit.wait("client") > 0


async def test_successful_sign_ins_do_not_count(here: Stage) -> None:
    await here.person(EVA)
    for _ in range(PER_PAIR + 2):
        assert (await here.browser().sign_in(EVA)).status_code == 303


async def test_too_many_concurrent_sign_ins_get_429(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each guess costs memory and time, so people beyond a short queue get 429 at once."""
    monkeypatch.setattr("smtpguard.console.people.credentials.MOST_WAITING", 3)
    crowded, compare = threading.Event(), Passwords._compare

    def slow(passwords: Passwords, hashed: str, password: str) -> bool:
        crowded.wait(60)
        return compare(passwords, hashed, password)

    monkeypatch.setattr(Passwords, "_compare", slow)
    await here.person(EVA)
    guesses = [asyncio.ensure_future(here.browser(client=f"203.0.113.{n}").sign_in(EVA)) for n in range(8)]
    refused, waiting = set[asyncio.Future[Any]](), set(guesses)
    try:
        while len(refused) < 5:  # all but three are refused before any hash is ready
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        assert {guess.result().status_code for guess in refused} == {429}
    finally:
        crowded.set()
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [303, 303, 303]
    assert (await here.browser(client="203.0.113.9").sign_in(EVA)).status_code == 303


# -- changes that end sessions


@pytest.mark.parametrize("change", ["roles", "password", "disabled", "factor"])
async def test_a_change_of_the_account_ends_all_sessions(here: Stage, change: str) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    other = here.browser()
    await other.sign_in(EVA)
    account = await here.accounts.get(EVA)
    changes: dict[str, Any] = {
        "roles": lambda: here.accounts.set_roles(account, [Role.OPERATOR], by="root"),
        "password": lambda: here.accounts.set_password(account, "yet another password", by="root"),
        "disabled": lambda: here.accounts.disable(account, by="root"),
        "factor": lambda: here.accounts.set_factor(account, Factors(KEY).new_secret(), by="root"),
    }
    await changes[change]()
    for each in (browser, other):
        assert (await each.get("/me")).status_code == 303
    assert await count(here, "session") == 0


async def test_setting_the_same_roles_ends_no_session(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await here.accounts.set_roles(await here.accounts.get(EVA), [Role.VIEWER, Role.VIEWER], by="root")
    assert (await browser.get("/me")).status_code == 200
