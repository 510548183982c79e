"""Sums under each scope in each window: read for all that a run of items asks, then updated as items are admitted.

A large sum is kept in the database, and what has left its window is subtracted: so a mailing to 400,000 people is not
summed up again in every batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smtpguard.counts.people import LIFE, Moments
from smtpguard.database.batch import Batch

LARGE = 2000  # a smaller sum is not worth keeping


@dataclass(slots=True)
class Sum:
    """The weight of those counted under a scope later than ``floor``. ``made``: when it was last counted from scratch,
    if it is kept."""

    floor: int
    total: int = 0
    made: int | None = None
    changed: bool = False


class Sums:
    """The sums of one run."""

    def __init__(self, batch: Batch, moments: Moments) -> None:
        self._batch, self._moments = batch, moments
        self._sums: dict[int, dict[int, Sum]] = {}  # by scope and window

    def want(self, scope: int, seconds: int) -> None:
        self._sums.setdefault(scope, {}).setdefault(seconds, Sum(self._floor(seconds)))

    def read(self) -> None:
        known = self._kept()
        wanted: dict[tuple[int, ...], list[int]] = {}
        for scope, sums in self._sums.items():
            some = [seconds for seconds, one in sums.items() if one.made is None and (scope, seconds) not in known]
            if some:
                wanted.setdefault(tuple(sorted(some)), []).append(scope)
        for windows, scopes in wanted.items():
            self._sum_up(windows, scopes)

    def of(self, scope: int, seconds: int, *, has_come: bool) -> Sum:
        """The sum that was read ahead; for a mailing that did not exist then, the sum of the batch's earlier items."""
        sums = self._sums.setdefault(scope, {})
        if seconds not in sums:
            made = sums[seconds] = Sum(self._floor(seconds))
            if has_come:
                self._sum_up((seconds,), [scope])
                made.total += self._moments.later(scope, made.floor)
        return sums[seconds]

    def all_of(self, scope: int) -> Iterable[Sum]:
        return self._sums[scope].values()

    def keep(self) -> None:
        rows = self._batch.rows("tally")
        for scope, sums in self._sums.items():
            for seconds, one in sums.items():
                if one.made is not None and one.changed:
                    rows.append((scope, seconds, one.floor, one.total, one.made))

    def _floor(self, seconds: int) -> int:
        return self._batch.now_us - seconds * 1_000_000

    def _kept(self) -> set[tuple[int, int]]:
        """Read the kept sums and subtract what has left their windows. Returns which of the wanted sums these are."""
        found: set[tuple[int, int]] = set()
        now = self._batch.now_us
        sql = "SELECT scope, seconds, floor, total, made FROM tally WHERE made > ? AND made <= ? AND scope {}"
        for scope, seconds, floor, total, made in self._batch.among(sql, list(self._sums), (now - LIFE, now)):
            asked = self._sums[scope].get(seconds)
            kept = Sum(floor, int(total), made)
            if asked is not None:
                if asked.floor < floor:  # another node's clock is ahead of ours: count anew
                    continue
                sql_gone = "SELECT SUM(weight) FROM moment WHERE scope = ? AND at > ? AND at <= ?"
                [(gone,)] = self._batch.select(sql_gone, (scope, floor, asked.floor))
                kept.total -= int(gone or 0)
                kept.floor = asked.floor
                found.add((scope, seconds))
            self._sums[scope][seconds] = kept
        return found

    def _sum_up(self, windows: tuple[int, ...], scopes: list[int]) -> None:
        """Count from scratch; windows in ascending order."""
        floors = [self._floor(seconds) for seconds in windows]
        each = ["SUM(CASE WHEN at > ? THEN weight ELSE 0 END)"] * (len(floors) - 1)
        sql = (
            f"SELECT scope, {', '.join([*each, 'SUM(weight)'])} FROM moment WHERE at > ? AND scope {{}} GROUP BY scope"
        )
        for scope, *totals in self._batch.among(sql, scopes, (*floors[:-1], min(floors))):
            for seconds, total in zip(windows, totals, strict=True):
                self._sums[scope][seconds].total += int(total)
        for scope in scopes:
            for seconds in windows:
                one = self._sums[scope][seconds]
                if one.total >= LARGE:
                    one.made, one.changed = self._batch.now_us, True
