"""Doubt: killed, slow and stopped owners of a lease, a store that is lost, a reply that is lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from smtpguard.holds.model import State
from smtpguard.mail.envelope import Lost
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RELAY_LOST
from smtpguard.outbox.attempt import PACE
from smtpguard.outbox.delivery import RELEASE_FIELD
from smtpguard.wire.deliveries import Deliveries
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.target import RelayTarget, Tls
from tests.guard.house import MEMBERS, RAMADAN
from tests.guard.office import BO, DI, Office
from tests.script import DOT, DROP
from tests.scripted_relay import ScriptedRelay

SOME = MEMBERS[:20]
ONE = SOME[0]


async def approved(office: Office) -> str:
    """An approved message to single people, which is tried once more automatically when in doubt."""
    return await office.approved(*SOME, to_list=False, To="anna@example.com")


# doubt


async def test_what_is_being_sent_while_a_clock_is_set_right_is_sent_once(office: Office) -> None:
    office.clock.at += timedelta(days=800)
    hold_id = await approved(office)
    other = office.hire("two")

    async def corrected() -> None:
        office.relay.before_dot = lambda: None
        office.clock.at -= timedelta(days=800)
        await office.store.outbox.hasten()
        await office.go(minutes=1)
        assert await other.step() == 0

    office.relay.before_dot = corrected
    await office.step()
    assert office.relay.has(ONE) == 1
    assert await office.state(hold_id) is State.RELEASED


async def test_a_lost_answer_is_in_doubt_and_tried_once_more(office: Office) -> None:
    hold_id = await approved(office)
    office.relay.raises, office.relay.takes_before_raising = Lost(RELAY_LOST, after_dot=True), True
    await office.step()
    assert await office.step(minutes=29) == 0
    assert await office.step(minutes=2) == 1
    assert office.relay.has(ONE) == 2
    first, second = (Message.of(raw).header for _, raw in office.relay.taken)
    for name in ("Message-ID", RELEASE_FIELD):
        assert first.get(name) == second.get(name) != None  # noqa: E711
    await office.until_quiet()
    assert office.relay.has(ONE) == 2  # never a third time
    assert [line for line in await office.journal(hold_id) if not line.startswith("notice")] == [
        "release attempt attempt",
        "in-doubt in-doubt lost",
        "in-doubt attempt again",
        "in-doubt in-doubt lost",
        "in-doubt failed given-up",
        "released",
    ]
    (dsn,) = office.dsns()
    assert dsn.data["recipients"][0]["why"] == "in-doubt"


async def test_an_unexpected_error_is_in_doubt(office: Office) -> None:
    hold_id = await approved(office)
    office.relay.raises = RuntimeError("bug")
    await office.until_quiet(steps=10)
    assert await office.state(hold_id) is State.IN_DOUBT
    assert len(office.relay.asked) == 2 + len(office.dsns()) * 2
    assert "in-doubt in-doubt RuntimeError" in await office.journal(hold_id)


# two owners, and a store that is lost


async def test_a_paused_owner_may_not_send_its_final_dot(office: Office) -> None:
    hold_id = await office.approved()
    stopped = PACE.doubt - PACE.reply

    async def stop() -> None:
        await office.go(seconds=stopped.total_seconds())

    office.relay.before_dot = stop
    await office.step()
    assert office.relay.taken == []
    assert (await office.journal(hold_id))[-1] == "release retry recalled"


@pytest.mark.parametrize(("fails", "written"), [(5, False), (1, True)])
async def test_the_relays_answer_is_stored_once_the_store_returns(office: Office, fails: int, written: bool) -> None:
    """``written``: the commit's own answer was lost."""
    hold_id = await office.approved()
    store = office.flaky()
    office.relay.before_dot = lambda: store.fail(fails, written=written)
    await office.step()
    assert store.failed == fails
    assert await office.state(hold_id) is State.RELEASED
    assert (await office.journal(hold_id)).count("released") == 1
    assert await office.step(hours=1) == 0
    assert office.relay.has(RAMADAN) == 1


async def test_without_a_recorded_attempt_nothing_is_sent(office: Office) -> None:
    await office.approved()
    office.flaky().fail(1)
    await office.step()
    assert office.relay.taken == []
    await office.step(seconds=61)
    assert office.relay.has(RAMADAN) == 1


async def test_killed_before_the_mark_it_is_sent_once_and_is_never_in_doubt(office: Office) -> None:
    """MAIL and RCPT were accepted, and no dot was sent: the next worker sends it as if nothing had been."""
    hold_id = await approved(office)
    (lease,) = await office.store.outbox.lease("killed 1", 10, 600)
    office.relay.before_mark = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await office.worker.carry_out(lease)
    assert await office.state(hold_id) is State.APPROVED
    office.relay.before_mark = None
    assert await office.step(seconds=30) == 0, "it is leased"
    assert await office.store.outbox.abandon(lambda owner: owner == "killed 1") == 1
    assert await office.step() == 1
    assert office.relay.has(ONE) == 1
    assert await office.journal(hold_id) == ["release attempt attempt", "release sent 250 2.0.0", "released"]


# over a real connection


async def test_a_relay_that_loses_the_answer_over_smtp(office: Office) -> None:
    async with ScriptedRelay() as relay:
        pool = RelayPool(RelayTarget(port=relay.port, tls=Tls.NONE))
        office.worker = office.hire(relay=Deliveries(pool))
        hold_id = await office.approved(BO, DI, *SOME, to_list=False, To="anna@example.com")
        hold = await office.home.hold(hold_id)
        relay.on(f"RCPT TO:<{BO}", "550 5.1.1 No such user")
        relay.on(f"RCPT TO:<{DI}", "451 4.2.0 Later", times=1)
        relay.on(DOT, DROP, times=1)
        await office.step()
        await office.step(minutes=31)
        await office.step(hours=1)
        await pool.close()
    releases = [m for m in relay.messages if m.mail.startswith(b"MAIL FROM:<anna@")]
    raw = bytes((await office.store.contents.load(hold.content_sha256)).raw)
    assert all(m.content.endswith(raw) for m in releases)
    assert len(releases) == 2  # the others twice; DI once, with the second
    assert [b"di@example.net" in b"".join(m.rcpts) for m in releases] == [False, True]
    assert await office.state(hold_id) is State.RELEASED
    assert [r["address"] for d in office.dsns() for r in d.data["recipients"]] == [BO]
