"""Sign in with a password or by single sign-on, and sign out.

A refused sign-in gets one sentence after the same work, whatever the reason: no account, a wrong password, a wrong code
and a disabled account look alike. Repeated attempts are slowed down for the client, not for the account. A browser in
which the owner has signed in before has attempts of its own, so that others cannot lock the owner out for long.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from smtpguard.accounts.model import Account, AccountChange, AccountKeys, Role, role_change
from smtpguard.console.people.accounts import Accounts
from smtpguard.console.people.credentials import TooManyHashes
from smtpguard.console.people.sessions import Sessions, token_hash
from smtpguard.database.errors import StoreError
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import BadAddress
from smtpguard.mail.envelope import client_network

log = logging.getLogger(__name__)

WINDOW_SECONDS = 900.0
PER_PAIR = 8
"""The most attempts in a window from one network on one account, and of one person with their own password."""
PER_ACCOUNT = 100
"""The most attempts in a window from all networks on one account."""
PER_CLIENT = 40
"""The most attempts in a window from one network on all accounts."""
CROWDED_SECONDS = 10.0
"""When to try again if too many passwords are being compared."""
SIGN_ON_SECONDS = 600
"""How long a person has to sign in at the provider of single sign-on, and a browser keeps the sealed state of that."""
MOST_KEYS = 20_000
"""The most keys that one limit counts."""
_NO_ADDRESS = "?"  # not the beginning of any account's address


class RateLimit:
    """A limit of ``most`` attempts in ``seconds`` for each key, in a sliding window, bounded in memory.

    Each console process counts by itself, and forgets when it ends: the limit slows down guessing, and proves nothing. A refused
    attempt does not count, so clients that keep trying do not delay those that wait.
    """

    def __init__(self, clock: Clock, *, most: int, seconds: float) -> None:
        self._clock, self._most, self._seconds = clock, most, seconds
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Return the seconds until this key may try, 0 for now."""
        tries = self._in_window(key)
        return 0.0 if len(tries) < self._most else tries[0] + self._seconds - self._clock.monotonic()

    def take(self, key: str) -> None:
        """Count an attempt before its result is known, so that many at once gain nothing."""
        tries = self._tries[key] = self._in_window(key)
        tries.append(self._clock.monotonic())
        self._tries.move_to_end(key)
        while len(self._tries) > MOST_KEYS:
            self._tries.popitem(last=False)

    def give_back(self, key: str) -> None:
        """Do not count the last attempt: it was right."""
        tries = self._tries.get(key)
        if tries:
            tries.pop()

    def _in_window(self, key: str) -> deque[float]:
        tries = self._tries.get(key) or deque()  # kept only once it counts: a refused client may name any account
        end = self._clock.monotonic() - self._seconds
        while tries and tries[0] <= end:
            tries.popleft()
        return tries


class SignInRefused(Exception):
    """The person is not signed in. They may not be told more."""


class TooManyAttempts(Exception):
    """The attempt was not checked. ``seconds``: until the next may be made."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


class NotAuthenticated(Exception):
    """The provider's answer proves nothing. The text is for the journal and the log, not for the browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """The person who signs in, as a provider says (oidc). ``subject``: issuer and subject, which never change; ``address``
    may change."""

    subject: str
    address: str
    name: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A person who has signed in. ``token``: for the session cookie. ``mark``: for the cookie that marks this browser as the
    owner's."""

    account: Account
    token: str
    mark: str


