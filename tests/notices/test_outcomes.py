"""A notice about a decision describes the state when it is sent, also after a freeze or a relay outage."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from smtpguard.database.schema import outbox
from smtpguard.holds.model import Change, Choice, Hold
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.mailings.service import Mailings
from smtpguard.notices.notice import NoticeHead, NoticeTemplates
from smtpguard.notices.render import Renderer, fill
from smtpguard.outbox.attempt import PACE, Due, reports
from smtpguard.outbox.model import INTENT, Intent
from smtpguard.policy.freezing import Selector
from tests.guard.campaign import ANNA, DPO, EVA
from tests.guard.house import MEMBERS, RAMADAN, House
from tests.guard.office import LATER, ULF, Office

NEWS = "news@lists.example.com"


async def approved(home: House, *to: str, **more: Any) -> Hold:
    hold_id = (await home.held(*(to or (NEWS,)), **more)).hold_id
    await home.approve(hold_id, *((EVA, DPO) if RAMADAN in to or MEMBERS[0] in to else (EVA,)))
    return await home.hold(hold_id)


async def notices(home: House, hold: Hold, outcome: str) -> list[Intent]:
    docs = await home.store.ask(
        lambda c: c.execute(select(outbox.c.doc).where(outbox.c.hold_id == hold.hold_id)).scalars().all()
    )
    return [i for doc in docs if (i := INTENT.loads(doc)).data.get("outcome") == outcome]


async def notice_text(home: House, hold: Hold, outcome: str = "approved", to: str = ANNA, url: str = "") -> str | None:
    """The notice's text on one line, None if there is nothing to send."""
    intent = next(i for i in await notices(home, hold, outcome) if str(i.recipients[0].address) == to)
    return await render(home, intent, url)


async def render(home: House, intent: Intent, url: str = "") -> str | None:
    templates = NoticeTemplates(NoticeHead(sender="guard@example.com", languages=("en", "sv"), console_url=url))
    renderer = Renderer(
        store=home.store, in_force=home.current, templates=lambda: templates, clock=home.clock,
        reporting_mta="guard.example.com",
    )  # fmt: skip
    made = await renderer.render(intent)
    if not made:
        return None
    message = email.message_from_bytes(made[0][1], policy=email.policy.default)
    body = message.get_body(("plain",))
    assert body is not None
    return " ".join(body.get_content().split())


async def approved_with_delay(home: House) -> Hold:
    home.term = replace(home.term, release_delay_seconds=60)
    return await approved(home, RAMADAN)


async def test_a_delayed_release_is_announced_with_undo(home: House) -> None:
    hold = await approved_with_delay(home)
    told = str(await notice_text(home, hold))
    assert (
        "was approved. It goes out at 09:01:00 (UTC), exactly as it was written. Until then that can be undone." in told
    )
    assert f"To undo it, write to the approvers, with the reference {hold.hold_id}." in told
    others = str(await notice_text(home, hold, to="omar@example.com"))
    assert f"smtpguard held unvote {hold.hold_id} --as omar@example.com" in others
    home.clock.pass_(minutes=1)
    await home.approvals().enact()
    assert "was approved and is being sent" in str(await notice_text(home, hold)), (
        "the notice is sent late after a relay outage"
    )


async def test_with_a_console_the_notice_links_to_undo(home: House) -> None:
    hold = await approved_with_delay(home)
    told = str(await notice_text(home, hold, "approved", "omar@example.com", url="https://guard.example.com"))
    assert f"Look at it, and undo it there: https://guard.example.com/held/{hold.hold_id}" in told


async def test_a_freeze_is_mentioned(home: House) -> None:
    hold = await approved_with_delay(home)
    await home.freeze()
    assert "It has not been sent yet, since a freeze stops it" in str(await notice_text(home, hold))


async def test_an_undone_approval_is_not_announced(home: House) -> None:
    hold = await approved_with_delay(home)
    await home.approvals().unvote(hold.hold_id, approver=EVA, by="test")
    assert await notice_text(home, hold) is None
    assert "The approval was taken back before anything had been sent." in str(
        await notice_text(home, hold, "reopened")
    )


async def test_a_notice_that_comes_late_is_not_sent_after_a_later_turn(home: House) -> None:
    """The relay was away: nothing is sent out of order, nothing says what no longer is."""

    async def told(to: str) -> list[str]:
        found = [i for i in await home.outbox() if i.hold_id == hold.hold_id and str(i.recipients[0].address) == to]
        said = [(i.data.get("outcome", i.data["notice"]), await render(home, i)) for i in found if i.data]
        return sorted(kind for kind, text in said if text is not None)

    hold = await approved_with_delay(home)
    await home.approvals().unvote(hold.hold_id, approver=EVA, by="test")
    assert (await told(ANNA), await told("omar@example.com")) == (["reopened"], ["reopened"])
    home.clock.pass_(minutes=1)
    await home.approve(hold.hold_id, EVA)
    assert (await told(ANNA), await told("omar@example.com")) == (["approved"], ["approved"])


async def test_a_lapsed_approval_is_announced(home: House) -> None:
    hold = await approved_with_delay(home)
    await home.store.holds.change(hold.hold_id, lambda h: Change(hold=replace(h, votes=h.votes[:1])))
    assert await home.approvals().enact() == 1
    assert await notice_text(home, hold) is None
    told = str(await notice_text(home, hold, "lapsed", DPO))
    assert "The approval no longer counts, and nothing was sent" in told
    assert f"smtpguard held approve {hold.hold_id} --as dpo@example.com" in told


