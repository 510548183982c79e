"""Returned mail as servers and people write it, and a mailing that it is about."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from smtpguard.freezes.service import Freezes
from smtpguard.journal.clock import SteadyClock
from smtpguard.mail.message import Message
from smtpguard.returns.service import Receipt, Returns
from tests.guard.campaign import Campaign
from tests.guard.house import KEY, MEMBERS, FakePassage, House

_N = itertools.count(1)


def dsn(original: bytes, *people: str, action: str = "failed", status: str = "5.1.1", envid: str = "", to: str = "bounces@example.com",
        whole: bool = False) -> Message:  # fmt: skip
    """A delivery status notification (RFC 3464) with the header of ``original``, or with all of it."""
    header = original if whole else original.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    kind = "message/rfc822" if whole else "text/rfc822-headers"
    blocks = "".join(
        f"\r\nFinal-Recipient: rfc822; {person}\r\nAction: {action}\r\nStatus: {status}\r\nDiagnostic-Code: smtp; 550 no such person here\r\n"
        for person in people
    )
    first = f"Reporting-MTA: dns; mx.example.net\r\n{f'Original-Envelope-Id: {envid}' if envid else 'Arrival-Date: Mon, 2 Mar 2026 09:00:00 +0000'}\r\n"
    return _report(
        "delivery-status", "message/delivery-status", (first + blocks).encode(), kind, header,
        f"From: MAILER-DAEMON@mx.example.net\r\nReturn-Path: <>\r\nTo: {to}\r\nSubject: Undelivered mail\r\n",
    )  # fmt: skip


def arf(original: bytes, *people: str, kind: str = "abuse") -> Message:
    """An abuse report (RFC 5965)."""
    named = "".join(f"Original-Rcpt-To: <{person}>\r\n" for person in people)
    block = f"Feedback-Type: {kind}\r\nUser-Agent: a-provider/1.0\r\nVersion: 1\r\n{named}".encode()
    head = "From: fbl@provider.example\r\nTo: abuse@example.com\r\nSubject: A complaint about your mail\r\n"
    return _report("feedback-report", "message/feedback-report", block, "message/rfc822", original, head)


def _report(report: str, kind: str, block: bytes, original_kind: str, original: bytes, head: str) -> Message:
    n = next(_N)
    return Message.of(
        head.encode()
        + f'Message-ID: <report-{n}@mx.example.net>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type={report};\r\n boundary="=b{n}"\r\n\r\n'.encode()
        + f"--=b{n}\r\n\r\nThis tells what became of your mail.\r\n--=b{n}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + block
        + f"\r\n--=b{n}\r\nContent-Type: {original_kind}\r\n\r\n".encode()
        + original
        + f"\r\n--=b{n}--\r\n".encode()
    )


def letter(sender: str, subject: str, answers: str = "", to: str = "anna@example.com", body: str = "What is this?", more: str = "") -> Message:  # fmt: skip
    reply = f"In-Reply-To: {answers}\r\nReferences: {answers}\r\n" if answers else ""
    return Message.of(
        f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <letter-{next(_N)}@elsewhere.example>\r\n{reply}{more}\r\n{body}\r\n".encode()
    )


class Out:
    """A mailing sent copy by copy, and its returns."""

    def __init__(self, home: House) -> None:
        self.home, self.campaign = home, Campaign(home)
        self.hooks: list[list[str]] = []
        ids = (f"F{n}" for n in itertools.count(1))
        self.freezes = Freezes(
            home.store,
            SteadyClock(home.clock),
            new_id=lambda: next(ids),
            freeze_hook=self.hooks,
            recall_seconds=0,
            loud=False,
        )
        self.service = self.service_on(home.store)

    def service_on(self, store: Any) -> Returns:
        digester = self.home.in_force.registry.digester
        ids = (f"B{n}" for n in itertools.count(1))
        return Returns(store, self.home, self.home.clock, digester, self.freezes, key=KEY, new_id=lambda: next(ids))

    async def send(self, *to: str, envid: str = "", **more: Any) -> bytes:
        """Send a message; return it as the relay got it, with the trace."""
        way, intake = FakePassage(), self.home.intake()
        transaction = self.home.transaction(
            *to, **{"X_Looks": "mailing", "X_Mailing": "spring", "Message_ID": f"<copy-{next(_N)}@example.com>"} | more
        )
        if envid:
            transaction = replace(transaction, envelope=replace(transaction.envelope, envid=envid))
        way.message = bytes(transaction.message.raw[:])
        await intake(transaction, way)
        await self.home.store.journal.record([])
        [sent] = way.sent
        return sent

    async def to_members(self, first: int, last: int) -> list[bytes]:
        return [await self.send(MEMBERS[n]) for n in range(first, last)]

    async def back(self, message: Message, *to: str) -> Receipt:
        return await self.service.take(message, to=to)

    async def mailing(self) -> Any:
        [one] = await self.campaign.service.list(least=1)
        return one
