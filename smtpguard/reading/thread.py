"""The conversation that a message belongs to, and whether it is an answer in it (RFC 5322 section 3.6.4, MS-OXOMSG
2.2.1.3).

The conversation's name is the first Message-ID of References, or the id that the message answers, or its own. Programs
differ in what they keep of References; Outlook and Exchange number conversations in Thread-Index as well. A subject
alone is no name: "Re: Lunch" is many conversations.
"""

from __future__ import annotations

import binascii

from smtpguard.mail.constant import constant
from smtpguard.reading.decode import words
from smtpguard.reading.prefixes import REPLY, prefix_of
from smtpguard.reading.walk import Index

_MOST = 4_000
_NEW, _ANSWER = 22, 5  # octets of a Thread-Index: of a new conversation, and of each reply
_NUMBER = slice(6, 22)  # a time precedes it


@constant
class Thread:
    """``first``: the Message-ID that it begins with, as far as known. ``number``: of its Thread-Index, in hex, or "".
    ``answers``: whether this message is a reply."""

    first: str
    number: str
    answers: bool


def thread_of(fields: Index, subject: str, message_id: str) -> Thread:
    answered = first_id(fields, "references") or first_id(fields, "in-reply-to")
    found = _thread_index(fields)
    prefixed = prefix_of(subject)
    return Thread(
        first=answered or message_id,
        number=found[_NUMBER].hex(),
        answers=bool(answered or len(found) > _NEW or (prefixed and prefixed[0] == REPLY)),
    )


def first_id(fields: Index, name: str) -> str:
    """The first Message-ID in a field; without angle brackets its first word."""
    found = fields.get(name)
    if not found:
        return ""
    value = words(found[0].raw[:_MOST])
    start = value.find("<")
    end = value.find(">", start)
    return value[start : end + 1][:500] if 0 <= start < end else value.split(" ")[0][:500]


def answers_in(raw: bytes) -> int:
    """The number of replies in a Thread-Index."""
    return (len(_octets(raw)) - _NEW) // _ANSWER if _octets(raw) else 0


def _thread_index(fields: Index) -> bytes:
    found = fields.get("thread-index", ())
    return _octets(found[0].raw) if len(found) == 1 else b""


def _octets(raw: bytes) -> bytes:
    """Empty if it is malformed."""
    try:
        octets = binascii.a2b_base64(b"".join(raw.split())[:_MOST])
    except binascii.Error:
        return b""
    return octets if len(octets) >= _NEW and (len(octets) - _NEW) % _ANSWER == 0 else b""
