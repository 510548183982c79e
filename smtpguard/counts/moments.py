"""How many were last counted under a scope at each time, so that a window is summed up without reading each person.

A person counted again moves from the old time to the new. People counted before a reset of the scope have no weight
there.
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpguard.database.batch import Batch

USUAL_FROM, USUAL_UNTIL = 35 * 86_400 * 1_000_000, 7 * 86_400 * 1_000_000
"""The period that the usual amount is taken from, in microseconds before now."""
_NO_RESET = -(1 << 62)


class Moments:
    """The changes of one run, until they are written."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._found: dict[tuple[int, int], list[int]] = {}
        self._resets: dict[int, int] = {}

    def look(self, scopes: Iterable[int]) -> None:
        """Read when these scopes were reset."""
        wanted = list(scopes)
        if wanted:
            for scope, at in self._batch.among("SELECT scope, at FROM reset WHERE scope {}", wanted):
                self._resets[scope] = at

    def reset_at(self, scope: int) -> int:
        """Counts up to this time have no weight."""
        return self._resets.get(scope, _NO_RESET)

    def add(self, scope: int, at: int, until: int, n: int, weight: int) -> None:
        """Add to a time; negative numbers subtract."""
        one = self._found.get((scope, at))
        if one is None:
            self._found[scope, at] = [until, n, weight]
        else:
            one[0] = max(one[0], until)
            one[1] += n
            one[2] += weight

    def later(self, scope: int, floor: int) -> int:
        """The weight in a window that is not written yet."""
        return sum(one[2] for (of, at), one in self._found.items() if of == scope and at > floor)

    def write(self) -> None:
        rows = [(scope, at, *one) for (scope, at), one in sorted(self._found.items()) if one[1] or one[2]]
        self._batch.rows("moment").extend(rows)
        left = [(scope, at) for scope, at, _, n, _ in rows if n < 0]
        if left:
            self._batch.flush()
            self._batch.execute("DELETE FROM moment WHERE scope = ? AND at = ? AND n <= 0", left)
        self._found.clear()


def most_in_a_window(times: Iterable[tuple[int, int]], window_us: int) -> int:
    """The highest count in a window of that length, from times with their counts."""
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
    """Start these scopes anew."""
    batch.flush()
    for scope in scopes:
        [(last,)] = batch.select("SELECT MAX(at) FROM moment WHERE scope = ?", (scope,))
        batch.rows("reset").append((scope, max(batch.now_us, last or 0)))
        batch.execute("UPDATE moment SET weight = 0 WHERE scope = ?", [(scope,)])
        batch.execute("DELETE FROM tally WHERE scope = ?", [(scope,)])
    batch.flush()
