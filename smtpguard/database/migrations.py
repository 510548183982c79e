"""The steps of the database's schema, one for each version. migrate.py runs those that a store lacks, in order, on a connection that
holds the write lock.

The statements of a released step are never edited. The next step is another function at the end, named ``to_`` and its number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from itertools import chain
from typing import Any

import orjson
import sqlalchemy as sa
from alembic import op

from smtpguard.database.schema import big as _big
from smtpguard.database.schema import flag as _flag
from smtpguard.database.schema import integer as _int
from smtpguard.database.schema import metadata
from smtpguard.database.schema import number as _number
from smtpguard.database.schema import octets as _octets
from smtpguard.database.schema import small as _small
from smtpguard.database.schema import text as _text

_SLICE = 500
"""The number of holds that are read at a time."""
_ENTRIES = 5000
"""The number of journal entries that are read at a time."""


def _table(name: str, *columns: list[sa.Column[Any]], rowid: bool = True) -> sa.Table:
    return op.create_table(name, *chain.from_iterable(columns), sqlite_with_rowid=rowid)


def _add(table: str, *columns: list[sa.Column[Any]]) -> None:
    for column in chain.from_iterable(columns):
        op.add_column(table, column)


def _index(name: str, table: str, columns: str, *, where: str | None = None, unique: bool = False) -> None:
    only = sa.text(where) if where else None
    op.create_index(name, table, columns.split(), unique=unique, sqlite_where=only, postgresql_where=only)


def _holds(hold: sa.TableClause, *columns: str, where: Any = None) -> Iterator[Any]:
    """Yield the rows of all holds, which are read in slices by id."""
    after = ""
    while True:
        query = sa.select(hold.c.hold_id, *(hold.c[name] for name in columns)).where(hold.c.hold_id > after)
        if where is not None:
            query = query.where(where)
        rows = op.get_bind().execute(query.order_by(hold.c.hold_id).limit(_SLICE)).all()
        yield from rows
        if len(rows) < _SLICE:
            return
        after = rows[-1].hold_id


def to_0001() -> None:
    _table("checkpoint", _big("seq", key=True), _text("line"))
    _table("chunk", _text("sha256", key=True), _int("n", key=True), _octets("data"))
    _table("clear", _big("seq", key=True), _text("doc"))
    _table("content", _text("sha256", key=True), _number("size"), _flag("whole"), _number("kept_at"))
    _index("content_kept", "content", "kept_at")
    _table("counted", _octets("mark", key=True), _number("until"), rowid=False)
    _index("counted_until", "counted", "until")
    _table(
        "delivery", _text("intent_id", key=True), _int("n", key=True), _text("recipient state"), _number("next_at"),
        _text("reply"), _int("doubts"),
    )  # fmt: skip
    _table("document", _text("policy name", key=True), _octets("data"))
    _table("entry", _big("seq", key=True), _number("at"), _text("kind id body"), _octets("prev hash"))
    _index("entry_id", "entry", "id")
    _table("freeze", _text("freeze_id", key=True), _flag("lifted"), _text("doc"))
    _table(
        "head", _small("one", key=True), _text("journal"), _number("seq"), _octets("hash"), _number("generation"),
        _text("policy"), _number("kept_bytes"),
    )  # fmt: skip
    _table(
        "hold", _text("hold_id", key=True), _text("key mailing state"), _flag("acknowledged"), _number("held_at attend_at"),
        _text("content doc"),
    )  # fmt: skip
    _index("hold_content", "hold", "content")
    _index("hold_held", "hold", "held_at hold_id")
    _index("hold_key", "hold", "key")
    _index("hold_state", "hold", "state held_at hold_id")
    _table(
        "outbox", _text("intent_id", key=True), _text("kind"), _text("hold_id content", null=True), _text("doc"),
        _number("created_at next_at"), _flag("done"), _int("token attempts"), _text("owner", null=True), _number("leased_until"),
    )  # fmt: skip
    _index("outbox_content", "outbox", "content")
    _index("outbox_due", "outbox", "done next_at intent_id")
    _index("outbox_hold", "outbox", "hold_id")
    _table("seen", _octets("pair", key=True), _octets("scope"), _number("at until"), _int("weight"), rowid=False)
    _index("seen_scope", "seen", "scope at weight")
    _index("seen_until", "seen", "until")
    _table("tally", _octets("scope", key=True), _int("seconds", key=True), _number("floor total made"), rowid=False)
    _table("underway", _text("id", key=True), _text("key"), _number("at"), _text("marks"), _flag("doubt"), rowid=False)
    _index("underway_key", "underway", "key")


def to_0002() -> None:
    """Mailings: the same text to many people, the people addressed, and the holds of one mailing."""
    _table(
        "mailing", _big("n", key=True), _text("id"), _number("first_at last_at"), _text("state"), _number("people"),
        _flag("filed"), _octets("sketch"), _text("counts doc"),
    )  # fmt: skip
    _index("mailing_id", "mailing", "id", unique=True)
    _index("mailing_last", "mailing", "last_at n")
    _table("mailing_key", _number("key n", key=True), rowid=False)
    _table(
        "reached", _number("n", key=True), _octets("person", key=True), _number("at kind"), _int("weight"), _small("fate"),
        _octets("content"), rowid=False,
    )  # fmt: skip
    _index("reached_at", "reached", "n at")
    _add("underway", _number("mailing", null=True), _octets("people", null=True))
    _add(
        "hold",
        _text("lead", null=True),
        _int("copies", null=True),
        _number("reach", null=True),
        _octets("people", null=True),
    )
    _index("hold_lead", "hold", "lead state")


def to_0003() -> None:
    """Accounts and sessions of the console."""
    _table("account", _text("account_id", key=True), _text("address"), _text("subject", null=True), _text("doc"))
    _index("account_address", "account", "address", unique=True)
    _index("account_subject", "account", "subject", unique=True)
    _table("session", _text("token", key=True), _text("account"), _number("started_at seen_at"), _text("how"))
    _index("session_account", "session", "account")


def to_0004() -> None:
    """API tokens, and the journal position of each webhook."""
    _table("token", _text("token_id", key=True), _text("account doc"))
    _index("token_account", "token", "account")
    _table(
        "hook", _text("name", key=True), _number("told"), _int("attempts"), _number("failing_since next_at leased_until"),
        _int("lease"),
    )  # fmt: skip


def to_0006() -> None:
    """An index table of what lists of holds are searched by."""
    _add("hold", _text("sought marks", null=True))
    hold = sa.table("hold", *(sa.column(name, sa.Text()) for name in ("hold_id", "doc", "sought", "marks")))
    for hold_id, text in _holds(hold, "doc"):
        values = _sought_words(json.loads(text))
        op.get_bind().execute(sa.update(hold).where(hold.c.hold_id == hold_id).values(**values))
    _index("hold_rows", "hold", "state held_at hold_id sought marks", where="lead IS NULL")


def _sought_words(doc: dict[str, Any]) -> dict[str, str]:
    """Return the columns ``sought`` and ``marks`` that holds.rows wrote at this schema."""
    senders = doc.get("senders", ())
    groups: set[str] = set()
    for quorum in doc.get("verdict", {}).get("quorum", ()):
        groups.update(quorum.get("groups", ()), (quorum.get("out_of_hours") or {}).get("groups", ()))
    marks = [
        *(f"list:{name}" for name in doc.get("lists", ())),
        *(f"from:{address}" for address in senders),
        *(f"group:{name}" for name in sorted(groups)),
    ]
    said = " ".join((doc.get("subject", "")[:200], doc.get("sender") or "", *senders)).casefold()
    kept = "\n"
    for mark in marks:
        if len(kept) + len(mark) < 600:
            kept += f"{mark}\n"
    return {"sought": said[:400], "marks": kept}


def to_0007() -> None:
    """Find rare entries in the journal without reading all verdicts."""
    _index("entry_rare", "entry", "kind seq", where="kind NOT IN ('verdict', 'outcome')")


def to_0008() -> None:
    """Correct the state of holds that an earlier version called released although the relay took no recipient: undelivered,
    or in doubt.

    The outbox says which, as long as its rows are kept. A release whose recipients were forgotten keeps its state.
    """
    recipients = """SELECT 1 FROM outbox JOIN delivery ON delivery.intent_id = outbox.intent_id
 WHERE outbox.hold_id = hold.hold_id AND outbox.kind = 'release'"""
    nobody_surely = f"""UPDATE hold SET state = :state WHERE state = 'released' AND EXISTS ({recipients})
 AND NOT EXISTS ({recipients} AND delivery.state NOT IN ('failed', 'in-doubt'))"""
    in_doubt = f"{recipients} AND (delivery.state = 'in-doubt' OR delivery.doubts > 0)"
    for state, doubted in (("undelivered", "NOT EXISTS"), ("in-doubt", "EXISTS")):
        op.execute(sa.text(f"{nobody_surely} AND {doubted} ({in_doubt})").bindparams(state=state))


def to_0009() -> None:
    """Each recipient of the outbox has one delivery status, with what is still to be done and the people behind the
    address."""
    _add("delivery", _text("further", default="nothing"), _octets("people", null=True))
    op.execute(
        """UPDATE delivery SET further = CASE WHEN state IN ('retry', 'in-doubt') THEN 'try' ELSE 'nothing' END,
 state = CASE WHEN state = 'sent' THEN 'delivered' WHEN state = 'in-doubt' OR doubts > 0 THEN 'attempted'
 WHEN state = 'failed' THEN 'refused' ELSE 'pending' END"""
    )


def to_0010() -> None:
    """The terms that messages are found by, beside the journal. The delivery part writes them, for earlier entries as well."""
    _table("term", _int("stretch", key=True), _big("word seq", key=True), rowid=False)
    _table("terms", _text("key_id", key=True), _number("through"))


def to_0011() -> None:
    """The alarms that a person was told of, so that only one of several nodes tells, and no restart tells again."""
    _table("alarm", _text("key", key=True), _number("began told claimed_until"))


def to_0012() -> None:
    """Columns of holds: whether people are asked whether the release was sent, and how a hold was stopped that some recipients
    have, or may have.

    A release to a list address that an earlier version left in doubt is not retried: people are asked.
    """
    _add("hold", _text("stopped", null=True), _number("asked", null=True))
    _index("hold_asked", "hold", "asked", where="asked IS NOT NULL")
    to_a_list = sa.text("""SELECT hold.hold_id, hold.doc FROM hold JOIN outbox ON outbox.hold_id = hold.hold_id
 WHERE outbox.kind = 'release' AND outbox.done = :done""")
    ask = sa.text("""UPDATE delivery SET further = 'ask' WHERE state = 'attempted' AND further = 'try' AND intent_id IN (
 SELECT intent_id FROM outbox WHERE kind = 'release' AND hold_id = :hold_id)""")
    nobody_to_try = sa.text("""UPDATE outbox SET next_at = 253402300799000000 WHERE kind = 'release' AND hold_id = :hold_id AND NOT EXISTS (
 SELECT 1 FROM delivery WHERE delivery.intent_id = outbox.intent_id AND further = 'try')""")
    connection = op.get_bind()
    for hold_id, doc in connection.execute(to_a_list, {"done": False}).all():
        if json.loads(doc).get("versions"):  # it is for a list address
            connection.execute(ask, {"hold_id": hold_id})
            connection.execute(nobody_to_try, {"hold_id": hold_id})
    ended = sa.text("SELECT hold_id, doc FROM hold WHERE state IN ('released', 'in-doubt')")
    for hold_id, doc in connection.execute(ended).all():
        if json.loads(doc).get("stopped"):
            stopped = sa.text("UPDATE hold SET stopped = 'reject' WHERE hold_id = :hold_id")
            connection.execute(stopped, {"hold_id": hold_id})


def to_0013() -> None:
    """The times at which a mailing went out: of its first and last copy, and of each person's first copy.

    In an earlier store a copy that passed counts as gone when it came, a held one when its release was over.
    """
    _add("mailing", _number("went_first went_last", null=True))
    _add("reached", _number("went", default="0"))
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE reached SET went = at WHERE fate IN (4, 5, 6, 7)"))
    released = """SELECT mailing.n, hold.attend_at, hold.people FROM hold JOIN mailing ON mailing.id = hold.mailing
 WHERE hold.state = 'released' AND hold.people IS NOT NULL AND hold.attend_at IS NOT NULL"""
    later = "UPDATE reached SET went = :at WHERE n = :n AND person = :person AND went < :at AND went > 0"
    for n, at, people in connection.execute(sa.text(released)).all():
        some: list[dict[str, Any]] = [{"n": n, "at": at, "person": one} for one in _held_people(bytes(people))]
        if some:
            connection.execute(sa.text(later), some)
    times = "SELECT n, MIN(went), MAX(went) FROM reached WHERE went > 0 AND fate IN (4, 5, 7) GROUP BY n"
    known = [{"n": n, "first": first, "last": last} for n, first, last in connection.execute(sa.text(times)).all()]
    if known:
        connection.execute(sa.text("UPDATE mailing SET went_first = :first, went_last = :last WHERE n = :n"), known)


def _held_people(people: bytes) -> list[bytes]:
    """Return the people of the held part. A mark of 8 zero octets separates them from those who got the message at once."""
    digests = [people[at : at + 8] for at in range(0, len(people), 8)]
    return digests[: digests.index(bytes(8))] if bytes(8) in digests else digests


def to_0014() -> None:
    """The text that held messages show, and the covers of approvals.

    An approval by an earlier version defines its cover by likeness. From now on it covers exactly the octets that were
    approved.
    """
    _add("hold", _octets("shown", null=True))
    connection = op.get_bind()
    content_of = sa.text("SELECT content FROM hold WHERE hold_id = :hold_id")
    for n, doc in connection.execute(sa.text("SELECT n, doc FROM mailing WHERE state <> 'passing'")).all():
        document = json.loads(doc)
        grants = [grant for grant in (document.get("grant"), *document.get("earlier", ())) if grant]
        for grant in grants:
            content = connection.execute(content_of, {"hold_id": grant["hold_id"]}).scalar()
            if content is not None:
                grant["cover"] = {"content": content}
        if grants:
            changed = sa.text("UPDATE mailing SET doc = :doc WHERE n = :n")
            connection.execute(changed, {"doc": json.dumps(document), "n": n})


def to_0015() -> None:
    """The people a sender has written to, and those who were sent a Message-ID: pairs as keyed digests, with the last time."""
    _table("contact", _octets("pair", key=True), _number("at"), rowid=False)
    _index("contact_at", "contact", "at")


def to_0016() -> None:
    """Mark the verdicts to relay whose outcome changes something: a recipient may have an earlier copy of the same mailing.

    All verdicts under way now are marked: one unneeded look costs little.
    """
    _add("underway", _flag("again", default=sa.true()))


def to_0017() -> None:
    """Letters that are held for their sender's count wait as one: each finds the first of them by the sender."""
    _add("hold", _text("queue", null=True))
    _index("hold_queue", "hold", "queue", where="queue IS NOT NULL AND state = 'waiting'")