async def test_a_release_without_delay_is_announced(home: House) -> None:
    assert "was approved and is being sent" in str(await notice_text(home, await approved(home)))


@pytest.mark.parametrize(
    ("selector", "value", "what"),
    [
        (Selector.ALL, "", "all mail: stopped by root since Monday 2 March 2026 at 09:00 (UTC)"),
        (Selector.LIST, "news", "mail to the list News: stopped by root since"),
        (Selector.SENDER, ANNA, "mail from its writer: stopped by root since"),
        (Selector.MAILING, "?", "the mailing: stopped by root since"),
    ],
)
async def test_a_frozen_release_names_its_freeze(home: House, selector: Selector, value: str, what: str) -> None:
    hold = await approved(home)
    await home.freeze(selector, hold.mailing_id if value == "?" else value)
    text = str(await notice_text(home, hold))
    assert "was approved. It has not been sent yet, since a freeze stops it" in text
    assert what in text
    assert "is being sent" not in text
    assert "a fire" not in text, "the reason is only on the pages"
    await home.thaw()
    assert "is being sent" in str(await notice_text(home, hold))


async def test_a_frozen_list_of_single_members_is_not_named(home: House) -> None:
    hold = await approved(home, *MEMBERS[:30], To="x@example.com")
    await home.freeze(Selector.LIST, "ramadan")
    text = str(await notice_text(home, hold))
    assert "mail to a list: stopped by root" in text
    assert "amadan" not in text


async def test_a_sent_release_is_announced_as_sent(office: Office) -> None:
    hold = await approved(office.home)
    office.renderer.nothing = True  # its notices are not sent yet
    await office.step()
    assert "was approved and has been sent" in str(await notice_text(office.home, hold))


@pytest.mark.parametrize("how", ["reject", "withdraw", "reopen"])
async def test_a_revoked_approval_is_not_announced(home: House, how: str) -> None:
    hold = await approved(home)
    if how == "reject":
        await home.approvals().vote(hold.hold_id, Choice.REJECT, approver=EVA, by="test", comment="Wrong list")
    elif how == "withdraw":
        await home.approvals().withdraw(hold.hold_id, sender=ANNA, by="test")
    else:
        mailings = Mailings(home.store, home, home.clock)
        await mailings.reopen(hold.mailing_id, approver=EVA, by="test")
    assert await notice_text(home, hold) is None
    word = {"reject": "rejected", "withdraw": "withdrawn", "reopen": "reopened"}[how]
    text = str(await notice_text(home, hold, word))
    assert {"reject": "was rejected. It has not been sent and will not be.",
            "withdraw": "was withdrawn. It has not been sent and will not be",
            "reopen": "The approval was taken back before anything had been sent. The held message waits for a decision again"}[how] in text  # fmt: skip
    if how == "reopen":
        await home.approvals().withdraw(hold.hold_id, sender=ANNA, by="test")
        assert await notice_text(home, hold, "reopened") is None, "it no longer waits"


async def test_those_who_decide_again_are_told_how(home: House) -> None:
    hold = await approved(home)
    mailings = Mailings(home.store, home, home.clock)
    await mailings.reopen(hold.mailing_id, approver=EVA, by="test")
    assert f"smtpguard held approve {hold.hold_id} --as omar@example.com" in str(
        await notice_text(home, hold, "reopened", "omar@example.com")
    )
    assert "smtpguard held" not in str(await notice_text(home, hold, "reopened"))


async def test_release_is_announced_only_if_sent(office: Office) -> None:
    await office.home.freeze()
    hold = await approved(office.home)
    await office.home.thaw()
    office.relay.says = {NEWS: LATER}
    await office.step()
    assert await notices(office.home, hold, "released") == []
    office.relay.says = {}
    await office.until_quiet(steps=2)
    assert "has now been sent" in str(await notice_text(office.home, hold, "released"))


async def test_a_delay_of_a_stopped_release_is_not_reported(office: Office) -> None:
    hold_id = await office.approved(ULF)
    office.relay.says = {RAMADAN: LATER, ULF: LATER}
    await office.step()
    hold = await office.home.hold(hold_id)
    await office.go(hours=5)
    [lease] = [x for x in await office.store.outbox.lease("me", 10, 60) if x.intent.hold_id == hold_id]
    late = [
        Due(recipient=Recipient(address=r.address)).retry("451", office.clock.now() + PACE.first)
        for r in lease.recipients
    ]
    [delayed] = [i for i in reports(lease, hold, late, office.clock.now(), late=True) if i.data["action"] == "delayed"]
    renderer = Renderer(
        store=office.store, in_force=office.home.current, templates=lambda: NoticeTemplates(NoticeHead()),
        clock=office.clock, reporting_mta="guard.example.com",
    )  # fmt: skip
    assert await renderer.render(delayed)
    await office.store.outbox.settle(lease, late, [])
    await office.home.approvals().vote(hold_id, Choice.REJECT, approver=EVA, by="test", comment="Not any more")
    assert not await renderer.render(delayed)


async def test_an_unknown_hold_is_announced_as_recorded(home: House) -> None:
    data = {"notice": "decided", "outcome": "approved", "hold_id": "GONE"}
    assert await fill(home.store, data, home.in_force, Address.parse(ANNA)) == data
    other = {"notice": "held", "hold_id": "GONE"}
    assert await fill(home.store, other, home.in_force, Address.parse(ANNA)) is other
