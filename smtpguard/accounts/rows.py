"""Rows of console accounts, sessions and API tokens. Each change is written together with its journal entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, false, insert, or_, select, update

from smtpguard.accounts.membership import Membership, claimed
from smtpguard.accounts.model import Account, AccountChange, AccountKeys, May, Session, Token, TurnStep
from smtpguard.database.batch import Batch
from smtpguard.database.schema import absence as away
from smtpguard.database.schema import account as table
from smtpguard.database.schema import membership as seated
from smtpguard.database.schema import session as signed_in
from smtpguard.database.schema import token as issued
from smtpguard.database.statements import rows_of
from smtpguard.journal.chain import instant, microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.codec import Codec
from smtpguard.policy.approvals import LONGEST, Absence

ACCOUNT, ABSENCE, MEMBERSHIP, _TOKEN = Codec(Account), Codec(Absence), Codec(Membership), Codec(Token)

AbsenceStep = Callable[[Absence | None], tuple[Absence, Event]]
"""A person's last reported absence -> the new one, and its journal entry. Raises to refuse."""


def find(connection: Connection, keys: AccountKeys) -> list[Account]:
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


def account_of(connection: Connection, keys: AccountKeys) -> Account | None:
    return next(iter(find(connection, keys)), None)


def everybody(connection: Connection) -> Sequence[Account]:
    return [ACCOUNT.loads(doc) for doc in connection.execute(select(table.c.doc).order_by(table.c.address)).scalars()]


def turn(batch: Batch, keys: AccountKeys, step: TurnStep) -> AccountChange:
    """Run ``step`` on the accounts with these keys, and write the change that it returns."""
    batch.flush()
    found = find(batch.connection, keys)
    made = step(found)
    batch.record(made.events)
    if (account := made.account) is not None:
        if made.deletes or made.ends_all:
            batch.connection.execute(delete(signed_in).where(signed_in.c.account == account.account_id))
        if made.deletes:
            batch.connection.execute(delete(issued).where(issued.c.account == account.account_id))
            batch.connection.execute(delete(table).where(table.c.account_id == account.account_id))
        else:
            _write(batch.connection, account)
        before = next((a for a in found if a.account_id == account.account_id), None)
        _seated(batch, before, None if made.deletes else account)
    if made.ends:
        batch.connection.execute(delete(signed_in).where(signed_in.c.token == made.ends))
    if (begins := made.begins) is not None:
        times = {"started_at": microseconds(begins.started_at), "seen_at": microseconds(begins.seen_at)}
        who = {"token": begins.token, "account": begins.account_id, "how": begins.how}
        batch.connection.execute(insert(signed_in).values(**who, **times))
    return made


def _seated(batch: Batch, before: Account | None, after: Account | None) -> None:
    """Move the gate if a sign-on changed somebody's groups, or an account whether a deputy decides, so that every process
    follows."""
    was, now = (frozenset(claimed(a, batch.now)) if a is not None else frozenset() for a in (before, after))
    account = after or before
    ended = before is not None and after is not None and bool(before.claims) and not (before.disabled or after.claims)
    deciding = {a.address if a is not None and a.may(May.DECIDE) else "" for a in (before, after)}
    deputy = len(deciding) > 1 and any(one.confirmed and one.deputy in deciding for one in absences(batch.connection))
    if account is None or (was == now and not ended and not deputy):
        return
    data = {"change": "deputy" if was == now and not ended else "sign-on", "groups": sorted(now)}
    event = Event(
        kind=Kind.GROUP, id=account.account_id, at=batch.now, data=data, private={"account": (account.address,)}
    )
    batch.move_gate(event)


def memberships(connection: Connection) -> list[Membership]:
    """Whom directories named last."""
    return [MEMBERSHIP.loads(doc) for doc in connection.execute(select(seated.c.doc).order_by(seated.c.name)).scalars()]


def put_membership(batch: Batch, made: Membership, read_at: datetime | None) -> None:
    """Write a membership. If its people changed, journal that and move the gate. ``read_at``: that of the one that it was made
    from. Does nothing if the directory has answered another host since."""
    batch.flush()
    doc = batch.connection.execute(select(seated.c.doc).where(seated.c.name == made.group)).scalar()
    found = MEMBERSHIP.loads(doc) if doc is not None else None
    if found is not None and found.source == made.source and found.read_at != read_at:
        return
    before = found.people if found is not None else ()
    batch.connection.execute(delete(seated).where(seated.c.name == made.group))
    batch.connection.execute(insert(seated).values(name=made.group, doc=MEMBERSHIP.dumps(made)))
    if set(before) != set(made.people):
        was, now = ({person[0] for person in people} for people in (before, made.people))
        batch.move_gate(_regrouped(made, was, now, batch.now))


