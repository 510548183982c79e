"""Takes what comes back: parsed, matched to the message that it is about, stored, and only then answered for.

A returned mail is a DSN (RFC 3464), a complaint (ARF, RFC 5965), a reply, an unsubscribe, or unsorted. Parsing is bounded
and total. Nothing is lost by not being understood: what cannot be parsed, or belongs to nothing, is stored all the same.

Feeds are fetched from the hosts that the settings name and nowhere else, bounded in octets and time. A name is resolved once, every
address that it has is looked at, and the connection goes to that very address, so that no later answer of DNS leads elsewhere. Redirects
are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from smtpguard.database.errors import StoreError
from smtpguard.freezes.service import Freezes, Hook
from smtpguard.guard.ports import PolicyInForce
from smtpguard.journal.chain import Clear, Entry, utc_text
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Kind
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.fields import list_header, mailboxes
from smtpguard.mail.message import Header, Message, parse_header, with_crlf
from smtpguard.mail.trace import trusted
from smtpguard.mailings.model import Mailing
from smtpguard.policy.approvals import Watched
from smtpguard.policy.freezing import Freeze
from smtpguard.reading.copies import quoted
from smtpguard.reading.fingerprint import Sketch
from smtpguard.reading.fold import fold
from smtpguard.reading.headermarks import VERP
from smtpguard.reading.parts import Part, transfer, walk
from smtpguard.reading.request import Bounds, Meter, TooComplex
from smtpguard.reading.text import extract, subject_of
from smtpguard.reading.thread import REPLY, bare, prefix_of, refers_to
from smtpguard.returns.growth import Growth, course, deeds, span, width
from smtpguard.returns.model import By, Match, Outside, Parsed, PersonReport, Return, Said, Sort, outside

if TYPE_CHECKING:
    import ssl

    from smtpguard.store.store import Store


LATELY = timedelta(days=30)
"""So old may a mailing be that something is like."""
_MOST_LIKE = 200
_MOST_FOUND = 20
_MOST_FREEZES = 500  # the newest
_LEAST_WORDS = 2
_LIKE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that went out, as the journal has it. ``people``: for whom, as far as their names are not erased; ``only``: whether it
    had one recipient, who is a person; ``lists``: whose addresses were among its recipients."""

    id: str
    mailing: str
    people: tuple[str, ...] = ()
    only: bool = False
    lists: frozenset[str] = frozenset()
    verp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a mail that was taken. ``again``: it had been before, and nothing was written. ``freezes``: what a breaker stopped
    for it; ``hooks``: the commands of those."""

    mail: str
    returns: tuple[Return, ...]
    again: bool
    freezes: tuple[Freeze, ...]
    hooks: tuple[Hook, ...]


@dataclass(eq=False)
class Returns:
    """The service behind ``smtpguard returns`` and the API. ``key``: the installation's secret; ``freezes``: has the commands that run
    where something is stopped."""

    store: Store
    policies: PolicyInForce
    clock: Clock
    digester: Digester
    freezes: Freezes
    key: bytes = field(repr=False)
    new_id: Callable[[], str]

    async def take(self, message: Message, *, to: Sequence[str] = ()) -> Receipt:
        """Store it, with what it says. ``to``: for whom it came, by its envelope. Raises StoreError: then nobody has it, and whoever
        brings it keeps it."""
        found = await asyncio.to_thread(parsed, message, to, self.key)
        match, sent = await self._matched(found, message)
        now = self.clock.now()
        mailing = await self.store.mailings.find(match.mailing) if match.mailing else None
        returns = []
        for n, about in enumerate(found.about):
            one = Return(mail=message.sha256, n=n, at=now, sort=about.sort, match=match, said=_said(found, about))
            returns.append(self._counted(one, about, sent))
        if found.rest:
            rest = Said(subject=found.subject, author=found.author, why=f"{found.rest} more people are reported in it")
            returns.append(
                Return(mail=message.sha256, n=len(returns), at=now, sort=Sort.UNSORTED, match=match, said=rest)
            )
        await self.store.returns.contents.keep(message)
        taken, freezes = await self.store.returns.take(returns, self._watched(mailing))
        hooks = [hook for stop in freezes for hook in await self.freezes.told(stop)]
        return Receipt(
            mail=message.sha256, returns=tuple(taken), again=not taken, freezes=tuple(freezes), hooks=tuple(hooks)
        )  # fmt: skip

    def _watched(self, mailing: Mailing | None) -> Watched | None:
        """By what the rest of it is stopped; nothing where no policy can be read: what comes next is counted with this."""
        try:
            in_force = self.policies.current()
        except StoreError:
            return None
        if mailing is None or not (breakers := in_force.breakers_of(mailing.lists)).each:
            return None
        people = mailing.people.at_least
        return Watched(breakers=breakers, people=people, enforce=in_force.enforce, new_id=self.new_id)

    async def course(self, mailing: Mailing) -> Growth:
        """How what comes back of it grows and falls."""
        rows, now = self.store.returns, self.clock.now()
        ends = await rows.ends(mailing.mailing_id)
        began = mailing.went_first_at or mailing.first_at
        each = width(min(began, ends[0]) if ends else began, ends[1] if ends else began)
        last = span(each)
        recent = await rows.between(mailing.mailing_id, now - last, now)
        before = await rows.between(mailing.mailing_id, now - last * 2, now - last)
        freezes = await self.store.journal.freezes(limit=_MOST_FREEZES)
        history = await self.store.journal.history(mailing.mailing_id)
        done = deeds(mailing, ends[0] if ends else None, (entry for entry, _ in (*history, *freezes)))
        spells = await rows.spells(mailing.mailing_id, each)
        return course(mailing, spells, each, recent, before, done)

    async def outside(self, since: datetime, limit: int = 200) -> tuple[Outside, ...]:
        """What is said outside since then, the newest first."""
        return outside(await self.store.returns.newest(sort=Sort.MENTION, since=since, limit=limit))

    # which message it is about

    async def _matched(self, found: Parsed, message: Message) -> tuple[Match, Sent | None]:
        if found.trace is not None and (sent := await self._sent(found.trace.id)) is not None:
            return Match(by=By.TRACE, message=sent.id, mailing=sent.mailing), sent
        for by, words in (
            (By.ENVID, (found.envid, _xtext(found.envid)) if found.envid else ()),
            (By.VERP, [to for to in found.to if VERP.match(to.partition("@")[0])]),
            (By.MESSAGE_ID, found.message_ids),
        ):
            for word in dict.fromkeys(words):
                if (sent := await self._called(by, word, found.author)) is not None:
                    return Match(by=by, message=sent.id, mailing=sent.mailing), sent
        subject = found.original_subject or found.subject
        if mailing := await self._of_like_text(message) or await self._like(subject):
            return Match(by=By.LIKENESS, mailing=mailing), None
        return Match(), None

    async def _called(self, by: By, word: str, author: str) -> Sent | None:
        """The newest message that is called so: the one that went to who answers before others, and one of a mailing. A reverse-path
        says which only where one message had it."""
        find = self.store.journal.find
        ids = await find([word, author], 1) if by is By.MESSAGE_ID and author else ()
        ids = ids or await find([word], _MOST_FOUND)
        if by is By.VERP and len(ids) != 1:
            return None
        some = [sent for id in ids if (sent := await self._sent(id)) is not None]
        if by is By.VERP and not any(sent.verp == word.lower() for sent in some):
            return None
        return next((sent for sent in some if sent.mailing), next(iter(some), None))

    async def _sent(self, id: str) -> Sent | None:
        history = await self.store.journal.history(id)
        verdict = next((pair for pair in history if pair[0].kind == Kind.VERDICT.value), None)
        return None if verdict is None else _sent(*verdict)

    async def _of_like_text(self, message: Message) -> str:
        """The mailing whose text it quotes or returns, "" for none."""
        sketch = await asyncio.to_thread(quoted_text, message)
        return await self.store.mailings.like(sketch, self.clock.now() - LATELY) if sketch else ""

    async def _like(self, subject: str) -> str:
        """The latest mailing with nearly the same subject; "" where there is none, or it has too few words to say anything."""
        words = _words(subject)
        if len(words) < _LEAST_WORDS:
            return ""
        since = self.clock.now() - LATELY
        for mailing in await self.store.mailings.newest(limit=_MOST_LIKE):
            others = _words(mailing.subject)
            if mailing.last_at >= since and others and len(words & others) >= _LIKE * len(words | others):
                return mailing.mailing_id
        return ""

    # who it is about, and whether that may be counted

    def _counted(self, one: Return, about: PersonReport, sent: Sent | None) -> Return:
        """``sure``: what it carries only who got a copy has, and it is about somebody whom that copy was for. A bounce or complaint
        carries our trace; a reply the Message-ID of the copy, and its writer is one of those who got it."""
        text = about.address
        if sent is not None and sent.only and one.match.by is By.TRACE and about.sort not in _WRITTEN:
            text = sent.people[0]  # whatever it says: a mailbox that was passed on, or nobody
        address = Address.parse_any(text)
        if address is None:
            return one
        person = self.digester.of(address)
        carries = {By.TRACE, By.MESSAGE_ID} if about.sort in _WRITTEN else {By.TRACE}
        if sent is None or not sent.mailing or one.match.by not in carries:
            return replace(one, person=person)
        got = person in map(self._person, sent.people) or self._is_behind(address, sent)
        return replace(one, person=person, sure=got)

    def _is_behind(self, address: Address, sent: Sent) -> bool:
        """Whether it is one of those on a list whose address the message went to."""
        if not sent.lists:
            return False
        try:
            [one] = self.policies.current().registry.classify([address]).recipients
        except StoreError:  # no policy that can be read: nobody knows, and it is not counted
            return False
        return not sent.lists.isdisjoint(one.lists)

    def _person(self, text: str) -> bytes | None:
        address = Address.parse_any(text)
        return None if address is None else self.digester.of(address)


_WRITTEN = frozenset({Sort.REPLY, Sort.UNSUBSCRIBE})
"""What people write themselves, so that no original is in it."""


def _sent(entry: Entry, clear: Clear | None) -> Sent:
    data: Mapping[str, Any] = entry.data
    counts, names = data.get("counts", {}), clear or {}
    recipients = names.get("recipients", ())
    by_address = bool(counts.get("list_addresses"))
    return Sent(
        id=entry.id,
        mailing=data.get("mailing") or "",
        people=tuple(recipients),
        only=len(recipients) == 1 == counts.get("total") and not by_address,
        lists=frozenset(data.get("lists", ())) if by_address else frozenset(),
        verp=next(iter(names.get("reverse_path", ())), "").lower(),
    )


def _said(found: Parsed, about: PersonReport) -> Said:
    return Said(
        subject=found.subject, author=found.author, address=about.address, status=about.status, said=about.said,
        feedback=found.feedback, why=found.why if about.sort is Sort.UNSORTED else "",
    )  # fmt: skip


def _words(subject: str) -> frozenset[str]:
    return frozenset(fold(bare(subject)).split())


def _xtext(text: str) -> str:
    """RFC 3461 section 4."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text if ord(c) < 128)


