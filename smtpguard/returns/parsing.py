"""Parse returned mail: a DSN (RFC 3464), a complaint (ARF, RFC 5965), a reply, an unsubscribe, or unsorted.

Bounded and total: a mail that cannot be parsed is unsorted, and stored unchanged. Pure.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.fields import list_header, mailboxes
from smtpguard.mail.message import Header, Message, parse_header, with_crlf
from smtpguard.mail.trace import trusted
from smtpguard.reading.copies import quoted
from smtpguard.reading.fingerprint import Sketch
from smtpguard.reading.fold import fold
from smtpguard.reading.parts import Part, transfer, walk
from smtpguard.reading.request import Bounds, Meter, TooComplex
from smtpguard.reading.text import extract, subject_of
from smtpguard.reading.thread import REPLY, bare, prefix_of, refers_to
from smtpguard.returns.model import Parsed, PersonReport, Sort

log = logging.getLogger(__name__)

MOST_PEOPLE = 1_000
"""The most people of one report that are listed singly."""
MOST_STATUS_OCTETS = 4 << 20
_BOUNDS = Bounds(parts=200, depth=12, text_bytes=8 << 20)
_MOST_CHARACTERS = 500
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_TYPED = re.compile(r"\s*([A-Za-z0-9\-]{1,20})\s*;\s*(.*)\Z", re.S)
_ID = re.compile(r"<([^<>\s]{3,500})>")
_ACTIONS = {"failed": Sort.BOUNCE, "delayed": Sort.DELAY, "delivered": Sort.DELIVERED, "relayed": Sort.DELIVERED,
            "expanded": Sort.DELIVERED}  # fmt: skip
_STATUS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_NOTIFICATIONS = frozenset({"message/disposition-notification", "message/global-disposition-notification"})
_ORIGINAL = frozenset({"text/rfc822-headers", "message/global-headers"})
_DAEMONS = frozenset({"mailer-daemon", "postmaster"})
_UNSUBSCRIBE = frozenset({"unsubscribe", "unsubscribe me", "remove me", "avprenumerera", "avregistrera", "avregistrera mig", "avsluta prenumeration",
                          "abmelden", "abbestellen", "desabonner", "afmelden", "meld av", "afmeld"})  # fmt: skip
_UNSUBSCRIBING = re.compile(r"(?:^|[-+._])(?:unsub(?:scribe)?|leave|avregistrera|avprenumerera)(?:[-+._]|$)", re.I)


def parsed(message: Message, to: Sequence[str] = (), key: bytes = b"") -> Parsed:
    """``to``: its recipients, by its envelope; ``key``: the installation's secret, to verify our trace."""
    header = message.header
    fields = header.named
    named = to or _delivered_to(header)
    base = Parsed(
        about=(PersonReport(sort=Sort.UNSORTED),),
        subject=subject_of(fields)[:_MOST_CHARACTERS],
        author=next((str(a) for a in mailboxes(header, "From")), "")[:_MOST_CHARACTERS],
        to=tuple(dict.fromkeys(one.strip().strip("<>")[:_MOST_CHARACTERS] for one in named if one.strip()))[:50],
        message_ids=refers_to(fields),
    )
    try:
        found = walk(message.raw, fields, min(header.size_bytes + 4, message.size_bytes), Meter(_BOUNDS))
        return _read(header, [part for part in found.parts if not part.nested], base, key)
    except TooComplex as error:
        return replace(base, why=str(error.why))
    except Exception as error:  # an internal error must lose no report
        log.exception("a mail that came back could not be read")
        return replace(base, why=type(error).__name__)


def quoted_text(message: Message) -> Sketch:
    """The fingerprint of the text that it quotes or returns; an empty one if it has too little, or cannot be read."""
    header = message.header
    try:
        start = min(header.size_bytes + 4, message.size_bytes)
        return quoted(extract(message.raw, header.named, start, Meter(_BOUNDS)))
    except TooComplex:
        return Sketch()
    except Exception:  # an internal error must lose no report
        log.exception("the text of a mail that came back could not be read")
        return Sketch()


def _read(header: Header, parts: Sequence[Part], base: Parsed, key: bytes) -> Parsed:
    original = _original(parts)
    if original is not None:
        own = [i for f in original.all("message-id") for i in _ID.findall(f.text)]
        base = replace(
            base,
            trace=trusted(original, key) if key else None,
            message_ids=tuple(dict.fromkeys((*own, *base.message_ids))),
            original_subject=(original.get("subject") or "")[:_MOST_CHARACTERS],
        )
    if status := next((part for part in parts if part.kind in _STATUS), None):
        return _delivery(status, base)
    if feedback := next((part for part in parts if part.kind == "message/feedback-report"), None):
        return _complaint(feedback, original, base)
    if any(part.kind in _NOTIFICATIONS for part in parts):
        return replace(base, about=(PersonReport(sort=Sort.AUTOMATIC, address=base.author),))
    if _from_nobody(header, base.author):
        return replace(base, why="a report in no form that is known")
    return replace(base, about=(PersonReport(sort=_written(header, base), address=base.author),))


