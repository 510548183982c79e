"""The ``guard`` fixture: a whole guard for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.catalogue.wholeguard import WholeGuard, whole_guard


@pytest.fixture
async def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WholeGuard]:
    async with whole_guard(tmp_path, monkeypatch) as made:
        yield made
