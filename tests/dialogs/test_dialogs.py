"""Replays the golden dialogs in this folder: lines of the client (C), our answers (S), and commands to the relay (R).

A `.dialog` file is read line by line; `#` begins a comment. Backslash escapes (\\r \\n \\0 \\x..) denote octets.

    limits: recipients=2                 settings of the listener's limits
    trust                                the client is a trusted peer
    tls: starttls | implicit             the listener has a certificate
    auth: required | offered             clients may log in, over TLS; followed by `without-tls`: also in clear
    relay knows: anna@example.com secret  a login and its password at the relay
    relay offers: SIZE 100, DSN          the relay's EHLO
    relay: RCPT TO:<bob@ => 550 5.1.1 No such user         the relay's answer to commands that begin so, to <chunk> or <dot>
    verdict: relay | hold | reject SENTENCE | defer SENTENCE

    C: EHLO client.example               a line, ended by CRLF
    c: Subject: x\\r\\n                    octets as they are
    C: <handshake>                       TLS from here on
    S: 250 ...                           our whole line; `...` at its end matches anything
    S: <closed>                          we close
    R: MAIL FROM:<anna@example.com>      the next command to the relay, apart from EHLO and QUIT
    R: <message> x\\r\\n                   the next content that it took, after our TRACE, dot-stuffed as it came (chunks too)

C and S lines are in order; all c and C before an S are sent in one write. R lines are compared at the end, in order.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme

from smtpguard.mail import reply
from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Relayed
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.listener import Limits, ServerAuth, ServerTls
from smtpguard.wire.login import Logins
from tests.scripted_relay import KEYWORDS, ScriptedRelay
from tests.wire.proxied import proxied, until
from tests.wire.relayed import fence_holds

TRACE = b"X-Smtpguard: id=1\r\n"
"""The field that is prepended to each message."""
DIALOGS = sorted(Path(__file__).parent.glob("*.dialog"))


class Script:
    """A parsed file."""

    def __init__(self, path: Path) -> None:
        self.limits: dict[str, Any] = {}
        self.trusted = False
        self.keywords: tuple[str, ...] = KEYWORDS
        self.tls = ""
        self.auth: ServerAuth | None = None
        self.people: dict[str, str] = {}
        self.rules: list[tuple[str, str]] = []
        self.verdict, self.sentence = "relay", ""
        self.turns: list[tuple[int, str, bytes]] = []
        self.heard: list[bytes] = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                self._line(number, line)

    def _line(self, number: int, line: str) -> None:
        key, _, rest = line.partition(":")
        rest = rest.removeprefix(" ")
        match key:
            case "limits":
                self.limits |= {name: int(value) for name, value in (word.split("=") for word in rest.split())}
            case "trust":
                self.trusted = True
            case "tls":
                self.tls = rest
            case "auth":
                self.auth = ServerAuth(required="required" in rest.split(), without_tls="without-tls" in rest.split())
            case "relay knows":
                name, _, secret = rest.partition(" ")
                self.people[name] = secret
            case "relay offers":
                self.keywords = tuple(word.strip() for word in rest.split(","))
            case "relay":
                beginning, _, answer = rest.partition(" => ")
                self.rules.append((beginning.strip(), answer.replace("\\n", "\n")))
            case "verdict":
                self.verdict, _, self.sentence = rest.partition(" ")
            case "C":
                self.turns.append((number, "C", _octets(rest) + b"\r\n"))
            case "c":
                self.turns.append((number, "C", _octets(rest)))
            case "S":
                self.turns.append((number, "S", rest.encode()))
            case "R":
                self.heard.append(_octets(rest))
            case _:
                raise ValueError(f"line {number}: {line!r}")

    async def decide(self, transaction: Transaction, onward: Onward) -> Disposition:
        if self.verdict == "relay":
            return Relayed(replies=await onward.send(TRACE, fence_holds))
        await onward.abandon()
        match self.verdict:
            case "hold":
                return Held(hold_id=transaction.id)
            case "reject":
                return Rejected(reply=reply.rejected(self.sentence))
            case "defer":
                return Deferred(reply=reply.deferred(self.sentence))
        raise ValueError(self.verdict)


def _octets(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1") if text.isascii() else text.encode()


@pytest.mark.parametrize("path", DIALOGS, ids=lambda p: p.stem)
async def test_dialog_is_answered_as_recorded(
    path: Path, tmp_path: Path, certificates: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    script = Script(path)
    relay = ScriptedRelay(keywords=script.keywords, auth=script.people)
    relay.mechanisms = "PLAIN LOGIN XOAUTH2"
    for beginning, answer in script.rules:
        relay.on(beginning, answer)
    trust = (ip_network("127.0.0.0/8"),) if script.trusted else ()
    tls = ServerTls(context=certificates[0], implicit=script.tls == "implicit") if script.tls else None
    async with (
        relay,
        proxied(
            tmp_path, script.decide, relay=relay, running=True, limits=Limits(**script.limits), trust=trust, tls=tls,
            auth=script.auth, logins=lambda pool: Logins(pool, Guesses(lambda: 0.0)),
        ) as world,
    ):  # fmt: skip
        client = await world.connect(greeted=False, tls=certificates[1] if script.tls == "implicit" else None)
        for number, who, octets in script.turns:
            if octets == b"<handshake>\r\n":
                await client.writer.start_tls(certificates[1], server_hostname="localhost")
                continue
            if who == "C":
                client.say(octets)
                continue
            line = await asyncio.wait_for(client.reader.readline(), 120)
            said = line.decode().removesuffix("\r\n") if line else "<closed>"
            expected = octets.decode()
            if expected.endswith("..."):
                said = said[: len(expected) - 3] + "..."
            assert said == expected, f"{path.name}:{number}"
        client.close()
        await world.reception.stop(1)
        await until(lambda: world.pool.idle == world.pool.size)  # abandoned transactions are reset
        assert list(received_by(relay)) == script.heard


@pytest.fixture(scope="module")
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Our context, and that of a client that trusts it."""
    ca, ours, theirs = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(ours)
    ca.configure_trust(theirs)
    return ours, theirs


def received_by(relay: ScriptedRelay) -> Iterator[bytes]:
    """The commands that the relay got, without EHLO and QUIT, and each content after its DATA."""
    contents = iter(relay.messages)
    for line in relay.commands:
        if not line.startswith((b"EHLO", b"QUIT")):
            yield line
        ends = line == b"DATA" or (line.startswith(b"BDAT") and line.endswith(b"LAST"))
        if ends and (message := next(contents, None)) is not None:
            assert message.raw.startswith(TRACE)
            yield b"<message> " + message.raw.removeprefix(TRACE)


def test_there_are_enough_dialogs() -> None:
    assert len(DIALOGS) >= 10
