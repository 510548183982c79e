"""Fixtures: a house for each test."""

from __future__ import annotations

from tests.guard.conftest import home

__all__ = ["home"]
