"""A store that was restored to an earlier state, replaced by another store, or opened with another secret.

The state folder's checkpoints show it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from smtpguard.database.errors import Full, StoreError, Unavailable
from smtpguard.database.migrate import NotSetUp
from smtpguard.holds.model import Change, State
from smtpguard.journal import linefiles
from smtpguard.journal.checkpoint import parse, sign
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.linefiles import CHECKPOINTS
from smtpguard.outbox.model import AttemptResult
from smtpguard.policy.freezing import ITSELF, PUT_BACK, Selector
from smtpguard.store import rollbackcheck
from smtpguard.store.retention import Retention
from smtpguard.store.rollbackcheck import Foreign, OtherSecret
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.making import CONTENT, SECRET, a_freeze, a_hold, event, held, holds, item, on_sqlite, relays, release
from tests.store.place import OTHER, Place, prepared
from tests.store.servers import a_database, new_database


@pytest.fixture
async def place(url: str, tmp_path: Path, clock: Clock) -> Place:
    return await prepared(url, tmp_path / "state", clock)


async def approved(store: Store) -> None:
    await held(store, "H1")
    await store.holds.change(
        "H1", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(release("H1"),))
    )  # fmt: skip


async def sent(store: Store) -> None:
    [lease] = await store.outbox.lease("me", 5, 60)
    told = [Event(kind=Kind.RELEASED, id="H1", at=store.now())]
    done = [AttemptResult(recipient=each, event=DeliveryEvent.TAKE) for each in lease.recipients]
    assert await store.outbox.settle(lease, done, told)


async def test_sent_releases_are_not_leased_again_before_a_thaw(place: Place) -> None:
    await place.within(approved)
    copy = place.copy()
    await place.within(sent)
    place.put_back(copy)

    async def later(store: Store) -> None:
        assert store.put_back is not None
        assert list(await store.outbox.lease("me", 5, 60)) == []
        [freeze] = (await store.gate.read()).freezes
        assert (freeze.selector, freeze.by, freeze.reason, freeze.defers, freeze.until) == (
            Selector.ALL, ITSELF, PUT_BACK, True, None,
        )  # fmt: skip
        [(entry, clear)] = [pair for pair in await store.journal.entries() if pair[0].kind == "freeze"]
        assert entry.id == freeze.freeze_id
        assert entry.data["put_back"] == {
            "last_at": "2026-03-02T09:02:00Z", "signed": entry.seq, "signed_at": "2026-03-02T09:03:00Z",
        }  # fmt: skip
        assert clear == {"actor": [ITSELF], "comment": [PUT_BACK]}
        await store.gate.thaw(freeze.freeze_id, event(Kind.THAW, freeze.freeze_id, at=store.now()))
        assert len(await store.outbox.lease("me", 5, 60)) == 1, "a person thawed it"

    await place.within(later)


@on_sqlite
async def test_a_restore_is_reported_once_and_the_journal_continues(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    copy = place.copy()
    await place.mail(*(f"U{n}" for n in range(9)))
    signed = parse(place.file.read_text().splitlines()[-1])
    place.put_back(copy)
    with caplog.at_level(logging.ERROR):
        await place.mail("V0")
    [said] = [r.getMessage() for r in caplog.records if "put back" in r.getMessage()]
    assert said == (
        "the store was put back to an earlier state: its journal ends at 2026-03-02 09:01:00 UTC, and at 2026-03-02 09:02:00 UTC "
        "entries up to 13 were signed: all mail is frozen until it is thawed"
    )
    for n in range(20):  # past the last signed entry, which is lost
        await place.mail(f"W{n}")

    async def proved(store: Store) -> None:
        assert store.put_back is None
        proof = await store.journal.verify()
        assert proof.ok, proof
        [lost] = proof.lost
        assert (lost.seq, lost.through, lost.signed_at) == (5, 13, signed.at)
        assert len((await store.gate.read()).freezes) == 1

    await place.within(proved)


@on_sqlite
async def test_a_verdict_of_the_same_batch_sees_the_freeze(place: Place) -> None:
    copy = place.copy()
    await place.mail("U0")
    place.put_back(copy)
    async with place.opened() as store:
        seen: list[int] = []

        def step(live: Any) -> Any:
            seen.append(len(live.freezes))
            return relays("V0")(live)

        await store.admit(item("V0"), step)
    assert seen == [1]


@on_sqlite
async def test_reading_alone_writes_nothing(place: Place) -> None:
    """Reading writes nothing: an auditor's copy may be older than the checkpoints beside it."""
    copy = place.copy()
    await place.mail("U0")
    place.put_back(copy)
    before = place.file.read_text()

    async def look(store: Store) -> None:
        assert store.put_back is not None
        found = (await store.journal.verify()).first_bad
        assert found is not None
        assert found.problem == "the tail is cut, or this is an older copy: a signed checkpoint knows entries up to 5"

    await place.within(look)
    assert place.file.read_text() == before
    assert place.copy() == copy


