"""The mailings of one batch: which one each message is a copy of, who its recipients are, and the outcome of each copy.

Rows are read ahead for all items of a run, changed as the items come, and written with the batch in one statement a
table. A person is counted once a mailing, by a keyed digest. The sums of the window are kept with the mailing, and what
has left the window is subtracted. Admissions are serial, so all counts are exact across processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from operator import itemgetter
from typing import Any

from smtpguard.admission.model import Item
from smtpguard.database.batch import Batch
from smtpguard.journal.outcome import Outcome
from smtpguard.mailings.finder import Finder, Memory
from smtpguard.mailings.inflight import being_relayed, in_flight, pack_people, people_of, unpack_people
from smtpguard.mailings.mailingrow import (
    COLUMNS,
    CUSTOMER,
    CUSTOMERS,
    MAYBE,
    Copy,
    MailingRow,
    kind_after,
    kinds,
    list_bit,
)
from smtpguard.mailings.model import LET_THROUGH, MAY_HAVE, ON_THE_WAY, CopyStatus, Mailing, stages_wait_event
from smtpguard.mailings.staging import Move, Progress
from smtpguard.policy.counted import DAY, Ask
from smtpguard.policy.facts import OF_MAILINGS
from smtpguard.reading.fingerprint import Identity

WINDOW = DAY * 1_000_000  # microseconds
QUIET = 14 * WINDOW
"""The microseconds without messages after which a mailing is over."""
MANY_TEXTS = 10
"""A file that comes with this number of different texts is a price list or a logo: messages with it are no mailing by
the file."""
OUT = 20
"""If this number of people have a mailing that is neither held nor rejected, or if people approved it, quoting it is no copy."""
_NOBODY: Mapping[bytes, CopyStatus] = {}
_SOON = 1_000_000  # microseconds
_KEY = itemgetter(0)
_AGAIN = "UPDATE underway SET again = ? WHERE mailing = ?"
_WENT = """UPDATE mailing SET went_first = CASE WHEN went_first <= c1 THEN went_first ELSE c1 END,
 went_last = CASE WHEN went_last >= c2 THEN went_last ELSE c2 END FROM {} WHERE n = c0"""


def mailings_of(batch: Batch) -> MailingBatch:
    assert isinstance(batch.follower, MailingBatch)
    return batch.follower


class MailingBatch:
    """The mailings of one batch. ``memory``: the process's cache of mailings."""

    def __init__(self, page: Batch, memory: Memory) -> None:
        self._page = page
        self._memory = memory
        self._rows: dict[int, MailingRow] = {}
        self._met: dict[str, MailingRow | None] = {}  # by item id
        self._again: set[int] = set()  # mailings with a copy in flight to people who may have an earlier one
        self._instead: dict[str, Identity] = {}  # by item id: its identity if the shown content does not count
        self._files: dict[str, MailingRow] = {}  # by item id: the mailing by files that it is not counted with
        self._dirty: dict[int, dict[bytes, Copy]] = {}  # by mailing and person
        self._finder = Finder(page.among, page.secret, memory, page.now_us - QUIET)
        self._next = 0

    # -- finding mailings

    def look_up_items(self, items: Iterable[Item]) -> None:
        """Find the mailing of each item, and read its rows and those of its people."""
        there = (item for item in items if item.id not in self._met and (item.everybody or item.test))
        wanted = [item for item in there if item.identity is not None]
        if not wanted:
            return
        found = self._finder.find([item.identity for item in wanted if item.identity is not None])
        self._load({known.n for known in found if known is not None})
        for item, known in zip(wanted, found, strict=True):
            row = self._rows.get(known.n) if known is not None else None
            if row is not None and row.last_us < self._finder.since_us:
                self._memory.forget(row.known.n)
                row = None
            self._met[item.id] = row
        self._look_behind(wanted)
        self._load_people(
            (row, person.digest) for item in wanted if (row := self._met[item.id]) for person in item.everybody
        )

    def _look_behind(self, items: Iterable[Item]) -> None:
        """Find the mailing of items that quote a text or attach a file by their identity without it, if the file is common or
        the text was sent before."""
        others: list[tuple[Item, Identity]] = []
        shown = [(item, item.identity) for item in items if item.identity is not None and item.identity.instead]
        quoting = [one for one in shown if one[1].quoted]
        for (item, identity), known in zip(
            quoting, self._finder.find([Identity(sketch=identity.quoted) for _, identity in quoting]), strict=True
        ):
            self._load(set() if known is None else {known.n})
            if known is not None and (row := self._rows.get(known.n)) is not None and self._went_out(row):
                others.append((item, Identity(exact=identity.instead)))
        for item, identity in shown:
            row = self._met[item.id]
            if row is not None and identity.beside and len(row.besides | {identity.beside}) >= MANY_TEXTS:
                self._files[item.id] = row
                others.append((item, Identity(exact=identity.instead)))
        for (item, identity), known in zip(others, self._finder.find([i for _, i in others]), strict=True):
            self._load(set() if known is None else {known.n})
            self._instead[item.id] = identity
            self._met[item.id] = None if known is None else self._rows.get(known.n)

    def _went_out(self, row: MailingRow) -> bool:
        mailing = self.view(row)
        return mailing.grant is not None or (mailing.out >= OUT and not mailing.entry and mailing.rejection is None)

    def row_of(self, item: Item) -> MailingRow | None:
        """Return the item's mailing. A new one is begun, and dropped with the batch unless something is recorded of it."""
        if item.id not in self._met:
            return None
        row = self._met[item.id]
        if row is None:
            identity = self._instead.get(item.id, item.identity)
            assert identity is not None
            known = self._finder.begun_here(identity)
            row = self._met[item.id] = self._rows[known.n] if known is not None else self._begun(identity)
        return row

    def name_of(self, item: Item) -> str:
        """Return the id of the item's mailing; "" if none is known yet, or none is needed."""
        row = self._met.get(item.id)
        return row.known.mailing_id if row is not None else ""

    def has_messages(self, item: Item) -> bool:
        """Return whether anything was recorded of the item's mailing before."""
        row = self._met.get(item.id)
        return row is not None and row.messages > 0

    def by_number(self, n: int) -> MailingRow | None:
        self._load({n})
        return self._rows.get(n)

    def by_name(self, mailing_id: str) -> MailingRow | None:
        found = self._page.select("SELECT n FROM mailing WHERE id = ?", (mailing_id,))
        if found:
            return self.by_number(found[0][0])
        return next((row for row in self._rows.values() if row.known.mailing_id == mailing_id), None)

    def _begun(self, identity: Identity) -> MailingRow:
        if not self._next:
            [(most,)] = self._page.select("SELECT MAX(n) FROM mailing")
            self._next = (most or 0) + 1
        n, self._next = self._next, self._next + 1
        now_us = self._page.now_us
        known = self._finder.begin(identity, n, now_us)
        row = MailingRow(
            known=known, mailing=Mailing(mailing_id=known.mailing_id, first_at=self._page.now, last_at=self._page.now),
            first_us=now_us, last_us=now_us, floor=now_us - WINDOW, sums={}, statuses=[0] * len(CopyStatus), new=True,
        )  # fmt: skip
        self._rows[n] = row
        return row

    # -- reading

    def _load(self, numbers: set[int]) -> None:
        wanted = [n for n in numbers if n not in self._rows]
        for columns in self._page.among(f"SELECT {COLUMNS} FROM mailing WHERE n {{}}", wanted):
            row = MailingRow.read(*columns)
            self._slide(row)
            self._rows[row.known.n] = row
        for n in wanted:
            if n not in self._rows:  # deleted meanwhile
                self._memory.forget(n)

    def _slide(self, row: MailingRow) -> None:
        """Subtract the people who have left the window. If the clock was set back, add those who are in it again."""
        floor = self._page.now_us - WINDOW
        low, high = sorted((row.floor, floor))
        if row.last_us <= floor:  # all have left; there may be hundreds of thousands
            row.sums = {}
        elif low < high and row.first_us <= high:
            sql = "SELECT kind, SUM(weight) FROM reached WHERE n = ? AND at > ? AND at <= ? GROUP BY kind"
            for kind, moved in self._page.select(sql, (row.known.n, low, high)):
                row.sums[kind] = row.sums.get(kind, 0) + (int(moved) if floor == low else -int(moved))
        row.floor = floor

    def _load_people(self, wanted: Iterable[tuple[MailingRow, bytes]]) -> None:
        by_row: dict[int, list[bytes]] = {}
        on_the_way: dict[int, list[bytes]] = {}
        for row, digest in wanted:
            if not row.new and digest not in row.people:
                row.people[digest] = None
                by_row.setdefault(row.known.n, []).append(digest)
        for n, digests in by_row.items():
            people = self._rows[n].people
            sql = "SELECT person, at, kind, weight, fate, content, went FROM reached WHERE n = ? AND person {}"
            alike: dict[tuple[Any, ...], Copy] = {}
            for person, *rest in self._page.among(sql, digests, (n,)):
                copy = alike.get(key := tuple(rest))
                if copy is None:
                    at, kind, weight, status, content, went = rest
                    copy = alike[key] = Copy(at, kind, weight, CopyStatus(status), bytes(content), went)
                people[person] = copy
            let_go = [d for d in digests if (one := people[d]) is not None and one.status in ON_THE_WAY]
            if let_go:
                on_the_way[n] = let_go
        if on_the_way:
            self._arrived(on_the_way)

    def _arrived(self, on_the_way: Mapping[int, Sequence[bytes]]) -> None:
        """Set the status of admitted people whose copy is no longer in flight, and so delivered, or in doubt. This comes before
        anything else is written of them."""
        now = in_flight(self._page.connection, list(on_the_way), {one for some in on_the_way.values() for one in some})
        for n, digests in on_the_way.items():
            row, doubted, gone = self._rows[n], now[n].doubted, now[n].all
            for old, people in self._by_copy(row, digests):
                self._set(row, old, [one for one in people if one in doubted], CopyStatus.DOUBTED)
                self._set(row, old, [one for one in people if one not in gone], CopyStatus.RELAYED)

    # -- counts for an item

    def view(self, row: MailingRow) -> Mailing:
        return row.view(self._page.now)

    def new_people(self, row: MailingRow, item: Item) -> int:
        """Return how many people an item would reach who have nothing of the mailing yet."""
        there = row.people
        return sum(
            p.weight for p in item.everybody if (old := there.get(p.digest)) is None or old.status not in LET_THROUGH
        )

    def waiting(self, row: MailingRow, item: Item) -> int:
        """Return for how many people of an item a copy of the mailing is held."""
        there = row.people
        return sum(
            p.weight
            for p in item.everybody
            if (old := there.get(p.digest)) is not None and old.status is CopyStatus.HELD
        )

    def may_have(self, row: MailingRow, digest: bytes) -> bool:
        """Return whether this person, who was looked up, has a copy, or may have one."""
        return (old := row.people.get(digest)) is not None and old.status in LET_THROUGH

    def list_in_doubt(self, row: MailingRow, item: Item) -> bool:
        """Return whether an attempt to send a copy to the address of one of the item's lists has begun, and its result is not
        known. An earlier version of the list counts too."""
        if not item.lists:
            return False
        bits = 0
        for name, _, _ in item.lists:
            bits |= list_bit(row.mailing.lists, name)
        # a list of one, or of unknown size, is no crowd
        digests = (*row.crowds, *(person.digest for person in item.everybody))
        theirs = [(copy.status, people) for copy, people in self._by_copy(row, digests) if copy.kind & bits]
        if any(status is CopyStatus.DOUBTED for status, _ in theirs):
            return True
        sent = [digest for status, people in theirs if status in ON_THE_WAY for digest in people]
        if not sent:
            return False
        attempted = in_flight(self._page.connection, [row.known.n], sent)[row.known.n].attempted
        return not attempted.isdisjoint(sent)

    def counts(self, row: MailingRow, item: Item) -> tuple[dict[Ask, int], dict[Ask, float]]:
        """Return the count for each ask, with this item included, and how many more it may be."""
        asks = [a for a in item.asks if a.fact in OF_MAILINGS]
        if not asks:
            return {}, {}
        sums = dict(row.sums)
        sure, ever = 0, row.customers  # beyond those it was sent to before
        lists = list(row.mailing.lists)
        for person, kind in kinds(lists, item.everybody):
            old = row.people.get(person.digest)
            if kind & CUSTOMERS and not (old is not None and old.kind & CUSTOMERS):
                ever += person.weight
                sure += person.weight * bool(kind & CUSTOMER)
            if old is not None and old.at > row.floor:
                kind = kind_after(old.kind, kind)
                if kind == old.kind:
                    continue
                sums[old.kind] = sums.get(old.kind, 0) - old.weight
            sums[kind] = sums.get(kind, 0) + person.weight
        counts: dict[Ask, int] = {}
        maybe: dict[Ask, float] = {}
        for ask in asks:
            if ask.fact == "mailing.reach":
                counts[ask] = sum(sums.values())
            elif ask.fact == "mailing.customers":
                counts[ask] = sum(w for k, w in sums.items() if k & CUSTOMER)
                maybe[ask] = sum(w for k, w in sums.items() if k & CUSTOMERS) - counts[ask]
            elif ask.fact == "mailing.ever":
                counts[ask] = row.customers + sure
                maybe[ask] = ever - counts[ask]
            else:
                bit = list_bit(lists, ask.key)
                counts[ask] = sum(w for k, w in sums.items() if k & bit)
                maybe[ask] = sum(w for k, w in sums.items() if k & MAYBE and not k & bit)
        for person in item.everybody:  # a list's address without an index may reach anybody
            if person.unbounded and not person.version:
                maybe |= {a: inf for a in asks if a.fact == "mailing.reach" or (person.customer and not a.key)}
        return counts, maybe

    # -- writing

    def record(
        self,
        row: MailingRow,
        item: Item,
        status: CopyStatus,
        named: tuple[str, str, str],
        spared: Mapping[bytes, CopyStatus] = _NOBODY,
    ) -> bytes:
        """Record that a copy was decided on. Return its people, packed for later outcomes, those of ``spared`` apart.

        ``named``: its subject, reverse-path and sender. ``spared``: the people who get another status than ``status``.
        """
        now, content = self._page.now_us, _content(item)
        lists = list(row.mailing.lists)
        counts = status in (CopyStatus.HELD, CopyStatus.ADMITTED)
        held: list[bytes] = []
        apart: list[bytes] = []
        again = False
        alike: dict[tuple[int, int, int, CopyStatus | None], tuple[Copy | None, list[bytes]]] = {}
        for person, kind in kinds(lists, item.everybody):
            digest, weight = person.digest, person.weight
            to = spared.get(digest) if spared else None
            (held if to is None else apart).append(digest)
            if weight > 1:
                row.crowds[digest] = person.version
            if person.unbounded:
                row.unbounded.add(digest)
            old = row.people.get(digest)
            key = id(old), kind, weight, to
            if key in alike:
                alike[key][1].append(digest)
            else:
                alike[key] = old, [digest]
        for (_, kind, weight, to), (old, people) in alike.items():
            before = old or Copy(0, 0, weight, CopyStatus.NONE, b"", 0)
            all_of_them = len(people) * before.weight
            inside = before.at > row.floor
            kind = kind_after(before.kind, kind)
            retry = old is not None and before.content == content
            at = now if counts and not (retry and inside) else before.at
            if inside:
                row.sums[before.kind] = row.sums.get(before.kind, 0) - all_of_them
            if at > row.floor:
                row.sums[kind] = row.sums.get(kind, 0) + all_of_them
            row.customers += all_of_them * (bool(kind & CUSTOMERS) - bool(before.kind & CUSTOMERS))
            became = before.status.with_another(to or status)
            again |= became is CopyStatus.AGAIN
            row.statuses[before.status] -= all_of_them
            row.statuses[became] += all_of_them
            went = (before.went or now) if became in LET_THROUGH else 0
            self._put(row, people, Copy(at, kind, before.weight, became, content, went), old)
        if again:
            self._again.add(row.known.n)
        if item.identity is not None and item.identity.beside:
            files = self._files.get(item.id, row)
            if len(files.besides) < MANY_TEXTS and item.identity.beside not in files.besides:
                files.besides.add(item.identity.beside)
                files.changed = True
        row.messages += 1
        row.first_us, row.last_us, row.changed = min(row.first_us, now), max(row.last_us, now), True
        if row.new and row.messages == 1:
            row.mailing = replace(
                row.mailing, subject=named[0], reverse_path=named[1], sender=named[2], lists=tuple(lists)
            )
        elif len(lists) > len(row.mailing.lists):
            row.mailing = replace(row.mailing, lists=tuple(lists))
        return pack_people(held, apart)

    def set_status(
        self,
        row: MailingRow,
        digests: Iterable[bytes],
        status: CopyStatus,
        *,
        only: Collection[CopyStatus],
        at: int | None = None,
    ) -> None:
        """Set a new status for people whose status so far is in ``only``. ``at``: when their copies were sent."""
        for old, people in self._by_copy(row, digests):
            if old.status in only:
                self._set(row, old, people, status, at)

    def record_release(self, row: MailingRow, digests: Iterable[bytes]) -> None:
        """Record that a held copy for these people is to be sent. Those in doubt about another stay in doubt until it is sent.
        Whether one that is being relayed arrives is looked up later, since this one may fail."""
        for old, people in self._by_copy(row, digests):
            if old.status is CopyStatus.ADMITTED:
                relaying = set(being_relayed(self._page.connection, row.known.n)).intersection(people)
                self._set(row, old, relaying, CopyStatus.AGAIN)
                self._again |= {row.known.n} if relaying else set()
            elif old.status not in LET_THROUGH:
                self._set(row, old, people, CopyStatus.ADMITTED)

    def record_failure(self, row: MailingRow, digests: Iterable[bytes], status: CopyStatus) -> None:
        """Record that a copy to these people that was being relayed did not arrive: the client keeps it (DEFERRED), or the relay
        refused it (REFUSED)."""
        for old, people in self._by_copy(row, digests):
            self._set(row, old, people, old.status.failed(status))

    def look_up(self, row: MailingRow, digests: Iterable[bytes]) -> None:
        """Read these people as they are now, before copies in flight to them are settled or revoked."""
        self._load_people((row, digest) for digest in digests)

    def record_not_sent(self, row: MailingRow, digests: Iterable[bytes], status: CopyStatus) -> None:
        """Record that a copy in the outbox to these people, who were looked up before, was refused or revoked, and is settled
        there. For some another copy may still be in flight."""
        waiting = [one for old, people in self._by_copy(row, digests) if old.status in ON_THE_WAY for one in people]
        if waiting:
            now = in_flight(self._page.connection, [row.known.n], waiting)[row.known.n]
            self.record_failure(row, (digest for digest in waiting if digest not in now.people | now.attempted), status)

    def record_sent(self, row: MailingRow, digests: Iterable[bytes]) -> None:
        """Record that copies in flight to these people have been sent now; to all of them if it is not known for each."""
        for old, people in self._by_copy(row, digests):
            if old.status is CopyStatus.ADMITTED:
                self._put(row, people, replace(old, went=self._page.now_us), old)

    def _by_copy(self, row: MailingRow, digests: Iterable[bytes]) -> Iterable[tuple[Copy, list[bytes]]]:
        """Group these people by equal copies."""
        wanted = list(dict.fromkeys(digests))
        self._load_people((row, digest) for digest in wanted)
        alike: dict[int, tuple[Copy, list[bytes]]] = {}
        for digest in wanted:
            if (old := row.people.get(digest)) is not None:
                alike.setdefault(id(old), (old, []))[1].append(digest)
        return alike.values()

    def _set(
        self, row: MailingRow, old: Copy, people: Collection[bytes], status: CopyStatus, at: int | None = None
    ) -> None:
        """Set a new status for people who have the same copy."""
        if people and old.status is not status:
            row.statuses[old.status] -= old.weight * len(people)
            row.statuses[status] += old.weight * len(people)
            row.changed = True
            went = (at or old.went or self._page.now_us) if status in LET_THROUGH else 0
            self._put(row, people, replace(old, status=status, went=went), old)

    def change(self, row: MailingRow, mailing: Mailing) -> None:
        """Change the mailing, and journal it if its stages wait for a person from now on."""
        if mailing.progress is not None and mailing.progress.newly_waits(row.mailing.progress):
            self._page.record([stages_wait_event(row.mailing, mailing.progress, self._page.now)])
        row.mailing, row.changed = mailing, True

    def people_without(self, row: MailingRow, digests: Iterable[bytes]) -> int:
        """Return how many of these people have nothing of the mailing yet."""
        return sum(
            one.weight * len(people) for one, people in self._by_copy(row, digests) if one.status not in LET_THROUGH
        )

    def weight(self, row: MailingRow, digests: Iterable[bytes]) -> int:
        return sum(one.weight * len(people) for one, people in self._by_copy(row, digests))

    def deferred_singles(self, row: MailingRow) -> int:
        """Return for how many people a copy is deferred that is no post to a list's address."""
        posts = (
            one.weight * len(some) for one, some in self._by_copy(row, row.crowds) if one.status is CopyStatus.DEFERRED
        )
        return row.statuses[CopyStatus.DEFERRED] - sum(posts)

    def advance(self, row: MailingRow, and_then: int = 0) -> None:
        """Advance a release in stages to the people reached. ``and_then``: how many come next, who may not fit into the stage."""
        mailing = self.view(row)
        progress = mailing.progress
        if progress is None:
            return
        after = progress.with_reached(mailing.out, self._page.now)
        if and_then and not after.waits and mailing.out + and_then > after.limit:
            after = after.moved(Move.FULL, self._page.now) or after
        self._progressed(row, after)

    def settle(self, outcomes: Mapping[str, Outcome | None]) -> None:
        """Apply the outcomes of verdicts to relay, by transaction, before these are no longer in flight. An admitted copy counts as
        delivered unless an outcome says otherwise, so usually there is nothing to write."""
        for id, row, people in self._underway([id for id, end in outcomes.items() if end is not Outcome.DELIVERED]):
            refused = outcomes[id] is Outcome.REFUSED  # else the client keeps it
            self.record_failure(row, people, CopyStatus.REFUSED if refused else CopyStatus.DEFERRED)
            self.judge(row)

    def record_relayed(self, relayed: Iterable[tuple[int | None, int, int, bytes | None, bool]]) -> None:
        """Record verdicts to relay that were carried out.

        ``relayed``: for each the mailing, the times of decision and sending, the people, and whether this settles a doubt about
        another copy. The times are written to the mailing. They are written to its people only for a doubt, or if the relay took
        long; otherwise they are the same second.
        """
        times: dict[int, list[int]] = {}
        late: list[tuple[int, int, int, list[bytes], bool]] = []
        for n, decided, out, people, again in relayed:
            if n is None:
                continue
            times.setdefault(n, []).append(out)
            again = again or n in self._again
            if people and (again or out - decided >= _SOON):
                late.append((n, decided, out, people_of(bytes(people)), again))
        self._load({n for n, *_ in late})
        self._load_people((self._rows[n], one) for n, _, _, them, _ in late if n in self._rows for one in them)
        for n, decided, out, them, again in late:
            row = self._rows.get(n)
            if row is None:
                continue
            if again:
                self.set_status(row, them, CopyStatus.RELAYED, only=MAY_HAVE, at=out)
            for old, late_ones in self._by_copy(row, them):
                if old.went == decided:
                    self._put(row, late_ones, replace(old, went=out), old)
        others = []
        for n, all_of_them in times.items():
            first, last = min(all_of_them), max(all_of_them)
            if (known := self._rows.get(n)) is not None:
                known.note_sent(first)
                known.note_sent(last)
            else:
                others.append((n, first, last))
        if others:
            self._page.execute_with(_WENT, others)

    def record_doubt(self, ids: Sequence[str]) -> None:
        for _, row, people in self._underway(ids):
            self.set_status(row, people, CopyStatus.DOUBTED, only=ON_THE_WAY)

    def end_doubt(self, out: Mapping[str, int]) -> None:
        """Record that some in doubt have been relayed after all, at these times. A failure says nothing of another copy in doubt."""
        for id, row, people in self._underway(list(out)):
            self.set_status(row, people, CopyStatus.RELAYED, only=MAY_HAVE, at=out[id])
            row.note_sent(out[id])

    def record_part(self, hold_id: str, at: int, *, arrived: bool) -> None:
        """Record whether the part of a held message that its MTA passes on itself, to those who get it in any case, has arrived."""
        for name, people in self._page.select(
            "SELECT mailing, people FROM hold WHERE hold_id = ? AND people IS NOT NULL", (hold_id,)
        ):
            row = self.by_name(name)
            if row is not None:
                status = CopyStatus.RELAYED if arrived else CopyStatus.DEFERRED
                self.set_status(row, unpack_people(bytes(people))[1], status, only={CopyStatus.DOUBTED}, at=at)
                if arrived:
                    row.note_sent(at)

    def _underway(self, ids: Sequence[str]) -> list[tuple[str, MailingRow, list[bytes]]]:
        """Return the mailing and the people of unsettled verdicts to relay, all of them looked up."""
        sql = "SELECT id, mailing, people FROM underway WHERE id {} AND mailing IS NOT NULL"
        found = list(self._page.among(sql, ids))
        self._load({n for _, n, _ in found})
        parts = [
            (id, row, people_of(bytes(people))) for id, n, people in found if (row := self._rows.get(n)) is not None
        ]
        self._load_people((row, digest) for _, row, people in parts for digest in people)
        return parts

    def judge(self, row: MailingRow) -> None:
        """Let a release in stages react to refusals and reports."""
        mailing = self.view(row)
        if mailing.progress is None:
            return
        judged = mailing.progress.after_reports(
            reached=mailing.out, refused=mailing.people.refused, reported=mailing.reported, now=self._page.now
        )
        self._progressed(row, judged)

    def _progressed(self, row: MailingRow, progress: Progress) -> None:
        if progress is not row.mailing.progress:
            self.change(row, replace(row.mailing, progress=progress))

    def _put(self, row: MailingRow, people: Collection[bytes], copy: Copy, old: Copy | None) -> None:
        """Give people who had the same copy another one."""
        row.people.update(dict.fromkeys(people, copy))
        if copy != old:
            self._dirty.setdefault(row.known.n, {}).update(dict.fromkeys(people, copy))

    def write(self) -> None:
        """Add the changed mailings to the batch's rows, when those of the copies in flight are written."""
        if self._again:
            self._page.execute(_AGAIN, [(True, n) for n in sorted(self._again)])
            self._again.clear()
        self._page.rows("reached").extend(
            (n, digest, copy.at, copy.kind, copy.weight, int(copy.status), copy.content, copy.went)
            for n, people in sorted(self._dirty.items(), key=_KEY)
            for digest, copy in sorted(people.items(), key=_KEY)
        )
        self._dirty.clear()
        filed, rows = self._page.rows("mailing_key"), self._page.rows("mailing")
        for row in self._rows.values():
            if row.changed:
                rows.append(row.columns())
                if row.new:
                    keys = self._finder.stored_keys(row.known)
                    filed.extend((key, row.known.n) for key in keys)
                    passed_over = self._finder.passed_over(keys)
                    self._page.execute("DELETE FROM mailing_key WHERE key = ? AND n < ?", passed_over)
                row.new = row.changed = False


def _content(item: Item) -> bytes:
    """Return the key by which a retry is recognised."""
    return hashlib.blake2b((item.content_sha256 or item.key).encode(), digest_size=8).digest()
