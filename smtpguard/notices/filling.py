"""The notices whose data is read when they are sent, so that it is true then: digests, decisions, and the daily mails, which are also
written here, once a day.

A digest gets all messages of its window, so that each person gets one: those that were held in it, and of which something happened. A notice of an approval says whether a freeze stops the message
now; one that was revoked meanwhile is not sent.

The daily report of a guard that only observes (``enforce: false``) says what it would have stopped, and by which rules. It goes to the
lists' owners and to the default approvers, every day, even if there is nothing to report: readers wait for days without a false alarm. It
is a NOTICE intent like others (noticedata), whose ``data`` has ``notice``: observed; ``since``, ``until``: the organization's day;
``person``. When it is sent it gets ``judged``: the number of messages that were judged; ``total``: how many of them would have been
stopped, and ``at_least``: whether there may be more; ``rules``: [{``rule``, ``description``, ``would``: hold | defer | reject,
``count``}], the most frequent first; ``messages``: [{``subject``, ``from``, ``reach``, ``reach_at_least``, ``lists``, ``rules``}], at
most 50.

The daily mail of the newest checkpoint to an auditor is a witness that needs nothing but a mailbox. Its ``data`` has ``notice``:
checkpoint. When it is sent it gets ``seq``: the entry, ``at``: when it was signed, and ``note``: the lines of the signed note, which stand
on one in the mail, as in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Clock, PolicyInForce
from smtpguard.holds.model import LET_GO, SENDING, Choice, Hold, State, held_up_by, standing_votes
from smtpguard.journal.chain import instant, utc_text
from smtpguard.journal.event import Event
from smtpguard.mail.address import Address
from smtpguard.notices.intents import approvers, digest, escalated_to, notice_to
from smtpguard.notices.noticedata import NONE, nameable, reasons
from smtpguard.outbox.model import Intent
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.rule import AUTOMATIC, IN_DOUBT, RETURNS, STREAM
from smtpguard.policy.verdict import Action
from smtpguard.store.store import Store


async def fill(store: Store, data: Mapping[str, Any], in_force: InForce, now: datetime) -> Mapping[str, Any] | None:
    """The data of a NOTICE intent for rendering. None: it is not sent, since it is no longer true, or there is nothing to say. Raises
    StoreError."""
    match data["notice"]:
        case "observed":
            return await fill_observed(store, data, in_force)
        case "checkpoint":
            return await _checkpoint(store, data)
        case "digest" | "owner-digest":
            filled = await fill_digest(store, data, in_force)
            return filled if filled["total"] else None
        case "decided" | "doubt":
            return await _decision(store, data, in_force, now)
    return data


SHOWN = 50
PAGE = 100
"""Holds in memory at a time. A flood has several digests of one window, which are written at once."""
REJECTED = 10_000
PAGES = 1000  # a hundred thousand holds: beyond that the total is "at least"


async def fill_digest(store: Store, data: Mapping[str, Any], in_force: InForce) -> Mapping[str, Any]:
    """The data with the messages of its window. Raises StoreError."""
    since, until = datetime.fromisoformat(data["since"]), datetime.fromisoformat(data["until"])
    states: Counter[str] = Counter()
    undecided = refused = earlier = 0
    shown: list[dict[str, Any]] = []
    async for hold in _of_window(store, since, until):
        if _concerns(hold, data, in_force, since, until):
            states[hold.state.value] += 1
            voted = {vote.approver for vote in standing_votes(hold)}
            undecided += hold.state is State.WAITING and data["person"].lower() not in voted
            earlier += hold.held_at < since
            if len(shown) < SHOWN:
                shown.append(_line(hold, in_force))
    if data["notice"] == "owner-digest":
        for event in await store.journal.rejected(data["first"], until, REJECTED):
            if not event.data.get("tellable", True) and data["list_name"] in event.data["lists"]:
                states[State.REJECTED.value] += 1
                refused += 1
                if len(shown) < SHOWN:
                    shown.append(_rejected(event, in_force, data["list_name"]))
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


async def _of_window(store: Store, since: datetime, until: datetime) -> AsyncIterator[Hold]:
    """The holds of that time, newest first, and then earlier ones of which something happened in it. A copy that was held earlier is
    left out: what happens to it is told of its primary hold."""
    before, after_id = until, None
    for _ in range(PAGES):
        page = await store.holds.newest(limit=PAGE, before=before, after_id=after_id)
        for hold in page:
            if hold.held_at >= since:
                yield hold
        if len(page) < PAGE or page[-1].held_at < since:
            break
        before, after_id = page[-1].held_at, page[-1].hold_id
    ids = await store.journal.noticed(since, until)
    for n in range(0, len(ids), PAGE):
        for hold in await store.holds.several(ids[n : n + PAGE]):
            if hold.held_at < since and not hold.primary:
                yield hold


def _concerns(hold: Hold, data: Mapping[str, Any], in_force: InForce, since: datetime, until: datetime) -> bool:
    """Its writer, or the owner in the writer's place, is not told that the approvers were reminded."""
    person = data["person"].lower()
    reminded = hold.held_at < since and hold.state is State.WAITING and hold.release_at is None
    if reminded and data.get("role") not in ("approver", "owner"):
        return False
    if data["notice"] == "owner-digest":
        return hold.sender is None and data["list_name"] in hold.lists
    if data["role"] == "approver":
        return any(person in approvers(hold, in_force, at) for at in (hold.held_at, until))
    if data["role"] == "owner":
        return hold.escalated and any(person == each.lower() for each in escalated_to(hold, in_force))
    return person in (each.lower() for each in (hold.sender, *hold.told) if each is not None)


