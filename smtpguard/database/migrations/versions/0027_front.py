"""How far each process's front has been moved into the chain, written in the commit that moves it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "front",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("moved", sa.BigInteger(), nullable=False),
    )
