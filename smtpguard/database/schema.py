"""The tables, for both engines. A change here needs a step in migrations and a new SCHEMA.

Times are microseconds since 1970 in UTC. What only Python reads is in a JSON document (codec.py); what SQL selects by
is in a column beside it. The condition of a partial index stands beside it as a comment, and the migrations make it:
SQLAlchemy's own arguments for it would import the dialects of both engines.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
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

SCHEMA = "0040"
"""The newest of migrations.STEPS. It is repeated here so that opening a store does not import Alembic."""

metadata = MetaData()

RARE = "kind NOT IN ('verdict', 'outcome')"
"""The condition of an index of rare kinds: nearly all journal entries are verdicts and outcomes. Only a query with exactly this
condition uses it (journal.rows.of_kind)."""
DECIDED = "state <> 'passing'"
"""The condition of an index, as RARE: mailings on which people decide. Nearly all others are letters."""
UNSENT = "NOT done AND kind IN ('release', 'part')"
"""The condition of an index, as RARE: held mail that is to be sent. Many more notices may be."""
SINGLE, SEVERAL = "length(people) = 8", "length(people) > 8"
"""The conditions of two indexes, as RARE: holds for one person, whose digest has 8 octets, and for several."""


def _columns(type: Any, names: str, *, key: bool = False, null: bool = False, default: Any = None) -> list[Column[Any]]:
    """Return a column for each of ``names``, which spaces separate. ``key``: they are in the primary key; ``default``: the
    server's default."""
    return [
        Column(name, type, primary_key=key, autoincrement=False, nullable=null, server_default=default)
        for name in names.split()
    ]


text = partial(_columns, Text().with_variant(Text(collation="C"), "postgresql"))
"""Text columns. Both engines compare them by octets, not by the language of the database."""
number, integer = partial(_columns, BigInteger), partial(_columns, Integer)
small, octets, flag = partial(_columns, SmallInteger), partial(_columns, LargeBinary), partial(_columns, Boolean)
big = partial(_columns, BigInteger().with_variant(Integer, "sqlite"))
"""As ``number``, but in SQLite a key of this type is the rowid."""


def _table(name: str, *columns: list[Column[Any]], rowid: bool = True) -> Table:
    return Table(name, metadata, *chain.from_iterable(columns), sqlite_with_rowid=rowid)


def _index(table: Table, name: str, columns: str, *, unique: bool = False) -> None:
    Index(name, *(table.c[column] for column in columns.split()), unique=unique)


# the gate and the chain's head: one row, read once a batch
head = _table("head", small("one", key=True), text("journal"), number("seq"), octets("hash"), number("generation"),
              text("policy"), number("kept_bytes"))  # fmt: skip

# ``action`` and what follows: journal.chain
entry = _table("entry", big("seq", key=True), number("at"), text("kind id body"), octets("prev hash"),
               text("action", null=True), flag("observed", null=True), text("lists names", null=True))  # fmt: skip
_index(entry, "entry_id", "id")
_index(entry, "entry_rare", "kind seq")  # RARE

# private values in clear, erasable without touching the chain
clear = _table("clear", big("seq", key=True), text("doc"))

# ``notable``: it has more than the position in the chain
checkpoint = _table("checkpoint", big("seq", key=True), text("line"), flag("notable", null=True))

# subtrees over hashes of entries (journal.merkle); level -1: the entry that is the first leaf, if not 1
merkle = _table("merkle", small("level", key=True), number("n", key=True), octets("hash"), rowid=False)

# verdicts to relay without an outcome, with what a freeze compares with. ``again``: a person of its mailing has two
# copies under way, so that it matters whether one is taken
underway = _table("underway", text("id", key=True), text("key"), number("at"), text("marks"), flag("doubt"),
                  number("mailing", null=True), octets("people", null=True), flag("again"), rowid=False)  # fmt: skip
_index(underway, "underway_key", "key")

