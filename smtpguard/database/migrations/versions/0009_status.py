"""Each recipient of the outbox has one delivery status, with what is still to be done and the people behind the
address."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_STATUS = """CASE WHEN state = 'sent' THEN 'delivered' WHEN state = 'in-doubt' OR doubts > 0 THEN 'attempted'
 WHEN state = 'failed' THEN 'refused' ELSE 'pending' END"""
_FURTHER = "CASE WHEN state IN ('retry', 'in-doubt') THEN 'try' ELSE 'nothing' END"


def upgrade() -> None:
    op.add_column("delivery", sa.Column("further", sa.Text(), nullable=False, server_default="nothing"))
    op.add_column("delivery", sa.Column("people", sa.LargeBinary(), nullable=True))
    op.execute(f"UPDATE delivery SET further = {_FURTHER}, state = {_STATUS}")
