"""Process trees for the tests, killed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.tree import Grow, growing


@pytest.fixture
def grow(tmp_path: Path) -> Iterator[Grow]:
    with growing(tmp_path) as start:
        yield start
