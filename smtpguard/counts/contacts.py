"""Record whom a sender has written to and when last, in the documents of counted people; and who was sent which
Message-ID.

Both are keyed digests: the tables name nobody. A message that passes is recorded with its admission, so of two letters
in one batch the second sees the first. Records are forgotten after 90 days.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smtpguard.admission.model import Item
from smtpguard.counts.people import NEVER, Documents, People, ends, entry, floor, hours, number, numbers
from smtpguard.database.batch import Batch

DAYS = 90
KNOWN = DAYS * 86_400 * 1_000_000
"""The time for which a person stays known to a sender, in microseconds."""
FEW = 10
"""The most customers of a message that can prove an answer by a Message-ID. For one to more customers none is looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The customers of a letter who are new to its sender, by number. The sender has not written to them before, and nothing
    proves that the letter answers theirs.

    ``new``: those who count as first contacts; ``quoted`` are among them, except for a shared mailbox. ``quoted``: those whom
    the letter claims to answer, as in Gathered. ``unanswered``: how many it does not even claim to answer.
    """

    new: frozenset[int] = frozenset()
    quoted: frozenset[int] = frozenset()
    unanswered: int = 0


NOBODY = Reached()


class Contacts:
    """The contacts of one run of items, or of past messages. ``people``: the documents that they are in."""

    def __init__(self, batch: Batch, people: People) -> None:
        self._people = people
        self._sent = Documents(batch, "sent", "message", ends)  # by Message-ID, the people it was sent to
        self._key = hashlib.blake2b(batch.secret, person=b"guard contacts").digest()
        self._floor = floor(batch.now_us - KNOWN)
        self._scopes: dict[str, int] = {}

    def load(self, items: Sequence[Item]) -> None:
        """Load what the letters among the items need. Their people must be loaded."""
        own = {item.message_id for item in items if item.letter_from and item.message_id}
        self.look_up(own.union(*map(_referred, items)))

    def look_up(self, message_ids: Iterable[str]) -> None:
        self._sent.load(map(self._message, message_ids))

    def reached(self, item: Item, senders: Sequence[str]) -> Reached:
        """Return the customers of a letter who are new to its sender. ``senders``: the names of its sender.

        A customer is known if each of these names has written to them, since anybody can write a name in From.
        """
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
            sent_to = self._sent.get(self._message(name))
            new = [p for p in new if sent_to.get(p, NEVER) <= since] if sent_to else new
        quoted = {number(person) for person in item.quoted}.intersection(new) if item.quoted else frozenset()
        rest = frozenset(new) - quoted
        return Reached(new=rest if item.shared else rest | quoted, quoted=frozenset(quoted), unanswered=len(rest))

    def entries(self, senders: Iterable[str], at_us: int) -> dict[int, int]:
        """Return the entries of a person who got mail from these senders at that time."""
        made = entry(at_us, hours(KNOWN))
        return {self._scope(f"from {sender}"): made for sender in senders}

    def record(self, message_id: str, people: Iterable[int], at_us: int) -> None:
        """Record that these people were sent this Message-ID; "" for a letter whose recipients were erased."""
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
    """A message that has passed. ``senders``: the names of its sender; ``people``: the digests of its recipients."""

    senders: Iterable[str]
    people: Sequence[bytes]
    at_us: int
    message_id: str = ""


def record(batch: Batch, messages: Sequence[PastMessage]) -> None:
    """Record contacts outside an admission, from a released hold or the journal's earlier mail."""
    batch.flush()
    people = People(batch)
    people.load(number(person) for one in messages for person in one.people)
    contacts = Contacts(batch, people)
    contacts.look_up(one.message_id for one in messages if one.message_id)
    for one in messages:
        made, reached = contacts.entries(one.senders, one.at_us), numbers(one.people)
        for person in reached:
            had = people.entries(person)
            people.put([person], {scope: max(new, had.get(scope, NEVER)) for scope, new in made.items()})
        contacts.record(one.message_id, reached, one.at_us)
    people.write()
    contacts.write()
    batch.flush()


def _referred(item: Item) -> Sequence[str]:
    """Return the Message-IDs that can prove that a message is an answer."""
    return item.refers_to if item.letter_from and len(item.people) <= FEW else ()


def forget(batch: Batch) -> None:
    """Let the next start read the journal again (backfill). No contact is known under a renewed secret, since it changes all
    digests."""
    batch.execute("DELETE FROM contact_since", [()])
