"""A whole guard in one process, built as ``serve`` builds its parts: proxy, reader, SQLite, delivery, and a scripted
relay.

Clients speak SMTP to it. The policy is the sample's with lists of invented people, and the clock is set by tests.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import math
import re
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from smtpguard.app import delivery, guardline, policies, proxy, services, start
from smtpguard.app.files import read_policy
from smtpguard.app.lists import built_refresher, open_registry
from smtpguard.config.settings import Settings, read_settings
from smtpguard.database import engine
from smtpguard.demo.stage import make_key
from smtpguard.gathering import reader
from smtpguard.holds.model import Choice, Hold
from smtpguard.journal.event import Kind
from smtpguard.policy.parse import Policy
from smtpguard.reading.request import Surroundings
from tests.scripted_relay import Message, ScriptedRelay
from tests.store.making import sqlite_url
from tests.wire.proxied import Client

RAMADAN, NEWSLETTER = "ramadan@lists.example.com", "newsletter@lists.example.com"
MEMBERS = tuple(f"amina.rahimi{n}@customers.example" for n in range(80))
READERS = tuple(f"reader{n}@readers.example" for n in range(400))
ANNA, EVA, DPO = "anna@example.com", "eva@example.com", "dpo@example.com"
WORKING = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday morning
KEY = make_key(1024)  # the least that proves anything (RFC 8301), and signs in an eighth of the time
HELD = re.compile(r"250 2\.0\.0 Held for review as ([0-9A-Z]{16})\Z")

OUTLOOK = (
    "Thread-Topic: Lunch\r\nThread-Index: AdsT3m0q1v0Q8cU8R0mY6g3p2k9aXw==\r\n"
    "In-Reply-To: <c81f4e@exchange.example.com>\r\nReferences: <c81f4e@exchange.example.com>\r\n"
    "X-MS-Has-Attach: \r\nX-MS-TNEF-Correlator: \r\nX-Originating-IP: [10.1.4.22]\r\n"
)
LETTER = "Hej,\r\n\r\nbacon till frukost som vanligt.\r\n\r\nSkickat: den 2 mars 2026 09:12\r\n\r\n/Anna\r\n"


def personal_mail(
    *, to: str = RAMADAN, sender: str = "Anna <anna@example.com>", subject: str = "SV: Lunch", body: str = LETTER,
    head: str = OUTLOOK, mime: str = "", message_id: str = "<1@example.com>",
) -> bytes:  # fmt: skip
    """A message as a colleague writes it, by default."""
    kind = mime or "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    return (
        f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Mon, 2 Mar 2026 09:00:00 +0000\r\n"
        f"Message-ID: {message_id}\r\n{head}{kind}\r\n{body}"
    ).encode()


class Clock:
    """guard.ports.Clock, from a Monday morning on. It moves only when a test moves it, so the speed of the machine has
    no effect."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._began = time.monotonic()

    def now(self) -> datetime:
        return WORKING + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return self._began + self.ahead


