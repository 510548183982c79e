"""A new store on each engine for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from smtpguard.journal.event import Kind
from smtpguard.store.opening import open_store
from smtpguard.store.store import Store
from tests.store.making import POLICY, SECRET, Clock, event, sqlite_url
from tests.store.servers import new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new store with the current schema. ``empty_url`` gives one without a schema."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "guard.db")
    return new_database(request.getfixturevalue("postgresql"))


def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/guard.db"
    return new_database(request.getfixturevalue("postgresql"), empty=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """An open store with a policy in force."""
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as opened:
        await opened.policies.put(POLICY, {"policy.yaml": b"version: 1\n"}, event(Kind.POLICY, POLICY))
        yield opened