def _line(hold: Hold, in_force: InForce) -> dict[str, Any]:
    return {
        "hold_id": hold.hold_id,
        "subject": hold.subject,
        "from": hold.sender or "",
        "state": "stopped" if hold.stopped else hold.state.value,
        "held_at": utc_text(hold.held_at),
        "expires_at": utc_text(hold.expires_at),
        "reach": hold.reach,
        "reach_at_least": hold.reach_at_least,
        "lists": nameable(hold, in_force),
        "reasons": reasons(hold, in_force)[:1],
        "comment": next((v.comment for v in reversed(hold.votes) if v.choice is Choice.REJECT), ""),
    }


def _message(event: Event) -> dict[str, Any]:
    """What the journal has of a message."""
    return {
        "subject": next(iter(event.private.get("subject", ())), ""),
        "from": next(iter(event.private.get("from", ())), ""),
        "reach": int(event.data["counts"]["reach"]),
        "reach_at_least": bool(event.data.get("reach_at_least")),
    }


def _rejected(event: Event, in_force: InForce, name: str) -> dict[str, Any]:
    """A message that was rejected at once was never held: it has no id, and does not wait."""
    return {
        **_message(event),
        "hold_id": None,
        "state": State.REJECTED.value,
        "held_at": utc_text(event.at),
        "expires_at": None,
        "lists": [in_force.title(name)] if name in in_force.registry.lists else [],
        "reasons": [],
        "comment": "",
    }


async def _decision(
    store: Store, data: Mapping[str, Any], in_force: InForce, now: datetime
) -> Mapping[str, Any] | None:
    """None: it is no longer true, and another notice replaces it."""
    hold = await store.holds.find(data["hold_id"])
    if hold is None:
        return data
    if data["notice"] == "doubt":
        return data if hold.asked_at is not None else None
    match data["outcome"]:
        case "approved" if hold.state is State.WAITING and hold.release_at is not None:
            stopped = held_up_by(hold, (await store.gate.read()).freezes, now)
            return {**data, "frozen": frozen(stopped, hold, in_force), "release_at": utc_text(hold.release_at)}
        case "approved" | "confirmed" if hold.state in SENDING and hold.state is not State.IN_DOUBT:
            stopped = held_up_by(hold, (await store.gate.read()).freezes, now)
            return {**data, "frozen": frozen(stopped, hold, in_force)}
        case "approved" | "confirmed" if hold.state is State.RELEASED and not hold.stopped:
            return {**data, "sent": True}
        case "approved" | "confirmed" if hold.state is State.GRANTED:
            return {**data, "test": True}
        case "approved" | "confirmed" if hold.state in LET_GO and not hold.stopped:  # a DSN reports its result
            return data
        case "approved" | "confirmed":
            return None
        case "reopened" | "lapsed" if hold.state is not State.WAITING or hold.release_at is not None:
            return None
        case "released" if hold.state is not State.RELEASED or hold.stopped:
            return None
    return data


