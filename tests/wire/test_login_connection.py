"""The relay connection of a client that logged in: what goes over it, when it ends, and when a login does not use it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.mail.reply import deferred
from smtpguard.policy.verdict import Deferred, Disposition
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.listener import ServerTls
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.target import RelayTarget, Tls
from tests.script import DOT, DROP
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import until
from tests.wire.submitting import ANNA, PEOPLE, plain, start_tls, submission


async def test_mail_of_a_login_uses_its_own_connection(tmp_path: Path) -> None:
    async with submission(tmp_path, target={"connections": 4, "messages_per_connection": 1}) as world:
        anna, bo = await world.connect(), await world.connect()
        assert (await anna.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await bo.ask(f"AUTH PLAIN {plain('bo', 'hunter2')}")).startswith("235")
        for _ in range(3):
            for client in (anna, bo):
                assert (await client.send(b"x\r\n")).startswith("250")
        by_user = {(m.user, m.connection) for m in world.relay.messages}
        assert {user for user, _ in by_user} == {ANNA, "bo"}
        assert len(by_user) == 2, "each login has its own connection, for more messages than a pooled one"
        assert 2 <= world.pool.size <= 3
        for client in (anna, bo):
            assert (await client.ask("QUIT")).startswith("221")
        await until(lambda: world.relay.open <= 1)
        assert world.pool.size <= 1, "their places are free again"


async def test_connections_of_logins_count_for_the_limit(tmp_path: Path) -> None:
    """Connections of logins count towards the limit. A login that is idle while others wait loses its connection."""
    async with submission(tmp_path, target={"connections": 2, "client_share": 1.0}) as world:
        anna, bo = await world.connect(), await world.connect()
        assert (await anna.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await bo.ask(f"AUTH PLAIN {plain('bo', 'hunter2')}")).startswith("235")
        assert world.relay.open == 2
        third = await world.connect()
        third.say(f"AUTH PLAIN {plain()}\r\n".encode())
        await until(lambda: world.pool.waiting)
        world.pass_time(15)
        assert (await bo.send(b"x\r\n")).startswith("250"), "it is not quiet"
        world.pass_time(10)
        assert (await anna.hear_end()).startswith(b"421 4.4.2")
        assert (await third.hear()).startswith("235")
        assert world.relay.open == 2


async def test_one_login_cannot_take_all_connections(tmp_path: Path) -> None:
    async with submission(tmp_path, target={"connections": 4, "wait_seconds": 1}) as world:
        annas = [await world.connect() for _ in range(3)]
        said = [(await each.ask(f"AUTH PLAIN {plain()}"))[:3] for each in annas]
        assert said == ["235", "235", "454"], "half of four"
        assert (await (await world.connect()).ask(f"AUTH PLAIN {plain('bo', 'hunter2')}")).startswith("235")


async def test_an_aborted_transaction_is_reset_there(tmp_path: Path) -> None:
    async def defer(_: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return Deferred(reply=deferred("Not now"))

    relay = ScriptedRelay(auth=PEOPLE, keywords=("SIZE", "8BITMIME"))  # without PIPELINING, RSET is sent alone
    async with submission(tmp_path, relay=relay, decide=defer) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}")
        assert (await client.send(b"x\r\n")).startswith("451")
        assert (await client.ask("MAIL FROM:<a@example.com>", "RCPT TO:<c@example.net>")).startswith("250")
        assert (await client.ask("RSET", "MAIL FROM:<b@example.com>", "RCPT TO:<c@example.net>")).startswith("250")
        said = [line for line in relay.verbs() if line in ("MAIL", "RSET")]
        assert said == ["MAIL", "RSET", "MAIL", "RSET", "MAIL"]


async def test_a_connection_that_was_asked_to_take_content_ends_without_it(tmp_path: Path) -> None:
    async def defer(_: Transaction, onward: Onward) -> Disposition:
        onward.begin()
        await onward.abandon()
        return Deferred(reply=deferred("Not now"))

    async with submission(tmp_path, decide=defer) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await client.send(b"x\r\n")).startswith("451")
        assert (await client.hear_end()).startswith(b"421 4.4.2")
        await until(lambda: world.pool.size == world.pool.idle)
        assert not world.relay.messages


async def test_a_slow_client_keeps_its_connection(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        world.pass_time(10)
        assert (await client.ask("DATA")).startswith("354")
        assert "RSET" not in world.relay.verbs()


async def test_if_the_relay_closes_it_the_client_gets_421(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}")
        world.relay.drop_all()
        assert (await client.hear_end()).startswith(b"421 4.4.2 The connection to the relay was lost")
        again = await world.connect()
        assert (await again.ask("MAIL FROM:<a@example.com>")).startswith("530"), "the login is not repeated"


@pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA", DOT])
async def test_lost_in_a_transaction_gives_451_and_then_421(point: str, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}")
        world.relay.on(point, DROP)
        client.say(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n")
        heard = [await client.hear(), await client.hear()]
        if point in ("DATA", DOT):
            assert (await client.ask("DATA")).startswith("354")
            client.say(b"x\r\n.\r\n")
            heard.append(await client.hear())
        assert any(said.startswith("451 4.4.2") for said in heard), heard
        assert (await client.hear_end()).startswith(b"421 4.4.2")
        assert world.relay.verbs().count("AUTH") == 1


async def test_a_refused_reset_ends_it(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        world.relay.on("RSET", "451 4.3.0 No")
        assert (await client.ask("RSET")).startswith("250")
        assert (await client.hear_end()).startswith(b"421 4.4.2")


async def test_starttls_after_a_login_is_refused(tmp_path: Path, server_tls: ServerTls) -> None:
    async with submission(tmp_path, tls=server_tls) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}")
        assert (await client.ask("STARTTLS")).startswith("503 5.5.1")


async def test_a_failed_login_is_forgotten_with_starttls(
    tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext
) -> None:
    async with submission(tmp_path, tls=server_tls) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain(password='wrong')}")).startswith("535")
        await start_tls(client, client_tls)
        await until(lambda: world.relay.open == 1)
        assert (await client.ask("EHLO x.example", f"AUTH PLAIN {plain()}")).startswith("235")


async def test_logins_to_another_machine_need_tls() -> None:
    far = RelayTarget(host="192.0.2.1", user="guard", password="secret")
    assert far.for_clients().tls is Tls.REQUIRE
    assert far.for_clients().user is far.for_clients().password is None
    assert RelayTarget(host="192.0.2.1", clients_without_tls=True).for_clients().tls is Tls.OPPORTUNISTIC
    assert RelayTarget(host="192.0.2.1", tls=Tls.IMPLICIT).for_clients().tls is Tls.IMPLICIT
    for near in ("127.0.0.1", "::1", "localhost"):
        assert RelayTarget(host=near).for_clients().tls is Tls.OPPORTUNISTIC


async def test_a_login_without_required_tls_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedRelay(auth=PEOPLE) as relay:
        target = RelayTarget(host="127.0.0.1", port=relay.port, tls=Tls.NONE)
        monkeypatch.setattr("smtpguard.wire.target.is_loopback", lambda _: False)
        with pytest.raises(RelayUnavailable, match="TLS is required"):
            await Logins(RelayPool(target), Guesses(lambda: 0.0)).connect()
        await relay.emptied()
        assert "AUTH" not in relay.verbs()
