"""Turn an outbox intent into mail: notices and DSNs, in the reader's language, signed if a key is set.

notices.noticedata has a table of the data of a NOTICE intent. A DSN intent has one recipient, the original's
reverse-path; its ``content_sha256`` names the content to return (None for none); and it has this ``data`` (JSON; absent
values are null):

``action``        failed | delayed | relayed, for all of ``recipients``
``recipients``    [{``address``, ``notify``, ``orcpt``; ``reply``: the relay's; ``status``, ``why``: as notices.dsn.Report has them;
                  ``at``: the last attempt}]
``envid``, ``ret``, ``smtputf8``   as the original envelope had them
``subject``       the original's; ``part``: of the colleagues' part of a message whose other part is held
``arrived_at``    when we took the message; ``retry_until``: of a delay, when we give up; ``language``: of the message

The data of digests, decisions and the daily mails is read when they are sent, so that it is true then. A digest gets
all messages of its window, so that each person gets one: those that were held in it, and those to which something
happened. A notice of an approval says whether a freeze stops the message now. A notice of an approval that was revoked
meanwhile is not sent, nor is one that asks for what is decided.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from smtpguard.database.errors import ContentMissing
from smtpguard.guard.inforce import InForce
from smtpguard.holds.effects import TEST
from smtpguard.holds.model import ENDED, LET_GO, SENDING, Choice, Hold, State, have_voted, held_up_by
from smtpguard.holds.replying import Tokens
from smtpguard.journal.chain import utc_text, utc_text_or_none
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient
from smtpguard.notices import dsn
from smtpguard.notices.daily import SHOWN, fill_checkpoint, fill_observed, message_data
from smtpguard.notices.links import VALID_AFTER_EXPIRY, Link, Links
from smtpguard.notices.notice import Notice, NoticeHead, NoticeTemplates, choose_language
from smtpguard.notices.noticedata import approvers, escalated_to, nameable, of_copy, reasons
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.store.store import Store

WRITERS = frozenset({"held", "confirm", "question"})
"""The notices that only a message's writer gets. In others, ``writer`` says whether this reader wrote the message."""
MOST_LINK = 300
"""The most characters that a template shows of one value. A reader for whom the link is longer gets none."""
PAGE = 100
"""The number of holds in memory at a time. A flood has several digests of one window, which are written at once."""
REJECTED = 10_000
"""The most rejected messages that a digest counts."""
PAGES = 1000
"""The most pages of holds that a digest reads: a hundred thousand holds."""

