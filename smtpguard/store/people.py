"""The store as the console's people see it: accounts, sessions, tokens. Fits console.ports.People."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from smtpguard.audit.event import Event
from smtpguard.policy.people import Account, Keys, Session, Token, Turn, TurnStep
from smtpguard.store import accounts, sessions, tokens
from smtpguard.store.batch import Batch
from smtpguard.store.store import Store


class People:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def turn(self, keys: Keys, step: TurnStep) -> Turn:
        return await self._store.write(lambda batch: accounts.turn(batch, keys, step))

    async def account(self, keys: Keys) -> Account | None:
        found = await self._store.ask(lambda c: accounts.find(c, keys))
        return found[0] if found else None

    async def everybody(self) -> Sequence[Account]:
        return await self._store.ask(accounts.everybody)

    async def session(self, token: str) -> tuple[Session, Account] | None:
        found = await self._store.ask(lambda c: sessions.find(c, token))
        return None if found is None else (found[0], accounts.ACCOUNT.loads(found[1]))

    async def seen(self, at: Mapping[str, datetime], *, started_before: datetime, seen_before: datetime) -> None:
        def write(batch: Batch) -> None:
            connection: Connection = batch.connection
            sessions.seen(connection, at)
            sessions.sweep(connection, started_before=started_before, seen_before=seen_before)

        await self._store.write(write)

    async def token(self, token_id: str) -> tuple[Token, Account] | None:
        return await self._store.ask(lambda c: tokens.find(c, token_id))

    async def tokens(self, account_id: str = "") -> Sequence[tuple[Token, Account]]:
        return await self._store.ask(lambda c: tokens.all_of(c, account_id))

    async def put_token(self, token: Token, event: Event) -> None:
        await self._store.write(lambda batch: tokens.put(batch, token, event))