def to_0018() -> None:
    """The templates of approvals that cover copies, by the name in the approval."""
    _table("cover", _text("cover", key=True), _number("made_at"), _text("doc"))


def to_0019() -> None:
    """The time since which the contacts of senders are known. If it has no row, the next start reads the earlier journal for
    them."""
    _table("contact_since", _int("one", key=True), _number("at"))


def to_0020() -> None:
    """Columns for what SQL selects verdicts and checkpoints by.

    The columns are added without touching a row. Then the journal is read once, in slices: verdicts of messages that were
    held, deferred or rejected, or that belong to a list or a mailing, get theirs. All others, which are most, stay as they
    are.
    """
    _add("entry", _text("action", null=True), _flag("observed", null=True), _text("lists names", null=True))
    _add("checkpoint", _flag("notable", null=True))
    connection = op.get_bind()
    table = sa.table("checkpoint", sa.column("line", sa.Text()), sa.column("notable", sa.Boolean()))
    said = sa.or_(*(table.c.line.contains(f'"{name}":', autoescape=True) for name in ("put_back", "renewed")))
    connection.execute(sa.update(table).where(said).values(notable=True))
    kinds: dict[str, Any] = {"action": sa.Text(), "observed": sa.Boolean(), "lists": sa.Text(), "names": sa.Text()}
    columns = (sa.column(name, kind) for name, kind in kinds.items())
    entry = sa.table("entry", *columns, *map(sa.column, ("seq", "kind", "id", "body")))
    first, last = connection.execute(sa.select(sa.func.min(entry.c.seq), sa.func.max(entry.c.seq))).one()
    if first is None:
        return
    values = {name: sa.bindparam(f"its_{name}", type_=kind) for name, kind in kinds.items()}
    fill = sa.update(entry).where(entry.c.seq == sa.bindparam("of")).values(values)
    for start in range(first, last + 1, _ENTRIES):
        here = (entry.c.seq.between(start, start + _ENTRIES - 1), entry.c.kind == "verdict")
        rows = connection.execute(sa.select(entry.c.seq, entry.c.id, entry.c.body).where(*here)).all()
        if some := list(_selected_by(rows)):
            connection.execute(fill, some)


