"""One line a message: the verdict waits for what the relay said, and everything else is told once it is committed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from smtpguard.app import telling
from smtpguard.app.telling import TellingStore
from smtpguard.audit.event import Event, Kind
from smtpguard.policy.admission import Admission, Item, Live, Unavailable
from smtpguard.policy.verdict import Action, Held, Verdict
from smtpguard.store.store import Store

NOW = datetime(2026, 3, 2, tzinfo=UTC)


class _Store:
    """What a store would do, without one."""

    def __init__(self) -> None:
        self.noted: list[Event] = []
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return None

    async def admit(self, item: Item, step: Callable[[Live], Admission]) -> Admission:
        if self.fails:
            raise Unavailable("away")
        return step(Live(now=NOW))

    def note(self, event: Event) -> None:
        self.noted.append(event)


def verdict(id: str, *, held: bool = False) -> Admission:
    event = Event(kind=Kind.VERDICT, id=id, at=NOW, data={"action": "hold" if held else "relay"},
                  private={"reverse_path": ("a@example.com",)})  # fmt: skip
    return Admission(
        verdict=Verdict(action=Action.HOLD if held else Action.RELAY),
        events=(event,),
        disposition=Held(hold_id=id) if held else None,
    )


def outcome(id: str) -> Event:
    return Event(kind=Kind.OUTCOME, id=id, at=NOW, data={"outcome": "relayed"})


async def admit(store: TellingStore, admission: Admission) -> None:
    id = admission.events[0].id
    await store.admit(Item(id=id, key="k", policy_sha256="p"), lambda _: admission)


async def test_a_relayed_message_is_one_line_with_its_outcome() -> None:
    told: list[Event] = []
    under = _Store()
    store = TellingStore(cast(Store, under), told.append)
    await admit(store, verdict("A"))
    assert told == []
    store.note(outcome("A"))
    [line] = told
    assert (line.kind, line.data["action"], line.data["outcome"]) == (Kind.VERDICT, "relay", "relayed")
    assert line.private["reverse_path"] == ("a@example.com",)
    assert under.noted == [outcome("A")], "the journal gets the outcome as it is"


async def test_a_held_message_is_told_at_once() -> None:
    told: list[Event] = []
    store = TellingStore(cast(Store, _Store()), told.append)
    await admit(store, verdict("B", held=True))
    assert [event.data["action"] for event in told] == ["hold"]
    store.note(outcome("elsewhere"))
    assert told[-1].kind is Kind.OUTCOME


async def test_what_was_not_committed_is_not_told() -> None:
    told: list[Event] = []
    under = _Store()
    under.fails = True
    store = TellingStore(cast(Store, under), told.append)
    with pytest.raises(Unavailable):
        await admit(store, verdict("C", held=True))
    assert told == []


async def test_verdicts_without_an_outcome_are_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_MOST_RELAYING", 2)
    told: list[Event] = []
    store = TellingStore(cast(Store, _Store()), told.append)
    for id in ("1", "2", "3"):
        await admit(store, verdict(id))
    assert [event.id for event in told] == ["1"]


async def test_a_log_that_cannot_be_written_changes_nothing() -> None:
    def closed(event: Event) -> None:
        raise ValueError("I/O operation on closed file")

    inner = _Store()
    store = TellingStore(cast(Store, inner), closed)
    item = Item(id="T1", key="k", policy_sha256="p")
    admitted = verdict("T1", held=True)
    assert await store.admit(item, lambda live: admitted) is admitted
    store.note(outcome("T2"))
    assert [event.id for event in inner.noted] == ["T2"]