Sign = Callable[[bytes], bytes]
"""A function that gets a whole message and returns the DKIM-Signature field to put before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Render NOTICE and DSN intents. ``in_force`` and ``templates`` are called each time, since both change with a
    reload. ``answers``: the address at which approvers vote by mail, None if they cannot. ``chosen``: returns the
    language that the account with this canonical address has chosen, "" for none."""

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
        """Return the envelope and the message; for a DSN that needs more than ASCII, also a version in 7 bits; nothing
        if the mail is obsolete. Raises StoreError.

        An intent rendered twice gives the same Message-ID, which follows from the intent.
        """
        if intent.kind is IntentKind.NOTICE:
            return await self._notice(intent)
        if intent.kind is IntentKind.DSN:
            return await self._dsn(intent)
        raise ValueError(f"an intent of kind {intent.kind.value} has content of its own")

    async def _notice(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        templates = self.templates()
        to = intent.recipients[0].address
        data = await fill(self.store, intent.data, self.in_force(), to)
        if data is None:
            return ()
        data = {**data, "mine": self._link(to, data), "answer_to": self._answer_to(to, data, intent.intent_id)}
        if data.get("role") == "sender" and data.get("messages"):
            lines = [{**line, "mine": self._link(to, line | {"writer": True})} for line in data["messages"]]
            data = {**data, "messages": lines}
        spoken = await self.chosen(self._canonical(to)) if self.chosen is not None else ""
        notice = Notice(
            id=intent.intent_id,
            to=to,
            data=data,
            language=spoken or choose_language(_language_of(to, data), templates.head.languages),
            at=self.clock.now(),
        )
        raw = await asyncio.to_thread(lambda: self._with_signature(templates.render(notice)))
        recipients = tuple(Recipient(address=r.address, notify="NEVER") for r in intent.recipients)
        return [(Envelope(reverse_path=None, recipients=recipients, smtputf8=not raw.isascii()), raw)]

    def _link(self, to: Address, data: Mapping[str, Any]) -> str | None:
        """Return the signed link for the writer of a held message, who has no account; None for other readers. It is
        signed when the notice is sent, and never stored."""
        writes = data.get("writer") or data.get("notice") in WRITERS
        if self.links is None or not writes or not data.get("hold_id"):
            return None
        address = self._canonical(to)
        until = (_time(data.get("expires_at")) or self.clock.now()) + VALID_AFTER_EXPIRY
        text = self.links.sign(Link(hold_id=data["hold_id"], address=address, until=until))
        return text if len(text) <= MOST_LINK else None

    def _answer_to(self, to: Address, data: Mapping[str, Any], notice_id: str) -> str:
        """Return the address at which this reader votes by answering this notice, "" for none. It is made when the
        notice is sent, and never stored."""
        if self.answers is None or not data.get("bound"):
            return ""
        at, tokens = self.answers
        token = tokens.local(data["hold_id"], data["bound"], self._canonical(to), notice_id)
        return f"{at.local}+{token}@{at.domain}"

    def _canonical(self, to: Address) -> str:
        return to.canonical(self.in_force().registry.digester.delimiters)

    async def _dsn(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        templates, data = self.templates(), intent.data
        sender, action = intent.recipients[0].address, dsn.Action(data["action"])
        reports = tuple(
            dsn.Report(
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
        if not reports or (action is dsn.Action.DELAYED and not await self._still_sent(intent)):
            return ()
        try:
            original = await self.store.contents.load(intent.content_sha256) if intent.content_sha256 else None
        except ContentMissing:
            original = None
        now = self.clock.now()
        made = dsn.Dsn(
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
        return await asyncio.to_thread(self._versions, made, templates.head)

    async def _still_sent(self, intent: Intent) -> bool:
        """Return whether a message was not revoked meanwhile. If it was, no further attempts are made."""
        hold = await self.store.holds.find(intent.hold_id) if intent.hold_id is not None else None
        return hold is None or hold.state not in (State.WAITING, *ENDED)

    def _versions(self, made: dsn.Dsn, head: NoticeHead) -> list[tuple[Envelope, bytes]]:
        forms = [dsn.render(made, head)]
        if not forms[0][1].isascii():
            forms.append(dsn.render(made, head, seven_bit=True))
        return [(envelope, self._with_signature(raw)) for envelope, raw in forms]

    def _with_signature(self, raw: bytes) -> bytes:
        return self.sign(raw) + raw if self.sign is not None else raw


def _language_of(to: Address, data: Mapping[str, Any]) -> str:
    """Return the language of a reader, "" if it is unknown. The writer of a message reads its language; of everybody
    else only the organization's is known."""
    wrote = str(to).lower() in re.split(r"[\s<>,]+", str(data.get("from") or "").lower())
    return str(data.get("language") or "") if wrote else ""


def _recipient(row: Mapping[str, Any]) -> Recipient:
    return Recipient(address=Address.parse(row["address"]), notify=row.get("notify"), orcpt=row.get("orcpt"))


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


async def fill(store: Store, data: Mapping[str, Any], in_force: InForce, to: Address) -> Mapping[str, Any] | None:
    """Return the data of a NOTICE intent for rendering, None if it is not sent, since it is no longer true or there is
    nothing to say. ``to``: its reader. Raises StoreError."""
    if data.get("copy_by") and (own := await store.holds.copy_by(data["hold_id"], data["copy_by"])) is not None:
        data = {**data, **of_copy(own)}
    match data["notice"]:
        case "observed":
            return await fill_observed(store, data, in_force)
        case "checkpoint":
            return await fill_checkpoint(store, data)
        case "digest" | "owner-digest":
            filled = await fill_digest(store, data, in_force)
            return filled if filled["total"] else None
        case "stages":
            one = await store.mailings.find(data["mailing"])
            return data if one is not None and one.progress is not None and one.progress.waits_for_person else None
        case "decided" | "doubt":
            return await _decision(store, data, in_force)
        case "held" | "confirm" | "approve" | "reminder" | "escalation" | "question" | "answer" | "plea":
            return data if await _still_waits(store, data, in_force, to) else None
    return data


async def fill_digest(store: Store, data: Mapping[str, Any], in_force: InForce) -> Mapping[str, Any]:
    """Return the data of a digest with the messages of its window. Raises StoreError."""
    since, until = datetime.fromisoformat(data["since"]), datetime.fromisoformat(data["until"])
    states: Counter[str] = Counter()
    undecided = refused = earlier = 0
    shown: list[dict[str, Any]] = []
    async for hold in _holds_of_window(store, since, until):
        if _concerns(hold, data, in_force, since, until):
            states[hold.shown_state] += 1
            asks = hold.shown_state == State.WAITING.value and not hold.asks_writer
            reader = in_force.groups.person(data["person"].lower())
            undecided += asks and reader not in have_voted(hold, in_force.groups)
            earlier += hold.held_at < since
            if len(shown) < SHOWN:
                shown.append(_line(hold, in_force) | await _own_copy(store, hold, data))
    if data["notice"] == "owner-digest":
        for event in await store.journal.rejected(data["first"], until, REJECTED):
            if not event.data.get("tellable", True) and data["list_name"] in event.data["lists"]:
                states[State.REJECTED.value] += 1
                refused += 1
                if len(shown) < SHOWN:
                    shown.append(_rejected_line(event, in_force, data["list_name"]))
    total = sum(states.values())
    return {
        **data,
        "total": total,
        "refused": refused,
        "earlier": earlier,
        "states": dict(states),
        "undecided": undecided,
        "messages": shown,
    }


async def _holds_of_window(store: Store, since: datetime, until: datetime) -> AsyncIterator[Hold]:
    """Yield the holds of that time, newest first, and then earlier ones to which something happened in it. A copy that
    was held earlier is left out: its primary hold says what happened to it."""
    before = until, ""
    for _ in range(PAGES):
        page = await store.holds.newest(limit=PAGE, before=before)
        for hold in page:
            if hold.held_at >= since:
                yield hold
        if len(page) < PAGE or page[-1].held_at < since:
            break
        before = page[-1].held_at, page[-1].hold_id
    ids = await store.journal.noticed(since, until)
    for n in range(0, len(ids), PAGE):
        for hold in await store.holds.find_all(ids[n : n + PAGE]):
            if hold.held_at < since and not hold.primary:
                yield hold


def _concerns(hold: Hold, data: Mapping[str, Any], in_force: InForce, since: datetime, until: datetime) -> bool:
    """Return whether a digest has a hold. The writer, or the owner in the writer's place, is not told that the
    approvers were reminded."""
    person = data["person"].lower()
    reminded = hold.held_at < since and hold.shown_state == State.WAITING.value
    if reminded and data.get("role") not in ("approver", "owner"):
        return False
    if data["notice"] == "owner-digest":
        return hold.sender is None and data["list_name"] in hold.lists
    if data["role"] == "approver":
        return any(person in approvers(hold, in_force, at) for at in (hold.held_at, until))
    if data["role"] == "owner":
        return hold.escalated and any(person == each.lower() for each in escalated_to(hold, in_force).values())
    return person in (each.lower() for each in (hold.sender, *hold.told) if each is not None)


async def _own_copy(store: Store, hold: Hold, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the subject and writer of the first copy of the reader, if they wrote copies of the hold."""
    writer = next((each for each in hold.told if each.lower() == data["person"].lower()), None)
    if data.get("role") != "sender" or writer is None or writer == hold.sender:
        return {}
    copy = await store.holds.copy_by(hold.hold_id, writer)
    return {} if copy is None else {"subject": copy.subject, "from": writer}


def _line(hold: Hold, in_force: InForce) -> dict[str, Any]:
    return {
        "hold_id": hold.hold_id,
        "subject": hold.subject,
        "from": hold.sender or "",
        "state": hold.shown_state,
        "test": hold.kind == TEST,
        "held_at": utc_text(hold.held_at),
        "expires_at": utc_text(hold.expires_at),
        "reach": hold.reach,
        "reach_at_least": hold.reach_at_least,
        "lists": nameable(hold, in_force),
        "reasons": reasons(hold, in_force)[:1],
        "comment": next((v.comment for v in reversed(hold.votes) if v.choice is Choice.REJECT), ""),
    }


def _rejected_line(event: Event, in_force: InForce, name: str) -> dict[str, Any]:
    """Return the data of a message that was rejected at once. It was never held: it has no id, and does not wait."""
    return {
        **message_data(event),
        "hold_id": None,
        "state": State.REJECTED.value,
        "test": False,
        "held_at": utc_text(event.at),
        "expires_at": None,
        "lists": [in_force.title(name)] if name in in_force.registry.lists else [],
        "reasons": [],
        "comment": "",
    }


async def _decision(store: Store, data: Mapping[str, Any], in_force: InForce) -> Mapping[str, Any] | None:
    """Return the data of a notice of a decision or a doubt, None if it is no longer true and another notice replaces
    it."""
    hold = await store.holds.find(data["hold_id"])
    if hold is None:
        return data
    if data["notice"] == "doubt":
        return data if hold.asked_at is not None else None
    match data["outcome"]:
        case "approved" | "confirmed" if _is_earlier(data, hold):
            return None
        case "approved" if hold.state is State.WAITING and hold.release_at is not None:
            stopped = held_up_by(hold, (await store.gate.read()).freezes)
            return {**data, "frozen": _freezes_data(stopped, hold, in_force), "release_at": utc_text(hold.release_at)}
        case "approved" | "confirmed" if hold.state in SENDING and hold.state is not State.IN_DOUBT:
            stopped = held_up_by(hold, (await store.gate.read()).freezes)
            return {**data, "frozen": _freezes_data(stopped, hold, in_force)}
        case "approved" | "confirmed" if hold.state is State.RELEASED and not hold.stopped:
            return {**data, "sent": True}
        case "approved" | "confirmed" if hold.state is State.GRANTED:
            return {**data, "test": True}
        case "approved" | "confirmed" if hold.state in LET_GO and not hold.stopped:  # a DSN reports its result
            return data
        case "approved" | "confirmed":
            return None
        case "reopened" | "lapsed" if hold.state is State.EXPIRED:  # of which only its writers read
            return None if data.get("writer") else data
        case "reopened" | "lapsed" if hold.state is not State.WAITING or hold.release_at is not None:
            return None
        case "released" if hold.state is not State.RELEASED or hold.stopped:
            return None
    return data


async def _still_waits(store: Store, data: Mapping[str, Any], in_force: InForce, to: Address) -> bool:
    """Return whether a hold that a notice says to wait for a person still waits. If not, its writer reads the outcome
    in another notice, and so do the approvers if there was a decision."""
    hold = await store.holds.find(data["hold_id"])
    earlier = hold is not None and _is_earlier(data, hold)
    if hold is not None and hold.primary:  # people decide on that one
        hold = await store.holds.find(hold.primary)
    if hold is None:
        return True
    match data["notice"]:
        case "confirm":
            return hold.asks_writer
        case "question" | "answer" | "plea":  # also while the approval can be undone
            return hold.state is State.WAITING
        case _ if earlier:
            return False
        case "approve" | "reminder":
            reader = in_force.groups.person(to.canonical(in_force.registry.digester.delimiters))
            return hold.shown_state == State.WAITING.value and reader not in have_voted(hold, in_force.groups)
    return hold.shown_state == State.WAITING.value


def _is_earlier(data: Mapping[str, Any], hold: Hold) -> bool:
    """Return whether a notice is from before the hold waited again, of which its readers were told: until when it waits, and who
    has approved it, may have changed. A notice of an earlier version does not say. A copy, as a void hold that its client's retry
    put under another, is in a turn that nobody was told of."""
    return not hold.primary and bool(data.get("turn", hold.turn) != hold.turn)


def _freezes_data(freezes: Iterable[Freeze], hold: Hold, in_force: InForce) -> list[dict[str, Any]]:
    """Return freezes as a notice shows them: ``list`` only if it may be named to this reader, and never the reason,
    which is for users of the console."""
    named = nameable(hold, in_force)

    def title(freeze: Freeze) -> str | None:
        found = in_force.title(freeze.value)
        return found if freeze.selector is Selector.LIST and found in named else None

    return [
        {
            "selector": freeze.selector.value,
            "list": title(freeze),
            "by": freeze.by,
            "since": utc_text(freeze.at),
            "until": utc_text_or_none(freeze.until),
        }
        for freeze in freezes
    ]
