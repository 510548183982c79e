"""An index table of what lists of holds are searched by."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

_SLICE = 500


def upgrade() -> None:
    op.add_column("hold", sa.Column("sought", sa.Text(), nullable=True))
    op.add_column("hold", sa.Column("marks", sa.Text(), nullable=True))
    _fill()
    op.create_index(
        "hold_rows",
        "hold",
        ["state", "held_at", "hold_id", "sought", "marks"],
        sqlite_where=sa.text("lead IS NULL"),
        postgresql_where=sa.text("lead IS NULL"),
    )


def _fill() -> None:
    hold = sa.table("hold", *(sa.column(name, sa.Text()) for name in ("hold_id", "doc", "sought", "marks")))
    connection = op.get_bind()
    after = ""
    while True:
        query = (
            sa.select(hold.c.hold_id, hold.c.doc).where(hold.c.hold_id > after).order_by(hold.c.hold_id).limit(_SLICE)
        )
        rows = connection.execute(query).all()
        for hold_id, text in rows:
            values = _words(json.loads(text))
            connection.execute(sa.update(hold).where(hold.c.hold_id == hold_id).values(**values))
        if len(rows) < _SLICE:
            return
        after = rows[-1].hold_id


def _words(doc: dict[str, Any]) -> dict[str, str]:
    """As in holds.rows from this schema on."""
    senders = doc.get("senders", ())
    groups: set[str] = set()
    for quorum in doc.get("verdict", {}).get("quorum", ()):
        groups.update(quorum.get("groups", ()), (quorum.get("out_of_hours") or {}).get("groups", ()))
    marks = [
        *(f"list:{name}" for name in doc.get("lists", ())),
        *(f"from:{address}" for address in senders),
        *(f"group:{name}" for name in sorted(groups)),
    ]
    said = " ".join((doc.get("subject", "")[:200], doc.get("sender") or "", *senders)).casefold()
    return {"sought": said[:400], "marks": _lines(marks)}


def _lines(marks: list[str]) -> str:
    kept = "\n"
    for mark in marks:
        if len(kept) + len(mark) < 600:
            kept += f"{mark}\n"
    return kept
