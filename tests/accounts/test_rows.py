"""Accounts, sessions, tokens and the webhooks' cursors on both engines: a change and its journal entry are written
together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.accounts.model import Account, AccountChange, AccountKeys, Role, Scope, Session, Token
from smtpguard.database.errors import Unavailable
from smtpguard.journal.chain import Cursor, News
from smtpguard.journal.event import Event, Kind
from smtpguard.store.nouns import People
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.making import T0

EVA = Account(account_id="A1", address="eva@example.com", created_at=T0, roles=(Role.APPROVER, Role.ADMIN), password="hash",
              recovery=("a", "b"))  # fmt: skip


@pytest.fixture
def people(store: Store) -> People:
    return store.people


def event(what: str = "x") -> Event:
    return Event(kind=Kind.ACCOUNT, id="A1", at=T0, data={"change": what})


def session(token: str = "t1", **more: Any) -> Session:
    usual: dict[str, Any] = {"token": token, "account_id": "A1", "started_at": T0, "seen_at": T0}
    return Session(**(usual | more))


async def put(people: People, account: Account = EVA, **more: Any) -> AccountChange:
    return await people.turn(
        AccountKeys(account_id=account.account_id),
        lambda found: AccountChange(account=account, events=(event(),), **more),
    )


async def changes(store: Store) -> list[str]:
    entries = await store.journal.entries(limit=1000)
    return [e.data["change"] for e, _ in entries if e.kind == Kind.ACCOUNT.value]


async def test_an_account_is_found_by_each_of_its_keys(people: People) -> None:
    account = replace(EVA, subject="https://id u-1")
    await put(people, account)
    for keys in (
        AccountKeys(account_id="A1"),
        AccountKeys(address="eva@example.com"),
        AccountKeys(subject="https://id u-1"),
    ):
        assert await people.account(keys) == account
    for keys in (AccountKeys(), AccountKeys(account_id="A2"), AccountKeys(address=""), AccountKeys(subject="u-1")):
        assert await people.account(keys) is None
    assert await people.everybody() == [account]


async def test_a_refused_change_writes_only_its_events(people: People, store: Store) -> None:
    await put(people)

    def step(found: Sequence[Account]) -> AccountChange:
        return AccountChange(refused="no", events=(event("refused"),))

    assert (await people.turn(AccountKeys(account_id="A1"), step)).refused == "no"
    assert await people.account(AccountKeys(account_id="A1")) == EVA
    assert await people.session("t1") is None
    assert await changes(store) == ["x", "refused"]


async def test_an_error_in_the_step_writes_nothing(people: People, store: Store) -> None:
    def step(found: Sequence[Account]) -> AccountChange:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await people.turn(AccountKeys(), step)
    assert await changes(store) == []


async def test_two_accounts_cannot_share_an_address(people: People, store: Store) -> None:
    await put(people)
    with pytest.raises(Unavailable):
        await put(people, replace(EVA, account_id="A2"))
    assert await people.everybody() == [EVA]
    assert await changes(store) == ["x"]


async def test_accounts_without_a_subject_stay_separate(people: People) -> None:
    other = replace(EVA, account_id="A2", address="omar@example.com")
    await put(people)
    await put(people, other)
    assert await people.everybody() == [EVA, other]


async def test_concurrent_changes_see_each_other(people: People) -> None:
    await put(people)

    def step(found: Sequence[Account]) -> AccountChange:
        return AccountChange(account=replace(found[0], totp_step=found[0].totp_step + 1))

    await asyncio.gather(*(people.turn(AccountKeys(account_id="A1"), step) for _ in range(20)))
    found = await people.account(AccountKeys(account_id="A1"))
    assert found is not None
    assert found.totp_step == 20


async def test_a_session_is_read_with_its_account(people: People) -> None:
    await put(people, begins=session())
    assert await people.session("t1") == (session(), EVA)
    assert await people.session("t2") is None


async def test_ending_one_session_or_all_but_a_new_one(people: People) -> None:
    await put(people, begins=session("t1"))
    await put(people, begins=session("t2"))
    await people.turn(AccountKeys(), lambda found: AccountChange(ends="t1"))
    assert await people.session("t1") is None
    assert await people.session("t2") is not None
    await put(people, begins=session("t3"), ends_all=True)
    assert await people.session("t2") is None
    assert await people.session("t3") is not None


async def test_last_seen_never_moves_back_and_ended_sessions_are_deleted(people: People) -> None:
    long_ago = T0 - timedelta(days=9)
    await put(people, begins=session("t1"))
    await put(people, begins=session("t2"))
    later = T0 + timedelta(hours=1)
    await people.seen(
        {"t1": later, "t2": T0 - timedelta(hours=1), "t9": later}, started_before=long_ago, seen_before=long_ago
    )
    found = [await people.session(token) for token in ("t1", "t2")]
    assert [pair[0].seen_at for pair in found if pair] == [later, T0]
    await people.seen({}, started_before=long_ago, seen_before=later)
    assert await people.session("t2") is None
    await people.seen({}, started_before=later, seen_before=long_ago)
    assert await people.session("t1") is None


async def test_tokens_are_stored_listed_and_revoked(people: People) -> None:
    await put(people)
    token = Token(token_id="K1", account_id="A1", name="bot", secret="hash", scopes=(Scope.HELD_READ, Scope.FREEZES_SET),
                  created_at=T0, expires_at=T0 + timedelta(days=1))  # fmt: skip
    await people.put_token(token, Event(kind=Kind.TOKEN, id="K1", at=T0, data={"change": "added"}))
    assert await people.token("K1") == (token, EVA)
    assert await people.token("K2") is None
    gone = replace(token, revoked=True)
    await people.put_token(gone, Event(kind=Kind.TOKEN, id="K1", at=T0, data={"change": "revoked"}))
    assert await people.tokens() == await people.tokens("A1") == [(gone, EVA)]
    assert await people.tokens("A2") == []


# -- the webhooks' cursors


async def test_a_cursor_begins_at_the_end_and_reads_later_entries(store: Store) -> None:
    cursors = store.cursors
    start = (await cursors.at("chat")).told
    assert start > 0
    assert await asyncio.gather(*(cursors.at("chat") for _ in range(4))) == [Cursor(told=start)] * 4
    kinds = [Kind.VERDICT, Kind.FREEZE]
    for kind, data in [
        (Kind.FREEZE, {}),
        (Kind.VERDICT, {"action": "relay"}),
        (Kind.VERDICT, {"action": "hold"}),
        (Kind.THAW, {}),
    ]:
        await store.journal.record([Event(kind=kind, id="x", at=T0, data=data, private={"actor": ("omar",)})])
    news = await cursors.news(start, kinds, 10)
    assert [(e.kind, dict(e.data)) for e, _ in news.entries] == [("freeze", {}), ("verdict", {"action": "hold"})]
    assert news.entries[0][1] == {"actor": ["omar"]}
    assert (news.through, news.end) == (start + 4, start + 4)
    first = await cursors.news(start, kinds, 1)
    assert (len(first.entries), first.through, first.end) == (1, start + 1, start + 4)
    assert await cursors.news(start + 4, kinds, 1) == News(entries=[], through=start + 4, end=start + 4)


async def test_a_cursor_is_leased_by_one_and_released_when_settled(store: Store, clock: Clock) -> None:
    cursors = store.cursors
    place = await cursors.at("chat")
    mine = await cursors.lease("chat", place, T0 + timedelta(seconds=60))
    assert mine is not None
    assert await cursors.lease("chat", place, T0 + timedelta(seconds=60)) is None
    failing = Cursor(told=mine.told, attempts=3, failing_since=T0, next_at=T0 + timedelta(seconds=40), lease=mine.lease)
    assert await cursors.settle("chat", failing)
    assert await cursors.at("chat") == failing
    again = await cursors.lease("chat", place, T0 + timedelta(seconds=60))
    assert again is not None
    assert again.lease == mine.lease + 1
    assert not await cursors.settle("chat", replace(mine, told=99))
    assert await cursors.settle("chat", Cursor(told=99, lease=again.lease), keep_until=T0 + timedelta(seconds=60))
    moved = Cursor(told=99)
    assert await cursors.lease("chat", moved, T0 + timedelta(seconds=90)) is None
    clock.pass_(seconds=60)
    assert await cursors.lease("chat", place, clock.at + timedelta(seconds=60)) is None, "another process has moved it"
    assert await cursors.lease("chat", moved, clock.at + timedelta(seconds=60)) is not None
    assert await cursors.lease("nosuch", moved, clock.at) is None
