"""XFORWARD to the relay: only the attributes that it offers, in short and printable lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.envelope import Session
from smtpguard.wire.xforward import MAX_LINE_OCTETS as MAX_XFORWARD_LINE
from smtpguard.wire.xforward import xforward_lines
from tests.scripted_relay import KEYWORDS


def test_only_offered_attributes_are_sent() -> None:
    session = Session(
        client_ip="2001:db8::1", client_name="host.example", helo="a b=c+d\u00e5", esmtp=True, ident="0ABC"
    )
    assert xforward_lines(session, "NAME ADDR PROTO HELO SOURCE PORT IDENT") == [
        b"XFORWARD NAME=host.example ADDR=IPV6:2001:db8::1 PROTO=ESMTP HELO=a+20b+3Dc+2Bd+C3+A5 SOURCE=REMOTE IDENT=0ABC"
    ]
    assert xforward_lines(session, "") == []
    assert xforward_lines(Session(client_ip="", helo=""), "NAME ADDR HELO") == [
        b"XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE]"
    ]


@given(st.text(max_size=300), st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_lines_are_short_and_printable(helo: str, name: str) -> None:
    lines = xforward_lines(Session(helo=helo, client_name=name), "NAME HELO ADDR IDENT")
    for line in lines:
        assert len(line) <= MAX_XFORWARD_LINE
        assert line.isascii()
        assert line.decode().isprintable()


def test_the_scripted_relay_offers_what_we_support() -> None:
    assert {k.split()[0] for k in KEYWORDS} == {
        "PIPELINING",
        "SIZE",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
    }
