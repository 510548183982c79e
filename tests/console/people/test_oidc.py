"""Single sign-on against a provider that is there, and against everything that a provider, a network or a browser could get wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from smtpguard.policy.people import Account, Role
from tests.console.people.provider import CLIENT_SECRET, Provider, another_key, provider, unsigned, with_hmac
from tests.console.stage import URL, Browser, Stage, stage
from tests.guard.house import MONDAY

EVA = "eva@example.com"


@dataclass
class Here:
    stage: Stage
    at: Provider

    async def begun(self, browser: Browser, then: str = "/me") -> httpx2.Response:
        return await browser.get(f"/login/sso?next={then}")

    async def signs_on(self, browser: Browser | None = None) -> httpx2.Response:
        """All the way, as a person would: to the provider, and back with what it says."""
        browser = browser or self.stage.browser()
        began = await self.begun(browser)
        return await self.comes_back(browser, self.at.consents(began.headers["location"]))

    async def comes_back(self, browser: Browser, url: str) -> httpx2.Response:
        assert url.startswith(f"{URL}/login/sso/back?")
        landed = await browser.get(url.removeprefix(URL), **{"sec-fetch-site": "cross-site"})
        assert landed.status_code == 200
        given = {name: browser.hidden(name) for name in ("code", "state", "iss", "error")}
        return await browser.post("/login/sso/back", **given)

    async def eva(self) -> Account:
        return await self.stage.accounts.at(EVA)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    (tmp_path / "client.secret").write_text(CLIENT_SECRET)
    clock: list[Callable[[], Any]] = [lambda: MONDAY]
    async with provider(lambda: clock[0]()) as at:
        oidc = (
            f"{{issuer: '{at.issuer}', client_id: smtpguard, client_secret_file: client.secret, title: Example ID,"
            " groups: {guards: approver, bosses: [operator, admin]}}"
        )
        async with stage(tmp_path, console=f"{{url: '{URL}', oidc: {oidc}}}") as made:
            clock[0] = made.home.clock.now
            yield Here(made, at)


async def test_somebody_whom_the_provider_knows_comes_in(here: Here) -> None:
    browser = here.stage.browser()
    answer = await here.signs_on(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/me")
    assert EVA in (await browser.get("/me")).text
    account = await here.eva()
    assert (account.roles, account.name, account.password) == ((Role.APPROVER,), "Eva", "")
    assert account.subject == f"{here.at.issuer} u-17"
    assert here.stage.kinds("account")[0]["change"] == "added"
    assert here.stage.kinds("signed-in") == [{"how": "sso", "second_factor": False}]


async def test_the_door_offers_it(here: Here) -> None:
    text = (await here.stage.browser().get("/login?next=/held")).text
    assert 'href="/login/sso?next=/held"' in text
    assert "Example ID" in text


async def test_roles_follow_the_groups_at_every_sign_on(here: Here) -> None:
    first = here.stage.browser()
    await here.signs_on(first)
    here.at.claims = {"groups": ["bosses", "guards", "others"]}
    await here.signs_on()
    assert (await here.eva()).roles == (Role.APPROVER, Role.OPERATOR, Role.ADMIN)
    assert (await first.get("/me")).status_code == 303  # under other roles they sign in again
    here.at.claims = {"groups": "guards"}
    await here.signs_on()
    assert (await here.eva()).roles == (Role.APPROVER,)


async def test_the_same_groups_end_no_other_session(here: Here) -> None:
    first = here.stage.browser()
    await here.signs_on(first)
    await here.signs_on()
    assert (await first.get("/me")).status_code == 200


async def test_an_address_may_change_a_subject_does_not(here: Here) -> None:
    await here.signs_on()
    here.at.claims = {"email": "eva.berg@example.com"}
    await here.signs_on()
    assert (await here.stage.accounts.at("eva.berg@example.com")).subject == f"{here.at.issuer} u-17"


# -- what proves nothing


def claim(**claims: Any) -> Callable[[Here], None]:
    def lie(here: Here) -> None:
        here.at.claims = claims

    return lie


def without(*names: str) -> Callable[[Here], None]:
    def lie(here: Here) -> None:
        here.at.without = names

    return lie


def signing(sign: Callable[[Here], Callable[[dict[str, Any]], str]]) -> Callable[[Here], None]:
    def lie(here: Here) -> None:
        here.at.sign = sign(here)

    return lie


def published(here: Here) -> None:
    """Signed with a key that is not among those that are published."""
    here.at.published = [another_key()]


def symmetric(here: Here) -> None:
    """A key that everybody could sign with is no proof, even if the provider publishes it."""
    here.at.published = [{"kty": "oct", "kid": "one", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]


NOW = int(MONDAY.timestamp())
LIES: dict[str, Callable[[Here], None]] = {
    "another issuer": claim(iss="https://evil.example.net"),
    "another client": claim(aud="another"),
    "several clients and none authorised": claim(aud=["smtpguard", "another"]),
    "authorised for another": claim(aud=["smtpguard", "another"], azp="another"),
    "another attempt": claim(nonce="of another attempt"),
    "no nonce": without("nonce"),
    "expired": claim(exp=NOW - 61),
    "no end": without("exp"),
    "an end that is no number": claim(exp="tomorrow"),
    "from the future": claim(iat=NOW + 61),
    "not yet": claim(nbf=NOW + 61),
    "no subject": without("sub"),
    "an empty subject": claim(sub=""),
    "no address": without("email"),
    "an address that is none": claim(email="no address"),
    "an address not verified": claim(email_verified=False),
    "an address said to be verified in words": claim(email_verified="true"),
    "nobody says whether it is verified": without("email_verified"),
    "no group that means something": claim(groups=["others"]),
    "no groups": without("groups"),
    "groups that are no words": claim(groups=[{"guards": 1}, 7]),
    "not signed": signing(lambda here: unsigned),
    "signed with the public key": signing(lambda here: with_hmac(here.at.key)),
    "no token at all": signing(lambda here: lambda claims: "rubbish"),
    "two parts": signing(lambda here: lambda claims: "a.b"),
    "a key that is not published": published,
    "a symmetric key that is": symmetric,
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_proves_nothing_lets_nobody_in(here: Here, lie: str, caplog: pytest.LogCaptureFixture) -> None:
    LIES[lie](here)
    browser = here.stage.browser()
    answer = await here.signs_on(browser)
    assert answer.status_code == 401
    assert (await browser.get("/me")).status_code == 303
    assert await here.stage.accounts.everybody() == []
    assert "cannot be reached" not in caplog.text
    assert "/token" in here.at.asked


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": NOW - 30}, "a clock that is half a minute off"),
        ({"aud": ["smtpguard", "x"], "azp": "smtpguard"}, "azp"),
    ],
)
async def test_what_is_right_still_is(here: Here, claims: dict[str, Any], why: str) -> None:
    here.at.claims = claims
    assert (await here.signs_on()).status_code == 303


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256"])
async def test_signatures_that_are_taken(here: Here, algorithm: str) -> None:
    here.at.algorithm = algorithm
    if algorithm == "ES256":
        here.at.key = another_key()
    assert (await here.signs_on()).status_code == 303


# -- keys that change


async def test_a_new_key_is_looked_for(here: Here) -> None:
    await here.signs_on()
    here.at.key = another_key("three")
    here.at.algorithm = "ES256"
    here.stage.home.clock.pass_(seconds=31)
    assert (await here.signs_on()).status_code == 303


async def test_but_not_for_every_token_that_somebody_makes_up(here: Here) -> None:
    await here.signs_on()
    here.stage.home.clock.pass_(seconds=31)
    here.at.sign = with_hmac(here.at.key)
    here.at.asked.clear()
    for _ in range(5):
        assert (await here.signs_on()).status_code == 401
    assert here.at.asked.count("/keys") == 1


async def test_what_it_publishes_is_read_once_an_hour(here: Here) -> None:
    for _ in range(3):
        await here.signs_on()
    assert here.at.asked.count("/keys") == 1
    here.stage.home.clock.pass_(minutes=61)
    await here.signs_on()
    assert here.at.asked.count("/keys") == 2


# -- the browser's part


async def test_the_provider_sends_a_browser_back_and_that_alone_signs_nobody_in(here: Here) -> None:
    """A GET changes nothing: a mail scanner that follows the address uses no code up."""
    browser = here.stage.browser()
    began = await here.begun(browser)
    back = here.at.consents(began.headers["location"])
    for _ in range(3):
        await browser.get(back.removeprefix(URL))
    assert len(here.at.codes) == 1
    assert await here.stage.accounts.everybody() == []
    assert (await here.comes_back(browser, back)).status_code == 303


async def test_anothers_attempt_is_not_ours(here: Here) -> None:
    """Mallory gets Eva's browser to finish what he began."""
    mallory, eva = here.stage.browser(), here.stage.browser()
    back = here.at.consents((await here.begun(mallory)).headers["location"])
    assert (await here.comes_back(eva, back)).status_code == 401
    await here.begun(eva)
    assert (await here.comes_back(eva, back)).status_code == 401


