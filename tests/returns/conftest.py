"""A campaign with returns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.guard.house import house
from tests.returns.mails import Out


@pytest.fixture
async def out(tmp_path: Path) -> AsyncIterator[Out]:
    async with house(tmp_path) as home:
        yield Out(home)
