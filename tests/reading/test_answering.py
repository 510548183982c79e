"""Whom a message answers, by its quotation and header fields, and its conversation."""

from __future__ import annotations

import base64

import pytest

from smtpguard.mail.message import Message
from smtpguard.reading.looks import Reading
from smtpguard.reading.read import read
from smtpguard.reading.request import dump_reading, load_reading
from smtpguard.reading.thread import MOST_IDS
from tests.every import every

CUSTOMER = "kim@customer.example"


def reading(body: str, head: str = "", to: str = f"Kim Karlsson <{CUSTOMER}>") -> Reading:
    text = f"From: anna@example.com\r\nTo: {to}\r\nSubject: SV: Hej\r\nMessage-ID: <1@example.com>\r\n{head}\r\n{body}"
    return read(Message.of(text.replace("\n", "\r\n").replace("\r\r", "\r").encode()))


@every(
    "body",
    [
        "Ja.\r\n\r\nFrån: Kim Karlsson <kim@customer.example>\r\nSkickat: i går\r\nÄmne: Hej\r\n\r\nKommer ni?\r\n",
        "Ja.\r\n\r\nFrån: Kim Karlsson\r\nSkickat: i går\r\nTill: Anna\r\nÄmne: Hej\r\n\r\nKommer ni?\r\n",
        "Yes.\r\n\r\nOn 2 March 2026 at 09:12, Kim <KIM@customer.example> wrote:\r\n> Are you coming?\r\n> Kim\r\n",
        "Yes.\r\n\r\n-----Original Message-----\r\nFrom: Kim [mailto:kim@customer.example]\r\nSent: yesterday\r\nTo: Anna\r\nSubject: Hej\r\n\r\nWell?\r\n",
    ],
)
def test_quoted_people_are_found(body: str) -> None:
    assert CUSTOMER in reading(body).quotes


@pytest.mark.parametrize(
    "body",
    [
        "Hej!\r\n\r\nSkriv till kim@customer.example om du undrar.\r\n",
        "Hej\r\n\r\nFrån: Bo <bo@example.com>\r\nSkickat: i går\r\nTill: Kim Karlsson <kim@customer.example>\r\nÄmne: Hej\r\n\r\nText\r\n",
    ],
)
def test_mentioned_people_are_not_found(body: str) -> None:
    assert CUSTOMER not in reading(body).quotes


def test_referenced_message_ids_are_found() -> None:
    head = "In-Reply-To: <b@customer.example>\r\nReferences: <a@example.com>\r\n <b@customer.example>\r\n"
    assert reading("Hej\r\n", head).refers_to == ("b@customer.example", "a@example.com")
    many = " ".join(f"<{n}@example.com>" for n in range(100))
    found = reading("Hej\r\n", f"References: {many}\r\n").refers_to
    assert len(found) == MOST_IDS
    assert {"0@example.com", "99@example.com"} <= set(found)


NUMBER = bytes(range(16))
NEW = base64.b64encode(b"\x01\xd8\x00\x00\x00\x00" + NUMBER).decode()
ANSWER = base64.b64encode(b"\x01\xd8\x00\x00\x00\x00" + NUMBER + b"\x80" * 10).decode()


@every(
    ("fields", "thread", "conversation", "answers"),
    [
        ({"Message-ID": "<1@a>"}, "<1@a>", "", False),
        ({"Message-ID": "<2@a>", "In-Reply-To": "<1@a>"}, "<1@a>", "", True),
        ({"Message-ID": "<3@a>", "In-Reply-To": "<2@a>", "References": "<1@a> <2@a>"}, "<1@a>", "", True),
        ({"Message-ID": "<3@a>", "References": "junk <1@a>"}, "<1@a>", "", True),
        ({"Message-ID": "<1@a>", "Thread-Index": NEW}, "<1@a>", NUMBER.hex(), False),
        ({"Message-ID": "<2@a>", "Thread-Index": ANSWER}, "<2@a>", NUMBER.hex(), True),
        ({"Message-ID": "<2@a>", "Thread-Index": "AAAA"}, "<2@a>", "", False),
        ({"Message-ID": "<2@a>", "Thread-Index": "!"}, "<2@a>", "", False),
        ({"Message-ID": "<2@a>", "Subject": "Re: lunch"}, "<2@a>", "", True),
        ({"Message-ID": "<2@a>", "Subject": "SV: lunch"}, "<2@a>", "", True),
        ({"Message-ID": "<2@a>", "Subject": "Fwd: lunch"}, "<2@a>", "", False),
        ({"Subject": "Regarding lunch"}, "", "", False),
    ],
)
def test_conversations_are_identified(fields: dict[str, str], thread: str, conversation: str, answers: bool) -> None:
    raw = "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\nHello\r\n"
    reading = read(Message.of(raw.encode()))
    assert (reading.thread, reading.conversation, reading.answers) == (thread, conversation, answers)
    assert load_reading(dump_reading(reading)) == reading


def test_two_thread_indexes_are_ignored() -> None:
    raw = f"Message-ID: <1@a>\r\nThread-Index: {ANSWER}\r\nThread-Index: {NEW}\r\n\r\nHello\r\n"
    assert read(Message.of(raw.encode())).conversation == ""
