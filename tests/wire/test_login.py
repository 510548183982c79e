"""Logins of mail clients, passed on to the relay: every exchange, every refusal, and a connection of their own."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme

from smtpguard.mail.reply import deferred
from smtpguard.mail.transaction import Onward, Transaction
from smtpguard.policy.verdict import Deferred, Disposition
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.listener import Limits, ServerAuth, ServerTls
from smtpguard.wire.login import Logins
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.target import RelayTarget, Tls
from tests.scripted_relay import DOT, DROP, KEYWORDS, STALL, ScriptedRelay
from tests.wire.proxied import Client, Proxied, pass_on, proxied, until

ANNA, SECRET = "anna@example.com", "corréct horse"
PEOPLE = {ANNA: SECRET, "bo": "hunter2"}
CLEAR = ServerAuth(without_tls=True)


def coded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(user: str = ANNA, password: str = SECRET, authorize: str = "") -> str:
    return coded(f"{authorize}\0{user}\0{password}")


def xoauth2(user: str = ANNA, token: str = SECRET) -> str:
    return coded(f"user={user}\x01auth=Bearer {token}\x01\x01")


class Slept:
    """Time for the logins: asked for, and passed at once."""

    def __init__(self) -> None:
        self.now, self.naps = 1000.0, list[float]()

    def __call__(self) -> float:
        return self.now

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
    time: Slept | None = None,
    decide: Any = pass_on,
    **listener: Any,
) -> AsyncIterator[Proxied]:
    there = relay or ScriptedRelay(auth=PEOPLE)
    there.mechanisms = mechanisms
    time = time or Slept()
    async with there:
        own = RelayTarget(host=there.host, port=there.port, **{"tls": Tls.NONE, **(target or {})})
        logins = Logins(own, Guesses(time), sleep=time.sleep)
        listener.setdefault("auth", CLEAR)
        async with proxied(spool, decide, relay=there, running=True, logins=logins, **listener) as world:
            yield world


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(ca: trustme.CA) -> ServerTls:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    return ServerTls(context=context)


@pytest.fixture(scope="module")
def client_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


async def start_tls(client: Client, context: ssl.SSLContext) -> None:
    assert (await client.ask("STARTTLS")).startswith("220")
    await client.writer.start_tls(context, server_hostname="localhost")


def offered(ehlo: str) -> set[str]:
    return {word for line in ehlo.split("\n") if line[4:].startswith("AUTH ") for word in line[9:].split()}


# what is offered


async def test_offered_over_tls_alone(tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext) -> None:
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


async def test_implicit_tls(tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext) -> None:
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
async def test_offered_is_what_the_relay_offers(theirs: str, ours: set[str], tmp_path: Path) -> None:
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


async def test_a_listener_on_which_nobody_has_to_log_in(tmp_path: Path) -> None:
    async with submission(tmp_path, auth=ServerAuth(required=False, without_tls=True)) as world:
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("250")
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await client.send(b"y\r\n")).startswith("250")
        assert [m.user for m in world.relay.messages] == [None, ANNA]
        assert [t.session.auth_user for t in world.seen] == [None, ANNA]


# the exchanges


@pytest.mark.parametrize(
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
async def test_an_exchange(turns: list[tuple[str, str]], tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        for said, answer in turns:
            assert await client.ask(said) == answer, said
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("503 5.5.1"), "once is enough"
        assert (await client.send(b"x\r\n")).startswith("250")
        assert world.relay.messages[0].user == ANNA
        assert world.seen[0].session.auth_user == ANNA


@pytest.mark.parametrize(
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
async def test_what_is_wrong_never_reaches_the_relay(turns: list[str], answer: str, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        said = [await client.ask(turn) for turn in turns]
        assert said[-1].startswith(answer), said
        assert world.relay.sessions == 1, "only the pool's, for what it offers"
        assert (await client.ask("EHLO x.example", f"AUTH PLAIN {plain()}")).startswith("235")


async def test_not_within_a_transaction(tmp_path: Path) -> None:
    async with submission(tmp_path, auth=ServerAuth(required=False, without_tls=True)) as world:
        client = await world.connect()
        assert (await client.ask("MAIL FROM:<a@example.com>")).startswith("250")
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("503 5.5.1")
        assert (await client.ask("RSET", f"AUTH PLAIN {plain()}")).startswith("235")


@pytest.mark.parametrize("initial", [True, False])
async def test_a_token_as_long_as_they_come(initial: bool, tmp_path: Path) -> None:
    """Longer than a command may be, so it goes to the relay as a response (RFC 4954 section 4)."""
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
async def test_a_client_that_will_not_hear_why_its_token_is_refused(answer: str, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH XOAUTH2 {xoauth2(token='old')}")).startswith("334 ")
        assert await client.ask(answer) == "535 5.7.8 No"
        assert world.relay.responses == [b"*"]


async def test_whose_password_it_is_not_whose_name_is_asked_for(tmp_path: Path) -> None:
    """A relay that makes nothing of an authorization identity would accept it for anybody's."""
    async with submission(tmp_path) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain('bo', 'hunter2', authorize='boss@example.com')}")).startswith(
            "235"
        )
        await client.send(b"x\r\n")
        assert world.seen[0].session.auth_user == "bo"


