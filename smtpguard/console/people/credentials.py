"""What proves a person: a password, and a second factor.

Passwords are hashed with argon2id (RFC 9106). The second factor is a time-based code (TOTP, RFC 6238), or a recovery code for a
lost telephone. A TOTP secret is sealed in the database under a key derived from the installation's secret. Recovery codes are
stored as hashes.
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

from smtpguard.locale.phrase import Phrase, Said

SHORTEST = 10
"""The fewest characters of a password."""
LONGEST = 256
"""The most characters of a password."""
HASHES_AT_ONCE = 2  # each takes 64 MiB
MOST_WAITING = 50
"""The most passwords that wait to be compared, or are compared now."""
STEP_SECONDS = 30
STEPS_AROUND = 1
"""How many time steps a person's clock may be off, either way."""
RECOVERY_CODES = 10
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without ambiguous letters


class NotPossible(Exception):
    """A change of an account that is not possible: nothing changed. ``why`` tells people."""

    def __init__(self, why: Said) -> None:
        super().__init__(str(why))
        self.why = why


class BadPassword(NotPossible):
    """It cannot be used as a password."""


class TooManyHashes(Exception):
    """Too many hashes are waiting: one more would wait too long."""


class WrongSecret(Exception):
    """A TOTP secret was not sealed under this installation's secret."""


class Passwords:
    """``hasher``: argon2id with the RFC's second recommended parameters, unless a test needs a faster one."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobodys = ""
        self._turns = asyncio.Semaphore(HASHES_AT_ONCE)
        self._waiting = 0

    def prepare(self) -> None:
        """Make the hash that passwords of missing accounts are compared with. Call it at the start, so that the first such attempt
        takes no longer."""
        self._nobodys = self._nobodys or self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, _normalized(password))

    async def is_right(self, hashed: str, password: str) -> bool:
        """Return whether the password has this hash. If ``hashed`` is "", the answer is no, after the same work. Raises
        TooManyHashes."""
        if len(password) > LONGEST * 4:
            password, hashed = "", ""
        if self._waiting >= MOST_WAITING:
            raise TooManyHashes
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(self._compare, hashed, _normalized(password))
        finally:
            self._waiting -= 1

    def _compare(self, hashed: str, password: str) -> bool:
        self.prepare()
        try:
            return self._hasher.verify(hashed or self._nobodys, password) and bool(hashed)
        except (VerificationError, InvalidHashError):
            return False


def check_password(password: str, *, address: str) -> None:
    """Raise BadPassword unless the password is long enough, varied, and not the person's own address. There are no rules about
    characters, which only make passwords worse (NIST SP 800-63B section 5.1.1)."""
    plain = _normalized(password)
    if len(plain) < SHORTEST:
        raise BadPassword(Phrase("The password must have at least {n} characters.", n=SHORTEST))
    if len(plain) > LONGEST:
        raise BadPassword(Phrase("The password may have at most {n} characters.", n=LONGEST))
    if len(set(plain)) < 5:
        raise BadPassword(Phrase("The password needs more different characters."))
    if address.partition("@")[0].casefold() in plain.casefold() and len(plain) < len(address.partition("@")[0]) + 6:
        raise BadPassword(Phrase("The password must not be your address."))


def _normalized(password: str) -> str:
    """Return the same characters for a password, whatever keyboard it was typed on."""
    return unicodedata.normalize("NFKC", password)


class Factors:
    """The second factors of all accounts. ``secret``: the installation's."""

    def __init__(self, secret: bytes) -> None:
        self._box = SecretBox(hmac.digest(secret, b"smtpguard console second factor", "sha256"))
        self._key = hmac.digest(secret, b"smtpguard console recovery code", "sha256")

    def new_secret(self) -> str:
        """Return a new TOTP secret, sealed."""
        return self._box.encrypt(pyotp.random_base32().encode(), encoder=URLSafeBase64Encoder).decode()

    def unsealed(self, sealed: str) -> str:
        """Return the secret, as its owner types it into an authenticator. Raises WrongSecret."""
        try:
            return self._box.decrypt(sealed.encode(), encoder=URLSafeBase64Encoder).decode()
        except (CryptoError, ValueError):
            raise WrongSecret from None

    def uri(self, sealed: str, *, address: str, issuer: str) -> str:
        """Return the URI for the QR code of an authenticator. It contains the secret, so only its owner may see it. Raises
        WrongSecret."""
        return pyotp.TOTP(self.unsealed(sealed)).provisioning_uri(name=address, issuer_name=issuer)

    def time_step(self, sealed: str, code: str, now: datetime) -> int | None:
        """Return the time step of a code, None for a wrong one. The caller must not accept the same step twice."""
        digits = code.replace(" ", "")
        if not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
            return None
        try:
            totp = pyotp.TOTP(self.unsealed(sealed))
        except WrongSecret:  # no authenticator can have its codes
            return None
        here = int(now.timestamp()) // STEP_SECONDS
        found = None
        for step in range(here - STEPS_AROUND, here + STEPS_AROUND + 1):
            if hmac.compare_digest(totp.generate_otp(step), digits):
                found = step
        return found

    def new_recovery_codes(self) -> tuple[list[str], tuple[str, ...]]:
        """Return recovery codes to be written down, and their hashes."""
        codes = [
            "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(3))
            for _ in range(RECOVERY_CODES)
        ]
        return codes, tuple(self.recovery_hash(code) for code in codes)

    def recovery_hash(self, code: str) -> str:
        letters = "".join(c for c in code.lower() if c.isalnum())
        return hashlib.blake2b(letters.encode(), key=self._key, digest_size=16).hexdigest()


def qr_svg(uri: str) -> str:
    """Return a QR code as an image that contains nothing a page could run or fetch. It is dark on white in any theme, with the
    quiet zone that readers need (ISO/IEC 18004)."""
    import segno

    out = io.BytesIO()
    segno.make(uri, error="m").save(
        out, kind="svg", scale=5, border=4, dark="#000", light="#fff", xmldecl=False, svgns=True, nl=False
    )
    return out.getvalue().decode()


def qr_text(uri: str) -> str:
    """Return a QR code in characters, for a terminal."""
    import segno

    out = io.StringIO()
    segno.make(uri, error="l").terminal(out, compact=True)
    return out.getvalue()
