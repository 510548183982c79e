"""The session alone, without socket or task: octets in, events and replies out, however the octets are cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail import reply
from smtpguard.mail.reply import Reply
from smtpguard.wire.events import (
    AskOffer,
    AskRelay,
    CameToNothing,
    Carried,
    Decide,
    LogIn,
    NewClient,
    Reset,
    Response,
    Unload,
)
from smtpguard.wire.identity import Identity
from smtpguard.wire.listener import Limits, Listener, ServerAuth
from smtpguard.wire.session import LONGEST_LINE, MOST_REPLIES, SmtpSession
from smtpguard.wire.turnedaway import TurnedAway, Why

OFFERED = {"PIPELINING": "", "SIZE": "1000", "8BITMIME": "", "SMTPUTF8": "", "DSN": "", "AUTH": "PLAIN LOGIN"}
GREETING = Reply(220, ("guard.example ESMTP",))


class Served:
    """A session whose questions are answered at once: a recipient that begins with "no" is refused, a message with
    "later" is undecided, and every login succeeds."""

    def __init__(
        self, *, limits: Limits | None = None, trusted: bool = False, held: bool = False, at_once: bool = False
    ) -> None:
        """``held``: the test answers the questions to the relay. ``at_once``: what can be is answered at once."""
        networks = (ip_network("192.0.2.0/24"),) if trusted else ()
        listener = Listener(
            hostname="guard.example", spool=Path("nowhere"), limits=limits or Limits(), trust=networks,
            auth=ServerAuth(required=False, without_tls=True),
        )  # fmt: skip
        who = Identity(listener, "192.0.2.1", trusted=trusted, logins=True)
        self.smtp = SmtpSession(listener, who, GREETING, monotonic=lambda: 1000.0)
        self.held, self.at_once = held, at_once
        self.events: list[object] = []
        self.said = b""
        self.writes = 0
        self.smtp.greet()
        self.go_on()

    def hear(self, *pieces: bytes) -> bytes:
        """Feed pieces; return what the session says."""
        before = len(self.said)
        for piece in pieces:
            if self.smtp.over:
                break
            self.smtp.receive(piece)
            said = self.smtp.reply_at_once() if self.at_once else None
            if said is None:
                self.go_on()
            else:
                self.said += said
                self.writes += 1
        return self.said[before:]

    def go_on(self) -> None:
        while (event := self.smtp.next_event()) is not None:
            self.events += [(event.mail, rcpt) for rcpt in event.rcpts] if isinstance(event, AskRelay) else [event]
            self.answer(event)
        if self.smtp.waits:
            return
        out = self.smtp.replies()
        self.said += out
        self.writes += bool(out)
        if self.smtp.more:
            self.go_on()

    def answer(self, event: object) -> None:
        smtp = self.smtp
        match event:
            case AskRelay(rcpts=rcpts):
                if not self.held:
                    smtp.answered([self.of(str(r.address)) for r, _ in rcpts], Why.RECIPIENT_REFUSED, None)
            case AskOffer():
                smtp.offered(OFFERED)
            case LogIn():
                smtp.challenge(Reply(334, ("",)))
            case Response(line):
                smtp.logged_in(Reply(235, ("2.7.0 Ok",)), None if line in (None, b"*\r\n") else "anna")
            case NewClient():
                smtp.client_is(None)
            case Decide(arrived=arrived):
                later = b"later" in arrived.message.raw[:]
                self.events[-1] = (event.envelope, event.refused, arrived.stuffed, arrived.message.sha256)
                said = Reply(451, ("4.0.0 Later",)) if later else Reply(250, ("2.0.0 Ok",))
                smtp.carried(Carried(reply=said, why=Why.UNDECIDED if later else None))
            case Unload(arriving):
                raise AssertionError(arriving)

    @staticmethod
    def of(address: str) -> Reply:
        return Reply(550, ("5.1.1 No such user",)) if address.startswith("no") else Reply(250, (f"2.1.5 {address}",))


LINES = [
    b"EHLO client.example", b"HELO client.example", b"NOOP", b"RSET", b"HELP", b"VRFY a", b"VRFY", b"WHAT", b"", b"EXPN x",
    b"MAIL FROM:<anna@example.com>", b"MAIL FROM:<>", b"MAIL FROM:<anna@example.com> SIZE=5000", b"MAIL FROM:<b@x", b"mail from:<a@b.example> ret=full",
    b"RCPT TO:<bo@example.net>", b"RCPT TO:<no1@example.net>", b"RCPT TO:<eva@example.net> NOTIFY=NEVER", b"RCPT TO:<>",
    b"RCPT TO:<no2@example.net>", b"RCPT TO:<c@example.net>", b"QUIT x", b"STARTTLS", b"AUTH PLAIN AGEAYg==", b"*",
    b"XCLIENT ADDR=192.0.2.9", b"XFORWARD ADDR=192.0.2.7 IDENT=Q1", b"NOOP\r", b"NOOP\n", b"NOOP\0", b"QUIT", b"GET / HTTP/1.1",
    b"x" * (LONGEST_LINE + 5), b"NOOP " + b"x" * 600,
]  # fmt: skip
CONTENTS = [
    b"Subject: x\r\n\r\nhello\r\n.\r\n", b".\r\n", b"later\r\n.\r\n", b"..dots\r\n.\r\nRSET\r\nNOOP\r\n", b"bare\n.\n\r\n.\r\nNOOP\r\n",
    b"x\0\r\n.\r\nRCPT TO:<c@example.net>\r\n", b"y" * 3000 + b"\r\n.\r\nMAIL FROM:<x@example.com>\r\n", b"half of it\r\n", b"\r.\r\r\n.\r\n",
]  # fmt: skip
# what a client sends at once: commands, and DATA only at the end, where it waits for the reply (RFC 2920 section 3.1)
TURNS = st.lists(
    st.one_of(
        st.builds(lambda lines, data: [*lines, *data], st.lists(st.sampled_from(LINES), max_size=9), st.sampled_from([(), (b"DATA",), (b"DATA x",)])),
        st.sampled_from(CONTENTS),
        st.just([*LINES[:1], LINES[10], LINES[16], LINES[15], *LINES[19:21], LINES[17], b"RCPT TO:<d@example.net>", b"DATA"]),
        st.just([b"EHLO client.example", b"MAIL FROM:<anna@example.com>", b"RCPT TO:<bo@example.net>", b"DATA"]),
        st.just([b"MAIL FROM:<anna@example.com>", b"RCPT TO:<no1@example.net>", b"RCPT TO:<bo@example.net>", b"DATA"]),
    ),
    max_size=7,
)  # fmt: skip


def octets(turn: list[bytes] | bytes) -> bytes:
    return turn if isinstance(turn, bytes) else b"".join(line + b"\r\n" for line in turn)


def cut(whole: bytes, at: Iterable[int]) -> list[bytes]:
    places = sorted({place % (len(whole) + 1) for place in at} | {0, len(whole)})
    return [whole[a:b] for a, b in itertools.pairwise(places)]


def outcome(served: Served) -> tuple[bytes, list[object]]:
    """All replies and events. Which of several faults in one content is named depends on the cut, so all become one."""
    said, events = served.said, list(served.events)
    for fault in (reply.NUL_IN_MESSAGE, reply.TOO_BIG, reply.LINE_TOO_LONG):
        said = said.replace(fault.octets, reply.BARE_LINE_END.octets)
    for at, event in enumerate(events):
        if isinstance(event, TurnedAway) and event.why in (Why.TOO_LARGE, Why.BAD_CONTENT):
            events[at] = replace(event, why=Why.BAD_CONTENT, reply=None)
    return said, events


@given(
    TURNS,
    st.lists(st.integers(0, 10_000), max_size=6),
    st.booleans(),
    st.sampled_from([2, 1000]),
    st.sampled_from([2, 20]),
)
@settings(max_examples=300, deadline=None)
def test_cuts_do_not_change_the_result(
    turns: list[list[bytes] | bytes], places: list[int], trusted: bool, recipients: int, errors: int
) -> None:
    limits = Limits(recipients=recipients, errors=errors, message_octets=2000)
    whole, by_octet, in_pieces = [Served(limits=limits, trusted=trusted) for _ in range(3)]
    by_line = Served(limits=limits, trusted=trusted, at_once=True)
    for turn in turns:
        said = octets(turn)
        whole.hear(said)
        by_line.hear(*said.splitlines(keepends=True))
        by_octet.hear(*(said[i : i + 1] for i in range(len(said))))
        in_pieces.hear(*cut(said, places))
    for served in (whole, by_octet, in_pieces, by_line):
        served.smtp.end()
        served.go_on()
    assert outcome(whole) == outcome(by_octet) == outcome(in_pieces) == outcome(by_line)


def test_pipelined_commands_are_answered_in_one_write() -> None:
    served = Served(held=True)
    served.hear(b"EHLO client.example\r\n")
    writes = served.writes
    served.hear(
        b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<bad\r\nRCPT TO:<no@example.net>\r\nDATA\r\n"
    )
    assert [type(event) for event in served.events[1:]] == [tuple, tuple], "one question"
    assert served.writes == writes
    served.smtp.answered([Served.of("b@"), Served.of("no@")], Why.RECIPIENT_REFUSED, None)
    served.go_on()
    assert served.writes == writes + 1
    codes = [line[:3] for line in served.said.split(b"\r\n")[:-1]][-5:]
    assert codes == [b"250", b"250", b"501", b"550", b"354"]


def test_mail_alone_asks_nothing_of_the_relay() -> None:
    served = Served()
    served.hear(b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRSET\r\nMAIL FROM:<b@example.com>\r\n")
    assert served.events == [AskOffer()]
    assert served.smtp.deadline == 1000.0 + Limits().transaction_seconds
    served.hear(b"RSET\r\n")
    assert served.smtp.deadline > 1e9
    assert not [event for event in served.events if isinstance(event, Reset)], "the relay got none of them"


def test_nothing_happens_while_an_answer_is_missing() -> None:
    served = Served(held=True)
    served.hear(b"HELO x.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n")
    before = served.said
    served.hear(b"RCPT TO:<c@example.net>\r\nQUIT\r\n")
    assert served.said == before
    assert len(served.events) == 1
    assert served.smtp.held == len(b"RCPT TO:<c@example.net>\r\nQUIT\r\n")


def test_an_end_while_the_relay_is_asked_is_reported() -> None:
    served = Served(held=True)
    served.hear(
        b"HELO x.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\n"
    )
    served.smtp.end()
    served.go_on()
    reset, told = served.events[-2:]
    assert reset == Reset()
    assert isinstance(told, TurnedAway)
    assert (told.why, told.reply, told.recipients, told.refused) == (Why.GAVE_UP, None, 2, 2)


def test_a_failure_affects_only_its_waiting_commands(caplog: pytest.LogCaptureFixture) -> None:
    served = Served(held=True)
    served.hear(b"HELO x.example\r\nNOOP\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nNOOP\r\n")
    served.smtp.failed(ValueError("secret"))
    served.go_on()
    assert [line[:3] for line in served.said.split(b"\r\n")[1:-1]] == [b"250", b"250", b"250", b"451", b"451", b"250"]
    assert b"secret" not in served.said
    assert [type(event) for event in served.events[1:]] == [Reset, TurnedAway]
    assert [record.getMessage() for record in caplog.records] == ["error in an SMTP dialog: ValueError"]


def test_an_error_in_a_command_is_one_reply(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    served = Served()
    monkeypatch.setattr("smtpguard.wire.grammar.parse_mail", fail)
    said = served.hear(b"HELO x.example\r\nMAIL FROM:<a@example.com>\r\nNOOP\r\n")
    assert [line[:3] for line in said.split(b"\r\n")[:-1]] == [b"250", b"451", b"250"]
    assert served.events == []
    assert [record.getMessage() for record in caplog.records] == ["error in an SMTP dialog: RuntimeError"]


def test_replies_in_one_turn_are_limited() -> None:
    served = Served()
    served.smtp.receive(b"NOOP\r\n" * (MOST_REPLIES + 5))
    assert served.smtp.next_event() is None
    assert served.smtp.more
    assert served.smtp.replies().count(b"250") == MOST_REPLIES
    assert served.smtp.next_event() is None
    assert not served.smtp.more
    assert served.smtp.replies().count(b"250") == 5


def test_an_endless_line_takes_no_memory() -> None:
    served = Served()
    for _ in range(100):
        served.hear(b"x" * 50_000)
        assert served.smtp.held <= LONGEST_LINE
    assert served.hear(b"end\r\nNOOP\r\n") == b"500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n"


def test_a_sasl_response_is_no_command() -> None:
    served = Served()
    served.hear(b"EHLO x.example\r\n")
    said = served.hear(b"AUTH LOGIN\r\nQUIT\r\nNOOP\r\n")
    assert said.startswith(b"334 \r\n235 ")
    assert Response(b"QUIT\r\n") in served.events
    assert said.endswith(b"250 2.0.0 Ok\r\n")
    assert served.smtp.who.user == "anna"


def test_refused_recipients_without_content_are_reported() -> None:
    served = Served()
    served.hear(
        b"HELO x.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<no@example.net>\r\nRCPT TO:<b@example.net>\r\nRSET\r\n"
    )
    told = [event for event in served.events if isinstance(event, CameToNothing)]
    assert [[str(r.address) for r in event.envelope.recipients] for event in told] == [["b@example.net"]]
    assert [str(r.address) for r in told[0].refused] == ["no@example.net"]


def test_refused_recipients_take_bounded_memory() -> None:
    served = Served(limits=Limits(recipients=3))
    served.hear(b"HELO x.example\r\nMAIL FROM:<a@example.com>\r\n")
    said = b"".join(served.hear(b"RCPT TO:<no@example.net>\r\n") for _ in range(9))
    assert (said.count(b"550 "), said.count(b"452 4.5.3")) == (3, 6)
    assert served.hear(b"RSET\r\n") == b"250 2.0.0 Ok\r\n"
    told = [event for event in served.events if isinstance(event, CameToNothing)]
    assert [len(event.refused) for event in told] == [3]


def test_xforward_applies_to_one_transaction() -> None:
    served = Served(trusted=True)
    served.hear(
        b"EHLO x.example\r\nXFORWARD ADDR=198.51.100.7\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<no@example.net>\r\nRSET\r\n"
    )
    [told] = [event for event in served.events if isinstance(event, CameToNothing)]
    assert told.session.client_ip == "198.51.100.7"
    assert served.smtp.who.session.client_ip == "192.0.2.1"
    assert replace(told.session, client_ip="192.0.2.1", peer="") == served.smtp.who.session


def test_every_event_type_has_a_handler() -> None:
    """The list of event types is complete: the dialog has a handler for each."""
    from typing import get_args

    from smtpguard.wire import events, server

    handled: dict[Any, Any] = server._HANDLERS
    assert set(handled) == set(get_args(events.Event))
