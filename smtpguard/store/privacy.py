"""The data of one person in the store, and its erasure: names, holds, mailings, counts, and what was sent and came back.

The journal's entries stay, with the digests that its chain is made of. ``ERASED`` takes the place of an erased value, and an entry of
the journal has the value's digest, so that the chain can still be proved (Seal.fits). Everything is read in slices.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select, update

from smtpguard.counts.people import number, pack, unpack
from smtpguard.database.access import Open, Progress, among, paged, sliced
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.schema import (
    absence,
    account,
    clear,
    entry,
    freeze,
    hold,
    mailing,
    outbox,
    peopleset,
    person,
    preserved_key,
    reached,
    returned,
    sent,
)
from smtpguard.holds import contents
from smtpguard.holds import rows as holds
from smtpguard.holds.model import LIVE
from smtpguard.incidents import preservation
from smtpguard.journal import rows as journal
from smtpguard.journal import searchindex
from smtpguard.journal.chain import ERASED, canonical, instant, parsed
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import Digester
from smtpguard.locale.phrase import many
from smtpguard.mail.address import MAX_LOCAL_OCTETS, MAX_PATH_OCTETS, Address, BadAddress, with_signs
from smtpguard.mailings.mailingrow import document_of, mailing_of
from smtpguard.mailings.model import CopyStatus, Mailing, State
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import OF_CONTENT, IntentKind
from smtpguard.outbox.rows import in_outbox
from smtpguard.returns.rows import NOBODY

if TYPE_CHECKING:
    from smtpguard.store.store import Store

SLICE = 5_000
"""The number of rows that are read in one transaction."""
SOME = 500
"""The number of things that are erased in one transaction."""
MOST_KEPT = 100
"""The most things that an entry of the journal names as kept."""
MOST_DIGESTS = 5_000
"""The most digests in one entry of the journal."""
_DOMAIN = re.compile(r"@(?:[\w.\-\xb7\u0300-\u1fff\u3002\uff0e\uff61]+|\[[^\s\[\]@]{1,64}\])")
"""Letters of any script with their marks, and the dots of IDNA; or an address literal."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"\Z')
_SIGN = re.compile(r"[^\w.+-]")
_RETURNS = re.compile(r"[^+]*\+|(?:[^-]+-)*?(?:(?:\d+|bounces?|returns?|owner)-)+", re.ASCII | re.IGNORECASE)
"""What a server puts before the address of the recipient in its return address: "news-bounces+", "news-return-7-"."""
_LONGEST = 2 * MAX_LOCAL_OCTETS
_LIVE = frozenset(state.value for state in LIVE)
_UNSENT = "it is to be sent still"
_UNTOLD = "a notice of it is to be sent still"
_DECIDED = frozenset({State.HELD, State.APPROVED, State.PAUSED})
_TITLE = ("sender", "reverse_path", "subject")


class Person:
    """One person, known by an address: all its spellings that reach the same mailbox."""

    def __init__(self, address: Address, digester: Digester) -> None:
        self.digests = frozenset(digester.every(address))
        self.numbers = frozenset(map(number, self.digests))
        self.hexes = tuple(sorted(digest.hex() for digest in self.digests))
        domain = address.ascii_domain
        special = domain.startswith(("[", "xn--")) or ".xn--" in domain or "gmail" in domain or "googlemail" in domain
        self._hint = "" if special else domain.partition(".")[0]  # another server may be asked to send on to it

        @lru_cache(maxsize=100_000)
        def same(text: str) -> bool:
            try:
                return not self.digests.isdisjoint(digester.every(Address.parse(text.strip(".:").rstrip("-_"))))
            except BadAddress:
                return False

        self._same = same

    def may_be_in(self, text: str) -> bool:
        """Return False if a text surely does not name the person."""
        return self._hint in text.lower() or not text.isascii() or "\\u" in text  # IDNA has many spellings of a letter

    def is_named(self, text: str) -> bool:
        """Return whether a text has an address of the person. A text that is an address names nobody else: o'brien is not brien."""
        if not self.may_be_in(text):
            return False
        if (signed := with_signs(text)) != text and self.is_named(signed):
            return True
        if len(text) <= MAX_PATH_OCTETS and Address.parse_any(text):
            return self._same(text) or any(map(self._same, _rewritten(text)))
        return any(map(self._same, _addresses(text)))


