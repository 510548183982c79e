"""Fixtures: a stage for each test, and one whose policy requires approval of mailings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.stage import Stage
from tests.guard.campaign import documents


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def campaign(tmp_path: Path) -> Stage:
    return Stage(tmp_path, documents())
