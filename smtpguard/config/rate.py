"""A rate, as a number in a time: "20000 in 1h". Streams use it as their limit, and conditions count by it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from smtpguard.config.problem import Invalid
from smtpguard.config.quantity import from_text, seconds

EXPECTED = 'a number and a time, like "20000 in 1h"'
LONGEST_SECONDS = 31 * 86400
_RATE = re.compile(r"\s*([0-9][0-9_ ]{0,14}?)\s+in\s+(.+)\Z")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most, or at least, ``count`` in any ``window_seconds``."""

    count: int
    window_seconds: int


def rate(text: str) -> Rate:
    """Raises Invalid."""
    found = _RATE.match(text)
    if not found:
        raise Invalid(f'invalid limit "{text}"', EXPECTED)
    return Rate(int(found[1].replace("_", "").replace(" ", "")), window(found[2]))


def window(text: str) -> int:
    """The seconds of a window. Raises Invalid."""
    length = seconds(text.strip())
    if length > LONGEST_SECONDS:
        raise Invalid(f'"{text.strip()}" is too long to count over', "at most 31d")
    return length


RateField = Annotated[
    Rate,
    BeforeValidator(from_text(rate, EXPECTED, kept=(Rate,), what="invalid limit")),
    WithJsonSchema({"type": "string", "description": EXPECTED, "examples": ["20000 in 1h"]}),
]
