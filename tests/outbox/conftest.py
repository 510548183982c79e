"""Guards and stores for each test."""

from __future__ import annotations

from tests.guard.conftest import home, office
from tests.store.conftest import clock, store, url

__all__ = ["clock", "home", "office", "store", "url"]
