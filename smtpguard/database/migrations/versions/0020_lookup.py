"""Columns for what SQL selects verdicts and checkpoints by.

The columns are added without touching a row. Then the journal is read once, in slices: verdicts of messages that were
held, deferred or rejected, or that belong to a list or a mailing, get theirs. All others, which are most, stay as they
are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_SLICE = 5000
_COLUMNS = (
    ("action", sa.Text()),
    ("observed", sa.Boolean()),
    ("lists", sa.Text()),
    ("names", sa.Text()),
)
_NAMED = ("hold", "mailing", "with", "freeze")


def upgrade() -> None:
    for name, kind in _COLUMNS:
        op.add_column("entry", sa.Column(name, kind, nullable=True))
    op.add_column("checkpoint", sa.Column("notable", sa.Boolean(), nullable=True))
    connection = op.get_bind()
    _checkpoints(connection)
    _verdicts(connection)


def _verdicts(connection: sa.Connection) -> None:
    entry = sa.table(
        "entry", *(sa.column(name, kind) for name, kind in _COLUMNS), *map(sa.column, ("seq", "kind", "id", "body"))
    )
    first, last = connection.execute(sa.select(sa.func.min(entry.c.seq), sa.func.max(entry.c.seq))).one()
    if first is None:
        return
    values = {name: sa.bindparam(f"its_{name}", type_=kind) for name, kind in _COLUMNS}
    fill = sa.update(entry).where(entry.c.seq == sa.bindparam("of")).values(values)
    for start in range(first, last + 1, _SLICE):
        here = (entry.c.seq.between(start, start + _SLICE - 1), entry.c.kind == "verdict")
        rows = connection.execute(sa.select(entry.c.seq, entry.c.id, entry.c.body).where(*here)).all()
        if some := list(_filled(rows)):
            connection.execute(fill, some)


def _filled(rows: Any) -> Iterator[dict[str, Any]]:
    """As in journal.columns from this schema on."""
    for seq, id, body in rows:
        data = _data(body)
        action, lists = data.get("action"), data.get("lists")
        names = [name for key in _NAMED if isinstance(name := data.get(key), str) and name and name != id]
        made = {
            "its_action": action if isinstance(action, str) and action != "relay" else None,
            "its_observed": True if data.get("observed") else None,
            "its_lists": _lines(lists) if lists and isinstance(lists, list) else None,
            "its_names": _lines(dict.fromkeys(names)) if names else None,
        }
        if any(made.values()):
            yield {"of": seq, **made}


def _data(body: str) -> dict[str, Any]:
    """Empty for a body that is no entry of ours: verifying the journal reports that."""
    try:
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:  # a lone surrogate
            content = json.loads(body)
    except ValueError:
        return {}
    data = content.get("data") if isinstance(content, dict) else None
    return data if isinstance(data, dict) else {}


def _lines(names: Any) -> str:
    return "".join(("\n", *(f"{_line(name)}\n" for name in names)))


def _line(name: Any) -> str:
    return name if isinstance(name, str) and name.isprintable() else ascii(name)


def _checkpoints(connection: sa.Connection) -> None:
    table = sa.table("checkpoint", sa.column("line", sa.Text()), sa.column("notable", sa.Boolean()))
    said = sa.or_(*(table.c.line.contains(f'"{name}":', autoescape=True) for name in ("put_back", "renewed")))
    connection.execute(sa.update(table).where(said).values(notable=True))
