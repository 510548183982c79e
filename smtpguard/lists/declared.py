"""Lists and streams as the policy declares them, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smtpguard.mail.address import Address, is_among
from smtpguard.mail.envelope import Network, Session, within

if TYPE_CHECKING:
    from smtpguard.config.durations import Rate
    from smtpguard.lists.members import Members

PEOPLE = "organization.people"
"""The name of the sources in ``organization: {people}``, who are colleagues at any address. They are read, refreshed and shown as
a list."""
COLLEAGUES = frozenset({"colleagues", "employees", "internal", "staff"})
"""The audiences that are no customers. Such a list counts in reach, never in customers or members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The declared origin of mail: of each kind that is declared, one must match. ``logins``: login names of systems,
    in lower case."""

    dkim: frozenset[str] = frozenset()  # signing domains, in lower case; ``*.example.com`` is every name below
    clients: tuple[Network, ...] = ()
    logins: frozenset[str] = frozenset()

    @property
    def declared(self) -> bool:
        return bool(self.dkim or self.clients or self.logins)

    def proven(self, session: Session, signed_by: frozenset[str]) -> bool:
        """Return whether a message of this session with valid signatures of ``signed_by`` has this origin."""
        if not self.declared or (self.dkim and not any(is_among(domain, self.dkim) for domain in signed_by)):
            return False
        return self._brought_by(session)

    def may_prove(self, session: Session) -> bool:
        """Return whether a message of this session has this origin if a declared domain signs it."""
        return self.declared and self._brought_by(session)

    def names(self, session: Session) -> bool:
        """Return whether the session is a system's by its declared client and login, whatever signs its mail."""
        return bool(self.clients or self.logins) and self._brought_by(session)

    def _brought_by(self, session: Session) -> bool:
        if self.logins and (session.auth_user or "").lower() not in self.logins:
            return False
        return not self.clients or within(session.client_ip, self.clients)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInfo:
    """One customer list. ``writers``: canonical addresses. ``addresses_elsewhere``: addresses with its local part that are
    something else. ``language``: the languages of its members, as codes of two letters.

    ``members``: its sources, with those of ``includes``, the lists within it; none if its members are unknown. An index
    is not taken into use if it has fewer than ``at_least`` people, or has lost more than the share ``max_shrink`` at
    once.
    """

    name: str
    title: str = ""
    owner: str | None = None
    addresses: tuple[Address, ...] = ()
    addresses_elsewhere: tuple[Address, ...] = ()
    list_ids: frozenset[str] = frozenset()
    audience: str = "customers"
    sensitivity: str | None = None
    category: str | None = None
    preview: str | None = None
    writers: frozenset[str] = frozenset()
    origin: Origin = field(default_factory=Origin)
    avoid: frozenset[str] = frozenset()
    language: frozenset[str] = frozenset()
    members: tuple[Members, ...] = ()
    includes: frozenset[str] = frozenset()
    at_least: int = 1
    max_shrink: float = 0.2
    refresh_seconds: int = 900
    stale_after_seconds: int = 86_400

    @property
    def called(self) -> str:
        """Its name for people."""
        return self.title or self.name

    @property
    def special(self) -> bool:
        """Return whether membership is sensitive (GDPR Art. 9)."""
        return self.sensitivity == "special-category"

    @property
    def of_customers(self) -> bool:
        return self.audience not in COLLEAGUES

    @property
    def on_server(self) -> bool:
        """Return whether a list server has the list, as far as the policy says."""
        return bool(self.list_ids) or any(m.source == "mailman" and m.own for m in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A standing approval for one-by-one mail of a system, never for a list address. ``owner`` gets a notice above the limit."""

    name: str
    senders: frozenset[str]  # canonical From
    origin: Origin
    max: Rate | None
    max_per_person: Rate | None
    owner: str | None
