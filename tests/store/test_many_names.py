"""Queries with more names than SQLite joins by OR: 1,000."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, select

from smtpguard.accounts.model import Role
from smtpguard.database.access import either
from smtpguard.journal.event import Kind
from smtpguard.store.store import Store
from tests.console.stage import stage
from tests.guard.house import DOCUMENTS
from tests.incidents.test_rows import ids, verdict
from tests.store.making import event

MANY = 1_200


async def test_a_report_on_many_ids_or_lists(store: Store) -> None:
    await store.journal.record([verdict(store, f"T{n}", lists=[f"news{n}"]) for n in range(2)])
    assert await ids(store, lists=frozenset(f"news{n}" for n in range(MANY))) == {"T0", "T1"}
    assert await ids(store, ids=frozenset(f"T{n}" for n in range(MANY))) == {"T0", "T1"}


def test_no_condition_is_never_true() -> None:
    with create_engine("sqlite://").connect() as connection:
        assert not connection.execute(select(1).where(either(()))).all()


async def test_a_freeze_that_stopped_many_mailings_is_preserved(store: Store) -> None:
    stopped = [verdict(store, f"T{n}", mailing=f"M{n}", freeze="F1") for n in range(MANY)]
    await store.journal.record([event(Kind.FREEZE, "F1"), *stopped])
    assert await store.preserve("F1", by="root", reason="a lawsuit") is not None


async def test_somebody_in_many_groups_sees_what_waits_for_many_lists(tmp_path: Path) -> None:
    groups = "".join(f"  team{n}: [eva@example.com]\n" for n in range(MANY))
    lists = "".join(
        f"  l{n}: {{addresses: [l{n}@lists.example.com], sensitivity: special-category}}\n" for n in range(MANY)
    )
    policy = DOCUMENTS["policy.yaml"].decode().replace("groups:\n", f"groups:\n{groups}", 1)
    policy = policy.replace("\nlists:\n", f"\nlists:\n{lists}", 1)
    async with stage(tmp_path) as here:
        await here.home.put({**DOCUMENTS, "policy.yaml": policy.encode()})
        await here.home.follow()
        hold = await here.home.held()
        eva = await here.signed_in("eva@example.com", Role.APPROVER)
        for page in ("/held", "/held?mine=1"):
            assert hold.hold_id in (await eva.get(page)).text, page
