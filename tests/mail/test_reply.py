"""Replies: their lines, and that a long sentence is wrapped without loss."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.mail import reply
from smtpguard.mail.address import Address


def test_each_line_has_the_enhanced_code() -> None:
    said = reply.Reply.of(550, "5.7.1", "Not sent.", "Ask Eva.")
    assert said.octets == b"550-5.7.1 Not sent.\r\n550 5.7.1 Ask Eva.\r\n"
    assert (said.enhanced, str(said)) == ("5.7.1", "550 5.7.1 Not sent. Ask Eva.")


@pytest.mark.parametrize("make", [reply.rejected, reply.deferred])
def test_a_long_sentence_is_wrapped(make) -> None:  # type: ignore[no-untyped-def]
    sentence = "Mail between colleagues never goes to a list of customers. " * 20 + "Its reference is 01ABC."
    lines = make(sentence).octets.decode().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 510
    assert " ".join(line[10:] for line in lines) == sentence


@given(st.text(max_size=3000))
def test_any_sentence_fits_its_lines(sentence: str) -> None:
    said = reply.rejected(sentence)
    lines = said.octets.split(b"\r\n")[:-1]
    assert all(re.match(rb"550[- ]5\.7\.1 ", line) and len(line) <= 510 for line in lines)
    assert all("".join(line.split()).isprintable() for line in said.lines)
    words = "".join("".join(c if c.isprintable() else " " for c in sentence).split())
    assert "".join("".join(line.removeprefix("5.7.1 ").split()) for line in said.lines) == words


def test_an_endless_word_is_split() -> None:
    assert [len(line) for line in reply.rejected("å" * 600).lines] == [246, 246, 126]
    assert len(reply.rejected("x" * 50_000).lines) == reply.MOST_LINES


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("550 5.1.1 <anna@example.com>: no such user", "550 5.1.1 <...>: no such user"),
        ("250 2.6.0 <m1@ex.example.com> [InternalId=7] Queued", "250 2.6.0 <...> [InternalId=7] Queued"),
        ("550 RCPT=anna@example.com mailto:anna@example.com?subject=x", "550 ... mailto:...?subject=x"),
        ('550 "anna b"@example.com, anna@[192.0.2.1]', "550 ..., ..."),
        ("250 sent on to bo (at) example.com", "250 sent on to ..."), ("250 for bo[AT]example.com, bo\uff20example.com", "250 for ..., ..."),
        ("550 no mailbox boss, but of boss+list@example.com", "550 no mailbox ..., but of ..."), ("250 ok (at 12:00)", "250 ok (at 12:00)"),
        ("550 see http://spf.example/why?s=mfrom;id=anna%40example.com;ip=192.0.2.1", "550 see http://spf.example/why?s=mfrom;...;ip=192.0.2.1"),
        ("250 2.0.0 Ok: queued as 4bXyz1", "250 2.0.0 Ok: queued as 4bXyz1"),
        ("250 anna: queued as 550", "250 anna: queued as 550"),
        ("550 Anna... no user 'anna' in 550, not annabel", "550 ... no user ... in ..., not annabel"),
    ],
)  # fmt: skip
def test_a_nameless_reply_has_no_address_and_keeps_the_rest(said: str, kept: str) -> None:
    to = [Address.parse(f"{local}@example.com") for local in ("anna", "550", "boss+list")]
    assert reply.nameless(said, to) == kept
