"""How many people were last counted under a scope at each time (moments), and the sum under each scope in each window.

So a window is summed up without reading each person. Every window of a scope begins at its last reset at the earliest. A large sum
is stored, and what has left its window is subtracted: a mailing to 400,000 people is not summed up again in every batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from smtpguard.counts.people import LIFE
from smtpguard.database.batch import Batch

USUAL_FROM, USUAL_UNTIL = 35 * 86_400 * 1_000_000, 7 * 86_400 * 1_000_000
"""The period that the usual amount is taken from, in microseconds before now."""
LARGE = 2000
"""The least sum that is worth storing."""
_EMPTIED = "DELETE FROM moment WHERE n <= 0 AND (scope, at) IN (SELECT c0, c1 FROM {})"


class Moments:
    """The changes of moments in one run, until they are written."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._found: dict[tuple[int, int], list[int]] = {}

    def add(self, scope: int, at: int, until: int, n: int, weight: int) -> None:
        """Add people to a moment; negative numbers subtract. ``until``: when no window reaches it any more; ``n``: how many
        people; ``weight``: what they count for together."""
        moment = self._found.get((scope, at))
        if moment is None:
            self._found[scope, at] = [until, n, weight]
        else:
            moment[0] = max(moment[0], until)
            moment[1] += n
            moment[2] += weight

    def weight_after(self, scope: int, floor: int) -> int:
        """Return the weight later than ``floor`` that is not written yet."""
        return sum(weight for (each, at), (_, _, weight) in self._found.items() if each == scope and at > floor)

    def write(self) -> None:
        rows = [(scope, at, *moment) for (scope, at), moment in sorted(self._found.items()) if moment[1] or moment[2]]
        self._batch.rows("moment").extend(rows)
        left = [(scope, at) for scope, at, _, n, _ in rows if n < 0]
        if left:
            self._batch.flush()
            self._batch.execute_with(_EMPTIED, left)
        self._found.clear()


def most_in_a_window(times: Iterable[tuple[int, int]], window_us: int) -> int:
    """Return the highest count in a window of that length. ``times``: times with their counts."""
    ordered = sorted(times)
    most = within = first = 0
    for at, n in ordered:
        within += n
        while ordered[first][0] <= at - window_us:
            within -= ordered[first][1]
            first += 1
        most = max(most, within)
    return most


def reset(batch: Batch, scopes: Iterable[int]) -> None:
    """Let the windows of these scopes begin now: nobody counted so far is in them."""
    batch.flush()
    for scope in scopes:
        [(last,)] = batch.select("SELECT MAX(at) FROM moment WHERE scope = ?", (scope,))
        batch.rows("reset").append((scope, max(batch.now_us, last or 0)))
    batch.flush()


@dataclass(slots=True)
class Sum:
    """The weight of people counted under a scope later than ``floor``. ``made``: when a stored sum was last counted from
    scratch."""

    floor: int
    total: int = 0
    made: int | None = None
    changed: bool = False


class Sums:
    """The sums that a run of items needs, by scope and window."""

    def __init__(self, batch: Batch, moments: Moments) -> None:
        self._batch, self._moments = batch, moments
        self._resets: dict[int, int] = {}
        self._sums: dict[int, dict[int, Sum]] = {}  # by scope and window

    def read(self, wanted: Mapping[int, Iterable[int]]) -> None:
        """Read the sums of a run ahead. ``wanted``: the windows of each scope, in seconds."""
        for scope, at in self._batch.among("SELECT scope, at FROM reset WHERE scope {}", list(wanted)):
            self._resets[scope] = at
        for scope, windows in wanted.items():
            self._sums[scope] = {seconds: Sum(self.floor(scope, seconds)) for seconds in windows}
        known = self._read_stored()
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for scope, windows in wanted.items():
            sums = self._sums[scope]
            some = [(seconds, sums[seconds].floor) for seconds in windows if (scope, seconds) not in known]
            if some:
                alike.setdefault(tuple(sorted(some)), []).append(scope)
        for windows_of, scopes in alike.items():
            self._sum_up(windows_of, scopes)

    def get(self, scope: int, seconds: int, *, has_come: bool) -> Sum:
        """Return the sum that was read ahead; for a mailing that did not exist then, that of the batch's earlier items.

        ``has_come``: something was recorded of the mailing.
        """
        sums = self._sums.setdefault(scope, {})
        if seconds not in sums:
            made = sums[seconds] = Sum(self.floor(scope, seconds))
            if has_come:
                self._sum_up([(seconds, made.floor)], [scope])
                made.total += self._moments.weight_after(scope, made.floor)
        return sums[seconds]

    def all_of(self, scope: int) -> Iterable[Sum]:
        return self._sums[scope].values()

    def write(self) -> None:
        """Add the changed sums that are stored to the batch's rows."""
        rows = self._batch.rows("tally")
        for scope, sums in self._sums.items():
            for seconds, each in sums.items():
                if each.made is not None and each.changed:
                    rows.append((scope, seconds, each.floor, each.total, each.made))

    def reset_at(self, scope: int) -> int:
        return self._resets.get(scope, 0)

    def floor(self, scope: int, seconds: int) -> int:
        """Return the time after which a window of the scope begins."""
        return max(self._batch.now_us - seconds * 1_000_000, self.reset_at(scope))

    def _read_stored(self) -> set[tuple[int, int]]:
        """Read stored sums and subtract what has left their windows. Return the scope and window of each that was wanted."""
        found: set[tuple[int, int]] = set()
        now = self._batch.now_us
        sql = "SELECT scope, seconds, floor, total, made FROM tally WHERE made > ? AND made <= ? AND scope {}"
        for scope, seconds, floor, total, made in self._batch.among(sql, list(self._sums), (now - LIFE, now)):
            wanted = self._sums[scope].get(seconds)
            stored = Sum(floor, int(total), made)
            if wanted is not None:
                if wanted.floor < floor:  # another node's clock is ahead of ours: count anew
                    continue
                sql_gone = "SELECT SUM(weight) FROM moment WHERE scope = ? AND at > ? AND at <= ?"
                [(gone,)] = self._batch.select(sql_gone, (scope, floor, wanted.floor))
                stored.total -= int(gone or 0)
                stored.floor = wanted.floor
                found.add((scope, seconds))
            self._sums[scope][seconds] = stored
        return found

    def _sum_up(self, windows: Sequence[tuple[int, int]], scopes: list[int]) -> None:
        """Count sums from scratch. ``windows``: lengths, ascending, each with its floor, which are those of all the scopes."""
        *floors, least = [floor for _, floor in windows]
        each = ["SUM(CASE WHEN at > ? THEN weight ELSE 0 END)"] * len(floors)
        sql = (
            f"SELECT scope, {', '.join([*each, 'SUM(weight)'])} FROM moment WHERE at > ? AND scope {{}} GROUP BY scope"
        )
        for scope, *totals in self._batch.among(sql, scopes, (*floors, least)):
            for (seconds, _), total in zip(windows, totals, strict=True):
                self._sums[scope][seconds].total += int(total)
        for scope in scopes:
            for seconds, _ in windows:
                each_sum = self._sums[scope][seconds]
                if each_sum.total >= LARGE:
                    each_sum.made, each_sum.changed = self._batch.now_us, True
