"""XOAUTH2 and OAUTHBEARER through smtpguard to a real Postfix with a real Dovecot, which asks a test server about
tokens."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Disposition, Relayed
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.listener import ServerAuth
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import RelayPool, Reservation
from smtpguard.wire.relay import RelayConnection
from tests.peers import dovecot
from tests.peers.chain import logged
from tests.peers.dovecot import Dovecot
from tests.peers.postfix import Postfix
from tests.wire.proxied import Proxied, proxied
from tests.wire.relayed import fence_holds

ANNA = "anna@example.com"
TOKENS = {"fresh": ANNA, "t" * 6000: ANNA, "bos": "bo@example.com"}


@pytest.fixture(scope="module")
def relay(folder: Path) -> Iterator[Postfix]:
    if why := dovecot.missing():
        pytest.skip(why)
    (folder / "postfix").mkdir()
    with Dovecot(folder / "dovecot", TOKENS) as asked:
        main = {
            **asked.parameters,
            "default_transport": "discard",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        }
        with Postfix(folder / "postfix", name="relay", main=main) as relay:
            yield relay


@asynccontextmanager
async def guard(spool: Path, relay: Postfix) -> AsyncIterator[Proxied]:
    there = cast(Any, SimpleNamespace(host="127.0.0.1", port=relay.port))
    made: list[RelayConnection] = []
    auth = ServerAuth(without_tls=True)
    async with proxied(
        spool,
        traced,
        relay=there,
        running=True,
        auth=auth,
        logins=lambda pool: RecordingLogins(pool, Guesses(lambda: 0.0), made),
    ) as world:
        yield world
        for connection in (*made, await world.pool.acquire()):
            connection.abort("the test is over")  # otherwise its event loop ends before QUIT


async def traced(_: Transaction, onward: Onward) -> Disposition:
    """Add a header field, as the guard always does: Postfix refuses BDAT 0."""
    return Relayed(replies=await onward.send(b"X-Guard: tokens\r\n", fence_holds))


class RecordingLogins(Logins):
    def __init__(self, pool: RelayPool, guesses: Guesses, made: list[RelayConnection]) -> None:
        super().__init__(pool, guesses)
        self._made = made

    async def connect(self, client: str = "") -> tuple[RelayConnection, Reservation]:
        connection, place = await super().connect(client)
        self._made.append(connection)
        return connection, place


def token(mechanism: str, user: str, token: str) -> str:
    head = f"user={user}" if mechanism == "XOAUTH2" else f"n,a={user},"
    return base64.b64encode(f"{head}\x01auth=Bearer {token}\x01\x01".encode()).decode()


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("secret", ["fresh", "t" * 6000], ids=["short", "long"])
async def test_a_valid_token_logs_in(mechanism: str, secret: str, tmp_path: Path, relay: Postfix) -> None:
    async with guard(tmp_path, relay) as world:
        client = await world.connect()
        assert "AUTH XOAUTH2 OAUTHBEARER" in await client.ask("EHLO x.example")
        assert (await client.ask(f"AUTH {mechanism} {token(mechanism, ANNA, secret)}")).startswith("235 2.7.0")
        assert (await client.send(b"Subject: x\r\n\r\nx\r\n")).startswith("250")
        assert world.seen[0].session.auth_user == ANNA
    logged(relay, f"sasl_method={mechanism}, sasl_username={ANNA}")


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("secret", ["stale", "bos"])
async def test_an_expired_or_foreign_token_is_refused(
    mechanism: str, secret: str, tmp_path: Path, relay: Postfix
) -> None:
    async with guard(tmp_path, relay) as world:
        client = await world.connect()
        said = await client.ask(f"AUTH {mechanism} {token(mechanism, ANNA, secret)}")
        if said.startswith("334 "):  # the reason, for the client
            assert b'"status":' in base64.b64decode(said[4:])
            said = await client.ask("" if mechanism == "XOAUTH2" else "AQ==")
        assert said.startswith("535 5.7.8")
        assert (await client.ask("MAIL FROM:<anna@example.com>")).startswith("530 5.7.0")
        assert (await client.ask(f"AUTH {mechanism} {token(mechanism, ANNA, 'fresh')}")).startswith("235 2.7.0")
