"""Letters that are held for their sender's count wait as one: each finds the first of them by the sender."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_WAITING = sa.text("queue IS NOT NULL AND state = 'waiting'")


def upgrade() -> None:
    op.add_column("hold", sa.Column("queue", sa.Text(), nullable=True))
    op.create_index("hold_queue", "hold", ["queue"], sqlite_where=_WAITING, postgresql_where=_WAITING)
