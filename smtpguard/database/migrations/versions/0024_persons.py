"""Keep counts in one row for each person, instead of one for each person and scope; and how many were counted at which
time, by scope.

The counts of an earlier version stay in their tables, which get no new rows. Rows that a message counts again are
moved; the rest is forgotten in its time. So this step is fast in a store of many millions too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for table, key in (("person", "person"), ("again", "content"), ("sent", "message")):
        weights = [sa.Column("weights", sa.LargeBinary(), nullable=True)] if table == "person" else []
        op.create_table(
            table,
            sa.Column(key, _BIG, primary_key=True, autoincrement=False),
            sa.Column("due", sa.BigInteger(), nullable=False),
            sa.Column("doc", sa.LargeBinary(), nullable=False),
            *weights,
        )
    op.create_table(
        "moment",
        sa.Column("scope", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reset",
        sa.Column("scope", _BIG, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "swept",
        sa.Column("one", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
    )
    op.drop_table("tally")  # these sums are made again
    op.create_table(
        "tally",
        sa.Column("scope", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("seconds", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("floor", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("made", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
