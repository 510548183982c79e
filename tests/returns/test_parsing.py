"""Parsing returns: nothing is lost of what anyone may write, and parsing is fast."""

from __future__ import annotations

import random

import pytest

from smtpguard.mail.message import Message
from smtpguard.returns.model import Sort
from smtpguard.returns.parsing import MOST_PEOPLE, parsed
from tests.returns.mails import arf, dsn, letter

ORIGINAL = b"From: anna@example.com\r\nTo: kim@example.net\r\nSubject: =?utf-8?q?V=C3=A5rens_mail?=\r\nMessage-ID: <a@example.com>\r\n\r\nHello\r\n"


@pytest.mark.parametrize(
    ("action", "sort"),
    [("failed", Sort.BOUNCE), ("Delayed", Sort.DELAY), ("relayed", Sort.DELIVERED), ("expanded (to 40)", Sort.DELIVERED), ("eaten", Sort.UNSORTED)],
)  # fmt: skip
def test_a_delivery_status_notification(action: str, sort: Sort) -> None:
    for whole in (False, True):
        found = parsed(dsn(ORIGINAL, "kim@example.net", action=action, envid="QQ1", whole=whole))
        assert found.sort is sort
        assert (found.message_ids, found.original_subject) == (("a@example.com",), "Vårens mail")
        if sort is not Sort.UNSORTED:
            assert (found.about[0].address, found.envid) == ("kim@example.net", "QQ1")


def test_a_report_on_many_recipients_is_bounded() -> None:
    found = parsed(dsn(ORIGINAL, *(f"p{n}@example.net" for n in range(MOST_PEOPLE + 7))))
    assert (len(found.about), found.rest) == (MOST_PEOPLE, 7)


def test_the_original_recipient_comes_first() -> None:
    report = dsn(ORIGINAL, "forwarded@elsewhere.example")
    raw = bytes(report.raw[:]).replace(b"\r\nFinal-R", b"\r\nOriginal-Recipient: rfc822;kim@example.net\r\nFinal-R")
    assert parsed(Message.of(raw)).about[0].address == "kim@example.net"


def test_a_complaint() -> None:
    found = parsed(arf(ORIGINAL, "kim@example.net"))
    assert (found.sort, found.about[0].address, found.feedback) == (Sort.COMPLAINT, "kim@example.net", "abuse")
    assert parsed(arf(ORIGINAL)).about[0].address == "kim@example.net", "as the original says"
    assert parsed(arf(ORIGINAL, kind="not-spam")).sort is Sort.UNSORTED


@pytest.mark.parametrize(
    ("mail", "sort"),
    [
        (letter("kim@example.net", "Re: Spring", "<a@example.com>"), Sort.REPLY),
        (letter("kim@example.net", "SV: Vår"), Sort.REPLY),
        (letter("kim@example.net", "What did you send me?"), Sort.UNSORTED),
        (letter("kim@example.net", "Re: Unsubscribe!"), Sort.UNSUBSCRIBE),
        (letter("kim@example.net", "avregistrera"), Sort.UNSUBSCRIBE),
        (letter("kim@example.net", "x", to="news-unsubscribe@example.com"), Sort.UNSUBSCRIBE),
        (letter("kim@example.net", "Re: Spring", "<a@example.com>", more="Auto-Submitted: auto-replied\r\n"), Sort.AUTOMATIC),
        (letter("MAILER-DAEMON@x.example", "failure notice", body="Hi. I could not deliver your mail."), Sort.UNSORTED),
        (Message.of(b""), Sort.UNSORTED),
        (Message.of(b"\0\xff\r\n\r\n" * 50), Sort.UNSORTED),
    ],
)  # fmt: skip
def test_kinds_of_mail_are_recognized(mail: Message, sort: Sort) -> None:
    assert parsed(mail).sort is sort


def test_a_forwarded_report_is_no_report() -> None:
    inner = bytes(dsn(ORIGINAL, "kim@example.net").raw[:])
    raw = (
        b"From: kim@example.net\r\nSubject: Fwd: look\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n"
        b"--o\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--o--\r\n"
    )
    assert parsed(Message.of(raw)).sort is Sort.UNSORTED


def test_parsing_is_bounded_and_total() -> None:
    nested = b"Subject: deep\r\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(200)
    )
    found = parsed(Message.of(nested))
    assert (found.sort, found.why) == (Sort.UNSORTED, "its parts are nested deeper than 12")
    drawn = random.Random(3)
    raw = bytes(dsn(ORIGINAL, *(f"p{n}@example.net" for n in range(20))).raw[:])
    for _ in range(300):
        broken = bytearray(raw)
        for _ in range(drawn.randint(1, 30)):
            at = drawn.randrange(len(broken))
            broken[at : at + drawn.randint(0, 9)] = drawn.randbytes(drawn.randint(0, 3))
        assert parsed(Message.of(bytes(broken))).about


def test_an_internal_error_keeps_the_return(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("smtpguard.returns.parsing.walk", fails)
    found = parsed(dsn(ORIGINAL, "kim@example.net"))
    assert (found.sort, found.why, found.subject) == (Sort.UNSORTED, "RuntimeError", "Undelivered mail")
