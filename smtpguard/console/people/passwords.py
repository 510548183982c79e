"""Password hashes with argon2id (RFC 9106), in a thread. The work is the same whether or not there is a hash to compare
with."""

from __future__ import annotations

import asyncio
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from smtpguard.locale.phrase import Phrase

SHORTEST = 10
LONGEST = 256
AT_ONCE = 2  # each takes 64 MiB
MOST_WAITING = 50


class TooManyHashes(Exception):
    """Too many hashes are waiting: one more would wait too long."""


class BadPassword(Exception):
    """It cannot be used as a password. ``why`` tells its owner."""

    def __init__(self, why: Phrase) -> None:
        super().__init__(why)
        self.why = why


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
