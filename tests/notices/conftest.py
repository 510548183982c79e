"""A guard for each test."""

from __future__ import annotations

from tests.guard.conftest import home, office

__all__ = ["home", "office"]