@on_sqlite
@pytest.mark.parametrize("how", ["gone", "empty", "older", "half a line", "only half a line", "gibberish"])
async def test_a_file_without_newer_checkpoints_stops_nothing(place: Place, how: str) -> None:
    older = place.file.read_bytes()
    await place.mail("U0")
    whole = place.file.read_bytes()
    half = b'{"journal": "0123456789abcdef", "seq": 99999, "at": 17'
    if how == "gone":
        place.file.unlink()
    else:
        place.file.write_bytes(
            {"empty": b"", "older": older, "half a line": whole + half, "only half a line": half,
             "gibberish": b"\0" * 300 + b"\xff\n\n{}\n[1]\n"}[how]
        )  # fmt: skip

    async def fine(store: Store) -> None:
        assert store.put_back is None
        await store.admit(item("V0"), relays("V0"))
        assert (await store.gate.read()).freezes == ()

    await place.within(fine)

    async def proved(store: Store) -> None:
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert proof.unreadable == {"half a line": 1, "only half a line": 1, "gibberish": 3}.get(how, 0)

    await place.within(proved)
    assert parse(place.file.read_text("utf-8", "replace").splitlines()[-1]).seq == 6, "on a line of its own"


@on_sqlite
async def test_a_copied_state_folder_stops_nothing(place: Place, tmp_path: Path) -> None:
    """A copied state folder without newer checkpoints freezes nothing, as after a move to another machine."""
    copy = place.copy()
    shutil.copytree(place.state, tmp_path / "moved")
    await place.mail("U0")
    place.put_back(copy)
    there = Place(place.url, tmp_path / "moved", place.clock)
    async with there.opened() as store:
        await store.admit(item("V0"), relays("V0"))
        assert store.put_back is None
        assert (await store.gate.read()).freezes == ()


@on_sqlite
async def test_a_busy_file_is_read_only_as_far_as_needed(place: Place) -> None:
    """Only the end of the file of checkpoints is read. The lines that would show the rollback come before it."""
    copy = place.copy()
    head = copy["head"][0]
    made = [
        sign(
            SECRET,
            replace(parse(place.file.read_text().splitlines()[0]), journal=head.journal, seq=1, at=n, hash=b"x" * 32),
        )
        for n in range(900)
    ]
    agreeing = place.file.read_text()
    place.file.write_text("".join(f"{line.line()}\n" for line in made) + agreeing * 200)
    async with place.opened() as store:
        assert store.put_back is None, "the proof finds what is old"
        assert not (await store.journal.verify()).ok


async def test_restored_twice_to_the_same_copy(place: Place) -> None:
    copy = place.copy()
    await place.mail("U0", "U1")
    place.put_back(copy)
    await place.mail("V0", "V1", "V2", "V3")
    place.put_back(copy)
    await place.mail("W0")

    async def proved(store: Store) -> None:
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert [(lost.seq, lost.through) for lost in proof.lost] == [(5, 9)]
        assert len((await store.gate.read()).freezes) == 1, "the first freeze was in the replaced store"

    await place.within(proved)


