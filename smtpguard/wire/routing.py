"""The relays that one listener's mail may go to: the listener's own, and others for some recipients.

One transaction goes over one relay session (RFC 5321 section 3.3), so it has one relay. Recipients of another one are
answered 452 4.5.3, by which the client sends them in a transaction of their own (section 4.5.3.1.10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from smtpguard.mail.address import Address
from smtpguard.wire.pool import RelayPool

Choice = Callable[[Address], RelayPool | None]
"""The relay of a recipient. None: it is not known now."""


class Routing:
    """``first``: the relay of all recipients for which ``choose`` has no other; clients log in there. ``others``: the
    relays that it may choose."""

    def __init__(self, first: RelayPool, others: Sequence[RelayPool] = (), choose: Choice | None = None) -> None:
        self.first, self.choose = first, choose
        self._others = tuple(others)

    @property
    def offered(self) -> Mapping[str, str] | None:
        """What every relay offered in its latest session, since the client is answered before its recipients are known.
        AUTH is the first's; SIZE the smallest (RFC 1870). One that was never reached is left out: recipients for it are
        answered 4xx if it lacks what their message needs. None: the first was never reached."""
        offered = self.first.offered
        if offered is None:
            return None
        for other in self._others:
            if (its := other.offered) is not None:
                offered = _both(offered, its)
        return offered

    async def extensions(self) -> Mapping[str, str]:
        """``offered``, after opening a session with the first if there never was one. Raises RelayUnavailable."""
        await self.first.extensions()
        return self.offered or {}


def _both(offered: Mapping[str, str], other: Mapping[str, str]) -> Mapping[str, str]:
    both = {keyword: said for keyword, said in offered.items() if keyword in other or keyword == "AUTH"}
    sizes = [int(said) for each in (offered, other) if (said := each.get("SIZE", "").strip()).isdecimal() and int(said)]
    if sizes:
        both["SIZE"] = str(min(sizes))
    return both
