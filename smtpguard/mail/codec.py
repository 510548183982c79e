"""Encode our frozen dataclasses as JSON documents and decode them, without loss.

The annotations of a dataclass are compiled once, at import, into a pair of functions. A type without a JSON form fails
then, not when the first message is held. A field with its default value is left out, and a missing field gets its
default, so newer code reads old documents. Unknown fields are ignored. The types of plain values are checked only in
documents from elsewhere (``checked``).
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Generic, TypeVar

from smtpguard.locale.phrase import Phrase, Said, dump, load
from smtpguard.mail.address import Address

T = TypeVar("T")
_Way = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _data(value: Any) -> Any:
    """Untyped data that a phrase keeps its values in."""
    if isinstance(value, str):
        return dump(value)
    if isinstance(value, Mapping):
        return {name: _data(each) for name, each in value.items()}
    return [_data(each) for each in value] if isinstance(value, list | tuple) else value


def _back(value: Any) -> Any:
    if isinstance(value, dict):
        return load(value) if "msgid" in value else {name: _back(each) for name, each in value.items()}
    return [_back(each) for each in value] if isinstance(value, list) else value


def _is(kind: type) -> _Way:
    """Lets values of this type through. Raises TypeError for others."""
    kinds = (int, float) if kind is float else kind

    def checked(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"no {kind.__name__}")
        return value

    return checked


def _phrase(value: Any) -> Phrase:
    """Raises TypeError for literal words."""
    if not isinstance(made := load(value), Phrase):
        raise TypeError("no phrase")
    return made


def _address(text: str) -> Address:
    local, _, domain = text.rpartition("@")  # a domain has no "@", a local part may
    return Address(local, domain)


def _ways(kind: Any, checked: bool) -> tuple[_Way, _Way]:
    """How a value of this type is encoded as JSON, and decoded."""
    if kind == Said or kind is Phrase:
        return dump, _phrase if checked and kind is Phrase else load
    if checked and kind in (str, int, float, bool):
        return _same, _is(kind)
    if kind in (str, int, float, bool, Any, type(None)):
        return _same, _same
    if kind is datetime:
        return datetime.isoformat, datetime.fromisoformat
    if kind is date:
        return date.isoformat, date.fromisoformat
    if kind is bytes:
        return lambda b: base64.b64encode(b).decode("ascii"), base64.b64decode
    if kind is Address:
        return lambda a: f"{a.local}@{a.domain}", _address
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return lambda member: member.value, kind
    if hasattr(kind, "from_json"):  # it has a form of its own
        return kind.as_json, kind.from_json
    if dataclasses.is_dataclass(kind):
        return _fields(typing.cast(type, kind), checked)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union) and len(args) == 2 and type(None) in args:
        to, back = _ways(next(a for a in args if a is not type(None)), checked)
        return (
            lambda v: None if v is None else to(v),
            lambda v: None if v is None else back(v),
        )
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        to, back = _ways(args[0], checked)
        return lambda vs: [to(v) for v in vs], lambda vs: tuple(back(v) for v in vs)
    if origin is tuple:
        pairs = [_ways(a, checked) for a in args]
        return (
            lambda vs: [to(v) for (to, _), v in zip(pairs, vs, strict=True)],
            lambda vs: tuple(back(v) for (_, back), v in zip(pairs, vs, strict=True)),
        )
    if origin is frozenset:
        to, back = _ways(args[0], checked)
        return lambda vs: sorted(map(to, vs)), lambda vs: frozenset(map(back, vs))
    if origin is not None and issubclass(origin, Mapping) and args == (str, Any):
        return _data, _back
    if origin is not None and issubclass(origin, Mapping) and args[0] is str:
        to, back = _ways(args[1], checked)
        return lambda vs: {k: to(v) for k, v in vs.items()}, lambda vs: {k: back(v) for k, v in vs.items()}
    raise TypeError(f"no JSON form for {kind}")


_compiled: dict[tuple[type, bool], tuple[_Way, _Way]] = {}


def _fields(kind: type, checked: bool) -> tuple[_Way, _Way]:
    """The encoder and decoder of a dataclass. They are looked up at the call, so that a type can contain itself (Quorum
    does)."""
    if (kind, checked) not in _compiled:
        table: list[tuple[str, Any, _Way, _Way]] = []

        def to(value: Any) -> dict[str, Any]:
            document = {}
            for name, default, way, _ in table:
                field = getattr(value, name)
                if field is not default and field != default:
                    document[name] = way(field)
            return document

        def back(document: Mapping[str, Any]) -> Any:
            return kind(**{name: way(document[name]) for name, _, _, way in table if name in document})

        _compiled[kind, checked] = to, back
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            table.append((field.name, default, *_ways(hints[field.name], checked)))
    return _compiled[kind, checked]


class Codec(Generic[T]):
    """Documents of one type. ``dumps`` writes ASCII without spaces, so that no database rejects a character."""

    def __init__(self, kind: type[T], *, checked: bool = False) -> None:
        self.to: Callable[[T], dict[str, Any]]
        self.back: Callable[[Mapping[str, Any]], T]
        self.to, self.back = _fields(kind, checked)

    def dumps(self, value: T) -> str:
        return json.dumps(self.to(value), separators=(",", ":"), allow_nan=False)

    def loads(self, text: str) -> T:
        return self.back(json.loads(text))
