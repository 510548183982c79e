"""Of which verdicts to relay it is news that they were carried out: somebody may have an earlier copy of the same mailing.

Of those that are under way now it is: looking once more costs little.
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
