"""Mailings: the same text to many people, whom it has come for, and the holds that belong together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "mailing",
        sa.Column("n", big, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("people", sa.BigInteger(), nullable=False),
        sa.Column("filed", sa.Boolean(), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
    )
    op.create_index("mailing_id", "mailing", ["id"], unique=True)
    op.create_index("mailing_last", "mailing", ["last_at", "n"])
    op.create_table(
        "mailing_key",
        sa.Column("key", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reached",
        sa.Column("n", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("person", sa.LargeBinary(), primary_key=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("fate", sa.SmallInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("reached_at", "reached", ["n", "at"])
    for table, column in (
        ("underway", sa.Column("mailing", sa.BigInteger(), nullable=True)),
        ("underway", sa.Column("people", sa.LargeBinary(), nullable=True)),
        ("hold", sa.Column("lead", sa.Text(), nullable=True)),
        ("hold", sa.Column("copies", sa.Integer(), nullable=True)),
        ("hold", sa.Column("reach", sa.BigInteger(), nullable=True)),
        ("hold", sa.Column("people", sa.LargeBinary(), nullable=True)),
    ):
        op.add_column(table, column)
    op.create_index("hold_lead", "hold", ["lead", "state"])