def _selected_by(rows: Any) -> Iterator[dict[str, Any]]:
    """Yield the columns of verdicts as journal.chain.columns_of makes them at schema 0020."""
    for seq, id, body in rows:
        data = _data(body)
        action, lists = data.get("action"), data.get("lists")
        given = (data.get(key) for key in ("hold", "mailing", "with", "freeze"))
        names = [name for name in given if isinstance(name, str) and name and name != id]
        made = {
            "its_action": action if isinstance(action, str) and action != "relay" else None,
            "its_observed": True if data.get("observed") else None,
            "its_lists": _lines(lists) if lists and isinstance(lists, list) else None,
            "its_names": _lines(dict.fromkeys(names)) if names else None,
        }
        if any(made.values()):
            yield {"of": seq, **made}


def _data(body: str) -> dict[str, Any]:
    """Return the ``data`` of an entry's body. It is empty for a body that is not ours, which verifying the journal reports."""
    try:
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:  # a lone surrogate
            content = json.loads(body)
    except ValueError:
        return {}
    data = content.get("data") if isinstance(content, dict) else None
    return data if isinstance(data, dict) else {}


def _lines(names: Any) -> str:
    shown = (name if isinstance(name, str) and name.isprintable() else ascii(name) for name in names)
    return "".join(("\n", *(f"{name}\n" for name in shown)))


