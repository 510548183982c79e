"""The absences that people report themselves, with their deputies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "absence",
        sa.Column("person", sa.Text(), primary_key=True),
        sa.Column("doc", sa.Text(), nullable=False),
    )
