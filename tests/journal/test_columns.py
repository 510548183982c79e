"""The columns by which SQL finds verdicts: computed from the body alone, and compared with it by the proof."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from smtpguard.database.schema import entry
from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal.chain import NO_COLUMNS, Columns
from smtpguard.journal.event import Event, Kind
from smtpguard.store.store import Store
from tests.every import every
from tests.incidents.test_rows import ids, verdict
from tests.journal.test_rows import tamper
from tests.store.making import T0

MISLEADING = {"other": {"action": "hold", "observed": ["r"], "lists": ["news"], "mailing": "M1"}}
"""The same keys in the bodies of other entries."""


async def filed(store: Store, id: str) -> tuple[Any, ...]:
    query = entry.select().with_only_columns(*(entry.c[name] for name in Columns._fields)).where(entry.c.id == id)
    return tuple((await store.ask(lambda c: c.execute(query))).one())


async def test_a_plain_message_has_empty_columns(store: Store) -> None:
    await store.journal.record(
        [verdict(store, "T1", lists=[], rules=[], observed=[], hold=None, mailing=None, freeze=None)]
    )
    await store.journal.record([Event(kind=Kind.NOTICE, id="N1", at=T0, data={"action": "hold", "lists": ["news"]})])
    assert await filed(store, "T1") == NO_COLUMNS
    assert await filed(store, "N1") == NO_COLUMNS


async def test_columns_have_the_verdicts_values(store: Store) -> None:
    told = {"action": "hold", "observed": ["r"], "lists": ["ads", "news"], "hold": "T1", "mailing": "M1", "with": "T0"}
    await store.journal.record([verdict(store, "T1", **told, freeze="F1")])
    assert await filed(store, "T1") == ("hold", True, "\nads\nnews\n", "\nM1\nT0\nF1\n")
    assert (await store.journal.verify()).ok


async def test_webhooks_find_verdicts_to_hold(store: Store) -> None:
    await store.journal.record([verdict(store, "T1", **MISLEADING), verdict(store, "T2", action="hold")])
    found = await store.cursors.news(0, [Kind.VERDICT], 10)
    assert [entry.id for entry, _ in found.entries] == ["T2"]


async def test_only_rejected_verdicts_are_found_as_rejected(store: Store) -> None:
    other = {"other": {"action": "reject"}}
    await store.journal.record(
        [verdict(store, "T1", action="reject"), verdict(store, "T2", **other), verdict(store, "T3", action="reject")]
    )
    found = await store.journal.rejected("T1", store.now() + timedelta(minutes=1), 10)
    assert [event.id for event in found] == ["T1", "T3"]


async def test_only_observed_verdicts_are_found_as_observed(store: Store) -> None:
    await store.journal.record(
        [
            verdict(store, "T1", **MISLEADING),
            verdict(store, "T2", observed=["r"]),
            verdict(store, "T3", observed=[]),
        ]
    )
    judged, found = await store.journal.observed(T0 - timedelta(hours=1), store.now() + timedelta(hours=1), 10)
    assert (judged, [event.id for event in found]) == (3, ["T2"])


async def test_an_incident_is_found_by_any_name_of_its_messages(store: Store) -> None:
    await store.journal.record([verdict(store, "T1", mailing="M1", freeze="F1", content="ab" * 32)])
    await store.journal.record([verdict(store, "T2", action="hold", hold="T2", **{"with": "T1"}), verdict(store, "T3")])
    for name, all_of_them in {"M1": {"T1"}, "F1": {"T1"}, "T1": {"T1", "T2"}, "ab" * 32: {"T1"}, "T2": {"T2"}}.items():
        assert await ids(store, ids=frozenset({name}), whole=False) == all_of_them, name


HIDDEN = {
    "its list": "UPDATE entry SET lists = NULL WHERE id = 'T2'",
    "its action": "UPDATE entry SET action = 'reject' WHERE id = 'T2'",
    "its mailing": "UPDATE entry SET names = '' WHERE id = 'T2'",
    "a rule that observed": "UPDATE entry SET observed = NULL WHERE id = 'T2'",
    "another's list": "UPDATE entry SET lists = 'x' WHERE id = 'T1'",
}


@pytest.mark.parametrize("hides", HIDDEN)
async def test_a_hidden_verdict_is_found_by_the_proof(store: Store, hides: str) -> None:
    more = {"lists": ["news"], "mailing": "M1", "observed": ["r"]}
    await store.journal.record([verdict(store, "T1"), verdict(store, "T2", action="hold", **more)])
    assert (await store.journal.verify()).ok
    await tamper(store, HIDDEN[hides])
    bad = (await store.journal.verify()).first_bad
    assert bad is not None
    assert "do not fit it" in bad.problem
    one = await store.journal.incident(IncidentQuery(since=0), prove=True)
    assert one.proof is not None
    assert one.proof.first_bad == bad


async def test_an_edited_entry_is_reported_as_edited(store: Store) -> None:
    await store.journal.record([verdict(store, "T1", action="hold")])
    await tamper(store, "UPDATE entry SET body = replace(body, 'hold', 'relay') WHERE id = 'T1'")
    bad = (await store.journal.verify()).first_bad
    assert bad is not None
    assert bad.problem == "edited: the entry does not fit its hash"


@every("data", [{"lists": 5}, {"lists": ["a\nb", 7]}, {"mailing": {"x": 1}}, {"action": 3}, {"lists": ["\ud800"]}])
async def test_any_event_is_written_and_verified(store: Store, data: dict[str, Any]) -> None:
    await store.journal.record([verdict(store, "T1", **data)])
    assert (await store.journal.verify()).ok
