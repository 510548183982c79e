"""Fixtures: a house for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.guard.campaign import Campaign, documents
from tests.guard.house import House, house
from tests.guard.office import Office


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


@pytest.fixture
async def office(home: House) -> Office:
    return Office(home)


@pytest.fixture
async def campaign(tmp_path: Path) -> AsyncIterator[Campaign]:
    async with house(tmp_path, documents=documents()) as home:
        yield Campaign(home)
