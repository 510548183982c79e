"""A new secret: it proves what the old one signed, and hides no restore."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from smtpguard.database.engine import Database
from smtpguard.database.schema import checkpoint
from smtpguard.journal import signing
from smtpguard.journal.checkpoint import parse, sign
from smtpguard.journal.event import Event, Kind
from smtpguard.store.retention import Retention
from smtpguard.store.rollbackcheck import OtherSecret
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.making import SECRET, event, item, on_sqlite, relays
from tests.store.place import OTHER, Place, prepared


@pytest.fixture
async def place(url: str, tmp_path: Path, clock: Clock) -> Place:
    return await prepared(url, tmp_path / "state", clock)


async def test_a_renewed_secret_is_accepted(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async with place.opened() as running:
        await running.admit(item("U0"), relays("U0"))
        place.clock.pass_(minutes=1)
        async with place.opened(secret=OTHER, renewing=()) as store:
            await store.renew(Event(kind=Kind.SECRET, id="S", at=store.now(), private={"actor": ("root",)}))
        with pytest.raises(OtherSecret):
            await running.admit(item("U1"), relays("U1"))
    assert "no last checkpoint: the secret is not the one" in caplog.text, "the other store would then be refused"
    place.clock.pass_(minutes=1)
    with pytest.raises(OtherSecret):
        await place.mail("V0")
    await place.mail("V0", "V1", secret=OTHER)

    async def proved(store: Store) -> None:
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert proof.renewed == 6
        assert proof.lost == ()

    await place.within(proved, secret=OTHER)
    place.clock.pass_(days=401)
    await place.mail("W0", secret=OTHER)

    async def forget(store: Store) -> None:
        while (await store.retain(Retention())).more:
            pass
        assert (await store.journal.verify()).ok

    await place.within(forget, secret=OTHER)


@pytest.mark.parametrize("before", [SECRET, b""], ids=["known", "lost"])
async def test_a_renewed_secret_proves_what_the_old_one_signed(place: Place, before: bytes) -> None:
    """A trimmed journal, and one that is older than the writer leaves any entry unsigned. If the secret is lost, nothing
    proves the times, but that is no change of an entry."""
    place.clock.pass_(days=401)
    for n in range(9):
        await place.mail(f"U{n}")

    async def forget(store: Store) -> None:
        while (await store.retain(Retention())).more:
            pass
        await store.journal.record([event(Kind.VIEWED, "x", at=store.now())])

    await place.within(forget)
    await place.renew(before)

    async def proved(store: Store) -> None:
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert (proof.trimmed, proof.renewed) == (4, 16)

    await place.mail("V0", secret=OTHER)
    await place.within(proved, secret=OTHER)
    database = Database(place.url)
    with database.write() as connection:
        connection.execute(checkpoint.delete().where(checkpoint.c.seq > 4, checkpoint.c.notable.is_(None)))
    database.close()
    async with place.opened(secret=OTHER) as store:
        assert (await store.journal.verify()).ok == (not before), "checkpoints were removed"


async def thawed(store: Store) -> None:
    await store.journal.record([event(Kind.VIEWED, "x", at=store.now())])  # the first write freezes
    for stop in (await store.gate.read()).freezes:
        await store.gate.thaw(stop.freeze_id, event(Kind.THAW, stop.freeze_id, at=store.now()))


async def frozen(store: Store) -> int:
    """How many freezes there are; what is lost is told, and the journal holds."""
    proof = await store.journal.verify()
    assert proof.ok, proof
    assert proof.lost
    return len((await store.gate.read()).freezes)


async def test_a_new_secret_after_a_restore_freezes_nothing(place: Place, clock: Clock) -> None:
    copy = place.copy()
    place.clock.pass_(hours=5)
    await place.mail("U0", "U1", "U2", "U3")
    place.clock.at -= timedelta(hours=5)
    place.put_back(copy)
    await place.within(thawed)
    await place.mail("V0")
    await place.renew()
    await place.mail("V1", secret=OTHER)
    assert await place.within(frozen, secret=OTHER) == 0
    async with place.opened(secret=OTHER) as store:
        assert store.put_back is None
    clock.pass_(days=401)
    await place.mail("W0", secret=OTHER)

    async def forget(store: Store) -> None:
        while (await store.retain(Retention())).more:
            pass

    await place.within(forget, secret=OTHER)
    async with place.opened(secret=OTHER) as store:
        proof = await store.journal.verify()
        assert proof.ok, "also without the entry in which both keys sign"


@on_sqlite
@pytest.mark.parametrize(
    "restored", ["before the renewal", "before the first restore was noticed", "with a lost secret"]
)
async def test_a_renewal_hides_no_restore(place: Place, restored: str) -> None:
    copy = place.copy()
    await place.mail("U0", "U1")
    place.put_back(copy)
    await place.within(thawed)
    await place.within(lambda store: store.write(lambda b: signing.rotate_key(b, event(Kind.KEY, "K", at=store.now()))))
    explained = place.copy()
    await place.mail("V0", "V1", "V2")
    if restored != "with a lost secret":
        place.put_back(copy if restored == "before the first restore was noticed" else explained)
    await place.renew(b"" if restored == "with a lost secret" else SECRET)
    assert await place.within(frozen, secret=OTHER) == 1
    await place.mail("W0", secret=OTHER)
    assert await place.within(frozen, secret=OTHER) == 1, "it is reported once"


async def test_after_a_renewal_the_old_secret_excuses_nothing(place: Place) -> None:
    """As if it was stolen: a checkpoint of the old secret that explains a restore is forged only afterwards."""
    await place.renew()
    copy = place.copy()
    await place.mail("U0", "U1", secret=OTHER)
    row = copy["checkpoint"][0]
    told = parse(row.line)
    forged = sign(SECRET, replace(told, put_back=0, at=told.at + 10**12, note="")).line()
    later = [type("Row", (), {"_asdict": lambda self: {**row._asdict(), "line": forged, "notable": True}})()]
    place.put_back({**copy, "checkpoint": later + copy["checkpoint"][1:]})
    await place.mail("V0", secret=OTHER)
    async with place.opened(secret=OTHER) as store:
        assert len((await store.gate.read()).freezes) == 1


@on_sqlite
async def test_a_restore_to_before_a_renewed_secret_freezes(place: Place) -> None:
    """With the old secret, the new one's checkpoints look forged, so all mail is frozen."""
    copy = place.copy()
    async with place.opened(secret=OTHER, renewing=()) as store:
        await store.renew(Event(kind=Kind.SECRET, id="S", at=store.now()))
    place.clock.pass_(minutes=1)
    await place.mail("U0", "U1", secret=OTHER)
    place.put_back(copy)
    with pytest.raises(OtherSecret):
        await place.mail("V0", secret=OTHER)
    await place.mail("V0")
    await place.mail("V1")
    async with place.opened() as store:
        assert len((await store.gate.read()).freezes) == 1
        proof = await store.journal.verify()
        assert proof.ok, proof
        assert [lost.through for lost in proof.lost] == [7]
