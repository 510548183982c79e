"""The search index of messages: keyed digests of exact words (addresses, Message-ID, queue ids, words of a subject), by
entry.

The delivery part writes it after the journal, so that no admission waits for it; entries that are not indexed yet are
scanned. The index is split into stretches of the journal: new words are written close to each other, and old ones erased
so. Without the installation's secret the digests reveal nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, update

from smtpguard.database.access import Open, Progress, sliced
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.schema import clear as names
from smtpguard.database.schema import entry, term, terms
from smtpguard.database.statements import rows_of
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry, clear_from, may_say, parsed
from smtpguard.journal.event import Kind
from smtpguard.mail.address import with_ascii_domain
from smtpguard.reading.fold import searched

STRETCH = 2_000
"""Entries whose words are stored together: at most so many are read and written at once, in the order of the index."""
AT_ONCE = {"sqlite": STRETCH, "postgresql": STRETCH // 4}
"""So many, by engine. PostgreSQL takes some 50 ms for the words of a whole stretch, and every other write waits."""
SLICE = 500
"""Messages that are looked up at once."""
_FORGOTTEN = 2
_PROBED = 5
_KNOWN = 5_000
_STRETCHES = 200
_MOST_SUBJECT_WORDS = 40
_MOST_REPLY_WORDS = 8
_WORD = re.compile(r"\w{2,}")
_QUEUE_ID = re.compile(r"(?=[A-Za-z0-9._-]*[0-9])[A-Za-z0-9][A-Za-z0-9._-]{4,}[A-Za-z0-9]")
_ENHANCED = re.compile(r"[245]\.[0-9.]+\Z")
_ADDRESSES = ("reverse_path", "from", "recipients", "actor", "message_id", "ident", "envid")
_PLACES = ("client", "peer")
_KINDS = _VERDICT, _OUTCOME, _RELEASE = Kind.VERDICT.value, Kind.OUTCOME.value, Kind.RELEASE.value
_INDEXED = entry.c.kind.in_(_KINDS)
_MASK = (1 << 63) - 1
_CLIENT = re.compile(r'\{"data":\{"action":"relay","approved":\[\],"client":"([^"\\]+)"')
_CALLED = re.compile(r"(?:\b(?:queued )?as|\bid[=:])\s*<?([A-Za-z0-9][A-Za-z0-9._-]{4,}[A-Za-z0-9])", re.IGNORECASE)
_ACCEPTED = re.compile(r"([A-Za-z0-9]{8,}) Message accepted for delivery")  # Sendmail's


class Digests:
    """For one installation and one journal."""

    def __init__(self, secret: bytes, journal_id: str) -> None:
        key = hmac.digest(secret, b"smtpguard find " + journal_id.encode(), "sha256")
        self.key_id = hashlib.sha256(key).hexdigest()[:16]
        self._keyed = hashlib.blake2b(key=key, digest_size=8)
        self.of: Callable[[str], int] = lru_cache(maxsize=_KNOWN)(self._of)
        """The number of a word, as ``plain`` makes it; that of a client or a sender is asked for many times."""

    def _of(self, word: str) -> int:
        digest = self._keyed.copy()
        digest.update(plain(word).encode("utf-8", "surrogatepass"))
        return int.from_bytes(digest.digest(), "big") & _MASK


@lru_cache(maxsize=1)
def _digests(secret: bytes, journal_id: str) -> Digests:
    return Digests(secret, journal_id)


def plain(word: str) -> str:
    """Normalized for comparison: without surrounding punctuation, case-folded."""
    return word.strip("<>()[]{}\"'“”‘’„«»‹›「」『』【】、。！？：；,;:.!? \t").casefold()


def spellings(word: str) -> tuple[str, ...]:
    """As it is written, and as it compares with other spellings; words beyond ASCII are indexed by both."""
    return (plain(word),) if word.isascii() else (plain(word), plain(with_ascii_domain(searched(plain(word)))))


def words_of(one: Entry, clear: Clear | None) -> set[str]:
    """The words by which the entry's message is found."""
    return {*map(plain, _words(one.kind, one.data, clear))} - {""}


def _content(body: str, action: str | None, named: str | None) -> Mapping[str, Any]:
    """The data of a verdict with these columns, or what of it has words, if it has no more. Nearly all have none, and so
    are not decoded: "peer" and "retry" are nowhere in it, and its first keys are known."""
    plain = action is named is None and not may_say(body, "peer") and not may_say(body, "retry", "true")
    if plain and (found := _CLIENT.match(body)) is not None:
        return {"client": found[1]}
    content: Mapping[str, Any] = parsed(body)["data"]
    return content