def frozen(freezes: Iterable[Freeze], hold: Hold, in_force: InForce) -> list[dict[str, Any]]:
    """Freezes as a notice shows them: ``list`` only if it may be named to this reader, and never the reason, which is
    for users of the console."""
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
            "until": utc_text(freeze.until) if freeze.until is not None else None,
        }
        for freeze in freezes
    ]


MOST = 20_000
_FIXED = {AUTOMATIC: Action.REJECT, STREAM: Action.DEFER, IN_DOUBT: Action.HOLD, RETURNS: Action.HOLD}


@dataclass(slots=True)
class Daily:
    """Writes the intents of each day, to be sent at its end, once a day; also over all nodes, since their ids are the same.
    ``made``: those of the day between the two times."""

    store: Store
    policies: PolicyInForce
    clock: Clock
    made: Callable[[InForce, datetime, datetime], Iterable[Intent]]
    _written: tuple[str, datetime] | None = None

    async def write(self) -> None:
        """Raises StoreError."""
        in_force = self.policies.current()
        since, until = day_of(self.clock.now(), in_force)
        if self._written != (in_force.policy_sha256, since):
            if made := tuple(self.made(in_force, since, until)):
                await self.store.journal.record([], made)
            self._written = in_force.policy_sha256, since


def day_of(now: datetime, in_force: InForce) -> tuple[datetime, datetime]:
    """The organization's day around ``now``, from midnight to midnight; with its real length when the clock changes."""
    zone = in_force.hours.zone
    today = now.astimezone(zone).date()
    since, until = (datetime.combine(d, time(), zone).astimezone(UTC) for d in (today, today + timedelta(days=1)))
    return since, until


def daily(in_force: InForce, since: datetime, until: datetime) -> Iterable[Intent]:
    """The report of an observing policy to each reader."""
    if in_force.enforce:
        return
    told = {info.owner for info in in_force.registry.lists.values() if info.owner}
    for quorum in in_force.rules.quorum(()):
        for group in quorum.groups:
            told |= in_force.people(group)
    for person in sorted(told):
        yield from digest(person, {"notice": "observed"}, since, until)


async def fill_observed(store: Store, data: Mapping[str, Any], in_force: InForce) -> Mapping[str, Any]:
    """The data with the messages of that day. Raises StoreError."""
    since, until = datetime.fromisoformat(data["since"]), datetime.fromisoformat(data["until"])
    judged, events = await store.journal.observed(since, until, MOST)
    counts = Counter(rule for event in events for rule in event.data["observed"])
    own = {rule.rule_id: rule for rule in in_force.rules.rules}
    rules = [
        {
            "rule": name,
            "description": own[name].description if name in own else "",
            "would": (own[name].then if name in own else _FIXED.get(name, Action.HOLD)).word,
            "count": count,
        }
        for name, count in counts.most_common()
    ]
    shown = [_observed_line(event, in_force) for event in events[:SHOWN]]
    return {**data, "judged": judged, "total": len(events), "at_least": len(events) == MOST, "rules": rules, "messages": shown}  # fmt: skip


def _observed_line(event: Event, in_force: InForce) -> dict[str, Any]:
    """A message from the journal; with the lists that were addressed, not those that single recipients are on."""
    lists = (
        in_force.registry.list_at(a)
        for a in map(Address.parse_any, event.private.get("recipients", ()))
        if a is not None
    )
    return {
        **_message(event),
        "lists": list(dict.fromkeys(info.called for info in lists if info is not None)),
        "rules": list(event.data["observed"]),
    }


def checkpoint_to(auditor: str, in_force: InForce, since: datetime, until: datetime) -> Iterable[Intent]:
    about = {**NONE, "notice": "checkpoint"}
    return notice_to(f"checkpoint-{since:%Y%m%dT%H%M}", auditor, about, not_before=until)


async def _checkpoint(store: Store, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The data with the newest checkpoint; None if there is none."""
    newest = next(iter(await store.journal.checkpoints(-1, 1)), None)
    if newest is None:
        return None
    at = utc_text(instant(newest.at))
    return {**data, "seq": newest.seq, "at": at, "note": newest.note.split("\n")}
