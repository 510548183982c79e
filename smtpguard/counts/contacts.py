"""Record whom a sender has written to and when last, in the documents of counted people; and who was sent which
Message-ID. Learn it from the journal at the first start of a version that counts it.

Both are keyed digests: the tables name nobody. A message that passes is recorded with its admission, so of two letters
in one batch the second sees the first. Records are forgotten after 90 days.

To learn, the verdicts of 90 days are read, newest first and a stretch at a time, as far as their addresses are not
erased. A message that passed makes its recipients known, and so does one that was held and approved. A renewed secret
changes all keyed digests, so it is done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, select

from smtpguard.admission.model import Item
from smtpguard.counts.people import NEVER, Documents, People, ends, entry, floor, hours, number, numbers
from smtpguard.database.access import Access, Open
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.schema import contact_since
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry, instant
from smtpguard.journal.event import Kind

DAYS = 90
KNOWN = DAYS * 86_400 * 1_000_000
"""For how long a person is no first contact, in microseconds."""
FEW = 10
"""Message-IDs are looked up only for messages to this many customers or fewer. One to more customers answers none of
them by a Message-ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Which customers of a letter are new to its sender: the sender has not written to them before, and nothing proves
    that the letter answers theirs. Customers are numbered. ``quoted``: those whom the letter claims to answer, as in
    Gathered. ``new``: those who count as first contacts. It includes ``quoted``, except for a shared mailbox."""

    new: frozenset[int] = frozenset()
    quoted: frozenset[int] = frozenset()
    unanswered: int = 0
    """How many of them it does not even claim to answer."""


NOBODY = Reached()


class Contacts:
    """The contacts for one run of items, or for Known. ``people``: the documents that they are in."""

    def __init__(self, batch: Batch, people: People) -> None:
        self._people = people
        self._sent = Documents(batch, "sent", "message", ends)  # by Message-ID, the people it was sent to
        self._key = hashlib.blake2b(batch.secret, person=b"guard contacts").digest()
        self._floor = floor(batch.now_us - KNOWN)
        self._scopes: dict[str, int] = {}

    def load(self, items: Sequence[Item]) -> None:
        """Load what letters need. Their people must be loaded."""
        own = {item.message_id for item in items if item.letter_from and item.message_id}
        self.look_up(own.union(*map(_referred, items)))

    def look_up(self, message_ids: Iterable[str]) -> None:
        self._sent.load(map(self._message, message_ids))

    def of(self, item: Item, senders: Sequence[str]) -> Reached:
        """``senders``: names of its sender; known are those to whom each of them has written. Anybody can write a name
        in From."""
        if not senders:
            return NOBODY
        new, since = list(dict.fromkeys(numbers(item.people))), self._floor
        if by_doc := self._people.by_document(new):
            scopes = [self._scope(f"from {sender}") for sender in senders]
            known = {
                p
                for doc, some in by_doc.items()
                if all(doc.entries.get(scope, NEVER) > since for scope in scopes)
                for p in some
            }
            new = [p for p in new if p not in known] if known else new
        for name in _referred(item):
            there = self._sent.of(self._message(name))
            new = [p for p in new if there.get(p, NEVER) <= since] if there else new
        quoted = {number(person) for person in item.quoted}.intersection(new) if item.quoted else frozenset()
        rest = frozenset(new) - quoted
        return Reached(new=rest if item.shared else rest | quoted, quoted=frozenset(quoted), unanswered=len(rest))

    def entries(self, senders: Iterable[str], at_us: int) -> dict[int, int]:
        """The entries of a person who got mail from these senders at that time."""
        made = entry(at_us, hours(KNOWN))
        return {self._scope(f"from {sender}"): made for sender in senders}

    def record(self, message_id: str, people: Iterable[int], at_us: int) -> None:
        """Record that these people were sent this Message-ID. There is none of a letter whose recipient was erased."""
        sent = list(people)
        if message_id and sent:
            made = entry(at_us, hours(KNOWN))
            doc = self._sent.to_change(self._message(message_id))
            for person in sent:
                doc[person] = max(made, doc.get(person, NEVER))

    def write(self) -> None:
        self._sent.write()

    def _message(self, message_id: str) -> int:
        return self._scope(f"message {message_id.strip('<>')}")

    def _scope(self, name: str) -> int:
        scope = self._scopes.get(name)
        if scope is None:
            made = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16)
            scope = self._scopes[name] = number(made.digest())
        return scope


@dataclass(frozen=True, slots=True, kw_only=True)
class PastMessage:
    """Who wrote to whom, and when. ``senders``: the names of its sender; ``people``: digests of its recipients."""

    senders: Iterable[str]
    people: Sequence[bytes]
    at_us: int
    message_id: str = ""


def record(batch: Batch, messages: Sequence[PastMessage]) -> None:
    """Record contacts outside an admission: of a released hold, or of the journal's earlier mail."""
    batch.flush()
    people = People(batch)
    people.load(number(person) for one in messages for person in one.people)
    contacts = Contacts(batch, people)
    contacts.look_up(one.message_id for one in messages if one.message_id)
    for one in messages:
        made, reached = contacts.entries(one.senders, one.at_us), numbers(one.people)
        for person in reached:
            had = people.of(person)
            people.put([person], {scope: max(new, had.get(scope, NEVER)) for scope, new in made.items()})
        contacts.record(one.message_id, reached, one.at_us)
    people.write()
    contacts.write()
    batch.flush()


