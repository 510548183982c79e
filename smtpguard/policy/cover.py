"""What an approval covers: the test by which one more message is what people have seen, or is not.

An approval of mail to a list's address covers that content alone. This is stricter than the fingerprint, which decides what is
counted together.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpguard.reading.shown import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """A message as approvals look at it. ``author``: the one address in From, "" where that is not clear. ``proofs``: what proves
    where it comes from ("login NAME", "dkim DOMAIN", or "origin" where only the client does). ``by_address``: it is for a list's
    address, or another that expands."""

    content: str
    exact: str
    author: str
    proofs: frozenset[str] = frozenset()
    by_address: bool = False

    @classmethod
    def of(cls, shown: Shown, *, author: str, proofs: frozenset[str], by_address: bool) -> Coming:
        return cls(content=shown.content, exact=shown.digest, author=author, proofs=proofs, by_address=by_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """What people had before their eyes. ``content``: SHA-256 of its octets; ``exact``: of everything that it shows or opens ("" of
    what an earlier version approved). ``only``: nothing else is covered; otherwise copies of it are as well."""

    content: str
    exact: str = ""
    author: str = ""
    proofs: frozenset[str] = frozenset()
    only: bool = True

    def takes_in(self, coming: Coming) -> bool:
        """Whether it is the very same thing, from the same sender."""
        if not self.exact:
            return self.content == coming.content
        return self.exact == coming.exact and self.is_from(coming)

    def is_from(self, coming: Coming) -> bool:
        """Whether who was approved stands behind it, proven as well as then."""
        return bool(self.author) and self.author == coming.author and self.proofs <= coming.proofs
