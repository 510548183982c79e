"""How an approval is given and takes effect, as the policy declares it: by mail too, in stages, and for copies that differ
in a share of their words.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

SHARE = 0.05
"""The default share of words in which a copy may differ."""
REST = 0.0
"""As a step: all remaining people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """``steps``: how many people each stage takes: a number, a share of the whole below 1, and ``REST`` at the end.

    ``pause_seconds``: the pause between two; None: until a person resumes. ``refused``, ``reported``: the share of the
    people reached that stops the release.
    """

    steps: tuple[float, ...]
    pause_seconds: int | None = 1800
    refused: float = 0.05
    reported: float = 0.005


class ByAddress(enum.Enum):
    """How a message to the address of a list with stages is approved: the relay expands it to everybody at once, so it
    cannot be sent in stages."""

    CONFIRM = "confirm"  # the approver confirms that it reaches all of them at once
    REFUSE = "refuse"  # it cannot be approved: it must be sent as single copies


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyVotes:
    """Which messages may be approved by an answer to a notice. ``people``: the most that one may reach. ``special``: whether
    it may go to lists of a special category. ``senders_verified``: domains whose mail server lets nobody send as somebody
    else, so that their DKIM signature proves who wrote the answer."""

    people: int
    special: bool = False
    senders_verified: frozenset[str] = frozenset()
