"""Read messages within bounds, without blocking the event loop for long. Implements the Reader that gather asks.

A small message is read in this process, under narrow bounds. A message that is large, or exceeds those bounds, is read in
a child process that can be killed (``python -m smtpguard.reading``). If the child is killed the answer is "too complex",
with what the header says. Readings are cached by content, since a mailing comes in thousands of transactions with one
content. Readings of a text are cached by its octets too, since copies may differ in the header alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from smtpguard.mail.message import Message
from smtpguard.reading.looks import Looks, Readable, Reading
from smtpguard.reading.read import Texts, read, read_in_steps
from smtpguard.reading.request import (
    BadReading,
    Bounds,
    Depth,
    Steps,
    Surroundings,
    dump_request,
    finished,
    load_reading,
)
from smtpguard.reading.shown import Shown, shown_by

log = logging.getLogger(__name__)

T = TypeVar("T")

Around = Callable[[], tuple[str, Surroundings]]
"""The SHA-256 of the policy in force, and what a reader needs from that policy."""

NARROW = Bounds(header_fields=300, parts=40, depth=8, text_bytes=192 << 10, attached_bytes=32 << 10, whole=True,
                tags=4_000, tag_depth=120, looks=2, seconds=0.1, clock=time.monotonic)  # fmt: skip
WIDE = Bounds()
KILL_SECONDS = 15.0  # on top of the bounds' own time, which is the processor's: others may take the rest
REMEMBER_KILLED_SECONDS = 120.0
MOST_ANSWER = 16 << 20
REMEMBERED_SHOWN = 64
_LENGTH = struct.Struct(">I")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The limits of a reader. ``small_bytes``: the largest message that is read in this process; ``most_bytes``: the largest
    that is read at all; ``remembered``: the most readings in the cache."""

    processes: int = 2
    small_bytes: int = 256 << 10
    most_bytes: int = 64 << 20
    remembered: int = 1024
    bounds: Bounds = WIDE
    argv: tuple[str, ...] = (sys.executable, "-P", "-m", "smtpguard.reading")


