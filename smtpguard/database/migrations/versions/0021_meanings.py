"""Give columns and fields of a hold one meaning each.

The end of a release gets a column apart from the time of the next look. The number of letters listed to an approver
gets a field apart from the number of copies that differences were learned from.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_SLICE = 500
_OVER = "UPDATE hold SET over_at = attend_at WHERE state IN ('released', 'granted', 'undelivered', 'in-doubt') AND asked IS NULL"


def upgrade() -> None:
    op.add_column("hold", sa.Column("over_at", sa.BigInteger(), nullable=True))
    op.execute(sa.text(_OVER))
    _letters(op.get_bind())


def _letters(connection: sa.Connection) -> None:
    """Votes on a hold under which a sender's letters wait as one."""
    hold = sa.table("hold", *(sa.column(name, sa.Text()) for name in ("hold_id", "queue", "doc")))
    after = ""
    while True:
        query = sa.select(hold.c.hold_id, hold.c.doc).where(hold.c.queue.is_not(None), hold.c.hold_id > after)
        rows = connection.execute(query.order_by(hold.c.hold_id).limit(_SLICE)).all()
        for hold_id, text in rows:
            doc = json.loads(text)
            counted = [vote for vote in doc.get("votes", ()) if "copies" in vote]
            for vote in counted:
                vote["letters"] = vote.pop("copies")
            if counted:
                new = json.dumps(doc, separators=(",", ":"), allow_nan=False)
                connection.execute(sa.update(hold).where(hold.c.hold_id == hold_id).values(doc=new))
        if len(rows) < _SLICE:
            return
        after = rows[-1].hold_id
