"""The search index of messages: keyed digests of exact words (addresses, Message-ID, queue ids, words of a subject), by
entry.

The delivery part writes it after the journal, so that no admission waits for it. Entries that are not indexed yet are scanned. The
index is divided into stretches of the journal, so that new words are written close to each other, and old ones erased together.
Without the installation's secret the digests reveal nothing.
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
"""The number of entries whose words are stored together, and the most that are read and written at once."""
AT_ONCE = {"sqlite": STRETCH, "postgresql": STRETCH // 4}
"""The number of entries that one write indexes, by engine. PostgreSQL takes some 50 ms for the words of a whole stretch, for which
every other write waits."""
SLICE = 500
"""The number of messages that are looked up at once."""
_FORGOTTEN = 2  # stretches that are deleted at once
_PROBED = 5  # stretches in which it is looked up how rare a word is
_KNOWN = 5_000  # digests that are cached
_STRETCHES = 200  # the most that are searched in one transaction
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
    """The keyed digests of words, for one installation and one journal. ``key_id``: the name of the key."""

    def __init__(self, secret: bytes, journal_id: str) -> None:
        key = hmac.digest(secret, b"smtpguard find " + journal_id.encode(), "sha256")
        self.key_id = hashlib.sha256(key).hexdigest()[:16]
        self._keyed = hashlib.blake2b(key=key, digest_size=8)
        self.of: Callable[[str], int] = lru_cache(maxsize=_KNOWN)(self._of)
        """Returns the number of a word, after ``plain``. It is cached, since those of clients and senders recur."""

    def _of(self, word: str) -> int:
        digest = self._keyed.copy()
        digest.update(plain(word).encode("utf-8", "surrogatepass"))
        return int.from_bytes(digest.digest(), "big") & _MASK


@lru_cache(maxsize=1)
def _digests(secret: bytes, journal_id: str) -> Digests:
    return Digests(secret, journal_id)


def plain(word: str) -> str:
    """Return a word as it is compared: case-folded, without surrounding punctuation."""
    return word.strip("<>()[]{}\"'“”‘’„«»‹›「」『』【】、。！？：；,;:.!? \t").casefold()


def spellings(word: str) -> tuple[str, ...]:
    """Return the spellings of a word under which it is indexed: as it is written, and for words beyond ASCII also folded."""
    return (plain(word),) if word.isascii() else (plain(word), plain(with_ascii_domain(searched(plain(word)))))


def words_of(one: Entry, clear: Clear | None) -> set[str]:
    """Return the words by which the entry's message is found."""
    return {*map(plain, _words(one.kind, one.data, clear))} - {""}


def _content(body: str, action: str | None, named: str | None) -> Mapping[str, Any]:
    """Return the data of a verdict, or only its client if no other part has words. So nearly all verdicts are not decoded: their
    columns are empty, "peer" and "retry" are nowhere in them, and their first keys are known."""
    plain = action is named is None and not may_say(body, "peer") and not may_say(body, "retry", "true")
    if plain and (found := _CLIENT.match(body)) is not None:
        return {"client": found[1]}
    content: Mapping[str, Any] = parsed(body)["data"]
    return content


def _words(kind: str, content: Mapping[str, Any], clear: Clear | None) -> list[str]:
    """Return the words of an entry in all spellings, before ``plain``, and with repetitions."""
    found = _written(kind, content, clear)
    return found + [spelled for word in found if not word.isascii() for spelled in spellings(word)]


def _written(kind: str, content: Mapping[str, Any], clear: Clear | None) -> list[str]:
    """Return the words of an entry as they are written."""
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
    """Yield each word of a subject as it is written, and each of its parts."""
    for text in dict.fromkeys((subject.casefold(), searched(subject))):
        yield from text.split()[:_MOST_SUBJECT_WORDS]
        yield from _WORD.findall(text)[:_MOST_SUBJECT_WORDS]


def _of_replies(replies: Iterable[str]) -> list[str]:
    """Return the words of a relay's replies that may be a queue id: "250 2.0.0 Ok: queued as 4bXyz1"."""
    found: list[str] = []
    for said in replies:
        words = [word.casefold() for word in _QUEUE_ID.findall(str(said)[3:]) if not _ENHANCED.match(word)]
        found += words[:_MOST_REPLY_WORDS]
    return found


def queue_ids(replies: Iterable[str]) -> list[str]:
    """Return the queue ids of a message in the replies of the relay, or of the MTA whose milter this is."""
    found = (match for said in replies for match in (*_CALLED.findall(said), *_ACCEPTED.findall(said)))
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of the entries after ``after`` up to ``through``. ``rows``: stretch, word and entry."""

    after: int
    through: int
    key_id: str
    rows: Sequence[tuple[int, int, int]]


def words_after(found: journal.Unread, after: int, secret: bytes, journal_id: str) -> Words:
    """Return the words of entries after ``after``. All of ``found`` are of one stretch."""
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
    """Write words. Returns False if another process has written them meanwhile. If the index was written with another secret, it is
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
    """Return the last entry whose words are written with this secret."""
    key_id = _digests(secret, journal_id).key_id
    found = rows_of(connection, "SELECT through FROM terms WHERE key_id = ?", (key_id,))
    return found[0][0] if found else 0


def forget(batch: Batch, through: int) -> None:
    """Delete the words of entries up to ``through`` whose names are erased, of some stretches at once."""
    kept = select(names.c.seq).where(names.c.seq <= through)  # for an incident
    erased = term.c.stretch <= through // STRETCH, term.c.seq <= through, term.c.seq.not_in(kept)
    first = batch.connection.execute(select(func.min(term.c.stretch)).where(*erased)).scalar()
    if first is not None:
        batch.connection.execute(delete(term).where(term.c.stretch < first + _FORGOTTEN, *erased))


def lose(batch: Batch, words: Iterable[tuple[int, str]]) -> None:
    """Delete words (``words_of``), each with the number of its entry."""
    of = _digests(batch.secret, batch.head.journal).of
    rows = [(seq // STRETCH, of(word), seq) for seq, word in words]
    batch.execute("DELETE FROM term WHERE stretch = ? AND word = ? AND seq = ?", rows)


def find(open: Open, secret: bytes, words: Sequence[str], limit: int, progress: Progress | None = None) -> list[str]:
    """Return the ids of messages with all of ``words`` in one entry, newest first, at most ``limit``. A queue id is in an entry of its own.
    ``progress``: for the entries that are not indexed yet; the index counts as one."""
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
    """Count, for each of ``words``, the messages since a time (microseconds) that have it among their recipients, senders and ids.
    Messages whose names are erased do not count."""
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
    """Yield the messages that have one spelling of each word, newest first. It searches a few stretches at a time for a word of every
    message, and more and more for a rare one. The rarest word is looked up first."""
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
    """Yield the ids of entries that still have their names, or are a relay's reply."""
    for some in sliced(seqs, SLICE):
        named = or_(names.c.seq.is_not(None), entry.c.kind == Kind.OUTCOME.value)
        query = select(entry.c.id).outerjoin(names, names.c.seq == entry.c.seq).where(entry.c.seq.in_(some), named)
        with open() as connection:
            yield from connection.execute(query.order_by(entry.c.seq.desc())).scalars()
