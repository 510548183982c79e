"""Keyed digests of addresses, by which lists, counts and journal recognise a person without storing a readable address.

The digest is BLAKE2 (RFC 7693), keyed with the installation's key, 8 octets. It is of a person: where a provider
ignores dots, or has two domains, the addresses of one person give one digest. Writers and approvers are compared by
address, never by digest. ``key_id`` names the form; entries of an older form are known by it, and look-ups try that
form too (``every``).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from smtpguard.config.statefiles import drafted, hand_over, remove_drafts, replace_file, sync_folder
from smtpguard.mail.address import MAX_LABEL_OCTETS, Address, every_delimiter, is_plain

KEY_OCTETS = 32
DIGEST_OCTETS = 8
_DOTLESS = {"gmail.com": "gmail.com", "googlemail.com": "gmail.com"}
"""Domains that ignore dots in a local part, each with the domain under which its people are counted."""
_ENDINGS = tuple(f"@{domain}" for domain in _DOTLESS)
_FORM = b"\0form 2"
"""The first form had no such mark, and digested the canonical key as it is."""


class BadKey(Exception):
    """The installation's secret cannot be read or created, or is not a secret. ``number``: the errno, if any."""

    def __init__(self, sentence: str, number: int | None = None) -> None:
        super().__init__(sentence)
        self.number = number


class Digester:
    """The function from a mailbox to 8 octets. Two installations, or two sets of delimiters, never give the same digest.

    ``key_id`` identifies the key, the delimiters and the form without revealing them: an index under another key is unusable.
    ``key_ids``: the ids of usable indexes, of this form and of the older one.
    """

    __slots__ = ("_base", "_may_cut", "delimiters", "key", "key_id", "key_ids")

    def __init__(self, key: bytes, delimiters: str = "") -> None:
        if not 16 <= len(key) <= 64:
            raise BadKey("the secret must be 16 to 64 octets")
        self.key = key
        self.delimiters = delimiters
        signs = [sign for sign in every_delimiter(delimiters) if is_plain(f"x{sign}x@x")]
        self._may_cut = re.compile("|".join(map(re.escape, signs))).search if signs else None
        self._base = hashlib.blake2b(digest_size=DIGEST_OCTETS, key=key, person=b"address")
        named = delimiters.encode()
        self.key_id, older = (
            hashlib.blake2b(text, digest_size=8, key=key, person=b"key id").digest() for text in (named + _FORM, named)
        )
        self.key_ids = (self.key_id, older)

    def __repr__(self) -> str:
        return f"Digester(key_id={self.key_id.hex()})"

    def of(self, address: Address) -> bytes:
        return self.of_canonical(address.canonical(self.delimiters))

    def plain_key(self, text: str) -> str | None:
        """Return the canonical key of a text that is a simple mailbox, which only needs lower case; None if it needs more work
        or checks."""
        if not text.isascii():  # of some letters the lower case is ASCII: the Kelvin sign's is k
            return None
        text = text.lower()
        if len(text) > MAX_LABEL_OCTETS or not is_plain(text) or (self._may_cut is not None and self._may_cut(text)):
            return None
        return text

    def of_canonical(self, canonical: str) -> bytes:
        return self.of_person(person(canonical))

    def of_person(self, person: str) -> bytes:
        """Return the digest of a person. ``person``: the one spelling of their canonical addresses."""
        digest = self._base.copy()
        digest.update(person.encode())
        return digest.digest()

    def older(self, canonical: str) -> bytes | None:
        """Return the digest of the older form, if it differs."""
        return None if person(canonical) == canonical else self.of_person(canonical)

    def every_of(self, text: str) -> tuple[bytes, ...]:
        """Return the digests of an address as somebody wrote it; none if it is no address."""
        address = Address.parse_any(text.strip())
        return () if address is None else self.every(address)

    def every(self, address: Address) -> tuple[bytes, ...]:
        """Return all digests under which this person may be known, the current one first."""
        canonical = address.canonical(self.delimiters)
        before = self.older(canonical)
        return (self.of_canonical(canonical),) if before is None else (self.of_canonical(canonical), before)


def person(canonical: str) -> str:
    """Return the one spelling under which a person is counted, of all that reach the same mailbox."""
    if not canonical.endswith(_ENDINGS):
        return canonical
    local, _, domain = canonical.rpartition("@")
    return f"{local.replace('.', '') or local}@{_DOTLESS[domain]}"


def installation_key(path: Path) -> bytes:
    """Return the secret of this installation, or the id of its state folder: random octets, which are created at the first start
    and can be read by their owner only. Raises BadKey."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise BadKey(f"cannot read or make {path}: {error.strerror}", error.errno) from None
    if len(key) != KEY_OCTETS:
        raise BadKey(f"{path} does not hold {KEY_OCTETS} octets")
    return key


def new_key(path: Path, key: bytes) -> Path | None:
    """Replace the installation's secret by ``key``, in one step, after a copy of it. Return the copy's name, None if there was no
    secret. Raises BadKey, and then the secret is as it was. No other process may use it meanwhile."""
    try:
        remove_drafts(path)  # of renewals that were killed
        aside = None
        if path.exists():
            aside = next(name for n in itertools.count(1) if not (name := _aside(path, n)).exists())
            replace_file(aside, path.read_bytes(), durable=True)
        replace_file(path, key, durable=True)
    except OSError as error:
        raise BadKey(f"cannot make {path}: {error.strerror}", error.errno) from None
    return aside


def earlier_keys(path: Path) -> Iterator[bytes]:
    """Yield the installation's secrets, as far as they can be read, newest first: the one at ``path``, and those that were set aside."""
    last = next(n for n in itertools.count() if not _aside(path, n + 1).exists())
    for file in (path, *(_aside(path, n) for n in range(last, 0, -1))):
        with suppress(OSError):
            if len(key := file.read_bytes()) == KEY_OCTETS:
                yield key


def _aside(path: Path, n: int) -> Path:
    return path.with_name(f"{path.name}.old-{n}")


def _make(path: Path) -> None:
    """Make a secret atomically, and never over an existing one: several processes may start at once."""
    if path.exists():
        return
    with drafted(path, secrets.token_bytes(KEY_OCTETS)) as draft:
        hand_over(draft, path.parent)
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was quicker: its key is used
        sync_folder(path.parent)  # the database, which may be on another disk, is useless without it
