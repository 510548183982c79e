"""A finding of a live check: one sentence about one thing, and whether it is well."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    FINE = "fine"
    WRONG = "wrong"  # something that we need does not work
    OPEN = "open"  # a way around the guard
    ACCEPTED = "accepted"  # a way around the guard that the settings accept
    UNKNOWN = "unknown"  # cannot be found out from here
    ODD = "odd"  # it works, and is probably not meant

    def of(self, about: str, text: str) -> Finding:
        """``about``: store, policy, people, relay, tls, auth, sender, list, milter, source or way. ``text``: a sentence."""
        return Finding(about=about, state=self, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    about: str
    state: State
    text: str
