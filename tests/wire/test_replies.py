"""Parsing the relay's replies: in order, however they are cut, and errors for what is not SMTP."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.mail.reply import Reply
from smtpguard.wire.replies import MAX_LINE_OCTETS, MAX_REPLY_LINES, BadReply, RelaySession
from tests.every import every

REPLIES = {
    b"250 2.0.0 Ok\r\n": Reply(250, ("2.0.0 Ok",)),
    b"250-relay.example\r\n250-PIPELINING\r\n250 SIZE 5\r\n": Reply(250, ("relay.example", "PIPELINING", "SIZE 5")),
    b"550 5.1.1 No such user\r\n": Reply(550, ("5.1.1 No such user",)),
    b"421\r\n": Reply(421, ("",)),
    "451 4.3.0 F\N{LATIN SMALL LETTER O WITH DIAERESIS}rs\r\n".encode(): Reply(
        451, ("4.3.0 F\N{LATIN SMALL LETTER O WITH DIAERESIS}rs",)
    ),
    b"250 " + b"x" * 300 + b"\r\n": Reply(250, ("x" * 300,)),
}


def asking(*due: int, last: bool = False) -> RelaySession:
    session = RelaySession()
    session.asked.extend((replies, lambda replies: None, last) for replies in due)
    return session


@given(st.lists(st.sampled_from(list(REPLIES)), min_size=1, max_size=8), st.data())
def test_each_reply_belongs_to_its_command(said: list[bytes], data: st.DataObject) -> None:
    due: list[int] = []
    while sum(due) < len(said):
        due.append(data.draw(st.integers(1, len(said) - sum(due))))
    octets = b"".join(said)
    cuts = sorted({0, len(octets), *data.draw(st.lists(st.integers(0, len(octets)), max_size=9))})
    session = asking(*due)
    sent = [told for _, told, _ in session.asked]
    done = [answered for a, b in itertools.pairwise(cuts) for answered in session.receive(octets[a:b])]
    assert [told for told, _ in done] == sent
    assert [len(replies) for _, replies in done] == due
    assert [reply for _, replies in done for reply in replies] == [REPLIES[one] for one in said]
    assert session.unasked is None
    assert not session.asked


def test_an_unexpected_reply_is_separate() -> None:
    session = asking(1)
    assert [len(replies) for _, replies in session.receive(b"250 Ok\r\n421 4.4.2 Timeout\r\n")] == [1]
    assert session.unasked == Reply(421, ("4.4.2 Timeout",))


def test_a_354_ends_the_pipeline() -> None:
    session = asking(3, 1)
    [(_, replies)] = session.receive(b"250 Ok\r\n354 Go on\r\n")
    assert [reply.code for reply in replies] == [250, 354]
    assert [due for due, _, _ in session.asked] == [1]


def test_nothing_after_starttls_is_read() -> None:
    """Plain text behind the reply to STARTTLS is ignored (CVE-2011-0411)."""
    session = asking(1, last=True)
    [(_, replies)] = session.receive(b"220 Go ahead\r\n250 evil\r\n250-half of")
    assert replies == [Reply(220, ("Go ahead",))]
    assert session.deaf
    assert session.unasked is None
    session.asked += asking(1).asked
    assert [replies[0].lines for _, replies in session.receive(b"250 fine\r\n")] == [("fine",)]


@every(
    "octets",
    [
        b"250 Ok\n", b"25 Ok\r\n", b"250_Ok\r\n", b"150 Ok\r\n", b"600 Ok\r\n", b"250-a\r\n251 b\r\n", b"250 a\rb\r\n", b"250 a\0\r\n",
        b"HTTP/1.1 200 OK\r\n", b"x" * (MAX_LINE_OCTETS + 1), b"250 " + b"x" * MAX_LINE_OCTETS + b"\r\n",
        b"250-x\r\n" * (MAX_REPLY_LINES + 1),
    ],
)  # fmt: skip
def test_invalid_replies_are_refused(octets: bytes) -> None:
    with pytest.raises(BadReply):
        asking(1).receive(octets)
