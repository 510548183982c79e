"""The API's tokens as rows, each with its account."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from smtpguard.audit.event import Event
from smtpguard.policy.people import Account, Token
from smtpguard.store.batch import Batch
from smtpguard.store.codec import Codec
from smtpguard.store.schema import account
from smtpguard.store.schema import token as table

TOKEN, ACCOUNT = Codec(Token), Codec(Account)
_WITH_ACCOUNT = select(table.c.doc, account.c.doc).join(account, account.c.account_id == table.c.account)


def find(connection: Connection, token_id: str) -> tuple[Token, Account] | None:
    row = connection.execute(_WITH_ACCOUNT.where(table.c.token_id == token_id)).one_or_none()
    return None if row is None else (TOKEN.loads(row[0]), ACCOUNT.loads(row[1]))


def all_of(connection: Connection, account_id: str = "") -> Sequence[tuple[Token, Account]]:
    """Those of one account, or of everybody."""
    query = _WITH_ACCOUNT.order_by(account.c.address, table.c.token_id)
    if account_id:
        query = query.where(table.c.account == account_id)
    return [(TOKEN.loads(mine), ACCOUNT.loads(theirs)) for mine, theirs in connection.execute(query)]


def put(batch: Batch, token: Token, event: Event) -> None:
    """A new one, or one that changes; with what is journalled of it."""
    batch.record([event])
    row = {"account": token.account_id, "doc": TOKEN.dumps(token)}
    there = update(table).where(table.c.token_id == token.token_id).values(row)
    if batch.connection.execute(there).rowcount == 0:
        batch.connection.execute(insert(table).values(token_id=token.token_id, **row))


def delete_all(connection: Connection, account_id: str) -> None:
    """Of an account that is no more."""
    connection.execute(delete(table).where(table.c.account == account_id))