@on_sqlite
async def test_a_node_notices_what_it_alone_knows(place: Place, tmp_path: Path) -> None:
    """The node whose checkpoints are newer notices the rollback, once. A node with older ones notices nothing."""
    other = Place(place.url, tmp_path / "other", place.clock)
    copy = place.copy()
    await other.mail("U0", "U1", "U2")
    place.put_back(copy)
    await place.mail("V0", "V1", "V2", "V3", "V4")  # its checkpoints are as old as the copy
    async with place.opened() as store:
        assert (await store.gate.read()).freezes == ()
    for _ in range(2):
        await other.mail("W0")
    async with other.opened() as store:
        assert len((await store.gate.read()).freezes) == 1
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert [(lost.seq, lost.through) for lost in proof.lost] == [(10, 7)]
    await place.mail("X0")
    async with place.opened() as store:
        assert (await store.journal.verify()).ok
        assert len((await store.gate.read()).freezes) == 1


async def test_nodes_with_checkpoints_of_the_lost_time_freeze_once(place: Place, tmp_path: Path) -> None:
    other = Place(place.url, tmp_path / "other", place.clock)
    copy = place.copy()
    await other.mail("U0", "U1", "U2")
    await place.mail("U3")
    place.put_back(copy)
    await place.mail("V0")
    async with place.opened() as store:
        [freeze] = (await store.gate.read()).freezes
        await store.gate.thaw(freeze.freeze_id, event(Kind.THAW, freeze.freeze_id, at=store.now()))
    await other.mail("W0")
    async with other.opened() as store:
        assert (await store.gate.read()).freezes == (), "a person thawed it"
        assert (await store.journal.verify()).ok


