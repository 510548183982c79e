"""A reader of messages and a verifier of signatures that answer as a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from email.utils import parseaddr

from smtpguard.locale.phrase import Phrase
from smtpguard.mail.fields import DkimResult
from smtpguard.mail.message import Message
from smtpguard.policy.facts import Unknown
from smtpguard.reading.fingerprint import Identity, Sketch
from smtpguard.reading.looks import Looks, Readable, Reading
from smtpguard.reading.marks import KINDS, Mark, Side
from smtpguard.reading.request import Bounds, Depth, Meter, Steps
from smtpguard.reading.shown import Shown, shown_by
from smtpguard.reading.text import extract
from smtpguard.reading.topics import Topic

_COUNTED = extract(b"\r\n", {}, 2, Meter(Bounds())).numbers
"""By the names of facts: what reading a text counts, so that a fact that it does not count has no value here either."""


@dataclass
class FakeReader:
    """Reads the result from the header: X-Looks, X-Topics, X-Labels, X-Marks. ``fails``: what to raise, or to return
    instead."""

    asked: list[Depth] = field(default_factory=list)
    fails: Exception | Unknown | None = None
    text_fails: Exception | None = None
    hangs: bool = False  # when it reads the text
    marks: tuple[Mark, ...] = (
        Mark(
            name="prefix",
            side=Side.INTERNAL,
            weight=2,
            evidence=Phrase('the subject begins with "{spelled}"', spelled="SV:"),
        ),
    )
    sketch: Sketch = field(default_factory=Sketch)
    excerpt: str = "Shall we have bacon"

    async def read(self, message: Message, depth: Depth) -> Reading | Unknown:
        return await self.apart(message, depth)

    def in_steps(self, message: Message, depth: Depth) -> Steps[Reading | None]:
        yield
        return None

    async def apart(self, message: Message, depth: Depth) -> Reading | Unknown:
        self.asked.append(depth)
        if self.text_fails and depth is Depth.TEXT:
            raise self.text_fails
        if self.hangs and depth is Depth.TEXT:
            await asyncio.Event().wait()
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails is not None:
            return self.fails
        header = message.header
        shown = [a for name in ("To", "Cc") for f in header.all(name) for a in f.text.split(",")]
        froms = [parseaddr(f.text)[1].lower() for f in header.all("From")]
        readable = Readable(header.get("X-Readable") or "yes")
        return Reading(
            looks=Looks(header.get("X-Looks") or "internal"),
            score=1,
            marks=(*self.marks, *(KINDS[name].mark(Phrase(name)) for name in (header.get("X-Marks") or "").split())),
            readable=readable,
            why_unreadable="it is encrypted" if readable is Readable.UNREADABLE else "",
            topics=tuple(
                Topic(vocabulary=t, term="bacon", where="text", word="bacon")
                for t in (header.get("X-Topics") or "").split()
            ),
            subject=header.get("Subject") or "",
            from_address=froms[0] if len(set(froms)) == 1 else None,
            from_ambiguous=len(froms) > 1,
            shown=frozenset(parseaddr(a)[1].lower() for a in shown),
            message_id=header.get("Message-ID") or "",
            thread=header.get("References") or header.get("Message-ID") or "",
            conversation=header.get("X-Conversation") or "",
            answers="References" in header or "X-Answers" in header,
            campaign=tuple((header.get("X-Campaign") or "").split()),
            labels=frozenset((header.get("X-Labels") or "").split()),
            automatic="Auto-Submitted" in header,
            forwarded_thread="X-Forwarded-Thread" in header,
            language="en",
            numbers=dict.fromkeys(_COUNTED, 0),
            excerpt=self.excerpt,
            identity=Identity(exact=header.get("X-Mailing") or message.sha256, sketch=self.sketch),
            quotes=frozenset((header.get("X-Quotes") or "").split()),
            alone="message alone" if "X-Little" in header else "",
        )

    def shown_at_once(self, message: Message) -> Shown | None:
        return None

    async def shown_apart(self, message: Message) -> Shown:
        return shown_by(message)


@dataclass
class FakeVerifier:
    domains: frozenset[str] = frozenset()
    fails: Exception | None = None
    asked: int = 0

    async def origin(self, message: Message) -> DkimResult | Unknown:
        self.asked += 1
        if self.fails:
            raise self.fails
        return DkimResult(domains=self.domains)
