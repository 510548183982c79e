"""A milter that dies or hangs in each state of a session: Postfix defers its clients' mail, and nothing passes.

With ``milter_default_action = tempfail``, as in docs/milter.md. Postfix defers all further mail of a session that lost
its milter. The next session has it again.
"""

from __future__ import annotations

import os
import signal
import smtplib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.peers import letters, postfix
from tests.peers.chain import until
from tests.peers.milter import ANNA, MilterChain

RAMADAN = "ramadan@lists.example.com"
TEMPFAIL = b"451 4.7.1 Service unavailable - try again later\r\n"
STATES = ("connected", "greeted", "mail", "rcpt", "data", "decided on")


@pytest.fixture(scope="module")
def chain(folder: Path) -> Iterator[MilterChain]:
    if why := postfix.sasl_missing():
        pytest.skip(why)
    with MilterChain(folder) as chain:
        yield chain


class Client:
    """A client of the MTA that sends one command at a time, and ends the message when the test says so."""

    def __init__(
        self, chain: MilterChain, message_id: str, to: str = "you@example.org", *, mail: bytes = b"", port: int = 0
    ) -> None:
        self.message_id, self.to = message_id, to
        self.mail = mail or letters.mail(to=to, message_id=message_id)
        self._commands = [f"MAIL FROM:<{ANNA}>".encode(), f"RCPT TO:<{to}>".encode(), b"DATA"]
        self._left = [b"EHLO desk", *self._commands]
        self._socket = socket.create_connection(("127.0.0.1", port or chain.mta.port), timeout=120)
        self._file = self._socket.makefile("rb")
        self._ended = False
        self.hear()

    def hear(self) -> bytes:
        """The last line of a reply."""
        while (line := self._file.readline())[3:4] == b"-":
            pass
        return line

    def say(self, command: bytes) -> bytes:
        self._socket.sendall(command + b"\r\n")
        return self.hear()

    def go(self, commands: int) -> None:
        """Send the next ``commands`` of EHLO, MAIL, RCPT and DATA. After DATA it sends the content without the final
        dot."""
        for _ in range(commands):
            assert self.say(self._left.pop(0))[:1] in b"23"
        if not self._left:
            self._socket.sendall(self.mail)

    def end(self) -> None:
        self._ended = True
        self._socket.sendall(b".\r\n")

    def begin_anew(self) -> None:
        self._left, self._ended = [b"RSET", *self._commands], False

    def finish(self) -> bytes:
        """Send the rest. Returns the first refusal, or the reply to the final dot."""
        while self._left:
            if (said := self.say(self._left.pop(0)))[:1] not in b"23":
                return said
            if not self._left:
                self._socket.sendall(self.mail)
        if not self._ended:
            self.end()
        return self.hear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()


def test_a_milter_killed_in_each_state_defers(chain: MilterChain) -> None:
    """If the milter is killed while sessions are in the states of STATES, their mail is deferred, and arrives once when
    sent again."""
    with ExitStack() as open_clients:
        clients = [open_clients.enter_context(Client(chain, f"killed-{n}@example.com")) for n in range(len(STATES))]
        for n, client in enumerate(clients):
            client.go(min(n, 4))
        victim = chain.guard.part
        os.kill(victim, signal.SIGSTOP)
        clients[-1].end()
        until(lambda: chain.guard.unread() > 200, why="Postfix to hand out the content")
        os.kill(victim, signal.SIGKILL)
        for state, client in zip(STATES, clients, strict=True):
            assert client.finish() == TEMPFAIL, state
            client.begin_anew()
            assert client.finish() == TEMPFAIL, f"{state}: this session has lost its filter"
    assert not any(chain.recorder.with_id(client.message_id) for client in clients)
    for client in clients:
        until(lambda client=client: taken(chain, client), why="the milter to be back")  # type: ignore[misc]
        until(lambda client=client: chain.recorder.with_id(client.message_id), why="the mail")  # type: ignore[misc]
    assert {len(chain.recorder.with_id(client.message_id)) for client in clients} == {1}


def test_a_milter_silent_at_the_end_defers_and_holds(chain: MilterChain) -> None:
    """Postfix defers when its timeout is over. The message is held nevertheless, and the retry finds that hold."""
    mail = letters.story("silent-1@example.com", subject="SV: Tyst")
    with Client(chain, "silent-1@example.com", RAMADAN, mail=mail, port=chain.hasty) as client:
        client.go(4)
        victim = chain.guard.part
        os.kill(victim, signal.SIGSTOP)
        try:
            client.end()
            assert client.hear() == TEMPFAIL
        finally:
            os.kill(victim, signal.SIGCONT)
    assert taken(chain, client)
    [hold] = until(lambda: chain.guard.held("SV: Tyst"), why="the hold")
    assert hold["state"] == "waiting"


def taken(chain: MilterChain, client: Client) -> bool:
    """Whether the MTA accepts the client's message now."""
    try:
        with smtplib.SMTP("127.0.0.1", chain.mta.port, timeout=120) as smtp:
            smtp.sendmail(ANNA, [client.to], client.mail)
    except smtplib.SMTPException:
        return False
    return True
