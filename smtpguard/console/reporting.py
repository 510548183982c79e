"""What takes a process a while, and is made one at a time, for the page, the API and the command line alike: an incident
report, and the list of the addresses that got a mailing, for the two people who agreed on that.

A report with names is journalled, and so is each list, first. The rules of a report are described in the words of the
policies that decided. A list is written to an unnamed temporary file, since it may have millions of addresses.
"""

from __future__ import annotations

import asyncio
import csv
import logging
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from smtpguard.admission.recorded import Recorded
from smtpguard.console.services import ConsoleServices
from smtpguard.holds.model import NotEntitled
from smtpguard.incidents.purposes import Documents, Missed, Purposes, missed, purposes
from smtpguard.incidents.query import IncidentQuery, UnknownNames, moment, unknown_names
from smtpguard.incidents.report import Found, Report, TooMany
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.speech import Speech
from smtpguard.mail.address import Address
from smtpguard.mailings.model import MAY_HAVE, CopyStatus, Mailing, set_of
from smtpguard.mailings.service import NoAddresses

if TYPE_CHECKING:  # slow to import
    from smtpguard.mailings.matching import Matched
    from smtpguard.store.store import Store

_SHA256 = 64  # characters
MOST_FOUND = 100
"""The most messages that one word may match."""
Find = Callable[[IncidentQuery], Awaitable[Found]]


class Occupied(Exception):
    """Another report is being made by this process."""


class NothingFits(Exception):
    """``why``: sentences on the mistakes in the query, as far as they are known. ``rest``: other parts of the query
    match, but a report without the mistaken parts would look as if nothing of that had happened."""

    def __init__(self, why: Sequence[str], *, rest: bool = False) -> None:
        super().__init__("; ".join(why if rest else ("nothing in the journal matches", *why)))
        self.why, self.rest = tuple(why), rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """``query``: the query, with whole ids. ``report``: that of ``found``. ``at``: when it was asked for. ``names``:
    whether it names people."""

    query: IncidentQuery
    found: Found
    report: Report
    purposes: Purposes
    at: datetime
    names: bool
    keeps: timedelta
    """For at least so long the content of a hold is kept."""
    missed: tuple[Missed, ...] = ()
    """The rules that did not hit the first message that passed, or else the first message."""


def query_of(
    now: datetime,
    *,
    ids: Iterable[str],
    lists: Iterable[str],
    senders: Iterable[str],
    subject: str,
    alone: bool,
    since: str | None,
    until: str | None,
) -> tuple[IncidentQuery, dict[str, str]]:
    """The query, and what is wrong with a time, by its name."""
    times, wrong = dict[str, int](), dict[str, str]()
    for name, text in (("since", since), ("until", until)):
        try:
            if text is not None:
                times[name] = microseconds(moment(text, now))
        except ValueError as error:
            wrong[name] = str(error)
    query = IncidentQuery(
        ids=frozenset(ids),
        lists=frozenset(lists),
        senders=frozenset(senders),
        subject=subject,
        whole=not alone,
        since=times.get("since"),
        until=times.get("until"),
    )
    return query, wrong


