"""What a crash left without an outcome is reported, once, and not before the relay could have answered."""

from __future__ import annotations

from typing import Any

from smtpguard.guard.indoubt import report_doubts
from smtpguard.policy.verdict import Relayed
from tests.guard.house import House, Way


class Dies:
    """A ledger whose process ends before an outcome is written."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def note(self, event: object) -> None:
        pass


async def test_a_verdict_without_an_outcome_is_in_doubt_after_a_while(home: House) -> None:
    home.ledger = Dies(home.store)
    transaction = home.transaction("ulf@example.com")
    assert isinstance(await home.intake()(transaction, Way()), Relayed)
    home.clock.pass_(minutes=14)
    assert await report_doubts(home.store, home.clock) == ()
    home.clock.pass_(minutes=2)
    assert await report_doubts(home.store, home.clock) == (transaction.id,)
    assert [kind for kind, _ in await home.events(transaction.id)] == ["verdict", "in-doubt"]
    assert await report_doubts(home.store, home.clock) == ()


async def test_what_has_its_outcome_is_not(home: House) -> None:
    transaction = home.transaction("ulf@example.com")
    await home.intake()(transaction, Way())
    await home.store.journal.record(())
    home.clock.pass_(hours=1)
    assert await report_doubts(home.store, home.clock) == ()
