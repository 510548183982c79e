"""Upgrade of a store of the first schema (``first.json``: its rows by table).

It has a waiting hold with a vote and an unsent notice, and an approved hold whose release waits. It also has a verdict
to relay without an outcome, two counted people, and a frozen list.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import op
from sqlalchemy import Connection, MetaData, select

from smtpguard.accounts.rows import ABSENCE, ACCOUNT, MEMBERSHIP
from smtpguard.counts.backfill import known_since
from smtpguard.database import migrate as migrating
from smtpguard.database import schema as schema_of
from smtpguard.database.batch import FREEZE
from smtpguard.database.engine import Database
from smtpguard.database.migrate import migrate, upgrade
from smtpguard.database.schema import SCHEMA
from smtpguard.holds.model import HOLD, Change, Hold, HoldQuery, State
from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Columns, canonical, columns_of, link, microseconds
from smtpguard.journal.checkpoint import Checkpoint, sign
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Kind
from smtpguard.journal.linefiles import CHECKPOINTS, write_line
from smtpguard.journal.merkle import leaf, parent
from smtpguard.journal.tree import Tree
from smtpguard.mail.codec import Codec
from smtpguard.mailings.model import MAILING, Candidate
from smtpguard.outbox.model import INTENT, NONE_YET, RECIPIENT, AttemptResult
from smtpguard.policy.counted import Ask
from smtpguard.reading.fingerprint import Sketch
from smtpguard.returns.model import SAID
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.counts.test_contacts import to
from tests.counts.test_counting import count
from tests.every import every
from tests.store.making import (
    CONTENT,
    SECRET,
    T0,
    a_hold,
    event,
    hold_of,
    holds,
    item,
    on_sqlite,
    recipient,
    relays,
    release,
)
from tests.store.servers import empty_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_url(request, tmp_path)


DOCUMENTS: dict[str, Codec[Any]] = {
    "FREEZE": FREEZE, "SAID": SAID, "HOLD": HOLD, "INTENT": INTENT, "RECIPIENT": RECIPIENT, "MAILING": MAILING,
    "ACCOUNT": ACCOUNT, "ABSENCE": ABSENCE, "MEMBERSHIP": MEMBERSHIP,
}  # fmt: skip
FIRST: dict[str, Any] = json.loads((Path(__file__).parent / "first.json").read_text())


def brought_to(connection: Connection, version: str) -> MetaData:
    """Migrate to ``version``; return the tables."""
    migrating.upgrade(connection, version)
    known = MetaData()
    known.reflect(connection)
    return known


def restore(url: str, state: Path) -> None:
    """Create the database from the rows of ``first.json``, at the first schema, and the file of checkpoints."""
    (state / "checkpoints").write_text(FIRST["checkpoints"])
    database = Database(url)
    try:
        with database.write() as connection:
            known = brought_to(connection, "0001")
            for name, rows in FIRST["tables"].items():
                table = known.tables[name]
                connection.execute(table.delete())
                connection.execute(
                    table.insert(), [{c: _value(v, table.columns[c].type) for c, v in r.items()} for r in rows]
                )
    finally:
        database.close()


def _value(value: Any, type: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return bool(value) if value is not None and type.python_type is bool else value


@pytest.fixture
async def store(url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    restore(url, tmp_path)
    clock.pass_(minutes=2)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as opened:
        yield opened


@on_sqlite
async def test_the_journal_is_whole_and_continues(store: Store) -> None:
    proof = await store.journal.verify()
    assert (proof.entries, proof.first_bad) == (7, None)
    await store.journal.record([event(Kind.NOTICE, "N1")])
    proof = await store.journal.verify()
    assert (proof.entries, proof.first_bad) == (8, None)


async def test_a_waiting_hold_keeps_its_vote_and_content(store: Store) -> None:
    assert [(h.hold_id, h.state) for h in await store.holds.newest()] == [("H2", State.APPROVED), ("H1", State.WAITING)]
    hold = await hold_of(store, "H1")
    [vote] = hold.votes
    assert (vote.approver, vote.content_sha256) == ("eva@example.com", CONTENT.sha256)
    assert vote.envelope_sha256 == hold.envelope.sha256
    assert bytes((await store.contents.load(hold.content_sha256)).raw) == bytes(CONTENT.raw)
    assert [h.hold_id for h in await store.holds.due(T0.replace(hour=23))] == ["H1"]


async def test_a_retry_gets_its_older_hold(store: Store) -> None:
    await store.contents.keep(CONTENT)
    again = await store.admit(item("H9", of="H1"), holds(a_hold("H9")))
    assert again.hold is None
    assert await store.holds.find("H9") is None


async def test_an_approved_release_is_sent_and_a_frozen_one_stays(store: Store) -> None:
    [notice, sent] = await store.outbox.lease("me", 10, 60)
    assert (notice.intent.intent_id, sent.intent) == ("N1", release("H2"))
    outcome = AttemptResult(recipient=recipient("c@list.example"), event=DeliveryEvent.TAKE, reply="250 Ok")
    assert await store.outbox.settle(sent, [outcome], [event(Kind.RELEASED, "H2")])
    found = await hold_of(store, "H2")
    assert found.state is State.RELEASED
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(release("H1"),)))
    assert not await store.outbox.lease("me", 10, 60)  # its list is frozen in first.json
    await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    [lease] = await store.outbox.lease("me", 10, 60)
    assert lease.intent == release("H1")
    assert (await store.journal.verify()).ok


@on_sqlite
async def test_counts_continue(store: Store) -> None:
    ask = Ask(fact="sender.customers", key="anna@example.com", window_seconds=3600)
    seen: dict[Ask, int] = {}

    def step(live: Any) -> Any:
        seen.update(live.counts)
        return relays("T2")(live)

    await store.admit(item("T2", asks=(ask,), people=(b"person-2", b"person-3")), step)
    assert seen == {ask: 4}, "person-2 counts twice"


async def test_counts_of_schemas_before_0024_go_on(url: str, tmp_path: Path, clock: Clock) -> None:
    """``counted.json``: rows of schema 0021; Anna wrote to a and b, ten minutes later to b and c. Who they were is not
    kept: a is counted once more, and is a first contact again until the journal was read."""
    restore(url, tmp_path)
    database = Database(url)
    try:
        with database.write() as connection:
            known = brought_to(connection, "0021")
            for name, rows in json.loads((Path(__file__).parent / "counted.json").read_text()).items():
                table = known.tables[name]
                connection.execute(table.delete())
                blobs = [{c: bytes.fromhex(v) if isinstance(v, str) else v for c, v in row.items()} for row in rows]
                connection.execute(table.insert(), blobs)
            connection.execute(known.tables["contact_since"].insert(), {"one": 1, "at": 0})
            scope = int.from_bytes(bytes.fromhex(OF_ANNA)[:8], "big", signed=True)
            moment = brought_to(connection, "0034").tables["moment"]
            at = {"at": 1772442600000000, "until": 1772446200000000}
            connection.execute(moment.insert(), {"scope": scope, "n": 1, "weight": 1, **at})
    finally:
        database.close()
    anna = "anna@example.com"
    first, customers = Ask("sender.first_contacts", anna, 86_400), Ask("sender.customers", anna, 3600)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        assert await known_since(store) is None
        clock.pass_(minutes=20)
        assert await count(store, to("T2", "a", "d", asks=(first, customers))) == {first: 5, customers: 6}
        clock.pass_(minutes=55)
        assert await count(store, to("T4", "e", asks=(customers,))) == {customers: 3}


async def test_sums_of_schema_0035_go_on(url: str, tmp_path: Path, clock: Clock) -> None:
    restore(url, tmp_path)
    database = Database(url)
    try:
        with database.write() as connection:
            known = brought_to(connection, "0035")
            row = {"hold_id": "H0", "held_at": microseconds(T0), "lists": "news", "at": 0, "said": ""}
            rows = [{**row, "rules": "a\nb", "how": "rejected"}, {**row, "hold_id": "H9", "rules": "b", "how": ""}]
            connection.execute(known.tables["ended"].insert(), rows)
            held = {"hour": microseconds(T0), "did": "held", "n": 1}
            connection.execute(known.tables["summed"].insert(), [{**held, "about": f"rule:{name}"} for name in "ab"])
            connection.execute(
                known.tables["summing"].insert(), {"one": 1, "through": FIRST["tables"]["head"][0]["seq"]}
            )
    finally:
        database.close()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        found = await store.journal.activity(T0, None, UTC)
        assert [(s.name, s.decided.rejected, s.waiting) for s in found.rules] == [("a", 1, 0), ("b", 1, 1)]


OF_ANNA = "d4e71ae4627a3b5a4bf4479c0a232d69"
"""The scope of Anna's customers, one of whom was counted by a later version in the same moment."""


