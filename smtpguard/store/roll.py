"""The mailings that one batch meets: which one a message is a copy of, who it has come for, and what became of each copy.

Read ahead for all items of a run, changed as they come, and written with the batch by a statement a table. A person is
counted once a mailing, by a keyed digest; the sums of the window are kept with the mailing and what has left the window is
taken off. Admissions are serial, so all this is exact over processes. Never here: what follows from it (policy.mailing).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from smtpguard.policy.admission import Ask, Item
from smtpguard.policy.mailing import DAY, Fate, Mailing, Person, Tally
from smtpguard.policy.staging import Move
from smtpguard.reading.fingerprint import Identity, Sketch
from smtpguard.store.codec import MAILING
from smtpguard.store.memory import Known, Memory, nearest

OF_MAILINGS = frozenset({"mailing.customers", "mailing.reach", "mailing.share"})
WINDOW = DAY * 1_000_000
CROWDED = 64
"""Mailings under one key, from which on it tells little: a new one is filed under its others."""
_FILED = 3  # ... but under so many at least
_LOOKED_AT = 32
_MANY = 500  # values in one IN (...)
_CUSTOMER, _MAYBE, _FIRST_LIST = 1, 2, 2  # of a kind: two bits, then one for each list
_MOST_LISTS = 60  # beyond these, lists share the last bit
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEFT = {"relayed": Fate.RELAYED, "refused": Fate.REFUSED}  # any other outcome: the client has it still


class Page(Protocol):
    """What a roll needs of the batch that it belongs to."""

    secret: bytes
    now: datetime
    now_us: int
    counted: int

    def select(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Any]: ...
    def execute(self, sql: str, rows: Sequence[Sequence[Any]]) -> None: ...
    def rows(self, table: str) -> list[Sequence[Any]]: ...


@dataclass(slots=True)
class _Person:
    at: int
    kind: int
    weight: int
    fate: Fate
    content: bytes


@dataclass(slots=True, kw_only=True)
class Row:
    """A mailing while a batch looks at it. ``mailing``: as of before, with the counts of then; the counts are beside it."""

    known: Known
    exact: int | None
    mailing: Mailing
    first_us: int
    last_us: int
    floor: int
    sums: dict[int, int]
    fates: list[int]
    customers: int = 0
    messages: int = 0
    new: bool = False
    changed: bool = False
    people: dict[bytes, _Person | None] = field(default_factory=dict)
    """Those who were looked up; None: not there."""

    @property
    def lists(self) -> tuple[str, ...]:
        return self.mailing.lists


class Roll:
    """Belongs to one batch. ``memory`` is the process's."""

    def __init__(self, page: Page, memory: Memory) -> None:
        self._page = page
        self._memory = memory
        self._rows: dict[int, Row] = {}
        self._met: dict[str, Row | None] = {}  # by item id
        self._here = Memory()  # those that this batch has begun
        self._dirty: dict[tuple[int, bytes], _Person] = {}
        self._crowded: set[int] = set()
        self._next = 0

    # -- which mailing

    def meet(self, items: Iterable[Item]) -> None:
        """Find the mailing of each, and read what is there of it and of their people."""
        wanted = [item for item in items if item.identity is not None and item.everybody and item.id not in self._met]
        found = self._found([item.identity for item in wanted if item.identity is not None])
        self._load({known.n for known in found if known is not None})
        for item, known in zip(wanted, found, strict=True):
            self._met[item.id] = self._rows.get(known.n) if known is not None else None
        self._load_people(
            (row, person.digest) for item in wanted if (row := self._met[item.id]) for person in item.everybody
        )

    def of(self, item: Item) -> Row | None:
        """The item's mailing; one that is new is begun, and forgotten with the batch unless something is recorded of it."""
        if item.id not in self._met:
            return None
        row = self._met[item.id]
        if row is None:
            assert item.identity is not None
            exact = _number(self._page.secret, item.identity.exact)
            known = self._here.find(exact, item.identity.sketch)
            row = self._met[item.id] = self._rows[known.n] if known is not None else self._begun(item.identity, exact)
        return row

    def by_number(self, n: int) -> Row | None:
        self._load({n})
        return self._rows.get(n)

    def by_name(self, mailing_id: str) -> Row | None:
        found = self._page.select("SELECT n FROM mailing WHERE id = ?", (mailing_id,))
        if found:
            return self.by_number(found[0][0])
        return next((row for row in self._rows.values() if row.known.mailing_id == mailing_id), None)

    def _found(self, identities: Sequence[Identity]) -> list[Known | None]:
        numbers = [_number(self._page.secret, i.exact) for i in identities]
        known = [self._memory.find(n, i.sketch) for n, i in zip(numbers, identities, strict=True)]
        keys = {k for n, i, found in zip(numbers, identities, known, strict=True) if found is None for k in _keys(n, i)}
        if not keys:
            return known
        filed: dict[int, list[int]] = {}
        for key, n in self._select("SELECT key, n FROM mailing_key WHERE key IN ({}) ORDER BY n", list(keys)):
            filed.setdefault(key, []).append(n)
        self._crowded |= {key for key, ns in filed.items() if len(ns) >= CROWDED}
        near: list[list[int]] = []
        for exact, identity, one in zip(numbers, identities, known, strict=True):
            hits: dict[int, int] = {}
            for key in _keys(exact, identity) if one is None else ():
                for n in filed.get(key, ())[-CROWDED:]:
                    hits[n] = hits.get(n, 0) + (1 if key != exact else 100)
            near.append(sorted(hits, key=lambda n: (-hits[n], n))[:_LOOKED_AT])
        there = {k.n: k for k in self._candidates({n for ns in near for n in ns}, filed)}
        for at, (exact, identity, ns) in enumerate(zip(numbers, identities, near, strict=True)):
            if known[at] is None and ns:
                found = nearest((there[n] for n in ns if n in there), exact, identity.sketch)
                if found is not None:
                    self._memory.add(found)
                    known[at] = found
        return known

    def _candidates(self, ns: set[int], filed: Mapping[int, Sequence[int]]) -> Iterator[Known]:
        keys: dict[int, list[int]] = {}
        for key, under in filed.items():
            for n in under:
                keys.setdefault(n, []).append(key)
        for n, id, sketch in self._select("SELECT n, id, sketch FROM mailing WHERE n IN ({})", list(ns)):
            made = Sketch.unpack(bytes(sketch))
            yield Known(n=n, mailing_id=id, keys=tuple({*keys[n], *made.keys}), sketch=made)

    def _begun(self, identity: Identity, exact: int | None) -> Row:
        if not self._next:
            [(most,)] = self._page.select("SELECT MAX(n) FROM mailing")
            self._next = (most or 0) + 1
        n, self._next = self._next, self._next + 1
        keys = _keys(exact, identity)
        known = Known(n=n, mailing_id=_name(self._page, n), keys=keys, sketch=identity.sketch)
        now = self._page.now
        row = Row(
            known=known, exact=exact,
            mailing=Mailing(mailing_id=known.mailing_id, first_at=now, last_at=now),
            first_us=self._page.now_us, last_us=self._page.now_us, floor=self._page.now_us - WINDOW,
            sums={}, fates=[0] * len(Fate), new=True,
        )  # fmt: skip
        self._rows[n] = row
        self._here.add(known)
        return row

    # -- reading

    def _load(self, ns: set[int]) -> None:
        wanted = [n for n in ns if n not in self._rows]
        sql = "SELECT n, id, first_at, last_at, sketch, counts, doc FROM mailing WHERE n IN ({})"
        for n, id, first, last, sketch, counts, doc in self._select(sql, wanted):
            self._rows[n] = self._read(n, id, first, last, bytes(sketch), counts, doc)
        for n in wanted:
            if n not in self._rows:  # forgotten meanwhile
                self._memory.forget(n)

    def _read(self, n: int, id: str, first: int, last: int, sketch: bytes, counts: str, doc: str) -> Row:
        made = Sketch.unpack(sketch)
        kept = json.loads(counts)
        exact = kept["exact"]
        row = Row(
            known=Known(n=n, mailing_id=id, keys=(*(() if exact is None else (exact,)), *made.keys), sketch=made),
            exact=exact,
            mailing=mailing_of(id, first, last, counts, doc),
            first_us=first, last_us=last, floor=kept["floor"], sums={int(k): v for k, v in kept["sums"].items()},
            fates=list(kept["fates"]), customers=kept["customers"], messages=kept["messages"],
        )  # fmt: skip
        floor = self._page.now_us - WINDOW
        if floor > row.floor:
            if first <= floor:  # a younger one has lost nobody yet
                sql = "SELECT kind, SUM(weight) FROM reached WHERE n = ? AND at > ? AND at <= ? GROUP BY kind"
                for kind, gone in self._page.select(sql, (n, row.floor, floor)):
                    row.sums[kind] = row.sums.get(kind, 0) - int(gone)
            row.floor = floor
        return row

    def _load_people(self, wanted: Iterable[tuple[Row, bytes]]) -> None:
        by_row: dict[int, list[bytes]] = {}
        for row, digest in wanted:
            if not row.new and digest not in row.people:
                row.people[digest] = None
                by_row.setdefault(row.known.n, []).append(digest)
        for n, digests in by_row.items():
            people = self._rows[n].people
            sql = f"SELECT person, at, kind, weight, fate, content FROM reached WHERE n = {n:d} AND person IN ({{}})"
            for person, at, kind, weight, fate, content in self._select(sql, digests):
                people[bytes(person)] = _Person(at, kind, weight, Fate(fate), bytes(content))

    def _select(self, sql: str, values: Sequence[Any]) -> Iterator[Any]:
        for start in range(0, len(values), _MANY):
            some = values[start : start + _MANY]
            yield from self._page.select(sql.format(", ".join("?" * len(some))), some)

    # -- what an item sees

    def view(self, row: Row) -> Mailing:
        """As it is, the items before in the batch included; a pause that is over has ended."""
        progress = row.mailing.progress
        return replace(
            row.mailing,
            people=Tally(deferred=row.fates[Fate.DEFERRED], refused=row.fates[Fate.REFUSED], held=row.fates[Fate.HELD],
                         admitted=row.fates[Fate.ADMITTED], relayed=row.fates[Fate.RELAYED]),
            customers=row.customers,
            messages=row.messages,
            progress=progress.timely(self._page.now) if progress is not None else None,
        )  # fmt: skip

    def fresh(self, row: Row, item: Item) -> int:
        """How many people it would let through who have nothing of the mailing yet."""
        there = row.people
        return sum(
            p.weight for p in item.everybody if (old := there.get(p.digest)) is None or old.fate not in _LET_THROUGH
        )

    def counts(self, row: Row, item: Item) -> tuple[dict[Ask, int], dict[Ask, int]]:
        """Of each ask the count with this item in it, and how many more it may be."""
        asks = [a for a in item.asks if a.fact in OF_MAILINGS]
        if not asks:
            return {}, {}
        sums = dict(row.sums)
        lists = list(row.lists)
        for person, kind in self._kinds(lists, item.everybody):
            old = row.people.get(person.digest)
            if old is not None and old.at > row.floor:
                if kind | old.kind == old.kind:
                    continue
                sums[old.kind] = sums.get(old.kind, 0) - old.weight
                kind |= old.kind
            sums[kind] = sums.get(kind, 0) + person.weight
        counts: dict[Ask, int] = {}
        maybe: dict[Ask, int] = {}
        for ask in asks:
            if ask.fact == "mailing.reach":
                counts[ask] = sum(sums.values())
            elif ask.fact == "mailing.customers":
                counts[ask] = sum(w for k, w in sums.items() if k & _CUSTOMER)
                maybe[ask] = sum(w for k, w in sums.items() if k & (_CUSTOMER | _MAYBE)) - counts[ask]
            else:
                bit = _bit(lists, ask.key)
                counts[ask] = sum(w for k, w in sums.items() if k & bit)
                maybe[ask] = sum(w for k, w in sums.items() if k & _MAYBE and not k & bit)
        return counts, maybe

    def _kinds(self, lists: list[str], people: Iterable[Person]) -> Iterator[tuple[Person, int]]:
        """Each person with its kind; ``lists`` grows by those that are new to the mailing."""
        for person in people:
            kind = (_CUSTOMER if person.customer else 0) | (_MAYBE if person.maybe else 0)
            for name in person.lists:
                if name not in lists:
                    lists.append(name)
                kind |= _bit(lists, name)
            yield person, kind

    # -- what is written

    def record(self, row: Row, item: Item, fate: Fate, named: tuple[str, str, str]) -> bytes:
        """Somebody's copy was decided on. Returns the people, for what becomes of it later."""
        page, now = self._page, self._page.now_us
        content = bytes.fromhex((item.content_sha256 or item.key)[:16]) if _hexed(item) else item.key[:8].encode()
        lists = list(row.lists)
        counts = fate in (Fate.HELD, Fate.ADMITTED)
        digests = []
        for person, kind in self._kinds(lists, item.everybody):
            digests.append(person.digest)
            old = row.people.get(person.digest)
            before = old or _Person(0, 0, person.weight, Fate.NONE, b"")
            inside = before.at > row.floor
            kind |= before.kind
            retry = old is not None and before.content == content
            at = now if counts and not (retry and inside) else before.at
            if inside:
                row.sums[before.kind] = row.sums.get(before.kind, 0) - before.weight
            if at > row.floor:
                row.sums[kind] = row.sums.get(kind, 0) + before.weight
            if kind & (_CUSTOMER | _MAYBE) and not before.kind & (_CUSTOMER | _MAYBE):
                row.customers += before.weight
            became = Fate.RELAYED if before.fate is Fate.RELAYED else fate
            row.fates[before.fate] -= before.weight
            row.fates[became] += before.weight
            self._put(row, person.digest, _Person(at, kind, before.weight, became, content), old)
        row.messages += 1
        row.last_us, row.changed = max(row.last_us, now), True
        details = row.mailing
        if row.new and not details.subject and not details.reverse_path:
            details = replace(details, subject=named[0], reverse_path=named[1], sender=named[2])
        row.mailing = replace(details, lists=tuple(lists), last_at=page.now)
        return b"".join(digests)

    def became(self, row: Row, digests: Iterable[bytes], fate: Fate, *, only: frozenset[Fate]) -> int:
        """Something became of copies after they were decided on: of the people whose copies are ``only`` there so far.
        Returns how many people that were."""
        digests = list(digests)
        self._load_people((row, digest) for digest in digests)
        moved = 0
        for digest in dict.fromkeys(digests):
            old = row.people.get(digest)
            if old is None or old.fate not in only or old.fate is fate:
                continue
            row.fates[old.fate] -= old.weight
            row.fates[fate] += old.weight
            moved += old.weight
            self._put(row, digest, replace_fate(old, fate), old)
        row.changed = row.changed or bool(moved)
        return moved

    def change(self, row: Row, mailing: Mailing) -> None:
        """What people or time decided about it."""
        row.mailing, row.changed = mailing, True

    def waiting(self, row: Row, digests: Iterable[bytes]) -> int:
        """How many of these people have nothing of it yet."""
        digests = list(dict.fromkeys(digests))
        self._load_people((row, digest) for digest in digests)
        return sum(p.weight for d in digests if (p := row.people.get(d)) is not None and p.fate not in _LET_THROUGH)

    def advance(self, row: Row, and_then: int = 0) -> None:
        """How far a release in stages is with those who were let through; ``and_then``: so many more do not fit in."""
        mailing = self.view(row)
        progress = mailing.progress
        if progress is None:
            return
        after = progress.with_reached(mailing.out, self._page.now)
        if and_then and not after.waits and mailing.out + and_then > after.limit:
            after = after.moved(Move.FULL, self._page.now) or after
        if after is not row.mailing.progress:
            self.change(row, replace(row.mailing, progress=after))

    def settle(self, outcomes: Mapping[str, str]) -> None:
        """What became of verdicts to relay, by transaction; read before they are no longer under way."""
        sql = "SELECT id, mailing, people FROM underway WHERE id IN ({}) AND mailing IS NOT NULL"
        found = list(self._select(sql, list(outcomes)))
        self._load({n for _, n, _ in found})
        rows = [(self._rows[n], split(bytes(people)), outcomes[id]) for id, n, people in found if n in self._rows]
        self._load_people((row, digest) for row, digests, _ in rows for digest in digests)
        for row, digests, outcome in rows:
            fate = _LEFT.get(outcome, Fate.DEFERRED)
            if fate is Fate.RELAYED:
                self.became(row, digests, fate, only=_ANY)
            else:
                self.became(row, digests, fate, only=frozenset({Fate.ADMITTED}))
            if row.mailing.progress is not None:
                self.judge(row)

    def judge(self, row: Row) -> None:
        """Let a release in stages see how it is taken."""
        mailing = self.view(row)
        if mailing.progress is None:
            return
        judged = mailing.progress.judged(
            reached=mailing.out,
            refused=mailing.people.refused,
            reported=mailing.bounces + mailing.complaints,
            now=self._page.now,
        )
        if judged is not row.mailing.progress:
            self.change(row, replace(row.mailing, progress=judged))

    def _put(self, row: Row, digest: bytes, person: _Person, old: _Person | None) -> None:
        row.people[digest] = person
        if person != old:
            self._dirty[row.known.n, digest] = person

    def write(self) -> None:
        """The mailings that have changed, with the batch's rows."""
        self._page.rows("reached").extend(
            (n, digest, p.at, p.kind, p.weight, int(p.fate), p.content) for (n, digest), p in self._dirty.items()
        )
        self._dirty.clear()
        filed, rows = self._page.rows("mailing_key"), self._page.rows("mailing")
        for row in self._rows.values():
            if not row.changed:
                continue
            mailing, known = self.view(row), row.known
            counts = {"exact": row.exact, "floor": row.floor, "sums": {str(k): v for k, v in row.sums.items() if v}, "fates": row.fates,
                      "customers": row.customers, "messages": row.messages}  # fmt: skip
            text = json.dumps(counts, separators=(",", ":"))
            rows.append((known.n, known.mailing_id, row.first_us, row.last_us, mailing.state.value, mailing.people.all,
                         known.sketch.pack(), text, MAILING.dumps(_kept(row.mailing))))  # fmt: skip
            if row.new:
                row.new = False
                under = [k for k in known.keys if k not in self._crowded]
                filed.extend((key, known.n) for key in (under if len(under) >= _FILED else known.keys))
                self._page.counted += 1
            row.changed = False

    def committed(self) -> None:
        """What this batch has begun is known from now on."""
        for row in self._rows.values():
            if not row.new and row.mailing.last_at == self._page.now:
                self._memory.add(row.known)


