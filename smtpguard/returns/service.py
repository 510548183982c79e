"""Take returned mail: read it, match it to its original message, store it, and only then acknowledge it.

A mail that cannot be read or matched is stored all the same, so that nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from smtpguard.database.errors import LedgerError
from smtpguard.guard.ports import Clock, Contents, Journal, Mailings, PolicyInForce
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Kind
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.message import Message
from smtpguard.mailings.model import LET_THROUGH, Mailing
from smtpguard.reading.fold import fold
from smtpguard.reading.heads import VERP
from smtpguard.reading.prefixes import bare
from smtpguard.returns.model import About, By, Match, Parsed, Return, Said, Sort
from smtpguard.returns.parsing import parsed

LATELY = timedelta(days=30)
"""The greatest age of a mailing that is matched by its subject."""
_MOST_LIKE = 200
_MOST_FOUND = 20
_LEAST_WORDS = 2
_LIKE = 0.8


class Rows(Protocol):
    """Rows of returned mail."""

    @property
    def contents(self) -> Contents: ...

    async def take(self, some: Sequence[Return]) -> Taken: ...

    async def newest(
        self,
        *,
        mailing: str | None = None,
        sort: Sort | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Return]:
        """The latest first. ``mailing``: "" for returns without one. ``before``: time and mail of the last one on the
        previous page."""


class Taken(Protocol):
    """The rows written; none if the mail was stored before."""

    @property
    def returns(self) -> tuple[Return, ...]: ...


class Searched(Journal, Protocol):
    async def find(self, words: Sequence[str], limit: int) -> Sequence[str]: ...


class Record(Protocol):
    """The part of the store that is needed here."""

    @property
    def returns(self) -> Rows: ...

    @property
    def mailings(self) -> Mailings: ...

    @property
    def journal(self) -> Searched: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A sent message, from the journal. ``only``: its one recipient, if it had no other; ``lists``: those whose
    addresses were among its recipients."""

    id: str
    mailing: str
    only: str = ""
    lists: frozenset[str] = frozenset()
    verp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The result for a returned mail. ``again``: it was stored before, and nothing was written."""

    mail: str
    returns: tuple[Return, ...]
    again: bool = False


class Returns:
    """The service behind ``smtpguard returns`` and the API. ``key``: the installation's secret."""

    def __init__(
        self, record: Record, policies: PolicyInForce, clock: Clock, digester: Digester, *, key: bytes
    ) -> None:
        self._record = record
        self._policies = policies
        self._clock = clock
        self._digester = digester
        self._key = key

    async def take(self, message: Message, *, to: Sequence[str] = ()) -> Receipt:
        """Store it, with its statements. ``to``: its recipients, by its envelope. Raises LedgerError: then it is not
        stored, and the caller keeps it."""
        found = await asyncio.to_thread(parsed, message, to, self._key)
        match, sent = await self._matched(found)
        now = self._clock.now()
        mailing = await self._record.mailings.find(match.mailing) if match.mailing else None
        returns = []
        for n, about in enumerate(found.about):
            one = Return(mail=message.sha256, n=n, at=now, sort=about.sort, match=match, said=_said(found, about))
            returns.append(await self._counted(one, found, about, sent, mailing))
        if found.rest:
            rest = Said(subject=found.subject, author=found.author, why=f"{found.rest} more people are told of in it")
            returns.append(
                Return(mail=message.sha256, n=len(returns), at=now, sort=Sort.UNSORTED, match=match, said=rest)
            )
        await self._record.returns.contents.keep(message)
        taken = await self._record.returns.take(returns)
        return Receipt(mail=message.sha256, returns=taken.returns, again=not taken.returns)

    async def newest(self, *, mailing: str | None = None, limit: int = 100) -> Sequence[Return]:
        """The latest first; all, or those of one mailing."""
        return await self._record.returns.newest(mailing=mailing, limit=limit)

    # the original message

    async def _matched(self, found: Parsed) -> tuple[Match, Sent | None]:
        if found.trace is not None and (sent := await self._sent(found.trace.id)) is not None:
            return Match(by=By.TRACE, message=sent.id, mailing=sent.mailing), sent
        for by, words in (
            (By.ENVID, (found.envid, _xtext(found.envid)) if found.envid else ()),
            (By.VERP, [to for to in found.to if VERP.match(to.partition("@")[0])]),
            (By.MESSAGE_ID, found.message_ids),
        ):
            for word in dict.fromkeys(words):
                if (sent := await self._called(by, word)) is not None:
                    return Match(by=by, message=sent.id, mailing=sent.mailing), sent
        subject = found.original_subject or found.subject
        if mailing := await self._like(subject):
            return Match(by=By.LIKENESS, mailing=mailing), None
        return Match(), None

    async def _called(self, by: By, word: str) -> Sent | None:
        """The newest message with this reference, one of a mailing before others; a reverse-path identifies a message
        only if one message had it."""
        ids = await self._record.journal.find([word], _MOST_FOUND)
        if by is By.VERP and len(ids) != 1:
            return None
        some = [sent for id in ids if (sent := await self._sent(id)) is not None]
        if by is By.VERP and not any(sent.verp == word.lower() for sent in some):
            return None
        return next((sent for sent in some if sent.mailing), next(iter(some), None))

    async def _sent(self, id: str) -> Sent | None:
        history = await self._record.journal.history(id)
        verdict = next((pair for pair in history if pair[0].kind == Kind.VERDICT.value), None)
        return None if verdict is None else _sent(*verdict)

    async def _like(self, subject: str) -> str:
        """The latest mailing with nearly the same subject; "" if there is none, or it has too few words."""
        words = _words(subject)
        if len(words) < _LEAST_WORDS:
            return ""
        since = self._clock.now() - LATELY
        for mailing in await self._record.mailings.newest(limit=_MOST_LIKE):
            others = _words(mailing.subject)
            if mailing.last_at >= since and others and len(words & others) >= _LIKE * len(words | others):
                return mailing.mailing_id
        return ""

    # the person, and whether it counts

    async def _counted(
        self, one: Return, found: Parsed, about: About, sent: Sent | None, mailing: Mailing | None
    ) -> Return:
        """``sure``: it carries something that only a recipient has, and is about a recipient. A bounce or complaint
        carries our trace; a reply the Message-ID of a copy, and its writer is a recipient."""
        carries = {By.TRACE, By.MESSAGE_ID} if about.sort in _WRITTEN else {By.TRACE}
        if sent is None or mailing is None:
            return replace(one, person=self._person(about.address))
        if sent.only and one.match.by is By.TRACE and about.sort not in _WRITTEN:
            about = replace(about, address=sent.only)
        person, got = await self._got(about.address, sent, mailing, found)
        return replace(one, person=person, sure=got and one.match.by in carries)

    async def _got(self, text: str, sent: Sent, mailing: Mailing, found: Parsed) -> tuple[bytes | None, bool]:
        address = _address(text)
        if address is None:
            return None, False
        digests = self._digester.every(address)
        fates = await self._record.mailings.reached_by(mailing.mailing_id, digests)
        for digest in digests:
            if fates.get(digest) in LET_THROUGH:
                return digest, True
        return digests[0], self._is_behind(address, sent, found)

    def _is_behind(self, address: Address, sent: Sent, found: Parsed) -> bool:
        """Whether it is a member of a list whose address the message was sent to."""
        if not sent.lists:
            return False
        try:
            [one] = self._policies.current().registry.classify([address]).recipients
        except LedgerError:  # without a readable policy it is unknown, and not counted
            return False
        return not sent.lists.isdisjoint(one.lists)

    def _person(self, text: str) -> bytes | None:
        address = _address(text)
        return None if address is None else self._digester.of(address)


