"""Sign in with a password or by single sign-on, and sign out.

A refused sign-in gets one sentence after the same work, whatever the reason: no account, a wrong password, a wrong code
and a disabled account look alike. Repeated attempts are slowed down for the client, not for the account. A browser in
which the owner has signed in before has attempts of its own, so that others cannot lock the owner out for long.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from smtpguard.accounts.model import Account, AccountChange, AccountKeys, Role
from smtpguard.console.people.accounts import Accounts, TooManyHashes
from smtpguard.console.people.middleware import RateLimit, Sessions, hashed
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import BadAddress
from smtpguard.mail.envelope import client_network

WINDOW_SECONDS = 900.0
PER_PAIR = 8  # attempts from one network on one account
PER_ACCOUNT = 100  # from all networks
PER_CLIENT = 40  # on all accounts
CROWDED_SECONDS = 10.0
_NO_ADDRESS = "?"  # not the beginning of any account's address


class SignInRefused(Exception):
    """Not signed in; no more may be told."""


class TooManyAttempts(Exception):
    """The attempt was not checked. ``seconds`` until the next may be made."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


class NotAuthenticated(Exception):
    """The provider's answer proves nothing. The text is for the journal and the log, not for the browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """Who signs in, as a provider says (oidc). ``subject``: issuer and subject, which never change; ``address`` may."""

    subject: str
    address: str
    name: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """``token``: for the session cookie. ``known``: for the cookie that marks this browser as its owner's."""

    account: Account
    token: str
    known: str


