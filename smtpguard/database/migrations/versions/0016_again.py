"""Mark the verdicts to relay whose outcome changes something: a recipient may have an earlier copy of the same mailing.

All verdicts under way now are marked: one unneeded look costs little.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("underway", sa.Column("again", sa.Boolean(), nullable=False, server_default=sa.true()))
