"""The relays of one listener's mail: the listener's own, and others for some recipients.

A transaction uses one relay session (RFC 5321 section 3.3), so it has one relay. Recipients of another relay are answered
452 4.5.3, and the client sends them in a transaction of their own (section 4.5.3.1.10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from smtpguard.mail.address import Address
from smtpguard.wire.pool import RelayPool

Choice = Callable[[Address], RelayPool | None]
"""The relay of a recipient; None if it is not known now."""


class Routing:
    """``first``: the listener's relay, at which clients log in. ``choose``: the relay of each recipient; None: all go to
    ``first``. ``others``: the other relays that ``choose`` may return."""

    def __init__(self, first: RelayPool, others: Sequence[RelayPool] = (), choose: Choice | None = None) -> None:
        self.first, self.choose = first, choose
        self._others = tuple(others)

    @property
    def offered(self) -> Mapping[str, str] | None:
        """The extensions that every relay offered in its latest session: EHLO is answered before the recipients are known.
        AUTH is that of ``first``, SIZE the smallest (RFC 1870). A relay that was never reached is left out: if it lacks
        an extension that a message needs, its recipients are answered 4xx. None if ``first`` was never reached."""
        offered = self.first.offered
        if offered is None:
            return None
        for other in self._others:
            if (its := other.offered) is not None:
                offered = _both(offered, its)
        return offered

    async def extensions(self) -> Mapping[str, str]:
        """``offered``; opens a session with ``first`` if there never was one. Raises RelayUnavailable."""
        await self.first.extensions()
        return self.offered or {}


def _both(offered: Mapping[str, str], other: Mapping[str, str]) -> Mapping[str, str]:
    both = {keyword: said for keyword, said in offered.items() if keyword in other or keyword == "AUTH"}
    sizes = [int(said) for each in (offered, other) if (said := each.get("SIZE", "").strip()).isdecimal() and int(said)]
    if sizes:
        both["SIZE"] = str(min(sizes))
    return both
