"""The time at which an approval takes effect. Until then it can be undone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_LEAVING = sa.text("release_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("hold", sa.Column("release_at", sa.BigInteger(), nullable=True))
    op.create_index("hold_release", "hold", ["release_at"], sqlite_where=_LEAVING, postgresql_where=_LEAVING)
