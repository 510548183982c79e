"""Who is signed in, as rows: by the hash of a token that only a browser holds.

Looking at a page writes nothing here: when somebody was last seen is gathered by the console and written now and then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from smtpguard.audit.chain import instant, microseconds
from smtpguard.policy.people import Session
from smtpguard.store.schema import account, session


def find(connection: Connection, token: str) -> tuple[Session, str] | None:
    """The session and its account's document."""
    query = select(session, account.c.doc).join(account, account.c.account_id == session.c.account)
    row = connection.execute(query.where(session.c.token == token)).one_or_none()
    if row is None:
        return None
    found = Session(
        token=row.token,
        account_id=row.account,
        started_at=instant(row.started_at),
        seen_at=instant(row.seen_at),
        how=row.how,
    )
    return found, row.doc


def begin(connection: Connection, started: Session) -> None:
    connection.execute(
        insert(session).values(
            token=started.token,
            account=started.account_id,
            started_at=microseconds(started.started_at),
            seen_at=microseconds(started.seen_at),
            how=started.how,
        )
    )


def end(connection: Connection, token: str) -> None:
    connection.execute(delete(session).where(session.c.token == token))


def end_all(connection: Connection, account_id: str) -> None:
    connection.execute(delete(session).where(session.c.account == account_id))


def seen(connection: Connection, at: Mapping[str, datetime]) -> None:
    """When each was last seen; never earlier than is known already."""
    rows = [{"b_token": token, "b_at": microseconds(when)} for token, when in at.items()]
    if rows:
        moved = update(session).where(session.c.token == bindparam("b_token"), session.c.seen_at < bindparam("b_at"))
        connection.execute(moved.values(seen_at=bindparam("b_at")), rows)


def sweep(connection: Connection, *, started_before: datetime, seen_before: datetime) -> None:
    """Those that are over."""
    over = or_(session.c.started_at < microseconds(started_before), session.c.seen_at < microseconds(seen_before))
    connection.execute(delete(session).where(over))