# the relay's word


@pytest.mark.parametrize(
    "answer",
    ["535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6", "454 4.7.0 Temporary authentication failure",
     "534 5.7.9 Log in with your browser\n534 5.7.9 and try again", "530 5.7.0 Must issue a STARTTLS command first"],
)  # fmt: skip
async def test_a_refusal_is_the_relays_word_for_word(answer: str, tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        world.relay.on("AUTH", answer)
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).replace("-", " ") == answer.replace("-", " ")
        world.relay.forget()
        await until(lambda: world.relay.open == 1)  # the pool's: who is refused sits on none of the relay's connections
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert world.relay.open == 2


async def test_a_relay_that_parts_from_who_guesses(tmp_path: Path) -> None:
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


async def test_a_relay_that_is_away(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await world.relay.stop()
        assert await client.ask(f"AUTH PLAIN {plain()}") == "454 4.7.0 Temporary authentication failure"
        await world.relay.start()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")


async def test_a_relay_that_is_silent(tmp_path: Path) -> None:
    async with submission(tmp_path, target={"wait_seconds": 0.05}) as world:
        client = await world.connect()
        world.relay.on("<connect>", STALL)
        assert await client.ask(f"AUTH PLAIN {plain()}") == "454 4.7.0 Temporary authentication failure"


async def test_a_mechanism_that_the_relay_offers_no_more(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        world.relay.mechanisms = "CRAM-MD5"
        assert await client.ask(f"AUTH PLAIN {plain()}") == "454 4.7.0 Temporary authentication failure"


# a connection of its own


async def test_its_mail_goes_over_its_own_connection(tmp_path: Path) -> None:
    async with submission(tmp_path, target={"connections": 1, "messages_per_connection": 1}) as world:
        anna, bo = await world.connect(), await world.connect()
        assert (await anna.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await bo.ask(f"AUTH PLAIN {plain('bo', 'hunter2')}")).startswith("235")
        for _ in range(3):
            for client in (anna, bo):
                assert (await client.send(b"x\r\n")).startswith("250")
        by_user = {(m.user, m.connection) for m in world.relay.messages}
        assert {user for user, _ in by_user} == {ANNA, "bo"}
        assert len(by_user) == 2, "the limits of the pool are not theirs"
        assert world.pool.size <= 1
        for client in (anna, bo):
            assert (await client.ask("QUIT")).startswith("221")
        await until(lambda: world.relay.open <= 1)


async def test_what_is_given_up_is_reset_there(tmp_path: Path) -> None:
    async def defer(_: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return Deferred(reply=deferred("Not now"))

    relay = ScriptedRelay(auth=PEOPLE, keywords=("SIZE", "8BITMIME"))  # no PIPELINING: RSET has its own reply
    async with submission(tmp_path, relay=relay, decide=defer) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}")
        assert (await client.send(b"x\r\n")).startswith("451")
        assert (await client.ask("MAIL FROM:<a@example.com>")).startswith("250")
        assert (await client.ask("RSET", "MAIL FROM:<b@example.com>")).startswith("250")
        said = [line for line in relay.verbs() if line in ("MAIL", "RSET")]
        assert said == ["MAIL", "RSET", "MAIL", "RSET", "MAIL"]


async def test_who_dawdles_keeps_it(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        world.pass_time(10)
        assert (await client.ask("DATA")).startswith("354")
        assert "RSET" not in world.relay.verbs()


async def test_a_connection_that_the_relay_ends_ends_the_clients(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}")
        world.relay.drop_all()
        assert (await client.hear_end()).startswith(b"421 4.4.2 The connection to the relay was lost")
        again = await world.connect()
        assert (await again.ask("MAIL FROM:<a@example.com>")).startswith("530"), "nobody logs in again for it"


@pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA", DOT])
async def test_lost_in_a_transaction_is_a_451_and_then_421(point: str, tmp_path: Path) -> None:
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


async def test_a_reset_that_is_refused_is_the_end(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}", "MAIL FROM:<a@example.com>")
        world.relay.on("RSET", "451 4.3.0 No")
        assert (await client.ask("RSET")).startswith("250")
        assert (await client.hear_end()).startswith(b"421 4.4.2")


async def test_starttls_is_not_for_who_logged_in_before(tmp_path: Path, server_tls: ServerTls) -> None:
    async with submission(tmp_path, tls=server_tls) as world:
        client = await world.connect()
        await client.ask(f"AUTH PLAIN {plain()}")
        assert (await client.ask("STARTTLS")).startswith("503 5.5.1")


async def test_a_refused_login_is_forgotten_with_tls(
    tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext
) -> None:
    async with submission(tmp_path, tls=server_tls) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain(password='wrong')}")).startswith("535")
        await start_tls(client, client_tls)
        await until(lambda: world.relay.open == 1)
        assert (await client.ask("EHLO x.example", f"AUTH PLAIN {plain()}")).startswith("235")


# over what it may go


async def test_to_another_machine_only_over_tls() -> None:
    far = RelayTarget(host="192.0.2.1", user="guard", password="secret")
    assert far.for_clients().tls is Tls.REQUIRE
    assert far.for_clients().user is far.for_clients().password is None
    assert RelayTarget(host="192.0.2.1", clients_without_tls=True).for_clients().tls is Tls.OPPORTUNISTIC
    assert RelayTarget(host="192.0.2.1", tls=Tls.IMPLICIT).for_clients().tls is Tls.IMPLICIT
    for near in ("127.0.0.1", "::1", "localhost"):
        assert RelayTarget(host=near).for_clients().tls is Tls.OPPORTUNISTIC


async def test_what_the_settings_forgot_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedRelay(auth=PEOPLE) as relay:
        target = RelayTarget(host="127.0.0.1", port=relay.port, tls=Tls.NONE)
        monkeypatch.setattr("smtpguard.wire.target.is_loopback", lambda _: False)
        with pytest.raises(RelayUnavailable, match="in clear"):
            await Logins(target, Guesses(lambda: 0.0)).connect()
        await relay.emptied()
        assert "AUTH" not in relay.verbs()


# guessing, and secrets


async def test_who_guesses_waits(tmp_path: Path) -> None:
    time = Slept()
    async with submission(tmp_path, time=time, limits=Limits(errors=100)) as world:
        client = await world.connect()
        for n in range(8):
            assert (await client.ask(f"AUTH PLAIN {plain(password=f'guess {n}')}")).startswith("535")
        assert time.naps == [1, 2, 4, 8, 15]
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert len(time.naps) == 6, "also who is right at last"


async def test_who_guesses_too_much_is_not_passed_on(tmp_path: Path) -> None:
    time = Slept()
    held = asyncio.Event()

    async def sleep(_: float) -> None:
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


async def test_a_trusted_peers_address_is_not_counted(tmp_path: Path) -> None:
    time = Slept()
    async with submission(tmp_path, time=time, trust=(ip_network("127.0.0.0/8"),), limits=Limits(errors=100)) as world:
        client = await world.connect()
        for n in range(8):
            await client.ask(f"AUTH PLAIN {plain(user=f'user{n}', password='guess')}")
        assert time.naps == []


async def test_wrong_logins_are_errors(tmp_path: Path) -> None:
    async with submission(tmp_path, limits=Limits(errors=2)) as world:
        client = await world.connect()
        for _ in range(2):
            assert (await client.ask(f"AUTH PLAIN {plain(password='wrong')}")).startswith("535")
        assert (await client.ask(f"AUTH PLAIN {plain(password='wrong')}")).startswith("421 4.7.0")
        assert await client.hear_end() == b""


async def test_no_secret_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


async def test_a_client_that_goes_away_in_the_exchange(tmp_path: Path) -> None:
    async with submission(tmp_path) as world:
        client = await world.connect()
        assert await client.ask("AUTH PLAIN") == "334 "
        client.close()
        await until(lambda: world.reception.connections == 0)
        silent = await world.connect()
        assert await silent.ask("AUTH PLAIN") == "334 "
        world.pass_time(301)
        assert (await silent.hear_end()).startswith(b"421 4.4.2 Timeout")


def test_keywords_of_this_file() -> None:
    assert not any(word.startswith("AUTH") for word in KEYWORDS), "or a relay without AUTH would not be one"
