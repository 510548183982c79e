"""Take mail that comes back: parse it, match it to the message that it is about, and store it.

Nothing is lost by not being understood: what cannot be parsed, or is about no known message, is stored too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from smtpguard.database.errors import StoreError
from smtpguard.freezes.hooks import Hook
from smtpguard.freezes.service import Freezes
from smtpguard.guard.ports import PolicyInForce
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Kind
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address
from smtpguard.mail.message import Message
from smtpguard.mail.xtext import MAX_ENVID, encode_xtext
from smtpguard.mailings.model import Mailing
from smtpguard.policy.freezing import Freeze
from smtpguard.policy.stages import Watched
from smtpguard.reading.fold import fold
from smtpguard.reading.headermarks import VERP
from smtpguard.reading.thread import without_prefixes
from smtpguard.returns.growth import Growth, deeds, growth, span, width
from smtpguard.returns.mentions import Outside, outside
from smtpguard.returns.model import By, Match, Parsed, PersonReport, Return, ReturnText, Sort
from smtpguard.returns.report import parsed, quoted_text

if TYPE_CHECKING:
    from smtpguard.store.store import Store


LATELY = timedelta(days=30)
"""How old a mailing may be that is matched by likeness."""
_MOST_MAILINGS = 200
_MOST_FOUND = 20
_MOST_FREEZES = 500  # the newest
_LEAST_WORDS = 2
_LIKE = 0.8  # the share of words that two subjects have in common


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that went out, as the journal has it.

    ``people``: its recipients, if their names are not erased. ``only``: it had one recipient, and that is a person. ``lists``:
    the lists whose addresses were among its recipients. ``verp``: its reverse-path, in lower case.
    """

    id: str
    mailing: str
    people: tuple[str, ...] = ()
    only: bool = False
    lists: frozenset[str] = frozenset()
    verp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What taking a mail did. ``again``: the mail was stored before, and nothing was written. ``freezes``: the freezes that a
    breaker made; ``hooks``: the results of their commands."""

    mail: str
    returns: tuple[Return, ...]
    again: bool
    freezes: tuple[Freeze, ...]
    hooks: tuple[Hook, ...]


@dataclass(eq=False)
class Returns:
    """The service behind ``smtpguard returns`` and the API. ``key``: the installation's secret; ``freezes``: runs the commands
    of a freeze."""

    store: Store
    policies: PolicyInForce
    clock: Clock
    digester: Digester
    freezes: Freezes
    key: bytes = field(repr=False)
    new_id: Callable[[], str]

    async def take(self, message: Message, *, to: Sequence[str] = ()) -> Receipt:
        """Store a returned mail and what it says. ``to``: the recipients in its envelope. Raises StoreError: then nothing is
        stored, and the caller must keep the mail."""
        found = await asyncio.to_thread(parsed, message, to, self.key)
        match, sent = await self._matched(found, message)
        now = self.clock.now()
        mailing = await self.store.mailings.find(match.mailing) if match.mailing else None
        returns = []
        for n, about in enumerate(found.about):
            one = Return(mail=message.sha256, n=n, at=now, sort=about.sort, match=match, said=_said(found, about))
            returns.append(self._counted(one, about, sent))
        if found.rest:
            rest = ReturnText(
                subject=found.subject, author=found.author, why=f"{found.rest} more people are reported in it"
            )
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
        """Return the breakers that watch ``mailing``. None if it has none, or no policy can be read: what is stored now is
        counted when the next return comes."""
        try:
            in_force = self.policies.current()
        except StoreError:
            return None
        if mailing is None or not (breakers := in_force.breakers_of(mailing.lists)).each:
            return None
        people = mailing.people.at_least
        return Watched(breakers=breakers, people=people, enforce=in_force.enforce, new_id=self.new_id)

    async def growth(self, mailing: Mailing) -> Growth:
        """Return how the returns of a mailing grow and fall."""
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
        counts = await rows.sort_counts(mailing.mailing_id, each)
        return growth(mailing, counts, each, recent, before, done)

    async def outside(self, since: datetime, limit: int = 200) -> tuple[Outside, ...]:
        """Return the mentions since ``since``, the newest first."""
        return outside(await self.store.returns.newest(sort=Sort.MENTION, since=since, limit=limit))

    # which message it is about

    async def _matched(self, found: Parsed, message: Message) -> tuple[Match, Sent | None]:
        if found.trace is not None and (sent := await self._sent(found.trace.id)) is not None:
            return Match(by=By.TRACE, message=sent.id, mailing=sent.mailing), sent
        for by, words in (
            (By.ENVID, (found.envid, encode_xtext(found.envid, MAX_ENVID).decode()) if found.envid else ()),
            (By.VERP, [to for to in found.to if VERP.match(to.partition("@")[0])]),
            (By.MESSAGE_ID, found.message_ids),
        ):
            for word in dict.fromkeys(words):
                if (sent := await self._named_by(by, word, found.author)) is not None:
                    return Match(by=by, message=sent.id, mailing=sent.mailing), sent
        subject = found.original_subject or found.subject
        if mailing := await self._with_like_text(message) or await self._with_like_subject(subject):
            return Match(by=By.LIKENESS, mailing=mailing), None
        return Match(), None

    async def _named_by(self, by: By, word: str, author: str) -> Sent | None:
        """Return the newest message that ``word`` names. One that went to ``author`` comes before others, and one of a mailing
        before others. A reverse-path names a message only if no other message had it."""
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
        verdicts = await self.store.journal.history(id, Kind.VERDICT)
        return _sent(*verdicts[0]) if verdicts else None

    async def _with_like_text(self, message: Message) -> str:
        """Return the id of the mailing whose text the mail quotes or returns, "" for none."""
        sketch = await asyncio.to_thread(quoted_text, message)
        return await self.store.mailings.like(sketch, self.clock.now() - LATELY) if sketch else ""

    async def _with_like_subject(self, subject: str) -> str:
        """Return the id of the latest mailing with nearly the same subject. "" if there is none, or the subject has fewer than
        two words."""
        words = _words(subject)
        if len(words) < _LEAST_WORDS:
            return ""
        since = self.clock.now() - LATELY
        for mailing in await self.store.mailings.newest(limit=_MOST_MAILINGS):
            others = _words(mailing.subject)
            if mailing.last_at >= since and others and len(words & others) >= _LIKE * len(words | others):
                return mailing.mailing_id
        return ""

    # who it is about, and whether that may be counted

    def _counted(self, one: Return, about: PersonReport, sent: Sent | None) -> Return:
        """Return ``one`` with ``person``, and with ``sure`` if it is proved. A bounce or a complaint proves it by the trace of a copy
        to that person; a reply by the Message-ID of a copy to its writer."""
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
        got = person in map(self._person, sent.people) or self._is_member(address, sent)
        return replace(one, person=person, sure=got)

    def _is_member(self, address: Address, sent: Sent) -> bool:
        """Return whether ``address`` is a member of a list whose address the message went to."""
        if not sent.lists:
            return False
        try:
            [one] = self.policies.current().registry.classify([address]).recipients
        except StoreError:  # without a policy nobody knows the members, and the return does not count
            return False
        return not sent.lists.isdisjoint(one.lists)

    def _person(self, text: str) -> bytes | None:
        address = Address.parse_any(text)
        return None if address is None else self.digester.of(address)


_WRITTEN = frozenset({Sort.REPLY, Sort.UNSUBSCRIBE})
"""The sorts that people write themselves, without the original in them."""


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


def _said(found: Parsed, about: PersonReport) -> ReturnText:
    return ReturnText(
        subject=found.subject, author=found.author, address=about.address, status=about.status, said=about.said,
        feedback=found.feedback, why=found.why if about.sort is Sort.UNSORTED else "",
    )  # fmt: skip


def _words(subject: str) -> frozenset[str]:
    return frozenset(fold(without_prefixes(subject)).split())
