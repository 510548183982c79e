"""The proven origin of a message: the domains whose DKIM signatures (RFC 6376) verified."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """``domains``: signing domains (d=) in lower case whose signatures verified and covered From. ``failed``: (domain,
    why).

    ``unresolved``: domains whose keys could not be looked up; neither proven nor failed.
    """

    domains: frozenset[str] = frozenset()
    failed: tuple[tuple[str, str], ...] = ()
    unresolved: frozenset[str] = frozenset()
