"""A decorator for immutable types of which every message makes many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def constant(cls: type[T]) -> type[T]:
    """A frozen dataclass with slots and keywords, as mypy sees it. At run time its fields are not protected:
    the protection doubles the time to make one, and every message makes some 240."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
