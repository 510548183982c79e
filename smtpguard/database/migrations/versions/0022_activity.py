"""What was done with messages, by hour, rule and list; how each hold ended; and holds in order of priority.

The sums are made from the journal afterwards, a slice at a time (incidents.activityrows).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_SLICE = 500
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def upgrade() -> None:
    op.create_table(
        "summed",
        sa.Column("hour", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("about", sa.Text(), primary_key=True, nullable=False),
        sa.Column("did", sa.Text(), primary_key=True, nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ended",
        sa.Column("hold_id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("held_at", sa.BigInteger(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("lists", sa.Text(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
    )
    op.create_index("ended_held", "ended", ["held_at", "hold_id", "at", "how", "said", "rules", "lists"])
    op.create_table(
        "summing",
        sa.Column("one", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("through", sa.BigInteger(), nullable=False),
    )
    op.add_column("hold", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    _fill(op.get_bind())
    op.drop_index("hold_rows", "hold")
    op.create_index(
        "hold_rows",
        "hold",
        ["state", "held_at", "hold_id", "reach", "expires_at", "sought", "marks"],
        sqlite_where=sa.text("lead IS NULL"),
        postgresql_where=sa.text("lead IS NULL"),
    )


def _fill(connection: sa.Connection) -> None:
    text, number = sa.Text(), sa.BigInteger()
    hold = sa.table(
        "hold",
        *(sa.column(name, text) for name in ("hold_id", "doc", "sought", "marks")),
        *(sa.column(name, number) for name in ("reach", "expires_at")),
    )
    after = ""
    while True:
        query = sa.select(hold.c.hold_id, hold.c.doc, hold.c.reach, hold.c.sought, hold.c.marks)
        query = query.where(hold.c.hold_id > after).order_by(hold.c.hold_id).limit(_SLICE)
        rows = connection.execute(query).all()
        for row in rows:
            doc = json.loads(row.doc)
            values = {
                "expires_at": _microseconds(doc["expires_at"]),
                "reach": row.reach if row.reach is not None else doc["reach"],
                "sought": f"{row.hold_id.casefold()} {row.sought or ''}"[:420],
                "marks": (row.marks or "\n") + _marks(doc, 800 - len(row.marks or "")),
            }
            connection.execute(sa.update(hold).where(hold.c.hold_id == row.hold_id).values(**values))
        if len(rows) < _SLICE:
            return
        after = rows[-1].hold_id


def _marks(doc: dict[str, Any], most: int) -> str:
    """The marks that holds.rows sets from this schema on, in addition to earlier ones."""
    made = ""
    rules = (hit["rule"] for hit in doc.get("verdict", {}).get("hits", ()) if hit.get("mode", "enforce") == "enforce")
    voted = ("voted",) if doc.get("votes") else ()
    for mark in (*voted, *(f"to:{name}" for name, _ in doc.get("versions", ())), *(f"rule:{rule}" for rule in rules)):
        if len(made) + len(mark) < most:
            made += f"{mark}\n"
    return made


def _microseconds(text: str) -> int:
    length = datetime.fromisoformat(text) - _EPOCH
    return (length.days * 86_400 + length.seconds) * 1_000_000 + length.microseconds
