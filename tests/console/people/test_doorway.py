"""What every request passes: hosts, forms that are ours, headers, and that looking changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Mount, Route

from smtpguard.console.people.doorway import HEADERS, Place, safe_path
from smtpguard.guard.links import Link, Links
from smtpguard.policy.admission import Full, Unavailable
from smtpguard.policy.people import Role
from tests.console.api.test_held import held
from tests.console.stage import PASSWORD, Stage, stage
from tests.guard.house import KEY

EVA = "eva@example.com"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(tmp_path) as made:
        yield made


# -- hosts


@pytest.mark.parametrize(
    "host", ["evil.example.net", "guard.example.com:8443", "guard.example.com.evil.net", "127.0.0.1", ""]
)
async def test_another_host_is_not_here(here: Stage, host: str) -> None:
    answer = await here.browser().get("/login", host=host)
    assert answer.status_code == 421
    assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Guard.example.com:443", "guard.example.com"), ("http://guard.example.com:80", "guard.example.com"),
        ("https://guard.example.com:80", "guard.example.com:80"), ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)  # fmt: skip
def test_the_usual_port_is_left_out_as_browsers_do(url: str, host: str) -> None:
    place = Place(url=url)
    assert (place.hosts, place.origins) == ({host}, {f"{url.partition(':')[0]}://{host}"})


async def test_no_link_and_no_redirect_comes_from_the_host(here: Stage) -> None:
    browser = here.browser()
    answer = await browser.get("/me", **{"x-forwarded-host": "evil.example.net", "forwarded": "host=evil.example.net"})
    assert answer.headers["location"].startswith("/login")
    assert "evil" not in (await browser.get("/login", **{"x-forwarded-host": "evil.example.net"})).text


async def test_without_a_url_it_is_where_it_listens(tmp_path: Path) -> None:
    async with stage(tmp_path, console="{}") as here:
        for host, status in [
            ("127.0.0.1:8025", 200),
            ("localhost:8025", 200),
            ("127.0.0.1", 421),
            ("evil.net:8025", 421),
        ]:
            assert (await here.browser(url="http://127.0.0.1:8025").get("/login", host=host)).status_code == status


async def test_over_plain_http_cookies_have_no_prefix(tmp_path: Path) -> None:
    async with stage(tmp_path, console="{}") as here:
        await here.person(EVA)
        browser = here.browser(url="http://127.0.0.1:8025")
        browser.origin = "http://127.0.0.1:8025"
        answer = await browser.sign_in(EVA)
        assert answer.status_code == 303
        session = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("smtpguard="))
        assert "Secure" not in session
        assert "strict-transport-security" not in answer.headers


# -- headers


@pytest.mark.parametrize(
    "path", ["/login", "/", "/me", "/nowhere", "/static/console.css", "/api/v1/me", "/api/v1/nowhere"]
)
async def test_every_answer_is_kept_harmless(here: Stage, path: str) -> None:
    answer = await here.browser().get(path)
    for name, value in HEADERS.items():
        if name == "cache-control" and path.startswith("/static/"):
            continue
        assert answer.headers[name] == value, name
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "'unsafe" not in answer.headers["content-security-policy"]


async def test_no_page_of_ours_needs_a_script_or_a_style_of_its_own(here: Stage) -> None:
    browser = await here.signed_in(EVA, *Role)
    for path in ("/login", "/me", "/me/factor", "/people"):
        text = (await browser.get(path)).text
        assert " style=" not in text, path
        assert " on" not in text.replace(" one", "").replace(" once", "").replace(" only", "") or "onclick" not in text
        assert "<style" not in text
        assert "<script>" not in text


# -- forms


async def signed_in(here: Stage) -> object:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    return browser


BAD_FORMS = [
    {"csrf": ""},
    {"csrf": "0" * 40},
    {"headers": {"Origin": "https://evil.example.net"}},
    {"headers": {"Origin": "null"}},
    {"headers": {"Origin": "http://guard.example.com"}},
    {"headers": {"Sec-Fetch-Site": "cross-site"}},
    {"headers": {"Sec-Fetch-Site": "same-site"}},
    {"headers": {"Sec-Fetch-Site": "none"}},
]


@pytest.mark.parametrize("wrong", BAD_FORMS, ids=str)
async def test_a_form_that_is_not_ours_does_nothing(here: Stage, wrong: dict[str, object]) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    answer = await browser.post("/me/language", language="sv", **wrong)  # type: ignore[arg-type]
    assert answer.status_code == 403
    assert (await here.accounts.at(EVA)).language == ""
    assert (await browser.get("/me")).status_code == 200


async def test_a_browser_that_sends_neither_header_still_needs_the_token(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    bare = {"Origin": "", "Sec-Fetch-Site": ""}
    assert (await browser.post("/me/language", bare, language="sv", csrf="")).status_code == 403
    assert (await browser.post("/me/language", bare, language="sv")).status_code == 303
    assert (await here.accounts.at(EVA)).language == "sv"


async def test_the_token_may_come_in_a_header(here: Stage) -> None:
    browser = await here.signed_in(EVA, Role.VIEWER)
    await browser.get("/me")
    answer = await browser.post("/me/language", {"X-CSRF-Token": browser.csrf}, language="sv", csrf="")
    assert answer.status_code == 303


async def test_a_token_is_its_sessions_alone(here: Stage) -> None:
    eva = await here.signed_in(EVA, Role.VIEWER)
    omar = await here.signed_in("omar@example.com", Role.VIEWER)
    await eva.get("/me")
    await omar.get("/me")
    assert (await eva.post("/me/language", language="sv", csrf=omar.csrf)).status_code == 403


async def test_nobody_is_signed_in_by_another_site(here: Stage) -> None:
    await here.person("mallory@example.com")
    answer = await here.browser().post("/login", address="mallory@example.com", password=PASSWORD)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "999999999"}, 413),
        ({"content-length": "70000"}, 413),
        ({"transfer-encoding": "chunked"}, 411),
    ],
)
async def test_a_form_is_bounded_before_it_is_read(here: Stage, headers: dict[str, str], status: int) -> None:
    browser = here.browser()

    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    request = browser.http.build_request("POST", "/login", content=endless(), headers={"origin": browser.origin})
    request.headers.pop("transfer-encoding", None)
    request.headers.update(headers)
    answer = await browser.http.send(request)
    assert answer.status_code == status


async def test_a_form_with_a_thousand_files_is_refused(here: Stage) -> None:
    browser = here.browser()
    await browser.get("/login")
    files = [("f", (f"{n}.txt", b"x")) for n in range(5)]
    answer = await browser.http.post(
        "/login", files=files, data={"csrf": browser.csrf}, headers={"origin": browser.origin}
    )
    assert answer.status_code == 400


# -- looking changes nothing


def walked(routes: list[BaseRoute], under: str = "") -> list[Route]:
    found: list[Route] = []
    for route in routes:
        if isinstance(route, Mount):
            found += walked(list(route.routes), under + route.path)
        elif isinstance(route, Route):
            found.append(Route(under + route.path, route.endpoint, methods=list(route.methods or ())))
    return found


async def everything(here: Stage) -> dict[str, list[object]]:
    """Every table, and of the journal all but that somebody looked."""

    def dump(connection: object) -> dict[str, list[object]]:
        run = connection.exec_driver_sql  # type: ignore[attr-defined]
        names = [name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        skipped = {"head", "entry", "clear", "checkpoint"}
        tables = {name: sorted(map(repr, run(f"SELECT * FROM {name}"))) for name in names if name not in skipped}
        tables["entry"] = sorted(map(repr, run("SELECT kind, id, body FROM entry WHERE kind <> 'viewed'")))
        return tables

    return await here.home.store.ask(dump)


async def test_get_and_head_change_nothing_on_any_route(here: Stage) -> None:
    """Mail scanners follow links: with every role, with a writer's link, and with nobody signed in."""
    hold_id = await held(here, "news@lists.example.com")
    until = here.home.clock.now().replace(year=2030)
    link = Links(KEY).sign(Link(hold_id=hold_id, address="anna@example.com", until=until))
    account = await here.person("omar@example.com", Role.VIEWER)
    signed = await here.signed_in(EVA, *Role)
    await here.front.sessions.write()
    values = {"hold_id": hold_id, "link": link, "account_id": account.account_id, "freeze_id": "F1", "token": link}
    routes = walked(list(here.app.routes))
    paths = sorted({_filled(route.path, values) for route in routes})
    assert len(paths) > 20
    before = await everything(here)
    for browser in (signed, here.browser()):
        for path in paths:
            for method in ("GET", "HEAD"):
                answer = await browser.http.request(method, path)
                assert answer.status_code < 500, (method, path, answer.status_code)
    assert await everything(here) == before