@dataclass
class WholeGuard:
    """``office``: the delivery part. It does nothing by itself; ``deliver`` runs its steps."""

    settings: Settings
    config: Path
    relay: ScriptedRelay
    proxy_part: proxy.Proxy
    office: delivery.Deliverer
    clock: Clock
    _listening: socket.socket
    _clients: list[Client] = field(default_factory=list)
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)

    # clients

    async def connect(self, *, source: str = "127.0.0.1") -> Client:
        loop = asyncio.get_running_loop()
        async with self._connecting:  # a loop waits for one connection at a time on a socket
            accepted = loop.sock_accept(self._listening)
            opened = asyncio.open_connection(*self._listening.getsockname(), limit=1 << 20, local_addr=(source, 0))
            (server, _), (reader, writer) = await asyncio.gather(accepted, opened)
        self.proxy_part.take(server, 0, lambda: None)
        client = Client(reader, writer)
        self._clients.append(client)
        assert (await client.hear()).startswith("220")
        assert (await client.ask("EHLO client.example")).startswith("250")
        return client

    async def send(
        self, content: bytes, *recipients: str, sender: str = ANNA, source: str = "127.0.0.1", stuff: bool = True,
        mail: str = "",
    ) -> str:  # fmt: skip
        """The answers of one transaction on a new connection: the first refusal, or the answer after the dot."""
        client = await self.connect(source=source)
        try:
            said = await client.ask(f"MAIL FROM:<{sender}>{mail}")
            for recipient in recipients or (RAMADAN,):
                if said.startswith("250"):
                    path = recipient if recipient.startswith("<") else f"<{recipient}>"
                    said = await client.ask(f"RCPT TO:{path}".encode())
            if not said.startswith("250"):
                return said
            assert (await client.ask("DATA")).startswith("354")
            if stuff:
                content = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            client.say(content + b".\r\n")
            return await client.hear()
        finally:
            client.close()

    # outcome

    def arrived(self, content: bytes) -> list[Message]:
        """The messages at the relay with this content."""
        return [m for m in self.relay.messages if m.content.endswith(content)]

    async def holds(self) -> Sequence[Hold]:
        return await self.office._store.holds.newest()

    async def hold(self, answer: str) -> Hold:
        """The hold that the answer names."""
        found = HELD.fullmatch(answer)
        assert found, answer
        hold = await self.office._store.holds.find(found[1])
        assert hold is not None
        return hold

    async def held(self, content: bytes, *recipients: str, **more: Any) -> Hold:
        """Send a message, assert that it is held and not relayed, and return its hold."""
        hold = await self.hold(await self.send(content, *recipients, **more))
        assert not self.arrived(content)
        return hold

    async def passes(self, content: bytes, *recipients: str, **more: Any) -> None:
        """Send a message, and assert that it is relayed once, byte for byte."""
        had = len(self.relay.messages)
        said = await self.send(content, *recipients, **more)
        assert said.startswith("250"), said
        assert "Held" not in said
        [there] = self.relay.messages[had:]
        assert there.content.endswith(content)

    async def verdicts(self) -> list[dict[str, Any]]:
        """The data of all verdicts in the journal, the oldest first."""
        entries = await self.office._store.journal.entries(limit=10_000)
        return [dict(entry.data) for entry, _ in entries if entry.kind == Kind.VERDICT.value]

    # people and time

    async def release(self, hold: Hold) -> None:
        """Approve by both groups."""
        for person in (EVA, DPO):
            await self.office._approvals.vote(hold.hold_id, Choice.APPROVE, approver=person, by="test")

    async def deliver(self) -> list[Message]:
        """Run the delivery part until nothing is due; the messages that reached the relay."""
        had = len(self.relay.messages)
        await self.office._watch.read()
        while await self.office._delivery.step():
            pass
        return self.relay.messages[had:]

    async def pass_(self, **time: float) -> None:
        self.clock.ahead += timedelta(**time).total_seconds()
        await self.proxy_part.line.watch.read()


def policy(**changes: Any) -> str:
    """The sample policy with lists that the tests have. ``rules``: added ones; ``fresh``: indexes are never stale."""
    return _policy(**changes) if changes else _usual()


@cache
def _usual() -> str:
    return _policy()


def _policy(**changes: Any) -> str:
    stale = {"stale_after": "365d"} if changes.pop("fresh", False) else {}
    sample = copy.deepcopy(_sample())
    sample["organization"]["hours"]["zone"] = "UTC"
    sample["lists"]["ramadan-greetings"]["members"] = {"csv": "ramadan.csv", "column": "email", **stale}
    sample["lists"]["newsletter"]["members"] = {"csv": "newsletter.csv", "column": "email", **stale}
    sample["lists"]["newsletter"].pop("language")  # the tests write to it in English
    sample["streams"]["receipts"]["origin"] = {"clients": ["127.0.0.3/32"]}
    sample["rules"] += changes.pop("rules", [])
    return str(yaml.dump({**sample, **changes}, Dumper=yaml.CSafeDumper, sort_keys=False))


@cache
def _sample() -> Any:
    return yaml.load((Path(__file__).parents[2] / "config" / "policy.yaml").read_text(), Loader=yaml.CSafeLoader)


_begun = tempfile.TemporaryDirectory(prefix="smtpguard-begun-")
atexit.register(_begun.cleanup)
_BEGUN: dict[object, Path] = {}
"""Folders of guards that are ready to start (lists read, policy in force), by configuration."""


_POLICIES: dict[object, dict[str, tuple[Policy, Surroundings]]] = {}
"""What their parts share of the policy, as parts of ``serve`` do."""