async def make(
    query: IncidentQuery,
    find: Find,
    store: Store,
    *,
    at: datetime,
    names: bool,
    by: tuple[str, ...],
    language: str,
    delimiters: str,
    keeps: timedelta,
    may: Callable[[Report], bool] | None = None,
) -> Made:
    """``by``: the people who ask, for the journal. ``may``: for a person who may not see everything, whether they may
    see this report; if not, nothing fits. Raises NothingFits, TooMany and StoreError."""
    said = Speech(language)
    called = {word: await store.journal.called(word) for word in query.ids}
    if any(len(ids) > 1 for ids in called.values()):
        raise NothingFits(list(_ids(called, said)), rest=True)
    named = {word: ids or await store.journal.find(word.split(), MOST_FOUND + 1) for word, ids in called.items()}
    if many := [word for word, ids in named.items() if len(ids) > MOST_FOUND]:
        raise TooMany(
            f"more than {MOST_FOUND} messages are found by {', '.join(sorted(many))}: ask by --sender and --since"
        )
    unknown: Mapping[str, Sequence[str]] = {word: () for word, ids in named.items() if not ids}
    if any(
        "@" in word or " " in word for word in unknown
    ):  # not an id, and perhaps a person's name: it is not journalled
        raise NothingFits(list(_ids(unknown, said)))
    query = replace(query, ids=frozenset(id for word, ids in named.items() for id in ids or (word,)))
    if names and may is None:
        await store.journal.record([query.exported(at, *by)])
    found = await find(query)
    if may is not None:
        if found.report is None or not may(found.report):
            raise NothingFits(())
        if names:
            await store.journal.record([query.exported(at, *by)])
    lists = found.report.lists if found.report is not None else ()
    asked = await _asked(query, store, lists, delimiters=delimiters, names=names)
    if found.report is None:
        raise NothingFits([*_ids(unknown, said), *_lists(asked, said), *_senders(asked, said)])
    if asked.lists:
        raise NothingFits(list(_lists(asked, said)), rest=True)
    documents = {sha256: await _documents(store, sha256) for sha256 in found.report.policies}
    then = await asyncio.to_thread(purposes, documents, delimiters=delimiters, language=language)
    missing: tuple[Missed, ...] = ()
    if (through := found.report.let_through) is not None:
        message = Recorded(*through)
        missing = await asyncio.to_thread(missed, message, documents.get(message.policy), delimiters=delimiters)
    return Made(
        query=query, found=found, report=found.report, purposes=then, at=at, names=names, keeps=keeps, missed=missing
    )


async def make_once(
    console: ConsoleServices,
    query: IncidentQuery,
    *,
    prove: bool,
    names: bool,
    by: tuple[str, ...],
    language: str,
    may: Callable[[Report], bool] | None = None,
) -> Made:
    """One at a time, since a report needs memory and processor time. Raises Occupied, NothingFits, TooMany and
    StoreError."""
    if console.reporting.locked():
        raise Occupied
    async with console.reporting:
        return await make(
            query,
            partial(console.store.journal.incident, prove=prove, asked=console.on_list),
            console.store,
            at=console.clock.now(),
            names=names,
            by=by,
            language=language,
            delimiters=console.in_force.registry.digester.delimiters,
            keeps=timedelta(seconds=console.settings.retention.content),
            may=may,
        )


async def _asked(
    query: IncidentQuery, store: Store, lists: Iterable[str], *, delimiters: str, names: bool
) -> UnknownNames:
    """``lists``: those that matching messages touched. Writers are suggested only in a report with names."""
    if not (query.lists or query.senders):
        return UnknownNames(lists={}, senders={}, bad=frozenset())
    documents = await _documents(store, (await store.gate.read()).policy_sha256) or {}
    writers = await store.journal.writers() if names and query.senders else ()
    return await asyncio.to_thread(unknown_names, query, documents, delimiters=delimiters, lists=lists, writers=writers)


def _ids(called: Mapping[str, Sequence[str]], said: Speech) -> Iterator[str]:
    for word, ids in sorted(called.items()):
        if len(ids) > 1:
            yield said("{word} is ambiguous: {ids}", word=word, ids=", ".join(ids))
        elif not ids and (len(word) < _SHA256 or "@" in word):
            yield said("nothing has the name {word}", word=word)


def _lists(asked: UnknownNames, said: Speech) -> Iterator[str]:
    for word, meant in asked.lists.items():
        yield _meant(said("the policy in force has no list {word}", word=word), meant, said)


def _senders(asked: UnknownNames, said: Speech) -> Iterator[str]:
    for word, meant in asked.senders.items():
        if word in asked.bad:
            yield _meant(said("not an address: {word}", word=word), meant, said)
        elif meant:
            yield _meant(said("nothing has come from {word} recently", word=word), meant, said)


