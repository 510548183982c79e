"""What a message is a copy of: its own text's sketch; where there is too little of it, or none to be read, a key.

Signature, disclaimers and quoted text are nobody's mailing. "Thanks, see attached" is none either: with less than ``LEAST``
characters of its own a message is a copy of itself alone, by its Message-ID. What cannot be read is a copy of what has the
very same body. Never here: how sketches are made and compared (fingerprint), or whether an origin is verified (guard).
"""

from __future__ import annotations

import hashlib

from smtpguard.mail.message import Content
from smtpguard.reading.fingerprint import Identity, sketch
from smtpguard.reading.own import own
from smtpguard.reading.text import Text

LEAST = 200
_PIECE = 1 << 20
_DIGITS = 32


def identity_of(text: Text, message_id: str, body: str) -> Identity:
    """Of a message that could be read. ``body``: what ``body_key`` says, for one that has no Message-ID either."""
    words = own(text.new)
    if len(words) < LEAST and text.alts:
        words = "\n".join((words, *text.alts))  # a mailing of pictures alone says in words what they show
    if len(words) >= LEAST and (made := sketch(words)):
        return Identity(sketch=made)
    return Identity(exact=f"message {message_id}" if message_id else body)


def body_key(raw: Content, start: int, boundaries: list[str]) -> str:
    """A key of the body that begins at ``start``. Boundaries are left out, since programs draw them by lot."""
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    marks = [b"--" + b.encode("utf-8", "surrogateescape") for b in dict.fromkeys(boundaries)]
    position = start
    while position < len(raw):
        found = [(at, len(mark)) for mark in marks if (at := raw.find(mark, position)) >= 0]
        stop, length = min(found, default=(len(raw), 0))
        for piece in range(position, stop, _PIECE):
            digest.update(raw[piece : min(stop, piece + _PIECE)])
        position = stop + length
    return f"body {digest.hexdigest()}"
