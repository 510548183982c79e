"""Logins of mail clients, which the relay checks: what is offered, each exchange, each refusal, and guessing."""

from __future__ import annotations

import asyncio
import logging
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from smtpguard.wire.listener import Limits, ServerAuth, ServerTls
from tests.every import every
from tests.script import DROP, STALL
from tests.scripted_relay import KEYWORDS, ScriptedRelay
from tests.wire.proxied import until
from tests.wire.submitting import ANNA, CLEAR, SECRET, InstantClock, coded, plain, start_tls, submission, xoauth2


def offered(ehlo: str) -> set[str]:
    return {word for line in ehlo.split("\n") if line[4:].startswith("AUTH ") for word in line[9:].split()}


# what is offered


async def test_auth_is_offered_over_tls_only(tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext) -> None:
    async with submission(tmp_path, tls=server_tls, auth=ServerAuth()) as world:
        client = await world.connect()
        assert offered(await client.ask("EHLO x.example")) == set()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("538 5.7.11")
        assert (await client.ask("MAIL FROM:<anna@example.com>")).startswith("530 5.7.0 Must issue a STARTTLS")
        await start_tls(client, client_tls)
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("503"), "everything said before TLS is forgotten"
        assert offered(await client.ask("EHLO x.example")) == {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"}
        assert (await client.ask("MAIL FROM:<anna@example.com>")).startswith("530 5.7.0 Authentication required")
        assert (await client.ask(f"AUTH PLAIN {plain()}")) == "235 2.7.0 Welcome"
        assert offered(await client.ask("EHLO x.example")) == set()
        assert (await client.send(b"x\r\n")).startswith("250")
        assert world.relay.messages[0].user == ANNA
        assert world.seen[0].session.auth_user == ANNA
        assert world.seen[0].session.tls


@every(("verified", "own"), [(True, True), (False, False)])
async def test_a_login_where_senders_are_verified_is_that_of_the_mta(tmp_path: Path, verified: bool, own: bool) -> None:
    async with submission(tmp_path, auth=CLEAR, senders_verified=verified) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain()}")) == "235 2.7.0 Welcome"
        assert (await client.send(b"x\r\n")).startswith("250")
        assert world.seen[0].session.mta_login is own


async def test_auth_over_implicit_tls(tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext) -> None:
    implicit = ServerTls(context=server_tls.context, implicit=True)
    async with submission(tmp_path, tls=implicit, auth=ServerAuth()) as world:
        client = await world.connect(tls=client_tls)
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("PLAIN", {"PLAIN"}),
        ("LOGIN CRAM-MD5 SCRAM-SHA-256 GSSAPI", {"LOGIN"}),
        ("DIGEST-MD5 NTLM", set()),
        ("xoauth2 plain", {"PLAIN", "XOAUTH2"}),
    ],
)
async def test_the_relays_mechanisms_are_offered(theirs: str, ours: set[str], tmp_path: Path) -> None:
    async with submission(tmp_path, mechanisms=theirs) as world:
        client = await world.connect()
        assert offered(await client.ask("EHLO x.example")) == ours
        for name in ("PLAIN", "LOGIN", "CRAM-MD5"):
            if name not in ours:
                assert (await client.ask(f"AUTH {name}")).startswith("504 5.5.4")


async def test_a_relay_without_auth(tmp_path: Path) -> None:
    async with submission(tmp_path, relay=ScriptedRelay()) as world:
        client = await world.connect()
        assert offered(await client.ask("EHLO x.example")) == set()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("504")
        assert (await client.ask("MAIL FROM:<anna@example.com>")).startswith("530 5.7.0 Authentication required")


async def test_a_listener_with_optional_login(tmp_path: Path) -> None:
    async with submission(tmp_path, auth=ServerAuth(required=False, without_tls=True)) as world:
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("250")
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await client.send(b"y\r\n")).startswith("250")
        assert [m.user for m in world.relay.messages] == [None, ANNA]
        assert [t.session.auth_user for t in world.seen] == [None, ANNA]


# the exchanges


