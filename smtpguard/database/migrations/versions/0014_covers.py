"""What held messages show, and what approvals cover.

An approval by an earlier version defines its cover by likeness. From now on it covers exactly the octets that were
approved.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_CONTENT = sa.text("SELECT content FROM hold WHERE hold_id = :hold_id")


def upgrade() -> None:
    op.add_column("hold", sa.Column("shown", sa.LargeBinary(), nullable=True))
    connection = op.get_bind()
    for n, doc in connection.execute(sa.text("SELECT n, doc FROM mailing WHERE state <> 'passing'")).all():
        document = json.loads(doc)
        grants = [grant for grant in (document.get("grant"), *document.get("earlier", ())) if grant]
        for grant in grants:
            content = connection.execute(_CONTENT, {"hold_id": grant["hold_id"]}).scalar()
            if content is not None:
                grant["cover"] = {"content": content}
        if grants:
            changed = sa.text("UPDATE mailing SET doc = :doc WHERE n = :n")
            connection.execute(changed, {"doc": json.dumps(document), "n": n})
