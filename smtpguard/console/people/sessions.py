"""The sessions of people who are signed in to the console."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from datetime import datetime, timedelta

from smtpguard.accounts.model import Account, Session
from smtpguard.config.web import ConsoleSession
from smtpguard.journal.clock import Clock
from smtpguard.store.nouns import People

WRITE_SECONDS = 60.0
"""How often the times of last use are written."""


class Sessions:
    """The sessions in the store, found by a token that only the browser has.

    Viewing a page writes nothing to the store: the time of last use is kept in memory and written every minute, so a killed
    process loses at most a minute of it.
    """

    def __init__(self, people: People, clock: Clock, lifetimes: ConsoleSession) -> None:
        """``lifetimes``: how long a session lasts after the last request (``idle``), and after signing in (``longest``)."""
        self._people, self._clock = people, clock
        self._idle, self._longest = timedelta(seconds=lifetimes.idle), timedelta(seconds=lifetimes.longest)
        self._seen: dict[str, datetime] = {}

    def new(self, account_id: str, *, how: str) -> tuple[str, Session]:
        """Return a new token, and the session to store for it. ``how``: "password" or "sso"."""
        token, now = secrets.token_urlsafe(32), self._clock.now()
        return token, Session(token=token_hash(token), account_id=account_id, started_at=now, seen_at=now, how=how)

    async def find(self, token: str, *, active: bool = True) -> tuple[Session, Account] | None:
        """Return the session of this token, with its account. ``active``: a person made the request; a page that refreshes
        itself does not keep a session alive. Raises StoreError."""
        key = token_hash(token)
        found = await self._people.session(key)
        if found is None:
            self._seen.pop(key, None)
            return None
        session, account = found
        now = self._clock.now()
        seen = max(session.seen_at, self._seen.get(key, session.seen_at))
        if account.disabled or now >= session.started_at + self._longest or now >= seen + self._idle:
            return None
        if not active:
            return session, account
        self._seen[key] = now
        return replace(session, seen_at=now), account

    async def write(self) -> None:
        """Write the times of last use, and delete ended sessions. Raises StoreError: then nothing is lost."""
        seen, now = dict(self._seen), self._clock.now()
        await self._people.seen(seen, started_before=now - self._longest, seen_before=now - self._idle)
        for token, at in seen.items():
            if self._seen.get(token) == at:
                del self._seen[token]


def token_hash(token: str) -> str:
    """Return the stored hash of a token. A token is random enough to need no salt."""
    return hashlib.sha256(token.encode()).hexdigest()
