"""Fixtures: a store for each test."""

from __future__ import annotations

from tests.store.conftest import clock, store, url

__all__ = ["clock", "store", "url"]
