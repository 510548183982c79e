"""The life of a part in its own process: it reports ready, sends heartbeats, takes connections, and stops when told, or when
the supervisor is gone. The supervisor's side is processes.child.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from smtpguard.processes.channel import Channel, Message
from smtpguard.processes.numbers import ProcessNumbers
from smtpguard.processes.relaylimit import Allowance

BEAT_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_MOST_SAID = 4_000  # characters of an error: escaped, they fit a message of the channel
_LIBC = ctypes.CDLL(None, use_errno=True)  # it makes a class, so it is made once, and forked
GRACE_SECONDS = 30.0
"""The time to finish after a stop that names none: a signal, or the end of the supervisor."""

LAST_SECONDS = 8.0
"""The time to close everything after that. A part that does not end by then exits by force: there may be no supervisor left to
kill it."""


class Part(ABC):
    """The base of each kind of part. The defaults fit a part without connections and numbers."""

    places: Sequence[Allowance] = ()
    """Its side of the shared limits of relay connections, one for each relay; empty if it shares none."""

    def __init__(self) -> None:
        self._undo = AsyncExitStack()
        """Closes everything that the part has opened."""

    @abstractmethod
    async def start(self) -> None:
        """Start. The part is ready for work when this returns."""

    @abstractmethod
    async def serve(self) -> None:
        """Do the work beside connections. Returns or raises only if the part cannot go on. It is cancelled at the end."""

    def take(
        self, connection: socket.socket, listener: int, closed: Callable[[], None], client: str | None = None
    ) -> None:
        """Serve an accepted connection, and call ``closed`` once, at its end. ``client``: the address that a proxy named, "" if it
        named none, None without a proxy. Never raises."""
        connection.close()
        closed()

    def said(self) -> ProcessNumbers:
        """Return the part's numbers, for each heartbeat. Never raises."""
        return ProcessNumbers()

    def told(self, numbers: Mapping[str, Any]) -> None:
        """Take the tree's numbers (numbers.Numbers), once a second, if the part shows them."""
        return

    @abstractmethod
    async def stop(self, grace_seconds: float) -> None:
        """Accept no new work. Finish the current work within the grace, then drop it. ``serve`` goes on meanwhile."""

    async def close(self) -> None:
        """Close everything. It is always the last call."""
        await self._undo.aclose()


def die_with_parent(number: int) -> None:
    """Get signal ``number`` from the kernel when the parent process ends (PR_SET_PDEATHSIG, prctl(2)), even if this process is too
    busy to notice. Call it from the main thread, before anything is opened."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))


async def run(part: Part, sock: socket.socket) -> None:
    """Run a part. Returns after a stop; otherwise raises what ended it."""
    await _Life(part, sock).run()


class _Life:
    def __init__(self, part: Part, sock: socket.socket) -> None:
        self._part = part
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[float] = self._loop.create_future()
        self._took: list[int] = []
        self._over: list[int] = []
        self._lost: list[int] = []
        self._ready = False
        # Without a supervisor no new work can come, and nobody would restart us.
        self._channel = Channel(sock, self._received, partial(self._end, GRACE_SECONDS))
        for allowance in part.places:
            allowance.send = self._channel.send

    async def run(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._leave)
        beating = asyncio.create_task(self._beat())
        try:
            await self._live()
        except Exception as e:
            if not self._ready:
                self._channel.send({"ends": str(e)[:_MOST_SAID]})
            raise
        finally:
            beating.cancel()
            await self._part.close()
            self._channel.close()

    async def _live(self) -> None:
        await self._part.start()
        self._ready = True
        self._channel.send({"ready": True})
        serving = asyncio.create_task(self._part.serve())
        try:
            ends: set[asyncio.Future[Any]] = {serving, self._stop}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                self._leave()
                serving.result()
                raise RuntimeError("the part's work ended by itself")
            await self._part.stop(self._stop.result())
        finally:
            serving.cancel()
            await asyncio.wait({serving})

    async def _beat(self) -> None:
        while True:
            self._channel.send({"beat": asdict(self._part.said()) if self._ready else {}})
            await asyncio.sleep(BEAT_SECONDS)

    def _received(self, message: Message, connection: socket.socket | None) -> None:
        if "stop" in message:
            self._end(float(message["stop"]))
        elif "take" in message and connection is not None:
            if self._stop.done():  # not taken: the supervisor still has it, and gives it to another
                connection.close()
                return
            connection.setblocking(False)
            number = int(message["take"])
            self._say(self._took, "took", number)  # sent before the first reply to the client
            over = partial(self._say, self._over, "closed", number)
            self._part.take(connection, int(message["listener"]), over, message.get("client"))
        elif "take" in message:
            self._say(self._lost, "lost", int(message["take"]))
        elif "places" in message:
            news = message["places"]
            if self._part.places:
                self._part.places[int(news["relay"])].heard(news)
        elif "numbers" in message:
            self._part.told(message["numbers"])

    def _say(self, gathered: list[int], word: str, number: int) -> None:
        """Send a connection's number. The numbers of one turn of the loop go into one message."""
        if not gathered:
            self._loop.call_soon(self._tell, gathered, word)
        gathered.append(number)

    def _tell(self, gathered: list[int], word: str) -> None:
        self._channel.send({word: gathered[:]})
        gathered.clear()

    def _leave(self) -> None:
        """Tell the supervisor that the part ends by itself, so that it sends no further connection."""
        self._channel.send({"leaving": True})
        self._end(GRACE_SECONDS)

    def _end(self, grace_seconds: float) -> None:
        if not self._stop.done():
            self._stop.set_result(grace_seconds)
            last = threading.Timer(grace_seconds + LAST_SECONDS, os._exit, (1,))
            last.daemon = True
            last.start()
