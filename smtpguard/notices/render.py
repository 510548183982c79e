"""Turn an outbox intent into mail: notices and DSNs, in the reader's language, signed if a key is set.

A NOTICE intent's data is tabled in notices.noticedata. A DSN intent has one recipient, the original's reverse-path; its
``content_sha256`` names the content to return (None for none); and it has this ``data`` (JSON; absent values are null):

``action``        failed | delayed | relayed, for all of ``recipients``
``recipients``    [{``address``, ``notify``, ``orcpt``; ``reply``: the relay's; ``status``, ``why``: as notices.dsn.Report has them;
                  ``at``: the last attempt}]
``envid``, ``ret``, ``smtputf8``   as the original envelope had them
``subject``       the original's; ``part``: of the colleagues' part of a message whose other part is held
``arrived_at``    when we took the message; ``retry_until``: of a delay, when we give up; ``language``: of the message
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from smtpguard.database.errors import ContentMissing
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Clock
from smtpguard.holds.links import AFTER, Link, Links
from smtpguard.holds.model import State
from smtpguard.holds.replying import Tokens
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient
from smtpguard.notices.dsn import Action, Dsn, Report, render
from smtpguard.notices.filling import fill
from smtpguard.notices.notice import Notice, NoticeHead, NoticeTemplates, choose_language
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.store.store import Store

WRITERS = frozenset({"held", "confirm", "question"})
"""Notices that only a message's writer gets. For others ``writer`` says whether this reader wrote it."""

_TAKEN_BACK = frozenset({State.WAITING, State.REJECTED, State.WITHDRAWN, State.EXPIRED})
MOST_LINK = 300  # the most that a template shows of one value; a longer address gets no link

