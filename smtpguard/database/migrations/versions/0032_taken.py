"""Who has taken an alarm, and when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alarm", sa.Column("taken_by", sa.Text(), nullable=False, server_default=""))
    op.add_column("alarm", sa.Column("taken_at", sa.BigInteger(), nullable=False, server_default="0"))