def to_0021() -> None:
    """Give columns and fields of a hold one meaning each.

    The end of a release gets a column apart from the time of the next look. The number of letters listed to an approver
    gets a field apart from the number of copies that differences were learned from: in the votes on a hold under which a
    sender's letters wait as one.
    """
    _add("hold", _number("over_at", null=True))
    over = "UPDATE hold SET over_at = attend_at WHERE state IN ('released', 'granted', 'undelivered', 'in-doubt') AND asked IS NULL"
    op.execute(sa.text(over))
    hold = sa.table("hold", *(sa.column(name, sa.Text()) for name in ("hold_id", "queue", "doc")))
    for hold_id, text in _holds(hold, "doc", where=hold.c.queue.is_not(None)):
        doc = json.loads(text)
        counted = [vote for vote in doc.get("votes", ()) if "copies" in vote]
        for vote in counted:
            vote["letters"] = vote.pop("copies")
        if counted:
            new = json.dumps(doc, separators=(",", ":"), allow_nan=False)
            op.get_bind().execute(sa.update(hold).where(hold.c.hold_id == hold_id).values(doc=new))


def to_0022() -> None:
    """The sums of actions by hour, rule and list, the end of each hold, and an index of holds in order of priority.

    The sums are made from the journal afterwards, a slice at a time (incidents.activityrows).
    """
    _table("summed", _number("hour", key=True), _text("about did", key=True), _number("n"), rowid=False)
    _table(
        "ended", _text("hold_id", key=True), _number("held_at"), _text("rules lists how"), _number("at"), _text("said")
    )  # fmt: skip
    _index("ended_held", "ended", "held_at hold_id at how said rules lists")
    _table("summing", _small("one", key=True), _number("through"))
    _add("hold", _number("expires_at", null=True))
    texts = (sa.column(name, sa.Text()) for name in ("hold_id", "doc", "sought", "marks"))
    hold = sa.table("hold", *texts, *(sa.column(name, sa.BigInteger()) for name in ("reach", "expires_at")))
    for row in _holds(hold, "doc", "reach", "sought", "marks"):
        doc = json.loads(row.doc)
        values = {
            "expires_at": _microseconds(doc["expires_at"]),
            "reach": row.reach if row.reach is not None else doc["reach"],
            "sought": f"{row.hold_id.casefold()} {row.sought or ''}"[:420],
            "marks": (row.marks or "\n") + _further_marks(doc, 800 - len(row.marks or "")),
        }
        op.get_bind().execute(sa.update(hold).where(hold.c.hold_id == row.hold_id).values(**values))
    op.drop_index("hold_rows", "hold")
    _index("hold_rows", "hold", "state held_at hold_id reach expires_at sought marks", where="lead IS NULL")


