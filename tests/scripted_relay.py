"""A relay on loopback with scripted answers. It records what it gets, byte by byte.

    async with ScriptedRelay() as relay:
        relay.on("RCPT TO:<bob@", "550 5.1.1 No such user")
        ... relay.port ...
        relay.messages[0].content

The module script describes rules and answers.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.script import BLOCK, CHUNK, CONNECT, DOT, RESET, STALL, Script, wire

KEYWORDS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")


@dataclass
class Message:
    """A message that the relay took. ``raw`` is the dot-stuffed content between 354 and the dot; content that came by
    BDAT is stuffed here. ``content`` is unstuffed."""

    connection: int
    mail: bytes
    rcpts: list[bytes]
    raw: bytes
    before: list[bytes]
    """XFORWARD and other commands since the previous transaction."""
    user: str | None = None

    @property
    def content(self) -> bytes:
        return (b"\r\n" + self.raw).replace(b"\r\n.", b"\r\n")[2:]

    @property
    def recipients(self) -> list[str]:
        """The recipients' addresses, sorted."""
        return sorted(re.findall("<(.*?)>", b" ".join(self.rcpts).decode()))

    def field(self, name: bytes) -> bytes:
        """The first line of a header field, empty if there is none."""
        for line in self.content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            if line.startswith(name + b": "):
                return line.removeprefix(name + b": ")
        return b""


@dataclass
class _Session:
    number: int
    tls: bool = False
    user: str | None = None
    mail: bytes | None = None
    rcpts: list[bytes] = field(default_factory=list)
    before: list[bytes] = field(default_factory=list)
    chunks: bytes = b""
    refused: int = 0


class _Gone(Exception):
    pass


