"""Takes what comes back: read, matched to the message that it is about, stored, and only then answered for.

Nothing is lost by not being understood: what cannot be read, or belongs to nothing, is stored all the same.

Feeds are fetched from the hosts that the settings name and nowhere else, bounded in octets and time. A name is resolved once, every
address that it has is looked at, and the connection goes to that very address, so that no later answer of DNS leads elsewhere. Redirects
are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from smtpguard.database.errors import StoreError
from smtpguard.freezes.service import Freezes, Hook
from smtpguard.guard.ports import Clock, PolicyInForce
from smtpguard.journal.chain import Clear, Entry, utc_text
from smtpguard.journal.event import Kind
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address
from smtpguard.mail.message import Message
from smtpguard.mailings.model import Mailing
from smtpguard.policy.approvals import Watched
from smtpguard.policy.freezing import Freeze
from smtpguard.reading.fold import fold
from smtpguard.reading.headermarks import VERP
from smtpguard.reading.thread import bare
from smtpguard.returns.growth import Growth, course, deeds, span, width
from smtpguard.returns.mentions import Outside, outside
from smtpguard.returns.model import By, Match, Parsed, PersonReport, Return, Said, Sort
from smtpguard.returns.parsing import parsed, quoted_text

if TYPE_CHECKING:
    import ssl

    from smtpguard.store.store import Store

LATELY = timedelta(days=30)
"""So old may a mailing be that something is like."""
_MOST_LIKE = 200
_MOST_FOUND = 20
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
    again: bool = False
    freezes: tuple[Freeze, ...] = ()
    hooks: tuple[Hook, ...] = ()


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

    async def course(self, mailing: Mailing, freezes: Sequence[tuple[Entry, Clear | None]] = ()) -> Growth:
        """How what comes back of it grows and falls. ``freezes``: the journal's entries on what was frozen and thawed."""
        rows, now = self.store.returns, self.clock.now()
        ends = await rows.ends(mailing.mailing_id)
        began = mailing.went_first_at or mailing.first_at
        each = width(min(began, ends[0]) if ends else began, ends[1] if ends else began)
        last = span(each)
        recent = await rows.between(mailing.mailing_id, now - last, now)
        before = await rows.between(mailing.mailing_id, now - last * 2, now - last)
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
    """Every address of a name."""
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