def _rewritten(text: str) -> Iterator[str]:
    """Yield what a return address, such as a server makes it, may have within its local part."""
    local, _, server = text.rpartition("@")
    before, _, last = local.rpartition("=")
    if before:
        yield f"{last}@{server}"  # "id=1234567890=anna@example.com"
        yield f"{before}@{last}"  # "bounces+anna=example.com@server.example" (VERP)
        if sign := _RETURNS.match(before):
            yield f"{before[sign.end() :]}@{last}"
        else:  # "news-anna=example.com@server.example"
            yield from (f"{before[sign.end() :]}@{last}" for sign in re.finditer("-", before))


def _addresses(text: str) -> Iterator[str]:
    """Yield what may be an address in a text, in time that grows with its length: each local part, what follows a sign in
    it, and what a return address has within it."""
    after = 0
    for found in _DOMAIN.finditer(text):
        at, end = found.span()
        if quoted := _QUOTED.search(text, max(at - _LONGEST, 0), at):
            yield text[quoted.start() : end]
        begin = max(at - _LONGEST, after)
        yield text[begin:end]
        yield from _rewritten(text[max(begin, *(text.rfind(sign, begin, at) + 1 for sign in ' <("')) : end])
        yield from (text[sign.end() : end] for sign in _SIGN.finditer(text, begin, at))
        after = end


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalData:
    """One thing about the person. ``what``: entry, digest, hold, mailing, set, count, sending, returned, freeze, account or absence;
    ``parts``: the roles of the person in it. ``stays``: why an erasure keeps it; "" if it is erased."""

    what: str
    id: str
    at: datetime | None = None
    parts: tuple[str, ...] = ()
    stays: str = ""


@dataclass(slots=True)
class Erasure:
    """The numbers that an erasure has erased. ``values``: clear values; ``kept``: the things that it kept."""

    values: int = 0
    entries: int = 0
    holds: int = 0
    mailings: dict[str, int] = field(default_factory=dict)
    others: int = 0
    kept: list[PersonalData] = field(default_factory=list)


def _preserved(open: Open) -> Callable[[str], str]:
    """Return the function that names the incident by which an id is preserved; it returns "" for none."""
    with open() as connection:
        if not preservation.is_any_preserved(connection):
            return lambda id: ""

    def why(id: str) -> str:
        query = select(preserved_key.c.incident).where(preserved_key.c.what == preservation.ID)
        with open() as connection:
            found = connection.execute(query.where(preserved_key.c.key == id).limit(1)).scalar()
        return "" if found is None else f"incident {found}"

    return why


def collect(open: Open, whom: Person, now: datetime, progress: Progress | None = None) -> Iterator[PersonalData]:
    """Yield all data of a person at ``now``."""
    keeps = _preserved(open)
    beside = list(_beside(open, whom, now, keeps))
    yield from (one.thing for one in _entries(open, whom, keeps, beside, progress))
    yield from beside


def _beside(open: Open, whom: Person, now: datetime, keeps: Callable[[str], str]) -> Iterator[PersonalData]:
    """Yield the data beside the journal."""
    for kept in (_holds, partial(_mailings, now=now), _sendings, _returned):
        yield from kept(open, whom, keeps)
    for some in (_sets, _counts, _freezes, _staff):
        yield from some(open, whom)


def digests_only(open: Open, whom: Person, progress: Progress | None = None) -> int:
    """Count the verdicts that have a keyed digest of the person. They stay as long as the journal."""
    found = 0
    verdicts = select(entry.c.seq, entry.c.body).where(entry.c.kind == Kind.VERDICT.value)
    for rows in _counting(open, paged(open, verdicts, SLICE, entry.c.seq), progress):
        found += sum(any(digest in body for digest in whom.hexes) for _, body in rows)
    return found


def _counting(open: Open, pages: Iterator[Sequence[Any]], progress: Progress | None) -> Iterator[Sequence[Any]]:
    """Yield pages of entries, and report their progress up to the head."""
    with open() as connection:
        last = read_head(connection).seq
    for rows in pages:
        yield rows
        if progress is not None:
            progress(rows[-1][0], max(last, rows[-1][0]))


class _Named(NamedTuple):
    """An entry whose clear values name the person."""

    thing: PersonalData
    seq: int
    values: Mapping[str, Sequence[str]]
    body: str


