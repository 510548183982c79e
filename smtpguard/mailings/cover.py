"""What an approval covers: the test by which one more message is what people have seen, or is not.

An approval of mail to a list's address covers that content alone. An approval of copies to single people covers
what differs from these only in slots (slots). This is stricter than the fingerprint, which decides what is
counted together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smtpguard.reading.shown import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """A message as approvals look at it. ``author``: the one address in From, "" where that is not clear. ``proofs``: what proves
    where it comes from ("login NAME", "dkim DOMAIN", or "origin" where only the client does). ``by_address``: it is for a list's
    address, or another that expands. ``fits``: by the name of each template that it was compared with, whether it is a copy of that."""

    content: str
    exact: str
    author: str
    proofs: frozenset[str] = frozenset()
    by_address: bool = False
    fits: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, shown: Shown, *, author: str, proofs: frozenset[str], by_address: bool) -> Coming:
        return cls(content=shown.content, exact=shown.digest, author=author, proofs=proofs, by_address=by_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """What people had before their eyes. ``content``: SHA-256 of its octets; ``exact``: of everything that it shows or opens ("" of
    what an earlier version approved). ``learned``: the template of which copies are covered as well; "" where nothing else is.
    ``also``: who else wrote some of them that were seen, and what proved that."""

    content: str
    exact: str = ""
    author: str = ""
    proofs: frozenset[str] = frozenset()
    learned: str = ""
    also: tuple[tuple[str, frozenset[str]], ...] = ()

    def takes_in(self, coming: Coming) -> bool | None:
        """Whether it is the very same thing, or a copy of it, from the same sender. None: that is to be found out (``fits``)."""
        if not self.exact:
            return self.content == coming.content
        if not self.is_from(coming):
            return False
        if self.exact == coming.exact:
            return True
        return coming.fits.get(self.learned) if self.learned and not coming.by_address else False

    def is_from(self, coming: Coming) -> bool:
        """Whether who was approved stands behind it, proven as well as then."""
        seen = ((self.author, self.proofs), *self.also)
        return any(author and author == coming.author and proofs <= coming.proofs for author, proofs in seen)