def _further_marks(doc: dict[str, Any], most: int) -> str:
    """Return the marks that holds.rows sets at schema 0022 in addition to earlier ones."""
    made = ""
    rules = (hit["rule"] for hit in doc.get("verdict", {}).get("hits", ()) if hit.get("mode", "enforce") == "enforce")
    voted = ("voted",) if doc.get("votes") else ()
    for mark in (*voted, *(f"to:{name}" for name, _ in doc.get("versions", ())), *(f"rule:{rule}" for rule in rules)):
        if len(made) + len(mark) < most:
            made += f"{mark}\n"
    return made


def _microseconds(text: str) -> int:
    length = datetime.fromisoformat(text) - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (length.days * 86_400 + length.seconds) * 1_000_000 + length.microseconds


def to_0023() -> None:
    """The time at which an approval takes effect. Until then it can be undone."""
    _add("hold", _number("release_at", null=True))
    _index("hold_release", "hold", "release_at", where="release_at IS NOT NULL")


def to_0024() -> None:
    """Keep counts in one row for each person, instead of one for each person and scope; and how many were counted at which
    time, by scope.

    The counts of an earlier version stay in their tables, which get no new rows. Rows that a message counts again are
    moved; the rest is forgotten in its time. So this step is fast in a store of many millions too.
    """
    _table("person", _big("person", key=True), _number("due"), _octets("doc"), _octets("weights", null=True))
    _table("again", _big("content", key=True), _number("due"), _octets("doc"))
    _table("sent", _big("message", key=True), _number("due"), _octets("doc"))
    _table("moment", _number("scope at", key=True), _number("until n weight"), rowid=False)
    _table("reset", _big("scope", key=True), _number("at"))
    _table("swept", _int("one", key=True), _number("at"), _int("part"))
    op.drop_table("tally")  # these sums are made again
    _table("tally", _number("scope", key=True), _int("seconds", key=True), _number("floor total made"), rowid=False)


