"""Durations and rates in settings and policy: "15m", "2h 30m", "30d", "24 working hours"; "20000 in 1h"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from smtpguard.config.problem import Invalid

DELAY_EXPECTED = '0, or a duration of an hour at most, like "60s" or "5m"'
EXPECTED = 'a duration like "15m", "2h" or "30d"'
WORKING_EXPECTED = 'a duration like "24 working hours", "2h" or "3d"'

_UNITS: Mapping[str, int] = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_PART = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([a-z]+)", re.I)
_WORKING = re.compile(r"\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*working\s+hours?\s*\Z", re.I)
_LONGEST = 100 * 366 * 86400


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time. ``working``: only the organization's working hours count."""

    seconds: int
    working: bool = False


def seconds(text: str) -> int:
    """Return the seconds of a duration. Raises Invalid."""
    total, end = 0.0, 0
    while end < len(text.rstrip()):
        part = _PART.match(text, end)
        if part is None or part[2].lower() not in _UNITS:
            raise Invalid(f'invalid duration "{text}"', EXPECTED)
        total += float(part[1]) * _UNITS[part[2].lower()]
        end = part.end()
    if not 1 <= total <= _LONGEST:
        raise Invalid(f'invalid duration "{text}"', EXPECTED if total < 1 else "at most 100 years")
    return round(total)


def in_short(length: int) -> str:
    """Return seconds as text: "6h", "1h 30m". ``seconds`` reads it back."""
    said = []
    for unit in "dhms":
        count, length = divmod(length, _UNITS[unit])
        if count:
            said.append(f"{count}{unit}")
    return " ".join(said) or "0s"


def span(text: str) -> Span:
    """Parse a duration that may be in working hours. Raises Invalid."""
    if working := _WORKING.match(text):
        if (length := round(float(working[1]) * 3600)) < 1:
            raise Invalid(f'invalid duration "{text}"', WORKING_EXPECTED)
        if length > 100_000 * 3600:
            raise Invalid(f'"{text}" is too long', "at most 100000 working hours")
        return Span(length, working=True)
    try:
        return Span(seconds(text))
    except Invalid as e:
        raise Invalid(e.text, WORKING_EXPECTED) from None


def from_text(
    parse: Callable[[str], Any], expected: str, *, kept: tuple[type, ...] = (), what: str = ""
) -> Callable[[Any], Any]:
    """Return a validator that parses text of the file by ``parse``, and keeps values of the types ``kept``, which are defaults.
    It raises Invalid for others, with ``what`` they are: by default no duration."""

    def convert(value: Any) -> Any:
        if isinstance(value, kept):
            return value
        if isinstance(value, str):
            return parse(value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        raise Invalid(what or (f"{value} has no unit" if number else "no duration"), expected)

    return convert


_to_seconds = from_text(seconds, EXPECTED)


def _to_delay(value: Any) -> Any:
    if value == 0 and not isinstance(value, bool):
        return 0
    try:
        length = int(_to_seconds(value))
    except Invalid as e:
        raise Invalid(e.text, DELAY_EXPECTED) from None
    if length > 3600:
        raise Invalid(f'"{value}" is too long', DELAY_EXPECTED)
    return length


_PATTERN = r"^(\s*[0-9]{1,9}(\.[0-9]{1,3})?\s*[A-Za-z]+)+\s*$"
_SCHEMA = {"type": "string", "pattern": _PATTERN, "description": EXPECTED, "examples": ["15m", "2h", "30d"]}
_DELAY_SCHEMA = {
    "anyOf": [{"const": 0}, {"type": "string", "pattern": _PATTERN}],
    "description": DELAY_EXPECTED,
    "examples": ["60s", "5m", 0],
}
_SPAN_PATTERN = r"^(\s*[0-9]{1,9}(\.[0-9]{1,3})?\s*[A-Za-z]+)+(\s+[A-Za-z]+)?\s*$"
_SPAN_SCHEMA = {
    "type": "string",
    "pattern": _SPAN_PATTERN,
    "description": WORKING_EXPECTED,
    "examples": ["24 working hours", "2h"],
}

Seconds = Annotated[int, BeforeValidator(_to_seconds), WithJsonSchema(_SCHEMA)]
"""A duration: text in the file, whole seconds in the program. A default is text too."""
Delay = Annotated[int, BeforeValidator(_to_delay), WithJsonSchema(_DELAY_SCHEMA)]
"""A duration of an hour at most, or 0."""
WorkingSpan = Annotated[
    Span, BeforeValidator(from_text(span, WORKING_EXPECTED, kept=(Span,))), WithJsonSchema(_SPAN_SCHEMA)
]


RATE_EXPECTED = 'a number and a time, like "20000 in 1h"'
LONGEST_SECONDS = 31 * 86400
_RATE = re.compile(r"\s*([0-9][0-9_ ]{0,14}?)\s+in\s+(.+)\Z")


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit, or a threshold, of ``count`` in any ``window_seconds``."""

    count: int
    window_seconds: int


def rate(text: str) -> Rate:
    """Parse a rate: "20000 in 1h". Raises Invalid."""
    found = _RATE.match(text)
    if not found:
        raise Invalid(f'invalid limit "{text}"', RATE_EXPECTED)
    return Rate(int(found[1].replace("_", "").replace(" ", "")), window(found[2]))


def window(text: str) -> int:
    """Return the seconds of a window, at most 31 days. Raises Invalid."""
    length = seconds(text.strip())
    if length > LONGEST_SECONDS:
        raise Invalid(f'"{text.strip()}" is too long to count over', "at most 31d")
    return length


RateField = Annotated[
    Rate,
    BeforeValidator(from_text(rate, RATE_EXPECTED, kept=(Rate,), what="invalid limit")),
    WithJsonSchema({"type": "string", "description": RATE_EXPECTED, "examples": ["20000 in 1h"]}),
]
