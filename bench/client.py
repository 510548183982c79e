"""``python -m bench.client PORT``: a mail client that sends messages, no two alike, and prints how long each took.

It keeps ``--sessions`` connections and sends one command after the other on each, as smtp-source does. Messages,
writers and recipients differ, so that no cache of contents or senders helps. When all messages are made it prints
``ready``, and it starts when it reads a line. At the end it prints one line of JSON, ``{"took": [milliseconds from MAIL
to the reply to the dot, ...]}``. With ``--rate``, a number a second, the times include the wait for a free connection.
With ``--messages 0`` it makes them as it goes, until its input ends.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count, takewhile

_TEXT = """
order offer invoice delivery Monday Tuesday Friday the our your price list meeting draft contract figures month
week answer question before after with without about and or but please thanks regards soon later new old stock
shop part sample number customer supplier address telephone warehouse transport agreement discount payment
receipt return warranty repair service
"""
WORDS = _TEXT.split()


def letter(n: int, size: int) -> bytes:
    """A message of about ``size`` bytes, with its final dot."""
    draw = random.Random(n)
    writer = n % 97
    head = (
        f"From: Writer {writer} <writer{writer}@example.com>\r\nTo: reader{n}@mailbox{n % 50}.example.org\r\n"
        f"Subject: {' '.join(draw.choices(WORDS, k=5))} {n}\r\nDate: Mon, 2 Mar 2026 10:{n // 60 % 60:02}:{n % 60:02} +0000\r\n"
        f"Message-ID: <{n}.{draw.getrandbits(40):x}@example.com>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n\r\n"
    ).encode()
    paragraph = "".join(f"{' '.join(draw.choices(WORDS, k=12))}\r\n" for _ in range(30)).encode()
    text = (paragraph * (size // len(paragraph) + 1))[: max(size - len(head) - 3, 60)]
    return head + text.rstrip(b"\r\n") + b"\r\n.\r\n"


def commands(n: int, size: int, recipients: int) -> list[bytes]:
    rcpt = [f"RCPT TO:<reader{n + i * 1_000_000}@mailbox{n % 50}.example.org>\r\n".encode() for i in range(recipients)]
    return [f"MAIL FROM:<writer{n % 97}@example.com>\r\n".encode(), *rcpt, b"DATA\r\n", letter(n, size)]


class Session:
    """One connection, and its position in the message that it sends."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.port, self.tls = port, tls
        self.left: deque[bytes] = deque()
        self.since = 0.0
        self._read = b""
        self.socket: socket.socket = socket.socket()

    def open(self) -> None:
        """Connect and send EHLO, waiting for the replies."""
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._asked(b"")
        self._asked(b"EHLO client.example\r\n")
        if self.tls is not None:
            self._asked(b"STARTTLS\r\n")
            self.socket = self.tls.wrap_socket(self.socket, server_hostname="localhost")
            self._asked(b"EHLO client.example\r\n")

    def start(self, lines: list[bytes], at: float, *, alone: bool) -> None:
        """Begin a message. ``alone``: on its own connection, which is closed after it."""
        self.since = at
        self.left.extend(lines)
        if alone:
            self.open()
            self.left.append(b"QUIT\r\n")
        self._next()

    def answered(self) -> bool:
        """Read the reply that is there and continue. Returns whether the message is done."""
        while True:
            self._read += (some := self.socket.recv(65536))
            if not some:
                raise SystemExit("bench: the connection was closed")
            if not isinstance(self.socket, ssl.SSLSocket) or not self.socket.pending():
                break
        if not self._whole():
            return False
        said, self._read = self._read, b""
        if said[:1] not in b"23" or b"Held" in said:
            raise SystemExit(f"bench: {said!r}")
        if self.left:
            self._next()
            return False
        if said.startswith(b"221"):
            self.socket.close()
        return True

    def _next(self) -> None:
        self.socket.sendall(self.left.popleft())

    def _whole(self) -> bool:
        line = self._read.rstrip(b"\r\n").rpartition(b"\n")[2]
        return self._read.endswith(b"\n") and line[3:4] in (b" ", b"")

    def _asked(self, line: bytes) -> None:
        if line:
            self.socket.sendall(line)
        self._read = b""
        while not self._whole():
            self._read += self.socket.recv(65536)
        self._read = b""


def run(sessions: list[Session], letters: Iterable[list[bytes]], *, alone: bool, rate: float) -> list[float]:
    """Send the messages; return the milliseconds that each took. All sessions are open, unless messages come ``alone``."""
    took: list[float] = []
    poll, free = select.epoll(), deque(sessions)
    at: dict[int, Session] = {}
    if not alone:
        for session in sessions:
            poll.register(session.socket.fileno(), select.EPOLLIN)
            at[session.socket.fileno()] = session
    begin = time.perf_counter()
    due: Iterator[tuple[int, list[bytes]]] = iter(enumerate(letters))
    coming = next(due, None)
    while coming is not None or len(free) < len(sessions):
        now = time.perf_counter()
        while coming is not None and free and (not rate or begin + coming[0] / rate <= now):
            session = free.popleft()
            session.start(coming[1], begin + coming[0] / rate if rate else now, alone=alone)
            if alone:
                poll.register(session.socket.fileno(), select.EPOLLIN)
                at[session.socket.fileno()] = session
            coming = next(due, None)
        wait = -1.0 if coming is None or not rate or not free else max(0.0, begin + coming[0] / rate - now)
        for fd, _ in poll.poll(wait):
            session = at[fd]
            if session.answered():
                took.append((time.perf_counter() - session.since) * 1000)
                free.append(session)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--size", type=int, default=10240)
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first letter")
    parser.add_argument("--rate", type=float, default=0, help="letters a second; 0: as fast as they are taken")
    parser.add_argument("--new", action="store_true", help="a new connection for each letter")
    parser.add_argument("--tls", action="store_true", help="STARTTLS first")
    args = parser.parse_args()
    goes_on = takewhile(lambda _: not select.select([sys.stdin], [], [], 0)[0], count())  # until standard input ends
    numbers = range(args.messages) if args.messages else goes_on
    made = (commands(args.first + n, args.size, args.recipients) for n in numbers)
    letters = list(made) if args.messages else made
    context = ssl.create_default_context() if args.tls else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sessions = [Session(args.port, context) for _ in range(args.sessions)]
    if not args.new:
        for session in sessions:
            session.open()
    print("ready", flush=True)
    sys.stdin.readline()
    took = run(sessions, letters, alone=args.new, rate=args.rate)
    print(json.dumps({"took": took}), flush=True)


if __name__ == "__main__":
    main()