def to_0025() -> None:
    """A Merkle tree over the hashes of the journal's entries (RFC 6962). Subtrees of 1,024 leaves and more are kept.

    They are made of the entries that exist. In a journal that was trimmed before, the first remaining entry is the first
    leaf.
    """
    table = _table("merkle", _small("level", key=True), _number("n", key=True), _octets("hash"), rowid=False)
    connection = op.get_bind()
    entry = sa.table("entry", sa.column("seq", sa.BigInteger()), sa.column("hash", sa.LargeBinary()))
    first, last = connection.execute(sa.select(sa.func.min(entry.c.seq), sa.func.max(entry.c.seq))).one()
    if first is None:
        return
    if first > 1:
        connection.execute(sa.insert(table).values(level=-1, n=first, hash=b""))
    leaves, blocks = 1 << 10, 20  # of a block, and at a time
    made: dict[tuple[int, int], bytes] = {}
    start = first
    while last - start + 1 >= leaves:
        end = min(start + blocks * leaves, last + 1)
        query = sa.select(entry.c.hash).where(entry.c.seq >= start, entry.c.seq < end).order_by(entry.c.seq)
        hashes = [bytes(hash) for hash in connection.execute(query).scalars()]
        if len(hashes) != end - start:  # entries are missing; verifying reports it
            return
        rows = []
        for at in range(0, len(hashes) - leaves + 1, leaves):
            level, n = 10, (start - first + at) >> 10
            made[level, n] = _root([sha256(b"\0" + hash).digest() for hash in hashes[at : at + leaves]])
            rows.append({"level": level, "n": n, "hash": made[level, n]})
            while n & 1:
                level, n = level + 1, n >> 1
                made[level, n] = _parent(made.pop((level - 1, 2 * n)), made.pop((level - 1, 2 * n + 1)))
                rows.append({"level": level, "n": n, "hash": made[level, n]})
        start += len(hashes) // leaves * leaves
        connection.execute(sa.insert(table), rows)


