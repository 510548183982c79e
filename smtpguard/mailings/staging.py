"""Release in stages: first some people, then a pause in which it can be stopped, then more, then the rest.

A transition table and the conditions of its moves. A full stage begins a pause, which ends by time or by a person. The
time begins once half of the stage is sent. A person, a freeze, refusals of the relay, and reports of bounces and
complaints stop it; then only a person can resume it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.policy.stages import REST, Stages

LEAST = 3
"""The least number of refusals or reports that stops a release: one of two is no sign."""


class At(enum.Enum):
    """The state of a release in stages."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Move(enum.Enum):
    """What moves a release in stages."""

    FULL = "full"  # the stage has reached its people, and another one follows
    ALL = "all"  # everybody has been admitted: no pause follows
    TIME = "time"  # the pause is over
    GO = "go"  # a person resumes it
    STOP = "stop"  # a person, a freeze, refusals or reports


TRANSITIONS: Mapping[tuple[At, Move], At] = {
    (At.RUNNING, Move.FULL): At.PAUSED,
    (At.RUNNING, Move.ALL): At.RUNNING,
    (At.RUNNING, Move.STOP): At.STOPPED,
    (At.PAUSED, Move.TIME): At.RUNNING,
    (At.PAUSED, Move.GO): At.RUNNING,
    (At.PAUSED, Move.STOP): At.STOPPED,
    (At.STOPPED, Move.GO): At.RUNNING,
}
"""Moves that are not here are impossible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a release.

    ``whole``: how many people the mailing may reach in all. ``stage``: counted from 0; ``full``: it has reached its people, so
    that resuming opens the next one. ``limit``: how many may be reached in all by the end of the stage. ``since``: when ``at``
    began. ``why``: what stopped it. ``told``: people know that it waits for one of them. ``reached``, ``refused``, ``reported``:
    the numbers of people when a person last resumed it. What stops it is counted from then.
    """

    stages: Stages
    whole: int
    at: At
    stage: int
    limit: int
    since: datetime
    full: bool = False
    why: Said = ""
    told: bool = False
    reached: int = 0
    refused: int = 0
    reported: int = 0

    @classmethod
    def begin(cls, stages: Stages, whole: int, now: datetime, reached: int = 0) -> Progress:
        """Begin a release. ``whole``: how many people the mailing may reach in all; ``reached``: how many had it before."""
        limit = _limit(stages.steps[0], whole, reached)
        return cls(stages=stages, whole=whole, at=At.RUNNING, stage=0, limit=limit, since=now)

    @property
    def waits(self) -> bool:
        return self.at is not At.RUNNING

    @property
    def last(self) -> bool:
        return self.stage + 1 >= len(self.stages.steps)

    def goes_on_at(self) -> datetime | None:
        """Return when the pause ends by itself; None if there is none, or only a person ends it."""
        if self.at is not At.PAUSED or self.stages.pause_seconds is None:
            return None
        return self.since + timedelta(seconds=self.stages.pause_seconds)

    @property
    def waits_for_person(self) -> bool:
        return self.waits and self.goes_on_at() is None

    def fits(self, out: int, more: int) -> bool:
        """Return whether its stage has room for ``more`` people, when ``out`` were admitted."""
        return not self.waits and (self.last or out + more <= self.limit)

    def newly_waits(self, before: Progress | None) -> bool:
        """Return whether it has stopped by itself since ``before``, or begun a pause that only a person ends."""
        return self.waits_for_person and not self.told and (before is None or before.at is not self.at)

    def moved(self, move: Move, now: datetime, why: Said = "") -> Progress | None:
        """Return the progress after a move, or None if the move is impossible."""
        to = TRANSITIONS.get((self.at, move))
        if to is None or (move is Move.FULL and self.last):
            return None
        if move is Move.ALL:
            last = len(self.stages.steps) - 1
            return self if self.last else replace(self, stage=last, limit=max(self.limit, self.whole), since=now)
        if to is not At.RUNNING:
            return replace(self, at=to, since=now, why=why, told=False, full=self.full or move is Move.FULL)
        if not self.full:
            return replace(self, at=to, since=now, why="")
        stage = self.stage + 1
        limit = _limit(self.stages.steps[stage], self.whole, self.limit)
        return replace(self, at=to, stage=stage, limit=limit, since=now, full=False, why="")

    @property
    def half(self) -> int:
        """Half of the people of the stage. A pause that ends by time begins when no more of them are unsent. Otherwise all stages
        would wait in the outbox for a relay that is away, and go at once when it is back."""
        return _limit(self.stages.steps[self.stage], self.whole, 0) // 2

    def as_of(self, now: datetime) -> Progress:
        """Return the progress as it is now: a pause that is over has ended."""
        end = self.goes_on_at()
        return self if end is None or now < end else self.moved(Move.TIME, now) or self

    def with_reached(self, people: int, now: datetime) -> Progress:
        """Return the progress when ``people`` have been admitted in all: a full stage begins a pause."""
        move = Move.ALL if people >= self.whole else Move.FULL
        return self if people < self.limit else self.moved(move, now) or self

    def with_more(self, people: int) -> Progress:
        """Return the progress with ``people`` added at once, outside the stages: explicitly approved, for another list."""
        return replace(self, whole=self.whole + people, limit=self.limit + people)

    def after_reports(self, *, reached: int, refused: int, reported: int, now: datetime) -> Progress:
        """Return the progress after refusals of the relay and reports: too many of either since a person resumed it stop it."""
        refused, reported = refused - self.refused, reported - self.reported
        tried = max(reached - self.reached + refused, 1)
        for why, n, most in (
            (N_("the mail server refused {n} of {tried} people"), refused, self.stages.refused),
            (N_("{n} of {tried} people bounced or complained"), reported, self.stages.reported),
        ):
            if n >= LEAST and n / tried >= most:
                return self.moved(Move.STOP, now, Phrase(why, n=n, tried=tried)) or self
        return self


def _limit(step: float, whole: int, reached: int) -> int:
    if step == REST:
        return max(whole, reached)
    return reached + (max(1, int(whole * step)) if step < 1 else int(step))
