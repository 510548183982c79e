"""The bearer tokens of the API (RFC 6750). A token acts as one account, within both its scopes and that account's roles."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from smtpguard.accounts.model import Account, AccountKeys, Role, Scope, Token
from smtpguard.console.people.sessions import token_hash
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.store.nouns import People

PREFIX = "smtpguard"
"""The prefix of every token, so that scanners of repositories and logs can find a leaked one."""

NO_FACTOR = "no-second-factor"
"""The state of a token whose account lacks a required second factor."""
_FORM = re.compile(rf"{PREFIX}_([0-9A-Z]{{16}})_([A-Za-z0-9_-]{{43}})", re.ASCII)


class NoFactor(Exception):
    """The token is right, but its account may do nothing until it has a second factor."""

    def __init__(self) -> None:
        super().__init__(
            "A role of the token's account asks for a second factor, and it has none: sign in at the console and set one up."
        )


class NoToken(Exception):
    """A token was not made or revoked. Nothing changed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The caller: a program that acts as a person."""

    token: Token
    account: Account

    def may(self, scope: Scope) -> bool:
        return scope in self.token.scopes and self.account.may(scope.asks)

    @property
    def by(self) -> str:
        """Return the account and the token, as the journal has them beside the person's address."""
        return f"{self.account.address} (token {self.token.token_id}: {self.token.name})"


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of all accounts. Each change is journalled. ``required``: the roles that must have a second factor."""

    people: People
    clock: Clock
    new_id: Callable[[], str]
    delimiters: str = "+"
    required: frozenset[Role] = frozenset()

    async def add(
        self, address: str, *, name: str, scopes: Sequence[Scope], good_for: timedelta, by: str
    ) -> tuple[Token, str]:
        """Make a token. Return it with its text, which is not stored. ``by``: the person who makes it. Raises NoToken, BadAddress,
        StoreError."""
        account = await self.people.account(AccountKeys(address=Address.parse(address).canonical(self.delimiters)))
        if account is None:
            raise NoToken(f"there is no account of {address}: smtpguard users add")
        if account.lacks_factor(self.required):
            raise NoToken(
                f"a role of {account.address} asks for a second factor, and it has none: it is set up at the console, under its account"
            )
        idle = [scope.value for scope in scopes if not account.may(scope.asks)]
        if idle:
            raise NoToken(f"{account.address} has no role for: {', '.join(idle)}")
        secret, now = secrets.token_urlsafe(32), self.clock.now()
        token = Token(
            token_id=self.new_id(),
            account_id=account.account_id,
            name=" ".join(name.split())[:100],
            secret=token_hash(secret),
            scopes=tuple(scope for scope in Scope if scope in scopes),
            created_at=now,
            expires_at=now + good_for,
        )
        await self.people.put_token(token, self._event(token, account, "added", by))
        return token, f"{PREFIX}_{token.token_id}_{secret}"

    async def revoke(self, token_id: str, *, by: str) -> Token:
        found = await self.people.token(token_id)
        if found is None:
            raise NoToken(f"there is no token {token_id}: smtpguard tokens list shows their ids")
        token, account = found
        if token.revoked:
            raise NoToken(f"{token_id} is revoked already")
        token = replace(token, revoked=True)
        await self.people.put_token(token, self._event(token, account, "revoked", by))
        return token

    async def holder(self, text: str) -> Holder | None:
        """Return the holder of a token, None if the token is wrong, revoked, expired, or of a disabled account. Raises NoFactor,
        StoreError."""
        form = _FORM.fullmatch(text)
        if form is None:
            return None
        found = await self.people.token(form[1])
        right = hmac.compare_digest(found[0].secret if found else "", token_hash(form[2]))
        state = self.state(*found) if found is not None and right else "wrong"
        if state == NO_FACTOR:
            raise NoFactor
        if found is None or state != "good":
            return None
        return Holder(token=found[0], account=found[1])

    def state(self, token: Token, account: Account) -> str:
        """Return good | revoked | disabled | expired | no-second-factor."""
        if token.revoked:
            return "revoked"
        if account.disabled:
            return "disabled"
        if not token.is_valid(self.clock.now()):
            return "expired"
        return NO_FACTOR if account.lacks_factor(self.required) else "good"

    def _event(self, token: Token, account: Account, change: str, by: str) -> Event:
        return Event(
            kind=Kind.TOKEN,
            id=token.token_id,
            at=self.clock.now(),
            data={"change": change, "name": token.name, "scopes": [scope.value for scope in token.scopes]},
            private={"account": (account.address,), "actor": (by,)},
        )