async def test_a_verdict_without_an_outcome_is_in_doubt(store: Store, clock: Clock) -> None:
    assert await store.journal.unsettled(clock.now()) == ["T1"]


async def test_a_hold_is_found_by_its_words(store: Store) -> None:
    found = await store.holds.page(HoldQuery(states=(State.WAITING,), words=("lunch",)))
    assert [hold.hold_id for hold in found] == ["H1"]


def test_a_failing_migration_leaves_the_store_unchanged(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(url, tmp_path)
    real = op.create_index

    def broken(name: str, *args: Any, **more: Any) -> None:
        if name == "hold_rows":  # in the last migration, after all others
            raise RuntimeError("the machine is gone")
        real(name, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(op, "create_index", broken)
        with pytest.raises(RuntimeError):
            migrating.migrate(url)
    assert schema(url) == "0001"
    migrating.migrate(url)
    assert schema(url) == SCHEMA


def schema(url: str) -> str | None:
    database = Database(url)
    try:
        with database.read() as connection:
            return migrating.revision(connection)
    finally:
        database.close()


@pytest.mark.parametrize(("state", "doubts"), [("in-doubt", 1), ("retry", 1)])
async def test_an_unsettled_attempt_is_in_doubt(
    state: str, doubts: int, url: str, tmp_path: Path, clock: Clock
) -> None:
    restore(url, tmp_path)
    database = Database(url)
    try:
        with database.write() as connection:
            known = MetaData()
            known.reflect(connection)
            outbox, delivery = known.tables["outbox"], known.tables["delivery"]
            [entry] = connection.execute(outbox.select().where(outbox.c.kind == "release")).mappings()
            one = delivery.update().where(delivery.c.intent_id == entry["intent_id"])
            connection.execute(one.values(state=state, doubts=doubts))
    finally:
        database.close()
    clock.pass_(minutes=2)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        own = (await store.holds.outgoing("H2")).own
        assert own is not None
        assert (own.doubt, own.left, own.settled) == (1, (), NONE_YET)
        [lease] = [one for one in await store.outbox.lease("me", 10, 60) if one.intent.hold_id == "H2"]
        assert lease.doubts == (1,)


FATES = {
    "sent": ([("sent", 0)], State.RELEASED),
    "sent to one of two": ([("failed", 0), ("sent", 0)], State.RELEASED),
    "refused for all": ([("failed", 0), ("failed", 0)], State.UNDELIVERED),
    "given up after a doubt": ([("failed", 0), ("failed", 1)], State.IN_DOUBT),
    "forgotten": ([], State.RELEASED),
}


@pytest.mark.parametrize("fate", FATES)
async def test_released_holds_get_their_exact_state(fate: str, url: str, tmp_path: Path, clock: Clock) -> None:
    recipients, state = FATES[fate]
    restore(url, tmp_path)
    database = Database(url)
    try:
        with database.write() as connection:
            known = MetaData()
            known.reflect(connection)
            held, outbox, delivery = (known.tables[name] for name in ("hold", "outbox", "delivery"))
            [entry] = connection.execute(outbox.select().where(outbox.c.kind == "release")).mappings()
            [row] = connection.execute(delivery.select().where(delivery.c.intent_id == entry["intent_id"])).mappings()
            connection.execute(delivery.delete().where(delivery.c.intent_id == entry["intent_id"]))
            for n, (each, doubts) in enumerate(recipients):
                connection.execute(delivery.insert().values({**row, "n": n, "state": each, "doubts": doubts}))
            connection.execute(outbox.update().where(outbox.c.intent_id == entry["intent_id"]).values(done=True))
            connection.execute(held.update().where(held.c.hold_id == entry["hold_id"]).values(state="released"))
    finally:
        database.close()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        hold = await hold_of(store, entry["hold_id"])
        assert hold.state is state
        assert [h.state for h in await store.holds.newest() if h.hold_id != hold.hold_id] == [State.WAITING]


async def test_a_mailing_of_an_earlier_version_has_its_times(url: str, tmp_path: Path, clock: Clock) -> None:
    """The times of an older mailing are derived: one copy passed, one was held and released three minutes later, one
    still waits."""
    restore(url, tmp_path)
    database = Database(url)
    came = microseconds(T0)
    out = came + 180_000_000
    passed, released, waits = (bytes([n]) * 8 for n in (1, 2, 3))
    counts = {"exact": 1, "floor": 0, "sums": {}, "fates": [0, 0, 0, 1, 2], "customers": 3, "messages": 3}
    try:
        with database.write() as connection:
            known = brought_to(connection, "0012")
            mailing, reached, held = (known.tables[name] for name in ("mailing", "reached", "hold"))
            row = {"n": 1, "id": "M", "first_at": came, "last_at": came, "state": "passing", "people": 3, "filed": True,
                   "sketch": Sketch((1, 2, 3)).pack(), "counts": json.dumps(counts), "doc": '{"subject": "Spring"}'}  # fmt: skip
            connection.execute(mailing.insert().values(row))
            for one, fate in ((passed, 4), (released, 4), (waits, 3)):
                copy = {"n": 1, "person": one, "at": came, "kind": 1, "weight": 1, "fate": fate, "content": b"c"}
                connection.execute(reached.insert().values(copy))
            mine = held.update().where(held.c.hold_id == "H2")
            connection.execute(mine.values(state="released", attend_at=out, mailing="M", people=released))
            outbox = known.tables["outbox"]
            connection.execute(outbox.update().where(outbox.c.hold_id == "H2").values(done=True))
    finally:
        database.close()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        (found,) = [one for one in await store.mailings.newest() if one.mailing_id == "M"]
        assert (found.went_first_at, found.went_last_at) == (T0, T0 + timedelta(minutes=3))
        grown = await store.mailings.growth("M")
        assert [(point.sent, point.held) for point in grown] == [(1, 2), (2, 1)]


async def test_a_list_release_in_doubt_waits_for_people(url: str, tmp_path: Path, clock: Clock) -> None:
    restore(url, tmp_path)
    database = Database(url)
    try:
        with database.write() as connection:
            known = MetaData()
            known.reflect(connection)
            held, outbox, delivery = (known.tables[name] for name in ("hold", "outbox", "delivery"))
            [entry] = connection.execute(outbox.select().where(outbox.c.kind == "release")).mappings()
            one = delivery.update().where(delivery.c.intent_id == entry["intent_id"])
            connection.execute(one.values(state="in-doubt", doubts=1, next_at=entry["created_at"]))
            [row] = connection.execute(held.select().where(held.c.hold_id == "H2")).mappings()
            doc = json.loads(row["doc"]) | {"versions": [["ramadan-greetings", "v1"]]}
            connection.execute(
                held.update().where(held.c.hold_id == "H2").values(doc=json.dumps(doc), state="releasing")
            )
    finally:
        database.close()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        clock.pass_(days=1)
        assert "H2" not in [one.intent.hold_id for one in await store.outbox.lease("me", 10, 60)]
        assert await store.outbox.to_ask() == ["H2"]
        seen: list[Any] = []

        def asks(hold: Hold, recipients: Any) -> Change:
            seen.append(list(recipients))
            return Change(hold=replace(hold, state=State.IN_DOUBT, asked_at=clock.now()))

        await store.outbox.ask_about("H2", asks, lambda hold, _: ((), ()))
        assert len(seen[0]) == 1
        assert [hold.hold_id for hold in await store.holds.asked_about()] == ["H2"]


async def test_an_older_approval_covers_only_the_same_octets(url: str, tmp_path: Path, clock: Clock) -> None:
    """An older approval, which covered similar content, covers only the approved octets after the upgrade."""
    restore(url, tmp_path)
    database = Database(url)
    try:
        with database.write() as connection:
            known = brought_to(connection, "0013")
            grant = {
                "hold_id": "H2", "approved": {"exact": "campaign spring"}, "lists": ["newsletter"], "rules": ["r"], "people": 9,
                "since": T0.isoformat(), "until": (T0 + timedelta(days=7)).isoformat(),
            }  # fmt: skip
            counts: dict[str, Any] = {
                "exact": None,
                "floor": 0,
                "sums": {},
                "fates": [0] * 9,
                "customers": 0,
                "messages": 1,
            }
            connection.execute(
                known.tables["mailing"].insert().values(
                    n=1, id="SPRING", first_at=0, last_at=0, state="approved", people=1, filed=False, sketch=b"",
                    counts=json.dumps(counts), doc=json.dumps({"grant": grant, "earlier": [grant | {"hold_id": "gone"}]}),
                )
            )  # fmt: skip
    finally:
        database.close()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        hold, mailing = await store.holds.find("H2"), await store.mailings.find("SPRING")
        assert await store.mailings.standing() == []
        assert hold is not None
        assert mailing is not None
        approved, gone = mailing.grants
        same = Candidate(content=hold.content_sha256, said="any", author="campaigns@example.com")
        assert approved.matches(same)
        assert not approved.matches(replace(same, content="0" * 64))
        assert not gone.matches(same), "its text is unknown"


async def test_columns_of_older_holds_are_separated(url: str, tmp_path: Path, clock: Clock) -> None:
    restore(url, tmp_path)
    database = Database(url)
    out = microseconds(T0) + 180_000_000
    try:
        with database.write() as connection:
            known = brought_to(connection, "0020")
            held = known.tables["hold"]
            [row] = connection.execute(held.select().where(held.c.hold_id == "H1")).mappings()
            letters = {"letter_from": ["anna@example.com"], "by_sender": True}
            doc = json.loads(row["doc"]) | letters
            doc["votes"] = [vote | {"copies": 3} for vote in doc["votes"]]
            queued = dict(row) | {"hold_id": "H3", "queue": "anna@example.com", "doc": json.dumps(doc)}
            doc["votes"] = [vote | {"copies": 4} for vote in json.loads(row["doc"])["votes"]]
            copies = dict(row) | {"hold_id": "H4", "doc": json.dumps(doc | {"by_sender": False})}
            connection.execute(held.insert(), [queued, copies])
            mine = held.update().where(held.c.hold_id == "H2")
            connection.execute(mine.values(state="released", attend_at=out))
    finally:
        database.close()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        columns = select(schema_of.hold.c.hold_id, schema_of.hold.c.over_at)
        assert {row.hold_id: row.over_at for row in await store.ask(lambda c: c.execute(columns).all())} == {
            "H1": None,
            "H2": out,
            "H3": None,
            "H4": None,
        }
        queue, other = await store.holds.find("H3"), await store.holds.find("H4")
        assert queue is not None
        assert other is not None
        assert [(vote.copies, vote.letters) for vote in queue.votes] == [(None, 3)]
        assert [(vote.copies, vote.letters) for vote in other.votes] == [(4, None)]


JOURNALLED: list[tuple[str, str, dict[str, Any]]] = [
    ("verdict", "V1", {"action": "relay", "lists": [], "observed": [], "hold": None, "mailing": None, "freeze": None}),
    ("verdict", "V2", {"action": "relay", "lists": ["news"], "observed": ["r"], "hold": None, "mailing": "M1"}),
    ("verdict", "V3", {"action": "hold", "lists": ["ads", "news"], "hold": "V3", "with": "V0", "mailing": "M1", "freeze": "F1"}),
    ("verdict", "V4", {"action": "reject"}),
    ("outcome", "V2", {"outcome": "relayed", "action": "hold"}),
    ("verdict", "V5", {"action": "defer", "rules": [], "failure": "Busy"}),
    *(("outcome", f"O{n}", {"outcome": "relayed"}) for n in range(5_000)),
    ("verdict", "V6", {"action": "hold", "lists": ["news"], "hold": "V6"}),
]  # fmt: skip


async def test_search_columns_are_computed_from_older_entries(url: str, tmp_path: Path, clock: Clock) -> None:
    restore(url, tmp_path)
    database = Database(url)
    try:
        with database.write() as connection:
            known = brought_to(connection, "0019")
            head, entries = known.tables["head"], known.tables["entry"]
            [(seq, prev)] = connection.execute(head.select().with_only_columns(head.c.seq, head.c.hash)).all()
            rows, at = [], microseconds(T0)
            for kind, id, data in JOURNALLED:
                body, seq = f'{{"data":{canonical(data)},"private":{{}}}}', seq + 1
                hash = link(bytes(prev), seq, at, kind, id, body)
                rows.append(
                    {"seq": seq, "at": at, "kind": kind, "id": id, "body": body, "prev": bytes(prev), "hash": hash}
                )
                prev = hash
            connection.execute(entries.insert(), rows)
            connection.execute(head.update().values(seq=seq, hash=prev))
            marks = known.tables["checkpoint"]
            lines = {
                5000: '{"seq": 5000, "put_back": 3}',
                5001: '{"seq": 5001, "renewed": true}',
                5002: '{"seq": 5002}',
            }
            connection.execute(marks.insert(), [{"seq": n, "line": line} for n, line in lines.items()])
    finally:
        database.close()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        query = (
            schema_of.entry.select()
            .with_only_columns(schema_of.entry.c.id, *(schema_of.entry.c[name] for name in Columns._fields))
            .where(journal.VERDICT)
        )
        found = {row.id: tuple(row[1:]) for row in await store.ask(lambda c: c.execute(query).all())}
        wanted = {id: columns_of(kind, id, data) for kind, id, data in JOURNALLED if kind == "verdict"}
        assert {id: found[id] for id in wanted} == wanted
        empty = schema_of.entry.c.kind == "outcome", schema_of.entry.c.action.is_not(None)
        assert await store.ask(lambda c: c.execute(schema_of.entry.select().where(*empty)).all()) == []
        said = select(schema_of.checkpoint.c.seq).where(journal.NOTABLE)
        assert await store.ask(lambda c: sorted(c.execute(said).scalars())) == [5000, 5001]
        told = await store.cursors.news(0, [Kind.VERDICT], 10)
        assert [one.id for one, _ in told.entries if one.id in wanted] == ["V3", "V6"]
        looked = await store.journal.incident(IncidentQuery(lists=frozenset({"news"})), prove=False)
        assert looked.report is not None
        assert looked.report.messages == 3
        bad = (await store.journal.verify()).first_bad
        assert bad is not None
        assert bad.problem == "a checkpoint in the database cannot be read", "but the chain, and its columns, are whole"


@on_sqlite
async def test_an_older_restored_store_is_recognized(url: str, tmp_path: Path, clock: Clock) -> None:
    """A rollback of an older store is noticed, since the check comes before the migration."""
    restore(url, tmp_path)
    [head] = FIRST["tables"]["head"]
    later = Checkpoint(journal=head["journal"], seq=99, at=microseconds(T0), hash=bytes(32))
    write_line(tmp_path, CHECKPOINTS, sign(SECRET, later).line())
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        assert store.put_back is not None
        assert store.put_back.signed.seq == 99


def hash_of(n: int) -> bytes:
    return n.to_bytes(32, "big")


def mth(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962, section 2.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return parent(mth(leaves[:k]), mth(leaves[k:]))


@pytest.mark.parametrize(("first", "last"), [(1, 0), (1, 700), (1, 1024), (1, 5000), (300, 4395)])
def test_old_entries_get_the_blocks_of_the_tree(tmp_path: Path, first: int, last: int) -> None:
    url = f"sqlite:///{tmp_path}/guard.db"
    database = Database(url)
    with database.write() as connection:
        upgrade(connection, "0024")
    database.close()
    with closing(sqlite3.connect(tmp_path / "guard.db")) as before, before:
        rows = [(n, n, "outcome", "T", "{}", hash_of(n - 1), hash_of(n)) for n in range(first, last + 1)]
        before.executemany("INSERT INTO entry (seq, at, kind, id, body, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    migrate(url)
    database = Database(url)
    try:
        with database.write() as connection:
            tree = Tree(connection)
            kept = connection.exec_driver_sql(
                "SELECT level, n, hash FROM merkle WHERE level >= 0 ORDER BY level, n"
            ).all()
            assert tree.begin == first
            if last:
                assert tree.root(last) == mth([leaf(hash_of(n)) for n in range(first, last + 1)])
            connection.exec_driver_sql("DELETE FROM merkle WHERE level >= 0")
            Tree(connection).extend(last)
            again = connection.exec_driver_sql(
                "SELECT level, n, hash FROM merkle WHERE level >= 0 ORDER BY level, n"
            ).all()
            assert kept == again
    finally:
        database.close()


DERIVED = {"HOLD": {"stopped"}, "MAILING": {"grant", "earlier"}}
"""What those codecs wrote and no codec reads, by document: rows have it otherwise, or map it."""


@every(("name", "document"), json.loads((Path(__file__).parent / "documents.json").read_text()).items())
def test_a_document_of_schema_0033_is_read(name: str, document: dict[str, Any]) -> None:
    """``documents.json``: what its codecs wrote, with every field filled."""
    codec = DOCUMENTS[name]
    again = codec.to(codec.back(document))
    assert again.keys() == document.keys() - DERIVED.get(name, set())
    assert codec.back(json.loads(json.dumps(again))) == codec.back(document)
