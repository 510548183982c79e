"""The terms that messages are found by, beside the journal. The delivery part writes them, for earlier entries as well."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "term",
        sa.Column("stretch", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("word", big, primary_key=True, autoincrement=False),
        sa.Column("seq", big, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "terms",
        sa.Column("key_id", sa.Text(), primary_key=True),
        sa.Column("through", sa.BigInteger(), nullable=False),
    )
