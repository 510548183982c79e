"""The mail that came back after a mailing: bounces, complaints, replies, by the person that each is about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "returned",
        sa.Column("mail", sa.Text(), primary_key=True, nullable=False),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("sort", sa.Text(), nullable=False),
        sa.Column("known", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("mailing", sa.Text(), nullable=False),
        sa.Column("person", sa.LargeBinary(), nullable=True),
        sa.Column("sure", sa.Boolean(), nullable=False),
        sa.Column("counts", sa.Boolean(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
    )
    op.create_index("returned_at", "returned", ["at", "mail"])
    op.create_index("returned_mailing", "returned", ["mailing", "at"])
    op.create_index("returned_counted", "returned", ["mailing", "sort", "counts", "at"])
    op.create_index("returned_person", "returned", ["mailing", "sort", "person"])
