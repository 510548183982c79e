"""The console over 20,000 held messages, of which two thirds wait: the time of each page, beside the goal of 0.3 s for
95 of 100.

The console part of ``serve`` runs on loopback over a store with generated holds, each with its own text, and a user is
signed in. The journal has what was done with them, and five times as many messages that passed, over 30 days. The store
is SQLite on disk, in a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import re
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from bench.through import table
from smtpguard.accounts.model import Role
from smtpguard.app import start
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.console import Console
from smtpguard.app.files import installation_secret
from smtpguard.app.services import accounts, opened
from smtpguard.config.settings import read_settings
from smtpguard.database.engine import Database
from smtpguard.database.schema import hold as table_of_holds
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Hold, State
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.mail.message import Message
from smtpguard.observe import log
from smtpguard.policy.verdict import Action, Hit, Quorum, Reason, Verdict

ENDS = (Kind.REJECTED, Kind.APPROVED, Kind.WITHDRAWN, Kind.EXPIRED)
GOAL_SECONDS = 0.3
EVA, PASSWORD = "eva@example.com", "a password for a bench"
POLICY = """\
organization: {name: Example AB, domains: [example.com]}
groups: {communications: [eva@example.com], compliance: [dpo@example.com]}
approvals: {from: [communications]}
lists:
  news: {title: News, addresses: [news@lists.example.com]}
  greetings: {title: Greetings, addresses: [greetings@lists.example.com], approvals: {from: [compliance]}}
