"""A mail server that sends to a machine, and keeps each message until it has a final answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.machine import Machine
from tests.peers.chain import PATIENCE


@dataclass(frozen=True, slots=True)
class Attempt:
    """``code`` 0: no answer. ``dot``: the final dot was sent."""

    code: int
    text: str
    dot: bool


@dataclass(slots=True)
class Mta:
    """A client that keeps a message until another server has taken it."""

    machine: Machine
    timeout: float = PATIENCE
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def unheard(self) -> int:
        """The number of attempts with a dot and no answer: each may be a duplicate (RFC 1047)."""
        return sum(a.dot and a.code == 0 for a in self.attempts)

    def deliver(
        self,
        mail: bytes,
        sender: str,
        *recipients: str,
        seconds: float = PATIENCE,
        between: Callable[[], None] = lambda: None,
    ) -> Attempt:
        """Try until there is a final answer, which is returned. ``between`` is called after each other attempt."""
        deadline = time.monotonic() + seconds
        while True:
            done = self.once(mail, sender, *recipients)
            if done.code // 100 in (2, 5):
                return done
            assert time.monotonic() < deadline, f"{self.attempts[-3:]}\n{self.machine.said()}"
            between()
            self.machine.keep()
            time.sleep(0.1)

    def once(self, mail: bytes, sender: str, *recipients: str) -> Attempt:
        done = self._once(mail, sender, recipients)
        self.attempts.append(done)
        return done

    def _once(self, mail: bytes, sender: str, recipients: Sequence[str]) -> Attempt:
        dot = False
        try:
            with socket.create_connection(("127.0.0.1", self.machine.port), timeout=self.timeout) as s:
                lines = replies(s)
                if next(lines)[0] != 220:
                    return Attempt(0, "no greeting", False)
                for command in (
                    "EHLO desk.example.com",
                    f"MAIL FROM:<{sender}> BODY=8BITMIME",
                    *(f"RCPT TO:<{r}>" for r in recipients),
                    "DATA",
                ):
                    s.sendall(f"{command}\r\n".encode())
                    code, text = next(lines)
                    if code >= 400:
                        return Attempt(code, text, False)
                dot = True
                s.sendall(mail.replace(b"\r\n.", b"\r\n..") + b".\r\n")
                code, text = next(lines)
                return Attempt(code, text, True)
        except (OSError, StopIteration) as error:
            return Attempt(0, type(error).__name__, dot)


def replies(s: socket.socket) -> Iterator[tuple[int, str]]:
    """The replies in order, until the connection ends."""
    buffer, text = b"", ""
    while True:
        while b"\r\n" not in buffer:
            more = s.recv(1 << 16)
            if not more:
                return
            buffer += more
        line, _, buffer = buffer.partition(b"\r\n")
        text += line[4:].decode()
        if line[3:4] != b"-":
            yield int(line[:3]), text
            text = ""
