"""Correct the state of holds that an earlier version called released although the relay took no recipient: undelivered,
or in doubt.

The outbox says which, as long as its rows are kept. A release whose recipients were forgotten keeps its state.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_RECIPIENTS = """SELECT 1 FROM outbox JOIN delivery ON delivery.intent_id = outbox.intent_id
 WHERE outbox.hold_id = hold.hold_id AND outbox.kind = 'release'"""
_NOBODY_SURELY = f"""UPDATE hold SET state = :state WHERE state = 'released' AND EXISTS ({_RECIPIENTS})
 AND NOT EXISTS ({_RECIPIENTS} AND delivery.state NOT IN ('failed', 'in-doubt'))"""
_DOUBTED = f"{_RECIPIENTS} AND (delivery.state = 'in-doubt' OR delivery.doubts > 0)"


def upgrade() -> None:
    for state, doubted in (("undelivered", "NOT EXISTS"), ("in-doubt", "EXISTS")):
        op.execute(sa.text(f"{_NOBODY_SURELY} AND {doubted} ({_DOUBTED})").bindparams(state=state))