async def test_a_running_process_notices_a_restore(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A running process notices the rollback on its new connection, by its own last commit, signed or not: a server was
    restored, or its standby lacked something."""
    async with place.opened() as store:
        await store.admit(item("U0"), relays("U0"))
        copy = place.copy()
        await store.gate.freeze(a_freeze("F1"), event(Kind.FREEZE, "F1", at=store.now()))
        await store.admit(item("U1"), relays("U1"))
        await break_connection(store)
        place.put_back(copy)
        with caplog.at_level(logging.ERROR):
            await store.admit(item("U2"), relays("U2"))
        assert "all mail is frozen" in caplog.text
        [freeze] = (await store.gate.read()).freezes
        assert (freeze.by, freeze.reason) == (ITSELF, PUT_BACK)
        await break_connection(store)
        await store.admit(item("U3"), relays("U3"))
        assert len((await store.gate.read()).freezes) == 1, "the same store behind another connection"


async def test_a_running_process_notices_a_restore_behind_its_own_connection(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """A dump restored into the database that is in use: no connection breaks, and the gate may be the same."""
    async with place.opened() as store:
        copy = place.copy()
        await store.admit(item("U0"), relays("U0"))
        place.put_back(copy)
        with caplog.at_level(logging.ERROR), pytest.raises(Unavailable, match="put back"):
            await store.admit(item("U1"), relays("U1"))
        await store.admit(item("U2"), relays("U2"))
        assert "all mail is frozen" in caplog.text
        [freeze] = (await store.gate.read()).freezes
        assert (freeze.by, freeze.reason) == (ITSELF, PUT_BACK)
        assert (await store.journal.verify()).ok


@on_sqlite
async def test_a_process_that_notices_a_restore_says_what_it_wrote(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older copy was put in the place of the file while it ran; its last commits are in no checkpoint yet. It says so
    once, though it cannot freeze everything at once."""
    async with place.opened() as store:
        copy = place.copy()
        await store.admit(item("U0"), relays("U0"))
        place.put_back(copy)
        store._database._files = (None, None)  # as after another file came into its place
        monkeypatch.setattr(rollbackcheck, "freeze_everything", Mock(side_effect=Full("no space")))
        for _ in range(2):
            with pytest.raises(StoreError):
                await store.admit(item("U1"), relays("U1"))
        monkeypatch.undo()
        await store.admit(item("U1"), relays("U1"))
        lines = (place.state / CHECKPOINTS).read_text().splitlines()
        assert len(lines) == len(set(lines))
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert [lost.through for lost in proof.lost] == [5]


@pytest.mark.parametrize("ends", [False, True])
async def test_another_server_behind_a_pooler_is_noticed(
    postgresql: str, tmp_path: Path, clock: Clock, ends: bool
) -> None:
    """A pooler keeps the connection and its server changes. By then another process has written more than was lost. It is
    noticed with the next message, or when the process ends and signs its last checkpoint there."""
    with a_database(postgresql) as url:
        place, other = (Place(url, tmp_path / name, clock) for name in ("state", "other"))
        await place.begin()
        async with place.opened() as store:
            copy = place.copy()
            await store.admit(item("U0"), relays("U0"))
            place.put_back(copy)
            await other.mail("V0", "V1", "V2")
            store._database._server = "started at another time"
            if not ends:
                await store.admit(item("U1"), relays("U1"))
        async with other.opened() as store:
            [freeze] = (await store.gate.read()).freezes
            assert (freeze.by, freeze.reason) == (ITSELF, PUT_BACK)


@on_sqlite
async def test_an_equal_generation_is_not_taken_for_the_known_gate(place: Place) -> None:
    async with place.opened() as store:
        copy = place.copy()
        known = await store.gate.freeze(a_freeze("F1"), event(Kind.FREEZE, "F1", at=store.now()))
        await store.journal.checkpoint()
        await break_connection(store)
        place.put_back(copy)
        async with place.opened() as second:
            await second.journal.record([event(Kind.VIEWED, "x", at=store.now())])
            [noticed] = (await second.gate.read()).freezes
            assert (await second.gate.read()).generation == known.generation
        seen: list[Any] = []

        def step(live: Any) -> Any:
            seen.extend(f.freeze_id for f in live.freezes)
            return relays("U1")(live)

        await store.admit(item("U1"), step)
        assert seen == [noticed.freeze_id]


async def test_a_process_that_ends_while_the_store_is_away_leaves_its_last_commit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server fails, and its stand-by lacks the last commits: they are less than a minute old, so no checkpoint is."""
    async with place.opened() as store:
        await store.admit(item("U0"), relays("U0"))
        copy = place.copy()
        await store.admit(item("U1"), relays("U1"))
        await away(store, monkeypatch)
    place.put_back(copy)

    async def later(opened: Store) -> None:
        await opened.admit(item("U2"), relays("U2"))
        [freeze] = (await opened.gate.read()).freezes
        assert (freeze.by, freeze.reason) == (ITSELF, PUT_BACK)
        proof = await opened.journal.verify()
        assert proof.ok, proof
        assert [lost.through for lost in proof.lost] == [6]

    await place.within(later)


@on_sqlite
async def test_the_last_commit_is_in_the_file_once_the_store_is_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a process that is killed then has left it too. A store that comes back as it was agrees with it."""
    async with place.opened() as store:
        await store.admit(item("U0"), relays("U0"))
        before = place.file.read_text()
        with monkeypatch.context() as patch:
            await away(store, patch)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await store.admit(item("U1"), relays("U1"))
            [line] = place.file.read_text().removeprefix(before).splitlines()
            assert parse(line).seq == 5
        await store.admit(item("U2"), relays("U2"))
        assert store.put_back is None
        proof = await store.journal.verify()
        assert (proof.ok, proof.lost, proof.unreadable) == (True, (), 0)


@on_sqlite
async def test_a_disk_that_takes_no_checkpoint_is_told_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried with each message of the outage, and written as soon as the disk takes it."""

    def unwritable(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    async with place.opened() as store:
        await store.admit(item("U0"), relays("U0"))
        before = place.file.read_text()
        with monkeypatch.context() as patch:
            await away(store, patch)
            for write_line in (unwritable, linefiles.write_line):
                patch.setattr(linefiles, "write_line", write_line)
                for _ in range(3):
                    with pytest.raises(Unavailable):
                        await store.admit(item("U1"), relays("U1"))
        assert [record.getMessage() for record in caplog.records if "checkpoint" in record.getMessage()] == [
            "no checkpoint can be written beside the database: Read-only file system",
            "no checkpoint can be written beside the database: over, after 0 s",
        ]
        [line] = place.file.read_text().removeprefix(before).splitlines()
        assert parse(line).seq == 5


@on_sqlite
async def test_what_may_not_be_on_disk_is_not_in_the_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure may undo a commit that is not synced; nor is it by a later one that writes nothing."""
    async with place.opened() as store:
        await store.admit(item("U0"), relays("U0"))
        await store.write(lambda batch: batch.record([event(Kind.VIEWED, "x", at=batch.now)]), synced=False)
        await store.write(lambda batch: None)
        await away(store, monkeypatch)
    assert parse(place.file.read_text().splitlines()[-1]).seq == 5


async def away(store: Store, patch: pytest.MonkeyPatch) -> None:
    """Let no transaction begin."""

    def gone(**_: object) -> None:
        raise OSError(errno.EIO, "away")

    patch.setattr(store._database, "_begin", gone)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_hold_whose_acknowledgement_a_stand_by_lacks_waits_for_its_decision(place: Place, ended: bool) -> None:
    """Without it, it would be void in 15 minutes. The process that acknowledged it knows that, or has ended meanwhile: then
    the lost time is noticed by what else was lost."""
    copies: list[Any] = []
    async with place.opened() as store:
        await store.contents.keep(CONTENT)
        acknowledge = store._writer._acknowledge

        def copied(works: Any) -> None:
            copies.append(place.copy())
            acknowledge(works)

        store._writer._acknowledge = copied  # type: ignore[assignment, method-assign]
        await store.admit(item("H9"), holds(a_hold("H9")))
        await store.try_write()  # the stand-by may lack this too, and nothing shows it
        if not ended:
            await break_connection(store)
            place.put_back(copies[0])
        await store.admit(item("U1"), relays("U1"))
    if ended:
        place.put_back(copies[0])
    async with place.opened() as store:
        await store.admit(item("U2"), relays("U2"))
        assert len((await store.gate.read()).freezes) == ended
        found = await store.holds.find("H9")
        assert found is not None
        assert found.acknowledged


async def break_connection(store: Store) -> None:
    """Break its database connection."""

    def fails(_: object) -> None:
        raise OSError(errno.EIO, "cut off")

    with pytest.raises(Unavailable):
        await store.write(fails)


async def test_a_hold_lost_by_a_restore_is_not_acknowledged(place: Place) -> None:
    """No client gets 250 if the store is restored between the commit of a hold and its acknowledgement."""
    async with place.opened() as store:
        await store.contents.keep(CONTENT)
        copy = place.copy()
        acknowledge = store._writer._acknowledge

        def lost(works: Any) -> None:
            store._database._drop()
            place.put_back(copy)
            acknowledge(works)

        store._writer._acknowledge = lost  # type: ignore[assignment, method-assign]
        with pytest.raises(Unavailable):
            await store.admit(item("H9"), holds(a_hold("H9")))


async def test_trimmed_entries_do_not_look_like_a_restore(place: Place, clock: Clock) -> None:
    copy = place.copy()
    await place.mail("U0", "U1")
    place.put_back(copy)
    await place.mail("V0", "V1", "V2", "V3")
    clock.pass_(days=401)
    await place.mail("W0")

    async def forget(store: Store) -> None:
        while (await store.retain(Retention())).more:
            pass

    await place.within(forget)
    await place.mail("X0")
    async with place.opened() as store:
        assert store.put_back is None
        proof = await store.journal.verify()
        assert proof.ok, proof
    place.file.unlink()
    async with place.opened() as store:
        assert (await store.journal.verify()).ok


# another store


def another(place: Place, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if place.url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/smtpgaurd.db"
    return new_database(request.getfixturevalue("postgresql"), empty=True)


@on_sqlite
async def test_no_new_store_is_created_beside_another_stores_folder(
    place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = another(place, request, tmp_path)
    before = place.file.read_bytes()
    for migrate in (True, False):
        with pytest.raises(Foreign) as refused:
            await place.mail("V0", url=url, migrate=migrate)
        assert refused.value.journal == json.loads(before.splitlines()[-1])["journal"]
    assert not (tmp_path / "smtpgaurd.db").exists(), "and nothing is left"
    assert place.file.read_bytes() == before
    place.file.rename(place.file.with_name("moved"))
    with pytest.raises(NotSetUp):
        await place.mail("V0", url=url, migrate=False)
    await place.begin(url=url)
    await place.mail("V1", url=url)


async def test_another_store_is_refused(place: Place, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = another(place, request, tmp_path)
    there = Place(url, tmp_path / "elsewhere", place.clock)
    await there.begin()
    copy = there.copy()
    for migrate in (True, False):
        with pytest.raises(Foreign):
            await place.mail("V1", url=url, migrate=migrate)
    assert there.copy() == copy


@on_sqlite
async def test_returning_to_the_first_store_keeps_the_proof(
    place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Foreign checkpoints in the file, from before such a store was refused, do not affect the proof."""
    url = another(place, request, tmp_path)
    there = Place(url, tmp_path / "elsewhere", place.clock)
    await there.begin()
    with place.file.open("ab") as file:
        file.write(there.file.read_bytes())
    await place.mail("U0")
    async with place.opened() as store:
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert proof.others == (parse(there.file.read_text().splitlines()[0]).journal,)
    there.state.joinpath(CHECKPOINTS).write_bytes(place.file.read_bytes())
    async with there.opened() as store:
        found = (await store.journal.verify()).first_bad
        assert found is not None, "this store was replaced, or its folder belonged to another"
        assert found.problem.startswith("the journal was replaced")


async def test_a_journal_replaced_under_a_running_process_is_refused(place: Place, tmp_path: Path) -> None:
    copy = place.copy()
    async with place.opened() as store:
        await store.admit(item("U0"), relays("U0"))
        await break_connection(store)
        head = copy["head"][0]
        place.put_back(
            {**copy, "head": [type("Row", (), {"_asdict": lambda self: {**head._asdict(), "journal": "f" * 16}})()]}
        )
        with pytest.raises(Foreign):
            await store.admit(item("U1"), relays("U1"))
        with pytest.raises(Foreign):
            await store.admit(item("U2"), relays("U2"))


# another secret


@on_sqlite
async def test_another_secret_is_refused_before_anything_is_written(place: Place) -> None:
    copy, before = place.copy(), place.file.read_bytes()
    for migrate in (True, False):
        with pytest.raises(OtherSecret):
            await place.mail("V0", secret=OTHER, migrate=migrate)
    place.file.unlink()
    with pytest.raises(OtherSecret):
        await place.mail("V0", secret=OTHER)
    place.file.write_bytes(before)
    assert place.copy() == copy
    await place.mail("V0")


@on_sqlite
async def test_a_second_node_with_its_own_secret_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(OtherSecret):
        await Place(place.url, tmp_path / "other", place.clock).mail("V0", secret=OTHER)


@on_sqlite
async def test_another_secret_without_a_store_is_refused(
    place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(OtherSecret):
        await place.mail("V0", url=another(place, request, tmp_path), secret=OTHER)


async def test_concurrent_openings_freeze_once(place: Place) -> None:
    copy = place.copy()
    await place.mail("U0")
    place.put_back(copy)

    async def one(n: int) -> None:
        async with place.opened() as store:
            await store.admit(item(f"V{n}"), relays(f"V{n}"))

    await asyncio.gather(*(one(n) for n in range(4)))
    async with place.opened() as store:
        assert len((await store.gate.read()).freezes) == 1
        assert (await store.journal.verify()).ok


async def test_the_newest_checkpoint_counts_despite_a_fast_clock(place: Place) -> None:
    copy = place.copy()
    place.clock.pass_(hours=5)
    await place.mail("U0")
    place.clock.at -= timedelta(hours=5)
    place.put_back(copy)
    for n in range(3):
        await place.mail(f"V{n}")
    async with place.opened() as store:
        assert len((await store.gate.read()).freezes) == 1
        assert (await store.journal.verify()).ok
