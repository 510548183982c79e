"""Immutable types that are fast to make, since every message makes many; and SHA-256 without holding up other threads."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, cached_property
from typing import Any, ParamSpec, TypeVar, dataclass_transform

T = TypeVar("T")
P = ParamSpec("P")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def constant(cls: type[T]) -> type[T]:
    """A frozen dataclass with slots and keywords, as mypy sees it. At run time its fields are not protected:
    the protection doubles the time to make one, and every message makes some 240."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def pair(cls: type[T]) -> type[T]:
    """A constant of one or two fields, which are given by position."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


def maker(cls: Callable[P, T]) -> Callable[P, T]:
    """A function that makes a constant from the same keywords as its class, in half the time: Python calls a class by
    way of a dict of its keywords."""
    known: dict[str, Any] = {"cls": cls, "new": object.__new__, "missing": MISSING}
    takes, body = [], ["made = new(cls)"]
    for one in fields(cls):  # type: ignore[arg-type]
        name, usual, fresh = one.name, f"usual_{one.name}", one.default_factory is not MISSING
        known[usual] = one.default_factory if fresh else one.default
        value = f"{usual}()" if fresh else usual
        if one.init:
            takes.append(name if known[usual] is MISSING else f"{name}={'missing' if fresh else usual}")
            value = f"{value} if {name} is missing else {name}" if fresh else name
        body.append(f"made.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("made.__post_init__()")
    exec("\n    ".join([f"def make(*, {', '.join(takes)}):", *body, "return made"]), known)
    make: Callable[P, T] = known["make"]
    return make


def changed(one: T, **values: Any) -> T:
    """A copy of a constant with these values, in a fifth of the time of ``dataclasses.replace``. Raises AttributeError for
    a field that it does not have."""
    cls: Any = type(one)
    made: T = _copier(cls)(one)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@cache
def _copier(cls: type[Any]) -> Callable[[Any], Any]:
    known: dict[str, Any] = {"cls": cls, "new": object.__new__}
    body = [f"made.{one.name} = one.{one.name}" for one in fields(cls)]
    exec("\n    ".join(["def copy(one):", "made = new(cls)", *body, "return made"]), known)
    copy: Callable[[Any], Any] = known["copy"]
    return copy


class computed(cached_property[T]):
    """A value that is computed when it is first asked for; without the lock that Python 3.11 takes for it."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.attrname] = self.func(instance)
        return value


_PIECE = 2047
_MOST = 32 << 10  # from here on the pieces take longer than the wait


def sha256(octets: bytes | mmap.mmap) -> hashlib._Hash:
    """Hash in pieces of less than 2 KB. For more hashlib releases the interpreter's lock, and waits until another thread gives it
    back; that takes longer than to hash some ten KB."""
    if len(octets) > _MOST:
        return hashlib.sha256(octets)
    digest = hashlib.sha256(octets[:_PIECE])
    for start in range(_PIECE, len(octets), _PIECE):
        digest.update(octets[start : start + _PIECE])
    return digest
