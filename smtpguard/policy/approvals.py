"""How an approval of a mailing takes effect, as the policy declares it: in stages, and for copies that may differ by so
many words.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

SHARE = 0.05
"""In how many of its words a copy may differ where a policy does not say."""
REST = 0.0
"""As a step: everybody who is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """``steps``: how many people each stage takes: a number, a share of the whole below 1, and ``REST`` at the end.

    ``pause_seconds``: how long one waits between two; None: until a person goes on. ``refused``, ``reported``: the share of
    those reached from which on it stops.
    """

    steps: tuple[float, ...]
    pause_seconds: int | None = 1800
    refused: float = 0.05
    reported: float = 0.005


class ByAddress(enum.Enum):
    """What an approval does with a message to the address of a list that declares stages: the relay expands it to everybody at
    once, so it cannot be sent in stages."""

    CONFIRM = "confirm"  # the approver says expressly that it goes to all of them at once
    REFUSE = "refuse"  # it cannot be approved: it is to be sent as single copies