def _referred(item: Item) -> Sequence[str]:
    """The Message-IDs that can prove that it is an answer."""
    return item.refers_to if item.letter_from and len(item.people) <= FEW else ()


def forget(batch: Batch) -> None:
    """Make the next start read the journal again. A renewed secret changes all digests, so no contact is known under
    it."""
    batch.execute("DELETE FROM contact_since", [()])


MOST = 300_000
"""The most verdicts that are read, so that a start takes a minute or two at most."""


Read = Callable[[Entry, Clear], PastMessage | None]
"""Read a verdict's entry; None if it is no letter, or has no sender."""


async def known_since(access: Access) -> datetime | None:
    """Since when contacts are known; None if the earlier journal has not been read yet. Raises StoreError."""
    at = await access.ask(_since)
    return None if at is None else instant(at)


async def recall(access: Access, read: Read, most: int = MOST) -> int:
    """Read the journal if that was not done yet. Returns how many verdicts made contacts known. Raises StoreError."""
    if await access.ask(_since) is not None:
        return 0
    found = taken = 0
    since: int | None = None
    approved: set[str] = set()
    before = await access.ask(lambda c: read_head(c).seq) + 1
    while before > 1 and taken < most:
        pairs = await access.walk(partial(_newest, before))
        before -= journal.STRETCH
        letters: list[PastMessage] = []
        told = erased = 0
        for made, clear in pairs:
            if made.kind in (Kind.APPROVED.value, Kind.CONFIRMED.value):
                approved.add(made.id)
                continue
            if clear is None:
                erased += 1
                continue
            told, since = told + 1, made.at
            if (made.data.get("action") == "relay" or made.id in approved) and (letter := read(made, clear)):
                letters.append(letter)
        taken += told + erased
        found += len(letters)
        oldest = min((made.at for made, _ in pairs), default=None)
        if await access.write(partial(_write, letters, oldest)) or (erased and not told):
            break
    await access.write(partial(_done, since))
    return found


def _since(connection: Connection) -> int | None:
    return connection.execute(select(contact_since.c.at)).scalar()


def _newest(before: int, open: Open) -> list[tuple[Entry, Clear | None]]:
    return next(journal.back(open, before, 1, journal.of_kind(Kind.VERDICT, Kind.APPROVED, Kind.CONFIRMED)))


def _write(letters: Sequence[PastMessage], oldest: int | None, batch: Batch) -> bool:
    """Returns whether everything earlier is too old."""
    floor = batch.now_us - KNOWN
    record(batch, [letter for letter in letters if letter.at_us > floor])
    return oldest is not None and oldest <= floor


def _done(since: int | None, batch: Batch) -> None:
    """The first process that is done records it; others that ran beside it have read the same."""
    at = batch.now_us if since is None else max(since, batch.now_us - KNOWN)
    if not batch.select("SELECT at FROM contact_since"):
        batch.rows("contact_since").append((1, at))
