"""Find rare entries in the journal without reading all verdicts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_RARE = "kind NOT IN ('verdict', 'outcome')"


def upgrade() -> None:
    op.create_index(
        "entry_rare", "entry", ["kind", "seq"], sqlite_where=sa.text(_RARE), postgresql_where=sa.text(_RARE)
    )
