"""OpenID Connect with a provider on loopback, and each failure of a provider, network or browser. Accounts and roles
are in test_sign_in_by_provider."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.console.people import oidc
from tests.clocks import MONDAY
from tests.console.people.provider import another_key, unsigned, with_hmac
from tests.console.people.signon import SignOn
from tests.console.stage import URL

# -- tokens that are refused


def claim(**claims: Any) -> Callable[[SignOn], None]:
    def lie(sso: SignOn) -> None:
        sso.at.claims = claims

    return lie


def without(*names: str) -> Callable[[SignOn], None]:
    def lie(sso: SignOn) -> None:
        sso.at.without = names

    return lie


def signing(sign: Callable[[SignOn], Callable[[dict[str, Any]], str]]) -> Callable[[SignOn], None]:
    def lie(sso: SignOn) -> None:
        sso.at.sign = sign(sso)

    return lie


def published(sso: SignOn) -> None:
    """Sign with a key that the provider does not publish."""
    sso.at.published = [another_key()]


def symmetric(sso: SignOn) -> None:
    """Sign with a symmetric key that the provider publishes: everyone could sign with it, so it proves nothing."""
    sso.at.published = [{"kty": "oct", "kid": "one", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]


NOW = int(MONDAY.timestamp())
LIES: dict[str, Callable[[SignOn], None]] = {
    "another issuer": claim(iss="https://evil.example.net"),
    "another client": claim(aud="another"),
    "several clients and none authorised": claim(aud=["smtpguard", "another"]),
    "authorised for another": claim(aud=["smtpguard", "another"], azp="another"),
    "another attempt": claim(nonce="of another attempt"),
    "no nonce": without("nonce"),
    "expired": claim(exp=NOW - 61),
    "no exp": without("exp"),
    "exp is no number": claim(exp="tomorrow"),
    "from the future": claim(iat=NOW + 61),
    "not yet": claim(nbf=NOW + 61),
    "no subject": without("sub"),
    "an empty subject": claim(sub=""),
    "no address": without("email"),
    "an invalid address": claim(email="no address"),
    "an address not verified": claim(email_verified=False),
    "email_verified is a string": claim(email_verified="true"),
    "no email_verified": without("email_verified"),
    "no known group": claim(groups=["others"]),
    "no groups": without("groups"),
    "groups that are no strings": claim(groups=[{"guards": 1}, 7]),
    "not signed": signing(lambda sso: unsigned),
    "signed with the public key": signing(lambda sso: with_hmac(sso.at.key)),
    "no token at all": signing(lambda sso: lambda claims: "rubbish"),
    "two parts": signing(lambda sso: lambda claims: "a.b"),
    "a key that is not published": published,
    "a symmetric key that is": symmetric,
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_unproven_token_signs_no_one_in(sso: SignOn, lie: str, caplog: pytest.LogCaptureFixture) -> None:
    LIES[lie](sso)
    browser = sso.stage.browser()
    answer = await sso.signs_on(browser)
    assert answer.status_code == 401
    assert (await browser.get("/me")).status_code == 303
    assert await sso.stage.accounts.people.everybody() == []
    assert "cannot be reached" not in caplog.text
    assert "/token" in sso.at.asked


@pytest.mark.parametrize(
    "claims",
    [{"exp": NOW - 30}, {"aud": ["smtpguard", "x"], "azp": "smtpguard"}],
    ids=["a clock that is half a minute off", "several clients and authorised for us"],
)
async def test_valid_claims_sign_in(sso: SignOn, claims: dict[str, Any]) -> None:
    sso.at.claims = claims
    assert (await sso.signs_on()).status_code == 303


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256"])
async def test_supported_signature_algorithms_are_accepted(sso: SignOn, algorithm: str) -> None:
    sso.at.algorithm = algorithm
    if algorithm == "ES256":
        sso.at.key = another_key()
    assert (await sso.signs_on()).status_code == 303


# -- key rotation


async def test_a_new_key_is_fetched(sso: SignOn) -> None:
    await sso.signs_on()
    sso.at.key = another_key("three")
    sso.at.algorithm = "ES256"
    sso.stage.home.clock.pass_(seconds=31)
    assert (await sso.signs_on()).status_code == 303


async def test_invalid_tokens_do_not_fetch_keys_each_time(sso: SignOn) -> None:
    await sso.signs_on()
    sso.stage.home.clock.pass_(seconds=31)
    sso.at.sign = with_hmac(sso.at.key)
    sso.at.asked.clear()
    for _ in range(5):
        assert (await sso.signs_on()).status_code == 401
    assert sso.at.asked.count("/keys") == 1


async def test_keys_are_fetched_at_most_once_an_hour(sso: SignOn) -> None:
    for _ in range(3):
        await sso.signs_on()
    assert sso.at.asked.count("/keys") == 1
    sso.stage.home.clock.pass_(minutes=61)
    await sso.signs_on()
    assert sso.at.asked.count("/keys") == 2


# -- the browser's state


async def test_the_redirect_alone_signs_no_one_in(sso: SignOn) -> None:
    """The provider's redirect alone (a GET) signs nobody in and does not use the code up, since mail scanners follow
    it."""
    browser = sso.stage.browser()
    back = await sso.consented(browser)
    for _ in range(3):
        await browser.get(back.removeprefix(URL))
    assert len(sso.at.codes) == 1
    assert await sso.stage.accounts.people.everybody() == []
    assert (await sso.comes_back(browser, back)).status_code == 303


async def test_a_sign_in_cannot_be_finished_in_another_browser(sso: SignOn) -> None:
    """A sign-in that Mallory began cannot be finished in Eva's browser."""
    mallory, eva = sso.stage.browser(), sso.stage.browser()
    back = await sso.consented(mallory)
    assert (await sso.comes_back(eva, back)).status_code == 401
    await sso.begun(eva)
    assert (await sso.comes_back(eva, back)).status_code == 401


