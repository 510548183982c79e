"""Laws that a random history keeps at each moment, as a reader of the docs would state them, without the guard's own code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from smtpguard.holds.model import Hold
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import DECISIONS, Kind
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.verdict import Quorum
from smtpguard.store.store import Store

Pairs = Sequence[tuple[Entry, Clear | None]]
FINAL = {Kind.REJECTED.value, Kind.WITHDRAWN.value, Kind.EXPIRED.value}
YES = {Kind.APPROVED.value, Kind.CONFIRMED.value}
DECIDED = {kind.value for kind in DECISIONS}
OWN, DUTY = "@example.com", "duty@example.com"
ROLES = ("reverse_path", "from", "recipients", "actor", "message_id", "ident", "envid")
"""What ``find`` looks for, of the names in an entry."""


def stops(freeze: Freeze, hold: Hold) -> bool:
    match freeze.selector:
        case Selector.ALL:
            return True
        case Selector.LIST:
            return freeze.value in hold.lists
        case Selector.SENDER:
            return freeze.value in hold.senders
        case Selector.MAILING:
            return bool(hold.mailing_id) and freeze.value == hold.mailing_id
    return False


def agreed(quorum: Quorum, people: Collection[str]) -> bool:
    """Whether these may be enough: one for each seat, or out of hours one on duty."""
    return len(people) >= len(quorum.groups) * quorum.each or (quorum.out_of_hours is not None and DUTY in people)


async def check_release(
    store: Store, id: str, prepend: bytes, recipients: Collection[str], wrote: Mapping[str, Collection[str]]
) -> None:
    """A held message is given to the relay: nothing stops it, and people have decided so. ``wrote``: who sent each, under
    any address or login."""
    hold = await store.holds.find(id)
    assert hold is not None, id
    freezes = (await store.gate.read()).freezes
    now = store.now()
    stopped = [one for one in freezes if (one.until is None or now < one.until) and stops(one, hold)]
    assert not stopped, (id, "frozen", stopped)
    if f"X-Smtpguard-Release: {id}-part".encode() in prepend:
        assert all(one.endswith(OWN) for one in recipients), recipients
        return
    history = await store.journal.history(id)
    said = [one for one, _ in history if one.kind in DECIDED]
    assert said, (id, "nobody decided")
    assert said[-1].kind in YES, (id, said[-1].kind)
    lead = str(said[-1].data.get("with") or id)
    if lead != id:
        history = await store.journal.history(lead)
    if (first := await store.holds.find(lead)) is not None and history:
        _check_votes(first, history, {first.author, *wrote.get(lead, ())})


def _check_votes(hold: Hold, history: Pairs, writers: Collection[str]) -> None:
    """Those who approved it last are as many as it asks for, and did not write it."""
    people: set[str] = set()
    for one, clear in history:
        if one.kind == Kind.REOPENED.value:
            people = set()
        elif one.kind == Kind.CONFIRMED.value:
            return
        elif one.kind == Kind.APPROVED.value:
            break
        elif one.kind == Kind.VOTE.value:
            if clear is None:  # erased
                return
            who = str(clear["actor"][0])
            if one.data.get("choice") == "approve":
                people.add(who)
            else:
                people.discard(who)
    others = people.difference(writers)
    assert others, (hold.hold_id, people, writers)
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


async def check_sent(store: Store, id: str, to: Collection[str], lists: Collection[str]) -> None:
    """A message was given to the relay as it came: its verdict is recorded, no freeze was in force, and what goes to one of
    these list addresses was approved, since nobody in a history is its writer."""
    now, gate = store.now(), await store.gate.read()
    freezes = [one for one in gate.freezes if one.until is None or now < one.until]
    assert not any(one.selector is Selector.ALL for one in freezes), id
    addressed = {one.partition("@")[0] for one in {*to} & {*lists}}
    assert not any(one.selector is Selector.LIST and one.value in addressed for one in freezes), id
    verdicts = [one.data for one, _ in await store.journal.history(id) if one.kind == Kind.VERDICT.value]
    assert verdicts, (id, "no verdict")
    assert not addressed or verdicts[-1]["hold"] or verdicts[-1]["approved"], (id, verdicts[-1])


async def check_found(store: Store, entries: Pairs, words: Collection[str]) -> None:
    """``find`` finds the messages whose names have a word, and no others."""
    verdicts = [(one, clear) for one, clear in entries if one.kind == Kind.VERDICT.value and not one.data.get("retry")]
    for word in words:
        wanted = {one.id for one, clear in verdicts if clear and any(word in clear.get(role, ()) for role in ROLES)}
        assert {*await store.journal.find([word], 100_000)} == wanted, word
