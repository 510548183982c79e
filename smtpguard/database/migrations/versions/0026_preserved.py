"""What incidents preserve past its retention: which incidents, until when, and what of each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "preserved",
        sa.Column("id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
    )
    op.create_table(
        "preserved_key",
        sa.Column("what", sa.Text(), primary_key=True, nullable=False),
        sa.Column("key", sa.Text(), primary_key=True, nullable=False),
        sa.Column("incident", sa.Text(), primary_key=True, nullable=False),
        sqlite_with_rowid=False,
    )
    _mend(op.get_bind())


def _mend(connection: sa.Connection) -> None:
    """The migration before this one numbered blocks wrongly for a while. If a block is missing, the next checkpoint
    makes all of them anew."""
    merkle = sa.table("merkle", sa.column("level", sa.SmallInteger()), sa.column("n", sa.BigInteger()))
    blocks = sa.select(sa.func.count(), sa.func.max(merkle.c.n)).where(merkle.c.level == 10)
    count, last = connection.execute(blocks).one()
    if count and last + 1 != count:
        connection.execute(sa.delete(merkle).where(merkle.c.level >= 0))