def unnamed(one: Return) -> Return:
    """Without what names people, or is theirs."""
    said = Said(status=one.said.status, feedback=one.said.feedback, why=one.said.why)
    return one if one.sort is Sort.MENTION else replace(one, said=said)


def row(one: Return) -> Mapping[str, Any]:
    """Something that came back, for programs."""
    return {
        "id": one.mail,
        "n": one.n,
        "at": utc_text(one.at),
        "sort": one.sort.value,
        "known_by": one.match.by.value,
        "message": one.match.message or None,
        "mailing": one.match.mailing or None,
        "counts": one.counts,
        "address": one.said.address or None,
        "from": one.said.author or None,
        "subject": one.said.subject,
        "status": one.said.status or None,
        "said": one.said.said or None,
        "feedback": one.said.feedback or None,
        "why": one.said.why or None,
        "kept": one.kept,
    }


MOST_OCTETS = 2 << 20
SECONDS = 20.0
_TCP = 6  # getaddrinfo's protocol
_EMBEDDING = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("::/96"),
)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotFetched(Exception):
    """Why there is no feed, in a phrase."""


async def resolved(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_public(address: str) -> bool:
    """Whether it is somebody's on the Internet, and no way into a network of ours: nor one that holds such an address within it (RFC
    4291, RFC 6052, RFC 3056, RFC 4380)."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None or any(ip in network for network in _EMBEDDING):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def fetch(
    url: str,
    *,
    resolve: Resolve = resolved,
    allowed: Callable[[str], bool] = is_public,
    most: int = MOST_OCTETS,
    seconds: float = SECONDS,
    verify: ssl.SSLContext | None = None,
) -> tuple[bytes, str]:
    """The body and its Content-Type. ``allowed``: whether an address may be connected to. Raises NotFetched."""
    import httpx2

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    if parts.scheme != "https" or not host:
        raise NotFetched("it is no https url")
    try:
        async with asyncio.timeout(seconds):
            addresses = await resolve(host, port)
            if not addresses or not all(map(allowed, addresses)):
                raise NotFetched("its name leads to an address that is not public")
            chosen = addresses[0]
            literal = f"[{chosen}]" if ":" in chosen else chosen
            there = urlunsplit(("https", f"{literal}:{port}", parts.path or "/", parts.query, ""))
            options: dict[str, Any] = {"verify": verify} if verify is not None else {}
            async with httpx2.AsyncClient(
                timeout=seconds, follow_redirects=False, trust_env=False, **options
            ) as client:
                headers = {
                    "Host": parts.netloc.rpartition("@")[2],
                    "User-Agent": "smtpguard",
                    "Accept-Encoding": "identity",
                }
                async with client.stream("GET", there, headers=headers, extensions={"sni_hostname": host}) as answer:
                    if answer.status_code != 200:
                        raise NotFetched(f"it answers {answer.status_code}")
                    if answer.headers.get("content-encoding", "identity").lower() != "identity":
                        raise NotFetched("it is packed, which was not asked for")
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > most:
                            raise NotFetched(f"it is larger than {most >> 10} KiB")
                    return bytes(body), answer.headers.get("content-type", "")
    except TimeoutError:
        raise NotFetched("no answer in time") from None
    except OSError as error:
        raise NotFetched(error.strerror or type(error).__name__) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise NotFetched(type(error).__name__) from None


log = logging.getLogger(__name__)

MOST_PEOPLE = 1_000
"""The most people of one report that are listed singly."""
MOST_STATUS_OCTETS = 4 << 20
# Anybody can send it, and it is read beside other mail: the process waits for each search in a tree. The time is of the
# thread that reads it: on a busy machine too it must be read.
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
    """A server's own mail: from a usual name, or with a null reverse-path, which automatic answers have too (RFC 5230
    section 5.1)."""
    if author.partition("@")[0].lower() in _DAEMONS:
        return True
    return (header.get("return-path") or "").strip() == "<>" and not list_header(header.named).automatic


def _written(header: Header, base: Parsed) -> Sort:
    """The sort of a mail by a person or their mail program."""
    if any(_UNSUBSCRIBING.search(to.partition("@")[0]) for to in base.to):
        return Sort.UNSUBSCRIBE
    lists = list_header(header.named)
    if lists.automatic or lists.precedence in _NO_PERSON:
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
