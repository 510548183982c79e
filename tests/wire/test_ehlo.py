"""What EHLO offers."""

from __future__ import annotations

import pytest

from smtpguard.wire.ehlo import largest, offer


@pytest.mark.parametrize(
    ("said", "limit"), [({}, 1000), ({"SIZE": ""}, 1000), ({"SIZE": "0"}, 1000), ({"SIZE": "10"}, 10), ({"SIZE": "2000"}, 1000),
                        ({"SIZE": "many"}, 1000), ({"SIZE": "-5"}, 1000)]
)  # fmt: skip
def test_the_smaller_size(said: dict[str, str], limit: int) -> None:
    assert largest(said, 1000) == limit


def test_only_what_we_carry() -> None:
    relay = dict.fromkeys(
        ("8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "AUTH", "ETRN", "XCLIENT"), ""
    )
    said = offer("guard.example", relay, 1000, starttls=True, trusted=True)
    assert said.lines[0] == "guard.example"
    assert set(said.lines[1:]) == {
        "PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS",
        "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
    }  # fmt: skip


def test_smtputf8_needs_8bitmime() -> None:
    assert "SMTPUTF8" not in offer("g", {"SMTPUTF8": ""}, 1, starttls=False, trusted=False).lines
