"""The single sign-on fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.console.people.signon import SignOn, sign_on


@pytest.fixture
async def sso(tmp_path: Path) -> AsyncIterator[SignOn]:
    async with sign_on(tmp_path) as made:
        yield made
