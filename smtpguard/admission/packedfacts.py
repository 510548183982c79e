"""Pack the facts of a message into one line of JSON, as a verdict's entry keeps them, and unpack it. Pure.

``since`` is the version; ``read``: the first letters of the sources that were asked. A fact of these sources that is not named
had its default; ``not_asked`` names those that were not asked. Facts newer than the version, and those of other sources, are
not known. Counts, and people's decisions on the mailing, are always named, if they were asked for. Values are as in JSON: a set
is a list; an interval is ``[low, high]`` with null for no end; null: it could not be found out. ``{"some": [...]}``: of a set,
only these words are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from smtpguard.policy.facts import FACTS as TABLE
from smtpguard.policy.facts import Count, Source, Unknown, Value, Within

VERSION = max(fact.since for fact in TABLE.values())
SINCE, READ, NOT_ASKED = "since", "read", "not_asked"
NOT_FOUND = Unknown(why="it could not be found out then")
TEXT = "t"

_ascii = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

_LETTERS = {source: source.value[0] for source in Source if source is not Source.LIVE}
_BY_LETTER = tuple(
    (letter, tuple(fact for fact in TABLE.values() if fact.source is source and not fact.elsewhere))
    for source, letter in _LETTERS.items()
)
_NAMES = tuple(fact.name for _, facts in _BY_LETTER for fact in facts)


def pack(values: Mapping[str, Value], counted: Mapping[str, Value], *, text: bool) -> str:
    """Return the line of these facts. ``counted``: the admission's values, by slot. ``text``: facts of the text may be stored."""
    told = tuple(map(values.get, _NAMES))
    kept = {**_kept(told, text), **{slot: _plain(value) for slot, value in counted.items()}}
    try:
        line = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:  # a lone surrogate
        return _ascii(kept)
    return line if line.isascii() else _ascii(kept)


@lru_cache(maxsize=1024)
def _kept(values: tuple[Value | None, ...], text: bool) -> Mapping[str, Any]:
    """Return what is kept of these values, cached: most messages have the same as an earlier one."""
    kept: dict[str, Any] = {SINCE: VERSION, READ: ""}
    not_asked: list[str] = []
    told = dict(zip(_NAMES, values, strict=True))
    for letter, facts in _BY_LETTER:
        missing = [fact.name for fact in facts if told[fact.name] is None]
        if len(missing) == len(facts) or (letter == TEXT and not text):
            continue
        kept[READ] += letter
        not_asked += missing
        for fact in facts:
            value = told[fact.name]
            if value is not None and value != fact.default:
                kept[fact.name] = _plain(value)
    if not_asked:
        kept[NOT_ASKED] = not_asked
    return kept


@lru_cache(maxsize=1024)
def unpack(text: str) -> Mapping[str, Value]:
    """Return every value that was known, by slot, none for text that is no such line. Never raises."""
    try:
        kept = json.loads(text)
        since, read = int(kept.pop(SINCE)), str(kept.pop(READ))
        not_asked = frozenset(kept.pop(NOT_ASKED, ()))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}
    known: dict[str, Value] = {
        fact.name: fact.default
        for letter, facts in _BY_LETTER
        if letter in read
        for fact in facts
        if fact.since <= since and fact.name not in not_asked
    }
    for slot, plain in kept.items():
        value = value_of(plain)
        if value is None:
            known.pop(slot, None)
        else:
            known[slot] = value
    return known


def _plain(value: Value) -> Any:
    match value:
        case Unknown(known=some) if some:
            return {"some": sorted(some)}
        case Unknown() | Within():
            return None
        case Count(low=low, high=high):
            return _figure(low) if low == high else [_figure(low), None if high == float("inf") else _figure(high)]
        case frozenset():
            return sorted(value)
    return value


def _figure(n: float) -> float:
    return int(n) if n == n // 1 else n


def value_of(plain: Any) -> Value | None:
    """Return a value from its JSON, None for any other JSON."""
    match plain:
        case None:
            return NOT_FOUND
        case bool():
            return plain
        case int() | float():
            return Count.exactly(plain)
        case [int() | float() as low, None | int() | float() as high]:
            return Count(low, float("inf") if high is None else high)
        case list():
            return frozenset(map(str, plain))
        case {"some": list() as some}:
            return replace(NOT_FOUND, known=frozenset(map(str, some)))
        case str():
            return plain
    return None
