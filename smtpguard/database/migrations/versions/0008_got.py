"""What an earlier version called released though the relay took it for nobody is called what it is: undelivered, or in doubt.

By what its outbox says, as long as that is kept; a release whose recipients are forgotten stays what it was called.
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
