"""Signed checkpoints of the journal's head, for this installation and, as notes, for everybody else. They reveal a cut tail, and a
chain that was recomputed as a whole. Pure.

A checkpoint's own signature is an HMAC with a key derived from the installation's secret, which is not in the database:
by it an installation knows its own checkpoints. A checkpoint is stored in the database and as one line of a file in the
state directory; ``audit verify`` compares the chain with both. A checkpoint that does not agree is excused if a later one says
that the store was restored to an earlier state: the entries signed in between are missing, and that is declared. A checkpoint
that was signed with another secret proves nothing if it agrees, and is a finding like any other if it does not.

Others verify a note: Ed25519 signatures over the tree's root, in C2SP's formats. Its text is a checkpoint of a
transparency log (https://c2sp.org/tlog-checkpoint) in a signed note (https://c2sp.org/signed-note): the log's name, the
number of leaves, the root, and lines of ours. To verify it takes no secret, only the key's name and octets. The keys are derived
from the installation's secret, one after another; each is cross-signed by the one before.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from smtpguard.journal.chain import instant, microseconds, utc_text

WITNESS = "(witness)"
"""The name of the witness's cursor (journal.cursors). No webhook has this name."""
_ED25519 = b"\x01"  # the type of a key in a signed note
_DASH = "\u2014"
_LINE_ENDS = re.compile(r"\\+n|\r\n")
_DASHES = re.compile(r"\\+u2014")
_NOTES = re.compile(rf"smtpguard/\w+\n\d+\n(?:[^\n]+\n)+\n{_DASH} smtpguard/\w+ [A-Za-z0-9+/]+=*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed statement that the journal's entry ``seq`` has this hash. ``at``: when it was signed, in microseconds.

    ``base``: retention has erased the entries up to and with it. ``put_back``: the entry says that the store was restored to an
    earlier state, and the chain agrees with checkpoints up to the entry of that number. ``renewed``: the entries before it were
    written under another secret. ``note``: the signed note, which says the same to readers without the secret; "" for an earlier
    version, and if the tree was unknown. ``generation``: the number of the key that has signed the note.
    """

    journal: str
    seq: int
    at: int
    hash: bytes
    base: bool = False
    put_back: int | None = None
    renewed: bool = False
    generation: int = 0
    note: str = ""
    mac: bytes = b""

    def line(self) -> str:
        """Return its line of the file, without the line end. Rare fields are left out if they are not set."""
        rare = {"renewed": self.renewed, "key": self.generation, "note": self.note}
        return json.dumps(
            {
                "journal": self.journal,
                "seq": self.seq,
                "at": self.at,
                "hash": self.hash.hex(),
                "base": self.base,
                **({"put_back": self.put_back} if self.put_back is not None else {}),
                **{name: value for name, value in rare.items() if value},
                "mac": self.mac.hex(),
            }
        )

    @property
    def says(self) -> tuple[str, ...]:
        """The rare fields, in words."""
        words = ["base"] if self.base else []
        if self.put_back is not None:
            words.append(f"put back to {self.put_back}")
        return (*words, "renewed") if self.renewed else tuple(words)

    def excuses(self, other: Checkpoint) -> bool:
        """Return whether the chain need not agree with another checkpoint any more, since the store was restored."""
        return self.put_back is not None and other.seq > self.put_back and other.at <= self.at and other != self


def parse(line: str) -> Checkpoint:
    """Return the checkpoint of a line. Raises ValueError."""
    try:
        fields = json.loads(line)
        return Checkpoint(
            journal=str(fields["journal"]),
            seq=int(fields["seq"]),
            at=int(fields["at"]),
            hash=bytes.fromhex(fields["hash"]),
            base=bool(fields["base"]),
            put_back=None if fields.get("put_back") is None else int(fields["put_back"]),
            renewed=bool(fields.get("renewed", False)),
            generation=int(fields.get("key", 0)),
            note=str(fields.get("note", "")),
            mac=bytes.fromhex(fields["mac"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError("not a checkpoint") from None


def readable(line: str | None) -> Checkpoint | None:
    """Return the checkpoint of a line; None without a line, or if it is damaged, which the verification reports."""
    try:
        return None if line is None else parse(line)
    except ValueError:
        return None


def sign(secret: bytes, checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with its MAC."""
    return replace(checkpoint, mac=_mac(secret, checkpoint))


def genuine(secret: bytes, checkpoint: Checkpoint) -> bool:
    """Return whether this installation signed it."""
    return hmac.compare_digest(checkpoint.mac, _mac(secret, checkpoint))


def _mac(secret: bytes, checkpoint: Checkpoint) -> bytes:
    key = hmac.digest(secret, b"smtpguard journal checkpoint", "sha256")
    text = f"{checkpoint.journal} {checkpoint.seq} {checkpoint.at} {checkpoint.hash.hex()} {', '.join(checkpoint.says) or 'mark'}"
    return hmac.digest(key, text.encode(), "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A restore of the store to an earlier state, which entry ``seq`` of the time ``at`` declares. Entries up to ``through`` were
    signed, the last of them at ``signed_at``, and are missing. If no checkpoint of them is known, ``through`` is 0 and
    ``signed_at`` is ``at``. ``since``: when the last checkpoint that is left was signed; None if unknown. Times are in
    microseconds."""

    seq: int
    at: int
    through: int
    signed_at: int
    since: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A checkpoint that the chain disagrees with. ``agreed``: the last entry before it with a checkpoint that agrees."""

    mark: Checkpoint
    signed_here: bool
    agreed: int


class Agreement:
    """Compares checkpoints with a chain whose entries come in order. ``genuine``: checkpoints that were signed here; ``claimed``:
    those that name this journal and were not signed here. ``waiting``: those that were not compared yet, by entry."""

    def __init__(self, genuine: Iterable[Checkpoint], claimed: Iterable[Checkpoint] = ()) -> None:
        self.waiting: dict[int, list[tuple[Checkpoint, bool]]] = {}
        for some, signed_here in ((genuine, True), (claimed, False)):
            for mark in some:
                self.waiting.setdefault(mark.seq, []).append((mark, signed_here))
        self._parted: list[Disagreement] = []
        self._put_back: list[Checkpoint] = []  # checkpoints with put_back that the chain agrees with
        self._signed_at: dict[int, int] = {}
        self._agreed = 0

    @property
    def seqs(self) -> list[int]:
        """The entries whose checkpoints were not compared yet, in order."""
        return sorted(self.waiting)

    def is_cut_after(self, seq: int, prev: bytes) -> bool:
        """Return whether a checkpoint says that retention has cut the chain just after entry ``seq``, whose hash was ``prev``."""
        return any(m.base and here and m.hash == prev for m, here in self.waiting.get(seq, ()))

    def skip(self, seq: int) -> None:
        """Leave out the checkpoints up to entry ``seq``: retention has cut the chain after it."""
        for old in [s for s in self.waiting if s <= seq]:
            self._put_back += [m for m, here in self.waiting.pop(old) if here and m.put_back is not None]
        self._agreed = max(self._agreed, seq)

    def compare(self, seq: int, hash: bytes) -> None:
        """Compare the checkpoints of entry ``seq``, which has this hash in the chain."""
        for mark, here in self.waiting.pop(seq, ()):
            if mark.hash != hash:
                self._parted.append(Disagreement(mark=mark, signed_here=here, agreed=self._agreed))
            elif here:
                self._agreed, self._signed_at[seq] = seq, mark.at
                if mark.put_back is not None:
                    self._put_back.append(mark)

    def finish(self) -> tuple[tuple[Disagreement, ...], tuple[Lost, ...]]:
        """Return the checkpoints that disagree without excuse, and what each restore has lost, in order. Call it after the last
        entry."""
        lost: dict[Checkpoint, list[Checkpoint]] = {m: [] for m in self._put_back if m.seq in self._signed_at}
        parted: list[Disagreement] = []
        for each in (*self._parted, *self._beyond()):
            excuse = next((mark for mark in self._put_back if mark.excuses(each.mark)), None)
            if excuse is None:
                parted.append(each)
            else:
                lost.setdefault(excuse, []).append(each.mark)
        parted.sort(key=lambda each: each.mark.seq)
        marks = sorted(lost, key=lambda mark: mark.seq)
        return tuple(parted), tuple(self._lost(mark, lost[mark]) for mark in marks)

    def _beyond(self) -> Iterator[Disagreement]:
        """Yield the checkpoints of entries that the chain does not have."""
        for marks in self.waiting.values():
            yield from (Disagreement(mark=mark, signed_here=here, agreed=self._agreed) for mark, here in marks)

    def _lost(self, mark: Checkpoint, gone: list[Checkpoint]) -> Lost:
        return Lost(
            seq=mark.seq,
            at=mark.at,
            through=max((one.seq for one in gone), default=0),
            signed_at=max((one.at for one in gone), default=mark.at),
            since=self._signed_at.get(mark.put_back or 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A verifier key. ``name``: the log's name; ``public``: 32 octets."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The four octets with which a signature by it begins."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        """Return its text in the format of a signed note: name, id and octets."""
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
        """Return whether the signature of a text is by this key."""
        from nacl.exceptions import BadSignatureError
        from nacl.signing import VerifyKey

        try:
            VerifyKey(self.public).verify(text, signature)
        except (BadSignatureError, ValueError):
            return False
        return True


class Signer:
    """The installation's signing key for a journal. ``generation``: its number, from 0 on."""

    def __init__(self, secret: bytes, journal: str, generation: int = 0) -> None:
        from nacl.signing import SigningKey  # cryptography would take 8 MB, for this alone

        seed = hmac.digest(secret, f"smtpguard checkpoint key {journal} {generation}".encode(), "sha256")
        self._private = SigningKey(seed)
        self.generation = generation
        self.key = Key(name=origin(journal), public=bytes(self._private.verify_key))

    def sign(self, text: bytes) -> bytes:
        """Return the signature, 64 octets."""
        return self._private.sign(text).signature

    def note(self, body: str) -> str:
        """Return the note with this text: the text, an empty line, the signature."""
        signature = b64encode(self.key.id + self.sign(body.encode())).decode()
        return f"{body}\n{_DASH} {self.key.name} {signature}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The content of a note. ``size`` and ``root``: of the tree; ``seq`` and ``hash``: of the entry that is its last leaf; ``at``: when
    it was signed, in microseconds; ``before``: the SHA-256 of the text of the note before, "" for none; ``says``: the rare
    fields of its checkpoint in words."""

    journal: str
    size: int
    root: bytes
    seq: int
    hash: bytes
    at: int
    before: str = ""
    says: tuple[str, ...]

    @property
    def body(self) -> str:
        """Its text."""
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
    """Return the name of a journal as a transparency log."""
    return f"smtpguard/{journal}"


def digest(note: str) -> str:
    """Return the digest by which the next note names it: of its text without signatures, in hexadecimal."""
    return sha256(body_of(note).encode()).hexdigest()


def body_of(note: str) -> str:
    """Return the text of a note, without signatures."""
    return note.partition(f"\n\n{_DASH} ")[0] + "\n"


def read(note: str) -> Note:
    """Return the content of a note, without checking its signatures. Raises ValueError."""
    try:
        name, size, root, *lines = body_of(note).splitlines()
        fields: dict[str, list[str]] = {}
        for line in lines:
            word, _, rest = line.partition(" ")
            fields.setdefault(word, []).append(rest)
        seq, hash = fields["entry"][0].split()
        at = datetime.fromisoformat(fields["time"][0].replace("Z", "+00:00"))
        log, _, journal = name.partition("/")
        if log != "smtpguard":
            raise ValueError
        return Note(
            journal=journal, size=int(size), root=b64decode(root, validate=True), seq=int(seq), hash=bytes.fromhex(hash),
            at=microseconds(at), before=fields.get("before", [""])[0], says=tuple(fields.get("says", ())),
        )  # fmt: skip
    except (ValueError, KeyError, IndexError):
        raise ValueError("not a checkpoint") from None


def signed_by(note: str, keys: Iterable[Key]) -> Key | None:
    """Return the key among these that has signed a note; None for none."""
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
    """Return all notes in a text: a witness's store, a log, a mailbox. Other text is skipped. Line ends and the dash may be escaped
    as in JSON."""
    plain = _DASHES.sub(_DASH, _LINE_ENDS.sub("\n", text))
    return [f"{found[0]}\n" for found in _NOTES.finditer(plain)]


def crossing(before: Key, after: Key) -> bytes:
    """Return the text that both keys sign when one follows the other."""
    return f"smtpguard: {after} follows {before}\n".encode()
