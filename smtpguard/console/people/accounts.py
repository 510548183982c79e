"""Changes of accounts: create, set a password, roles or a second factor, disable. Each is journalled with the person
who made it. And what proves a person: password hashes with argon2id (RFC 9106), and the second factor: time-based codes (TOTP, RFC
6238), and recovery codes for a lost telephone. A secret is sealed in the database under a key derived from the
installation's secret. Recovery codes are stored as hashes.

A change of what a person may do, or of how they prove who they are, ends all their sessions.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from nacl.encoding import URLSafeBase64Encoder
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from smtpguard.accounts.model import Account, AccountChange, AccountKeys, Role, TurnStep
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind
from smtpguard.locale import languages
from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.mail.address import Address
from smtpguard.store.nouns import People


class NotPossible(Exception):
    """Nothing changed. ``why`` tells people."""

    def __init__(self, why: Said) -> None:
        super().__init__(str(why))
        self.why = why


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
        """Raises BadAddress."""
        return Address.parse(address).canonical(self.delimiters)

    async def at(self, address: str) -> Account:
        found = await self.people.account(AccountKeys(address=self.canonical(address)))
        if found is None:
            raise NotPossible(Phrase(NO_ACCOUNT, address=address))
        return found

    async def add(self, address: str, *, roles: Sequence[Role], password: str = "", name: str = "", by: str) -> Account:
        """Without a password the account waits until its owner comes by single sign-on."""
        where = self.canonical(address)
        if password:
            check(password, address=where)
        made = Account(
            account_id=self.new_id(),
            address=where,
            created_at=self.clock.now(),
            name=name,
            roles=_sorted(roles),
            password=await self.passwords.hash(password) if password else "",
        )

        def step(found: Sequence[Account]) -> AccountChange:
            if found:
                return AccountChange(refused=Phrase("{address} already has an account.", address=where))
            data = {"roles": [r.value for r in made.roles], "with": "password" if password else "sso"}
            return AccountChange(account=made, events=(self.event(made, "added", by, **data),))

        return await self._turned(AccountKeys(address=where), step)

    async def set_password(self, account: Account, password: str, *, by: str) -> Account:
        check(password, address=account.address)
        hashed = await self.passwords.hash(password)
        return await self._change(account, "password", by, lambda a: replace(a, password=hashed))

    async def set_roles(self, account: Account, roles: Sequence[Role], *, by: str) -> Account:
        wanted = _sorted(roles)
        if wanted == account.roles:
            return account
        data = {"roles": [r.value for r in wanted], "before": [r.value for r in account.roles]}
        return await self._change(account, "roles", by, lambda a: replace(a, roles=wanted), **data)

    async def disable(self, account: Account, *, by: str) -> Account:
        return await self._change(account, "disabled", by, lambda a: replace(a, disabled=True))

    async def enable(self, account: Account, *, by: str) -> Account:
        return await self._change(account, "enabled", by, lambda a: replace(a, disabled=False))

    async def delete(self, account: Account, *, by: str) -> Account:
        """Delete the account with its sessions and tokens. The journal keeps what it did, and the policy's groups still
        ask its owner by mail."""

        def deleted(found: Account) -> AccountChange:
            return AccountChange(account=found, events=(self.event(found, "deleted", by),), deletes=True)

        return await self._changed(account, deleted)

    async def to_single_sign_on(self, account: Account, *, by: str, subject: str = "") -> Account:
        """Change from a password to single sign-on: at once if ``subject`` was proven, else at the next sign-on with
        this address. Password and second factor are removed; the provider asks for them from now on."""
        if account.subject:
            raise NotPossible(Phrase("{address} already uses single sign-on.", address=account.address))

        def moved(a: Account) -> Account:
            return replace(a, subject=subject, password="", totp="", totp_step=0, recovery=())

        return await self._change(account, "single-sign-on", by, moved)

    async def set_factor(self, account: Account, sealed: str, *, by: str) -> list[str]:
        """Returns the recovery codes for a lost telephone, each usable once: they are shown now and never again."""
        codes, hashes = self.factors.recovery()
        change = "second-factor"
        await self._change(account, change, by, lambda a: replace(a, totp=sealed, totp_step=0, recovery=hashes))
        return codes

    async def confirm_factor(self, account: Account, sealed: str, code: str, *, by: str) -> list[str]:
        """The same by the owner, who proves with a code that the secret has arrived."""
        if self.factors.step(sealed, code, self.clock.now()) is None:
            raise NotPossible(Phrase("The code is wrong."))
        return await self.set_factor(account, sealed, by=by)

    async def drop_factor(self, account: Account, *, by: str) -> Account:
        if not account.totp:
            raise NotPossible(Phrase("{address} has no second factor.", address=account.address))
        change = "second-factor-off"
        return await self._change(account, change, by, lambda a: replace(a, totp="", totp_step=0, recovery=()))

    async def set_language(self, account: Account, language: str) -> None:
        """The owner's own choice: not journalled, and no session ends."""
        if language not in ("", *languages()):
            raise NotPossible(Phrase("This language is not available."))
        await self._changed(account, lambda a: AccountChange(account=replace(a, language=language)))

    def event(self, account: Account, change: str, by: str, **data: object) -> Event:
        return Event(
            kind=Kind.ACCOUNT,
            id=account.account_id,
            at=self.clock.now(),
            data={"change": change, **data},
            private={"account": (account.address,), "actor": (by,)},
        )

    async def _change(
        self, account: Account, change: str, by: str, to: Callable[[Account], Account], **data: object
    ) -> Account:
        def changed(found: Account) -> AccountChange:
            return AccountChange(account=to(found), events=(self.event(found, change, by, **data),), ends_all=True)

        return await self._changed(account, changed)

    async def _changed(self, account: Account, to: Callable[[Account], AccountChange]) -> Account:
        def step(found: Sequence[Account]) -> AccountChange:
            return to(found[0]) if found else AccountChange(refused=Phrase(NO_ACCOUNT, address=account.address))

        return await self._turned(AccountKeys(account_id=account.account_id), step)

    async def _turned(self, keys: AccountKeys, step: TurnStep) -> Account:
        made = await self.people.turn(keys, step)
        if made.refused or made.account is None:
            raise NotPossible(made.refused)
        return made.account