Sign = Callable[[bytes], bytes]
"""A whole message -> the DKIM-Signature field to put before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Renders NOTICE and DSN intents. ``in_force`` and ``templates`` are asked each time, since both change with a
    reload. ``answers``: the address at which approvers vote by mail, None if they cannot. ``chosen``: the language that
    the account with this canonical address has chosen, "" for none."""

    store: Store
    in_force: Callable[[], InForce]
    templates: Callable[[], NoticeTemplates]
    clock: Clock
    reporting_mta: str
    sign: Sign | None = None
    links: Links | None = None
    answers: tuple[Address, Tokens] | None = None
    chosen: Callable[[str], Awaitable[str]] | None = None

    async def render(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        """Envelope and message, and if it needs more than ASCII a second version in 7 bits; nothing if the notice is
        obsolete. Raises StoreError.

        An intent rendered twice gives the same message: its Message-ID follows from the intent.
        """
        if intent.kind is IntentKind.NOTICE:
            return await self._notice(intent)
        if intent.kind is IntentKind.DSN:
            return await self._dsn(intent)
        raise ValueError(f"an intent of kind {intent.kind.value} has content of its own")

    async def _notice(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        templates = self.templates()
        data = await fill(self.store, intent.data, self.in_force(), self.clock.now())
        if data is None:
            return ()
        to = intent.recipients[0].address
        data = {**data, "mine": self._link(to, data), "answer_to": self._answer_to(to, data, intent.intent_id)}
        if data.get("role") == "sender" and data.get("messages"):
            lines = [{**line, "mine": self._link(to, line | {"writer": True})} for line in data["messages"]]
            data = {**data, "messages": lines}
        spoken = await self.chosen(self._canonical(to)) if self.chosen is not None else ""
        notice = Notice(
            id=intent.intent_id,
            to=to,
            data=data,
            language=spoken or choose_language(_spoken_by(to, data), templates.head.languages),
            at=self.clock.now(),
        )
        raw = await asyncio.to_thread(lambda: self._signed(templates.render(notice)))
        recipients = tuple(Recipient(address=r.address, notify="NEVER") for r in intent.recipients)
        return [(Envelope(reverse_path=None, recipients=recipients, smtputf8=not raw.isascii()), raw)]

    def _link(self, to: Address, data: Mapping[str, Any]) -> str | None:
        """For the writer of a held message, who has no account. Signed when it is sent, and never stored."""
        writes = data.get("writer") or data.get("notice") in WRITERS
        if self.links is None or not writes or not data.get("hold_id"):
            return None
        address = self._canonical(to)
        until = (_time(data.get("expires_at")) or self.clock.now()) + AFTER
        text = self.links.sign(Link(hold_id=data["hold_id"], address=address, until=until))
        return text if len(text) <= MOST_LINK else None

    def _answer_to(self, to: Address, data: Mapping[str, Any], notice_id: str) -> str:
        """The address at which this reader votes by answering this notice, "" for none. Made when it is sent, and never
        stored."""
        if self.answers is None or not data.get("bound"):
            return ""
        at, tokens = self.answers
        token = tokens.local(data["hold_id"], data["bound"], self._canonical(to), notice_id)
        return f"{at.local}+{token}@{at.domain}"

    def _canonical(self, to: Address) -> str:
        return to.canonical(self.in_force().registry.digester.delimiters)

    async def _dsn(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        templates, data = self.templates(), intent.data
        sender, action = intent.recipients[0].address, Action(data["action"])
        reports = tuple(
            Report(
                recipient=recipient,
                action=action,
                reply=row.get("reply") or "",
                given_status=row.get("status") or "",
                why=row.get("why") or "",
                at=_time(row.get("at")),
            )
            for row in data["recipients"]
            if action.wanted_by(recipient := _recipient(row))
        )
        if not reports or (action is Action.DELAYED and not await self._still_sent(intent)):
            return ()
        try:
            original = await self.store.contents.load(intent.content_sha256) if intent.content_sha256 else None
        except ContentMissing:
            original = None
        now = self.clock.now()
        dsn = Dsn(
            id=intent.intent_id,
            envelope=Envelope(
                reverse_path=sender,
                recipients=tuple(r.recipient for r in reports),
                smtputf8=bool(data.get("smtputf8")),
                ret=data.get("ret"),
                envid=data.get("envid"),
            ),
            reports=reports,
            original=original,
            arrived_at=_time(data.get("arrived_at")) or now,
            at=now,
            reporting_mta=self.reporting_mta,
            hold_id=intent.hold_id or "",
            language=choose_language(data.get("language") or "", templates.head.languages),
            retry_until=_time(data.get("retry_until")),
            subject=data.get("subject") or (original.header.get("Subject") if original is not None else None) or "",
            part=bool(data.get("part")),
        )
        return await asyncio.to_thread(self._forms, dsn, templates.head)

    async def _still_sent(self, intent: Intent) -> bool:
        """Whether it was not revoked meanwhile: else no further attempts are made."""
        hold = await self.store.holds.find(intent.hold_id) if intent.hold_id is not None else None
        return hold is None or hold.state not in _TAKEN_BACK

    def _forms(self, dsn: Dsn, head: NoticeHead) -> list[tuple[Envelope, bytes]]:
        forms = [render(dsn, head)]
        if not forms[0][1].isascii():
            forms.append(render(dsn, head, seven_bit=True))
        return [(envelope, self._signed(raw)) for envelope, raw in forms]

    def _signed(self, raw: bytes) -> bytes:
        return self.sign(raw) + raw if self.sign is not None else raw


def _spoken_by(to: Address, data: Mapping[str, Any]) -> str:
    """The writer of a message reads its language; for everybody else only the organization's is known."""
    wrote = str(to).lower() in re.split(r"[\s<>,]+", str(data.get("from") or "").lower())
    return str(data.get("language") or "") if wrote else ""


def _recipient(row: Mapping[str, Any]) -> Recipient:
    return Recipient(address=Address.parse(row["address"]), notify=row.get("notify"), orcpt=row.get("orcpt"))


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
