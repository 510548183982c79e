"""Reports to the writer about recipients of a release that failed or are delayed (RFC 3461, RFC 3464)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from smtpguard.holds.model import State
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.reply import Unsendable
from tests.guard.house import RAMADAN, FakePassage, House
from tests.guard.office import BO, DI, LATER, NO, ULF, Office


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


async def test_a_null_reverse_path_gets_no_dsn_but_an_entry(office: Office) -> None:
    members = [f"customer{n}@example.net" for n in range(20)]
    office.relay.says = {members[0]: NO}
    hold_id = await office.approved(*members, envelope={"reverse_path": None}, to_list=False, To=ULF)
    await office.step()
    await office.step()
    assert office.dsns() == []
    failed = [data for kind, data in await office.home.events(hold_id) if data.get("outcome") == "failed"]
    assert [(d["why"], d["dsn"]) for d in failed] == [("refused", False)]


async def test_a_failed_notice_makes_no_dsn(office: Office, home: House) -> None:
    office.relay.says = {"anna@example.com": NO}
    transaction = home.transaction(RAMADAN)
    await home.intake()(transaction, FakePassage())
    await office.step()
    await office.step()
    assert office.dsns() == []
    assert "notice failed 550 5.1.1" in await office.journal(transaction.id)
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
    ("notify", "told"), [(None, False), ("NEVER", False), ("FAILURE,DELAY", False), ("failure,Success", True)]
)
async def test_without_dsn_at_the_relay_requested_success_is_reported(
    office: Office, notify: str | None, told: bool
) -> None:
    """If success was asked for, a relay without DSN is reported as relayed, since no later server will report (RFC
    3461, section 5.2.2, b)."""
    office.relay.reports = False
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


async def test_a_relay_with_dsn_reports_success_itself(office: Office) -> None:
    recipients = (Recipient(address=Address.parse(RAMADAN), notify="SUCCESS"),)
    await office.approved(envelope={"recipients": recipients})
    await office.step()
    await office.step()
    assert office.relay.has(RAMADAN) == 1
    assert office.dsns() == []


async def test_a_failed_colleagues_part_is_not_reported_as_held(office: Office, home: House) -> None:
    office.relay.says = {ULF: NO}
    members = [f"customer{n}@example.net" for n in range(25)]
    await home.intake()(home.transaction(*members, ULF, To=", ".join(members)), FakePassage())
    await office.step()
    await office.step()
    (dsn,) = office.dsns()
    assert (dsn.data["part"], dsn.data["subject"]) == (True, "SV: lunch")


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
