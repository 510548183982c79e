"""The conversation of a message, and whether the message answers in it."""

from __future__ import annotations

import base64

from smtpguard.mail.message import Message
from smtpguard.reading.codec import dump_reading, load_reading
from smtpguard.reading.read import read
from tests.every import every

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
