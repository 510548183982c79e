"""Short factories of items, holds, intents and freezes for tests of the store, and a clock."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import secrets
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.database.migrate import migrate
from smtpguard.holds.model import Change, Hold, State
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.mail.message import Message
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.policy.counted import Ask
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.verdict import Action, Held, Verdict
from smtpguard.store.store import Store
from tests.clocks import MONDAY

_templates = tempfile.TemporaryDirectory(prefix="smtpguard-template-")
atexit.register(_templates.cleanup)
"""One migrated SQLite file for each test process."""

POLICY = "policy-one"
SECRET = b"a secret of thirty-two bytes, ok"
T0 = MONDAY
CONTENT = Message.of(b"Subject: lunch\r\n\r\nBacon and liquor at noon.\r\n")

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
"""For an example whose every statement another test runs on PostgreSQL."""


def sqlite_plans(connection: Connection, ask: Callable[[Connection], object]) -> list[tuple[str, str]]:
    """Do ``ask``, and return each of its statements with SQLite's plan of it."""
    statements: list[str] = []
    driver: Any = connection.connection.driver_connection
    driver.set_trace_callback(statements.append)
    ask(connection)
    driver.set_trace_callback(None)
    return [(sql, str(driver.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())) for sql in statements]


def sqlite_url(path: Path) -> str:
    """URL of the store at ``path``. A missing one is copied from a template with the current schema: migrating takes
    ten times as long."""
    if path.exists():
        return f"sqlite:///{path}"
    template = Path(_templates.name, "guard.db")
    if not template.exists():
        migrate(f"sqlite:///{template}")
        with closing(sqlite3.connect(template)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    shutil.copyfile(template, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE head SET journal = ?", [secrets.token_hex(8)])
    return f"sqlite:///{path}"


def event(kind: Kind, id: str, *, at: datetime = T0, **data: Any) -> Event:
    return Event(kind=kind, id=id, at=at, data=data, private={"from": ("anna@example.com",)})


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def item(id: str, *, of: str | None = None, **more: Any) -> Item:
    return Item(id=id, key=key(of or id), policy_sha256=more.pop("policy", POLICY), **more)


def relays(id: str, counted: tuple[Ask, ...] = ()) -> Callable[[Seen], Admission]:
    """A step that decides to relay."""
    return lambda live: Admission(
        verdict=Verdict(action=Action.RELAY),
        events=(event(Kind.VERDICT, id, at=live.now, action="relay"),),
        counted=counted,
    )


def recipient(address: str) -> Recipient:
    local, _, domain = address.rpartition("@")
    return Recipient(address=Address(local, domain))


def a_hold(id: str, *, at: datetime = T0, content: Message = CONTENT, to: tuple[str, ...] = ("c@list.example",), **more: Any) -> Hold:  # fmt: skip
    values: dict[str, Any] = {
        "hold_id": id,
        "mailing_id": "mailing",
        "session": Session(client_ip="192.0.2.1", helo="mail.example.com"),
        "envelope": Envelope(reverse_path=Address("anna", "example.com"), recipients=tuple(map(recipient, to))),
        "content_sha256": content.sha256,
        "size_bytes": content.size_bytes,
        "subject": "lunch",
        "message_id": "<1@example.com>",
        "verdict": Verdict(action=Action.HOLD, policy_sha256=POLICY),
        "state": State.WAITING,
        "votes": (),
        "held_at": at,
        "expires_at": at + timedelta(days=1),
        "sender": "anna@example.com",
        "senders": frozenset({"anna@example.com"}),
        "lists": ("ramadan-greetings",),
        "reach": 400_000,
    }
    return Hold(**{**values, **more})


def holds(hold: Hold, *intents: Intent) -> Callable[[Seen], Admission]:
    """A step that decides to hold, or adopts a hold of the same message, as the guard's step does."""

    def step(live: Seen) -> Admission:
        duplicate = live.duplicate
        if duplicate is not None:
            return Admission(
                verdict=Verdict(action=Action.HOLD),
                events=(event(Kind.VERDICT, hold.hold_id, at=live.now, action="hold", hold=duplicate.hold_id),),
                disposition=Held(hold_id=duplicate.hold_id),
                hold=replace(duplicate, state=State.WAITING) if duplicate.state is State.VOID else None,
            )
        return Admission(
            verdict=Verdict(action=Action.HOLD),
            events=(event(Kind.VERDICT, hold.hold_id, at=live.now, action="hold"),),
            disposition=Held(hold_id=hold.hold_id),
            hold=hold,
            intents=intents,
        )

    return step


async def held(store: Store, id: str, *intents: Intent, **more: Any) -> Hold:
    """Hold a message, and read the hold back."""
    await store.contents.keep(more.get("content", CONTENT))
    await store.admit(item(id), holds(a_hold(id, **more), *intents))
    return await hold_of(store, id)


async def hold_of(store: Store, id: str) -> Hold:
    found = await store.holds.find(id)
    assert found is not None, f"{id} is not held"
    return found


async def state(store: Store, id: str) -> State:
    return (await hold_of(store, id)).state


async def approved(store: Store, id: str, *to: str, **more: Any) -> None:
    """Hold a message, and approve it."""
    await held(store, id, **more)
    made = release(id, *to)
    await store.holds.change(id, lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(made,)))


def release(hold_id: str, *to: str, id: str | None = None) -> Intent:
    return Intent(
        intent_id=id or f"{hold_id}-release",
        kind=IntentKind.RELEASE,
        reverse_path=Address("anna", "example.com"),
        recipients=tuple(map(recipient, to or ("c@list.example",))),
        hold_id=hold_id,
        content_sha256=CONTENT.sha256,
    )


def notice(id: str, hold_id: str | None = None, to: str = "anna@example.com") -> Intent:
    return Intent(
        intent_id=id, kind=IntentKind.NOTICE, reverse_path=None, recipients=(recipient(to),), hold_id=hold_id,
        data={"notice": "held"},
    )  # fmt: skip


def a_freeze(id: str = "F1", selector: Selector = Selector.ALL, value: str = "", **more: Any) -> Freeze:
    return Freeze(freeze_id=id, selector=selector, value=value, reason="a test", by="root", at=T0, **more)


class Gathered:
    """Block the writer until the block ends, so that everything submitted inside it is one batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._go = threading.Event()

    async def __aenter__(self) -> None:
        started = threading.Event()

        def wait(_: object) -> None:
            started.set()
            self._go.wait(120)

        self._waiting = asyncio.create_task(self._store._writer.submit(wait))
        await asyncio.to_thread(started.wait)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # lets the tasks made inside submit their work
        while self._store._writer._coming:  # noqa: ASYNC110 - the loop hands them over turn by turn
            await asyncio.sleep(0)
        self._go.set()
        await self._waiting
