"""Signed checkpoints: the journal's head at a moment. They reveal a cut tail and a chain that was recomputed as a
whole.

The signature here is an HMAC with a key derived from the installation's secret, which is not in the database: by it an
installation knows its own checkpoints. The signature for everybody else is in the note (journal.note). A checkpoint is
stored in the database and as one line of a file in the state directory; ``audit verify`` compares the chain with both.

A checkpoint that does not agree is excused if a later one says that the store was restored to an earlier state: then
the entries signed in between are missing, and that is declared. A checkpoint signed with another secret proves nothing
where it agrees, and is a finding like any other where it does not.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The journal's entry ``seq`` had this hash. ``base``: retention has erased the entries up to and with it.
    ``put_back``: this entry says that the store was restored to an earlier state, and the chain agrees with checkpoints
    up to the entry of that number. ``renewed``: the entries before it were written under another secret.
    ``generation``: of the key that has signed ``note``, which says the same to readers without the secret
    (journal.note); "" for an earlier version, and if the tree was unknown."""

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
        """As a line of the file, without the line end. Rare fields are left out if they are not set."""
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
        """Whether the chain need not agree with the other checkpoint any more, since the store was restored."""
        return self.put_back is not None and other.seq > self.put_back and other.at <= self.at and other != self


def parse(line: str) -> Checkpoint:
    """The checkpoint of a line. Raises ValueError."""
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
    """None if there is none, or it is damaged, as the verification reports."""
    try:
        return None if line is None else parse(line)
    except ValueError:
        return None


def sign(secret: bytes, checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, mac=_mac(secret, checkpoint))


def genuine(secret: bytes, checkpoint: Checkpoint) -> bool:
    """Whether this installation signed it."""
    return hmac.compare_digest(checkpoint.mac, _mac(secret, checkpoint))


def _mac(secret: bytes, checkpoint: Checkpoint) -> bytes:
    key = hmac.digest(secret, b"smtpguard journal checkpoint", "sha256")
    text = f"{checkpoint.journal} {checkpoint.seq} {checkpoint.at} {checkpoint.hash.hex()} {', '.join(checkpoint.says) or 'mark'}"
    return hmac.digest(key, text.encode(), "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Entry ``seq``, of the time ``at``, says that the store was restored to an earlier state: entries up to
    ``through`` were signed, the last of them at ``signed_at``, and are missing. ``since``: when the last checkpoint
    that is left was signed; None if unknown. Times are microseconds."""

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
    """``genuine``: checkpoints that were signed here; ``claimed``: those that name this journal and were not signed
    here."""

    def __init__(self, genuine: Iterable[Checkpoint], claimed: Iterable[Checkpoint] = ()) -> None:
        self.waiting: dict[int, list[tuple[Checkpoint, bool]]] = {}
        for some, signed_here in ((genuine, True), (claimed, False)):
            for mark in some:
                self.waiting.setdefault(mark.seq, []).append((mark, signed_here))
        self._parted: list[Disagreement] = []
        self._put_back: list[Checkpoint] = []  # those with put_back that the chain agrees with
        self._signed_at: dict[int, int] = {}
        self._agreed = 0

    @property
    def seqs(self) -> list[int]:
        """The entries to be met, in order."""
        return sorted(self.waiting)

    def begins(self, seq: int, prev: bytes) -> bool:
        """Whether a checkpoint says that retention has cut the chain just after entry ``seq``, whose hash was ``prev``."""
        return any(m.base and here and m.hash == prev for m, here in self.waiting.get(seq, ()))

    def skips(self, seq: int) -> None:
        """Retention has cut the chain after entry ``seq``: earlier checkpoints cannot be compared any more."""
        for old in [s for s in self.waiting if s <= seq]:
            self._put_back += [m for m, here in self.waiting.pop(old) if here and m.put_back is not None]
        self._agreed = max(self._agreed, seq)

    def meets(self, seq: int, hash: bytes) -> None:
        """The chain's entry ``seq`` has this hash."""
        for mark, here in self.waiting.pop(seq, ()):
            if mark.hash != hash:
                self._parted.append(Disagreement(mark=mark, signed_here=here, agreed=self._agreed))
            elif here:
                self._agreed, self._signed_at[seq] = seq, mark.at
                if mark.put_back is not None:
                    self._put_back.append(mark)

    def ends(self) -> tuple[tuple[Disagreement, ...], tuple[Lost, ...]]:
        """The chain has no more entries. Returns the checkpoints that disagree without excuse, and the excused ones; in
        order."""
        lost: dict[Checkpoint, list[Checkpoint]] = {}
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
        for marks in self.waiting.values():
            yield from (Disagreement(mark=mark, signed_here=here, agreed=self._agreed) for mark, here in marks)

    def _lost(self, mark: Checkpoint, gone: list[Checkpoint]) -> Lost:
        return Lost(
            seq=mark.seq,
            at=mark.at,
            through=max(one.seq for one in gone),
            signed_at=max(one.at for one in gone),
            since=self._signed_at.get(mark.put_back or 0),
        )
