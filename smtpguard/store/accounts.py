"""Accounts of the console as rows, and the one way in which they change: with what is journalled of it, and with their sessions."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, false, insert, or_, select, update

from smtpguard.policy.people import Account, Keys, Turn, TurnStep
from smtpguard.store import sessions, tokens
from smtpguard.store.batch import Batch
from smtpguard.store.codec import Codec
from smtpguard.store.schema import account as table

ACCOUNT = Codec(Account)


def find(connection: Connection, keys: Keys) -> list[Account]:
    """Those that fit any of the keys."""
    wanted = [
        column == value
        for column, value in (
            (table.c.account_id, keys.account_id),
            (table.c.address, keys.address),
            (table.c.subject, keys.subject),
        )
        if value
    ]
    query = select(table.c.doc).where(or_(false(), *wanted)).order_by(table.c.account_id)
    return [ACCOUNT.loads(doc) for doc in connection.execute(query).scalars()]


def everybody(connection: Connection) -> Sequence[Account]:
    return [ACCOUNT.loads(doc) for doc in connection.execute(select(table.c.doc).order_by(table.c.address)).scalars()]


def turn(batch: Batch, keys: Keys, step: TurnStep) -> Turn:
    """Let ``step`` say what becomes of whom, and write that."""
    batch.flush()
    made = step(find(batch.connection, keys))
    batch.record(made.events)
    if made.refused:
        return made
    if made.account is not None and made.deletes:
        account_id = made.account.account_id
        sessions.end_all(batch.connection, account_id)
        tokens.delete_all(batch.connection, account_id)
        batch.connection.execute(delete(table).where(table.c.account_id == account_id))
    elif made.account is not None:
        _write(batch.connection, made.account)
        if made.ends_all:
            sessions.end_all(batch.connection, made.account.account_id)
    if made.ends:
        sessions.end(batch.connection, made.ends)
    if made.begins is not None:
        sessions.begin(batch.connection, made.begins)
    return made


def _write(connection: Connection, account: Account) -> None:
    row = {"address": account.address, "subject": account.subject or None, "doc": ACCOUNT.dumps(account)}
    there = update(table).where(table.c.account_id == account.account_id).values(row)
    if connection.execute(there).rowcount == 0:
        connection.execute(insert(table).values(account_id=account.account_id, **row))