def _delivered_to(header: Header) -> Sequence[str]:
    """The recipients that the delivering server recorded, else those in To and Cc."""
    noted = [f.text for name in ("x-original-to", "delivered-to", "envelope-to") for f in header.all(name)]
    return noted[:20] or [str(a) for a in mailboxes(header, "To", "Cc")][:20]


def _from_nobody(header: Header, author: str) -> bool:
    """A server's own mail: with a null reverse-path, or from a usual name."""
    path = (header.get("return-path") or "").strip()
    return path == "<>" or author.partition("@")[0].lower() in _DAEMONS


def _written(header: Header, base: Parsed) -> Sort:
    """The sort of a mail by a person or their mail program."""
    if any(_UNSUBSCRIBING.search(to.partition("@")[0]) for to in base.to):
        return Sort.UNSUBSCRIBE
    if list_header(header.named).automatic:
        return Sort.AUTOMATIC
    if fold(bare(base.subject)).strip(" .!") in _UNSUBSCRIBE:
        return Sort.UNSUBSCRIBE
    prefix = prefix_of(base.subject)
    answers = "in-reply-to" in header or "references" in header or (prefix is not None and prefix[0] == REPLY)
    return Sort.REPLY if answers else Sort.UNSORTED


def _original(parts: Iterable[Part]) -> Header | None:
    """The header of the message that a report returns."""
    for part in parts:
        if part.kind in _ORIGINAL or part.is_message:
            body = part.body
            if part.encoding not in ("", "7bit", "8bit", "binary"):
                body, _ = transfer(body, part.encoding)
            header = parse_header(with_crlf(body.lstrip(b"\r\n")))
            if header.fields:
                return header
    return None


def _delivery(part: Part, base: Parsed) -> Parsed:
    """RFC 3464 section 2.1: fields of the message, and a block of fields for each recipient."""
    blocks = list(_blocks(part))
    people: list[PersonReport] = []
    rest = 0
    for block in blocks[1:]:
        sort = _ACTIONS.get((block.get("action") or "").split(";")[0].split("(")[0].strip().lower())
        if sort is None:
            continue
        if len(people) >= MOST_PEOPLE:
            rest += 1
            continue
        status = _ENHANCED.search(block.get("status") or "")
        address = _typed(block.get("original-recipient")) or _typed(block.get("final-recipient"))
        said = _TYPED.match(block.get("diagnostic-code") or "")
        people.append(
            PersonReport(sort=sort, address=address, status=status[0] if status else "", said=said[2][:_MOST_CHARACTERS] if said else "")
        )  # fmt: skip
    if not people:
        return replace(base, why="a delivery report without a recipient")
    envid = (blocks[0].get("original-envelope-id") or "")[:_MOST_CHARACTERS].strip()
    return replace(base, about=tuple(people), envid=envid, rest=rest)


def _complaint(part: Part, original: Header | None, base: Parsed) -> Parsed:
    """RFC 5965 section 3. Many reports leave out who complained; then the original may name them."""
    block = next(_blocks(part), None)
    kind = (block.get("feedback-type") or "").strip().lower() if block is not None else ""
    named = [f.text for f in block.all("original-rcpt-to")] if block is not None else []
    people = [address for text in named[:MOST_PEOPLE] if (address := _address(text))]
    if not people and original is not None:
        people = [str(a) for a in mailboxes(original, "To")][:1]
    envid = (block.get("original-envelope-id") or "").strip()[:_MOST_CHARACTERS] if block is not None else ""
    if kind == "not-spam":
        return replace(base, why="a report that it is not spam")
    told = tuple(PersonReport(sort=Sort.COMPLAINT, address=address) for address in people) or (
        PersonReport(sort=Sort.COMPLAINT),
    )
    return replace(base, about=told, envid=envid, feedback=kind[:40], rest=max(0, len(named) - MOST_PEOPLE))


def _blocks(part: Part) -> Iterator[Header]:
    body, _ = transfer(part.body[:MOST_STATUS_OCTETS], part.encoding)
    for block in re.split(rb"(?:\r\n){2,}", with_crlf(body).strip(b"\r\n")):
        if block.strip():
            yield parse_header(block)


def _typed(field: str | None) -> str:
    """An address with its type (RFC 3464 section 2.3.2); "" if the type is no mail address."""
    found = _TYPED.match(field or "")
    return _address(found[2]) if found and found[1].lower() in ("rfc822", "utf-8") else ""


def _address(text: str) -> str:
    try:
        return str(Address.parse(text.strip().strip("<>").strip()))
    except BadAddress:
        return ""
