"""The tables, for both engines. A change here needs a step in migrations and a new SCHEMA.

Times are microseconds since 1970 in UTC. What only Python reads is in a JSON document (codec.py); what SQL selects by
is in a column beside it. The condition of a partial index is in its ``info``, and the migrations make it: SQLAlchemy's
own arguments for it would import the dialects of both engines.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

SCHEMA = "0033"
"""The newest of migrations.STEPS, repeated here so that opening a store need not import Alembic."""

metadata = MetaData()
_BIG = BigInteger().with_variant(Integer, "sqlite")


def _text(name: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, Text, nullable=False, primary_key=primary_key)


def _big(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _blob(name: str, *, primary_key: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False, primary_key=primary_key)


head = Table(  # one row: the gate and the chain's head, read once a batch
    "head",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    _text("journal"),
    _big("seq"),
    _blob("hash"),
    _big("generation"),
    _text("policy"),
    _big("kept_bytes"),
)

RARE = "kind NOT IN ('verdict', 'outcome')"
"""Nearly all journal entries are verdicts and outcomes. The others are found by an index without them, but only by a
query with exactly this condition (journal.of_kind)."""

entry = Table(
    "entry",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    _big("at"),
    _text("kind"),
    _text("id"),
    _text("body"),
    _blob("prev"),
    _blob("hash"),
    Column("action", Text, nullable=True),
    Column("observed", Boolean, nullable=True),
    Column("lists", Text, nullable=True),
    Column("names", Text, nullable=True),  # these four: journal.columns
    Index("entry_id", "id"),
    Index("entry_rare", "kind", "seq", info={"where": RARE}),
)

clear = Table(  # private values in clear, erasable without touching the chain
    "clear",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    _text("doc"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    _text("line"),
    Column("notable", Boolean, nullable=True),  # it has more than the position in the chain
)

merkle = (
    Table(  # subtrees over hashes of entries (journal.merkle); level -1: the entry that is the first leaf, if not 1
        "merkle",
        metadata,
        Column("level", SmallInteger, primary_key=True, autoincrement=False),
        Column("n", BigInteger, primary_key=True, autoincrement=False),
        _blob("hash"),
        sqlite_with_rowid=False,
    )
)

underway = Table(  # verdicts to relay without an outcome, with what a freeze compares with
    "underway",
    metadata,
    _text("id", primary_key=True),
    _text("key"),
    _big("at"),
    _text("marks"),
    Column("doubt", Boolean, nullable=False),
    Column("mailing", BigInteger, nullable=True),
    Column("people", LargeBinary, nullable=True),
    Column(
        "again", Boolean, nullable=False
    ),  # a person of its mailing has two copies under way: whether one is taken matters
    Index("underway_key", "key"),
    sqlite_with_rowid=False,
)

person = Table(  # by person: the scopes counted under, with times; ``due``: when part can be forgotten
    "person",
    metadata,
    Column("person", _BIG, primary_key=True, autoincrement=False),
    _big("due"),
    _blob("doc"),
    Column("weights", LargeBinary, nullable=True),  # of people that count as several
)

moment = Table(  # how many were last counted under a scope (a fact and its key) at one time
    "moment",
    metadata,
    Column("scope", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    _big("until"),
    _big("n"),
    _big("weight"),
    sqlite_with_rowid=False,
)

tally = Table(  # large sums of a scope in a window, kept for a while
    "tally",
    metadata,
    Column("scope", BigInteger, primary_key=True, autoincrement=False),
    Column("seconds", Integer, primary_key=True, autoincrement=False),
    _big("floor"),
    _big("total"),
    _big("made"),
    sqlite_with_rowid=False,
)

reset = Table(  # counts under a scope up to this time have no weight
    "reset",
    metadata,
    Column("scope", _BIG, primary_key=True, autoincrement=False),
    _big("at"),
)

again = Table(  # scopes that a content was counted under, so that a retry prolongs nothing
    "again",
    metadata,
    Column("content", _BIG, primary_key=True, autoincrement=False),
    _big("due"),
    _blob("doc"),
)

sent = Table(  # by Message-ID: the people it was sent to
    "sent",
    metadata,
    Column("message", _BIG, primary_key=True, autoincrement=False),
    _big("due"),
    _blob("doc"),
)

swept = Table(  # how far forgotten numbers were swept: one row
    "swept",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _big("at"),
    Column("part", Integer, nullable=False),
)

seen = Table(  # of an earlier version, until it is empty: who was counted under a scope, and when last
    "seen",
    metadata,
    _blob("pair", primary_key=True),
    _blob("scope"),
    _big("at"),
    _big("until"),
    Column("weight", Integer, nullable=False),
    Index("seen_scope", "scope", "at", "weight"),
    Index("seen_until", "until"),
    sqlite_with_rowid=False,
)

counted = Table(  # the same: what was counted under a scope already
    "counted",
    metadata,
    _blob("mark", primary_key=True),
    _big("until"),
    Index("counted_until", "until"),
    sqlite_with_rowid=False,
)

contact = Table(  # the same: whom a sender has written to, and who was sent which Message-ID, with the last time
    "contact",
    metadata,
    _blob("pair", primary_key=True),
    _big("at"),
    Index("contact_at", "at"),
    sqlite_with_rowid=False,
)

contact_since = Table(  # since when that is known; no row until the earlier journal was read for it
    "contact_since",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _big("at"),
)

mailing = Table(  # the same text to many people: numbers of people in columns, decisions in ``doc``
    "mailing",
    metadata,
    Column("n", _BIG, primary_key=True, autoincrement=False),
    _text("id"),
    _big("first_at"),
    _big("last_at"),
    _text("state"),
    _big("people"),
    Column("filed", Boolean, nullable=False),
    _blob("sketch"),
    _text("counts"),
    _text("doc"),
    Column("went_first", BigInteger, nullable=True),
    Column("went_last", BigInteger, nullable=True),
    Index("mailing_id", "id", unique=True),
    Index("mailing_last", "last_at", "n"),
)

mailing_key = Table(  # keys to find a mailing by: numbers of its sketch, or the number of an exact key
    "mailing_key",
    metadata,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

reached = Table(  # the people a mailing has come for, as keyed digests, and the status of each copy
    "reached",
    metadata,
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    _blob("person", primary_key=True),
    _big("at"),
    _big("kind"),
    Column("weight", Integer, nullable=False),
    Column("fate", SmallInteger, key="status", nullable=False),
    _blob("content"),
    _big("went"),
    Index("reached_at", "n", "at"),
    sqlite_with_rowid=False,
)

LEADING: dict[str, Any] = {"info": {"where": "lead IS NULL"}}
"""Holds that are no copies: single ones, and primary holds."""

ASKED: dict[str, Any] = {"info": {"where": "asked IS NOT NULL"}}
"""Holds for which people are asked whether the release was sent."""

QUEUED: dict[str, Any] = {"info": {"where": "queue IS NOT NULL AND state = 'waiting'"}}
"""Holds under which more letters of the same sender wait."""

LEAVING: dict[str, Any] = {"info": {"where": "release_at IS NOT NULL"}}
"""Holds whose approval takes effect at that time."""

SINGLE: dict[str, Any] = {"info": {"where": "length(people) = 8"}}
SEVERAL: dict[str, Any] = {"info": {"where": "length(people) > 8"}}
"""Holds for one person, whose digest has 8 octets, and for several."""

hold = Table(
    "hold",
    metadata,
    _text("hold_id", primary_key=True),
    _text("key"),
    _text("mailing"),
    _text("state"),
    Column("acknowledged", Boolean, nullable=False),
    _big("held_at"),
    _big("attend_at"),  # time of the next look
    _text("content"),
    _text("doc"),
    Column("lead", Text, nullable=True),
    Column("copies", Integer, nullable=True),
    Column("reach", BigInteger, nullable=True),
    Column("people", LargeBinary, nullable=True),
    Column("sought", Text, nullable=True),
    Column("marks", Text, nullable=True),
    Column("stopped", Text, nullable=True),
    Column("asked", BigInteger, nullable=True),
    Column("queue", Text, nullable=True),
    Column("shown", LargeBinary, nullable=True),
    Column("over_at", BigInteger, nullable=True),  # since when nothing is left to do for its release
    Column("expires_at", BigInteger, nullable=True),
    Column("release_at", BigInteger, nullable=True),
    Index("hold_key", "key"),
    Index("hold_state", "state", "held_at", "hold_id"),
    Index("hold_held", "held_at", "hold_id"),
    Index("hold_content", "content"),
    Index("hold_lead", "lead", "state"),
    Index("hold_asked", "asked", **ASKED),
    Index("hold_queue", "queue", **QUEUED),
    Index("hold_release", "release_at", **LEAVING),
    Index("hold_single", "people", **SINGLE),
    Index("hold_several", "mailing", **SEVERAL),
    Index(
        "hold_rows", "state", "held_at", "hold_id", "reach", "expires_at", "sought", "marks", **LEADING
    ),  # a list of holds
)

summed = Table(  # how many messages an hour were given which action, in all, by rule and by list (incidents.activity)
    "summed",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    _text("about", primary_key=True),
    _text("did", primary_key=True),
    _big("n"),
    sqlite_with_rowid=False,
)

ended = Table(  # holds that are no copies: rules, lists, how each ended, and its writer's answer
    "ended",
    metadata,
    _text("hold_id", primary_key=True),
    _big("held_at"),
    _text("rules"),
    _text("lists"),
    _text("how"),
    _big("at"),
    _text("said"),
    Index("ended_held", "held_at", "hold_id", "at", "how", "said", "rules", "lists"),
)

summing = Table(  # how far into the journal these two go: one row
    "summing",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    _big("through"),
)

cover = Table(  # templates of approvals that cover copies
    "cover",
    metadata,
    _text("cover", primary_key=True),
    _big("made_at"),
    _text("doc"),
)

peopleset = Table(  # sets of people that approvals are bound to (mailings.rows): sorted keyed digests in pieces, by the first of each
    "peopleset",
    metadata,
    _text("name", primary_key=True),
    _blob("first", primary_key=True),
    _blob("people"),
    _big("made_at"),
)

content = Table(
    "content",
    metadata,
    _text("sha256", primary_key=True),
    _big("size"),
    Column("whole", Boolean, nullable=False),
    _big("kept_at"),
    Index("content_kept", "kept_at"),
)

chunk = Table(
    "chunk",
    metadata,
    _text("sha256", primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    _blob("data"),
)

outbox = Table(
    "outbox",
    metadata,
    _text("intent_id", primary_key=True),
    _text("kind"),
    Column("hold_id", Text),
    Column("content", Text),
    _text("doc"),
    _big("created_at"),
    _big("next_at"),
    Column("done", Boolean, nullable=False),
    Column("token", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", Text),
    _big("leased_until"),
    Index("outbox_due", "done", "next_at", "intent_id"),
    Index("outbox_hold", "hold_id"),
    Index("outbox_content", "content"),
)

delivery = Table(  # one recipient of an outbox entry: its status, what is left to do, and the people behind the address
    "delivery",
    metadata,
    _text("intent_id", primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    _text("recipient"),
    _text("state"),
    _big("next_at"),
    _text("reply"),
    Column("doubts", Integer, nullable=False),
    Column("further", Text, nullable=False),
    Column("people", LargeBinary, nullable=True),
)

freeze = Table(
    "freeze",
    metadata,
    _text("freeze_id", primary_key=True),
    Column("lifted", Boolean, nullable=False),
    _text("doc"),
)

preserved = Table(  # incidents whose data is kept past its retention (incidents.preservation)
    "preserved",
    metadata,
    _text("id", primary_key=True),
    _big("until"),
    _big("first"),
    _text("doc"),
)

preserved_key = Table(  # what each needs: ids of messages, and contents
    "preserved_key",
    metadata,
    _text("what", primary_key=True),
    _text("key", primary_key=True),
    _text("incident", primary_key=True),
    sqlite_with_rowid=False,
)

document = Table(  # the files of a policy, by its SHA-256
    "document",
    metadata,
    _text("policy", primary_key=True),
    _text("name", primary_key=True),
    _blob("data"),
)

account = Table(  # console accounts
    "account",
    metadata,
    _text("account_id", primary_key=True),
    _text("address"),
    Column("subject", Text),
    _text("doc"),
    Index("account_address", "address", unique=True),
    Index("account_subject", "subject", unique=True),
)

absence = Table(  # by person: the last absence that they reported
    "absence",
    metadata,
    _text("person", primary_key=True),
    _text("doc"),
)

membership = Table(  # of a group, whom its directory named last
    "membership",
    metadata,
    _text("name", primary_key=True),
    _text("doc"),
)

session = Table(  # sessions, by the hash of the browser's token
    "session",
    metadata,
    _text("token", primary_key=True),
    _text("account"),
    _big("started_at"),
    _big("seen_at"),
    _text("how"),
    Index("session_account", "account"),
)

token = Table(  # API tokens
    "token",
    metadata,
    _text("token_id", primary_key=True),
    _text("account"),
    _text("doc"),
    Index("token_account", "account"),
)

term = Table(  # terms that messages are found by: keyed digests of words, by stretches of the journal
    "term",
    metadata,
    Column("stretch", Integer, primary_key=True, autoincrement=False),
    Column("word", _BIG, primary_key=True, autoincrement=False),
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

terms = Table(  # how far they are written, and with which secret: one row
    "terms",
    metadata,
    _text("key_id", primary_key=True),
    _big("through"),
)

hook = Table(  # the journal position of each webhook
    "hook",
    metadata,
    _text("name", primary_key=True),
    _big("told"),
    Column("attempts", Integer, nullable=False),
    _big("failing_since"),
    _big("next_at"),
    _big("leased_until"),
    Column("lease", Integer, nullable=False),
)

alarm = Table(  # alarms that a person was told of and that are not over; times in microseconds, 0 for none
    "alarm",
    metadata,
    _text("key", primary_key=True),
    _big("began"),
    _big("told"),
    _big("claimed_until"),
    Column("taken_by", Text, nullable=False, server_default=""),
    Column("taken_at", BigInteger, nullable=False, server_default="0"),
)

front = Table(  # how far each process's front has been moved into the chain (database.fronts)
    "front",
    metadata,
    _text("name", primary_key=True),
    _big("moved"),
)

returned = Table(  # mail that came back after a mailing (returns): by its SHA-256, and which of the people it is about
    "returned",
    metadata,
    _text("mail", primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    _big("at"),
    _text("sort"),
    _text("known"),
    _text("message"),
    _text("mailing"),
    Column("person", LargeBinary, nullable=True),
    Column("sure", Boolean, nullable=False),
    Column("counts", Boolean, nullable=False),
    _text("doc"),
    Index("returned_at", "at", "mail"),
    Index("returned_mailing", "mailing", "at"),
    Index("returned_counted", "mailing", "sort", "counts", "at"),
    Index("returned_person", "mailing", "sort", "person"),
)