def _words(kind: str, content: Mapping[str, Any], clear: Clear | None) -> list[str]:
    """Before ``plain``, and some of them several times."""
    found = _written(kind, content, clear)
    return found + [spelled for word in found if not word.isascii() for spelled in spellings(word)]


def _written(kind: str, content: Mapping[str, Any], clear: Clear | None) -> list[str]:
    if kind == _OUTCOME:
        return _of_replies(content.get("replies", ()))
    if kind == _RELEASE:
        return _of_replies((clear or {}).get("comment", ()))
    if kind != _VERDICT or content.get("retry"):  # the message is indexed already
        return []
    found: list[str] = []
    if clear is not None:
        for role in _ADDRESSES:
            if role in clear:
                found += clear[role]
        if content.get("hold") or content.get("mailing"):
            found += _of_subject(" ".join(clear.get("subject", ())))
    found += [str(content[name]) for name in _PLACES if content.get(name)]
    return found


def _of_subject(subject: str) -> Iterator[str]:
    """Each word as it is written, and each of its parts."""
    for text in dict.fromkeys((subject.casefold(), searched(subject))):
        yield from text.split()[:_MOST_SUBJECT_WORDS]
        yield from _WORD.findall(text)[:_MOST_SUBJECT_WORDS]


def _of_replies(replies: Iterable[str]) -> list[str]:
    """Words of a relay's reply that may be a queue id: "250 2.0.0 Ok: queued as 4bXyz1"."""
    found: list[str] = []
    for said in replies:
        words = [word.casefold() for word in _QUEUE_ID.findall(str(said)[3:]) if not _ENHANCED.match(word)]
        found += words[:_MOST_REPLY_WORDS]
    return found


def queue_ids(replies: Iterable[str]) -> list[str]:
    """The message's queue ids in the replies of the relay, or of the MTA whose milter this is."""
    found = (match for said in replies for match in (*_CALLED.findall(said), *_ACCEPTED.findall(said)))
    return list(dict.fromkeys(found))


# writing, behind the journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """``rows`` of the entries after ``after`` through ``through``."""

    after: int
    through: int
    key_id: str
    rows: Sequence[tuple[int, int, int]]


def words_after(found: journal.Unread, after: int, secret: bytes, journal_id: str) -> Words:
    """The words of those entries, all of one stretch, after number ``after``."""
    digests, stretch = _digests(secret, journal_id), found.through // STRETCH
    of, rows = digests.of, list[tuple[int, int, int]]()
    nothing = {of("")}
    for seq, _, kind, _, body, _, _, doc, action, _, _, named in found.rows:
        if seq > after and kind in _KINDS:
            content = _content(body, action, named) if kind == _VERDICT else parsed(body)["data"]
            words = _words(kind, content, None if doc is None else clear_from(doc))
            rows += [(stretch, word, seq) for word in {*map(of, words)} - nothing]
    rows.sort()
    return Words(after=after, through=max(after, found.through), key_id=digests.key_id, rows=rows)