def _root(nodes: list[bytes]) -> bytes:
    while len(nodes) > 1:
        nodes = [_parent(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=True)]
    return nodes[0]


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def to_0026() -> None:
    """The incidents whose data is preserved past its retention, the end of each preservation, and what each preserves."""
    _table("preserved", _text("id", key=True), _number("until first"), _text("doc"))
    _table("preserved_key", _text("what key incident", key=True), rowid=False)


def to_0027() -> None:
    """The progress of moving each process's front into the chain. It is written in the commit that moves entries."""
    _table("front", _text("name", key=True), _number("moved"))


def to_0028() -> None:
    """The absences that people report themselves, with their deputies."""
    _table("absence", _text("person", key=True), _text("doc"))


def to_0029() -> None:
    """The mail that came back after a mailing: bounces, complaints, replies, by the person that each is about."""
    _table(
        "returned", _text("mail", key=True), _int("n", key=True), _number("at"), _text("sort known message mailing"),
        _octets("person", null=True), _flag("sure counts"), _text("doc"),
    )  # fmt: skip
    _index("returned_at", "returned", "at mail")
    _index("returned_mailing", "returned", "mailing at")
    _index("returned_counted", "returned", "mailing sort counts at")
    _index("returned_person", "returned", "mailing sort person")


def to_0030() -> None:
    """Sets of people that approvals are bound to, as sorted keyed digests in pieces."""
    _table("peopleset", _text("name", key=True), _octets("first", key=True), _octets("people"), _number("made_at"))


def to_0031() -> None:
    """The people of each group in the last answer of its directory."""
    _table("membership", _text("name", key=True), _text("doc"))


def to_0032() -> None:
    """The person who has taken an alarm, and the time."""
    _add("alarm", _text("taken_by", default=""), _number("taken_at", default="0"))


def to_0033() -> None:
    """Held copies by the one person that each is for, and those for several people by their mailing."""
    _index("hold_single", "hold", "people", where="length(people) = 8")
    _index("hold_several", "hold", "mailing", where="length(people) > 8")


