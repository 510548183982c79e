"""Mentions elsewhere: feeds from public hosts only, signed requests of media monitoring, and each mention once."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import trustme
from starlette.applications import Starlette

from smtpguard.app.files import CannotStart
from smtpguard.app.mentions import PATH, Feeds, NotFetched, fetch, is_public, routes
from smtpguard.config.web import Feed, Mentions, Monitoring
from smtpguard.database.errors import Unavailable
from smtpguard.observe.webhooks import HEADER, signed
from smtpguard.returns.mentions import Mention, by_source, mention, of_feed, web
from smtpguard.returns.model import Sort
from tests.every import every
from tests.returns.mails import Out

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
RSS = """<?xml version="1.0"?><rss version="2.0"><channel><title>The Paper</title>
<item><title>A &lt;b&gt;bacon&lt;/b&gt; mail goes to customers</title><link>https://paper.example/a?utm_source=rss</link><pubDate>Mon, 02 Mar 2026 08:30:00 +0000</pubDate></item>
<item><title>Weather</title><link>javascript:alert(1)</link></item>
<item><link>https://paper.example/untitled</link></item></channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Other</title>
<entry><title>A bacon mail goes to customers!</title><link href="https://other.example/x"/><updated>2026-03-02T08:45:00Z</updated></entry></feed>"""


@every(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.0.0.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False), ("2002:a00:1::", False), ("::10.0.0.1", False), ("nonsense", False),
    ],
)  # fmt: skip
def test_public_addresses_are_recognized(address: str, public: bool) -> None:
    assert is_public(address) is public


@asynccontextmanager
async def server(answer: bytes, name: str = "news.example") -> AsyncIterator[tuple[int, ssl.SSLContext, list[bytes]]]:
    """An HTTPS server on loopback with a certificate for ``name``. Yields its port, a client context, and the requests."""
    authority, asked = trustme.CA(), list[bytes]()
    there, here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(there)
    authority.configure_trust(here)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=there)
    async with made:
        yield made.sockets[0].getsockname()[1], here, asked


def page(body: bytes, head: str = "HTTP/1.1 200 OK\r\nContent-Type: application/rss+xml") -> bytes:
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + body


async def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_a_feed_is_fetched_from_the_resolved_address() -> None:
    names: list[str] = []

    async def once(host: str, port: int) -> Sequence[str]:
        names.append(host)
        return ["127.0.0.1"]

    async with server(page(RSS.encode())) as (port, trust, asked):
        url = f"https://news.example:{port}/rss?q=bacon"
        body, kind = await fetch(url, resolve=once, allowed=lambda a: a == "127.0.0.1", verify=trust)
        assert (body.decode(), kind) == (RSS, "application/rss+xml")
        assert names == ["news.example"], "it is resolved once: another answer would lead nowhere"
        [request] = asked
        assert request.startswith(b"GET /rss?q=bacon HTTP/1.1\r\n")
        assert f"Host: news.example:{port}".lower().encode() in request.lower()
        with pytest.raises(NotFetched, match="Error"):  # the certificate is for another name
            await fetch(f"https://else.example:{port}/", resolve=once, allowed=lambda a: True, verify=trust)


@every("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], []])
async def test_a_name_with_an_internal_address_is_refused(addresses: list[str]) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    async with server(page(RSS.encode())) as (port, trust, asked):
        with pytest.raises(NotFetched, match="not public"):
            await fetch(f"https://news.example:{port}/", resolve=resolve, verify=trust)
        assert asked == []


@every(
    ("answer", "why"),
    [
        (page(b"", "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/"), "answers 302"),
        (page(b"x" * 5_000), "larger than"),
        (page(b"x", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip"), "packed"),
        (b"nonsense\r\n\r\n", "Error"),
    ],
)
async def test_other_answers_than_a_feed_are_refused(answer: bytes, why: str) -> None:
    async with server(answer) as (port, trust, asked):
        with pytest.raises(NotFetched, match=why):
            await fetch(
                f"https://news.example:{port}/", resolve=loopback, allowed=lambda a: True, most=4_096, verify=trust
            )
        assert len(asked) == 1, "no redirect is followed"


async def test_an_answer_that_never_comes_times_out() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(NotFetched, match="in time"):
        await fetch("https://news.example/", resolve=resolve, seconds=0.01)
    with pytest.raises(NotFetched, match="https"):
        await fetch("http://news.example/")


def test_links_and_titles_are_plain_text() -> None:
    assert [web(url) for url in ("javascript:x", "https://a.example/ x", "https://u@a.example", None, "//a")] == [
        ""
    ] * 5
    made = mention("x", "a <i>b</i> &amp; \u202ec", "https://a.example", NOW + timedelta(days=1), NOW)
    assert made is not None
    assert (made.title, made.at) == ("a b & c", NOW)
    assert mention("x", " <b> </b>", "", None, NOW) is None
    assert mention("x", f"a &#{'9' * 4_900};", "", None, NOW) is not None


async def test_the_same_link_from_several_sources_is_one_mention(out: Out) -> None:
    pytest.importorskip("feedparser")
    feeds = [Feed(name="The Paper", url="https://paper.example/rss"), Feed(name="Other", url="https://other.example/atom"),
             Feed(name="Broken", url="https://broken.example/"), Feed(name="Away", url="https://away.example/")]  # fmt: skip
    bodies = {
        "https://paper.example/rss": RSS,
        "https://other.example/atom": ATOM,
        "https://broken.example/": "no feed",
    }

    async def get(url: str) -> tuple[bytes, str]:
        if url not in bodies:
            raise NotFetched("no answer in time")
        return bodies[url].encode(), ""

    settings: Any = SimpleNamespace(mentions=Mentions(feeds=feeds))
    reading = Feeds(settings, out.home.store.returns.mention, out.home.clock, get=get)
    await reading.read()
    await reading.read()
    found = await out.service.outside(NOW - timedelta(days=1))
    assert [(one.title, one.sources) for one in found] == [
        ("Weather", (("The Paper", ""),)),
        ("A bacon mail goes to customers", (("Other", "https://other.example/x"), ("The Paper", "https://paper.example/a?utm_source=rss"))),
    ]  # fmt: skip
    assert [(name, len(some)) for name, some in by_source(found)] == [("Other", 1), ("The Paper", 2)]
    assert {one.sort for one in await out.home.store.returns.newest()} == {Sort.MENTION}


async def test_a_feed_is_parsed_in_a_process_that_can_be_killed(
    out: Out, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """feedparser's search for an address in an author takes hours, in which no other thread of its process runs."""
    library = pytest.importorskip("feedparser")
    monkeypatch.setattr(library, "parse", lambda *_, **__: pytest.fail("parsed in this process"))
    feeds = [Feed(name="Slow", url="https://slow.example/rss"), Feed(name="Good", url="https://good.example/rss")]

    async def get(url: str) -> tuple[bytes, str]:
        author = b"a." * 500_000 if "slow" in url else b""
        return RSS.replace("<item>", "<item><author>%s</author>", 1).encode() % author, "application/rss+xml"

    settings: Any = SimpleNamespace(mentions=Mentions(feeds=feeds[:1]))
    await Feeds(settings, out.home.store.returns.mention, out.home.clock, get=get, parse_seconds=0.5).read()
    assert "the feed Slow cannot be read: it takes too long to read" in caplog.text
    settings = SimpleNamespace(mentions=Mentions(feeds=feeds[1:]))
    await Feeds(settings, out.home.store.returns.mention, out.home.clock, get=get).read()
    assert len(await out.service.outside(NOW - timedelta(days=1))) == 2