rules: [{id: internal-to-list, when: {recipients.list_addresses: any}, then: hold}]
"""
CONTENT = Message.of(b"From: anna@example.com\r\nSubject: SV: lunch\r\n\r\nBacon and liquor at noon.\r\n")


def made(n: int, now: datetime) -> Iterator[Hold]:
    """Two thirds wait, the others are decided. One in thirty is a copy, which the console shows under its primary hold."""
    news = Verdict(
        action=Action.HOLD,
        hits=(Hit(rule="internal-to-list", action=Action.HOLD, reasons=(
            Reason(fact="recipients.list_addresses", observed="1", limit="any", public="It is addressed to a customer list.",
                   detail="x" * 600),)),),
        policy_sha256="0" * 64,
        quorum=(Quorum(groups=("communications",), list="news"),),
    )  # fmt: skip
    verdicts = {"news": news, "greetings": replace(news, quorum=(Quorum(groups=("compliance",), list="greetings"),))}
    lists = {name: Address.parse(f"{name}@lists.example.com") for name in verdicts}
    for number in range(n):
        name = "greetings" if number % 5 == 0 else "news"
        sender = f"colleague{number % 500}@example.com"
        yield Hold(
            hold_id=f"H{number:015d}",
            mailing_id="",
            session=Session(client_ip="192.0.2.1"),
            envelope=Envelope(reverse_path=Address.parse(sender), recipients=(Recipient(address=lists[name]),)),
            content_sha256=CONTENT.sha256,
            size_bytes=CONTENT.size_bytes,
            subject=f"SV: lunch number {number} with {'bacon' if number % 7 else 'herring'}",
            message_id=f"<{number}@example.com>",
            verdict=verdicts[name],
            state=(State.WAITING, State.WAITING, State.REJECTED)[number % 3],
            votes=(),
            held_at=now - timedelta(seconds=2 * (n - number)),
            expires_at=now + timedelta(hours=24),
            sender=sender,
            senders=frozenset({sender}),
            lists=(name,),
            reach=1200 + number % 100,
            acknowledged=True,
            primary="H000000000000001" if number % 30 == 29 else "",
        )


async def fill(settings: Any, n: int) -> None:
    """Insert the holds straight into the table: only the pages are measured."""
    clock = SystemClock()
    async with opened(settings) as (store, _):
        await store.contents.keep(CONTENT)
        made_accounts = accounts(settings, store, clock, secret=installation_secret(settings), new_id=ids())
        await made_accounts.add(EVA, roles=(Role.APPROVER, Role.VIEWER), password=PASSWORD, by="bench")
    database = Database(settings.store.url)
    try:
        with database.write() as connection:
            rows = [
                holds.row_of(each, hashlib.sha256(each.hold_id.encode()).hexdigest()) | {"acknowledged": True}
                for each in made(n, datetime.now(UTC))
            ]
            connection.execute(table_of_holds.insert(), rows)
    finally:
        database.close()


async def journal(settings: Any, n: int) -> None:
    """Journal the decisions in order of time over 30 days, and sum them up as the delivery part does."""
    now = datetime.now(UTC)
    step = timedelta(days=29) / n
    async with opened(settings) as (store, _):
        events: list[Event] = []
        for number in range(n):
            at, id, name = now - step * (n - number), f"H{number:015d}", ("greetings", "news")[number % 5 > 0]
            held = {"action": "hold", "rules": [f"rule-{number % 12}"], "lists": [name], "hold": id}
            events.append(Event(kind=Kind.VERDICT, id=id, at=at, data=held))
            if number % 3 == 2:
                events.append(Event(kind=ENDS[number % 4], id=id, at=at + step))
            for other in range(5):
                passed = {"action": "relay", "lists": [], "counts": {"customers": 1}}
                events.append(Event(kind=Kind.VERDICT, id=f"P{number:012d}{other}", at=at, data=passed))
            if len(events) > 5000:
                await store.journal.record(events)
                events = []
        await store.journal.record(events)
        while await store.journal.index():
            pass


async def sign_in(client: httpx2.AsyncClient) -> None:
    page = (await client.get("/login")).text
    found = re.search(r'name="csrf" value="([^"]*)"', page)
    assert found is not None
    answer = await client.post("/login", data={"csrf": found[1], "address": EVA, "password": PASSWORD, "code": ""})
    assert answer.status_code == 303, answer.text[:300]


def deep(n: int) -> str:
    """The address of a page near the end of the list, with the waiting holds of the smallest reach."""
    at = datetime.now(UTC) + timedelta(hours=24)
    return f"/held?after=1-1200-{int(at.timestamp() * 1e6)}-H"


async def measured(folder: Path, n: int, times: int) -> list[list[str]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "policy.yaml").write_text(POLICY)
    config = folder / "smtpguard.yaml"
    config.write_text(
        f"console: {{address: 127.0.0.1, port: {port}, url: 'http://127.0.0.1:{port}'}}\nlogging: {{format: json}}\n"
    )
    settings = read_settings(config)
    await start.prepare(settings, by="bench", parts=("console",))
    begun = time.perf_counter()
    await fill(settings, n)
    await journal(settings, n)
    print(f"{n:,} holds written in {time.perf_counter() - begun:.0f} s")
    part = Console(settings)
    await part.start()
    serving = asyncio.create_task(part.serve())
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            await sign_in(client)
            pages = {
                "the overview": "/",
                "the overview, a week": "/?days=7",
                "what waits, the first page": "/held",
                "what waits, near the end": deep(n),
                "a list": "/held?list=greetings",
                "what I am asked": "/held?mine=1",
                "a rule": "/held?rule=internal-to-list",
                "words that many have": "/held?q=herring+lunch",
                "words that one has": "/held?q=number+7+with",
                "words that nothing has": "/held?q=nowhere+at+all",
                "what was decided": "/history",
                "decided, words that nothing has": "/history?q=nowhere+at+all",
                "what was rejected by a rule": "/history?state=rejected&rule=internal-to-list",
                "what passed": "/journal?state=relayed",
                "what was turned away, none": "/journal?state=rejected",
                "one message": f"/held/H{1:015d}",
            }
            return [await one(client, what, path, times) for what, path in pages.items()]
    finally:
        await part.stop(5)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await part.close()


async def one(client: httpx2.AsyncClient, what: str, path: str, times: int) -> list[str]:
    took, computed = [], []
    for _ in range(times):
        begun, cpu = time.perf_counter(), time.process_time()
        answer = await client.get(path)
        took.append(time.perf_counter() - begun)
        computed.append(time.process_time() - cpu)
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
    p95 = sorted(took)[max(0, round(len(took) * 0.95) - 1)]
    seconds = (statistics.median(took), p95, statistics.median(computed))
    return [f"{what:<34}", *(f"{each:.3f} s" for each in seconds), f"{GOAL_SECONDS / p95:.1f}"]


def main(words: list[str]) -> None:
    asked = argparse.ArgumentParser(prog="python -m bench --console", description=__doc__)
    asked.add_argument("--holds", type=int, default=20_000)
    asked.add_argument("--times", type=int, default=40)
    given = asked.parse_args(words)
    log.configure("json", stream=io.StringIO())
    with tempfile.TemporaryDirectory(prefix="smtpguard-bench-") as folder:
        rows = asyncio.run(measured(Path(folder), given.holds, given.times))
    table([f"{'page':<34}", "median", "p95", "processor", "goal / p95"], rows)
