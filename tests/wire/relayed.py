"""A connection to the scripted relay, opened by the production code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from smtpguard.wire.handshake import open_connection
from smtpguard.wire.relay import RelayConnection
from smtpguard.wire.target import RelayTarget, Tls
from tests.scripted_relay import ScriptedRelay

BODY = b"Subject: Hello\r\n\r\nA line\r\n..a dot\r\n"
MAIL, RCPT = b"MAIL FROM:<anna@example.com>", b"RCPT TO:<bo@example.net>"


async def fence_holds() -> bool:
    return True


async def fence_fails() -> bool:
    return False


@asynccontextmanager
async def connected(relay: ScriptedRelay, **target: object) -> AsyncIterator[RelayConnection]:
    aim = RelayTarget(**{"port": relay.port, "tls": Tls.NONE, **target})  # type: ignore[arg-type]
    connection = await open_connection(aim)
    try:
        yield connection
    finally:
        connection.abort("the test is over")
        await asyncio.sleep(0)


async def begin(connection: RelayConnection) -> None:
    assert [r.code for r in await connection.pipeline([MAIL, RCPT])] == [250, 250]
