"""Signed checkpoints: the journal's head at a moment. They reveal a cut tail and a chain that was recomputed as a
whole.

The signature here is an HMAC with a key derived from the installation's secret, which is not in the database: by it an
installation knows its own checkpoints. The signature for everybody else is in the note (journal.note). A checkpoint is
stored in the database and as one line of a file in the state directory; ``audit verify`` compares the chain with both.
"""

from __future__ import annotations

import hmac
import json
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
        rare: dict[str, object] = {"put_back": self.put_back} if self.put_back is not None else {}
        if self.renewed:
            rare["renewed"] = True
        if self.generation:
            rare["key"] = self.generation
        if self.note:
            rare["note"] = self.note
        return json.dumps(
            {
                "journal": self.journal,
                "seq": self.seq,
                "at": self.at,
                "hash": self.hash.hex(),
                "base": self.base,
                **rare,
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
