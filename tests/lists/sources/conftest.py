"""Reading the members that a declaration names, as the guard does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtpguard.lists.sources import Tally, addresses
from smtpguard.lists.sources.opening import opened

Members = Callable[..., tuple[list[str], Tally]]


@pytest.fixture
def members(tmp_path: Path) -> Members:
    """A function that reads ``members: {...}`` relative to the test's folder: the addresses, and the tally."""

    def of(declaration: dict[str, Any], **options: Any) -> tuple[list[str], Tally]:
        tally = Tally()
        source = opened(declaration, tmp_path, **options)
        try:
            return [str(a) for a in addresses(source, tally)], tally
        finally:
            source.close()

    return of
