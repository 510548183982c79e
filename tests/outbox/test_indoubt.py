"""A verdict without an outcome after a crash is reported as in doubt, once, and only after the relay could have
answered."""

from __future__ import annotations

from smtpguard.outbox.asking import report_doubts
from smtpguard.policy.verdict import Relayed
from tests.guard.house import FakePassage, House, PatchedStore


async def test_a_verdict_without_an_outcome_is_in_doubt_after_a_time(home: House) -> None:
    home.ledger = PatchedStore(home.store, {"journal.note": lambda event: None})  # its process ends before the outcome
    transaction = home.transaction("ulf@example.com")
    assert isinstance(await home.intake()(transaction, FakePassage()), Relayed)
    await home.store.journal.catch_up()
    home.clock.pass_(minutes=14)
    assert await report_doubts(home.store, home.clock) == ()
    home.clock.pass_(minutes=2)
    assert await report_doubts(home.store, home.clock) == (transaction.id,)
    assert [kind for kind, _ in await home.events(transaction.id)] == ["verdict", "in-doubt"]
    assert await report_doubts(home.store, home.clock) == ()


async def test_a_verdict_with_an_outcome_is_not_in_doubt(home: House) -> None:
    transaction = home.transaction("ulf@example.com")
    await home.intake()(transaction, FakePassage())
    await home.store.journal.record(())
    home.clock.pass_(hours=1)
    assert await report_doubts(home.store, home.clock) == ()
