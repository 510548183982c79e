"""Marks: what in a message speaks for mail between colleagues, and what for a mailing. Each with a weight and evidence."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Side(enum.Enum):
    INTERNAL = "internal"
    MAILING = "mailing"
    NEITHER = "neither"  # worth telling, decides nothing: "a post on a mailing list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """``evidence`` is a phrase for people: 'the subject begins with "SV:"'. ``weight`` > 0, on its side."""

    name: str
    side: Side
    weight: float
    evidence: str
