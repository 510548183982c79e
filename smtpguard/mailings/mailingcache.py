"""What a process remembers of mailings between its batches: under which keys each is filed, so that the next copy is known at
once. Bounded, and only a shortcut: what it does not know, the table is asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from smtpguard.reading.fingerprint import Sketch, apart

MOST = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A mailing by what it is found by: its row's number and name, its keys in the table, its first message's sketch."""

    n: int
    mailing_id: str
    keys: tuple[int, ...]
    sketch: Sketch


class Memory:
    """The mailings met last."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[int, Known] = OrderedDict()
        self._by_key: dict[int, set[int]] = {}

    def add(self, known: Known) -> None:
        self.forget(known.n)
        self._known[known.n] = known
        for key in known.keys:
            self._by_key.setdefault(key, set()).add(known.n)
        while len(self._known) > self._most:
            self.forget(next(iter(self._known)))

    def forget(self, n: int) -> None:
        known = self._known.pop(n, None)
        for key in known.keys if known is not None else ():
            there = self._by_key[key]
            there.discard(n)
            if not there:
                del self._by_key[key]

    def find(self, exact: tuple[int, ...], sketch: Sketch) -> Known | None:
        """The mailing of which this is a copy, as far as is remembered."""
        keys = (exact, sketch.keys)
        for some in keys:
            near = {n for key in some for n in self._by_key.get(key, ())}
            found = nearest((self._known[n] for n in near), exact, sketch)
            if found is not None:
                self._known.move_to_end(found.n)
                return found
        return None


def nearest(candidates: Iterable[Known], exact: tuple[int, ...], sketch: Sketch) -> Known | None:
    """The candidate that has one of the exact keys, else the one whose sketch is nearest, if it is near enough; of those
    about as near the first, or one odd copy would draw others away."""
    best: tuple[float, int] | None = None
    found = None
    for one in candidates:
        if any(key in one.keys for key in exact):
            return one
        far = apart(one.sketch, sketch)
        if far is not None and (best is None or (round(far, 1), one.n) < best):
            best, found = (round(far, 1), one.n), one
    return found
