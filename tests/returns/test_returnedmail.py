"""Mail to the guard's own addresses for returns: stored before its 250, never sent on, kept by its client where it cannot be, and parsed in
bounds.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from smtpguard.admission import mailvote
from smtpguard.admission.intake import Intake
from smtpguard.admission.mailvote import ReturnedMail
from smtpguard.database.errors import Busy
from smtpguard.mail.address import Address
from smtpguard.mail.message import Message
from smtpguard.policy.verdict import Deferred, Rejected, Taken
from smtpguard.returns.model import By, Sort
from smtpguard.returns.report import MOST_PEOPLE, parsed
from smtpguard.wire.milterpackets import Discard, SmtpReply
from tests.every import every
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, FakePassage, house
from tests.returns.mails import Out, arf, dsn, letter
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
        self.intake.own = [self.mail]

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
        assert isinstance(done, Taken), done
        assert str(done.reply) == "250 2.0.0 Stored as a return"
    assert isinstance(await taking(reports[0], "bounces@guard.example.com"), Taken)
    assert len(await taking.out.home.store.returns.newest()) == 2, "the same mail is taken once"
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
    [stored] = await taking.out.home.store.returns.newest()
    assert (stored.sort, stored.match.by) == (Sort.BOUNCE, By.TRACE)


async def test_it_has_no_other_recipient_and_a_bound(taking: Taking, monkeypatch: pytest.MonkeyPatch) -> None:
    [copy] = await taking.out.to_members(0, 1)
    report = dsn(copy, MEMBERS[0])
    done = await taking(report, "bounces@guard.example.com", MEMBERS[3])
    assert isinstance(done, Rejected)
    assert "no other recipient" in str(done.reply)
    assert isinstance(await taking(report, "bounces@guard.example.com", "abuse@guard.example.com"), Taken)
    monkeypatch.setattr(mailvote, "MOST_RETURNED_OCTETS", 100)
    done = await taking(report, "bounces@guard.example.com")
    assert isinstance(done, Rejected)
    assert str(done.reply).startswith("552")


async def test_its_client_keeps_what_cannot_be_stored(taking: Taking, monkeypatch: pytest.MonkeyPatch) -> None:
    [copy] = await taking.out.to_members(0, 1)

    monkeypatch.setattr(taking.out.service, "take", busy)
    done = await taking(dsn(copy, MEMBERS[0]), "bounces@guard.example.com")
    assert isinstance(done, Deferred)
    assert str(done.reply).startswith("451")
    assert await taking.out.home.store.returns.newest() == []


ORIGINAL = b"From: anna@example.com\r\nTo: kim@example.net\r\nSubject: =?utf-8?q?V=C3=A5rens_mail?=\r\nMessage-ID: <a@example.com>\r\n\r\nHello\r\n"


@every(
    ("action", "sort"),
    [("failed", Sort.BOUNCE), ("Delayed", Sort.DELAY), ("relayed", Sort.DELIVERED), ("expanded (to 40)", Sort.DELIVERED), ("eaten", Sort.UNSORTED)],
)  # fmt: skip
def test_a_delivery_status_notification(action: str, sort: Sort) -> None:
    for whole in (False, True):
        found = parsed(dsn(ORIGINAL, "kim@example.net", action=action, envid="QQ1", whole=whole))
        assert found.sort is sort
        assert (found.message_ids, found.original_subject) == (("a@example.com",), "Vårens mail")
        if sort is not Sort.UNSORTED:
            assert (found.about[0].address, found.envid) == ("kim@example.net", "QQ1")


def test_a_report_on_many_recipients_is_bounded() -> None:
    found = parsed(dsn(ORIGINAL, *(f"p{n}@example.net" for n in range(MOST_PEOPLE + 7))))
    assert (len(found.about), found.rest) == (MOST_PEOPLE, 7)


def test_the_original_recipient_comes_first() -> None:
    report = dsn(ORIGINAL, "forwarded@elsewhere.example")
    raw = bytes(report.raw[:]).replace(b"\r\nFinal-R", b"\r\nOriginal-Recipient: rfc822;kim@example.net\r\nFinal-R")
    assert parsed(Message.of(raw)).about[0].address == "kim@example.net"


def test_a_complaint() -> None:
    found = parsed(arf(ORIGINAL, "kim@example.net"))
    assert (found.sort, found.about[0].address, found.feedback) == (Sort.COMPLAINT, "kim@example.net", "abuse")
    assert parsed(arf(ORIGINAL)).about[0].address == "kim@example.net", "as the original says"
    assert parsed(arf(ORIGINAL, kind="not-spam")).sort is Sort.UNSORTED


@every(
    ("mail", "sort"),
    [
        (letter("kim@example.net", "Re: Spring", "<a@example.com>"), Sort.REPLY),
        (letter("kim@example.net", "SV: Vår"), Sort.REPLY),
        (letter("kim@example.net", "What did you send me?"), Sort.UNSORTED),
        (letter("kim@example.net", "Re: Unsubscribe!"), Sort.UNSUBSCRIBE),
        (letter("kim@example.net", "avregistrera"), Sort.UNSUBSCRIBE),
        (letter("kim@example.net", "x", to="news-unsubscribe@example.com"), Sort.UNSUBSCRIBE),
        (letter("kim@example.net", "Re: Spring", "<a@example.com>", more="Auto-Submitted: auto-replied\r\n"), Sort.AUTOMATIC),
        (letter("kim@example.net", "Away", more="Return-Path: <>\r\nAuto-Submitted: auto-replied (vacation)\r\n"), Sort.AUTOMATIC),
        (letter("kim@example.net", "Re: Spring", "<a@example.com>", more="Precedence: junk\r\n"), Sort.AUTOMATIC),
        (letter("kim@example.net", "Away", "<a@example.com>", more="Return-Path: <>\r\n"), Sort.UNSORTED),
        (letter("MAILER-DAEMON@x.example", "failure", more="Auto-Submitted: auto-replied\r\n"), Sort.UNSORTED),
        (letter("MAILER-DAEMON@x.example", "failure notice", body="Hi. I could not deliver your mail."), Sort.UNSORTED),
        (Message.of(b""), Sort.UNSORTED),
        (Message.of(b"\0\xff\r\n\r\n" * 50), Sort.UNSORTED),
    ],
)  # fmt: skip
def test_kinds_of_mail_are_recognized(mail: Message, sort: Sort) -> None:
    assert parsed(mail).sort is sort


def test_a_forwarded_report_is_no_report() -> None:
    inner = bytes(dsn(ORIGINAL, "kim@example.net").raw[:])
    raw = (
        b"From: kim@example.net\r\nSubject: Fwd: look\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n"
        b"--o\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--o--\r\n"
    )
    assert parsed(Message.of(raw)).sort is Sort.UNSORTED


def test_parsing_is_bounded_and_total() -> None:
    nested = b"Subject: deep\r\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(200)
    )
    found = parsed(Message.of(nested))
    assert (found.sort, found.why) == (Sort.UNSORTED, "its parts are nested deeper than 12")
    drawn = random.Random(3)
    raw = bytes(dsn(ORIGINAL, *(f"p{n}@example.net" for n in range(20))).raw[:])
    for _ in range(300):
        broken = bytearray(raw)
        for _ in range(drawn.randint(1, 30)):
            at = drawn.randrange(len(broken))
            broken[at : at + drawn.randint(0, 9)] = drawn.randbytes(drawn.randint(0, 3))
        assert parsed(Message.of(bytes(broken))).about


def test_an_internal_error_keeps_the_return(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("smtpguard.returns.report.walk", fails)
    found = parsed(dsn(ORIGINAL, "kim@example.net"))
    assert (found.sort, found.why, found.subject) == (Sort.UNSORTED, "RuntimeError", "Undelivered mail")
