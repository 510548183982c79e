"""Opening a session with the relay: greeting, TLS and AUTH, and what it is not opened without."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from smtpguard.wire import handshake
from smtpguard.wire.handshake import Route, open_connection
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import Reachability, RelayTarget, Timeouts, Tls
from tests.every import every
from tests.script import CONNECT, DROP, STALL
from tests.scripted_relay import ScriptedRelay
from tests.wire.relayed import BODY, begin, connected, fence_holds


@every("greeting", ["554 5.3.2 Not here", "421 4.3.2 Later", "hello", DROP, "250 Ok"])
async def test_an_invalid_greeting_is_an_error(greeting: object) -> None:
    async with ScriptedRelay() as relay:
        relay.on(CONNECT, greeting if isinstance(greeting, str) and greeting[0] in "245" else b"hello\r\n")
        if greeting is DROP:
            relay.on(CONNECT, DROP)
        with pytest.raises(RelayUnavailable) as error:
            async with connected(relay):
                pass
        assert error.value.reply.code == 451
        assert not error.value.after_dot


async def test_no_listener_is_an_error() -> None:
    async with ScriptedRelay() as relay:
        port = relay.port
    with pytest.raises(RelayUnavailable, match=f"127.0.0.1 port {port}"):
        await open_connection(RelayTarget(port=port, tls=Tls.NONE))


async def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.9", "127.0.0.1"]

    monkeypatch.setattr(handshake, "_addresses", two)
    async with ScriptedRelay() as relay:
        await opened(Route(RelayTarget(host="relay.example.com", port=relay.port, tls=Tls.NONE)))
    with pytest.raises(RelayUnavailable, match=r"connecting to relay\.example\.com port .*: Connection refused"):
        await open_connection(RelayTarget(host="relay.example.com", port=relay.port, tls=Tls.NONE))


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, shares = handshake._connect, list[float]()

    async def two(host: str, port: int) -> list[str]:
        return ["192.0.2.1", "127.0.0.1"]

    async def silent(target: RelayTarget, address: str, seconds: float) -> RelayConnection:
        shares.append(seconds)
        if address == "192.0.2.1":
            raise TimeoutError
        return await reached(target, address, seconds)

    monkeypatch.setattr(handshake, "_addresses", two)
    monkeypatch.setattr(handshake, "_connect", silent)
    async with ScriptedRelay() as relay:
        await opened(Route(RelayTarget(port=relay.port, tls=Tls.NONE, timeouts=Timeouts(connect=100.0))))
    first, second = (round(share, 6) for share in shares)  # differences of times since the machine's start
    assert first <= 50.0
    assert 50.0 < second <= 100.0


async def test_an_address_keeps_its_zone() -> None:
    assert await handshake._addresses("fe80::1%lo", 25) == ["fe80::1%lo"]


async def test_a_name_server_that_does_not_answer_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(host: str, port: int) -> list[str]:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    monkeypatch.setattr(handshake, "_addresses", silent)
    target = RelayTarget(host="relay.example.com", port=25, tls=Tls.NONE, timeouts=Timeouts(connect=0.05))
    with pytest.raises(RelayUnavailable, match=r"looking up the name relay\.example\.com: timed out"):
        await open_connection(target)


# fallbacks


def route(*relays: ScriptedRelay) -> Route:
    first, *others = (RelayTarget(port=relay.port, tls=Tls.NONE) for relay in relays)
    return Route(replace(first, fallbacks=tuple(others)))


async def opened(way: Route) -> None:
    (await way.open()).abort("the test is over")


@pytest.mark.parametrize("fault", ["554 5.3.2 Not here", DROP, STALL])
async def test_the_first_relay_that_answers_is_used(
    fault: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedRelay() as first, ScriptedRelay() as second, ScriptedRelay() as third:
        way = route(first, second, third)
        await opened(way)
        assert (first.sessions, second.sessions, third.sessions) == (1, 0, 0)
        first.on(CONNECT, fault)  # type: ignore[arg-type]
        if fault is STALL:
            monkeypatch.setattr(handshake, "PATIENCE_SECONDS", 0.05)
        opening = asyncio.create_task(opened(way))
        await asyncio.sleep(0)
        monkeypatch.undo()  # for the second: a busy machine may need longer
        await opening
        assert (first.sessions, second.sessions, third.sessions) == (2, 1, 0)
        assert [m.partition(":")[0] for m in caplog.messages] == [
            f"127.0.0.1 port {first.port} cannot be used, the next relay is tried"
        ]


async def test_a_failed_relay_is_avoided_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedRelay() as first, ScriptedRelay() as second:
        way = route(first, second)
        first.on(CONNECT, "421 4.3.2 Later")
        for _ in range(3):
            await opened(way)
        assert (first.sessions, second.sessions) == (1, 3)
        first.forget()
        second.on(CONNECT, "421 4.3.2 Later", times=1)
        await opened(way)
        assert (first.sessions, second.sessions) == (2, 4), "an avoided relay is better than none"
        monkeypatch.setattr(handshake, "AVOID_SECONDS", 0.0)
        first.on(CONNECT, "421 4.3.2 Later")
        way = route(first, second)
        for _ in range(2):
            await opened(way)
        assert (first.sessions, second.sessions) == (4, 6)


async def test_if_all_relays_fail_it_is_down() -> None:
    async with ScriptedRelay() as first, ScriptedRelay() as second:
        target = RelayTarget(port=first.port, tls=Tls.NONE, reachability=Reachability("relay"))
        way = Route(replace(target, fallbacks=(RelayTarget(port=second.port, tls=Tls.NONE),)))
        first.on(CONNECT, "421 4.3.2 Later")
        await opened(way)
        assert target.reachability is not None
        assert target.reachability.found is not None
        assert target.reachability.found[1], "mail goes on"
        for relay in (first, second):
            relay.on(CONNECT, "554 5.3.2 Not here")
        with pytest.raises(RelayUnavailable, match="554"):
            await way.open()
        assert not target.reachability.found[1]


async def test_a_login_is_not_sent_in_clear_to_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedRelay() as first, ScriptedRelay(auth={"anna": "secret"}) as second:
        first.on(CONNECT, DROP)
        far = RelayTarget(host="localhost", port=second.port, tls=Tls.NONE)
        target = RelayTarget(port=first.port, tls=Tls.NONE, fallbacks=(far,))
        monkeypatch.setattr("smtpguard.wire.target.is_loopback", lambda host: host != "localhost")
        with pytest.raises(RelayUnavailable, match="TLS is required"):
            await Route(target.for_clients()).open()


async def test_a_relay_without_ehlo() -> None:
    async with ScriptedRelay() as relay:
        relay.on("EHLO", "502 What?")
        async with connected(relay) as connection:
            assert connection.extensions == {}
            await begin(connection)
        relay.on("HELO", "502 What?")
        with pytest.raises(RelayUnavailable):
            async with connected(relay):
                pass


# TLS


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


def server_tls(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("127.0.0.1", "relay.example"))).configure_cert(context)
    return context


@pytest.mark.parametrize("tls", [Tls.REQUIRE, Tls.OPPORTUNISTIC])
async def test_starttls_is_used(ca: trustme.CA, tmp_path: Path, tls: Tls) -> None:
    async with (
        ScriptedRelay(starttls=server_tls(ca), tls_keywords=["PIPELINING", "DSN"]) as relay,
        connected(relay, tls=tls, ca_file=tmp_path / "ca.pem") as connection,
    ):
        assert connection.tls
        assert set(connection.extensions) == {"PIPELINING", "DSN"}  # the keywords offered under TLS
        await begin(connection)
        big = BODY * 50_000
        assert (await connection.data([big], fence_holds)).code == 250
        assert relay.messages[0].raw == big
        connection.quit()
        await relay.emptied()


async def test_implicit_tls_is_used(ca: trustme.CA, tmp_path: Path) -> None:
    async with (
        ScriptedRelay(implicit=server_tls(ca)) as relay,
        connected(relay, tls=Tls.IMPLICIT, ca_file=tmp_path / "ca.pem", server_name="relay.example") as connection,
    ):
        assert connection.tls
        await begin(connection)
        assert (await connection.data([BODY], fence_holds)).code == 250


def nothing_was_sent(relay: ScriptedRelay) -> None:
    assert not {"MAIL", "AUTH", "RCPT", "DATA"} & set(relay.verbs())


@pytest.mark.parametrize("tls", [Tls.REQUIRE, Tls.IMPLICIT])
async def test_required_tls_that_is_not_offered_sends_nothing(tls: Tls) -> None:
    async with ScriptedRelay() as relay:  # "stripped"
        with pytest.raises(RelayUnavailable):
            async with connected(relay, tls=tls):
                pass
        nothing_was_sent(relay)


async def test_required_tls_that_is_refused_sends_nothing(ca: trustme.CA, tmp_path: Path) -> None:
    async with ScriptedRelay(starttls=server_tls(ca)) as relay:
        relay.on("STARTTLS", "454 4.7.0 Not now")
        with pytest.raises(RelayUnavailable, match="454"):
            async with connected(relay, tls=Tls.REQUIRE, ca_file=tmp_path / "ca.pem"):
                pass
        nothing_was_sent(relay)


@pytest.mark.parametrize("tls", [Tls.REQUIRE, Tls.IMPLICIT])
@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_an_invalid_certificate_sends_nothing(ca: trustme.CA, tmp_path: Path, tls: Tls, wrong: str) -> None:
    context = server_tls(ca, "elsewhere.example") if wrong == "name" else server_tls(trustme.CA())
    implicit, starttls = (context, None) if tls is Tls.IMPLICIT else (None, context)
    async with ScriptedRelay(implicit=implicit, starttls=starttls) as relay:
        with pytest.raises(RelayUnavailable, match="TLS failed"):
            async with connected(relay, tls=tls, ca_file=tmp_path / "ca.pem"):
                pass
        nothing_was_sent(relay)


@pytest.mark.parametrize("named", [True, False])
async def test_an_authority_that_was_added_is_trusted(ca: trustme.CA, tmp_path: Path, named: bool) -> None:
    """Without a restart, from the second connection on."""
    file, added = tmp_path / "ca.pem", trustme.CA()
    async with ScriptedRelay(starttls=server_tls(added)) as relay:
        route = Route(RelayTarget(port=relay.port, tls=Tls.REQUIRE, ca_file=file))
        file.write_bytes(ca.cert_pem.bytes() + added.cert_pem.bytes() if named else b"half of")
        with pytest.raises(RelayUnavailable, match="TLS failed"):
            await route.open()
        if named:
            await opened(route)
            return
        with pytest.raises(RelayUnavailable, match="certificate verify failed"):
            await route.open()


async def test_a_relay_that_leaves_the_tls_handshake_is_named_as_such(ca: trustme.CA, tmp_path: Path) -> None:
    async with ScriptedRelay(starttls=server_tls(ca)) as relay:
        relay.on("STARTTLS", ["220 Ready", DROP])
        with pytest.raises(
            RelayUnavailable, match=r"\(TLS failed: (the connection was lost|Connection reset by peer)\)"
        ):
            async with connected(relay, tls=Tls.REQUIRE, ca_file=tmp_path / "ca.pem"):
                pass


async def test_opportunistic_tls_takes_any_certificate_or_none() -> None:
    async with ScriptedRelay(starttls=server_tls(trustme.CA(), "x.example")) as relay:
        async with connected(relay, tls=Tls.OPPORTUNISTIC) as connection:
            assert connection.tls
        relay.on("STARTTLS", ["220 Ready", b"this is no TLS\r\n" * 10, DROP])
        async with connected(relay, tls=Tls.OPPORTUNISTIC) as connection:
            assert not connection.tls
            await begin(connection)
        relay.on("STARTTLS", "454 4.7.0 Not now")
        async with connected(relay, tls=Tls.OPPORTUNISTIC) as connection:
            assert not connection.tls
            await begin(connection)
    async with ScriptedRelay() as relay, connected(relay, tls=Tls.OPPORTUNISTIC) as connection:
        assert not connection.tls


@pytest.mark.parametrize("tls", [Tls.REQUIRE, Tls.OPPORTUNISTIC])
async def test_replies_injected_before_tls_are_ignored(ca: trustme.CA, tmp_path: Path, tls: Tls) -> None:
    async with ScriptedRelay(starttls=server_tls(ca), tls_keywords=["PIPELINING"]) as relay:
        relay.on("STARTTLS", b"220 Ready\r\n250-evil.example\r\n250-XEVIL\r\n250 PIPELINING\r\n250 Ok\r\n")
        async with connected(relay, tls=tls, ca_file=tmp_path / "ca.pem") as connection:
            assert connection.tls
            assert set(connection.extensions) == {"PIPELINING"}
            await begin(connection)
            assert (await connection.data([BODY], fence_holds)).code == 250


async def test_a_plain_greeting_on_an_implicit_tls_port_is_refused(tmp_path: Path, ca: trustme.CA) -> None:
    async with ScriptedRelay() as relay:
        with pytest.raises(RelayUnavailable):
            async with connected(relay, tls=Tls.IMPLICIT, ca_file=tmp_path / "ca.pem"):
                pass
        assert relay.commands == [] or b"EHLO" not in relay.commands[0]


async def test_the_client_certificate_is_sent(ca: trustme.CA, tmp_path: Path) -> None:
    context = server_tls(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    ours = ca.issue_cert("guard.example")
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    async with (
        ScriptedRelay(starttls=context) as relay,
        connected(
            relay,
            tls=Tls.REQUIRE,
            ca_file=tmp_path / "ca.pem",
            client_certificate=tmp_path / "cert.pem",
            client_key=tmp_path / "key.pem",
        ) as connection,
    ):
        await begin(connection)
        assert relay.client_certificates[0]["subjectAltName"] == (("DNS", "guard.example"),)


# AUTH


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_the_login_is_sent_under_tls(ca: trustme.CA, tmp_path: Path, mechanism: str) -> None:
    keywords = ["PIPELINING"]
    async with ScriptedRelay(keywords=keywords, starttls=server_tls(ca), auth={"guard": "s3cr\u00e4t"}) as relay:
        relay.mechanisms = mechanism
        target = {"tls": Tls.OPPORTUNISTIC, "ca_file": tmp_path / "ca.pem", "user": "guard", "password": "s3cr\u00e4t"}
        async with connected(relay, **target) as connection:
            await begin(connection)
        assert relay.users == ["guard"]
        assert any(line.startswith(b"AUTH " + mechanism.encode()) for line in relay.commands)


async def test_a_password_is_never_sent_or_logged_in_clear(
    ca: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    target = {"user": "guard", "password": "s3cret"}
    for context in (None, server_tls(trustme.CA())):  # STARTTLS stripped, and a man in the middle
        async with ScriptedRelay(starttls=context, auth={"guard": "s3cret"}) as relay:
            for tls in (Tls.OPPORTUNISTIC, Tls.NONE, Tls.REQUIRE):
                with pytest.raises(RelayUnavailable) as error:
                    async with connected(relay, tls=tls, ca_file=tmp_path / "ca.pem", **target):
                        pass
                assert "s3cret" not in repr(error.value) + str(error.value)
            nothing_was_sent(relay)
    assert "s3cret" not in repr(RelayTarget(user="guard", password="s3cret")) + caplog.text


async def test_a_refused_or_missing_login_sends_nothing(ca: trustme.CA, tmp_path: Path) -> None:
    target = {"tls": Tls.REQUIRE, "ca_file": tmp_path / "ca.pem", "user": "guard", "password": "wrong"}
    async with ScriptedRelay(starttls=server_tls(ca), auth={"guard": "right"}) as relay:
        with pytest.raises(RelayUnavailable, match="535") as error:
            async with connected(relay, **target):
                pass
        assert "wrong" not in str(error.value)
        assert "MAIL" not in relay.verbs()
    async with ScriptedRelay(starttls=server_tls(ca)) as relay:
        with pytest.raises(RelayUnavailable, match="neither"):
            async with connected(relay, **target):
                pass