def _meant(sentence: str, meant: str, said: Speech) -> str:
    return sentence + " " + said("(did you mean {word}?)", word=meant) if meant else sentence


async def _documents(store: Store, sha256: str) -> Documents | None:
    try:
        return await store.policies.documents(sha256)
    except KeyError:
        return None


log = logging.getLogger(__name__)
SENT, MAY = "sent", "may have"
_PIECE = 64 << 10


class NotAll(Exception):
    """Some recipients are unknown: the mailing went to earlier versions of lists (``older``), whose export is needed."""

    def __init__(self, older: str) -> None:
        super().__init__(f"not all of them: it went to {older}. Match an export from then")
        self.older = older


@dataclass(slots=True)
class RecipientList:
    """``sent``: number of addresses that have it; ``may``: number that may have it or still get it; ``set``: the id of
    this set of people (mailings.model.set_of). It can be read once."""

    sent: int
    may: int
    set: str
    _file: IO[str]

    def rows(self) -> Iterator[dict[str, str]]:
        """Each address, with SENT or MAY."""
        with self._file as file:
            file.seek(0)
            yield from csv.DictReader(file)

    def pieces(self) -> Iterator[bytes]:
        """As CSV (RFC 4180), in UTF-8."""
        with self._file as file:
            file.seek(0)
            while some := file.read(_PIECE):
                yield some.encode()


async def listing(
    here: ConsoleServices,
    mailing: Mailing,
    *,
    approver: str,
    by: str,
    name: str | None = None,
    table: bytes = b"",
    column: str = "",
) -> RecipientList:
    """Match the members of the list ``name``, or the addresses in a CSV ``table``. ``by``: the client as the system
    knows it. Raises NotEntitled if no two people have agreed, or ``approver`` is neither; NoAddresses, NotAll, Occupied
    and StoreError."""
    if not here.mailings.may_be_told(mailing, approver):
        raise NotEntitled("two of those who decide on it agree first, and are told then")
    if here.reporting.locked():
        raise Occupied
    async with here.reporting:
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:  # readable for its owner only
            file.write(table)
            file.flush()
            given = None if name is not None else Path(file.name)
            matched = here.matching(mailing.mailing_id, name=name, file=given, column=column or None)
            try:
                return await _written(here, mailing, matched, (approver, by))
            except NoAddresses as why:  # it names files and servers, which are not for the reader of a page
                if given is not None:
                    raise NoAddresses(str(why).replace(str(given), "the file")) from None
                log.warning("who got mailing %s cannot be listed: %s", mailing.mailing_id, why)
                raise NoAddresses(f"a source of the list {name} fails, and smtpguard's log says how") from None


async def _written(here: ConsoleServices, mailing: Mailing, matched: Matched, actors: tuple[str, str]) -> RecipientList:
    digester = here.in_force.registry.digester
    with ExitStack() as undo:
        made: IO[str] = undo.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline=""))
        writer = csv.writer(made)
        writer.writerow(("address", "what"))
        numbers, people = {SENT: 0, MAY: 0}, set[bytes]()
        async for address, status in matched.people():
            what = SENT if status is CopyStatus.RELAYED else MAY if status in MAY_HAVE else ""
            if what:
                writer.writerow((address, what))
                numbers[what] += 1
                people.add(digester.of(Address.parse(address)))
        if matched.older:
            raise NotAll("; ".join(matched.older))
        data = {"what": "people", "people": numbers[SENT], "may": numbers[MAY], "set": (whose := set_of(people))}
        event = Event(
            kind=Kind.EXPORTED, id=mailing.mailing_id, at=here.clock.now(), data=data, private={"actor": actors}
        )
        await here.store.journal.record([event])
        undo.pop_all()  # its reader closes it
        return RecipientList(numbers[SENT], numbers[MAY], whose, made)