async def test_a_code_is_taken_once(here: Here) -> None:
    browser = here.stage.browser()
    back = here.at.consents((await here.begun(browser)).headers["location"])
    assert (await here.comes_back(browser, back)).status_code == 303
    other = here.stage.browser()
    assert (await here.comes_back(other, back)).status_code == 401


async def test_an_attempt_ends_after_ten_minutes(here: Here) -> None:
    browser = here.stage.browser()
    back = here.at.consents((await here.begun(browser)).headers["location"])
    here.stage.home.clock.at += timedelta(minutes=10)
    assert (await here.comes_back(browser, back)).status_code == 401


@pytest.mark.parametrize(
    "wrong", ["state=another", "state=", "iss=https://evil.example.net", "code=", "error=access_denied"]
)
async def test_an_answer_that_is_not_to_this_question(here: Here, wrong: str) -> None:
    browser = here.stage.browser()
    back = here.at.consents((await here.begun(browser)).headers["location"])
    name, _, value = wrong.partition("=")
    query = dict(pair.split("=", 1) for pair in back.partition("?")[2].split("&")) | {name: value}
    url = f"{URL}/login/sso/back?" + "&".join(f"{k}={v}" for k, v in query.items())
    assert (await here.comes_back(browser, url)).status_code == 401


@pytest.mark.parametrize("then", ["https://evil.net/", "//evil.net", "/\\evil.net"])
async def test_it_goes_on_to_pages_of_ours_alone(here: Here, then: str) -> None:
    browser = here.stage.browser()
    began = await here.begun(browser, then)
    answer = await here.comes_back(browser, here.at.consents(began.headers["location"]))
    assert answer.headers["location"] == "/"