class Signing:
    def __init__(self, accounts: Accounts, sessions: Sessions, *, secret: bytes) -> None:
        self._accounts, self._sessions = accounts, sessions
        self._people, self._clock = accounts.people, accounts.clock
        accounts.passwords.prepare()
        self._key = hmac.digest(secret, b"smtpguard console known browser", "sha256")
        self._pairs = RateLimit(accounts.clock, most=PER_PAIR, seconds=WINDOW_SECONDS)
        self._everywhere = RateLimit(accounts.clock, most=PER_ACCOUNT, seconds=WINDOW_SECONDS)
        self._clients = RateLimit(accounts.clock, most=PER_CLIENT, seconds=WINDOW_SECONDS)

    async def by_password(
        self, address: str, password: str, code: str, *, client: str, known: str, before: str
    ) -> SignedIn:
        """``before``: the token of this browser's earlier session, which ends. Raises SignInRefused, TooManyAttempts, StoreError."""
        who = self._canonical(address)
        keys = self._braked(who, client, known)
        account = await self._people.account(AccountKeys(address=who))
        try:
            right = await self._accounts.passwords.right(account.password if account else "", password)
        except TooManyHashes:
            raise TooManyAttempts(CROWDED_SECONDS) from None
        token, begins = self._sessions.made(account.account_id if account else "", how="password")
        checked = account.password if account else ""

        def step(found: Sequence[Account]) -> AccountChange:
            mine = found[0] if found else None
            if mine is None or not right or mine.password != checked:
                why = "no such account" if mine is None else "wrong password" if mine.password else "no password"
                return self._refused(mine, why, client)
            if mine.disabled:
                return self._refused(mine, "disabled", client)
            with_code = self._coded(mine, code)
            if with_code is None:
                return self._refused(mine, "wrong code" if code else "no code", client)
            data = {"how": "password", "second_factor": bool(mine.totp)}
            event = self._event(Kind.SIGNED_IN, mine, client, **data)
            return AccountChange(
                account=with_code, events=(event,), begins=begins, ends=hashed(before) if before else ""
            )

        made = await self._people.turn(AccountKeys(address=who), step)
        if made.refused or made.account is None:
            raise SignInRefused
        for brake, key in keys:
            brake.give_back(key)
        return SignedIn(account=made.account, token=token, known=self._known(made.account.address))

    async def by_provider(
        self, proven: Proven, roles: Sequence[Role], *, client: str, before: str, asked: Set[str]
    ) -> SignedIn:
        """Sign in a person whom the provider knows. Their roles are those of their groups there, at each sign-in.

        An account with their address that has neither password nor subject becomes theirs. If the account belongs to
        another subject, the person is refused. ``asked``: the groups there that the policy names for approvers; which of
        them the person has is stored until the next sign-in. Raises SignInRefused, StoreError.
        """
        who = self._canonical(proven.address)
        fresh, wanted = self._accounts.new_id(), tuple(role for role in Role if role in roles)
        tokens: dict[str, str] = {}

        def step(found: Sequence[Account]) -> AccountChange:
            if who.startswith(_NO_ADDRESS):
                return self._refused(None, "what the provider says is no address", client)
            mine = next((a for a in found if a.subject == proven.subject), None)
            there = next((a for a in found if a.address == who and a is not mine), None)
            if mine is None and there is not None and not there.subject and not there.password:
                mine, there = replace(there, subject=proven.subject), None
            if there is not None:
                return self._refused(mine, "the address is another account's", client)
            if mine is not None and mine.disabled:
                return self._refused(mine, "disabled", client)
            if not wanted:
                return self._refused(mine, "no group of theirs gives a role", client)
            events: tuple[Event, ...] = ()
            if mine is None:
                mine = Account(
                    account_id=fresh,
                    address=who,
                    created_at=self._clock.now(),
                    name=proven.name,
                    subject=proven.subject,
                )
                events = (self._change(mine, "added", wanted),)
            elif mine.roles != wanted:
                events = (self._change(mine, "roles", wanted),)
            changed = mine.roles != wanted or mine.address != who
            mine = replace(
                mine,
                roles=wanted,
                address=who,
                name=proven.name or mine.name,
                claims=tuple(sorted(proven.groups & asked)),
                claimed_at=self._clock.now(),
            )
            token, begins = self._sessions.made(mine.account_id, how="sso")
            tokens["token"] = token
            event = self._event(Kind.SIGNED_IN, mine, client, how="sso", second_factor=False)
            ends = hashed(before) if before else ""
            return AccountChange(account=mine, events=(*events, event), begins=begins, ends=ends, ends_all=changed)

        made = await self._people.turn(AccountKeys(address=who, subject=proven.subject), step)
        if made.refused or made.account is None:
            raise SignInRefused
        return SignedIn(account=made.account, token=tokens["token"], known=self._known(made.account.address))

    async def out(self, token: str, account: Account, *, client: str) -> None:
        event = self._event(Kind.SIGNED_OUT, account, client)
        await self._people.turn(AccountKeys(), lambda found: AccountChange(events=(event,), ends=hashed(token)))

    def _braked(self, who: str, client: str, known: str) -> list[tuple[RateLimit, str]]:
        """Counts the attempt, or raises TooManyAttempts. A known browser has its own attempts, which others cannot use up."""
        where = client_network(client)
        nonce = self._known_as(known, who)
        keys = (
            [(self._pairs, f"known {nonce}")]
            if nonce
            else [(self._clients, where), (self._everywhere, who), (self._pairs, f"{where} {who}")]
        )
        wait = max(brake.wait(key) for brake, key in keys)
        if wait > 0:
            raise TooManyAttempts(wait)
        for brake, key in keys:
            brake.take(key)
        return keys

    def _coded(self, account: Account, code: str) -> Account | None:
        """The account after this code was used, None for a wrong one: a code works once."""
        if not account.totp:
            return account
        step = self._accounts.factors.step(account.totp, code, self._clock.now())
        if step is not None:
            return replace(account, totp_step=step) if step > account.totp_step else None
        spare = self._accounts.factors.hashed(code)
        if spare in account.recovery:
            return replace(account, recovery=tuple(h for h in account.recovery if h != spare))
        return None

    def _canonical(self, address: str) -> str:
        """An invalid address is looked up all the same, and not found."""
        try:
            return self._accounts.canonical(address.strip())
        except BadAddress:
            return _NO_ADDRESS + hashlib.sha256(address.encode("utf-8", "replace")).hexdigest()[:32]

    def _known(self, who: str) -> str:
        nonce = secrets.token_hex(8)
        return f"{nonce}.{self._mac(who, nonce)}"

    def _known_as(self, known: str, who: str) -> str:
        """The nonce of a browser that signed in as this person before, else ""."""
        nonce, _, mac = known.partition(".")
        return nonce if mac and hmac.compare_digest(mac.encode(), self._mac(who, nonce).encode()) else ""

    def _mac(self, who: str, nonce: str) -> str:
        return hmac.new(self._key, f"{nonce} {who}".encode(), "sha256").hexdigest()[:32]

    def _refused(self, account: Account | None, why: str, client: str) -> AccountChange:
        """A typed address that belongs to no account is not recorded: it may have been a password."""
        return AccountChange(refused=why, events=(self._event(Kind.SIGN_IN_REFUSED, account, client, why=why),))

    def _change(self, account: Account, change: str, roles: Sequence[Role]) -> Event:
        data = {"roles": [r.value for r in roles], "before": [r.value for r in account.roles]}
        return self._accounts.event(account, change, "single sign-on", **data)

    def _event(self, kind: Kind, account: Account | None, client: str, **data: object) -> Event:
        private = {"client": (client,)} if client else {}
        if account is not None:
            private["account"] = (account.address,)
        return Event(
            kind=kind, id=account.account_id if account else "", at=self._clock.now(), data=data, private=private
        )