def drop_membership(batch: Batch, group: str, policy: str) -> None:
    """Delete the memberships of groups for which the policy names no directory. Nobody of them counts, so nothing is journalled.
    Does nothing if another policy is in force: this process has not followed yet, or cannot read that policy."""
    batch.flush()
    if batch.gate.policy_sha256 == policy:
        batch.connection.execute(delete(seated).where(seated.c.name == group))


def _regrouped(made: Membership, was: set[str], now: set[str], at: datetime) -> Event:
    changed = {"added": tuple(sorted(now - was)), "gone": tuple(sorted(was - now))}
    data = {"change": "directory-away" if made.why else "directory", "group": made.group, "people": len(now)}
    private = {role: people for role, people in changed.items() if people}
    return Event(kind=Kind.GROUP, id=f"group-{made.group}", at=at, data=data, private=private)


def absences(connection: Connection) -> list[Absence]:
    """The absences that people have reported themselves."""
    return [ABSENCE.loads(doc) for (doc,) in rows_of(connection, "SELECT doc FROM absence ORDER BY person")]


def change_absence(batch: Batch, person: str, step: AbsenceStep) -> Absence:
    """Run ``step`` on the person's last reported absence (None: none), and write the result. The gate moves, so that
    every process reads it at once."""
    batch.flush()
    before = {absence.person: absence for absence in absences(batch.connection)}
    made, event = step(before.get(person))
    batch.connection.execute(delete(away).where(away.c.person == person))
    batch.connection.execute(insert(away).values(person=person, doc=ABSENCE.dumps(made)))
    batch.move_gate(event)
    return made


def forget_absences(batch: Batch) -> None:
    """Delete those that ended over a year ago."""
    old = [one.person for one in absences(batch.connection) if one.until < batch.now.date() - LONGEST]
    if old:
        batch.connection.execute(delete(away).where(away.c.person.in_(old)))


def _write(connection: Connection, account: Account) -> None:
    row = {"address": account.address, "subject": account.subject or None, "doc": ACCOUNT.dumps(account)}
    there = update(table).where(table.c.account_id == account.account_id).values(row)
    if connection.execute(there).rowcount == 0:
        connection.execute(insert(table).values(account_id=account.account_id, **row))


_WITH_ACCOUNT = select(issued.c.doc, table.c.doc).join(table, table.c.account_id == issued.c.account)


def token_of(connection: Connection, token_id: str) -> tuple[Token, Account] | None:
    row = connection.execute(_WITH_ACCOUNT.where(issued.c.token_id == token_id)).one_or_none()
    return None if row is None else (_TOKEN.loads(row[0]), ACCOUNT.loads(row[1]))


def tokens_of(connection: Connection, account_id: str = "") -> Sequence[tuple[Token, Account]]:
    """Return the tokens of one account, or of all accounts."""
    query = _WITH_ACCOUNT.order_by(table.c.address, issued.c.token_id)
    if account_id:
        query = query.where(issued.c.account == account_id)
    return [(_TOKEN.loads(mine), ACCOUNT.loads(theirs)) for mine, theirs in connection.execute(query)]


def put_token(batch: Batch, token: Token, event: Event) -> None:
    """Insert or update a token, with its journal entry."""
    batch.record([event])
    row = {"account": token.account_id, "doc": _TOKEN.dumps(token)}
    there = update(issued).where(issued.c.token_id == token.token_id).values(row)
    if batch.connection.execute(there).rowcount == 0:
        batch.connection.execute(insert(issued).values(token_id=token.token_id, **row))


# A session is found by the hash of a token that only the browser has. Viewing a page writes nothing: the console
# collects the times of last use and writes them now and then.


def session_of(connection: Connection, token: str) -> tuple[Session, Account] | None:
    """Return the session with this token, and its account, None if there is none. ``token``: the SHA-256 of the browser's."""
    query = select(signed_in, table.c.doc).join(table, table.c.account_id == signed_in.c.account)
    row = connection.execute(query.where(signed_in.c.token == token)).one_or_none()
    if row is None:
        return None
    found = Session(
        token=row.token,
        account_id=row.account,
        started_at=instant(row.started_at),
        seen_at=instant(row.seen_at),
        how=row.how,
    )
    return found, ACCOUNT.loads(row.doc)


def seen(batch: Batch, at: Mapping[str, datetime], *, started_before: datetime, seen_before: datetime) -> None:
    """Write when each session was last used, and delete those older than the bounds. A stored time is never replaced by an
    earlier one."""
    rows = [{"b_token": token, "b_at": microseconds(when)} for token, when in at.items()]
    if rows:
        moved = update(signed_in).where(
            signed_in.c.token == bindparam("b_token"), signed_in.c.seen_at < bindparam("b_at")
        )
        batch.connection.execute(moved.values(seen_at=bindparam("b_at")), rows)
    over = or_(signed_in.c.started_at < microseconds(started_before), signed_in.c.seen_at < microseconds(seen_before))
    batch.connection.execute(delete(signed_in).where(over))