async def test_what_the_browser_keeps_says_nothing(here: Here) -> None:
    browser = here.stage.browser()
    began = await here.begun(browser)
    cookie = next(c for c in began.headers.get_list("set-cookie") if "smtpguard-sso" in c)
    query = dict(pair.split("=", 1) for pair in began.headers["location"].partition("?")[2].split("&"))
    assert query["nonce"] not in cookie
    assert query["state"] not in cookie
    assert "HttpOnly" in cookie
    assert "Max-Age=600" in cookie


# -- a provider that is not well


@pytest.mark.parametrize("ill", ["status", "rubbish", "array", "large", "issuer", "endpoint", "gone"])
async def test_without_a_provider_there_are_passwords(here: Here, ill: str) -> None:
    if ill == "status":
        here.at.status = 500
    elif ill == "rubbish":
        here.at.said = b"<html>"
    elif ill == "array":
        here.at.said = b"[]"
    elif ill == "large":
        here.at.said = b" " * ((1 << 20) + 1)
    elif ill == "issuer":
        here.at.about = {"issuer": "https://evil.example.net"}
    elif ill == "endpoint":
        here.at.about = {"token_endpoint": "ftp://127.0.0.1/token"}
    elif ill == "gone":
        assert here.stage.front.provider is not None
        object.__setattr__(here.stage.front.provider.trusted, "issuer", "http://127.0.0.1:9")
    answer = await here.begun(here.stage.browser())
    assert answer.status_code == 503
    assert "with a password" in answer.text
    await here.stage.person("omar@example.com")
    assert (await here.stage.browser().sign_in("omar@example.com")).status_code == 303


async def test_a_provider_that_is_away_is_not_asked_by_everybody(here: Here) -> None:
    here.at.status = 500
    for _ in range(5):
        assert (await here.begun(here.stage.browser())).status_code == 503
    assert len(here.at.asked) == 1
    here.at.status = 200
    here.stage.home.clock.pass_(seconds=2)
    assert (await here.signs_on()).status_code == 303


async def test_a_secret_in_the_body_where_it_wants_that(here: Here) -> None:
    here.at.about = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await here.signs_on()).status_code == 303


# -- accounts that were there before


async def test_an_account_made_for_them_becomes_theirs(here: Here) -> None:
    await here.stage.accounts.add(EVA, roles=[Role.VIEWER], by="root")
    assert (await here.stage.browser().sign_in(EVA, "")).status_code == 401
    assert (await here.signs_on()).status_code == 303
    assert (await here.eva()).roles == (Role.APPROVER,)
    assert len(await here.stage.accounts.everybody()) == 1


async def test_an_account_with_a_password_is_nobody_elses(here: Here) -> None:
    await here.stage.person(EVA, Role.ADMIN)
    assert (await here.signs_on()).status_code == 401
    assert (await here.eva()).subject == ""
    assert here.stage.kinds("sign-in-refused")[-1]["why"] == "the address is another account's"


async def test_another_subject_with_the_same_address_is_not_let_in(here: Here) -> None:
    await here.signs_on()
    here.at.claims = {"sub": "u-18"}
    assert (await here.signs_on()).status_code == 401


async def test_a_disabled_account_stays_out(here: Here) -> None:
    await here.signs_on()
    await here.stage.accounts.disable(await here.eva(), by="root")
    assert (await here.signs_on()).status_code == 401
    assert here.stage.kinds("sign-in-refused")[-1]["why"] == "disabled"