# by person: the scopes counted under, with times; ``due``: when part can be forgotten; ``weights``: for a person that
# counts as several
person = _table("person", big("person", key=True), number("due"), octets("doc"), octets("weights", null=True))

# how many were last counted under a scope (a fact and its key) at one time
moment = _table("moment", number("scope at", key=True), number("until n weight"), rowid=False)

# large sums of a scope in a window, kept for a while
tally = _table(
    "tally", number("scope", key=True), integer("seconds", key=True), number("floor total made"), rowid=False
)

# no window of a scope begins before this time
reset = _table("reset", big("scope", key=True), number("at"))

# scopes that a content was counted under, so that a retry prolongs nothing
again = _table("again", big("content", key=True), number("due"), octets("doc"))

# by Message-ID: the people it was sent to
sent = _table("sent", big("message", key=True), number("due"), octets("doc"))

# how far forgotten numbers were swept: one row
swept = _table("swept", integer("one", key=True), number("at"), integer("part"))

# since when contacts are known; no row until the earlier journal was read for them
contact_since = _table("contact_since", integer("one", key=True), number("at"))

# the same text to many people: numbers of people in columns, decisions in ``doc``
mailing = _table("mailing", big("n", key=True), text("id"), number("first_at last_at"), text("state"), number("people"),
                 flag("filed"), octets("sketch"), text("counts doc"), number("went_first went_last", null=True))  # fmt: skip
_index(mailing, "mailing_id", "id", unique=True)
_index(mailing, "mailing_last", "last_at n")
_index(mailing, "mailing_decided", "state")  # DECIDED

# keys to find a mailing by: numbers of its sketch, or the number of an exact key
mailing_key = _table("mailing_key", number("key n", key=True), rowid=False)

# the people a mailing has come for, as keyed digests, and the status of each copy
reached = _table("reached", number("n", key=True), octets("person", key=True), number("at kind"), integer("weight"),
                 [Column("fate", SmallInteger, key="status", nullable=False)], octets("content"), number("went"),
                 rowid=False)  # fmt: skip
_index(reached, "reached_at", "n at")

# ``attend_at``: the time of the next look; ``over_at``: since when nothing is left to do for its release
hold = _table(
    "hold", text("hold_id", key=True), text("key mailing state"), flag("acknowledged"), number("held_at attend_at"),
    text("content doc"), text("lead", null=True), integer("copies", null=True), number("reach", null=True),
    octets("people", null=True), text("sought marks stopped", null=True), number("asked", null=True),
    text("queue", null=True), octets("shown", null=True), number("over_at expires_at release_at", null=True),
)  # fmt: skip
_index(hold, "hold_key", "key")
_index(hold, "hold_state", "state held_at hold_id")
_index(hold, "hold_held", "held_at hold_id")
_index(hold, "hold_content", "content")
_index(hold, "hold_lead", "lead state")
_index(hold, "hold_asked", "asked")  # asked IS NOT NULL: people are asked whether its release was sent
_index(hold, "hold_queue", "queue")  # of waiting ones: under which more letters of the same sender wait
_index(hold, "hold_release", "release_at")  # release_at IS NOT NULL: its approval takes effect then
_index(hold, "hold_single", "people")  # SINGLE
_index(hold, "hold_several", "mailing")  # SEVERAL
_index(hold, "hold_rows", "state held_at hold_id reach expires_at sought marks")  # lead IS NULL: a list of holds

# how many messages an hour were given which action, in all, by rule and by list (incidents.activity)
summed = _table("summed", number("hour", key=True), text("about did", key=True), number("n"), rowid=False)

# holds that are no copies: rules, lists, how each ended, and its writer's answer
ended = _table(
    "ended", text("hold_id", key=True), number("held_at"), text("rules lists how"), number("at"), text("said")
)
_index(ended, "ended_held", "held_at")