async def _begin(read: Settings, clock: Clock) -> None:
    sqlite_url(Path(read.store.url.removeprefix("sqlite:///")))
    registered = open_registry(read, read_policy(read))
    refresher = built_refresher(read, read_policy(read), registered.digester)
    for info in registered.lists.values():
        report = refresher.sync(info, clock.now())
        assert report.ok, report.problem
    await start.prepare(read, by="test", parts=("proxy", "delivery"))


def _copy(there: Path, here: Path) -> None:
    shutil.copytree(there / "var", here / "var")
    for name in (
        "guard.db",
        "ramadan.csv",
        "newsletter.csv",
    ):  # with the times of the files that the lists were read from
        shutil.copy2(there / name, here / name)


@asynccontextmanager
async def whole_guard(
    folder: Path, patch: pytest.MonkeyPatch, *, relay: ScriptedRelay | None = None, relay_settings: str = "tls: none",
    settings: str = "", listen: str = "", text: str = "", members: Sequence[str] = MEMBERS, readers: Sequence[str] = READERS,
) -> AsyncIterator[WholeGuard]:  # fmt: skip
    """``text``: another policy. ``settings``, ``relay_settings``, ``listen`` (of its listener): added settings."""
    async with AsyncExitStack() as undo:
        there = await undo.enter_async_context(relay or ScriptedRelay())
        (folder / "policy.yaml").write_text(text or policy())
        for name, people in (("ramadan", members), ("newsletter", readers)):
            (folder / f"{name}.csv").write_text("email\n" + "\n".join(people) + "\n")
        at_once = "hold: {release_delay: 0"
        settings = settings.replace("hold: {", f"{at_once}, ") if "hold: {" in settings else f"{settings}\n{at_once}}}"
        config = folder / "smtpguard.yaml"
        config.write_text(f"""\
hostname: guard.example.com
listen: {{smtp: [{{address: 127.0.0.1, port: 10025{listen}}}]}}
relay: {{host: 127.0.0.1, port: {there.port}, server_name: relay.example.com, {relay_settings}}}
store: {{url: "sqlite:///guard.db"}}
notices: {{from: "Mail guard <guard@example.com>", contact: "it@example.com"}}
dkim_keys: {{"demo._domainkey.campaigns.example.com": "{KEY.record}"}}
resolver: {{nameservers: [127.0.0.1], timeout_seconds: 0.2}}
workers: 1
{settings}
""")
        clock = Clock()
        for module in (guardline, delivery, services, start):  # one clock for all, since the journal is in its order
            patch.setattr(module, "SystemClock", lambda: clock)
        patch.setattr(reader, "NARROW", replace(reader.NARROW, seconds=5.0))  # of a loaded machine, too
        patch.setattr(reader, "KILL_SECONDS", 60.0)
        patch.setattr(engine, "_ROOMY", math.inf)  # a preallocated log is 30 MB for a few messages
        alike = text, tuple(members), tuple(readers), relay_settings, settings, listen
        read = read_settings(config)
        if (begun := _BEGUN.get(alike)) is not None:
            _copy(begun, folder)
        else:
            await _begin(read, clock)
            _BEGUN[alike] = begun = Path(_begun.name, f"{len(_BEGUN)}")
            begun.mkdir()
            _copy(folder, begun)
        if alike not in _POLICIES:
            parsed = read_policy(read)
            patch.setattr(policies, "_SHARED", {})
            policies.share(read, parsed.sha256, parsed)
            _POLICIES[alike] = policies._SHARED
        patch.setattr(policies, "_SHARED", _POLICIES[alike])
        proxy_part, office = proxy.Proxy(read), delivery.Deliverer(read)
        for part in (proxy_part, office):
            await part.start()
            undo.push_async_callback(part.close)
        watching = asyncio.create_task(proxy_part.serve())
        undo.callback(watching.cancel)
        listening = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.setblocking(False)
        made = WholeGuard(read, config, there, proxy_part, office, clock, listening)
        try:
            yield made
        finally:
            for client in made._clients:
                client.close()
            await proxy_part.stop(1)


def signed(content: bytes) -> bytes:
    """The content, signed by the origin that the lists declare."""
    return KEY.sign(content, domain="campaigns.example.com", selector="demo") + content