async def test_a_code_is_used_once(sso: SignOn) -> None:
    browser = sso.stage.browser()
    back = await sso.consented(browser)
    assert (await sso.comes_back(browser, back)).status_code == 303
    other = sso.stage.browser()
    assert (await sso.comes_back(other, back)).status_code == 401


async def test_an_attempt_expires_after_ten_minutes(sso: SignOn) -> None:
    browser = sso.stage.browser()
    back = await sso.consented(browser)
    sso.stage.home.clock.at += timedelta(minutes=10)
    assert (await sso.comes_back(browser, back)).status_code == 401


@pytest.mark.parametrize(
    "wrong", ["state=another", "state=", "iss=https://evil.example.net", "code=", "error=access_denied"]
)
async def test_an_answer_with_another_state_is_refused(sso: SignOn, wrong: str) -> None:
    browser = sso.stage.browser()
    back = await sso.consented(browser)
    name, _, value = wrong.partition("=")
    query = dict(pair.split("=", 1) for pair in back.partition("?")[2].split("&")) | {name: value}
    url = f"{URL}/login/sso/back?" + "&".join(f"{k}={v}" for k, v in query.items())
    assert (await sso.comes_back(browser, url)).status_code == 401


@pytest.mark.parametrize("then", ["https://evil.net/", "//evil.net", "/\\evil.net"])
async def test_after_sign_in_only_own_paths_are_opened(sso: SignOn, then: str) -> None:
    browser = sso.stage.browser()
    answer = await sso.comes_back(browser, await sso.consented(browser, then))
    assert answer.headers["location"] == "/"


async def test_the_cookie_reveals_neither_nonce_nor_state(sso: SignOn) -> None:
    browser = sso.stage.browser()
    began = await sso.begun(browser)
    cookie = next(c for c in began.headers.get_list("set-cookie") if "smtpguard-sso" in c)
    query = dict(pair.split("=", 1) for pair in began.headers["location"].partition("?")[2].split("&"))
    assert query["nonce"] not in cookie
    assert query["state"] not in cookie
    assert "HttpOnly" in cookie
    assert "Max-Age=600" in cookie


# -- provider failures


@pytest.mark.parametrize(
    "ill", ["status", "rubbish", "array", "large", "packed", "drips", "issuer", "endpoint", "gone"]
)
async def test_without_the_provider_passwords_still_work(
    sso: SignOn, ill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ill == "status":
        sso.at.status = 500
    elif ill == "rubbish":
        sso.at.said = b"<html>"
    elif ill == "array":
        sso.at.said = b"[]"
    elif ill == "large":
        sso.at.said = b" " * ((1 << 20) + 1)
    elif ill == "packed":
        sso.at.packed = True
    elif ill == "drips":
        sso.at.drips = True
        monkeypatch.setattr(oidc, "SECONDS", 0.2)
    elif ill == "issuer":
        sso.at.about = {"issuer": "https://evil.example.net"}
    elif ill == "endpoint":
        sso.at.about = {"token_endpoint": "ftp://127.0.0.1/token"}
    elif ill == "gone":
        object.__setattr__(sso.stage.app.state.console.provider.trusted, "issuer", "http://127.0.0.1:9")
    answer = await sso.begun(sso.stage.browser())
    assert answer.status_code == 503
    assert "with a password" in answer.text
    await sso.stage.person("omar@example.com")
    assert (await sso.stage.browser().sign_in("omar@example.com")).status_code == 303


async def test_the_log_says_why_a_provider_cannot_be_reached(sso: SignOn, caplog: pytest.LogCaptureFixture) -> None:
    object.__setattr__(sso.stage.app.state.console.provider.trusted, "issuer", "http://127.0.0.1:9")
    assert (await sso.begun(sso.stage.browser())).status_code == 503
    assert "cannot be reached: All connection attempts failed" in caplog.text


async def test_an_unreachable_provider_is_not_asked_by_each_request(sso: SignOn) -> None:
    sso.at.status = 500
    for _ in range(5):
        assert (await sso.begun(sso.stage.browser())).status_code == 503
    assert len(sso.at.asked) == 1
    sso.at.status = 200
    sso.stage.home.clock.pass_(seconds=2)
    assert (await sso.signs_on()).status_code == 303


async def test_the_client_secret_is_sent_in_the_body_if_required(sso: SignOn) -> None:
    sso.at.about = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await sso.signs_on()).status_code == 303
