"""Share one limit of connections to a relay among all processes.

A part asks for places and gives back those that it does not need. The supervisor grants free places, and takes back the
places of a part whose process has ended. Both sides send totals since the process began, so that messages that cross on
their way add up. Each relay has its own limit; ``relay`` is its number:

    part to supervisor    {"places": {"relay": 0, "back": given back, "seen": granted as far as it has heard, "wanted": more than it has}}
    supervisor to part    {"places": {"relay": 0, "granted": in all, "most": come down to so many, or null, "waited": by other parts,
                           "sharers": parts that carry clients' mail}}

Free places go to the part with the fewest; among equals to the one that has waited longest. If none is free, and one
part has more than another that waits would then have, it is told to come down. A part with a cap (delivery) never has
more than its cap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _PartUse:
    """The places of one part. ``cap``: the most that it may have. ``granted``, ``back``: totals since its process began. ``since``:
    its turn among those that wait. ``told``: what it was sent last."""

    cap: int
    granted: int = 0
    back: int = 0
    wanted: int = 0
    since: int = 0
    told: tuple[int, int | None, int] | None = None

    @property
    def held(self) -> int:
        return self.granted - self.back

    @property
    def short(self) -> int:
        return max(0, min(self.wanted, self.cap - self.held))


class RelayConnectionLimit:
    """The supervisor's side of one relay. ``tell`` is called with a part's name and a message for it."""

    def __init__(self, limit: int, sharers: int, tell: Callable[[str, Mapping[str, Any]], None]) -> None:
        """``sharers``: the number of parts that carry clients' mail."""
        self.limit, self.sharers = limit, sharers
        self._tell = tell
        self._accounts: dict[str, _PartUse] = {}
        self._turns = 0

    @property
    def held(self) -> int:
        """The places that all parts have, never more than the limit."""
        return sum(account.held for account in self._accounts.values())

    def said(self, name: str, said: Mapping[str, int], *, cap: int) -> None:
        """Take a message of a part. ``cap``: the most places that it may have."""
        account = self._accounts.setdefault(name, _PartUse(cap))
        wanted = max(0, int(said["wanted"]) - (account.granted - int(said["seen"])))
        if account.back != int(said["back"]) or (wanted and not account.wanted):
            account.since = self._turn()
        account.back = int(said["back"])
        account.wanted = wanted
        self._settle()

    def ended(self, name: str) -> None:
        """Take back the places of a part whose process has ended."""
        if self._accounts.pop(name, None) is not None:
            self._settle()

    def _turn(self) -> int:
        self._turns += 1
        return self._turns

    def _settle(self) -> None:
        accounts = self._accounts
        free = self.limit - self.held
        while free > 0 and (waiting := [a for a in accounts.values() if a.short]):
            first = min(waiting, key=lambda a: (a.held, a.since))
            first.granted += 1
            first.wanted -= 1
            first.since = self._turn()
            free -= 1
        most = self._levelled()
        short = sum(account.short for account in accounts.values())
        for name, account in accounts.items():
            waited = short - account.short
            news = account.granted, most.get(name), waited
            if news != account.told:
                account.told = news
                self._tell(
                    name,
                    {"granted": account.granted, "most": most.get(name), "waited": waited, "sharers": self.sharers},
                )

    def _levelled(self) -> dict[str, int]:
        """Return to how many places parts must come down: those with more than a waiting part would have with one more."""
        accounts = self._accounts
        held = {name: account.held for name, account in accounts.items()}
        short = {name: account.short for name, account in accounts.items()}
        while True:  # each round moves one place from one part to another
            takers = [name for name in held if short[name] and held[name] >= accounts[name].held]
            givers = [name for name in held if held[name] <= accounts[name].held]
            to = min(takers, key=lambda name: (held[name], accounts[name].since), default=None)
            of = max((name for name in givers if name != to), key=lambda name: held[name], default=None)
            if to is None or of is None or held[of] <= min(held[to], 1) * (held[to] + 1):
                return {name: n for name, n in held.items() if n < accounts[name].held}
            held[of] -= 1
            held[to] += 1
            short[to] -= 1


class Allowance:
    """A part's side of one relay (wire.pool.Allowance). ``relay``: the number of the relay. The pool sets ``changed``, the part's
    life ``send``."""

    def __init__(self, limit: int, relay: int = 0) -> None:
        self.limit, self.sharers, self.relay = limit, 1, relay
        self.usable = 0
        self.most: int | None = None
        self.waited = 0
        self.changed: Callable[[], None] = lambda: None
        self.send: Callable[[Mapping[str, Any]], None] = lambda message: None
        self._granted = self._back = 0
        self._told = (0, 0, 0)

    def closed(self, used: int) -> None:
        """Note that a connection has closed. Its place is given back if the part must come down."""
        if self.most is not None and self.usable > max(self.most, used):
            self._back += 1
            self.usable -= 1

    def tell(self, used: int, wanted: int) -> None:
        if not wanted:
            self._back += self.usable - used
            self.usable = used
        news = self._back, self._granted, wanted
        if news != self._told and (news[0] != self._told[0] or wanted or self._told[2]):
            self._told = news
            self.send({"places": {"relay": self.relay, "back": self._back, "seen": self._granted, "wanted": wanted}})

    def heard(self, news: Mapping[str, Any]) -> None:
        self.usable += int(news["granted"]) - self._granted
        self._granted = int(news["granted"])
        self.most, self.waited, self.sharers = news["most"], int(news["waited"]), int(news["sharers"])
        self.changed()
