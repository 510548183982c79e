"""Sets of people that approvals are bound to, as sorted keyed digests in pieces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "peopleset",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("first", sa.LargeBinary(), primary_key=True, nullable=False),
        sa.Column("people", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
    )
