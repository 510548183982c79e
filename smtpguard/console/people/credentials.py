"""Password hashes with argon2id (RFC 9106), and the second factor: time-based codes (TOTP, RFC 6238), and recovery codes for a lost telephone.

A secret is sealed in the database under a key derived from the installation's secret. Recovery codes are stored as
hashes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import secrets
import unicodedata
from datetime import datetime

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from nacl.encoding import URLSafeBase64Encoder
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from smtpguard.locale.phrase import Phrase

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
        """The URI of the QR code for an authenticator. Contains the secret, so it is only for its owner. Raises
        WrongSecret."""
        return pyotp.TOTP(self._opened(sealed)).provisioning_uri(name=address, issuer_name=issuer)

    def plain(self, sealed: str) -> str:
        """The secret, for typing."""
        return self._opened(sealed)

    def step(self, sealed: str, code: str, now: datetime) -> int | None:
        """The time step of this code, None for a wrong one. The caller must not accept the same step twice."""
        digits = code.replace(" ", "")
        if not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
            return None
        try:
            totp = pyotp.TOTP(self._opened(sealed))
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

    def _opened(self, sealed: str) -> str:
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
    """For a terminal."""
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
