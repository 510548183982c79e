"""Changes of accounts: create, set a password, roles or a second factor, disable, delete.

Each change is journalled with the person who made it, except the owner's choice of a language. A change of what a person may do,
or of how they prove who they are, ends all their sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from smtpguard.accounts.model import Account, AccountChange, AccountKeys, Role, TurnStep
from smtpguard.console.people.credentials import Factors, NotPossible, Passwords, check_password
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind
from smtpguard.locale import languages
from smtpguard.locale.phrase import N_, Phrase
from smtpguard.mail.address import Address
from smtpguard.store.nouns import People

NO_ACCOUNT = N_("There is no account of {address}.")


@dataclass(frozen=True, slots=True)
class Accounts:
    """The service behind ``smtpguard users`` and the People page. ``by``: the person who makes the change, for the
    journal.

    Every method raises NotPossible and StoreError; those with a password BadPassword as well.
    """

    people: People
    clock: Clock
    new_id: Callable[[], str]
    passwords: Passwords
    factors: Factors
    delimiters: str

    def canonical(self, address: str) -> str:
        """Return the address as accounts have it. Raises BadAddress."""
        return Address.parse(address).canonical(self.delimiters)

    async def get(self, address: str) -> Account:
        found = await self.people.account(AccountKeys(address=self.canonical(address)))
        if found is None:
            raise NotPossible(Phrase(NO_ACCOUNT, address=address))
        return found

    async def add(self, address: str, *, roles: Sequence[Role], password: str = "", name: str = "", by: str) -> Account:
        """Create an account. If it has no password, it waits until its owner comes by single sign-on. Raises BadAddress as well."""
        where = self.canonical(address)
        if password:
            check_password(password, address=where)
        made = Account(
            account_id=self.new_id(),
            address=where,
            created_at=self.clock.now(),
            name=name,
            roles=_in_order(roles),
            password=await self.passwords.hash(password) if password else "",
        )

        def step(found: Sequence[Account]) -> AccountChange:
            if found:
                return AccountChange(refused=Phrase("{address} already has an account.", address=where))
            data = {"roles": [r.value for r in made.roles], "with": "password" if password else "sso"}
            return AccountChange(account=made, events=(self.event(made, "added", by, **data),))

        return await self._apply(AccountKeys(address=where), step)

    async def set_password(self, account: Account, password: str, *, by: str) -> Account:
        check_password(password, address=account.address)
        hashed = await self.passwords.hash(password)
        return await self._set(account, "password", by, lambda a: replace(a, password=hashed))

    async def set_roles(self, account: Account, roles: Sequence[Role], *, by: str) -> Account:
        wanted = _in_order(roles)
        if wanted == account.roles:
            return account
        data = {"roles": [r.value for r in wanted], "before": [r.value for r in account.roles]}
        return await self._set(account, "roles", by, lambda a: replace(a, roles=wanted), **data)

    async def disable(self, account: Account, *, by: str) -> Account:
        return await self._set(account, "disabled", by, lambda a: replace(a, disabled=True))

    async def enable(self, account: Account, *, by: str) -> Account:
        return await self._set(account, "enabled", by, lambda a: replace(a, disabled=False))

    async def delete(self, account: Account, *, by: str) -> Account:
        """Delete the account with its sessions and tokens. The journal keeps what it did, and the policy's groups still
        ask its owner by mail."""

        def deleted(found: Account) -> AccountChange:
            return AccountChange(account=found, events=(self.event(found, "deleted", by),), deletes=True)

        return await self._update(account, deleted)

    async def to_single_sign_on(self, account: Account, *, by: str, subject: str = "") -> Account:
        """Change from a password to single sign-on: at once if ``subject`` was proven, else at the next sign-on with
        this address. Password and second factor are removed; the provider asks for them from now on."""
        if account.subject:
            raise NotPossible(Phrase("{address} already uses single sign-on.", address=account.address))

        def moved(a: Account) -> Account:
            proven_at = self.clock.now() if subject else None
            return replace(a, subject=subject, password="", totp="", totp_step=0, recovery=(), claimed_at=proven_at)

        return await self._set(account, "single-sign-on", by, moved)

    async def set_factor(self, account: Account, sealed: str, *, by: str) -> list[str]:
        """Set a second factor. Return the recovery codes for a lost telephone: each works once, and they are never shown again."""
        codes, hashes = self.factors.new_recovery_codes()
        change = "second-factor"
        await self._set(account, change, by, lambda a: replace(a, totp=sealed, totp_step=0, recovery=hashes))
        return codes

    async def confirm_factor(self, account: Account, sealed: str, code: str, *, by: str) -> list[str]:
        """Set a second factor as the owner, who proves with a code that the secret has arrived. Return the recovery codes."""
        if self.factors.time_step(sealed, code, self.clock.now()) is None:
            raise NotPossible(Phrase("The code is wrong."))
        return await self.set_factor(account, sealed, by=by)

    async def drop_factor(self, account: Account, *, by: str) -> Account:
        if not account.totp:
            raise NotPossible(Phrase("{address} has no second factor.", address=account.address))
        change = "second-factor-off"
        return await self._set(account, change, by, lambda a: replace(a, totp="", totp_step=0, recovery=()))

    async def set_language(self, account: Account, language: str) -> None:
        """Set the language of the pages. It is the owner's own choice: it is not journalled, and no session ends."""
        if language not in ("", *languages()):
            raise NotPossible(Phrase("This language is not available."))
        await self._update(account, lambda a: AccountChange(account=replace(a, language=language)))

    def event(self, account: Account, change: str, by: str, **data: object) -> Event:
        return Event(
            kind=Kind.ACCOUNT,
            id=account.account_id,
            at=self.clock.now(),
            data={"change": change, **data},
            private={"account": (account.address,), "actor": (by,)},
        )

    async def _set(
        self, account: Account, change: str, by: str, to: Callable[[Account], Account], **data: object
    ) -> Account:
        """Journal the change, and end all sessions of the account."""

        def changed(found: Account) -> AccountChange:
            return AccountChange(account=to(found), events=(self.event(found, change, by, **data),), ends_all=True)

        return await self._update(account, changed)

    async def _update(self, account: Account, to: Callable[[Account], AccountChange]) -> Account:
        def step(found: Sequence[Account]) -> AccountChange:
            return to(found[0]) if found else AccountChange(refused=Phrase(NO_ACCOUNT, address=account.address))

        return await self._apply(AccountKeys(account_id=account.account_id), step)

    async def _apply(self, keys: AccountKeys, step: TurnStep) -> Account:
        made = await self.people.turn(keys, step)
        if made.refused or made.account is None:
            raise NotPossible(made.refused)
        return made.account


def _in_order(roles: Sequence[Role]) -> tuple[Role, ...]:
    return tuple(role for role in Role if role in roles)