def to_0034() -> None:
    """In PostgreSQL, room on each page of counted people for their next rows: counted again, they take no new entry of
    the index, and much less of the log."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE person SET (fillfactor = 50)")


def to_0035() -> None:
    """Drop the counts of schemas before 0024. How many were counted under each scope, and when, is kept; who they were is
    not, so a person who is counted again in the same window counts twice. The journal is read again for the people that
    senders have written to.
    """
    connection = op.get_bind()
    found = connection.execute(
        sa.text("SELECT scope, at, MAX(until), COUNT(*), SUM(weight) FROM seen GROUP BY scope, at")
    )
    put = sa.text(
        "INSERT INTO moment (scope, at, until, n, weight) VALUES (:scope, :at, :until, :n, :weight)"
        " ON CONFLICT (scope, at) DO UPDATE SET n = moment.n + excluded.n, weight = moment.weight + excluded.weight,"
        " until = CASE WHEN excluded.until > moment.until THEN excluded.until ELSE moment.until END"
    )
    for rows in found.partitions(_ENTRIES):
        moments = [
            {"scope": int.from_bytes(scope[:8], "big", signed=True), "at": at, "until": until, "n": n, "weight": weight}
            for scope, at, until, n, weight in rows
        ]
        connection.execute(put, moments)
    if connection.execute(sa.text("SELECT 1 FROM contact LIMIT 1")).first() is not None:
        op.execute("DELETE FROM contact_since")
    for table in ("seen", "counted", "contact"):
        op.drop_table(table)


def to_0036() -> None:
    """Remove rules and lists from an index. A hold may have any number of them, and PostgreSQL limits an index entry to a
    third of a page. Mark the holds whose writer is asked, or confirmed them."""
    op.drop_index("ended_held", "ended")
    _index("ended_held", "ended", "held_at")
    hold = sa.table("hold", *(sa.column(name, sa.Text()) for name in ("hold_id", "doc", "marks")))
    for row in _holds(hold, "doc", "marks", where=hold.c.doc.contains('"confirm":{')):
        mark = _asking_mark(json.loads(row.doc))
        if mark:
            marks = (row.marks or "\n") + f"{mark}\n"
            op.get_bind().execute(sa.update(hold).where(hold.c.hold_id == row.hold_id).values(marks=marks))


def _asking_mark(doc: dict[str, Any]) -> str:
    """Return the mark of a hold whose writer is asked or has confirmed, as holds.rows sets it at this schema."""
    asked = doc.get("confirm")
    if not asked or asked.get("at"):
        return "confirmed" if asked and not doc.get("votes") else ""
    return "asked" if doc["state"] == "waiting" and not asked.get("lapsed_at") else ""


def to_0037() -> None:
    """Mailings by their state, without those on which nobody decides."""
    _index("mailing_decided", "mailing", "state", where="state <> 'passing'")


def to_0038() -> None:
    """Read the journal again for the people that senders have written to, under the names of logins and clients too."""
    op.execute("DELETE FROM contact_since")


def to_0039() -> None:
    """Compare text by its octets, as SQLite does. In the order of some languages the range of a prefix is empty: X comes
    after Y, a pair of letters after all others, or a ~ before them."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        return
    columns = sa.text(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
    )
    changes: dict[str, list[str]] = {}
    for table, column in connection.execute(columns):
        if table in metadata.tables:  # others may have tables there too
            changes.setdefault(table, []).append(f'ALTER COLUMN "{column}" TYPE text COLLATE "C"')
    for table, those in changes.items():
        op.execute(f'ALTER TABLE "{table}" {", ".join(those)}')


def to_0040() -> None:
    """The unsent entries of the outbox that have held content."""
    _index("outbox_unsent", "outbox", "hold_id", where="NOT done AND kind IN ('release', 'part')")


STEPS: Mapping[str, Callable[[], None]] = {
    name.removeprefix("to_"): step for name, step in sorted(globals().items()) if name.startswith("to_")
}
"""The step to each schema from the one before, by the schema's name."""