_ANY = frozenset(Fate)
_LET_THROUGH = frozenset({Fate.ADMITTED, Fate.RELAYED})


def mailing_of(id: str, first: int, last: int, counts: str, doc: str) -> Mailing:
    """A row as people see it."""
    kept = json.loads(counts)
    fates = kept["fates"]
    return replace(
        MAILING.loads(doc),
        mailing_id=id,
        first_at=_EPOCH + timedelta(microseconds=first),
        last_at=_EPOCH + timedelta(microseconds=last),
        people=Tally(deferred=fates[Fate.DEFERRED], refused=fates[Fate.REFUSED], held=fates[Fate.HELD],
                     admitted=fates[Fate.ADMITTED], relayed=fates[Fate.RELAYED]),
        customers=kept["customers"],
        messages=kept["messages"],
    )  # fmt: skip


def split(people: bytes) -> list[bytes]:
    return [people[at : at + 8] for at in range(0, len(people), 8)]


def replace_fate(person: _Person, fate: Fate) -> _Person:
    return _Person(person.at, person.kind, person.weight, fate, person.content)


def _kept(mailing: Mailing) -> Mailing:
    """Without what stands in columns of its own."""
    return replace(mailing, people=Tally(), customers=0, messages=0)


def _bit(lists: Sequence[str], name: str) -> int:
    at = min(lists.index(name), _MOST_LISTS - 1) if name in lists else 0
    return 1 << (_FIRST_LIST + at) if name in lists else 0


def _keys(exact: int | None, identity: Identity) -> tuple[int, ...]:
    return (*(() if exact is None else (exact,)), *identity.sketch.keys)


def _number(secret: bytes, exact: str) -> int | None:
    """An exact key as a number beside those of sketches, which have 32 bits."""
    if not exact:
        return None
    digest = hashlib.blake2b(
        exact.encode("utf-8", "surrogatepass"), key=secret[:64], digest_size=8, person=b"mailing key"
    )
    return int.from_bytes(digest.digest(), "big") >> 2 | 1 << 61


def _name(page: Page, n: int) -> str:
    """Sixteen letters and digits, that tell nothing."""
    made = hashlib.blake2b(f"{n} {page.now_us}".encode(), key=page.secret[:64], digest_size=10, person=b"mailing name")
    return base64.b32encode(made.digest()).decode("ascii")


def _hexed(item: Item) -> bool:
    text = (item.content_sha256 or item.key)[:16]
    try:
        return len(bytes.fromhex(text)) == 8
    except ValueError:
        return False
