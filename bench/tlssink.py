"""``python -m bench.tlssink PORT CERTIFICATE``: a relay that takes everything, by BDAT and after STARTTLS if asked, and keeps nothing
(smtp-sink has neither).

``CERTIFICATE``: a file with the chain and its key.
"""

from __future__ import annotations

import asyncio
import ssl
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext) -> None:
    offer = b"250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-STARTTLS\r\n250 SIZE\r\n"
    writer.write(b"220 sink ESMTP\r\n")
    try:
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                writer.write(offer)
            elif verb == b"STAR":
                writer.write(b"220 2.0.0 Go on\r\n")
                await writer.start_tls(tls)
                offer = offer.replace(b"250-STARTTLS\r\n", b"")
            elif verb == b"DATA":
                writer.write(b"354 Go on\r\n")
                while not (await reader.readuntil(b"\r\n")).startswith(b".\r\n"):
                    pass
                writer.write(b"250 2.0.0 Taken\r\n")
            elif verb == b"BDAT":
                await reader.readexactly(int(line.split()[1]))
                writer.write(b"250 2.0.0 Taken\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 2.0.0 Bye\r\n")
                break
            else:
                writer.write(b"250 2.0.0 Ok\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(port: int, certificate: str) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    server = await asyncio.start_server(lambda r, w: serve(r, w, tls), "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