def _sorted(roles: Sequence[Role]) -> tuple[Role, ...]:
    return tuple(role for role in Role if role in roles)


STEP_SECONDS = 30
AROUND = 1  # steps that a clock may be off
RECOVERY_CODES = 10
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without ambiguous letters


class WrongSecret(Exception):
    """It was not sealed under this installation's secret."""


class Factors:
    """``secret``: the installation's."""

    def __init__(self, secret: bytes) -> None:
        self._box = SecretBox(hmac.digest(secret, b"smtpguard console second factor", "sha256"))
        self._key = hmac.digest(secret, b"smtpguard console recovery code", "sha256")

    def made(self) -> str:
        """A new secret, sealed."""
        return self._box.encrypt(pyotp.random_base32().encode(), encoder=URLSafeBase64Encoder).decode()

    def uri(self, sealed: str, *, address: str, issuer: str) -> str:
        """For the QR code of an authenticator. Contains the secret, so it is only for its owner. Raises WrongSecret."""
        return pyotp.TOTP(self.plain(sealed)).provisioning_uri(name=address, issuer_name=issuer)

    def step(self, sealed: str, code: str, now: datetime) -> int | None:
        """The time step of this code, None for a wrong one. The caller must not accept the same step twice."""
        digits = code.replace(" ", "")
        if not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
            return None
        try:
            totp = pyotp.TOTP(self.plain(sealed))
        except WrongSecret:  # no authenticator can have its codes
            return None
        here = int(now.timestamp()) // STEP_SECONDS
        found = None
        for step in range(here - AROUND, here + AROUND + 1):
            if hmac.compare_digest(totp.generate_otp(step), digits):
                found = step
        return found

    def recovery(self) -> tuple[list[str], tuple[str, ...]]:
        """Recovery codes to be written down, and their hashes."""
        codes = [
            "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(3))
            for _ in range(RECOVERY_CODES)
        ]
        return codes, tuple(self.hashed(code) for code in codes)

    def hashed(self, code: str) -> str:
        letters = "".join(c for c in code.lower() if c.isalnum())
        return hashlib.blake2b(letters.encode(), key=self._key, digest_size=16).hexdigest()

    def plain(self, sealed: str) -> str:
        """The secret, for typing. Raises WrongSecret."""
        try:
            return self._box.decrypt(sealed.encode(), encoder=URLSafeBase64Encoder).decode()
        except (CryptoError, ValueError):
            raise WrongSecret from None


def qr_svg(uri: str) -> str:
    """An image without anything that a page could run or fetch: dark on white in any theme, with the quiet zone that
    readers need (ISO/IEC 18004)."""
    import segno

    out = io.BytesIO()
    segno.make(uri, error="m").save(
        out, kind="svg", scale=5, border=4, dark="#000", light="#fff", xmldecl=False, svgns=True, nl=False
    )
    return out.getvalue().decode()


def qr_text(uri: str) -> str:
    import segno

    out = io.StringIO()
    segno.make(uri, error="l").terminal(out, compact=True)
    return out.getvalue()


SHORTEST = 10
LONGEST = 256
AT_ONCE = 2  # each takes 64 MiB
MOST_WAITING = 50


class TooManyHashes(Exception):
    """Too many hashes are waiting: one more would wait too long."""


class BadPassword(NotPossible):
    """It cannot be used as a password."""


class Passwords:
    """``hasher``: argon2id with the RFC's second recommended parameters, unless a test needs a faster one."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobodys = ""
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    def prepare(self) -> None:
        """Call at the start: make the hash that passwords of missing accounts are compared with, so that the first such
        attempt takes no longer."""
        self._nobodys = self._nobodys or self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, _normal(password))

    async def right(self, hashed: str, password: str) -> bool:
        """Whether the password is right. With ``hashed`` "" the answer is no, after the same work. Raises TooManyHashes."""
        if len(password) > LONGEST * 4:
            password, hashed = "", ""
        if self._waiting >= MOST_WAITING:
            raise TooManyHashes
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(self._compare, hashed, _normal(password))
        finally:
            self._waiting -= 1

    def _compare(self, hashed: str, password: str) -> bool:
        self.prepare()
        try:
            return self._hasher.verify(hashed or self._nobodys, password) and bool(hashed)
        except (VerificationError, InvalidHashError):
            return False


def check(password: str, *, address: str) -> None:
    """Raises BadPassword. It must be long enough, and not the person's own address. There are no rules about
    characters, which only make passwords worse (NIST SP 800-63B section 5.1.1)."""
    plain = _normal(password)
    if len(plain) < SHORTEST:
        raise BadPassword(Phrase("The password must have at least {n} characters.", n=SHORTEST))
    if len(plain) > LONGEST:
        raise BadPassword(Phrase("The password may have at most {n} characters.", n=LONGEST))
    if len(set(plain)) < 5:
        raise BadPassword(Phrase("The password needs more different characters."))
    if address.partition("@")[0].casefold() in plain.casefold() and len(plain) < len(address.partition("@")[0]) + 6:
        raise BadPassword(Phrase("The password must not be your address."))


def _normal(password: str) -> str:
    """The same characters whatever keyboard they were typed on."""
    return unicodedata.normalize("NFKC", password)
