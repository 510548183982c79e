"""Laws that a random history keeps at each moment, as a reader of the docs would state them, without the guard's own code."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from smtpguard.holds.model import LIVE, Hold, State
from smtpguard.journal.chain import Pair
from smtpguard.journal.event import DECISIONS, Kind
from smtpguard.mailings.model import Grant, Mailing
from smtpguard.policy.freezing import Selector
from smtpguard.policy.rule import REJECTED, WAITS
from smtpguard.policy.verdict import Quorum
from smtpguard.store.store import Store

Pairs = Sequence[Pair]
FINAL = {Kind.REJECTED.value, Kind.WITHDRAWN.value, Kind.EXPIRED.value}
YES = {Kind.APPROVED.value, Kind.CONFIRMED.value}
DECIDED = {kind.value for kind in DECISIONS}
STAYS = {State.WAITING, State.REJECTED, State.WITHDRAWN, State.EXPIRED, State.VOID}
OWN, DUTY = "@example.com", "duty@example.com"
_ANY = {"eva@example.com", "omar@example.com", "dpo@example.com", "new@example.com", "sten@example.com"}
SEATS = {"communications": _ANY - {"dpo@example.com"}, "compliance": _ANY - {"eva@example.com"}}
"""All who decide in a group by a policy of these histories, or as a deputy."""
BESIDE = {WAITS, "any"}
"""Rules that no approval names: that other copies wait, and a drawn one, to which the writer may have said yes."""
ROLES = ("reverse_path", "from", "recipients", "actor", "message_id", "ident", "envid")
"""What ``find`` looks for, of the names in an entry."""


async def check_not_frozen(store: Store, lists: Collection[str], senders: Collection[str], mailing: str) -> None:
    now = store.now()
    selected = {Selector.ALL: [""], Selector.LIST: lists, Selector.SENDER: senders, Selector.MAILING: [mailing]}
    for one in (await store.gate.read()).freezes:
        over = one.until is not None and one.until <= now
        assert over or one.value not in selected.get(one.selector, ()), one


async def check_hold_not_frozen(store: Store, id: str) -> None:
    hold = await store.holds.find(id)
    assert hold is not None, id
    await check_not_frozen(store, hold.lists if hold.correction is None else (), hold.senders, hold.mailing_id)


def agreed(quorum: Quorum, people: Collection[str]) -> bool:
    """Whether these may be enough: one for each seat, each of whom may ever have it, or out of hours one on duty."""
    there = all(len({*people} & SEATS[group]) >= quorum.each for group in quorum.groups if group in SEATS)
    enough = there and len(people) >= len(quorum.groups) * quorum.each
    return enough or (quorum.out_of_hours is not None and DUTY in people)


def check_seat(asked: Collection[Quorum], who: str) -> None:
    """Somebody's approval was taken: these ask for one of theirs, by some policy."""
    known = all(group in SEATS for one in asked for group in one.groups)
    seats = {person for one in asked for group in one.groups for person in SEATS.get(group, ())}
    duty = any(one.out_of_hours is not None for one in asked)
    assert not known or who in seats or (duty and who == DUTY), (who, asked)


async def check_release(
    store: Store, id: str, prepend: bytes, recipients: Collection[str], wrote: Mapping[str, Collection[str]]
) -> None:
    """A held message is given to the relay: nothing stops it, and people have decided so. ``wrote``: who sent each, under
    any address or login."""
    hold = await store.holds.find(id)
    assert hold is not None, id
    assert hold.acknowledged, (id, "its client still has it")
    await check_hold_not_frozen(store, id)
    if f"X-Smtpguard-Release: {id}-part".encode() in prepend:
        assert all(one.endswith(OWN) for one in recipients), recipients
        return
    if await _is_cut(store, hold):
        return
    history = await store.journal.history(id)
    said = [one for one, _ in history if one.kind in DECIDED]
    assert said, (id, "nobody decided")
    assert said[-1].kind in YES, (id, said[-1].kind)
    lead = str(said[-1].data.get("with") or id)
    if lead != id:
        history = [pair for pair in await store.journal.history(lead) if pair[0].seq < said[-1].seq]
    if history and (first := await store.holds.find(lead)) is not None and not await _is_cut(store, first):
        assert first.state not in STAYS, (id, lead, first.state)
        _check_votes(first, history, {first.author, *wrote.get(lead, ())})