async def test_every_post_asks_for_the_token(here: Stage) -> None:
    """A route that forgets cannot be made: it is the doorway that asks."""
    signed = await here.signed_in(EVA, *Role)
    posts = [r for r in walked(list(here.app.routes)) if "POST" in (r.methods or ()) and not r.path.startswith("/api/")]
    assert len(posts) > 10
    for route in posts:
        answer = await signed.post(_filled(route.path, {}), csrf="0" * 40)
        assert answer.status_code == 403, route.path


def _filled(path: str, values: dict[str, str]) -> str:
    for part in path.split("/"):
        if part.startswith("{"):
            path = path.replace(part, values.get(part.strip("{}").partition(":")[0], "1"))
    return path


# -- where to go on


@pytest.mark.parametrize("elsewhere", ["https://evil.net/", "//evil.net/", "/\\evil.net", "\\\\evil.net", "javascript:alert(1)", "",
                                       "/ok\r\nSet-Cookie: a=b", "/\t/evil.net", "/login?next=/login", "/logout", "/å", "evil", None, 7])  # fmt: skip
def test_no_redirect_leads_elsewhere(elsewhere: object) -> None:
    assert safe_path(elsewhere) == "/"


@pytest.mark.parametrize("path", ["/", "/held/T1?done=1", "/me#x", "/held?q=a//b"])
def test_a_path_of_ours_is_gone_on_to(path: str) -> None:
    assert safe_path(path) == path


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="/\\.:?#@ae\t\r\n ", max_size=12).map(lambda t: "/" + t))
def test_whatever_it_is_a_browser_stays_here(path: str) -> None:
    from urllib.parse import urljoin, urlsplit

    found = urlsplit(urljoin("https://guard.example.com/login", safe_path(path).replace("\\", "/")))
    assert (found.scheme, found.netloc) == ("https", "guard.example.com")


