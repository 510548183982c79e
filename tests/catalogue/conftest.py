"""The ``guard`` fixture: a whole guard for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.catalogue.whole import Whole, whole


@pytest.fixture
async def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Whole]:
    async with whole(tmp_path, monkeypatch) as made:
        yield made