async def _is_cut(store: Store, hold: Hold) -> bool:
    """Whether it waits for so long that retention has cut entries on it off."""
    [(oldest, _)] = await store.journal.entries(limit=1)
    return oldest.seq > 1 and hold.held_at < oldest.time


def _check_votes(hold: Hold, history: Pairs, writers: Collection[str]) -> None:
    """Those who approved it last are as many as it asks for, in time, and did not write it."""
    [*_, last] = [n for n, (one, _) in enumerate(history) if one.kind in YES] or [0]
    people: dict[str, datetime] = {}
    reminded = False  # for the last time: nothing expires before
    for one, clear in history[: last + 1]:
        if one.kind == Kind.REOPENED.value:
            people.clear()
            reminded = False
        elif one.kind == Kind.REMINDED.value:
            reminded = one.data["percent"] == 90
        elif one.kind == Kind.VOTE.value:
            if clear is None:  # erased
                return
            people.pop(str(clear["actor"][0]), None)
            if one.data["choice"] == "approve":
                people[str(clear["actor"][0])] = one.time
    if history[last][0].kind == Kind.CONFIRMED.value:
        return
    assert not reminded or all(at < hold.expires_at for at in people.values()), (hold.hold_id, "too late", people)
    lists = {f"list {name}" for name in hold.lists}
    others = {vote.approver for vote in hold.votes if vote.seen >= lists} & people.keys() - {*writers}
    assert others, (hold.hold_id, people, hold.votes, writers)
    assert all(agreed(one, others) for one in hold.verdict.quorum), (hold.hold_id, others, hold.verdict.quorum)


def check_decided(entries: Pairs) -> None:
    """A hold that has ended stays so; and it is let go once, unless people wait again in between."""
    last: dict[str, str] = {}
    for one, _ in entries:
        if one.kind in DECIDED:
            before = last.get(one.id)
            assert before not in FINAL, (one.id, before, one.kind)
            assert not (before in YES and one.kind in YES), (one.id, before, one.kind)
            last[one.id] = one.kind


async def check_sent(
    store: Store, id: str, to: Collection[str], lists: Collection[str], wrote: Collection[str]
) -> Mapping[str, Any]:
    """A message was given to the relay as it came: its verdict is recorded, no freeze was in force, and what goes to one of
    these list addresses was approved, since nobody in a history is its writer. Returns its verdict."""
    verdicts = [one.data for one, _ in await store.journal.history(id) if one.kind == Kind.VERDICT.value]
    assert verdicts, (id, "no verdict")
    data = verdicts[-1]
    assert data["action"] == "relay", (id, data)
    await check_not_frozen(store, () if data.get("set") else data["lists"], wrote, data["mailing"] or "none")
    assert data["policy"] == (await store.gate.read()).policy_sha256, (id, "another policy")
    addressed = {one.partition("@")[0] for one in {*to} & {*lists}}
    assert not addressed or data["hold"] or data["approved"], (id, data)
    return data


