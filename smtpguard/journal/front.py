"""The file format of the journal's front: verdicts of one process, and their outcomes, that are synced and not in the
chain yet.

A file begins with its head, which names the journal. Frames follow, numbered from 1 without a gap. Once all of them are in the
chain, the file is overwritten from its beginning and the numbers go on, so a frame of an earlier round is known by its number. A
frame that was being written when power was lost is torn: it ends the file, and its client got no reply.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from smtpguard.journal.chain import Seal, body_of, clear_of, event_from, instant, microseconds, parsed
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.constant import constant, maker

FIRST = 4096
"""The offset of the first frame in the file."""
_FRAME = struct.Struct("<4sQQQII")  # mark, number, synced, generation, octets of what follows, CRC-32 of all of it
_CHECKED = struct.Struct("<QQQI")  # of these, what the CRC covers: all from number to octets
_MARK = b"\xf1sgf"
_VERDICT = Kind.VERDICT.value
_VERSION, _READ = 3, frozenset({1, 2, 3})  # version 1 has verdicts only; frames of 1 and 2 are JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a front. ``seq`` and ``hash``: the last entry of the journal when the front was made."""

    journal: str
    name: str
    seq: int
    hash: str

    def octets(self) -> bytes:
        text = json.dumps({"version": _VERSION, **asdict(self)}).encode()
        return struct.pack("<II", len(text), zlib.crc32(text)) + text


def head_of(data: bytes) -> Head | None:
    """Return the head of a file; None if it is missing or incomplete."""
    if len(data) < 8:
        return None
    size, crc = struct.unpack_from("<II", data)
    text = data[8 : 8 + size]
    if not size or len(text) != size or zlib.crc32(text) != crc:
        return None
    try:
        row = json.loads(text)
        if row.pop("version") not in _READ:
            return None
        return Head(**row)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@constant
class Fronted:
    """A verdict to relay, or its outcome (``kind``). ``body`` and ``clear``: as in the chain's entry. ``key`` and ``marks``: stored while
    the message is in flight. ``generation``: the gate's under which a verdict was decided. ``number``: of the frame; 0 under a
    bypass (journal.bypass), and before it is written."""

    number: int
    generation: int
    at: int
    id: str
    key: str
    marks: str
    body: str
    clear: str | None
    kind: str = _VERDICT

    def frame(self, synced: int, number: int = 0) -> bytes:
        """Return its frame. ``synced``: the last frame that is synced when this one is written. ``number``: instead of its own."""
        number = number or self.number
        if self.kind == _VERDICT:  # no part has a line end: ids, keys in hexadecimal, and JSON of journal.chain
            text = f"{self.at}\n{self.id}\n{self.key}\n{self.marks}\n{self.clear or ''}\n{self.body}".encode()
        else:
            text = f"{self.at}\n{self.id}\n{self.kind}\n{self.body}".encode()
        crc = zlib.crc32(text, zlib.crc32(_CHECKED.pack(number, synced, self.generation, len(text))))
        return _FRAME.pack(_MARK, number, synced, self.generation, len(text), crc) + text


new_fronted = maker(Fronted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The frames of a front that are not in the chain yet. ``problem``: a damage, or why they do not follow the moved ones; ""
    otherwise."""

    fronted: Sequence[Fronted]
    problem: str = ""

    @property
    def last(self) -> int:
        """The number of the last frame; 0 without frames."""
        return self.fronted[-1].number if self.fronted else 0


def fronted(event: Event, seal: Seal, *, key: str = "", marks: str = "", generation: int = 0) -> Fronted:
    return new_fronted(
        number=0, generation=generation, at=microseconds(event.at), id=event.id, key=key, marks=marks,
        body=body_of(event, seal), clear=clear_of(event), kind=event.kind.value,
    )  # fmt: skip


def event_of(fronted: Fronted, at: datetime | None = None) -> Event:
    """Return the event of a frame, for a process that finds it in another's front. ``at``: its time in the chain, if that is not the
    time at which it was written."""
    return event_from(fronted.kind, fronted.id, at or instant(fronted.at), fronted.body, fronted.clear)


def tail(frames: bytes, moved: int) -> Tail:
    """Return the frames after number ``moved``, the last one in the chain. ``frames``: the file after its head."""
    found: list[Fronted] = []
    at, expected = 0, 0
    while (frame := _frame_at(frames, at)) is not None:
        fronted, _, end = frame
        if expected and fronted.number != expected:
            break
        if not expected and fronted.number > moved + 1:
            return Tail(fronted=(), problem=f"frames {moved + 1} to {fronted.number - 1} are missing")
        if fronted.number > moved:
            found.append(fronted)
        at, expected = end, fronted.number + 1
    missing = max(expected, moved + 1)
    for fronted, synced in _others(frames, at):
        if fronted.number > missing and synced >= missing:  # it was synced
            return Tail(fronted=found, problem=f"frame {missing} cannot be read, and was synced")
    return Tail(fronted=found)


def follows(frames: bytes, moved: int) -> tuple[list[Fronted], int]:
    """Return the frames after number ``moved``, as far as frames follow each other from the first octet on, and the offset at which the
    last one ends."""
    found: list[Fronted] = []
    at = 0
    while (frame := _frame_at(frames, at)) is not None and frame[0].number <= moved + len(found) + 1:
        if frame[0].number > moved:
            found.append(frame[0])
        at = frame[2]
    return found, at


def _frame_at(data: bytes, at: int) -> tuple[Fronted, int, int] | None:
    """Return the frame at an offset, the last number that was synced before it, and the offset of its end; None if it is not
    complete."""
    if len(data) - at < _FRAME.size:
        return None
    mark, number, synced, generation, size, crc = _FRAME.unpack_from(data, at)
    text = data[at + _FRAME.size : at + _FRAME.size + size]
    if mark != _MARK or len(text) != size:
        return None
    if zlib.crc32(text, zlib.crc32(data[at + 4 : at + 4 + _CHECKED.size])) != crc:
        return None
    kind, key, marks, clear = _VERDICT, "", "", None
    try:
        row = text.decode().split("\n", 5) if text[:1] != b"[" else _earlier(text)
        if len(row) == 4:
            when, id, kind, body = row
        else:
            when, id, key, marks, clear, body = row
        fronted = new_fronted(
            number=number, generation=generation, at=int(when), id=id, key=key, marks=marks, body=body,
            clear=clear or None, kind=kind,
        )  # fmt: skip
    except ValueError:  # not written by any version of smtpguard
        return None
    return fronted, synced, at + _FRAME.size + size


def _earlier(text: bytes) -> list[Any]:
    """Return the fields of a frame of version 1 or 2, in the order of version 3. They are JSON, with the body before the clear values."""
    row: list[Any] = parsed(text.decode())
    return row if len(row) == 4 else [*row[:4], row[5], row[4]]


def _others(data: bytes, at: int) -> Iterator[tuple[Fronted, int]]:
    """Yield the complete frames anywhere from an offset on, each with the last number that was synced before it."""
    while (at := data.find(_MARK, at)) >= 0:
        frame = _frame_at(data, at)
        if frame is None:
            at += 1
            continue
        yield frame[0], frame[1]
        at = frame[2]
