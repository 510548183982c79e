"""When a mailing went out: its first and last copy, and the first copy of each person.

In an earlier store a copy that passed counts as gone when it came, a held one when its release was over.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_APART = bytes(8)  # separates the people of the held part from those who get the message at once
_LET_THROUGH = "(4, 5, 6, 7)"
_HAVE = "(4, 5, 7)"
_RELEASED = """SELECT mailing.n, hold.attend_at, hold.people FROM hold JOIN mailing ON mailing.id = hold.mailing
 WHERE hold.state = 'released' AND hold.people IS NOT NULL AND hold.attend_at IS NOT NULL"""
_LATER = "UPDATE reached SET went = :at WHERE n = :n AND person = :person AND went < :at AND went > 0"


def upgrade() -> None:
    op.add_column("mailing", sa.Column("went_first", sa.BigInteger(), nullable=True))
    op.add_column("mailing", sa.Column("went_last", sa.BigInteger(), nullable=True))
    op.add_column("reached", sa.Column("went", sa.BigInteger(), nullable=False, server_default="0"))
    connection = op.get_bind()
    connection.execute(sa.text(f"UPDATE reached SET went = at WHERE fate IN {_LET_THROUGH}"))
    for n, at, people in connection.execute(sa.text(_RELEASED)).all():
        some: list[dict[str, Any]] = [{"n": n, "at": at, "person": one} for one in _held(bytes(people))]
        if some:
            connection.execute(sa.text(_LATER), some)
    times = f"SELECT n, MIN(went), MAX(went) FROM reached WHERE went > 0 AND fate IN {_HAVE} GROUP BY n"
    known = [{"n": n, "first": first, "last": last} for n, first, last in connection.execute(sa.text(times)).all()]
    if known:
        connection.execute(sa.text("UPDATE mailing SET went_first = :first, went_last = :last WHERE n = :n"), known)


def _held(people: bytes) -> list[bytes]:
    digests = [people[at : at + 8] for at in range(0, len(people), 8)]
    return digests[: digests.index(_APART)] if _APART in digests else digests
