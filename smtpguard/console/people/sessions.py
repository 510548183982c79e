"""Sessions by a token that only the browser has: find them, keep them alive, and end them by time.

Viewing a page writes nothing to the store. The time of last use is kept in memory and written every minute, so a killed
process loses at most a minute of it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from smtpguard.accounts.model import Account, Session
from smtpguard.console.ports import People
from smtpguard.guard.ports import Clock

WRITE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """``idle``: since the last request; ``longest``: since signing in, whatever happens."""

    idle: timedelta = timedelta(hours=2)
    longest: timedelta = timedelta(hours=12)


class Sessions:
    def __init__(self, people: People, clock: Clock, lifetimes: Lifetimes | None = None) -> None:
        self._people, self._clock = people, clock
        self.lifetimes = lifetimes or Lifetimes()
        self._seen: dict[str, datetime] = {}

    def made(self, account_id: str, *, how: str) -> tuple[str, Session]:
        """A new token, and the session to store for it."""
        token, now = secrets.token_urlsafe(32), self._clock.now()
        return token, Session(token=hashed(token), account_id=account_id, started_at=now, seen_at=now, how=how)

    async def find(self, token: str, *, active: bool = True) -> tuple[Session, Account] | None:
        """The session of this token, with its account. ``active``: a person made the request; a page that refreshes
        itself does not keep a session alive. Raises LedgerError."""
        key = hashed(token)
        found = await self._people.session(key)
        if found is None:
            self._seen.pop(key, None)
            return None
        session, account = found
        now = self._clock.now()
        seen = max(session.seen_at, self._seen.get(key, session.seen_at))
        if account.disabled or now >= session.started_at + self.lifetimes.longest or now >= seen + self.lifetimes.idle:
            return None
        if not active:
            return session, account
        self._seen[key] = now
        return replace(session, seen_at=now), account

    async def write(self) -> None:
        """Write the times of last use, and delete ended sessions. Raises LedgerError; then nothing is lost."""
        seen, now = dict(self._seen), self._clock.now()
        await self._people.seen(
            seen, started_before=now - self.lifetimes.longest, seen_before=now - self.lifetimes.idle
        )
        for token, at in seen.items():
            if self._seen.get(token) == at:
                del self._seen[token]


def hashed(token: str) -> str:
    """The stored hash. A token is random enough to need no salt."""
    return hashlib.sha256(token.encode()).hexdigest()
