"""Forms: the token, the origin, and bounds on size. The other checks of a request are in test_middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from smtpguard.accounts.model import Role
from tests.console.holding import EVA, OMAR
from tests.console.stage import PASSWORD, Browser, Stage
from tests.every import every


@pytest.fixture
async def eva(here: Stage) -> Browser:
    """A browser with Eva signed in, on a page with a form."""
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    return browser


@every(
    "wrong",
    [
        {"csrf": ""},
        {"csrf": "0" * 40},
        {"headers": {"Origin": "https://evil.example.net"}},
        {"headers": {"Origin": "null"}},
        {"headers": {"Origin": "http://guard.example.com"}},
        {"headers": {"Sec-Fetch-Site": "cross-site"}},
        {"headers": {"Sec-Fetch-Site": "same-site"}},
        {"headers": {"Sec-Fetch-Site": "none"}},
    ],
)
async def test_a_form_of_another_origin_is_refused(here: Stage, eva: Browser, wrong: dict[str, object]) -> None:
    answer = await eva.post("/me/language", language="sv", **wrong)  # type: ignore[arg-type]
    assert answer.status_code == 403
    assert (await here.accounts.get(EVA)).language == ""
    assert (await eva.get("/me")).status_code == 200


async def test_without_origin_headers_the_token_is_required(here: Stage, eva: Browser) -> None:
    bare = {"Origin": "", "Sec-Fetch-Site": ""}
    assert (await eva.post("/me/language", bare, language="sv", csrf="")).status_code == 403
    assert (await eva.post("/me/language", bare, language="sv")).status_code == 303
    assert (await here.accounts.get(EVA)).language == "sv"


async def test_the_token_may_be_in_a_header(eva: Browser) -> None:
    answer = await eva.post("/me/language", {"X-CSRF-Token": eva.csrf}, language="sv", csrf="")
    assert answer.status_code == 303


async def test_a_token_belongs_to_its_session(here: Stage, eva: Browser) -> None:
    omar = await here.signed_in(OMAR, Role.VIEWER)
    await omar.get("/me")
    assert (await eva.post("/me/language", language="sv", csrf=omar.csrf)).status_code == 403


async def test_another_site_cannot_sign_a_browser_in(here: Stage) -> None:
    await here.person("mallory@example.com")
    answer = await here.browser().post("/login", address="mallory@example.com", password=PASSWORD)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "999999999"}, 413),
        ({"content-length": "70000"}, 413),
        ({"transfer-encoding": "chunked"}, 411),
        ({"transfer-encoding": "chunked", "content-length": "10"}, 400),
    ],
)
async def test_the_size_of_a_form_is_limited_before_reading(here: Stage, headers: dict[str, str], status: int) -> None:
    browser = here.browser()

    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    request = browser.http.build_request("POST", "/login", content=endless(), headers={"origin": browser.origin})
    request.headers.pop("transfer-encoding", None)
    request.headers.update(headers)
    answer = await browser.http.send(request)
    assert (answer.status_code, "What you sent is too large." in answer.text) == (status, status == 413)


async def test_a_form_with_a_thousand_files_is_refused(here: Stage) -> None:
    browser = here.browser()
    await browser.get("/login")
    files = [("f", (f"{n}.txt", b"x")) for n in range(5)]
    answer = await browser.http.post(
        "/login", files=files, data={"csrf": browser.csrf}, headers={"origin": browser.origin}
    )
    assert answer.status_code == 400
