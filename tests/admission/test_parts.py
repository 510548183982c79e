"""``scope: customers`` with a milter, whose MTA delivers the rest: the customers' part is held, the MTA keeps the
colleagues' part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from smtpguard.holds.model import Choice
from smtpguard.mail import reply
from smtpguard.mail.envelope import Fence, Lost, Recalled, Recipient, Transaction
from smtpguard.mail.reply import OK, Reply
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.verdict import Deferred, Held
from tests.guard.house import MEMBERS, FakePassage, House

COLLEAGUES = ["ulf@example.com", "ida@example.com"]
TO = [COLLEAGUES[0], *MEMBERS[:25], COLLEAGUES[1]]


@dataclass
class Mta:
    """``told``: the trace header and the recipients to leave out. ``before``: runs first. ``lost``: the MTA has
    disconnected."""

    told: list[tuple[bytes, list[str]]] = field(default_factory=list)
    before: Callable[[], Any] | None = None
    lost: bool = False

    async def pass_rest(self, prepend: bytes, fence: Fence, held: Sequence[Recipient]) -> Reply:
        if self.before is not None:
            await self.before()
        if self.lost:
            raise Lost(reply.RELAY_LOST)
        if not await fence():
            raise Recalled
        self.told.append((prepend, [str(r.address) for r in held]))
        return OK


def transaction(home: House, mta: Mta, to: Sequence[str] = TO, **more: Any) -> Transaction:
    return replace(home.transaction(*to, **({"To": ", ".join(to)} | more)), pass_rest=mta.pass_rest)


async def test_the_mta_delivers_the_colleagues_part(home: House) -> None:
    mta = Mta()
    done = await home.intake()(transaction(home, mta), FakePassage())
    assert isinstance(done, Held)
    [(trace, left_out)] = mta.told
    assert b"X-Smtpguard: id=" in trace
    assert left_out == MEMBERS[:25]
    hold = await home.hold(done.hold_id)
    assert [str(a) for a in hold.envelope.addresses] == MEMBERS[:25]
    assert not [i for i in await home.outbox() if i.kind.value == "part"], "colleagues would get it twice"
    kinds = [(kind, data.get("outcome")) for kind, data in await home.events(done.hold_id)]
    assert ("outcome", "relayed") in kinds


async def test_a_message_without_colleagues_is_held_whole(home: House) -> None:
    mta = Mta()
    done = await home.intake()(transaction(home, mta, MEMBERS[:25]), FakePassage())
    assert isinstance(done, Held)
    assert done.taken == ()
    assert mta.told == []


@pytest.mark.parametrize("to", [TO, MEMBERS[:25]], ids=["with colleagues", "without"])
async def test_notices_say_that_a_part_was_held(home: House, to: Sequence[str]) -> None:
    """Notices about a part say that it is a part: the colleagues have their copies."""
    done = await home.send(*to, To=", ".join(to))
    assert isinstance(done, Held)
    hold = await home.hold(done.hold_id)
    assert hold.part is (to is TO)
    await home.approvals().vote(done.hold_id, Choice.REJECT, approver="eva@example.com", by="test", comment="No")
    home.clock.pass_(hours=1)
    other = {"To": ", ".join(to), "Message_ID": "<2@example.com>", "body": "En helt annan text, om fika på fredag."}
    later = await home.send(*to, **other)
    assert isinstance(later, Held)
    await home.expire(later.hold_id)
    notices = [i.data for i in await home.outbox() if i.kind is IntentKind.NOTICE]
    assert {d["notice"] for d in notices} >= {"held", "decided", "expired"}
    assert {d["part"] for d in notices if d["hold_id"] is not None} == {to is TO}


async def test_a_copy_with_colleagues_is_held_as_a_part_under_the_primary_hold(home: House) -> None:
    shown = ", ".join([*MEMBERS, COLLEAGUES[0]])
    lead = await home.send(*MEMBERS[:25], To=shown)
    copy = await home.send(*MEMBERS[25:50], COLLEAGUES[0], To=shown)
    assert isinstance(lead, Held)
    assert isinstance(copy, Held)
    held = [await home.store.holds.find(done.hold_id) for done in (lead, copy)]
    assert [h is not None and (h.primary, h.part) for h in held] == [("", True), (lead.hold_id, True)]


async def test_a_retry_finds_its_hold_and_delivers_the_rest(home: House) -> None:
    mta = Mta(lost=True)
    first = await home.intake()(transaction(home, mta), FakePassage())
    assert isinstance(first, Deferred), "the MTA disconnected: its client tries again"
    mta.lost = False
    again = await home.intake()(transaction(home, mta), FakePassage())
    assert isinstance(again, Held)
    assert [left_out for _, left_out in mta.told] == [MEMBERS[:25]]
    assert len(await home.store.holds.newest()) == 1


async def test_a_freeze_before_the_rest_is_sent_stops_it(home: House) -> None:
    mta = Mta(before=home.freeze)
    done = await home.intake()(transaction(home, mta), FakePassage())
    assert isinstance(done, Deferred)
    assert str(done.reply).startswith("451 4.7.1")
    mta.before = None
    again = await home.intake()(transaction(home, mta), FakePassage())
    assert isinstance(again, Deferred), "while everything is frozen"
    assert mta.told == []
    assert len(await home.store.holds.newest()) == 1
    await home.thaw()
    assert isinstance(await home.intake()(transaction(home, mta), FakePassage()), Held)
    assert len(mta.told) == 1
