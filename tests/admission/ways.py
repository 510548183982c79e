"""``home``: a guard without and with a journal's front, for the laws and for what happens around the final dot. What
either way records is the same (test_fronted), so other tests have the usual house, with a front."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.guard.house import House, house


@pytest.fixture(params=["admission", "front"])
async def home(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """A house without and with a journal's front, whose use no caller sees."""
    async with house(tmp_path, fronted=request.param == "front") as made:
        yield made
