"""Held copies by the one person that each is for, and those for several people by their mailing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_SINGLE, _SEVERAL = sa.text("length(people) = 8"), sa.text("length(people) > 8")


def upgrade() -> None:
    op.create_index("hold_single", "hold", ["people"], sqlite_where=_SINGLE, postgresql_where=_SINGLE)
    op.create_index("hold_several", "hold", ["mailing"], sqlite_where=_SEVERAL, postgresql_where=_SEVERAL)