def write(batch: Batch, made: Words, secret: bytes) -> bool:
    """False if another process has written it meanwhile. If the words were written with another secret, all of them are
    rewritten, a stretch at a time."""
    connection = batch.connection
    batch.flush()
    if indexed_until(connection, secret, batch.head.journal) != made.after:
        return False
    first, last = (made.after // STRETCH + 1 if made.after else 0), made.through // STRETCH
    if last >= first:  # a new stretch: words with another secret may be in it
        connection.execute(delete(term).where(term.c.stretch.between(first, last)))
    batch.rows("term").extend(made.rows)
    done = connection.execute(update(terms).values(key_id=made.key_id, through=made.through))
    if not done.rowcount:
        connection.execute(terms.insert().values(key_id=made.key_id, through=made.through))
    return True


def indexed_until(connection: Connection, secret: bytes, journal_id: str) -> int:
    """The last entry whose words are written with this secret."""
    key_id = _digests(secret, journal_id).key_id
    found = rows_of(connection, "SELECT through FROM terms WHERE key_id = ?", (key_id,))
    return found[0][0] if found else 0


def forget(batch: Batch, through: int) -> None:
    """Delete the words of entries up to this one, whose names are erased: of whole stretches, some at a time, and of the
    stretch that it is in."""
    first = batch.connection.execute(select(func.min(term.c.stretch))).scalar()
    if first is not None and through:
        ended = min((through + 1) // STRETCH, first + _FORGOTTEN)
        batch.connection.execute(delete(term).where(term.c.stretch < ended))
        kept = select(names.c.seq).where(names.c.seq <= through)  # for an incident
        erased = term.c.stretch == through // STRETCH, term.c.seq <= through, term.c.seq.not_in(kept)
        batch.connection.execute(delete(term).where(*erased))


def lose(batch: Batch, words: Iterable[tuple[int, str]]) -> None:
    """Delete these words (``words_of``), each with the number of its entry."""
    of = _digests(batch.secret, batch.head.journal).of
    rows = [(seq // STRETCH, of(word), seq) for seq, word in words]
    batch.execute("DELETE FROM term WHERE stretch = ? AND word = ? AND seq = ?", rows)


# finding


def find(open: Open, secret: bytes, words: Sequence[str], limit: int, progress: Progress | None = None) -> list[str]:
    """The messages that have all of ``words``, the newest first, at most ``limit``. A queue id matches by itself.
    ``progress``: of the entries that are not indexed yet; the index counts as one."""
    wanted = {found for word in words if any(found := spellings(word))}
    if not wanted:
        return []
    with open() as connection:
        head = read_head(connection)
        digests = _digests(secret, head.journal)
        through = indexed_until(connection, secret, head.journal)
        lowest = connection.execute(select(func.min(term.c.stretch))).scalar()
    ids: dict[str, None] = {}
    left = head.seq - through
    for n, pairs in enumerate(journal.back(open, head.seq + 1, through + 1, _INDEXED), start=1):
        for one, clear in pairs:
            known = words_of(one, clear)
            if not any(known.isdisjoint(word) for word in wanted):
                ids[one.id] = None
        if progress is not None:
            progress(min(n * journal.STRETCH, left), left + 1)
        if len(ids) >= limit:
            break
    if lowest is not None and len(ids) < limit:
        for id in _indexed(
            open, [[*map(digests.of, word)] for word in sorted(wanted)], int(lowest), through // STRETCH
        ):
            ids[id] = None
            if len(ids) >= limit:
                break
    if progress is not None:
        progress(left + 1, left + 1)
    return list(ids)[:limit]


def named(open: Open, secret: bytes, words: Sequence[str], since: int) -> dict[str, int]:
    """How many messages since then, in microseconds, have each of ``words`` among their recipients, senders and ids,
    unless the names are erased."""
    wanted = {plain(word): word for word in words}
    found = dict.fromkeys(words, 0)
    with open() as connection:
        head, first = read_head(connection), journal.first_at(connection, since)
        digests = _digests(secret, head.journal)
        through = indexed_until(connection, secret, head.journal)
    for pairs in journal.back(open, head.seq + 1, max(through + 1, first), _INDEXED):
        for one, clear in pairs:
            for word in wanted.keys() & words_of(one, clear):
                found[wanted[word]] += 1
    numbers = {digests.of(word): word for word in wanted}
    for start in range(first // STRETCH, through // STRETCH + 1, _STRETCHES):
        some = range(start, min(start + _STRETCHES, through // STRETCH + 1))
        query = select(term.c.word, func.count()).where(
            term.c.stretch.in_(some), term.c.word.in_(numbers), term.c.seq >= first, term.c.seq <= through
        )
        with open() as connection:
            for number, n in connection.execute(query.group_by(term.c.word)):
                found[wanted[numbers[number]]] += n
    return found


def _indexed(open: Open, words: Sequence[Sequence[int]], first: int, last: int) -> Iterator[str]:
    """Messages that have one spelling of each, the newest first: a few stretches at a time for a word of every message,
    more and more for a rare one. The rarest word is looked up first."""
    with open() as connection:
        lately = term.c.stretch.between(last - _PROBED, last)
        often = [select(func.count()).where(lately, term.c.word.in_(word)) for word in words]
        counts = [connection.execute(query).scalar_one() for query in often]
    words, many = [word for _, word in sorted(zip(counts, words, strict=True))], _PROBED
    while last >= first:
        some = range(max(first, last - many + 1), last + 1)
        found: list[int] = []
        with open() as connection:
            for n, word in enumerate(words):
                query = select(term.c.seq).where(term.c.stretch.in_(some), term.c.word.in_(word))
                if n and len(found) <= SLICE:
                    query = query.where(term.c.seq.in_(found))
                seqs = set(connection.execute(query).scalars())
                found = sorted(seqs.intersection(found) if n else seqs, reverse=True)
                if not found:
                    break
        yield from _ids(open, found)
        last, many = some.start - 1, min(2 * many, _STRETCHES)


def _ids(open: Open, seqs: Sequence[int]) -> Iterator[str]:
    """The messages that still have their names, or a relay's reply."""
    for some in sliced(seqs, SLICE):
        named = or_(names.c.seq.is_not(None), entry.c.kind == Kind.OUTCOME.value)
        query = select(entry.c.id).outerjoin(names, names.c.seq == entry.c.seq).where(entry.c.seq.in_(some), named)
        with open() as connection:
            yield from connection.execute(query.order_by(entry.c.seq.desc())).scalars()