def _entries(
    open: Open,
    whom: Person,
    keeps: Callable[[str], str],
    beside: Iterable[PersonalData],
    progress: Progress | None = None,
) -> Iterator[_Named]:
    """Yield the entries that name a person. ``beside``: the data beside the journal; entries on holds in it that stay do too."""
    pending = {one.id for one in beside if one.what == "hold" and one.stays}
    for rows in _counting(open, paged(open, select(clear.c.seq, clear.c.doc), SLICE, clear.c.seq), progress):
        found = {seq: (doc, parts) for seq, doc in rows if whom.may_be_in(doc) and (parts := _parts(doc, whom))}
        query = select(entry.c.seq, entry.c.kind, entry.c.id, entry.c.at, entry.c.body).order_by(entry.c.seq)
        with open() as connection:
            entries = list(among(connection, query, entry.c.seq, sorted(found)))
        for seq, kind, id, at, body in entries:
            doc, parts = found[seq]
            why = keeps(id) or (f"decision {id}" if id in pending else "")
            thing = PersonalData(what="entry", id=f"{seq} {kind} {id}", at=instant(at), parts=parts, stays=why)
            yield _Named(thing, seq, parsed(doc), body)


def _parts(doc: str, whom: Person) -> tuple[str, ...]:
    """Return the roles of clear values that name the person."""
    try:
        values = parsed(doc)
        return tuple(sorted(role for role, some in values.items() if any(whom.is_named(value) for value in some)))
    except (ValueError, TypeError, AttributeError):
        return ()


def _holds(open: Open, whom: Person, keeps: Callable[[str], str]) -> Iterator[PersonalData]:
    waits = or_(hold.c.state.in_(_LIVE), holds.is_followed(hold.c.hold_id), in_outbox())
    needed = waits, in_outbox((IntentKind.PART,)), _untold()
    query = select(hold.c.hold_id, hold.c.state, *needed, hold.c.held_at, hold.c.doc, hold.c.people)
    for rows in paged(open, query, SLICE, hold.c.hold_id):
        for id, state, undecided, unsent, untold, at, doc, people in rows:
            parts = _naming_fields(doc, whom)
            behind = people is not None and any(_has_digest(bytes(people), digest) for digest in whom.digests)
            if parts or behind:
                why = keeps(id) or (f"decision {id}" if undecided else _UNSENT if unsent else _UNTOLD if untold else "")
                yield PersonalData(
                    what="hold", id=id, at=instant(at), parts=(state, *(parts or ("recipient",))), stays=why
                )


def _untold() -> ColumnElement[bool]:
    """Return the condition for a hold of which a digest may tell that is not sent yet: it reads the holds of its time then."""
    last = select(func.max(entry.c.at)).where(entry.c.id == hold.c.hold_id).scalar_subquery()
    digest = outbox.c.kind == IntentKind.NOTICE.value, outbox.c.hold_id.is_(None), outbox.c.done.is_(False)
    return select(func.min(outbox.c.created_at)).where(*digest).scalar_subquery() <= last


def _has_digest(people: bytes, digest: bytes) -> bool:
    """Return whether a digest is among ``people``, which are digests of 8 octets each."""
    return any(people[at : at + 8] == digest for at in range(0, len(people), 8))


def _naming_fields(doc: str, whom: Person) -> tuple[str, ...]:
    """Return the fields of a document whose texts name the person."""
    if not whom.may_be_in(doc):
        return ()
    try:
        document = json.loads(doc)
    except ValueError:
        return ()
    return tuple(sorted(str(name) for name, value in document.items() if any(map(whom.is_named, _texts(value)))))


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a JSON value, and the addresses of its objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value  # addresses may be names of an object, with the people behind each as its value
        for each in value.values():
            yield from _texts(each)
        local, domain = value.get("local"), value.get("domain")
        if isinstance(local, str) and isinstance(domain, str):
            yield f"{local}@{domain}"
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _mailings(open: Open, whom: Person, keeps: Callable[[str], str], now: datetime) -> Iterator[PersonalData]:
    """Yield the mailings that came for the person, and those whose document names the person: its writer, or who decided on it."""
    columns = select(mailing.c.n, mailing.c.id, mailing.c.last_at, mailing.c.doc)
    query = select(reached.c.n, reached.c.status).where(reached.c.person.in_(whom.digests))
    for rows in paged(open, columns, SLICE, mailing.c.n):
        with open() as connection:
            statuses = connection.execute(query.where(reached.c.n.in_([row.n for row in rows]))).all()
        reaching = {int(n): CopyStatus(status) for n, status in statuses}
        for n, id, at, doc in rows:
            parts = _naming_fields(doc, whom)
            if n in reaching or parts:
                needed = reaching.get(n) is CopyStatus.HELD or _needs(mailing_of(id, doc).as_of(now), whom)
                why = keeps(id) or (f"decision on the mailing {id}" if needed else "")
                became = (f"reached: {reaching[n].name.lower()}",) if n in reaching else ()
                yield PersonalData(what="mailing", id=id, at=instant(at), parts=(*became, *parts), stays=why)


