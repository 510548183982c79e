"""Fixtures: a stage for each test, and one whose policy requires approval of mailings."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.console.people import credentials
from tests.cli.stage import Stage
from tests.console.stage import CHEAP
from tests.guard.campaign import documents


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password costs 64 MB and a tenth of a second."""
    monkeypatch.setattr(credentials, "PasswordHasher", lambda: CHEAP)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def campaign(tmp_path: Path) -> Stage:
    return Stage(tmp_path, documents())
