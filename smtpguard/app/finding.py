"""A finding of a live check: one sentence about one thing, and whether it is well."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    FINE = "fine"
    WRONG = "wrong"  # something that we need does not work
    OPEN = "open"  # mail can go around the guard, or others can use it
    ACCEPTED = "accepted"  # open, and the settings accept it
    UNKNOWN = "unknown"  # cannot be found out from here
    ODD = "odd"  # it works, and is probably not meant

    def of(self, about: str, text: str) -> Finding:
        """``about``: what was looked at, in one word; "way": something that may take mail without the guard. ``text``: a
        sentence."""
        return Finding(about=about, state=self, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    about: str
    state: State
    text: str
