"""Accounts and sessions of the console."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("account_id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("doc", sa.Text(), nullable=False),
    )
    op.create_index("account_address", "account", ["address"], unique=True)
    op.create_index("account_subject", "account", ["subject"], unique=True)
    op.create_table(
        "session",
        sa.Column("token", sa.Text(), primary_key=True, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
    )
    op.create_index("session_account", "session", ["account"])