def _needs(mailing: Mailing, whom: Person) -> bool:
    """Return whether a decision on a mailing needs the person: it is about all who get it, or it names the person."""
    return mailing.state in _DECIDED or not {*_naming_fields(document_of(mailing), whom)} <= {*_TITLE}


def _sets(open: Open, whom: Person) -> Iterator[PersonalData]:
    with open() as connection:
        names = list(connection.execute(select(peopleset.c.name).distinct()).scalars())
        for name in names:
            for digest in whom.digests:
                query = select(peopleset.c.people, peopleset.c.made_at).where(
                    peopleset.c.name == name, peopleset.c.first <= digest
                )
                row = connection.execute(query.order_by(peopleset.c.first.desc()).limit(1)).one_or_none()
                if row is not None and _has_digest(bytes(row.people), digest):
                    yield PersonalData(
                        what="set",
                        id=name,
                        at=instant(row.made_at),
                        stays="" if not _is_bound(connection, name) else "correction in force",
                    )


def _is_bound(connection: Connection, name: str) -> bool:
    """Return whether an approval may still be bound to a set."""
    decided = connection.execute(select(mailing.c.doc).where(mailing.c.state != State.PASSING.value)).scalars()
    return any(name in doc for doc in decided) or any(
        name in doc for doc in connection.execute(select(hold.c.doc).where(hold.c.state.in_(_LIVE))).scalars()
    )


def _counts(open: Open, whom: Person) -> Iterator[PersonalData]:
    with open() as connection:
        for number_, doc in connection.execute(
            select(person.c.person, person.c.doc).where(person.c.person.in_(whom.numbers))
        ):
            yield PersonalData(
                what="count", id=str(number_), parts=(f"counted under {many(len(unpack(bytes(doc))), 'scope')}",)
            )
    if messages := len(_letters(open, whom)):
        yield PersonalData(
            what="count", id="sent", parts=(f"recipient of {many(messages, 'message')}, kept by Message-ID",)
        )


def _letters(open: Open, whom: Person) -> list[int]:
    """Return the keys of the Message-IDs that were sent to the person."""
    pages = paged(open, select(sent.c.message, sent.c.doc), SLICE, sent.c.message)
    return [key for rows in pages for key, doc in rows if not whom.numbers.isdisjoint(unpack(bytes(doc)))]


def _sendings(open: Open, whom: Person, keeps: Callable[[str], str]) -> Iterator[PersonalData]:
    query = select(
        outbox.c.intent_id, outbox.c.kind, outbox.c.done, outbox.c.created_at, outbox.c.doc, outbox.c.hold_id
    )
    for rows in paged(open, query, SLICE, outbox.c.intent_id):
        for id, kind, done, at, doc, hold_id in rows:
            if parts := _naming_fields(doc, whom):
                why = (keeps(hold_id) if hold_id else "") or ("" if done else _UNSENT)
                yield PersonalData(what="sending", id=id, at=instant(at), parts=(kind, *parts), stays=why)


def _returned(open: Open, whom: Person, keeps: Callable[[str], str]) -> Iterator[PersonalData]:
    key = returned.c.mail, returned.c.n
    about = returned.c.mailing, returned.c.message
    query = select(*key, returned.c.at, returned.c.sort, *about, returned.c.person, returned.c.doc)
    for rows in paged(open, query, SLICE, *key):
        for mail, n, at, sort, mailing_id, message, who, doc in rows:
            if (who is not None and bytes(who) in whom.digests) or _naming_fields(doc, whom):
                yield PersonalData(
                    what="returned",
                    id=f"{mail} {n}",
                    at=instant(at),
                    parts=(sort,),
                    stays=keeps(mailing_id) or keeps(message),
                )


def _freezes(open: Open, whom: Person) -> Iterator[PersonalData]:
    with open() as connection:
        rows = connection.execute(select(freeze.c.freeze_id, freeze.c.lifted, freeze.c.doc)).all()
    for id, lifted, doc in rows:
        if parts := _naming_fields(doc, whom):
            yield PersonalData(what="freeze", id=id, parts=parts, stays="" if lifted else "it is in force")