def test_malformed_feeds_are_read() -> None:
    entries = [
        {"title": 5},
        {"title": "x", "published_parsed": (2026, 13)},
        {"title": "y", "published_parsed": "no"},
        {},
    ]
    assert [one.title for one in of_feed("x", {"entries": entries}, NOW)] == ["x", "y"]


async def test_media_monitoring_requests_must_be_signed(out: Out, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of sixteen\n")
    settings: Any = SimpleNamespace(mentions=Mentions(webhook=Monitoring(name="monitoring", secret_file=secret)))
    failing = [False]

    async def take(some: Sequence[Mention]) -> int:
        if failing[0]:
            raise Unavailable("gone")
        return await out.home.store.returns.mention(some)

    app = Starlette(routes=routes(settings, take, out.home.clock))
    items = {"items": [{"title": "A bacon mail goes to customers", "url": "https://p.example/1", "source": "Radio", "at": "2026-03-02T08:00:00Z"}]}  # fmt: skip
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://here") as http:

        async def send(body: bytes, at: datetime = NOW, key: bytes = b"a secret of sixteen") -> tuple[int, Any]:
            answer = await http.post(PATH, content=body, headers={HEADER: signed(key, int(at.timestamp()), body)})
            return answer.status_code, answer.json()

        good = json.dumps(items).encode()
        assert await send(good) == (200, {"new": 1})
        assert await send(good) == (200, {"new": 0}), "a repeated request adds nothing"
        assert (await send(good, key=b"another secret !"))[0] == 401
        assert (await send(good, at=NOW - timedelta(minutes=6)))[0] == 401
        assert (await http.post(PATH, content=good, headers={HEADER: f"t={'1' * 5000},v1=0"})).status_code == 401
        for bad in (
            b"[]",
            b"{}",
            b"no json",
            b'{"items": [1]}',
            b'{"items": [{"title": "x", "at": "2026-03-02T08:00:00"}]}',
        ):
            assert (await send(bad))[0] == 422
        assert (await send(b'{"items": [' + b" " * (300 << 10) + b"]}"))[0] == 413
        failing[0] = True
        assert (await send(good))[0] == 503
    [one] = await out.service.outside(NOW - timedelta(days=1))
    assert one.sources == (("monitoring: Radio", "https://p.example/1"),)
    secret.write_text("short")
    with pytest.raises(CannotStart, match="16 characters"):
        routes(settings, take, out.home.clock)