# -- who asks


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "rubbish", ""),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_only_our_proxies_say_for_whom_they_ask(peer: str, said: str, client: str) -> None:
    place = Place(url="https://guard.example.com", proxies=[ip_network("10.0.0.0/8")])
    headers = [(b"x-forwarded-for", said.encode())] if said else []
    assert place.client({"client": (peer, 1), "headers": headers}) == client


# what fails


@pytest.mark.parametrize(
    ("error", "status"), [(Unavailable("away"), 503), (Full("no room"), 503), (RuntimeError("x"), 500)]
)
async def test_a_page_that_fails_is_a_page_with_all_its_headers(
    here: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, status: int
) -> None:
    """A view that cannot be written down is not shown."""
    hold_id = await held(here, body="A sentence that is only in the text")
    eva = await here.signed_in(EVA, Role.APPROVER)

    async def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(here.home.store, "record", fails)
    answer = await eva.get(f"/held/{hold_id}")
    assert answer.status_code == status
    assert "A sentence that is only in the text" not in answer.text
    assert "That did not work" in answer.text
    for name in HEADERS:
        assert name in answer.headers
    assert "/held" in caplog.text
    assert hold_id not in caplog.text


async def test_a_form_that_does_not_end_is_given_up(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.console.people.doorway.FORM_SECONDS", 0.05)
    eva = await here.signed_in(EVA, Role.APPROVER)

    async def drips() -> AsyncIterator[bytes]:
        yield b"csrf="
        await asyncio.Event().wait()

    sent = {"content-length": "100", "content-type": "application/x-www-form-urlencoded", "origin": eva.origin}
    answer = await eva.http.post("/freeze", content=drips(), headers=sent)
    assert answer.status_code == 408