class Signing:
    """Sign-in and sign-out, each journalled."""

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        *,
        secret: bytes,
        required: frozenset[Role] = frozenset(),
    ) -> None:
        """``required``: the roles that need a second factor when signing in with a password."""
        self._accounts, self.sessions, self.required = accounts, sessions, required
        self._people, self._clock = accounts.people, accounts.clock
        accounts.passwords.prepare()
        self._key = hmac.digest(secret, b"smtpguard console known browser", "sha256")
        self._pairs = RateLimit(accounts.clock, most=PER_PAIR, seconds=WINDOW_SECONDS)
        self._everywhere = RateLimit(accounts.clock, most=PER_ACCOUNT, seconds=WINDOW_SECONDS)
        self._clients = RateLimit(accounts.clock, most=PER_CLIENT, seconds=WINDOW_SECONDS)
        self._own = RateLimit(accounts.clock, most=PER_PAIR, seconds=WINDOW_SECONDS)

    async def close(self) -> None:
        try:
            await self.sessions.write()
        except StoreError as error:
            log.warning("sessions: their last use is not stored: %s", error)

    async def by_password(
        self, address: str, password: str, code: str, *, client: str, mark: str, before: str
    ) -> SignedIn:
        """Sign in a person with a password, and a code if they have a second factor.

        ``code``: of the authenticator, or a recovery code. ``mark``: the browser's (SignedIn), "" for none. ``before``: the token
        of this browser's earlier session, which ends. Raises SignInRefused, TooManyAttempts, StoreError.
        """
        who = self._canonical(address)
        keys = self._count_attempt(who, client, mark)
        account = await self._people.account(AccountKeys(address=who))
        try:
            right = await self._accounts.passwords.is_right(account.password if account else "", password)
        except TooManyHashes:
            raise TooManyAttempts(CROWDED_SECONDS) from None
        token, begins = self.sessions.new(account.account_id if account else "", how="password")
        checked = account.password if account else ""

        def step(found: Sequence[Account]) -> AccountChange:
            mine = found[0] if found else None
            if mine is None or not right or mine.password != checked:
                why = "no such account" if mine is None else "wrong password" if mine.password else "no password"
                return self._refusal(mine, why, client)
            if mine.disabled:
                return self._refusal(mine, "disabled", client)
            after_code = self._after_code(mine, code)
            if after_code is None:
                return self._refusal(mine, "wrong code" if code else "no code", client)
            data = {"how": "password", "second_factor": bool(mine.totp)}
            event = self._event(Kind.SIGNED_IN, mine, client, **data)
            return AccountChange(
                account=after_code, events=(event,), begins=begins, ends=token_hash(before) if before else ""
            )

        made = await self._people.turn(AccountKeys(address=who), step)
        if made.refused or made.account is None:
            raise SignInRefused
        for brake, key in keys:
            brake.give_back(key)
        return SignedIn(account=made.account, token=token, mark=self._new_mark(made.account.address))

    async def by_provider(
        self, proven: Proven, roles: tuple[Role, ...], *, client: str, before: str, asked: Set[str]
    ) -> SignedIn:
        """Sign in a person whom the provider knows. ``roles``: those that their groups at the provider give them now, in the order
        of ``Role``.

        An account with their address that has neither password nor subject becomes theirs. If the account belongs to
        another subject, the person is refused, and so is one without a role. Whoever is refused loses what earlier sign-ins gave
        them and the provider gives no more. ``asked``: the groups there that the policy names for approvers; which of
        them the person has is stored until the next sign-in. Raises SignInRefused, StoreError.
        """
        who = self._canonical(proven.address)
        fresh = self._accounts.new_id()
        token, session = self.sessions.new("", how="sso")

        def step(found: Sequence[Account]) -> AccountChange:
            if who.startswith(_NO_ADDRESS):
                return self._refusal(None, "what the provider says is no address", client)
            mine = next((a for a in found if a.subject == proven.subject), None)
            there = next((a for a in found if a.address == who and a is not mine), None)
            if mine is None and there is not None and not there.subject and not there.password:
                mine, there = replace(there, subject=proven.subject), None
            why = (
                "the address is another account's" if there is not None
                else "disabled" if mine is not None and mine.disabled
                else "no group of theirs gives a role" if not roles
                else ""
            )  # fmt: skip
            if why:
                refused = self._refusal(mine, why, client)
                if mine is None or mine not in found:
                    return refused
                return self._lowered(mine, roles, proven.groups, refused)
            events: tuple[Event, ...] = ()
            if mine is None:
                mine = Account(
                    account_id=fresh,
                    address=who,
                    created_at=self._clock.now(),
                    name=proven.name,
                    subject=proven.subject,
                )
                events = (self._role_change(mine, "added", roles),)
            elif mine.roles != roles:
                events = (self._role_change(mine, "roles", roles),)
            if mine.address != who:
                moved = self._accounts.event(mine, "address", "single sign-on")
                both = {**moved.private, "account": (who, mine.address)}
                events = (*events, replace(moved, private=both))
            changed = mine.roles != roles or mine.address != who
            mine = replace(
                mine,
                roles=roles,
                address=who,
                name=proven.name or mine.name,
                claims=tuple(sorted(proven.groups & asked)),
                claimed_at=self._clock.now(),
            )
            begins = replace(session, account_id=mine.account_id)
            event = self._event(Kind.SIGNED_IN, mine, client, how="sso", second_factor=False)
            ends = token_hash(before) if before else ""
            return AccountChange(account=mine, events=(*events, event), begins=begins, ends=ends, ends_all=changed)

        made = await self._people.turn(AccountKeys(address=who, subject=proven.subject), step)
        if made.refused or made.account is None:
            raise SignInRefused
        return SignedIn(account=made.account, token=token, mark=self._new_mark(made.account.address))

    async def sign_out(self, token: str, account: Account, *, client: str) -> None:
        event = self._event(Kind.SIGNED_OUT, account, client)
        await self._people.turn(AccountKeys(), lambda found: AccountChange(events=(event,), ends=token_hash(token)))

    async def is_own_password(self, account: Account, password: str) -> bool:
        """Return whether it is the password of a person who is signed in, asked for again. The attempts are limited: a person at an
        unlocked browser must not guess it."""
        if self._own.wait(account.account_id) > 0:
            return False
        self._own.take(account.account_id)
        try:
            right = await self._accounts.passwords.is_right(account.password, password)
        except TooManyHashes:
            return False
        if right:
            self._own.give_back(account.account_id)
        return right

    def _count_attempt(self, who: str, client: str, mark: str) -> list[tuple[RateLimit, str]]:
        """Count the attempt. Return the limits and keys under which it counts. Raises TooManyAttempts. A browser with the
        owner's mark has attempts of its own, which others cannot use up."""
        where = client_network(client)
        nonce = self._marked(mark, who)
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

    def _after_code(self, account: Account, code: str) -> Account | None:
        """Return the account after this code was used, None for a wrong one. A code works once."""
        if not account.totp:
            return account
        step = self._accounts.factors.time_step(account.totp, code, self._clock.now())
        if step is not None:
            return replace(account, totp_step=step) if step > account.totp_step else None
        spare = self._accounts.factors.recovery_hash(code)
        if spare in account.recovery:
            return replace(account, recovery=tuple(h for h in account.recovery if h != spare))
        return None

    def _canonical(self, address: str) -> str:
        """Return the canonical address. For an invalid one, return a key that no account has, so that it is looked up all the
        same."""
        try:
            return self._accounts.canonical(address.strip())
        except BadAddress:
            return _NO_ADDRESS + hashlib.sha256(address.encode("utf-8", "replace")).hexdigest()[:32]

    def _new_mark(self, who: str) -> str:
        nonce = secrets.token_hex(8)
        return f"{nonce}.{self._mac(who, nonce)}"

    def _marked(self, mark: str, who: str) -> str:
        """Return the nonce of a browser that signed in as this person before, else ""."""
        nonce, _, mac = mark.partition(".")
        return nonce if mac and hmac.compare_digest(mac.encode(), self._mac(who, nonce).encode()) else ""

    def _mac(self, who: str, nonce: str) -> str:
        return hmac.new(self._key, f"{nonce} {who}".encode(), "sha256").hexdigest()[:32]

    def _refusal(self, account: Account | None, why: str, client: str) -> AccountChange:
        """Return a refusal, for the journal. A typed address that belongs to no account is not recorded: it may have been a
        password."""
        return AccountChange(refused=why, events=(self._event(Kind.SIGN_IN_REFUSED, account, client, why=why),))

    def _lowered(self, mine: Account, roles: Sequence[Role], groups: Set[str], refused: AccountChange) -> AccountChange:
        """Return the refusal with an account that keeps only those roles and groups that the provider still gives."""
        left = tuple(role for role in mine.roles if role in roles)
        made = replace(mine, roles=left, claims=tuple(group for group in mine.claims if group in groups))
        if left == mine.roles:
            return replace(refused, account=made)
        lost = self._role_change(mine, "roles", left)
        return replace(refused, account=made, events=(lost, *refused.events), ends_all=True)

    def _role_change(self, account: Account, change: str, roles: Sequence[Role]) -> Event:
        return role_change(account, change, roles, "single sign-on", self._clock.now())

    def _event(self, kind: Kind, account: Account | None, client: str, **data: object) -> Event:
        private = {"client": (client,)} if client else {}
        if account is not None:
            private["account"] = (account.address,)
        return Event(
            kind=kind, id=account.account_id if account else "", at=self._clock.now(), data=data, private=private
        )