class BoundedReader:
    """Implements guard.ports.Reader. ``around``: the policy in force. ``close`` ends the child processes."""

    def __init__(
        self, around: Around, *, pool: Pool | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._around = around
        self._pool = pool or Pool()
        self._monotonic = monotonic
        self._known: OrderedDict[tuple[str, str, Depth], tuple[Reading, float]] = OrderedDict()
        self._underway: dict[tuple[str, str, Depth], asyncio.Task[Reading]] = {}
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._texts = "", Texts()  # with the policy that they were read for
        self._free = asyncio.Semaphore(self._pool.processes)
        self._idle: list[_Child] = []

    async def read(self, message: Message, depth: Depth) -> Reading:
        return finished(self.in_steps(message, depth)) or await self.apart(message, depth)

    def in_steps(self, message: Message, depth: Depth) -> Steps[Reading | None]:
        policy, around = self._around()
        small = _small(message, depth, self._pool)
        if small and depth is Depth.HEADERS:  # to read a header again takes less than to remember it
            return read(message, around, depth, NARROW, marked=False)
        found = self._remembered(message.sha256, policy, depth)
        if found is not None or not small:
            return found
        if self._texts[0] != policy:
            self._texts = policy, Texts()
        reading = yield from read_in_steps(message, around, depth, NARROW, texts=self._texts[1])
        if reading.readable is Readable.TOO_COMPLEX:
            return None
        self._remember((message.sha256, policy, depth), reading)
        return reading

    async def apart(self, message: Message, depth: Depth) -> Reading:
        """Read in a child process, once for all callers with the same content. The reading goes on if a caller stops waiting."""
        policy, around = self._around()
        key = (message.sha256, policy, depth)
        task = self._underway.get(key)
        if task is None:
            task = self._underway[key] = asyncio.create_task(self._in_a_child(message, policy, around, depth))
            task.add_done_callback(lambda _: self._underway.pop(key, None))
        return await asyncio.shield(task)

    def shown_at_once(self, message: Message) -> Shown | None:
        found = self._shown.get(message.sha256)
        if found is not None:
            self._shown.move_to_end(message.sha256)
            return found
        if not _small(message, Depth.SHOWN, self._pool):
            return None
        found = shown_by(message, NARROW)
        return None if found.opaque else self._remember_shown(found)

    async def shown_apart(self, message: Message) -> Shown:
        """Return what a message shows, read in a child process. A message that exceeds the bounds is compared as octets."""
        alone = found = Shown(content=message.sha256, opaque=True)
        if message.size_bytes <= self._pool.most_bytes:
            policy, around = self._around()
            with contextlib.suppress(_Lost):
                found = await self._asked(message, policy, around, Depth.SHOWN, Shown.unpack)
        return self._remember_shown(found if found.content == message.sha256 else alone)

    def _remember_shown(self, shown: Shown) -> Shown:
        self._shown[shown.content] = shown
        if len(self._shown) > REMEMBERED_SHOWN:
            self._shown.popitem(last=False)
        return shown

    async def close(self) -> None:
        for task in self._underway.values():
            task.cancel()
        await asyncio.gather(*self._underway.values(), return_exceptions=True)
        for child in self._idle:
            await child.end()
        self._idle.clear()

    async def _in_a_child(self, message: Message, policy: str, around: Surroundings, depth: Depth) -> Reading:
        key = (message.sha256, policy, depth)
        if message.size_bytes > self._pool.most_bytes:
            return _header_alone(message, around, f"it is larger than {self._pool.most_bytes >> 20} MiB")
        try:
            reading = await self._asked(message, policy, around, depth, load_reading)
        except _Lost as lost:
            why = "reading it takes too long" if lost.late else "reading it exceeds the limit of memory or time"
            reading = _header_alone(message, around, why)
            self._remember(key, reading, self._monotonic() + REMEMBER_KILLED_SECONDS)
            return reading
        self._remember(key, reading)
        return reading

    async def _asked(
        self, message: Message, policy: str, around: Surroundings, depth: Depth, load: Callable[[bytes], T]
    ) -> T:
        """Return the answer of a child process. Raises _Lost if the process is gone, and OSError if none can be started."""
        async with self._free:
            child = self._idle.pop() if self._idle else await _Child.start(self._pool.argv)
            try:
                async with asyncio.timeout(self._pool.bounds.seconds + KILL_SECONDS):
                    answer = load(await child.read(message, policy, around, depth, self._pool.bounds))
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                await child.end()
                late = isinstance(error, TimeoutError)
                log.warning("content %s: its reader was %s", message.sha256[:16], "killed" if late else "lost")
                raise _Lost(late) from None
            except BaseException:
                await child.end()
                raise
            self._idle.append(child)
        return answer

    def _remembered(self, content: str, policy: str, depth: Depth) -> Reading | None:
        for known in (Depth.TEXT, depth):  # a reading of the text has the header too
            key = content, policy, known
            if key not in self._known:
                continue
            reading, until = self._known[key]
            if self._monotonic() < until:
                self._known.move_to_end(key)
                return reading
            del self._known[key]
        return None

    def _remember(self, key: tuple[str, str, Depth], reading: Reading, until: float = float("inf")) -> None:
        self._known[key] = (reading, until)
        if len(self._known) > self._pool.remembered:
            self._known.popitem(last=False)


class _Lost(Exception):
    """A child process did not answer. ``late``: it took too long and was killed; else it died."""

    def __init__(self, late: bool) -> None:
        super().__init__(late)
        self.late = late


class _Child:
    """A process that reads messages. End it after a failed request, since its position in the answer is unknown."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._policy: str | None = None

    @classmethod
    async def start(cls, argv: Sequence[str]) -> _Child:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process)

    async def read(self, message: Message, policy: str, around: Surroundings, depth: Depth, bounds: Bounds) -> bytes:
        """Return the packed answer. Raises OSError, EOFError or BadReading if the process is gone."""
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None
        assert source is not None
        if sink.is_closing():  # uvloop would raise RuntimeError
            raise ConnectionResetError("the reading process is gone")
        head = dump_request(None if policy == self._policy else around, depth, bounds)
        sink.write(_LENGTH.pack(len(head)) + head + _LENGTH.pack(message.size_bytes))
        for start in range(0, message.size_bytes, _PIECE):
            sink.write(message.raw[start : start + _PIECE])
            await sink.drain()
        await sink.drain()
        self._policy = policy
        (length,) = _LENGTH.unpack(await source.readexactly(_LENGTH.size))
        if length > MOST_ANSWER:
            raise BadReading("an answer of no size")
        return await source.readexactly(length)

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()  # reads the rest of an answer: its pipe stays open until then
        if self._process.stdin is not None:
            self._process.stdin.close()


def _small(message: Message, depth: Depth, pool: Pool) -> bool:
    """Return whether the message can be read in the event loop. A header is small however large its message is."""
    header = message.header
    if header.size_bytes > 64 << 10 or len(header.fields) > NARROW.header_fields:
        return False
    return depth is Depth.HEADERS or message.size_bytes <= pool.small_bytes


def _header_alone(message: Message, around: Surroundings, why: str) -> Reading:
    """Return the reading of the header of a message whose text cannot be read, and is not tried again."""
    header = message.header
    if header.size_bytes > 64 << 10 or len(header.fields) > WIDE.header_fields:
        seen = read(Message.of(b"\r\n"), around, Depth.HEADERS, NARROW)
    else:
        seen = read(message, around, Depth.HEADERS, NARROW)
    return replace(seen, readable=Readable.TOO_COMPLEX, why_unreadable=why, looks=Looks.UNCLEAR)
