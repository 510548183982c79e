"""Replies: their lines, and that a long sentence is wrapped without loss."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.mail import reply


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
