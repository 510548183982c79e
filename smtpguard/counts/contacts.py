"""Whom a sender has written to: one row for each pair of sender and customer, with the last time; and who was sent which Message-ID.

Both are keyed digests: the table names nobody. What was let through is written, with its admission; so of two letters in one batch
the second knows of the first. A pair is forgotten after 90 days.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smtpguard.admission.model import Item

if TYPE_CHECKING:
    from smtpguard.database.batch import Batch

DAYS = 90
KNOWN = DAYS * 86_400 * 1_000_000
"""So long somebody is no first contact, in microseconds."""
FEW = 10
"""A message to more customers than these answers none of them by a Message-ID: that is looked up for few."""

Select = Callable[[str, Sequence[bytes]], Iterator[Any]]
"""A statement with ``{}`` where its values go, and these, however many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The customers of one letter, by digest, whom its sender has not written to and does not provably answer. ``quoted``: those of
    them whom it answers as it says, which anybody can say; ``new``: those who count as first contacts. The quoted are among these,
    but for a mailbox in which several answer."""

    new: frozenset[bytes] = frozenset()
    quoted: frozenset[bytes] = frozenset()
    unanswered: int = 0
    """How many it does not answer in any way."""


NOBODY = Reached()


class Contacts:
    """Of one run of items, read ahead for all of them."""

    def __init__(self, secret: bytes, now_us: int, select: Select, items: Iterable[Item]) -> None:
        self._key = hashlib.blake2b(secret, person=b"guard contacts").digest()
        self._since = now_us - KNOWN
        self._scopes: dict[str, bytes] = {}
        self._there: set[bytes] = set()
        wanted = {pair for item in items if item.letter_from for pair in self._looked_up(item)}
        if wanted:
            sql = f"SELECT pair FROM contact WHERE pair IN ({{}}) AND at > {self._since:d}"
            self._there.update(bytes(pair) for (pair,) in select(sql, list(wanted)))

    @classmethod
    def to_write(cls, batch: Batch) -> Contacts:
        """To make pairs that are written without having been looked up."""
        return cls(batch.secret, batch.now_us, lambda sql, values: iter(()), ())

    def of(self, item: Item) -> Reached:
        if not item.letter_from:
            return NOBODY
        there = self._there
        new = [p for p in dict.fromkeys(item.people) if there.isdisjoint(self._written(item, p))]
        if len(item.people) <= FEW:
            new = [p for p in new if there.isdisjoint(self._referred(item, p))]
        quoted = item.quoted.intersection(new)
        rest = frozenset(new) - quoted
        return Reached(new=rest if item.shared else rest | quoted, quoted=quoted, unanswered=len(rest))

    def record(self, item: Item) -> list[bytes]:
        """It was let through. Returns the pairs that are to be written."""
        pairs = self.pairs(item.letter_from, dict.fromkeys(item.people), item.message_id)
        self._there.update(pairs)
        return pairs

    def pairs(self, senders: Iterable[str], people: Iterable[bytes], message_id: str = "") -> list[bytes]:
        """What stands for it that these people had this from these senders."""
        names = [f"from {sender}" for sender in senders]
        if message_id:
            names.append(f"message {message_id.strip('<>')}")
        people = list(people)
        return [self._pair(name, person) for name in names for person in people]

    def _looked_up(self, item: Item) -> Iterator[bytes]:
        for person in item.people:
            yield from self._written(item, person)
            if len(item.people) <= FEW:
                yield from self._referred(item, person)

    def _written(self, item: Item, person: bytes) -> list[bytes]:
        return [self._pair(f"from {sender}", person) for sender in item.letter_from]

    def _referred(self, item: Item, person: bytes) -> list[bytes]:
        return [self._pair(f"message {name}", person) for name in item.refers_to]

    def _pair(self, name: str, person: bytes) -> bytes:
        scope = self._scopes.get(name)
        if scope is None:
            made = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16)
            scope = self._scopes[name] = made.digest()
        return hashlib.blake2b(person, key=scope, digest_size=16).digest()


def forget(batch: Batch) -> None:
    """The secret is another one from now on, under which nobody is known: the journal is to be read for it again."""
    batch.execute("DELETE FROM contact_since", [()])