def _staff(open: Open, whom: Person) -> Iterator[PersonalData]:
    """Yield the accounts of the console and the absences of the person."""
    with open() as connection:
        accounts = connection.execute(select(account.c.account_id, account.c.address)).all()
        away = connection.execute(select(absence.c.person)).scalars().all()
    for id, address in accounts:
        if whom.is_named(address):
            yield PersonalData(what="account", id=id, stays="smtpguard users delete removes it")
    for address in away:
        if whom.is_named(address):
            yield PersonalData(what="absence", id="", stays="it is in use: the next absence replaces it")


async def erase(
    store: Store, whom: Person, *, by: str, now: datetime | None = None, progress: Progress | None = None
) -> Erasure:
    """Erase what nothing needs at ``now``, which is the store's time if not given. An entry of the journal says so first, without the
    address. If an erasure is interrupted, another one finds the rest. Raises StoreError."""
    now = now or store.now()
    done, going, seqs, sealed = await store.walk(lambda open: _plan(open, whom, now, progress))
    await store.write(lambda batch: _record(batch, whom, sealed, done, by))
    late = list[tuple[int, str]]()
    for some in sliced(seqs, SOME):
        late += await store.write(partial(_wipe, whom=whom, sealed=sealed, seqs=some))
    for things in sliced(going, SOME):
        done.others += await store.write(partial(_delete, whom=whom, some=things, now=now))
    await store.write(lambda batch: batch.connection.execute(delete(person).where(person.c.person.in_(whom.numbers))))
    letters = await store.walk(lambda open: _letters(open, whom))
    for some in sliced(letters, SOME):
        await store.write(partial(_remove_from_letters, whom=whom, letters=some))
    await store.journal.index_until(max((seq for seq, _ in late), default=0))
    for words in sliced(late, SOME):
        await store.write(partial(searchindex.lose, words=words))
    return done


def _plan(
    open: Open, whom: Person, now: datetime, progress: Progress | None
) -> tuple[Erasure, list[PersonalData], list[int], set[str]]:
    """Return the numbers of an erasure, the things beside the journal that it erases, the entries whose values it erases, and the
    digests of these values."""
    keeps = _preserved(open)
    beside = list(_beside(open, whom, now, keeps))
    going = [one for one in beside if not one.stays]
    done = Erasure(
        holds=sum(one.what == "hold" for one in going),
        mailings=dict(Counter(one.id for one in going if one.what == "mailing")),
        kept=[one for one in beside if one.stays],
    )
    seqs, sealed = list[int](), set[str]()
    for one in _entries(open, whom, keeps, beside, progress):
        if one.thing.stays:
            done.kept.append(one.thing)
            continue
        done.entries += 1
        seqs.append(one.seq)
        digests = parsed(one.body).get("private", {})
        for role, values in one.values.items():
            for n, value in enumerate(values):
                if whom.is_named(value):
                    sealed.add(digests[role][n])
                    done.values += 1
    return done, going, seqs, sealed


def _record(batch: Batch, whom: Person, sealed: Collection[str], done: Erasure, by: str) -> None:
    """Record the erasure in the journal."""
    digests = sorted(sealed)
    kept = [{"what": one.what, "id": one.id, "why": one.stays} for one in done.kept[:MOST_KEPT]]
    about = {"what": "person", "person": list(whom.hexes)}
    numbers = {
        "values": done.values,
        "entries": done.entries,
        "holds": done.holds,
        "mailings": done.mailings,
        "kept": kept,
        "kept_in_all": len(done.kept),
    }
    events = [
        Event(
            kind=Kind.ERASED,
            id=str(batch.head.seq + 1),
            at=batch.now,
            data=about | ({} if start else numbers) | {"sealed": digests[start : start + MOST_DIGESTS]},
            private={"actor": (by,)},
        )
        for start in range(0, max(len(digests), 1), MOST_DIGESTS)
    ]
    batch.record(events)


