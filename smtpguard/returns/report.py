"""Parse returned mail: a DSN (RFC 3464), a complaint (ARF, RFC 5965), a reply, an unsubscribe, or unsorted. Pure.

Parsing is bounded, and never raises: what cannot be parsed is unsorted, with the reason.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.decoding import decode_transfer
from smtpguard.mail.fields import list_header, mailboxes
from smtpguard.mail.message import Header, Message, parse_header, with_crlf
from smtpguard.mail.trace import trusted
from smtpguard.reading.copies import quoted
from smtpguard.reading.fingerprint import Sketch
from smtpguard.reading.fold import fold
from smtpguard.reading.parts import Part, walk
from smtpguard.reading.request import Bounds, Meter, TooComplex
from smtpguard.reading.text import extract, subject_of
from smtpguard.reading.thread import REPLY, prefix_of, referenced_ids, without_prefixes
from smtpguard.returns.model import Parsed, PersonReport, Sort

log = logging.getLogger(__name__)

MOST_PEOPLE = 1_000
"""The most people of one report that are recorded one by one."""
MOST_STATUS_OCTETS = 4 << 20
# Anybody can send such mail, and a process reads it beside other mail. The clock counts the thread's own processor time, so
# that a busy machine does not make a report unreadable.
_BOUNDS = Bounds(
    parts=200, depth=12, text_bytes=8 << 20, tags=4_000, tag_depth=120, looks=2, seconds=1.0, clock=time.thread_time
)
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
_NO_PERSON = frozenset({"bulk", "junk"})
"""The Precedence of absence notices of programs older than Auto-Submitted."""
_UNSUBSCRIBE = frozenset({"unsubscribe", "unsubscribe me", "remove me", "avprenumerera", "avregistrera", "avregistrera mig", "avsluta prenumeration",
                          "abmelden", "abbestellen", "desabonner", "afmelden", "meld av", "afmeld"})  # fmt: skip
_UNSUBSCRIBING = re.compile(r"(?:^|[-+._])(?:unsub(?:scribe)?|leave|avregistrera|avprenumerera)(?:[-+._]|$)", re.I)


def parsed(message: Message, to: Sequence[str] = (), key: bytes = b"") -> Parsed:
    """Parse a returned mail. ``to``: the recipients in its envelope; ``key``: the installation's secret, which verifies a
    trace."""
    header = message.header
    fields = header.named
    named = to or _delivered_to(header)
    base = Parsed(
        about=(PersonReport(sort=Sort.UNSORTED),),
        subject=subject_of(fields)[:_MOST_CHARACTERS],
        author=next((str(a) for a in mailboxes(header, "From")), "")[:_MOST_CHARACTERS],
        to=tuple(dict.fromkeys(one.strip().strip("<>")[:_MOST_CHARACTERS] for one in named if one.strip()))[:50],
        message_ids=referenced_ids(fields),
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
    """Return the fingerprint of the text that a mail quotes or returns. It is empty if there is too little text, or it cannot
    be read."""
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
    """Return the recipients that the delivering server recorded, else those in To and Cc."""
    noted = [f.text for name in ("x-original-to", "delivered-to", "envelope-to") for f in header.all(name)]
    return noted[:20] or [str(a) for a in mailboxes(header, "To", "Cc")][:20]


def _from_nobody(header: Header, author: str) -> bool:
    """Return whether a server wrote the mail: by its usual names, or by a null reverse-path. Automatic answers have that too
    (RFC 5230 section 5.1), and are told apart."""
    if author.partition("@")[0].lower() in _DAEMONS:
        return True
    return (header.get("return-path") or "").strip() == "<>" and not list_header(header.named).automatic


def _written(header: Header, base: Parsed) -> Sort:
    """Return the sort of a mail that a person or a mail program wrote."""
    if any(_UNSUBSCRIBING.search(to.partition("@")[0]) for to in base.to):
        return Sort.UNSUBSCRIBE
    lists = list_header(header.named)
    if lists.automatic or lists.precedence in _NO_PERSON:
        return Sort.AUTOMATIC
    if fold(without_prefixes(base.subject)).strip(" .!") in _UNSUBSCRIBE:
        return Sort.UNSUBSCRIBE
    prefix = prefix_of(base.subject)
    answers = "in-reply-to" in header or "references" in header or (prefix is not None and prefix[0] == REPLY)
    return Sort.REPLY if answers else Sort.UNSORTED


def _original(parts: Iterable[Part]) -> Header | None:
    """Return the header of the message that a report returns, None if it returns none."""
    for part in parts:
        if part.kind in _ORIGINAL or part.is_message:
            body = part.body
            if part.encoding not in ("", "7bit", "8bit", "binary"):
                body, _ = decode_transfer(body, part.encoding)
            header = parse_header(with_crlf(body.lstrip(b"\r\n")))
            if header.fields:
                return header
    return None


def _delivery(part: Part, base: Parsed) -> Parsed:
    """Read a delivery status (RFC 3464 section 2.1): a block of fields for the message, and one for each recipient."""
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
    """Read a feedback report (RFC 5965 section 3). Many leave out who complained; then the original may name them."""
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
    """Yield the blocks of fields in a part, which empty lines separate."""
    body, _ = decode_transfer(part.body[:MOST_STATUS_OCTETS], part.encoding)
    for block in re.split(rb"(?:\r\n){2,}", with_crlf(body).strip(b"\r\n")):
        if block.strip():
            yield parse_header(block)


def _typed(field: str | None) -> str:
    """Return the address of a typed field (RFC 3464 section 2.3.2), "" if its type is no mail address."""
    found = _TYPED.match(field or "")
    return _address(found[2]) if found and found[1].lower() in ("rfc822", "utf-8") else ""


def _address(text: str) -> str:
    try:
        return str(Address.parse(text.strip().strip("<>").strip()))
    except BadAddress:
        return ""
