"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "checkpoint",
        sa.Column("seq", big, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
    )
    op.create_table(
        "chunk",
        sa.Column("sha256", sa.Text(), primary_key=True, nullable=False),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "clear",
        sa.Column("seq", big, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
    )
    op.create_table(
        "content",
        sa.Column("sha256", sa.Text(), primary_key=True, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("kept_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("content_kept", "content", ["kept_at"])
    op.create_table(
        "counted",
        sa.Column("mark", sa.LargeBinary(), primary_key=True, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("counted_until", "counted", ["until"])
    op.create_table(
        "delivery",
        sa.Column("intent_id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("doubts", sa.Integer(), nullable=False),
    )
    op.create_table(
        "document",
        sa.Column("policy", sa.Text(), primary_key=True, nullable=False),
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "entry",
        sa.Column("seq", big, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("prev", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
    )
    op.create_index("entry_id", "entry", ["id"])
    op.create_table(
        "freeze",
        sa.Column("freeze_id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("lifted", sa.Boolean(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
    )
    op.create_table(
        "head",
        sa.Column("one", sa.SmallInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("journal", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("kept_bytes", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "hold",
        sa.Column("hold_id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("mailing", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("acknowledged", sa.Boolean(), nullable=False),
        sa.Column("held_at", sa.BigInteger(), nullable=False),
        sa.Column("attend_at", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
    )
    op.create_index("hold_content", "hold", ["content"])
    op.create_index("hold_held", "hold", ["held_at", "hold_id"])
    op.create_index("hold_key", "hold", ["key"])
    op.create_index("hold_state", "hold", ["state", "held_at", "hold_id"])
    op.create_table(
        "outbox",
        sa.Column("intent_id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("hold_id", sa.Text(), nullable=True),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("leased_until", sa.BigInteger(), nullable=False),
    )
    op.create_index("outbox_content", "outbox", ["content"])
    op.create_index("outbox_due", "outbox", ["done", "next_at", "intent_id"])
    op.create_index("outbox_hold", "outbox", ["hold_id"])
    op.create_table(
        "seen",
        sa.Column("pair", sa.LargeBinary(), primary_key=True, nullable=False),
        sa.Column("scope", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("seen_scope", "seen", ["scope", "at", "weight"])
    op.create_index("seen_until", "seen", ["until"])
    op.create_table(
        "tally",
        sa.Column("scope", sa.LargeBinary(), primary_key=True, nullable=False),
        sa.Column("seconds", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("floor", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("made", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "underway",
        sa.Column("id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("marks", sa.Text(), nullable=False),
        sa.Column("doubt", sa.Boolean(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("underway_key", "underway", ["key"])
