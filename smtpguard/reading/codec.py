"""Readings, surroundings and bounds as JSON, for the process that reads large or malformed messages.

The answer of that process is data and never code: the type of every value is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields

from smtpguard.mail.codec import Codec
from smtpguard.reading.bounds import Bounds, Depth
from smtpguard.reading.looks import Reading
from smtpguard.reading.surroundings import Surroundings

_READINGS, _AROUND = Codec(Reading, checked=True), Codec(Surroundings, checked=True)
_LIMITS = [f.name for f in fields(Bounds) if f.name != "clock"]


class BadReading(ValueError):
    """Not the output of ``dump_reading`` or the other dump functions."""


def dump_reading(reading: Reading) -> bytes:
    return _READINGS.dumps(reading).encode()


def load_reading(data: bytes) -> Reading:
    """Raises BadReading for any other input."""
    try:
        return _READINGS.back(json.loads(data))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, RecursionError) as wrong:
        raise BadReading(f"not a reading: {type(wrong).__name__}") from None


def dump_request(surroundings: Surroundings | None, depth: Depth, bounds: Bounds) -> bytes:
    """The head of a request. Without ``surroundings`` those of the previous request are used. The clock is left out."""
    around = None if surroundings is None else _AROUND.to(surroundings)
    limits = {name: getattr(bounds, name) for name in _LIMITS}
    return json.dumps({"surroundings": around, "depth": depth.value, "bounds": limits}, default=_plain).encode()


def load_request(data: bytes) -> tuple[Surroundings | None, Depth, Bounds]:
    """Raises BadReading, or topics.BadVocabulary."""
    try:
        v = json.loads(data)
        around, limits, depth = v["surroundings"], v["bounds"], Depth(v["depth"])
        return None if around is None else _AROUND.back(around), depth, Bounds(**limits)
    except (KeyError, TypeError) as wrong:
        raise BadReading(f"not a request: {type(wrong).__name__}") from None


def _plain(value: object) -> object:
    """For mapping types of a YAML loader."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