def _wipe(batch: Batch, whom: Person, sealed: Collection[str], seqs: Sequence[int]) -> list[tuple[int, str]]:
    """Erase clear values of entries, and the words by which they are found. Returns the words of entries that are not indexed yet: they
    may just have been read for the index."""
    batch.flush()
    wiped, lost = list[tuple[str, int]](), list[tuple[int, str]]()
    for one, names in map(journal.pair, among(batch.connection, journal.ROWS, entry.c.seq, seqs)):
        if names is None:  # retention has erased them meanwhile
            continue
        digests = one.content.get("private", {})
        values = {
            role: [
                ERASED if whom.is_named(value) and digests[role][n] in sealed else value for n, value in enumerate(all_)
            ]
            for role, all_ in names.items()
        }
        wiped.append((canonical(values), one.seq))
        lost += [(one.seq, word) for word in searchindex.words_of(one, names) - searchindex.words_of(one, values)]
    batch.execute("UPDATE clear SET doc = ? WHERE seq = ?", wiped)
    searchindex.lose(batch, lost)
    through = searchindex.indexed_until(batch.connection, batch.secret, batch.head.journal)
    return [(seq, word) for seq, word in lost if seq > through]


def _delete(batch: Batch, whom: Person, some: Sequence[PersonalData], now: datetime) -> int:
    """Delete rows beside the journal. Returns their number."""
    batch.flush()
    connection, ids = batch.connection, defaultdict[str, list[str]](list)
    for one in some:
        ids[one.what].append(one.id)
    over = hold.c.state.not_in(_LIVE), ~holds.is_followed(hold.c.hold_id), ~in_outbox(OF_CONTENT)
    done = select(outbox.c.intent_id).where(outbox.c.intent_id.in_(ids["sending"]), outbox.c.done.is_(True))
    entries = list(connection.execute(done).scalars())
    outboxes.forget(batch, entries)
    rows = (
        delete(hold).where(hold.c.hold_id.in_(ids["hold"]), *over),
        delete(peopleset).where(peopleset.c.name.in_(ids["set"])),
        delete(freeze).where(freeze.c.freeze_id.in_(ids["freeze"]), freeze.c.lifted.is_(True)),
    )
    n = len(entries) + sum(connection.execute(one).rowcount for one in rows)
    n += sum(_remove_from_mailing(batch, whom, id, now) for id in ids["mailing"])
    return n + sum(_clear_returned(batch, id) for id in ids["returned"])


def _clear_returned(batch: Batch, id: str) -> int:
    """Clear what came back from the person, and delete its mail."""
    mail, _, n = id.partition(" ")
    row = returned.c.mail == mail, returned.c.n == int(n)
    done = batch.connection.execute(update(returned).where(*row).values(person=None, doc=NOBODY))
    if not batch.connection.execute(select(hold.c.hold_id).where(hold.c.content == mail).limit(1)).first():
        contents.drop(batch, [mail])
    return done.rowcount


def _remove_from_letters(batch: Batch, whom: Person, letters: Sequence[int]) -> None:
    """Remove the person from the recipients of Message-IDs."""
    batch.flush()
    for key, doc in list(among(batch.connection, select(sent.c.message, sent.c.doc), sent.c.message, letters)):
        others = {one: until for one, until in unpack(bytes(doc)).items() if one not in whom.numbers}
        row = sent.c.message == key
        batch.connection.execute(
            update(sent).where(row).values(doc=pack(others)) if others else delete(sent).where(row)
        )


def _remove_from_mailing(batch: Batch, whom: Person, mailing_id: str, now: datetime) -> int:
    """Remove the person from a mailing whose decisions are over, and from these. The mailing's numbers stay, and so does a person whose
    copy is held, until its end is counted."""
    row = batch.connection.execute(select(mailing.c.n, mailing.c.doc).where(mailing.c.id == mailing_id)).one_or_none()
    if row is None or _needs(left := mailing_of(mailing_id, row.doc).as_of(now), whom):
        return 0
    people = reached.c.n == row.n, reached.c.person.in_(whom.digests), reached.c.status != CopyStatus.HELD
    removed = 0
    for digest in list(batch.connection.execute(select(reached.c.person).where(*people)).scalars()):
        nobody = secrets.token_bytes(8)  # so that the mailing's numbers stay
        removed += batch.connection.execute(
            update(reached).where(reached.c.n == row.n, reached.c.person == digest).values(person=nobody)
        ).rowcount
    if _naming_fields(row.doc, whom):
        named: dict[str, Any] = {name: "" for name in _TITLE if whom.is_named(getattr(left, name))}
        values = {"doc": document_of(replace(left, **named)), "state": left.state.value}
        batch.connection.execute(update(mailing).where(mailing.c.n == row.n).values(values))
    return removed
