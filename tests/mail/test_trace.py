"""Trace headers: their content, what they must not reveal, and that they cannot be forged."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session, Transaction
from smtpguard.mail.message import Message, parse_header
from smtpguard.mail.trace import prepend, trusted
from tests.every import every

KEY = b"k" * 32
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
POST = b"From: a@example.com\r\nMessage-ID: <1@example.com>\r\nDate: Mon, 2 Mar 2026 09:00:00 +0000\r\n\r\nHello\r\n"


def transaction(*to: str, raw: bytes = POST, smtputf8: bool = False, **session: object) -> Transaction:
    return Transaction(
        id="01ABCDEF01234567",
        session=Session(**({"client_ip": "192.0.2.7", "helo": "mx.example.com"} | session)),  # type: ignore[arg-type]
        envelope=Envelope(
            reverse_path=Address.parse("a@example.com"),
            recipients=tuple(Recipient(address=Address.parse(t)) for t in to or ("b@example.org",)),
            smtputf8=smtputf8,
        ),
        message=Message.of(raw),
    )


def traced(t: Transaction, *lists: str) -> bytes:
    return prepend(t, "ab" * 32, KEY, "guard.example.com", NOW, lists)


def test_the_trace_has_received_and_its_own_field() -> None:
    lines = traced(transaction(client_name="mail.example.com")).decode().split("\r\n")
    assert lines[:3] == [
        "Received: from mx.example.com (mail.example.com [192.0.2.7])",
        "\tby guard.example.com (smtpguard) with ESMTP id 01ABCDEF01234567",
        "\tfor <b@example.org>;",
    ]
    assert lines[3] == "\tMon, 02 Mar 2026 09:30:00 +0000"
    assert lines[4] == "X-Smtpguard: id=01ABCDEF01234567; policy=abababababab;"
    assert re.fullmatch(r"\tmac=[0-9a-f]{32}", lines[5])
    assert lines[6:] == [""]


@every(
    ("session", "smtputf8", "protocol"),
    [
        ({"esmtp": False}, False, "SMTP"),
        ({}, False, "ESMTP"),
        ({"tls": True}, False, "ESMTPS"),
        ({"tls": True, "auth_user": "a"}, False, "ESMTPSA"),
        ({"auth_user": "a"}, True, "UTF8SMTPA"),
    ],
)
def test_the_protocol_follows_the_session(session: dict[str, Any], smtputf8: bool, protocol: str) -> None:
    assert f" with {protocol} id ".encode() in traced(transaction(smtputf8=smtputf8, **session))


def test_several_recipients_are_not_named() -> None:
    assert b"for <" not in traced(transaction("b@example.org", "hidden@example.org"))


def test_the_trace_is_recognized_after_a_list_server() -> None:
    ours = traced(transaction())
    copy = b"Received: by lists\r\nList-Id: <x.example.com>\r\n" + ours + POST.replace(b"Hello", b"Hello\r\n-- footer")
    found = trusted(parse_header(copy), KEY)
    assert found is not None
    assert (found.id, found.policy) == ("01ABCDEF01234567", "abababababab")


def test_the_trace_names_the_admitted_lists() -> None:
    ours = prepend(transaction(), "ab" * 32, KEY, "guard.example.com", NOW, ["ramadan-greetings", "news"])
    assert b"ramadan" not in ours
    found = trusted(parse_header(ours + POST), KEY)
    assert found is not None
    assert found.admitted_to("news", KEY)
    assert found.admitted_to("ramadan-greetings", KEY)
    assert not found.admitted_to("other", KEY)
    swapped = re.sub(rb"lists=[0-9a-f]+,", b"lists=", ours)
    assert trusted(parse_header(swapped + POST), KEY) is None


def test_a_hundred_lists_keep_lines_within_998_octets() -> None:
    ours = prepend(transaction(), "ab" * 32, KEY, "guard.example.com", NOW, [str(n) for n in range(100)])
    assert max(map(len, ours.split(b"\r\n"))) < 998
    assert trusted(parse_header(ours + POST), KEY) is not None


@every(
    "forge",
    [
        lambda raw: raw.replace(b"<1@", b"<2@"),  # on another message
        lambda raw: raw.replace(b"mac=", b"mac=0"),
        lambda raw: re.sub(rb"mac=[0-9a-f]+", b"mac=" + b"0" * 32, raw),
        lambda raw: raw.replace(b"id=01", b"id=02"),
        lambda raw: raw.replace(b"policy=abab", b"policy=baba"),
        lambda raw: b"Message-ID: <1@example.com>\r\n" + raw,  # a second Message-ID
        lambda raw: b"X-Smtpguard: id=0; policy=; mac=" + b"0" * 32 + b"\r\n" + raw,  # the topmost counts
        lambda raw: raw.replace(b"X-Smtpguard", b"X-Other"),
    ],
)
def test_a_forged_trace_is_refused(forge: object) -> None:
    raw = traced(transaction(), "news") + POST
    assert trusted(parse_header(raw), KEY) is not None
    assert trusted(parse_header(forge(raw)), KEY) is None  # type: ignore[operator]


ID, DATE = b"Message-ID: <1@example.com>\r\n", b"Date: Mon, 2 Mar 2026 09:00:00 +0000\r\n"


@every("absent", [ID, DATE, ID + DATE])
def test_the_relay_may_add_what_a_message_came_without(absent: bytes) -> None:
    ours = traced(transaction(raw=POST.replace(absent, b"")), "news")
    assert trusted(parse_header(ours + POST), KEY) is not None
    for field in (ID, DATE):
        if field not in absent:
            assert trusted(parse_header(ours + POST.replace(field, field.replace(b":", b": 1", 1))), KEY) is None
            assert trusted(parse_header(ours + POST.replace(field, b"")), KEY) is None


def test_the_relay_may_write_both_anew_unless_the_mail_is_to_a_list() -> None:
    anew = (
        b"From: a@example.com\r\nMessage-ID: <2@relay.example>\r\nDate: Mon, 2 Mar 2026 09:00:07 +0000\r\n\r\nHello\r\n"
    )
    assert trusted(parse_header(traced(transaction()) + anew), KEY) is not None
    assert trusted(parse_header(traced(transaction(), "news") + anew), KEY) is None


def test_a_trace_with_another_key_is_refused() -> None:
    assert trusted(parse_header(traced(transaction()) + POST), b"x" * 32) is None


@settings(max_examples=60, deadline=None)
@given(helo=st.text(max_size=400), name=st.text(max_size=400), ip=st.text(max_size=40))
def test_text_of_a_client_stays_in_its_field(helo: str, name: str, ip: str) -> None:
    header = parse_header(traced(transaction(helo=helo, client_name=name, client_ip=ip)) + POST)
    assert not header.broken
    assert [f.name for f in header.fields][:2] == ["Received", "X-Smtpguard"]
    assert len(header.fields) == 5
    assert trusted(header, KEY) is not None


@settings(max_examples=60, deadline=None)
@given(raw=st.binary(max_size=300))
def test_any_field_is_parsed(raw: bytes) -> None:
    t = transaction(raw=raw)
    parse_header(traced(t) + raw)
    trusted(parse_header(b"X-Smtpguard: " + raw), KEY)
