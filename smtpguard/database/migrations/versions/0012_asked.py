"""For which holds people are asked whether the release was sent, and how a hold was stopped that some recipients have,
or may have.

A release to a list address that an earlier version left in doubt is not retried: people are asked.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TO_A_LIST = """SELECT hold.hold_id, hold.doc FROM hold JOIN outbox ON outbox.hold_id = hold.hold_id
 WHERE outbox.kind = 'release' AND outbox.done = :done"""
_ASK = """UPDATE delivery SET further = 'ask' WHERE state = 'attempted' AND further = 'try' AND intent_id IN (
 SELECT intent_id FROM outbox WHERE kind = 'release' AND hold_id = :hold_id)"""
_NOBODY_TO_TRY = """UPDATE outbox SET next_at = 253402300799000000 WHERE kind = 'release' AND hold_id = :hold_id AND NOT EXISTS (
 SELECT 1 FROM delivery WHERE delivery.intent_id = outbox.intent_id AND further = 'try')"""


def upgrade() -> None:
    op.add_column("hold", sa.Column("stopped", sa.Text(), nullable=True))
    op.add_column("hold", sa.Column("asked", sa.BigInteger(), nullable=True))
    op.create_index(
        "hold_asked",
        "hold",
        ["asked"],
        sqlite_where=sa.text("asked IS NOT NULL"),
        postgresql_where=sa.text("asked IS NOT NULL"),
    )
    connection = op.get_bind()
    for hold_id, doc in connection.execute(sa.text(_TO_A_LIST), {"done": False}).all():
        if json.loads(doc).get("versions"):  # it is for a list address
            connection.execute(sa.text(_ASK), {"hold_id": hold_id})
            connection.execute(sa.text(_NOBODY_TO_TRY), {"hold_id": hold_id})
    ended = sa.text("SELECT hold_id, doc FROM hold WHERE state IN ('released', 'in-doubt')")
    for hold_id, doc in connection.execute(ended).all():
        if json.loads(doc).get("stopped"):
            stopped = sa.text("UPDATE hold SET stopped = 'reject' WHERE hold_id = :hold_id")
            connection.execute(stopped, {"hold_id": hold_id})
