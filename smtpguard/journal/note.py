"""Checkpoints that others can verify: Ed25519 signatures over the tree's root, in C2SP's formats.

The text is a checkpoint of a transparency log (https://c2sp.org/tlog-checkpoint) in a signed note
(https://c2sp.org/signed-note): the log's name, the number of leaves, the root, and lines of ours. Verifying it takes no
secret, only the key's name and octets. The keys are derived from the installation's secret, one after another; each is
cross-signed by the one before. Pure.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from smtpguard.journal.chain import instant, microseconds, utc_text

_ED25519 = b"\x01"
_DASH = "\u2014"
_LINE_ENDS = re.compile(r"\\+n|\r\n")
_DASHES = re.compile(r"\\+u2014")
_NOTES = re.compile(rf"smtpguard/\w+\n\d+\n(?:[^\n]+\n)+\n{_DASH} smtpguard/\w+ [A-Za-z0-9+/]+=*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A verifier key. ``name``: the log's; ``public``: 32 octets."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The four octets that begin a signature by it."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        """As a verifier key of a signed note: name, id and octets."""
        return f"{self.name}+{self.id.hex()}+{b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Raises ValueError."""
        name, _, rest = text.strip().partition("+")
        id, _, octets = rest.partition("+")
        raw = b64decode(octets, validate=True)
        key = cls(name=name, public=raw[1:])
        if raw[:1] != _ED25519 or len(raw) != 33 or key.id.hex() != id:
            raise ValueError("no Ed25519 key of a signed note")
        return key

    def verifies(self, text: bytes, signature: bytes) -> bool:
        from nacl.exceptions import BadSignatureError
        from nacl.signing import VerifyKey

        try:
            VerifyKey(self.public).verify(text, signature)
        except (BadSignatureError, ValueError):
            return False
        return True


class Signer:
    """The installation's key number ``generation`` for this journal, beginning with 0."""

    def __init__(self, secret: bytes, journal: str, generation: int = 0) -> None:
        from nacl.signing import SigningKey  # cryptography would take 8 MB, for this alone

        seed = hmac.digest(secret, f"smtpguard checkpoint key {journal} {generation}".encode(), "sha256")
        self._private = SigningKey(seed)
        self.generation = generation
        self.key = Key(name=origin(journal), public=bytes(self._private.verify_key))

    def sign(self, text: bytes) -> bytes:
        """64 octets."""
        return self._private.sign(text).signature

    def note(self, body: str) -> str:
        """The note with this text: text, an empty line, the signature."""
        signature = b64encode(self.key.id + self.sign(body.encode())).decode()
        return f"{body}\n{_DASH} {self.key.name} {signature}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The content of a note. ``size``: leaves of the tree, with this ``root``; ``seq``: the journal's entry that is the
    last leaf, with this ``hash``; ``at``: microseconds; ``before``: the SHA-256 of the text of the checkpoint before,
    "" if there is none; ``says``: its rare fields in words."""

    journal: str
    size: int
    root: bytes
    seq: int
    hash: bytes
    at: int
    before: str = ""
    says: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        lines = [
            origin(self.journal),
            str(self.size),
            b64encode(self.root).decode(),
            f"entry {self.seq} {self.hash.hex()}",
            f"time {utc_text(instant(self.at), 'auto')}",
        ]
        if self.before:
            lines.append(f"before {self.before}")
        lines += [f"says {one}" for one in self.says]
        return "".join(f"{line}\n" for line in lines)


def origin(journal: str) -> str:
    return f"smtpguard/{journal}"


def digest(note: str) -> str:
    """The digest of its text, without signatures, by which the next note names it."""
    return sha256(body_of(note).encode()).hexdigest()


def body_of(note: str) -> str:
    return note.partition(f"\n\n{_DASH} ")[0] + "\n"


def read(note: str) -> Note:
    """The content, whoever signed it. Raises ValueError."""
    try:
        name, size, root, *lines = body_of(note).splitlines()
        said: dict[str, list[str]] = {}
        for line in lines:
            word, _, rest = line.partition(" ")
            said.setdefault(word, []).append(rest)
        seq, hash = said["entry"][0].split()
        at = datetime.fromisoformat(said["time"][0].replace("Z", "+00:00"))
        log, _, journal = name.partition("/")
        if log != "smtpguard":
            raise ValueError
        return Note(
            journal=journal, size=int(size), root=b64decode(root, validate=True), seq=int(seq), hash=bytes.fromhex(hash),
            at=microseconds(at), before=said.get("before", [""])[0], says=tuple(said.get("says", ())),
        )  # fmt: skip
    except (ValueError, KeyError, IndexError):
        raise ValueError("not a checkpoint") from None


def signed_by(note: str, keys: Iterable[Key]) -> Key | None:
    """Which of these keys has signed it; None for none."""
    known: Mapping[tuple[str, bytes], Key] = {(key.name, key.id): key for key in keys}
    body = body_of(note)
    for line in note[len(body) :].splitlines():
        dash, _, rest = line.partition(" ")
        name, _, octets = rest.partition(" ")
        if dash != _DASH:
            continue
        try:
            raw = b64decode(octets, validate=True)
        except ValueError:
            continue
        key = known.get((name, raw[:4]))
        if key is not None and key.verifies(body.encode(), raw[4:]):
            return key
    return None


def notes_in(text: str) -> list[str]:
    """All notes in a text: a witness's store, a log, a mailbox. Other text is skipped; line ends and the dash may be
    escaped as in JSON."""
    plain = _DASHES.sub(_DASH, _LINE_ENDS.sub("\n", text))
    return [f"{found[0]}\n" for found in _NOTES.finditer(plain)]


def crossing(before: Key, after: Key) -> bytes:
    """The text that both keys sign when one follows the other."""
    return f"smtpguard: {after} follows {before}\n".encode()