class ScriptedRelay(Script):
    """``lenient``: ends of data that it accepts besides CRLF.CRLF, as some relays do. ``tls_keywords``: the EHLO
    keywords under TLS, if different.

    ``auth``: user -> password or token. AUTH is then offered with ``mechanisms``, by default PLAIN and LOGIN.
    """

    def __init__(
        self,
        *,
        keywords: Iterable[str] = KEYWORDS,
        tls_keywords: Iterable[str] | None = None,
        starttls: ssl.SSLContext | None = None,
        implicit: ssl.SSLContext | None = None,
        auth: Mapping[str, str] | None = None,
        lenient: Iterable[bytes] = (),
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        most_refusals: float = float("inf"),
    ) -> None:
        """``most_refusals``: of recipients, after which it ends the session, as Postfix does after 20."""
        super().__init__()
        self.keywords = tuple(keywords)
        self.tls_keywords = self.keywords if tls_keywords is None else tuple(tls_keywords)
        self.starttls, self.implicit, self.auth = starttls, implicit, dict(auth or {})
        self.mechanisms = "PLAIN LOGIN"
        self.ends = (b"\r\n.\r\n", *lenient)
        self.host, self.port = host, 0
        self.messages: list[Message] = []
        self.commands: list[bytes] = []
        """Command lines of all sessions, without CRLF, in order of arrival."""
        self.sessions = 0
        self.open = self.most_open = 0
        self.users: list[str] = []
        self.responses: list[bytes] = []
        """Responses to AUTH challenges."""
        self.client_certificates: list[dict[str, Any]] = []
        self._receive_buffer, self._most_refusals = receive_buffer, most_refusals
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Event()

    # what arrived

    def verbs(self) -> list[str]:
        return [line.split(b" ")[0].decode("ascii", "replace").upper() for line in self.commands]

    async def arrived(self, n: int = 1) -> None:
        """Wait until ``n`` messages have been taken in all."""
        while len(self.messages) < n:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 120)

    async def saw(self, beginning: bytes) -> None:
        """Wait for a command with this beginning."""
        while not any(line.upper().startswith(beginning.upper()) for line in self.commands):
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 120)

    async def emptied(self) -> None:
        """Wait until no session is open."""
        while self.open:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 120)

    # start and stop

    async def __aenter__(self) -> ScriptedRelay:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. A restarted relay listens on the same port again."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # with IPPROTO_TCP: otherwise asyncio does not set TCP_NODELAY, and every second reply takes 40 ms
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        try:
            listener.bind((self.host, self.port))
        except OSError:
            listener.close()
            raise
        self._server = await asyncio.start_server(self._accepted, sock=listener, ssl=self.implicit, limit=1 << 20)
        self.port = listener.getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and drop every connection."""
        if self._server is not None:
            for listener in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            for _ in range(4):  # turns of the event loop: what is being accepted is made before the server is closed
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        self.drop_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop_all(self) -> None:
        """Drop every connection, and keep listening."""
        for task in tuple(self._tasks):
            task.cancel()

    # internals

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)

        def over(_: object) -> None:  # also if it was cancelled before it began
            self._tasks.discard(task)
            writer.transport.abort()  # not wait_closed(): it never returns after a failed handshake

        task.add_done_callback(over)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        session = _Session(self.sessions, tls=self.implicit is not None)
        try:
            self._note_certificate(writer)
            await self._say(CONNECT, "220 relay.example ESMTP", reader, writer)
            while line := await reader.readline():
                await self._command(line.rstrip(b"\r\n"), session, reader, writer)
        except (_Gone, ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            self._arrived.set()

    async def _command(
        self, line: bytes, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.commands.append(line)
        self._arrived.set()
        verb = line.split(b" ")[0].upper()
        said = await self._say(line.decode("utf-8", "replace"), self._usual(verb, session), reader, writer)
        good = said[:1] in ("2", "3")
        match verb:
            case b"EHLO" | b"HELO" | b"RSET":
                session.mail, session.rcpts, session.before, session.chunks = None, [], [], b""
            case b"MAIL" if good:
                session.mail = line
            case b"RCPT" if good:
                session.rcpts.append(line)
            case b"DATA" if said[:3] == "354":
                await self._data(session, reader, writer)
            case b"BDAT" if not said:
                await self._chunk(line, session, reader, writer)
            case b"STARTTLS" if good and self.starttls is not None:
                await writer.start_tls(self.starttls)
                session.tls, session.mail = True, None
                self._note_certificate(writer)
            case b"AUTH" if not said:
                await self._log_in(line, session, reader, writer)
            case b"QUIT":
                raise _Gone
            case b"RCPT" if (refused := session.refused + 1) < self._most_refusals:
                session.refused = refused
            case b"RCPT":
                await self._say(CONNECT, "421 4.7.0 Too many errors", reader, writer)
                raise _Gone
            case b"MAIL" | b"DATA" | b"BDAT":
                pass
            case _:
                session.before.append(line)

    def _usual(self, verb: bytes, session: _Session) -> str:
        match verb:
            case b"EHLO":
                keywords = list(self.tls_keywords if session.tls else self.keywords)
                if self.starttls is not None and not session.tls:
                    keywords.append("STARTTLS")
                if self.auth:
                    keywords.append(f"AUTH {self.mechanisms}")
                return "\n".join(["250 relay.example", *(f"250 {keyword}" for keyword in keywords)])
            case b"RCPT" if session.mail is None:
                return "503 5.5.1 MAIL first"
            case b"DATA":
                return "354 Go on" if session.rcpts else "554 5.5.1 No valid recipients"
            case b"BDAT" if "CHUNKING" in self.keywords and session.rcpts:
                return ""  # the reply comes once the whole chunk is there
            case b"STARTTLS":
                return "220 2.0.0 Ready" if self.starttls is not None and not session.tls else "502 5.5.1 No TLS here"
            case b"AUTH":
                return "" if self.auth else "502 5.5.1 No AUTH here"
            case b"QUIT":
                return "221 2.0.0 Bye"
            case b"HELO" | b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" | b"XFORWARD":
                return "250 2.0.0 Ok"
        return "502 5.5.1 Unknown command"

    async def _data(self, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b"\r\n"  # the end of the DATA line
        while True:
            found = [(at, end) for end in self.ends if (at := data.find(end)) >= 0]
            if found:
                break
            piece = await reader.read(1 << 16)
            if not piece:
                raise _Gone
            data += piece
            if not any(end in data for end in self.ends):
                await self._say(BLOCK, "", reader, writer)
        at, end = min(found)
        rest = data[at + len(end) :]
        raw = data[2 : at + (2 if end.startswith(b"\r\n") else 1)]
        await self._say(DOT, f"250 2.0.0 Taken as {len(self.messages) + 1}", reader, writer, taking=(session, raw))
        session.mail, session.rcpts, session.before = None, [], []
        for line in rest.split(b"\r\n")[:-1]:  # lines after the end of data, which a smuggler wants to be commands
            await self._command(line, session, reader, writer)

    async def _chunk(
        self, line: bytes, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        left, last = int(line.split()[1]), line.upper().endswith(b" LAST")
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise _Gone
            session.chunks += piece
            left -= len(piece)
            if left:
                await self._say(BLOCK, "", reader, writer)
        if not last:
            await self._say(CHUNK, "250 2.0.0 Go on", reader, writer)
            return
        raw = (b"\r\n" + session.chunks).replace(b"\r\n.", b"\r\n..")[2:]
        await self._say(DOT, f"250 2.0.0 Taken as {len(self.messages) + 1}", reader, writer, taking=(session, raw))
        session.mail, session.rcpts, session.before, session.chunks = None, [], [], b""

    async def _say(
        self,
        point: str,
        usual: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        taking: tuple[_Session, bytes] | None = None,
    ) -> str:
        """Answer by the script, or as usual. Returns the first reply.

        ``taking`` is recorded right before a positive reply is written, or before the connection stalls or drops.
        """
        steps = self.answer(point, usual)
        if taking is not None and not (isinstance(steps[0], str) and steps[0][:1] in "45"):
            session, raw = taking
            self.messages.append(
                Message(session.number, session.mail or b"", session.rcpts, raw, session.before, session.user)
            )
            self._arrived.set()
        said = ""
        for step in steps:
            if isinstance(step, str | bytes):
                octets = wire(step)
                said = said or octets.decode("utf-8", "replace")
                writer.write(octets)
                await writer.drain()
            elif step is STALL:
                await self.resumed()
            else:
                if step is RESET:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise _Gone
        return said

    async def _log_in(
        self, line: bytes, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async def asked(challenge: bytes) -> bytes:
            writer.write(b"334 " + challenge + b"\r\n")
            response = (await reader.readline()).rstrip(b"\r\n")
            self.responses.append(response)
            return b"" if response == b"*" else base64.b64decode(response)

        _, mechanism, *initial = line.split(b" ")
        first = base64.b64decode(initial[0]) if initial else b""
        match mechanism.upper():
            case b"PLAIN":
                user, password = (first or await asked(b"")).decode().split("\x00")[1:]
            case b"LOGIN":
                user = (first or await asked(b"VXNlcm5hbWU6")).decode()
                password = (await asked(b"UGFzc3dvcmQ6")).decode()
            case _:  # tokens: user=NAME^Aauth=Bearer TOKEN^A^A, or n,a=NAME,^Aauth=Bearer TOKEN^A^A
                words = (first or await asked(b"")).decode().split("\x01")
                user, password = words[0].rstrip(",").rpartition("=")[2], words[-3].removeprefix("auth=Bearer ")
                if self.auth.get(user) != password:
                    await asked(base64.b64encode(b'{"status":"401"}'))
        if self.auth.get(user) == password:
            session.user = user
            self.users.append(user)
            writer.write(b"235 2.7.0 Welcome\r\n")
        else:
            writer.write(b"535 5.7.8 No\r\n")

    def _note_certificate(self, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        if tls is not None and (certificate := tls.getpeercert()):
            self.client_certificates.append(certificate)
