"""Mail to the guard's own addresses for returns: stored before its 250, never sent on, and kept by its client where it cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from smtpguard.admission import returned
from smtpguard.admission.intake import Intake
from smtpguard.admission.returned import ReturnedMail
from smtpguard.database.errors import Busy
from smtpguard.mail.address import Address
from smtpguard.mail.message import Message
from smtpguard.policy.verdict import Counted, Deferred, Rejected
from smtpguard.returns.model import By, Sort
from smtpguard.wire.milter.packet import Discard, SmtpReply
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, FakePassage, house
from tests.returns.mails import Out, dsn
from tests.wire.milter.speaking import served


async def busy(*_: object, **__: object) -> None:
    raise Busy("waited too long")


class Taking:
    """``out``: a mailing; ``mail``: what takes its returns, in front of everything else."""

    def __init__(self, out: Out) -> None:
        self.out = out
        addresses = [Address.parse(each) for each in ("Bounces@Guard.example.com", "abuse@guard.example.com")]
        self.mail = ReturnedMail(addresses=addresses, take=lambda message, to: out.service.take(message, to=to))
        self.intake: Intake = out.home.intake()
        self.intake._returned = self.mail

    async def __call__(self, message: Message, *to: str) -> object:
        way = FakePassage()
        transaction = replace(self.out.home.transaction(*to, reverse_path=""), message=message)
        done = await self.intake(transaction, way)
        assert way.sent == [], "it goes nowhere"
        return done


@pytest_asyncio.fixture
async def taking(tmp_path: Path) -> AsyncIterator[Taking]:
    policy = f'{POLICY}breakers: {{bounces: ">= 2"}}\n'
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": policy.encode()}) as home:
        yield Taking(Out(home))


async def test_a_bounce_is_stored_and_counts(taking: Taking) -> None:
    copies = await taking.out.to_members(0, 3)
    reports = [dsn(copies[n], MEMBERS[n]) for n in range(2)]
    for report, to in zip(reports, ("bounces@guard.example.com", "BOUNCES+c2@guard.example.com"), strict=True):
        done = await taking(report, to)
        assert isinstance(done, Counted), done
        assert str(done.reply) == "250 2.0.0 Stored as a return"
    assert isinstance(await taking(reports[0], "bounces@guard.example.com"), Counted)
    assert len(await taking.out.service.newest()) == 2, "the same mail is taken once"
    [stop] = (await taking.out.home.store.gate.read()).freezes
    assert stop.selector.value == "mailing", "two bounces trip the breaker"


def test_only_its_own_addresses_are_answered_here(taking: Taking) -> None:
    """Routing in the local part is not followed: that mail is for the other domain."""
    ours = {to: str(taking.mail.reply_to(Address.parse(to)) or "") for to in (
        "bounces@guard.example.com", "bounces+x=y@Guard.Example.COM.", "bouncesx@guard.example.com", "bounces@example.com", "abuse@guard.example.com",
        "bounces+x%guard.example.com@example.com", "guard.example.com!bounces@example.com",
    )}  # fmt: skip
    assert [said[:3] for said in ours.values()] == ["250", "250", "", "", "250", "", ""]


async def test_through_the_milter_it_is_stored_and_the_mta_drops_it(
    taking: Taking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The MTA answered RCPT; DISCARD follows the commit, and the client gets the MTA's 250."""
    [copy] = await taking.out.to_members(0, 1)
    report = bytes(dsn(copy, MEMBERS[0]).raw)
    answers = []
    async with served(tmp_path, taking.intake) as world:
        mta = await (await world.connect()).begin()
        answers.append((await mta.send(report, b"<bounces+c0@guard.example.com>")).answer)
        monkeypatch.setattr(taking.out.service, "take", busy)
        answers.append((await mta.send(report, b"<bounces+c0@guard.example.com>")).answer)
    assert answers[0] == Discard()
    assert isinstance(answers[1], SmtpReply)
    assert answers[1].reply.code == 451
    [stored] = await taking.out.service.newest()
    assert (stored.sort, stored.match.by) == (Sort.BOUNCE, By.TRACE)


async def test_it_has_no_other_recipient_and_a_bound(taking: Taking, monkeypatch: pytest.MonkeyPatch) -> None:
    [copy] = await taking.out.to_members(0, 1)
    report = dsn(copy, MEMBERS[0])
    done = await taking(report, "bounces@guard.example.com", MEMBERS[3])
    assert isinstance(done, Rejected)
    assert "no other recipient" in str(done.reply)
    assert isinstance(await taking(report, "bounces@guard.example.com", "abuse@guard.example.com"), Counted)
    monkeypatch.setattr(returned, "MOST_OCTETS", 100)
    done = await taking(report, "bounces@guard.example.com")
    assert isinstance(done, Rejected)
    assert str(done.reply).startswith("552")


async def test_its_client_keeps_what_cannot_be_stored(taking: Taking, monkeypatch: pytest.MonkeyPatch) -> None:
    [copy] = await taking.out.to_members(0, 1)

    monkeypatch.setattr(taking.out.service, "take", busy)
    done = await taking(dsn(copy, MEMBERS[0]), "bounces@guard.example.com")
    assert isinstance(done, Deferred)
    assert str(done.reply).startswith("451")
    assert await taking.out.service.newest() == []
