"""A house for each test, whose journal is looked back at."""

from tests.guard.conftest import home

__all__ = ["home"]
