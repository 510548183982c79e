"""The checks of every request: hosts, headers, redirects and sessions; and that GET changes nothing. Forms are in
test_forms."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Message

from smtpguard.accounts.model import Role
from smtpguard.console.people.middleware import HEADERS, Site, safe_path
from smtpguard.database.errors import Full, Unavailable
from smtpguard.notices.links import Link, Links
from tests.console.holding import ANNA, EVA, NEWS, OMAR, held
from tests.console.stage import Stage, stage
from tests.every import every
from tests.guard.house import KEY
from tests.store.servers import new_database

# -- hosts


@every("host", ["evil.example.net", "guard.example.com:8443", "guard.example.com.evil.net", "127.0.0.1", ""])
async def test_another_host_is_refused(here: Stage, host: str) -> None:
    answer = await here.browser().get("/login", host=host)
    assert answer.status_code == 421
    assert "evil" not in answer.text


@pytest.mark.parametrize("path", ["/held/a%00", "/history?q=a%00", "/static/%00"])
async def test_nul_is_in_no_address(here: Stage, path: str) -> None:
    """PostgreSQL refuses it in a text: the answer said that the store was away."""
    assert (await here.browser().get(path)).status_code == 400


@pytest.mark.parametrize("fields", [{"hold": ["H1\0", "H2"]}, {"hold": "H1", "re\0ason": "x"}])
async def test_nul_is_in_no_form(postgresql: str, tmp_path: Path, fields: dict[str, Any]) -> None:
    async with stage(tmp_path, url=new_database(postgresql)) as here:
        browser = await here.signed_in(EVA, Role.APPROVER)
        await browser.get("/me")
        answer = await browser.post("/decide", **fields)
        assert (answer.status_code, answer.text) == (400, "A field must not contain a NUL\n")


@every(
    ("url", "host"),
    [
        ("https://Guard.example.com:443", "guard.example.com"), ("http://guard.example.com:80", "guard.example.com"),
        ("https://guard.example.com:80", "guard.example.com:80"), ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)  # fmt: skip
def test_the_default_port_is_omitted(url: str, host: str) -> None:
    place = Site(url=url)
    assert place.hosts == {host}
    assert place.origins == {f"{url.partition(':')[0]}://{host}"}


async def test_links_and_redirects_ignore_the_host_header(here: Stage) -> None:
    browser = here.browser()
    answer = await browser.get("/me", **{"x-forwarded-host": "evil.example.net", "forwarded": "host=evil.example.net"})
    assert answer.headers["location"].startswith("/login")
    assert "evil" not in (await browser.get("/login", **{"x-forwarded-host": "evil.example.net"})).text


async def test_a_slash_too_many_redirects_nowhere(here: Stage) -> None:
    """Behind a proxy that ends TLS the redirect was to http, and a program sent its token there."""
    eva = await here.signed_in(EVA, Role.APPROVER)
    for path in ("/login/", "/held/", "/static", "/api/v1/held/", "/api/v1"):
        answer = await eva.get(path, authorization="Bearer x")
        assert (answer.status_code, answer.headers.get("location")) == (404, None), path


async def test_without_a_url_the_listening_address_is_the_host(tmp_path: Path) -> None:
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


@every("path", ["/login", "/", "/me", "/nowhere", "/static/console.css", "/api/v1/me", "/api/v1/nowhere"])
async def test_every_answer_has_the_security_headers(here: Stage, path: str) -> None:
    answer = await here.browser().get(path)
    for name, value in HEADERS.items():
        if name == "cache-control" and path.startswith("/static/"):
            continue
        assert answer.headers[name] == value, name
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "'unsafe" not in answer.headers["content-security-policy"]


@every(("path", "kind"), [
    ("/nowhere", "text/html; charset=utf-8"), ("/api/v2/held", "application/problem+json"),
    ("/api/held", "application/problem+json"), ("/apiary", "text/html; charset=utf-8"),
])  # fmt: skip
async def test_a_path_that_does_not_exist_is_answered_in_its_kind(here: Stage, path: str, kind: str) -> None:
    """A program that misspells the version of the API reads no page."""
    answer = await here.browser().get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, kind)


async def test_no_page_needs_an_inline_script_or_style(here: Stage) -> None:
    browser = await here.signed_in(EVA, *Role)
    for path in ("/login", "/me", "/me/factor", "/people"):
        text = (await browser.get(path)).text
        assert " style=" not in text, path
        assert " on" not in text.replace(" one", "").replace(" once", "").replace(" only", "") or "onclick" not in text
        assert "<style" not in text
        assert "<script>" not in text


# -- looking changes nothing


def walked(routes: list[BaseRoute], under: str = "") -> list[Route]:
    found: list[Route] = []
    for route in routes:
        if isinstance(route, Mount):
            found += walked(list(route.routes), under + route.path)
        elif isinstance(route, Route):
            found.append(Route(under + route.path, route.endpoint, methods=list(route.methods or ())))
    return found


async def everything(here: Stage) -> dict[str, list[str]]:
    """The rows of every table; of the journal all but views."""

    def dump(connection: object) -> dict[str, list[str]]:
        run = connection.exec_driver_sql  # type: ignore[attr-defined]
        names = [name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        skipped = {"head", "entry", "clear", "checkpoint"}
        tables = {name: sorted(map(repr, run(f"SELECT * FROM {name}"))) for name in names if name not in skipped}
        tables["entry"] = sorted(map(repr, run("SELECT kind, id, body FROM entry WHERE kind <> 'viewed'")))
        return tables

    return await here.home.store.ask(dump)


async def test_get_and_head_change_nothing(here: Stage) -> None:
    """GET and HEAD change nothing, with every role, with a writer's link, and without a session: mail scanners follow
    links."""
    hold = await held(here, NEWS)
    until = here.home.clock.now().replace(year=2030)
    link = Links(KEY).sign(Link(hold_id=hold.hold_id, address=ANNA, until=until))
    account = await here.person(OMAR, Role.VIEWER)
    signed = await here.signed_in(EVA, *Role)
    await here.signing.sessions.write()
    values = {"hold_id": hold.hold_id, "link": link, "account_id": account.account_id, "freeze_id": "F1", "token": link}
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


async def test_every_post_requires_the_token(here: Stage) -> None:
    """Every POST without the token is refused, as the middleware checks it for all routes."""
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


# -- redirects


@every("elsewhere", ["https://evil.net/", "//evil.net/", "/\\evil.net", "\\\\evil.net", "javascript:alert(1)", "",
                                       "/ok\r\nSet-Cookie: a=b", "/\t/evil.net", "/login?next=/login", "/logout", "/å", "evil", None, 7])  # fmt: skip
def test_redirects_to_other_sites_are_refused(elsewhere: object) -> None:
    assert safe_path(elsewhere) == "/"


@every("path", ["/", "/held/T1?done=1", "/me#x", "/held?q=a//b"])
def test_redirects_to_own_paths_are_kept(path: str) -> None:
    assert safe_path(path) == path


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="/\\.:?#@ae\t\r\n ", max_size=12).map(lambda t: "/" + t))
def test_any_redirect_stays_on_this_host(path: str) -> None:
    found = urlsplit(urljoin("https://guard.example.com/login", safe_path(path).replace("\\", "/")))
    assert (found.scheme, found.netloc) == ("https", "guard.example.com")


# -- sessions and roles


@every(
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
def test_only_trusted_proxies_name_the_client(peer: str, said: str, client: str) -> None:
    place = Site(url="https://guard.example.com", proxies=[ip_network("10.0.0.0/8")])
    headers = [(b"x-forwarded-for", said.encode())] if said else []
    assert place.client({"client": (peer, 1), "headers": headers}) == client


# -- errors


@pytest.mark.parametrize(
    ("error", "status"), [(Unavailable("away"), 503), (Full("no room"), 503), (RuntimeError("x"), 500)]
)
async def test_an_error_page_has_all_headers(
    here: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, status: int
) -> None:
    """An error page has all headers; a view that cannot be journalled is not shown."""
    hold = await held(here, NEWS, body="A sentence that is only in the text")
    eva = await here.signed_in(EVA, Role.APPROVER)

    async def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(here.home.store.journal, "record", fails)
    answer = await eva.get(f"/held/{hold.hold_id}")
    assert answer.status_code == status
    assert "A sentence that is only in the text" not in answer.text
    assert "That did not work" in answer.text
    assert ("look whether it was done before you repeat it" in answer.text) is (status == 500)
    assert "Nothing was done." not in answer.text, "that is not known of an error of our own"
    for name in HEADERS:
        assert name in answer.headers
    assert "/held" in caplog.text
    assert hold.hold_id not in caplog.text


async def test_a_page_says_that_the_store_is_away_before_it_is_known_who_asks(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    eva = await here.signed_in(EVA, Role.APPROVER)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(here.signing.sessions, "find", away)
    answer = await eva.get("/held", **{"accept-language": "sv"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Vaktens databas svarar inte" in answer.text


async def test_an_address_of_forms_leads_to_their_page(here: Stage) -> None:
    """It stands above the answer to a form: people reload it, or sign in again and come back to it."""
    eva = await here.signed_in(EVA, *Role)
    found = [(re.sub(r"{\w+}", "X1", r.path), r.methods or set()) for r in walked(list(here.app.routes))]
    pages = {path for path, methods in found if "GET" in methods}
    for path in {path for path, methods in found if "POST" in methods and not path.startswith("/api/")} - pages:
        assert (await eva.get(path)).headers["location"] in pages, path
    assert (await eva.get("/decided")).headers["location"] == "/held"


async def test_a_browser_that_leaves_while_it_sends_a_form_is_no_error(here: Stage) -> None:
    async def leaves() -> Message:
        return {"type": "http.disconnect"}

    async def sent(message: Message) -> None:
        raise AssertionError(message)

    fields = {"host": "guard.example.com", "content-length": "9", "content-type": "application/x-www-form-urlencoded"}
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": headers}
    await here.app({**scope, "client": ("192.0.2.7", 4000)}, leaves, sent)
