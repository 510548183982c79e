"""The delivery worker on the real store, with a scripted relay: success, retries, time, freezes, its loop, and reports to the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.database.errors import ContentMissing, Unavailable
from smtpguard.holds.model import Hold, State
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Answers, Envelope, Fence, Lost, Recipient
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RELAY_UNAVAILABLE, Reply, Unsendable
from smtpguard.mail.trace import trusted
from smtpguard.outbox import rows
from smtpguard.outbox.attempt import PACE
from smtpguard.outbox.delivery import MOST, RELEASE_FIELD
from smtpguard.outbox.model import Lease
from smtpguard.policy.freezing import Gate, Selector
from smtpguard.policy.verdict import Relayed
from smtpguard.store.retention import Retention
from tests.guard.house import KEY, RAMADAN, FakePassage, House, PatchedStore
from tests.guard.office import BO, DI, LATER, NO, ULF, FakeRelay, Office

# success


async def test_a_release_goes_to_all_recipients_unchanged(office: Office) -> None:
    hold_id = await office.approved(ULF)
    hold = await office.home.hold(hold_id)
    assert await office.step() == 1
    ((envelope, sent),) = office.relay.taken
    content = await office.store.contents.load(hold.content_sha256)
    assert sent.endswith(bytes(content.raw))
    trace = Message.of(sent[: -len(content.raw)] + b"\r\n").header
    assert [f.name for f in trace.fields] == ["Received", "X-Smtpguard", RELEASE_FIELD]
    assert trace.get(RELEASE_FIELD) == f"{hold_id}-release"
    info = trusted(Message.of(sent).header, KEY)
    assert info is not None
    assert info.id == hold_id
    assert info.admitted_to("ramadan", KEY)
    assert not info.admitted_to("news", KEY)
    assert envelope == hold.envelope
    assert await office.state(hold_id) is State.RELEASED
    assert await office.journal(hold_id) == ["release attempt attempt", "release sent 250 2.0.0", "released"]
    assert await office.step(hours=1) == 0
    assert not [i for i in office.renderer.asked if i.data.get("outcome") == "released"], "no freeze made it late"


@pytest.mark.parametrize("refused", [(RAMADAN,), (RAMADAN, ULF)])
async def test_a_retry_of_an_incomplete_release_is_judged_again(office: Office, refused: Sequence[str]) -> None:
    """A retry of a message whose release failed for some is decided again, or it would be lost for them. The approval
    still covers it, so the relay answers."""
    office.relay.says = {address: Reply.of(550, "5.1.1", "No such user") for address in refused}
    first = await office.approved(ULF)
    await office.until_quiet(steps=2)
    assert await office.state(first) is (State.RELEASED if len(refused) < 2 else State.UNDELIVERED)
    still = Reply.of(550, "5.1.1", "No such user")
    done = await office.home.intake()(office.home.transaction(RAMADAN, ULF), way := FakePassage(replies=(still,)))
    assert (done, len(way.sent)) == (Relayed(replies=(still,)), 1)


async def test_no_address_is_in_the_chained_part_nor_in_the_relays_words(office: Office) -> None:
    office.relay.says = {
        who: Reply.of(550, "5.1.1", f"<{who}>: {who.partition('@')[0]} is unknown") for who in (BO, DI)
    }
    hold_id = await office.approved(BO, DI)
    await office.step()
    told = [(one.data, names) for one, names in await office.store.journal.history(hold_id) if one.kind == "release"]
    assert told
    assert BO not in str([data for data, _ in told])
    said = [names["comment"] for data, names in told if names is not None and data["outcome"] == "failed"]
    assert said == [["550 5.1.1 <...>: ... is unknown"]]


async def test_the_colleagues_part_is_sent_while_the_hold_waits(office: Office, home: House) -> None:
    members = [f"customer{n}@example.net" for n in range(25)]
    hold_id = (await home.held(*members, ULF, To=", ".join(members))).hold_id
    await office.until_quiet(timedelta(minutes=1), 3)
    parts = [envelope for envelope, _ in office.relay.taken if envelope.reverse_path is not None]
    assert [str(a) for e in parts for a in e.addresses] == [ULF]
    assert await office.state(hold_id) is State.WAITING
    assert "released" not in await office.journal(hold_id)


# time


def test_retry_delays_double_up_to_an_hour_with_jitter() -> None:
    assert [PACE.again(n, 0.5) // timedelta(minutes=1) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert PACE.again(0, 0) == timedelta(seconds=48)
    assert PACE.again(0, 1) == timedelta(seconds=72)
    assert PACE.again(10_000, 1) == timedelta(minutes=72)


@pytest.mark.parametrize("fails", [LATER, Lost(RELAY_UNAVAILABLE), OSError("broken")], ids=["reply", "lost", "error"])
async def test_a_relay_that_is_slow_to_fail_is_left_alone_all_the_same(
    office: Office, fails: Reply | Exception
) -> None:
    class Slow(FakeRelay):
        async def deliver(self, *args: Any) -> Answers:
            await office.go(minutes=5)
            if isinstance(fails, Exception):
                self.asked.append([])
                raise fails
            return await super().deliver(*args)

    slow = Slow(says={RAMADAN: fails} if isinstance(fails, Reply) else {})
    await office.approved()
    office.worker = office.hire(relay=slow)
    assert await office.step() == 1
    assert await office.step(seconds=119) == 0
    assert await office.step(seconds=1) == 1
    assert len(slow.asked) == 2


async def test_recipients_beyond_the_relays_limit_have_the_next_transactions(office: Office) -> None:
    """With the pauses between attempts, the last of a long list would expire after two days."""
    people = [f"customer{n}@example.net" for n in range(7)]

    class Limited(FakeRelay):
        async def deliver(self, envelope: Envelope, *args: Any) -> Answers:
            self.says = dict.fromkeys(map(str, envelope.addresses[2:]), Reply.of(452, "4.5.3", "Too many recipients"))
            return await super().deliver(envelope, *args)

    relay = Limited()
    hold_id = await office.approved(*people)
    office.worker = office.hire(relay=relay)
    for _ in range(8):
        await office.step()
    assert [relay.has(who) for who in (RAMADAN, *people)] == [1] * 8
    assert await office.state(hold_id) is State.RELEASED


async def test_those_whom_a_relay_refused_before_it_closed_are_not_tried_again(office: Office) -> None:
    """Postfix closes after 20 refusals: it would close each time, and the others would never get the message."""
    lost = Lost(RELAY_UNAVAILABLE)
    lost.heard = [lost.reply, Reply.of(550, "5.1.1", "No such user"), LATER]
    hold_id = await office.approved(BO, DI)
    office.relay.raises = lost
    await office.step()
    office.relay.raises = None
    await office.step()
    assert [asked for asked in office.relay.asked if RAMADAN in asked] == [[RAMADAN, BO, DI], [RAMADAN]]
    assert office.relay.has(RAMADAN) == 1
    await office.step(minutes=5)
    assert (office.relay.has(BO), office.relay.has(DI)) == (0, 1)
    assert await office.state(hold_id) is State.RELEASED


async def test_a_relay_that_takes_nothing_is_left_alone(office: Office) -> None:
    office.relay.says = dict.fromkeys((RAMADAN, BO), Reply.of(452, "4.3.1", "Insufficient system storage"))
    await office.approved(BO)
    for _ in range(3):
        await office.step()
    assert len([asked for asked in office.relay.asked if RAMADAN in asked]) == 1


async def test_a_relay_down_for_days_expires_nothing(office: Office) -> None:
    hold_id = await office.approved()
    office.relay.raises = Lost(RELAY_UNAVAILABLE)
    await office.until_quiet(timedelta(hours=6), 12)
    assert await office.state(hold_id) is State.APPROVED, "nothing of it was ever at the relay: it can be revoked"
    assert {d.data["action"] for d in office.dsns()} <= {"delayed"}
    office.relay.raises = None
    await office.until_quiet(timedelta(hours=1), 2)
    assert office.relay.has(RAMADAN) == 1
    assert await office.state(hold_id) is State.RELEASED


@pytest.mark.parametrize("broken", ["before", "after"])
async def test_recipients_on_two_routes_are_separate_transactions(office: Office, broken: str) -> None:
    """What one relay does, or does not say, is nothing to the recipients of the other."""
    other = FakeRelay(raises=Lost(RELAY_UNAVAILABLE, after_dot=broken == "after"))
    asked: list[tuple[str, str]] = []

    def route(listener: str, address: Address) -> FakeRelay:
        asked.append((listener, str(address)))
        return other if address.domain == "example.net" else office.relay

    office.worker = office.hire(route=route)
    hold_id = await office.approved(BO, DI)
    await office.step()
    hold = await office.home.hold(hold_id)
    assert {listener for listener, address in asked if address in (BO, DI, RAMADAN)} == {hold.session.listener}
    assert (office.relay.has(RAMADAN), office.relay.has(BO)) == (1, 0)
    assert other.asked[0] == [BO, DI]
    assert await office.state(hold_id) is State.RELEASING
    other.raises = None
    await office.until_quiet(timedelta(hours=1), 3)
    assert await office.state(hold_id) is State.RELEASED
    assert (office.relay.has(RAMADAN), other.has(BO), other.has(DI), other.has(RAMADAN)) == (1, 1, 1, 0)


async def test_many_recipients_are_several_transactions(office: Office) -> None:
    """As many in each as every server takes, and those that one does not get are tried again alone."""
    people = [f"person{n}@example.net" for n in range(2 * MOST + 1)]
    hold_id = await office.approved(*people)
    await office.step()
    sent = [some for some in office.relay.asked if len(some) > 1]
    assert [len(some) for some in sent] == [MOST, MOST, 2]
    assert sorted(one for some in sent for one in some) == sorted([RAMADAN, *people])
    await office.until_quiet(timedelta(hours=1), 3)
    assert await office.state(hold_id) is State.RELEASED
    assert {office.relay.has(one) for one in [RAMADAN, *people]} == {1}


async def test_an_unknown_route_costs_no_attempt(office: Office) -> None:
    """The policy, which the store may not give, has the list that a route is for."""
    away = True

    def route(listener: str, address: Address) -> FakeRelay:
        if away:
            raise Unavailable("no policy")
        return office.relay

    office.worker = office.hire(route=route)
    hold_id = await office.approved()
    await office.until_quiet(timedelta(hours=1), 3)
    assert await office.state(hold_id) is State.APPROVED, "nothing is in doubt"
    away = False
    await office.until_quiet(timedelta(hours=1), 3)
    assert (await office.state(hold_id), office.relay.has(RAMADAN)) == (State.RELEASED, 1)


# freezes


async def test_a_freeze_of_another_list_before_the_final_dot_does_not_stop_it(office: Office) -> None:
    await office.approved()
    office.relay.before_dot = lambda: office.home.freeze(Selector.LIST, "news")
    await office.step()
    assert office.relay.has(RAMADAN) == 1


async def test_a_freeze_after_the_lease_costs_no_attempt(office: Office) -> None:
    await office.approved()
    (lease,) = await office.store.outbox.lease("one", 10, 60)
    await office.home.freeze()
    await office.worker.carry_out(lease)
    assert office.relay.asked == []


async def test_an_unreadable_gate_stops_releases_but_not_notices(office: Office, home: House) -> None:
    class Away:
        async def read(self) -> Gate:
            raise Unavailable

    hold_id = await office.approved()
    await home.held(RAMADAN, Message_ID="<2@example.com>")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(home.watch, "gates", Away())
        office.clock.pass_(seconds=2)
        await office.worker.step()
    assert office.relay.has(RAMADAN) == 0
    assert office.relay.has("anna@example.com") == 1
    assert await office.state(hold_id) is State.APPROVED
    await office.step(seconds=16)
    assert office.relay.has(RAMADAN) == 1


# what cannot be sent


async def test_failing_rendering_is_retried_a_few_times(office: Office, home: House) -> None:
    hold_id = (await home.held()).hold_id
    office.renderer.raises = KeyError("template")
    await office.step()
    asked = len(office.renderer.asked)
    assert await office.step(seconds=1) == 0
    await office.until_quiet()
    assert len(office.renderer.asked) == asked * PACE.renderings
    assert (await office.journal(hold_id))[-1] == "notice failed not rendered: KeyError"
    assert office.relay.asked == []


async def test_rendering_that_fails_for_the_store_is_retried(office: Office, home: House) -> None:
    await home.held()
    office.renderer.raises = Unavailable("away")
    await office.until_quiet(steps=20)
    office.renderer.raises = None
    await office.step(hours=1)
    assert office.relay.has("anna@example.com") == 1


@pytest.mark.parametrize(
    ("said", "tried"),
    [
        (Unsendable.of(554, "5.6.3", "8-bit"), 2),
        (Reply.of(553, "5.6.7", "of the relay's own"), 2),
        (Reply.of(550, "5.1.1", "No such user"), 1),
    ],
)
async def test_a_form_that_the_relay_cannot_take_is_replaced(
    office: Office, home: House, said: Reply, tried: int
) -> None:
    hold_id = (await home.held()).hold_id
    wide, narrow = b"Subject: \xc3\xa5\r\n\r\nx\r\n", b"Subject: a\r\n\r\nx\r\n"
    office.renderer.forms = (wide, narrow)
    office.relay.refuses = {wide: said}
    await office.step()
    people = {str(a) for i in office.renderer.asked for a in (r.address for r in i.recipients)}
    assert len(office.relay.asked) == tried * len(people)
    assert {raw for _, raw in office.relay.taken} == ({narrow} if tried == 2 else set())
    if tried == 2:
        assert set(await office.journal(hold_id)) == {"notice sent 250 2.0.0"}


async def test_an_empty_digest_is_not_sent(office: Office, home: House) -> None:
    hold_id = (await home.held()).hold_id
    office.renderer.nothing = True
    await office.step()
    assert await office.step(hours=1) == 0
    assert office.relay.asked == []
    assert set(await office.journal(hold_id)) == {"notice obsolete nothing to say"}


async def test_missing_content_is_reported(office: Office) -> None:
    hold_id = await office.approved()

    async def gone(sha256: str) -> Message:
        raise ContentMissing(sha256)

    office.home.given_store = PatchedStore(office.store, {"contents.load": gone})
    office.worker = office.hire()
    await office.step()
    await office.step()
    assert "release failed the content is not kept any more" in await office.journal(hold_id)
    assert [d.data["recipients"][0]["why"] for d in office.dsns()] == ["missing"]


async def test_a_failing_entry_does_not_stop_the_others(office: Office) -> None:
    good = await office.approved(Message_ID="<good@example.com>")
    bad = await office.approved(Message_ID="<bad@example.com>")

    async def hold(hold_id: str) -> Hold | None:
        if hold_id == bad:
            raise RuntimeError("bug")
        return await office.store.holds.find(hold_id)

    office.home.given_store = PatchedStore(office.store, {"holds.find": hold})
    office.worker = office.hire()
    await office.step()
    assert await office.state(good) is State.RELEASED
    assert await office.state(bad) is State.APPROVED


# the loop


async def test_it_stops_after_finishing_the_current_entry(office: Office) -> None:
    hold_id = await office.approved()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await go_on.wait()
        await office.home.watch.read()

    async def pause(seconds: float) -> None:
        await asyncio.sleep(0)

    office.relay.before_dot = wait
    office.worker = office.hire(pause=pause)
    running = asyncio.create_task(office.worker.run())
    await asyncio.wait_for(begun.wait(), 120)
    office.worker.stop()
    await asyncio.sleep(0.01)
    assert not running.done()
    go_on.set()
    await asyncio.wait_for(running, 120)
    assert await office.state(hold_id) is State.RELEASED


async def test_it_pauses_while_the_outbox_cannot_be_read(office: Office) -> None:
    pauses = 0

    async def lease(owner: str, n: int, seconds: int) -> Sequence[Lease]:
        raise Unavailable("away")

    async def pause(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 3:
            office.worker.stop()

    office.home.given_store = PatchedStore(office.store, {"outbox.lease": lease})
    office.worker = office.hire(pause=pause)
    await asyncio.wait_for(office.worker.run(), 120)
    assert pauses == 3


async def test_a_5xx_is_reported_to_the_sender_and_settles_the_recipient(office: Office) -> None:
    office.relay.says = {BO: NO}
    hold_id = await office.approved(ULF, BO, envelope={"envid": "QQ1", "ret": "HDRS"})
    await office.step()
    assert await office.state(hold_id) is State.RELEASED
    await office.step()
    (dsn,) = office.dsns()
    assert dsn.data["action"] == "failed"
    assert [r["address"] for r in dsn.data["recipients"]] == [BO]
    assert dsn.data["recipients"][0]["reply"] == str(NO)
    assert (dsn.data["envid"], dsn.data["ret"]) == ("QQ1", "HDRS")
    assert [str(r.address) for r in dsn.recipients] == ["anna@example.com"]
    assert office.relay.taken[-1][0].reverse_path is None
    assert (await office.journal(hold_id))[-1] == "notice sent 250 2.0.0"


@pytest.mark.parametrize(
    ("notify", "told"), [(None, True), ("NEVER", False), ("SUCCESS,Delay", False), ("failure", True)]
)
async def test_notify_is_honoured(office: Office, notify: str | None, told: bool) -> None:
    recipients = tuple(Recipient(address=Address.parse(a), notify=notify, orcpt="rfc822;x") for a in (RAMADAN, BO))
    hold_id = await office.approved(envelope={"recipients": recipients})
    office.relay.says = {BO: NO}
    await office.step()
    await office.step()
    assert len(office.dsns()) == told
    assert "release failed 550 5.1.1" in await office.journal(hold_id)


@pytest.mark.parametrize("reverse_path", [None, Address.parse(RAMADAN)])
async def test_a_null_reverse_path_or_a_list_gets_no_dsn_but_an_entry(
    office: Office, reverse_path: Address | None
) -> None:
    """The message, returned to a list, would be sent to everybody on it."""
    members = [f"customer{n}@example.net" for n in range(20)]
    office.relay.says = {members[0]: NO}
    hold_id = await office.approved(*members, envelope={"reverse_path": reverse_path}, to_list=False, To=ULF)
    await office.step()
    await office.step()
    assert office.dsns() == []
    failed = [data for kind, data in await office.home.events(hold_id) if data.get("outcome") == "failed"]
    assert [(d["why"], d["dsn"]) for d in failed] == [("refused", False)]


async def test_a_failed_notice_makes_no_dsn(office: Office, home: House) -> None:
    office.relay.says = {"anna@example.com": NO}
    hold_id = (await home.held()).hold_id
    await office.step()
    await office.step()
    assert office.dsns() == []
    assert "notice failed 550 5.1.1" in await office.journal(hold_id)
    assert await office.step(hours=1) == 0


async def test_an_unsendable_message_is_not_reported_as_the_relays_answer(office: Office) -> None:
    office.relay.says = {BO: Unsendable.of(554, "5.6.9", "The header needs SMTPUTF8")}
    hold_id = await office.approved(BO)
    await office.step()
    await office.step()
    (dsn,) = office.dsns()
    (row,) = dsn.data["recipients"]
    assert (row["why"], row["status"], row["reply"]) == ("unsendable", "5.6.9", "")
    assert "release failed 5.6.9 The header needs SMTPUTF8" in await office.journal(hold_id)


@pytest.mark.parametrize(
    ("notify", "reports", "told"),
    [
        (None, False, False),
        ("NEVER", False, False),
        ("FAILURE,DELAY", False, False),
        ("failure,Success", False, True),
        ("failure,Success", True, False),
    ],
)
async def test_without_dsn_at_the_relay_requested_success_is_reported(
    office: Office, notify: str | None, reports: bool, told: bool
) -> None:
    """If success was asked for, a relay without DSN is reported as relayed, since no later server will report (RFC
    3461, section 5.2.2, b)."""
    office.relay.reports = reports
    recipients = tuple(Recipient(address=Address.parse(a), notify=notify, orcpt="rfc822;x") for a in (RAMADAN, BO, DI))
    await office.approved(envelope={"recipients": recipients, "envid": "QQ1"})
    office.relay.says = {BO: LATER, DI: NO}
    await office.step()
    office.relay.says = {}
    await office.step(minutes=5)
    await office.step(minutes=5)
    found = [d.data for d in office.dsns() if d.data["action"] == "relayed"]
    assert [[r["address"] for r in d["recipients"]] for d in found] == ([[RAMADAN], [BO]] if told else [])
    assert all(d["envid"] == "QQ1" for d in found)


async def test_a_failed_colleagues_part_is_not_reported_as_held(office: Office, home: House) -> None:
    office.relay.says = {ULF: NO}
    members = [f"customer{n}@example.net" for n in range(25)]
    await home.send(*members, ULF, To=", ".join(members))
    await office.step()
    await office.step()
    (dsn,) = office.dsns()
    assert (dsn.data["part"], dsn.data["subject"]) == (True, "SV: lunch")


async def test_a_wrong_clock_ends_no_delivery(office: Office) -> None:
    """What was to be retried, or came into the outbox, under a clock that was ahead is sent once it is set right."""
    office.relay.says = {RAMADAN: LATER}
    before = await office.approved()
    await office.step()
    office.clock.at += timedelta(days=800)
    await office.step()
    assert (await office.state(before), office.dsns()) == (State.RELEASING, [])
    meanwhile = await office.approved(subject="Meanwhile")
    await office.step()
    office.clock.at -= timedelta(days=800)
    office.relay.says = {}
    await office.step(hours=2)
    assert await office.state(before) is await office.state(meanwhile) is State.RELEASING
    await office.store.outbox.hasten()
    await office.step()
    assert await office.state(before) is await office.state(meanwhile) is State.RELEASED
    assert await office.store.ask(lambda c: rows.misdated(c, office.clock.now())) == []


async def test_a_clock_that_was_behind_gives_nothing_up_early(office: Office) -> None:
    """As after a boot without a battery, until the time of the network has come."""
    office.relay.says = {RAMADAN: LATER}
    hold_id = await office.approved()
    await office.step()
    office.clock.at -= timedelta(days=30)
    await office.store.outbox.hasten()
    office.clock.at += timedelta(days=30)
    office.worker = office.hire()
    await office.until_quiet(steps=40)
    assert await office.state(hold_id) is State.RELEASING
    await office.until_quiet(steps=9)
    assert await office.state(hold_id) is State.UNDELIVERED


async def test_a_4xx_is_reported_delayed_and_given_up_after_two_days(office: Office) -> None:
    office.relay.says = {RAMADAN: LATER}
    hold_id = await office.approved()
    await office.until_quiet(timedelta(hours=4), 11)
    assert await office.state(hold_id) is State.RELEASING
    (delayed,) = office.dsns()
    assert delayed.data["action"] == "delayed"
    assert delayed.data["retry_until"] == "2026-03-04T09:00:00Z"
    await office.until_quiet(timedelta(hours=2), 3)
    assert await office.state(hold_id) is State.UNDELIVERED
    assert [d.data["action"] for d in office.dsns()] == ["delayed", "failed"]
    assert "release failed 451 4.7.1" in await office.journal(hold_id)
    assert office.relay.has(RAMADAN) == 0


class Away(FakeRelay):
    """The relay takes notices, and cannot be reached for releases."""

    async def deliver(self, envelope: Envelope, content: Message, prepend: bytes, fence: Fence) -> Answers:
        if prepend:
            raise Lost(RELAY_UNAVAILABLE)
        return await super().deliver(envelope, content, prepend, fence)


async def test_a_delay_is_reported_once_and_names_no_time_that_is_over(office: Office) -> None:
    """A relay that cannot be reached is tried for longer than that, and retention forgets what has been sent."""
    hold_id = await office.approved()
    office.worker = office.hire(relay=Away())
    brief = timedelta(hours=1)
    await office.go(days=3)
    for _ in range(4):
        await office.until_quiet(timedelta(minutes=70), steps=2)
        await office.store.retain(Retention(content=brief, addresses=brief))
    assert [dsn.data.get("retry_until") for dsn in office.renderer.asked] == [None]
    assert sorted(await office.journal(hold_id)) == ["notice sent 250 2.0.0", *["release retry lost"] * 8]
