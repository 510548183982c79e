"""A relay that takes everything, by DATA and BDAT, and after STARTTLS if it has a certificate.

``python -m bench.sink PORT CERTIFICATE``: a process of its own (smtp-sink has neither BDAT nor TLS). ``CERTIFICATE``: a file with the
chain and its key.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

OFFER = b"250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n%b250 SIZE 0\r\n"


@dataclass(slots=True)
class Sink:
    """``taken``: the recipients of the last message."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    taken: list[str] = field(default_factory=list)

    async def start(self, undo: AsyncExitStack) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        undo.callback(server.close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        people: list[str] = []
        starttls = b"250-STARTTLS\r\n" if self.tls is not None else b""
        writer.write(b"220 sink ESMTP\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(OFFER % starttls)
                elif verb == b"STAR" and self.tls is not None:
                    writer.write(b"220 2.0.0 Go on\r\n")
                    await writer.start_tls(self.tls)
                    starttls = b""
                elif verb in (b"DATA", b"BDAT"):
                    if verb == b"DATA":
                        writer.write(b"354 Go on\r\n")
                        while not (await reader.readuntil(b"\r\n")).startswith(b".\r\n"):
                            pass
                    else:
                        await reader.readexactly(int(line.split()[1]))
                    if verb == b"DATA" or line.endswith(b" LAST\r\n"):
                        self.taken, people = people, []
                    writer.write(b"250 2.0.0 Taken\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 2.0.0 Bye\r\n")
                    return
                else:
                    if verb in (b"MAIL", b"RSET"):
                        people = []
                    elif verb == b"RCPT":
                        people.append(line.partition(b"<")[2].partition(b">")[0].decode())
                    writer.write(b"250 2.0.0 Ok\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def main(port: int, certificate: str) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with AsyncExitStack() as undo:
        await Sink(port, tls).start(undo)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
