"""A campaign with returns."""

from __future__ import annotations

import pytest

from tests.guard.house import House
from tests.returns.mails import Out


@pytest.fixture
async def out(home: House) -> Out:
    return Out(home)
