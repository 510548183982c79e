"""The replies of a relay, and a session with it as a state machine (RFC 5321 section 4.2, RFC 2920).

They are strict and bounded: every line of a reply ends in CRLF, begins with the same code, and has no CR or NUL.
Anything else is not SMTP, and the connection is dropped. Enhanced status codes (RFC 2034) stay in the text as they are.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

from smtpguard.mail.reply import Reply

MAX_LINE_OCTETS = 2048  # RFC 5321 section 4.5.3.1.5 says 512; some relays send more
MAX_REPLY_LINES = 200
MAX_TEXT_OCTETS = 500  # the most that a line of ours may pass on

_SHORT = 200  # octets that are remembered
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\r\n\x00]*))?\r\n")


class BadReply(Exception):
    """Not an SMTP reply, or one without end."""


Told = Callable[[list[Reply] | None], None]
"""Is called with the replies to commands that were sent together; with None if the connection is lost."""
SentCommands = tuple[int, Told, bool]
"""Commands that were sent together: the number of their replies, who gets all of them, and whether input after them is
ignored."""


class RelaySession:
    """Octets in, replies to commands out (RFC 5321 section 4.2, RFC 2920 section 3.1). ``asked``: unanswered commands,
    the oldest first; ``heard``: the replies to the oldest so far; ``unasked``: a reply without a command. ``deaf``: input is
    ignored."""

    def __init__(self) -> None:
        self.asked: deque[SentCommands] = deque()
        self.heard: list[Reply] = []
        self.unasked: Reply | None = None
        self.deaf = False
        self._replies = Replies()

    def receive(self, data: bytes) -> list[tuple[Told, list[Reply]]]:
        """Who is to be told now, and the replies. A reply that asks for more (3xx) ends the answer: it is unknown how the
        relay takes the rest. Raises BadReply; do not feed it after that."""
        asked, heard = self.asked, self.heard
        done: list[tuple[Told, list[Reply]]] = []
        for one in self._replies.feed(data):
            if not asked:
                self.unasked = one
                break
            heard.append(one)
            if len(heard) == asked[0][0] or one.intermediate:
                _, told, last = asked.popleft()
                done.append((told, heard))
                self.heard = heard = []
                if last:
                    self.deaf = True
                    self._replies.forget()
                    break
        return done


class Replies:
    """Feed it the input; it returns complete replies."""

    def __init__(self) -> None:
        self._rest = b""
        self._code = 0
        self._lines: list[str] = []

    def feed(self, data: bytes) -> Sequence[Reply]:
        """Raises BadReply; do not feed it after that."""
        if self._rest or self._lines or len(data) > _SHORT:
            return self._all(data)
        at_once = _at_once(data)
        return at_once if at_once is not None else self._all(data)

    def _all(self, data: bytes) -> list[Reply]:
        if self._rest:
            data = self._rest + data
        replies: list[Reply] = []
        start = 0
        while (end := data.find(b"\n", start) + 1) > 0:
            one = self._line(data[start:end])
            start = end
            if one is not None:
                replies.append(one)
        self._rest = data[start:]
        if len(self._rest) > MAX_LINE_OCTETS:
            raise BadReply("a line without end")
        return replies

    def forget(self) -> None:
        """Drop incomplete input: plain text before TLS is not trusted (CVE-2011-0411)."""
        self._rest, self._code, self._lines = b"", 0, []

    def _line(self, line: bytes) -> Reply | None:
        found = _LINE.fullmatch(line)
        if found is None or len(line) > MAX_LINE_OCTETS:
            raise BadReply("not an SMTP reply")
        code = int(found[1])
        if self._lines and code != self._code:
            raise BadReply("a reply with two codes")
        self._lines.append(_text(found[3] or b""))
        if found[2] == b"-":
            if len(self._lines) >= MAX_REPLY_LINES:
                raise BadReply("a reply without end")
            self._code = code
            return None
        whole = Reply(code, tuple(self._lines))
        self._lines = []
        return whole


@lru_cache(maxsize=512)
def _at_once(data: bytes) -> tuple[Reply, ...] | None:
    """The replies that these octets are by themselves; None if part of one is missing. Cached: a relay repeats few."""
    alone = Replies()
    replies = tuple(alone._all(data))
    return None if alone._rest or alone._lines else replies


def _text(raw: bytes) -> str:
    text = raw[:MAX_TEXT_OCTETS].decode("utf-8", "replace" if len(raw) <= MAX_TEXT_OCTETS else "ignore")
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
