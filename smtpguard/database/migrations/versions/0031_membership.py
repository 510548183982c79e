"""Whom a directory named last as people of a group."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "membership",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("doc", sa.Text(), nullable=False),
    )