_WRITTEN = frozenset({Sort.REPLY, Sort.UNSUBSCRIBE})
"""Sorts that people write themselves, without the original in them."""


def _sent(entry: Entry, clear: Clear | None) -> Sent:
    data: Mapping[str, Any] = entry.data
    counts, names = data.get("counts", {}), clear or {}
    recipients = names.get("recipients", ())
    by_address = bool(counts.get("list_addresses"))
    return Sent(
        id=entry.id,
        mailing=data.get("mailing") or "",
        only=recipients[0] if len(recipients) == 1 == counts.get("total") and not by_address else "",
        lists=frozenset(data.get("lists", ())) if by_address else frozenset(),
        verp=next(iter(names.get("reverse_path", ())), "").lower(),
    )


def _said(found: Parsed, about: About) -> Said:
    return Said(
        subject=found.subject, author=found.author, address=about.address, status=about.status, said=about.said,
        feedback=found.feedback, why=found.why if about.sort is Sort.UNSORTED else "",
    )  # fmt: skip


def _words(subject: str) -> frozenset[str]:
    return frozenset(fold(bare(subject)).split())


def _xtext(text: str) -> str:
    """RFC 3461 section 4."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text if ord(c) < 128)


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except BadAddress:
        return None


def row(one: Return) -> Mapping[str, Any]:
    """One return, for programs."""
    return {
        "id": one.mail,
        "n": one.n,
        "at": one.at.isoformat(timespec="seconds").replace("+00:00", "Z"),
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