@every(
    "turns",
    [
        [(f"AUTH PLAIN {plain()}", "235 2.7.0 Welcome")],
        [(f"auth plain {plain()}", "235 2.7.0 Welcome")],
        [(f"AUTH PLAIN {plain(authorize=ANNA)}", "235 2.7.0 Welcome")],
        [("AUTH PLAIN", "334 "), (plain(), "235 2.7.0 Welcome")],
        [("AUTH LOGIN", "334 VXNlcm5hbWU6"), (coded(ANNA), "334 UGFzc3dvcmQ6"), (coded(SECRET), "235 2.7.0 Welcome")],
        [(f"AUTH LOGIN {coded(ANNA)}", "334 UGFzc3dvcmQ6"), (coded(SECRET), "235 2.7.0 Welcome")],
        [(f"AUTH XOAUTH2 {xoauth2()}", "235 2.7.0 Welcome")],
        [("AUTH XOAUTH2", "334 "), (xoauth2(), "235 2.7.0 Welcome")],
        [(f"AUTH OAUTHBEARER {coded(f'n,a={ANNA},{chr(1)}auth=Bearer {SECRET}{chr(1)}{chr(1)}')}", "235 2.7.0 Welcome")],
        [(f"AUTH PLAIN {plain(password='wrong')}", "535 5.7.8 No"), (f"AUTH PLAIN {plain()}", "235 2.7.0 Welcome")],
        [
            (f"AUTH XOAUTH2 {xoauth2(token='old')}", "334 eyJzdGF0dXMiOiI0MDEifQ=="),
            ("", "535 5.7.8 No"),
            (f"AUTH XOAUTH2 {xoauth2()}", "235 2.7.0 Welcome"),
        ],
        [("AUTH PLAIN", "334 "), ("*", "501 5.7.0 Authentication cancelled"), (f"AUTH PLAIN {plain()}", "235 2.7.0 Welcome")],
    ],
)  # fmt: skip
async def test_each_mechanisms_exchange(turns: list[tuple[str, str]], tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        for said, answer in turns:
            assert await client.ask(said) == answer, said
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("503 5.5.1"), "once is enough"
        assert (await client.send(b"x\r\n")).startswith("250")
        assert world.relay.messages[0].user == ANNA
        assert world.seen[0].session.auth_user == ANNA


@every(
    ("turns", "answer"),
    [
        (["AUTH"], "501 5.5.4"),
        (["AUTH "], "501 5.5.4"),
        (["AUTH PLAIN a b"], "501 5.5.2"),
        (["AUTH PLAIN %%%"], "501 5.5.2"),
        (["AUTH PLAIN abc"], "501 5.5.2"),
        (["AUTH PLAIN ="], "501 5.5.2"),
        (["AUTH PLAIN", "abc"], "501 5.5.2"),
        (["AUTH PLAIN", "not base64"], "501 5.5.2"),
        (["AUTH PLAIN", ""], "501 5.5.2"),
        ([f"AUTH PLAIN {coded(ANNA)}"], "501 5.5.2"),
        ([f"AUTH PLAIN {coded(chr(0) + ANNA + chr(0))}"], "501 5.5.2"),
        ([f"AUTH PLAIN {coded(b'%canna%c%cX%cx' % (0, 13, 10, 0))}"], "501 5.5.2"),
        ([f"AUTH PLAIN {coded(b'%c%c%c%cx' % (0, 255, 254, 0))}"], "501 5.5.2"),
        ([f"AUTH PLAIN {plain(user='x' * 256)}"], "501 5.5.2"),
        (["AUTH LOGIN ="], "501 5.5.2"),
        (["AUTH LOGIN", "*"], "501 5.7.0"),
        (["AUTH LOGIN", coded(ANNA), "*"], "501 5.7.0"),
        (["AUTH LOGIN", coded(ANNA), "?"], "501 5.5.2"),
        ([f"AUTH XOAUTH2 {coded('auth=Bearer x')}"], "501 5.5.2"),
        ([f"AUTH OAUTHBEARER {coded('n,,' + chr(1) + 'auth=Bearer x' + chr(1) * 2)}"], "501 5.5.2"),
        (["AUTH PLAIN", "x" * 12_300], "500 5.5.6"),
        (["AUTH PLAIN " + "x" * 12_300], "500 5.5.2"),
        (["AUTH KERBEROS_V4"], "504 5.5.4"),
        (["MAIL FROM:<a@example.com>"], "530 5.7.0"),
        (["HELO x.example", f"AUTH PLAIN {plain()}"], "503 5.5.1"),
    ],
)  # fmt: skip
async def test_invalid_credentials_never_reach_the_relay(turns: list[str], answer: str, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        said = [await client.ask(turn) for turn in turns]
        assert said[-1].startswith(answer), said
        assert world.relay.sessions == 1, "only the pool's connection, to learn the extensions"
        assert (await client.ask("EHLO x.example", f"AUTH PLAIN {plain()}")).startswith("235")


async def test_auth_within_a_transaction_is_refused(tmp_path: Path) -> None:
    async with submission(tmp_path, auth=ServerAuth(required=False, without_tls=True)) as world:
        client = await world.connect()
        assert (await client.ask("MAIL FROM:<a@example.com>")).startswith("250")
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("503 5.5.1")
        assert (await client.ask("RSET", f"AUTH PLAIN {plain()}")).startswith("235")


@pytest.mark.parametrize("initial", [True, False])
async def test_a_long_token_is_sent_as_a_response(initial: bool, tmp_path: Path) -> None:
    """A token that is longer than a command may be goes to the relay as a response (RFC 4954, section 4)."""
    long = "t" * 9000
    async with submission(tmp_path, relay=ScriptedRelay(auth={ANNA: long})) as world:
        client = await world.connect()
        response = xoauth2(token=long)
        if initial:
            assert (await client.ask(f"AUTH XOAUTH2 {response}")).startswith("235")
        else:
            assert await client.ask("AUTH XOAUTH2") == "334 "
            assert (await client.ask(response)).startswith("235")
        assert b"AUTH XOAUTH2" in world.relay.commands
        assert world.relay.responses == [response.encode()]


@pytest.mark.parametrize("answer", ["*", "not base64"])
async def test_a_client_that_cancels_after_a_refused_token(answer: str, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH XOAUTH2 {xoauth2(token='old')}")).startswith("334 ")
        assert await client.ask(answer) == "535 5.7.8 No"
        assert world.relay.responses == [b"*"]


async def test_the_authorization_identity_is_ignored(tmp_path: Path) -> None:
    """The login counts under the authenticated name, not under the authorization identity, which some relays ignore."""
    async with submission(tmp_path) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain('bo', 'hunter2', authorize='boss@example.com')}")).startswith(
            "235"
        )
        await client.send(b"x\r\n")
        assert world.seen[0].session.auth_user == "bo"


# the relay's reply


@pytest.mark.parametrize(
    "answer",
    ["535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6", "454 4.7.0 Temporary authentication failure",
     "534 5.7.9 Log in with your browser\n534 5.7.9 and try again", "530 5.7.0 Must issue a STARTTLS command first"],
)  # fmt: skip
async def test_the_relays_refusal_is_passed_on_verbatim(answer: str, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        world.relay.on("AUTH", answer)
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).replace("-", " ") == answer.replace("-", " ")
        world.relay.forget()
        await until(lambda: world.relay.open == 1)  # the pool's own: a refused login keeps no relay connection
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert world.relay.open == 2


async def test_a_relay_that_disconnects_after_guesses(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        world.relay.on("AUTH", ["421 4.7.0 Too many errors", DROP])
        client = await world.connect()
        assert await client.ask(f"AUTH PLAIN {plain()}") == "421 4.7.0 Too many errors"
        assert await client.hear_end() == b""


@pytest.mark.parametrize("answer", [DROP, "250 2.0.0 What?", "334 bW9yZQ==", b"garbage\r\n"], ids=str)
async def test_a_relay_that_does_not_answer_auth(answer: Any, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        world.relay.on("AUTH", answer)
        client = await world.connect()
        assert await client.ask(f"AUTH PLAIN {plain()}") == "454 4.7.0 Temporary authentication failure"
        world.relay.forget()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")


async def test_an_unreachable_relay_gives_454(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await world.relay.stop()
        assert await client.ask(f"AUTH PLAIN {plain()}") == "454 4.7.0 Temporary authentication failure"
        await world.relay.start()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")


async def test_a_silent_relay_gives_454(tmp_path: Path) -> None:
    async with submission(tmp_path, target={"wait_seconds": 0.05}) as world:
        client = await world.connect()
        world.relay.on("<connect>", STALL)
        assert await client.ask(f"AUTH PLAIN {plain()}") == "454 4.7.0 Temporary authentication failure"


async def test_a_mechanism_no_longer_offered_gives_454(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        world.relay.mechanisms = "CRAM-MD5"
        assert await client.ask(f"AUTH PLAIN {plain()}") == "454 4.7.0 Temporary authentication failure"


# guessing, and secrets


async def test_guesses_are_delayed(tmp_path: Path) -> None:
    time = InstantClock()
    async with submission(tmp_path, time=time, limits=Limits(errors=100)) as world:
        client = await world.connect()
        for n in range(8):
            assert (await client.ask(f"AUTH PLAIN {plain(password=f'guess {n}')}")).startswith("535")
        assert time.naps == [1, 2, 4, 8, 15]
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert len(time.naps) == 6, "the right password is delayed too"


async def test_excessive_guesses_are_not_passed_on(tmp_path: Path) -> None:
    time = InstantClock()
    held = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await held.wait()

    time.sleep = sleep  # type: ignore[method-assign]
    async with submission(tmp_path, time=time, limits=Limits(errors=100)) as world:
        first = await world.connect()
        for n in range(3):
            await first.ask(f"AUTH PLAIN {plain(password=f'guess {n}')}")
        clients = [await world.connect() for _ in range(40)]
        for n, client in enumerate(clients):
            client.say(f"AUTH PLAIN {plain(password=f'more {n}')}\r\n".encode())
        said = await clients[-1].hear()
        assert said.startswith("454 4.7.0 Too many failed logins")
        assert world.relay.verbs().count("AUTH") == 3
        held.set()


async def test_a_trusted_peers_address_is_not_delayed(tmp_path: Path) -> None:
    time = InstantClock()
    async with submission(tmp_path, time=time, trust=(ip_network("127.0.0.0/8"),), limits=Limits(errors=100)) as world:
        client = await world.connect()
        for n in range(8):
            await client.ask(f"AUTH PLAIN {plain(user=f'user{n}', password='guess')}")
        assert time.naps == []


async def test_failed_logins_count_as_errors(tmp_path: Path) -> None:
    async with submission(tmp_path, limits=Limits(errors=2)) as world:
        client = await world.connect()
        for _ in range(2):
            assert (await client.ask(f"AUTH PLAIN {plain(password='wrong')}")).startswith("535")
        assert (await client.ask(f"AUTH PLAIN {plain(password='wrong')}")).startswith("421 4.7.0")
        assert await client.hear_end() == b""


async def test_no_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with submission(tmp_path, limits=Limits(errors=100)) as world:
        client = await world.connect()
        for answer in ("535 5.7.8 No", DROP, "334 bW9yZQ=="):
            world.relay.on("AUTH", answer)
            await client.ask(f"AUTH PLAIN {plain()}")
        world.relay.forget()
        await client.ask(f"AUTH LOGIN {coded(ANNA)}")
        await client.ask(coded(SECRET))
        await client.send(b"x\r\n")
        shown = caplog.text + repr(world.seen) + repr(vars(world.reception.logins))
    for secret in (SECRET, coded(SECRET), plain()):
        assert secret not in shown


async def test_a_client_that_disconnects_during_the_exchange(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        assert await client.ask("AUTH PLAIN") == "334 "
        client.close()
        await until(lambda: world.reception.connections == 0)
        silent = await world.connect()
        assert await silent.ask("AUTH PLAIN") == "334 "
        world.pass_time(301)
        assert (await silent.hear_end()).startswith(b"421 4.4.2 Timeout")


def test_the_default_relay_offers_no_auth() -> None:
    assert not any(word.startswith("AUTH") for word in KEYWORDS), "the default relay has no AUTH"