async def check_covered(
    store: Store, data: Mapping[str, Any], wrote: Collection[str], login: str, customers: int
) -> str:
    """A message to customers was given to the relay: its mailing was not rejected; and an approval covers it, if rules
    would have held it, or its mailing has so many ``customers`` that it must be approved. Returns the law that it has kept."""
    mailing = await store.mailings.find(data["mailing"])
    assert mailing is not None
    rejection = mailing.rejection
    assert data.get("set") or rejection is None or rejection.only or not rejection.senders & {*wrote}, "rejected"
    policy = dict(await store.policies.documents(data["policy"]))["policy.yaml"]
    most = int(re.findall(rb'mailing.customers: ">= (\d+)", mailing.approved', policy)[0])
    rules, lists = {*data["approved"]} - BESIDE, {*data["lists"]}
    if not rules and customers < most:
        return "not rejected"

    def covers(grant: Grant) -> bool:
        cover = grant.cover
        writers = [] if cover is None else [(cover.author, cover.proofs), *cover.also]
        proven = any(
            who in wrote and (login or not any(one.startswith("login") for one in how)) for who, how in writers
        )
        return (
            store.now() < grant.until and rules <= grant.rules and (not lists or bool(lists & grant.lists)) and proven
        )

    covering = [grant for grant in mailing.grants if covers(grant)]
    assert covering, (data, mailing)
    leads = [await store.holds.find(grant.hold_id) for grant in covering]
    assert any(lead is None or lead.state not in STAYS for lead in leads), (data, "taken back")
    assert any(grant.only or mailing.out <= grant.people for grant in covering), (mailing.out, covering)
    if len(mailing.grants) == 1 and not covering[0].only:
        named = await _named(store, covering[0])
        assert mailing.out - covering[0].before <= named, (mailing.out, covering)
        return "covered" if named == math.inf else "within a number"
    return "covered"


def check_places(holds: Collection[Hold], mailings: Collection[Mailing]) -> None:
    """Each hold that waits is where people decide on it, and is counted there; a mailing is led by one of its own."""
    by_id, under = {hold.hold_id: hold for hold in holds}, defaultdict[str, list[Hold]](list)
    waiting = [hold for hold in holds if hold.state is State.WAITING]
    for hold in waiting:
        under[hold.primary].append(hold)
    for hold in holds:
        assert hold.primary != hold.hold_id, (hold.hold_id, "under itself")
        if hold.state in LIVE and hold.primary:
            lead = by_id.get(hold.primary)
            assert lead is not None, (hold.hold_id, "its lead is gone")
            assert lead.state is not State.VOID, (hold.hold_id, "under a void one", lead.hold_id)
            assert not (lead.primary and hold in waiting), (hold.hold_id, "under a copy", lead.hold_id)
    for lead in under[""]:
        copies = under[lead.hold_id]
        assert lead.reopened_at or lead.copies == len(copies), (lead.hold_id, lead.copies, len(copies))
    queues = [lead.queue for lead in under[""] if lead.queue]
    assert len(queues) == len({*queues}), "letters of one sender wait in two places"
    waits = {hold.mailing_id for hold in waiting if not hold.kind and hold.correction is None}
    for one in mailings:
        first = by_id.get(one.entry)
        own = first in under[""] and first.mailing_id == one.mailing_id
        assert own or not one.entry, (one.mailing_id, "led by", one.entry)
        assert not one.people.held or one.mailing_id in waits, (one.mailing_id, "nothing of it waits")


async def check_turned_away(store: Store, id: str) -> None:
    """A message was rejected as one of a mailing: people have rejected that, and not too long ago."""
    verdicts = [one.data for one, _ in await store.journal.history(id) if one.kind == Kind.VERDICT.value]
    for data in [one for one in verdicts[-1:] if REJECTED in one["rules"]]:
        mailing = await store.mailings.find(data["mailing"])
        assert mailing is not None, data
        rejection = mailing.rejection
        assert rejection is not None, (data, "not rejected")
        assert store.now() < rejection.until, (data, "no longer rejected")


async def _named(store: Store, grant: Grant) -> float:
    """The least number of people that one of its approvers named."""
    hold = await store.holds.find(grant.hold_id)
    last = {vote.approver: vote.people for vote in hold.votes} if hold is not None else {}
    return min((last[who] for who in grant.by if last.get(who)), default=math.inf)


async def check_found(store: Store, entries: Pairs, words: Collection[str]) -> None:
    """``find`` finds the messages whose names have a word, and no others."""
    verdicts = [(one, clear) for one, clear in entries if one.kind == Kind.VERDICT.value and not one.data.get("retry")]
    for word in words:
        wanted = {one.id for one, clear in verdicts if clear and any(word in clear.get(role, ()) for role in ROLES)}
        assert {*await store.journal.find([word], 100_000)} == wanted, word
