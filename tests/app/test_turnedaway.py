"""Clients of the last 30 days that the settings would refuse, by the journal of a real guard."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from smtpguard.app.files import read_settings
from smtpguard.app.storestatus import turned_away
from tests.cli.installing import install
from tests.guard.house import KEY, MONDAY, FakePassage, house

SESSIONS: list[dict[str, Any]] = [
    {"client_ip": "192.0.2.1", "listener": "inside"},
    {"client_ip": "192.0.2.1", "listener": "inside"},
    {"client_ip": "198.51.100.7", "listener": "inside"},
    # the client's address is by its MTA (``peer``)
    {"client_ip": "203.0.113.9", "peer": "192.0.2.25", "listener": "inside"},
    {"client_ip": "198.51.100.8", "listener": ""},  # an entry of an earlier version
]


@pytest.fixture
def story(tmp_path: Path) -> Path:
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            for n, session in enumerate(SESSIONS):
                await home.intake()(
                    home.transaction("x@example.org", session=session, Message_ID=f"<{n}@x>"), FakePassage()
                )

    asyncio.run(work())
    return tmp_path


def refused_clients(folder: Path, listen: str) -> list[str]:
    config = folder / "smtpguard.yaml"
    config.write_text(f"{listen}\n" + config.read_text())
    return [finding.text for finding in asyncio.run(turned_away(read_settings(config), MONDAY))]


def test_clients_that_would_be_refused_are_named(story: Path) -> None:
    listen = "listen: {smtp: [{address: 192.0.2.5, port: 25, name: inside, clients: [192.0.2.0/24]}]}"
    assert refused_clients(story, listen) == [
        "198.51.100.7 would be refused by inside: 1 message of the last 30 days",
        "198.51.100.8 would be refused by every listener: 1 message of the last 30 days",
    ]


def test_entries_without_a_listener_are_matched_to_trusted_mtas(story: Path) -> None:
    listen = "trust: [192.0.2.25]\nlisten: {smtp: [{address: 192.0.2.5, port: 25, name: inside, clients: [198.51.100.0/24]}]}"
    assert refused_clients(story, listen) == [
        "192.0.2.1 would be refused by inside: 2 messages of the last 30 days",
        "192.0.2.25 would be refused by inside: 1 message of the last 30 days",
    ]


def test_a_store_with_an_older_schema_is_read(story: Path) -> None:
    """A store with an older schema is read too, since the check runs before an upgrade."""
    with sqlite3.connect(next(story.rglob("*.db"))) as database:
        database.execute("UPDATE alembic_version SET version_num = '0007'")
    assert (
        len(
            refused_clients(
                story, "listen: {smtp: [{address: 192.0.2.5, port: 25, name: inside, clients: [127.0.0.1]}]}"
            )
        )
        == 4
    )