# how far into the journal these two go: one row
summing = _table("summing", small("one", key=True), number("through"))

# templates of approvals that cover copies
cover = _table("cover", text("cover", key=True), number("made_at"), text("doc"))

# sets of people that approvals are bound to (mailings.rows): sorted keyed digests in pieces, by the first of each
peopleset = _table("peopleset", text("name", key=True), octets("first", key=True), octets("people"), number("made_at"))

content = _table("content", text("sha256", key=True), number("size"), flag("whole"), number("kept_at"))
_index(content, "content_kept", "kept_at")
chunk = _table("chunk", text("sha256", key=True), integer("n", key=True), octets("data"))

outbox = _table(
    "outbox", text("intent_id", key=True), text("kind"), text("hold_id content", null=True), text("doc"),
    number("created_at next_at"), flag("done"), integer("token attempts"), text("owner", null=True),
    number("leased_until"),
)  # fmt: skip
_index(outbox, "outbox_due", "done next_at intent_id")
_index(outbox, "outbox_hold", "hold_id")
_index(outbox, "outbox_content", "content")
_index(outbox, "outbox_unsent", "hold_id")  # UNSENT

# one recipient of an outbox entry: its status, what is left to do, and the people behind the address
delivery = _table("delivery", text("intent_id", key=True), integer("n", key=True), text("recipient state"),
                  number("next_at"), text("reply"), integer("doubts"), text("further"), octets("people", null=True))  # fmt: skip

freeze = _table("freeze", text("freeze_id", key=True), flag("lifted"), text("doc"))

# incidents whose data is kept past its retention (incidents.preservation), and what each needs: ids and contents
preserved = _table("preserved", text("id", key=True), number("until first"), text("doc"))
preserved_key = _table("preserved_key", text("what key incident", key=True), rowid=False)

# the files of a policy, by its SHA-256
document = _table("document", text("policy name", key=True), octets("data"))

# accounts of the console, their sessions by the hash of the browser's token, and tokens of the API
account = _table("account", text("account_id", key=True), text("address"), text("subject", null=True), text("doc"))
_index(account, "account_address", "address", unique=True)
_index(account, "account_subject", "subject", unique=True)
session = _table("session", text("token", key=True), text("account"), number("started_at seen_at"), text("how"))
_index(session, "session_account", "account")
token = _table("token", text("token_id", key=True), text("account doc"))
_index(token, "token_account", "account")

# by person: the last absence that they reported
absence = _table("absence", text("person", key=True), text("doc"))

# by group: the members in its directory's last answer
membership = _table("membership", text("name", key=True), text("doc"))

# terms that messages are found by: keyed digests of words, by stretches of the journal; and how far they are written,
# and with which secret: one row
term = _table("term", integer("stretch", key=True), big("word seq", key=True), rowid=False)
terms = _table("terms", text("key_id", key=True), number("through"))

# the journal position of each webhook
hook = _table("hook", text("name", key=True), number("told"), integer("attempts"),
              number("failing_since next_at leased_until"), integer("lease"))  # fmt: skip

# alarms that a person was told of and that are not over; times in microseconds, 0 for none
alarm = _table("alarm", text("key", key=True), number("began told claimed_until"), text("taken_by", default=""),
               number("taken_at", default="0"))  # fmt: skip

# how far each process's front has been moved into the chain (database.fronts)
front = _table("front", text("name", key=True), number("moved"))

# mail that came back after a mailing (returns): by its SHA-256, and which of the people it is about
returned = _table(
    "returned", text("mail", key=True), integer("n", key=True), number("at"), text("sort known message mailing"),
    octets("person", null=True), flag("sure counts"), text("doc"),
)  # fmt: skip
_index(returned, "returned_at", "at mail")
_index(returned, "returned_mailing", "mailing at")
_index(returned, "returned_counted", "mailing sort counts at")
_index(returned, "returned_person", "mailing sort person")
