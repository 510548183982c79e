"""A guard where mail clients log in, in front of a relay that knows their passwords."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from smtpguard.wire.guesses import Guesses
from smtpguard.wire.listener import ServerAuth
from smtpguard.wire.login import Logins
from tests.clocks import Seconds
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import Client, Proxied, proxied, relay_all

ANNA, SECRET = "anna@example.com", "corréct horse"
PEOPLE = {ANNA: SECRET, "bo": "hunter2"}
CLEAR = ServerAuth(without_tls=True)


def coded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(user: str = ANNA, password: str = SECRET, authorize: str = "") -> str:
    return coded(f"{authorize}\0{user}\0{password}")


def xoauth2(token: str = SECRET) -> str:
    return coded(f"user={ANNA}\x01auth=Bearer {token}\x01\x01")


class InstantClock(Seconds):
    """A clock for logins whose sleep returns at once."""

    def __init__(self) -> None:
        self.naps = list[float]()

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@asynccontextmanager
async def submission(
    spool: Path,
    *,
    relay: ScriptedRelay | None = None,
    mechanisms: str = "PLAIN LOGIN XOAUTH2 OAUTHBEARER",
    target: dict[str, Any] | None = None,
    time: InstantClock | None = None,
    decide: Any = relay_all,
    **listener: Any,
) -> AsyncIterator[Proxied]:
    there = relay or ScriptedRelay(auth=PEOPLE)
    there.mechanisms = mechanisms
    time = time or InstantClock()
    async with there:
        listener.setdefault("auth", CLEAR)
        async with proxied(
            spool, decide, relay=there, running=True, target=target, **listener,
            logins=lambda pool: Logins(pool, Guesses(time), sleep=time.sleep),
        ) as world:  # fmt: skip
            yield world


async def start_tls(client: Client, context: ssl.SSLContext) -> None:
    assert (await client.ask("STARTTLS")).startswith("220")
    await client.writer.start_tls(context, server_hostname="localhost")
