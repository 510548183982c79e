"""The status of each person's copies, from the verdict to the relay's last reply.

No person counts as having a copy that did not reach them, and none as lacking one that may have.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from smtpguard.admission.model import Admission, Seen
from smtpguard.cli.mailings import Follower, mailing_lines, table
from smtpguard.database.schema import UNSENT
from smtpguard.holds.model import LET_GO, Change, Hold, State
from smtpguard.holds.model import Move as Step
from smtpguard.holds.sending import state_after_revocation
from smtpguard.journal.chain import microseconds
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Kind
from smtpguard.locale.phrase import Amount
from smtpguard.mail.envelope import Recipient
from smtpguard.mailings.inflight import InFlight, in_flight, is_unsent
from smtpguard.mailings.model import MAY_HAVE, CopyStatus, Mailing, PeopleCounts
from smtpguard.mailings.service import row
from smtpguard.outbox.model import OF_CONTENT, AttemptResult, Intent, IntentKind, Lease, Settled
from smtpguard.outbox.rows import attempted, holds_to_ask, sendings
from smtpguard.policy.verdict import Action, Held, Verdict
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.mailings.test_mailingbatch import admit, of, outcome, person
from tests.store.making import CONTENT, SECRET, T0, a_freeze, a_hold, event, hold_of, on_sqlite, release, sqlite_plans

LIST = person("news v1", weight=1200, lists=("offers",))


async def one(store: Store) -> Mailing:
    (mailing,) = await store.mailings.newest()
    return mailing


async def tally(store: Store) -> PeopleCounts:
    return (await one(store)).people


async def statuses(store: Store, *names: str) -> list[CopyStatus]:
    """The status of each person; NONE without a copy."""
    found = await store.mailings.reached_by((await one(store)).mailing_id, [person(name).digest for name in names])
    return [found.get(person(name).digest, CopyStatus.NONE) for name in names]


async def hold(store: Store, id: str, *people: object, apart: Sequence[str] = (), by_wire: bool = False) -> str:
    """Hold one copy; return its id. ``apart``: colleagues who get theirs now, by the outbox, or by the MTA
    (``by_wire``)."""
    await store.contents.keep(CONTENT)
    colleagues = frozenset(person(name).digest for name in apart)

    def step(live: Seen) -> Admission:
        assert live.mailing is not None
        made = a_hold(id, mailing_id=live.mailing.mailing_id, at=live.now)
        part = Intent(intent_id=f"{id}-part", kind=IntentKind.PART, reverse_path=None,
                      recipients=release(id, *(f"{name}@x.example" for name in apart)).recipients, hold_id=id,
                      content_sha256=CONTENT.sha256)  # fmt: skip
        return Admission(
            verdict=Verdict(action=Action.HOLD),
            events=(event(Kind.VERDICT, id, at=live.now, action="hold", hold=id),),
            disposition=Held(hold_id=id, taken=made.envelope.recipients if by_wire else ()),
            hold=made,
            intents=(part,) if apart and not by_wire else (),
            spared=colleagues,
        )

    await store.admit(of(id, *people, *apart), step)  # type: ignore[arg-type]
    return id


async def set_state(store: Store, id: str, state: State, *intents: Intent) -> None:
    await store.holds.change(id, lambda h: Change(hold=replace(h, state=state), intents=intents))


def gives(made: Change) -> Callable[[Hold], Change]:
    """The step with this result."""
    return lambda _: made


async def approved(store: Store, id: str, *to: str) -> None:
    await set_state(store, id, State.APPROVED, release(id, *(to or ("c@list.example",))))


async def leased(store: Store, id: str) -> Lease:
    (lease,) = [one for one in await store.outbox.lease("one", 100, 60) if one.intent.intent_id == id]
    return lease


def last(
    lease: Lease,
    event: DeliveryEvent,
    clock: Clock,
    doubts: int = 0,
    people: Sequence[bytes] | None = None,
    to: Sequence[Recipient] = (),
) -> list[AttemptResult]:
    """The same outcome for all recipients, or for these (``to``). ``people``: the people behind each of them."""
    again = clock.now() + timedelta(minutes=1) if event in (DeliveryEvent.PUT_OFF, DeliveryEvent.BEGIN) else None
    behind = None if people is None else tuple(people)
    return [
        AttemptResult(recipient=r, event=event, next_at=again, doubts=doubts, people=behind)
        for r in to or lease.recipients
    ]


ENDS = {"sent": State.RELEASED, "failed": State.UNDELIVERED, "doubted": State.IN_DOUBT}
DELIVERED = {"sent": (DeliveryEvent.TAKE, 0), "failed": (DeliveryEvent.REFUSE, 0), "doubted": (DeliveryEvent.REFUSE, 1)}
ATTEMPTED = DELIVERED | {"retry": (DeliveryEvent.PUT_OFF, 0), "begun": (DeliveryEvent.BEGIN, 1)}


# approved


async def test_a_release_is_pending_until_an_attempt_and_then_in_doubt(store: Store, clock: Clock) -> None:
    """Approved copies count as admitted until an attempt begins, and from then on as in doubt, however long they wait."""
    await hold(store, "H1", LIST)
    assert await tally(store) == PeopleCounts(held=1200)
    await approved(store, "H1")
    clock.pass_(days=1)
    assert await tally(store) == PeopleCounts(admitted=1200)
    lease = await leased(store, "H1-release")
    begun = last(lease, DeliveryEvent.BEGIN, clock, 1, [LIST.digest])
    assert await store.outbox.settle(lease, begun, [])
    assert await tally(store) == PeopleCounts(doubted=1200)
    assert await statuses(store, "news v1") == [CopyStatus.DOUBTED]
    clock.pass_(days=1)
    assert await tally(store) == PeopleCounts(doubted=1200), "the process was killed, and a freeze stands, say"
    (grown,) = await store.mailings.growth((await one(store)).mailing_id)
    assert (grown.sent, grown.held) == (0, 1200)


@on_sqlite
@pytest.mark.parametrize(
    ("became", "expected"), [("sent", PeopleCounts(relayed=1200)), ("doubted", PeopleCounts(doubted=1200))]
)
async def test_the_relays_answer_sets_the_fate(store: Store, clock: Clock, became: str, expected: PeopleCounts) -> None:
    await hold(store, "H1", LIST)
    await approved(store, "H1")
    lease = await leased(store, "H1-release")
    delivered, doubts = DELIVERED[became]
    assert await store.outbox.settle(lease, last(lease, delivered, clock, doubts, [LIST.digest]), [])
    assert await tally(store) == expected
    held = await hold_of(store, "H1")
    assert held.settled == Settled(**{became: 1})
    assert held.state is ENDS[became]
    (grown,) = await store.mailings.growth((await one(store)).mailing_id)
    assert (grown.sent, grown.held) == (expected.relayed, 1200 - expected.relayed)


@on_sqlite
async def test_a_doubted_release_to_a_changed_list_leaves_its_people_in_doubt(store: Store, clock: Clock) -> None:
    """The digest of the recipient has changed with the list; the people are those of the copy."""
    await hold(store, "H1", LIST)
    await approved(store, "H1")
    lease = await leased(store, "H1-release")
    another = person("news v2", weight=1300)
    await store.outbox.settle(lease, last(lease, DeliveryEvent.REFUSE, clock, 1, [another.digest]), [])
    assert await tally(store) == PeopleCounts(doubted=1200)


@on_sqlite
async def test_a_partly_failed_release(store: Store, clock: Clock) -> None:
    await hold(store, "H1", "a", "b", "c")
    await approved(store, "H1", "a@x.example", "b@x.example", "c@x.example")
    lease = await leased(store, "H1-release")
    a, b, c = lease.recipients
    a_, b_, c_ = (person(name).digest for name in "abc")
    outcomes = [
        AttemptResult(recipient=a, event=DeliveryEvent.TAKE, people=(a_,)),
        AttemptResult(recipient=b, event=DeliveryEvent.REFUSE, people=(b_,)),
        AttemptResult(recipient=c, event=DeliveryEvent.PUT_OFF, next_at=clock.now() + timedelta(minutes=1)),
    ]
    await store.outbox.settle(lease, outcomes, [])
    assert await tally(store) == PeopleCounts(relayed=1, refused=1, admitted=1)
    clock.pass_(minutes=2)
    again = await leased(store, "H1-release")
    assert again.recipients == (c,)
    settled = Settled(sent=1, failed=1, doubted=1)
    await store.outbox.settle(
        again, [AttemptResult(recipient=c, event=DeliveryEvent.REFUSE, doubts=1, people=(c_,))], []
    )
    assert await tally(store) == PeopleCounts(relayed=1, refused=1, doubted=1)
    held = await hold_of(store, "H1")
    assert held.settled == settled


async def test_a_void_hold_is_still_with_its_client(store: Store) -> None:
    await hold(store, "H1", LIST, apart=["ulf"])
    await set_state(store, "H1", State.VOID)
    assert await tally(store) == PeopleCounts(deferred=1201)


# the colleagues' part


@on_sqlite
@pytest.mark.parametrize("became", ["sent", "doubted"])
async def test_the_colleagues_part_is_pending_until_delivered(store: Store, clock: Clock, became: str) -> None:
    await hold(store, "H1", LIST, apart=["ulf"])
    assert await tally(store) == PeopleCounts(held=1200, admitted=1)
    await set_state(store, "H1", State.REJECTED)
    assert await tally(store) == PeopleCounts(stopped=1200, admitted=1), "the decision does not concern the colleagues"
    lease = await leased(store, "H1-part")
    delivered, doubts = DELIVERED[became]
    await store.outbox.settle(lease, last(lease, delivered, clock, doubts, [person("ulf").digest]), [])
    assert await tally(store) == PeopleCounts(
        stopped=1200, relayed=int(became == "sent"), doubted=int(became == "doubted")
    )
    held = await hold_of(store, "H1")
    assert (held.state, held.settled) == (State.REJECTED, None)


@on_sqlite
@pytest.mark.parametrize(
    ("said", "expected"),
    [("relayed", PeopleCounts(relayed=1)), ("recalled", PeopleCounts(deferred=1)), ("lost", PeopleCounts(deferred=1))],
)
async def test_a_part_that_the_mta_delivers_is_known_once_reported(
    store: Store, said: str, expected: PeopleCounts
) -> None:
    await hold(store, "H1", LIST, apart=["ulf"], by_wire=True)
    assert await tally(store) == PeopleCounts(held=1200, doubted=1), "if the process ends here, the outcome is unknown"
    await store.journal.record([event(Kind.OUTCOME, "H1", outcome=said, part=True)])
    assert await tally(store) == replace(expected, held=1200)


# relayed


async def test_a_message_without_an_outcome_stays_in_doubt(store: Store, clock: Clock) -> None:
    await admit(store, of("T1", *(f"p{n}" for n in range(30))))
    await admit(store, of("T2", "z"))
    await store.journal.record([event(Kind.IN_DOUBT, "T1")])
    assert await tally(store) == PeopleCounts(doubted=30, admitted=1)
    assert (await one(store)).out == 31
    clock.pass_(days=8)
    while (await store.retain(Retention())).more:
        pass
    assert await tally(store) == PeopleCounts(doubted=31), (
        "without an outcome for days, as a process that died leaves it"
    )


@on_sqlite
@pytest.mark.parametrize(
    ("said", "expected"),
    [("relayed", PeopleCounts(relayed=1)), ("refused", PeopleCounts(doubted=1))],
)
async def test_a_late_delivery_ends_the_doubt(store: Store, said: str, expected: PeopleCounts) -> None:
    await admit(store, of("T1", "a"))
    await store.journal.record([event(Kind.IN_DOUBT, "T1")])
    await store.journal.record([event(Kind.OUTCOME, "T1", outcome=said, replies=["550 5.7.1 No"])])
    assert await tally(store) == expected


@on_sqlite
async def test_a_late_refusal_of_one_copy_leaves_the_other_in_doubt(store: Store) -> None:
    await admit(store, of("T1", "a"))
    await admit(store, of("T2", "a"))
    for id in ("T1", "T2"):
        await store.journal.record([event(Kind.IN_DOUBT, id)])
    await store.journal.record([event(Kind.OUTCOME, "T1", outcome="refused", replies=["550 5.7.1 No"])])
    assert await tally(store) == PeopleCounts(doubted=1)


async def test_a_doubt_of_an_earlier_version_is_read(store: Store) -> None:
    """A doubt of an earlier version, marked only in the table of mail in flight, still counts."""
    await admit(store, of("T1", "a"))
    await admit(store, of("T2", "b"))
    await store.write(lambda b: b.connection.exec_driver_sql("UPDATE underway SET doubt = (1 = 1) WHERE id = 'T1'"))
    assert await tally(store) == PeopleCounts(doubted=1, admitted=1)
    assert await statuses(store, "a", "b") == [CopyStatus.DOUBTED, CopyStatus.ADMITTED]
    (grown,) = await store.mailings.growth((await one(store)).mailing_id)
    assert grown.sent == 0


# one copy after another


@on_sqlite
async def test_a_person_with_one_copy_has_it_though_the_next_is_stopped(store: Store) -> None:
    await admit(store, of("T1", "a"))
    await outcome(store, "T1", "relayed")
    await admit(store, of("T2", "b"))
    await store.journal.record([event(Kind.IN_DOUBT, "T2")])
    await admit(store, of("T3", "c"))
    await hold(store, "H1", "a", "b", "c", "d")
    assert await tally(store) == PeopleCounts(relayed=1, doubted=1, admitted=1, held=1)
    await set_state(store, "H1", State.REJECTED)
    assert await tally(store) == PeopleCounts(relayed=1, doubted=1, admitted=1, stopped=1)
    await outcome(store, "T3", "refused")
    assert await statuses(store, *"abcd") == [
        CopyStatus.RELAYED,
        CopyStatus.DOUBTED,
        CopyStatus.REFUSED,
        CopyStatus.STOPPED,
    ]


@on_sqlite
async def test_a_hold_counts_people_who_already_have_a_copy(store: Store) -> None:
    """The reach of a hold includes people who already have a copy: the approver reads how many people it goes to."""
    await admit(store, of("T1", LIST))
    await outcome(store, "T1", "relayed")
    await hold(store, "H1", LIST)
    held = await hold_of(store, "H1")
    assert held.reach == 400_000, "as the guard has shown"


@on_sqlite
async def test_two_refused_copies_at_once_leave_a_doubt(store: Store) -> None:
    """A refusal is stored only if the person can have no other copy."""
    await admit(store, of("T1", "a"))
    await admit(store, of("T2", "a"))
    assert await tally(store) == PeopleCounts(admitted=1)
    await outcome(store, "T1", "refused")
    await outcome(store, "T2", "refused")
    assert await tally(store) == PeopleCounts(doubted=1)


@on_sqlite
async def test_a_second_copy_while_the_first_is_in_the_outbox(store: Store) -> None:
    await hold(store, "H1", "a")
    await approved(store, "H1")
    await admit(store, of("T2", "a"))
    await outcome(store, "T2", "lost")
    assert await tally(store) == PeopleCounts(doubted=1)


@on_sqlite
@pytest.mark.parametrize(("became", "expected"), [("sent", "relayed"), ("failed", "refused"), ("revoked", "stopped")])
@pytest.mark.parametrize("others", [None, "sent", "doubted", "revoked"])
async def test_a_refused_copy_says_nothing_of_another_in_the_outbox(
    store: Store, clock: Clock, others: str | None, became: str, expected: str
) -> None:
    """``others``: what becomes of another person of the refused copy."""
    names = "ab" if others else "a"
    for id, people in (("H1", names), ("H2", "a")):
        await hold(store, id, *people)
        await approved(store, id, *(f"{name}@x.example" for name in people))
    first, second = await store.outbox.lease("one", 2, 60)
    digests = [person(name).digest for name in names]
    results = [
        replace(one, people=(digest,))
        for one, digest in zip(last(first, DeliveryEvent.REFUSE, clock), digests, strict=True)
    ]
    if others is not None:
        delivered, doubts = DELIVERED.get(others, (DeliveryEvent.PUT_OFF, 0))
        results[1] = replace(results[1], event=delivered, doubts=doubts, next_at=clock.now())
    await store.outbox.settle(first, results, [])
    if others == "revoked":
        back = frozenset({person("b").digest})
        await store.holds.change(
            "H1", lambda h: Change(hold=replace(h, state=State.UNDELIVERED, stopped_by="reject"), cancelled=back)
        )
    assert await statuses(store, "a") == [CopyStatus.ADMITTED], "the other may still reach them"
    if became == "revoked":
        await set_state(store, "H2", State.REJECTED)
    else:
        await store.outbox.settle(second, last(second, DELIVERED[became][0], clock, 0, digests[:1]), [])
    assert [status.name.lower() for status in await statuses(store, "a")] == [expected]


@on_sqlite
@pytest.mark.parametrize("before", [True, False])
async def test_who_has_a_copy_has_it_while_an_approved_one_waits(store: Store, before: bool) -> None:
    """``before``: the outcome of the first is known before the other is approved."""
    await hold(store, "H1", "a")
    await admit(store, of("T1", "a"))
    if before:
        await outcome(store, "T1", "relayed")
    await approved(store, "H1")
    if not before:
        await outcome(store, "T1", "relayed")
    assert await tally(store) == PeopleCounts(relayed=1)
    await set_state(store, "H1", State.REJECTED)
    assert await statuses(store, "a") == [CopyStatus.RELAYED]


@on_sqlite
async def test_held_mail_in_the_outbox_is_found_without_reading_the_notices_there(store: Store) -> None:
    """After a day without a relay tens of thousands of notices wait."""
    await hold(store, "H1", "p1")
    await approved(store, "H1", "p1@example.org")
    asked: Sequence[Callable[[Connection], object]] = (
        partial(in_flight, numbers=[1]),
        partial(is_unsent, mailing_id=(await one(store)).mailing_id, leads=(), most=0),
        partial(attempted, stop=a_freeze()),
        partial(holds_to_ask, now=T0),
    )
    plans = [one for ask in asked for one in await store.ask(partial(sqlite_plans, ask=ask))]
    found = [plan for sql, plan in plans if " outbox" in sql]
    assert len(found) == len(asked)
    assert all("USING INDEX outbox_unsent" in plan for plan in found), found
    assert {kind.value for kind in OF_CONTENT} == set(re.findall(r"'([a-z]+)'", UNSENT))


@on_sqlite
async def test_a_release_needs_no_query_for_each_waiting_copy(store: Store) -> None:
    """A mailing of thousands of copies goes out one by one, and each looks at who has another."""
    for n in range(12):
        await hold(store, f"H{n}", f"p{n}")
        await approved(store, f"H{n}", f"p{n}@example.org")
    wanted = [person(name).digest for name in ("p1", "p7")]

    def traced(connection: Connection, ask: Callable[[Connection], Any]) -> tuple[Any, str, int]:
        found: list[Any] = []
        plans = sqlite_plans(connection, lambda c: found.append(ask(c)))
        return found[0], "".join(plan for _, plan in plans), len(plans)

    def asked(connection: Connection) -> tuple[InFlight, InFlight, str, int]:
        return in_flight(connection, [1])[1], *traced(connection, lambda c: in_flight(c, [1], wanted)[1])

    every, some, plans, statements = await store.ask(asked)
    assert len(every.people) == 12
    assert some.people == set(wanted)
    assert "SCAN o" not in plans, "all that wait were looked at"
    assert statements == 5
    mailing = (await one(store)).mailing_id
    for leads, most, expected in ((["H1"], 0, (True, False)), (["H1"], 11, (True, True)), ([], 12, (False, True))):
        unsent, plans, _ = await store.ask(
            partial(traced, ask=partial(is_unsent, mailing_id=mailing, leads=leads, most=most))
        )
        assert (unsent, "SCAN o" in plans) == expected, "what waits of other mailings is read only if it may matter"
    await hold(store, "H-both", "p1", "p2")
    await approved(store, "H-both")
    _, some, _, statements = await store.ask(asked)
    assert some.people == {*wanted, person("p2").digest}
    assert statements == 4


# compared with what really happened


@pytest.mark.parametrize("seed", [24, 26, 34])
async def test_fates_agree_with_a_model(store: Store, url: str, clock: Clock, seed: int) -> None:
    """No status contradicts what really happened, for random copies, decisions, outcomes, attempts and revocations.
    The test tracks the truth itself."""
    rng = random.Random(seed)
    steps = [one for one in ("relay", "hold", "outcome", "decide", "attempt") for _ in range(2)] + ["attempt", "revoke"]
    has: dict[str, set[str]] = {}  # person -> copies that the relay took
    may: dict[str, set[str]] = {}  # person -> copies in doubt for ever
    going: dict[str, tuple[str, ...]] = {}  # verdicts to relay, without an outcome
    waiting: dict[str, tuple[str, ...]] = {}  # held
    outbox: dict[str, dict[str, bool]] = {}  # approved: who has no result yet, and whether an attempt left a doubt
    for n in range(220 if url.startswith("sqlite") else 80):
        clock.pass_(minutes=2)
        names = tuple(rng.sample("abcdef", rng.randrange(1, 4)))
        match rng.choice(steps):
            case "relay":
                await admit(store, of(f"T{n}", *names))
                going[f"T{n}"] = names
            case "hold":
                await hold(store, f"H{n}", *names)
                waiting[f"H{n}"] = names
            case "outcome" if going:
                id = rng.choice(sorted(going))
                said = rng.choice(["relayed", "relayed", "refused", "lost", "in-doubt"])
                about = going.pop(id)
                if said == "in-doubt":
                    await store.journal.record([event(Kind.IN_DOUBT, id)])
                else:
                    await store.journal.record([event(Kind.OUTCOME, id, outcome=said, replies=["550 5.7.1 No"])])
                for name in about if said in ("relayed", "in-doubt") else ():
                    (has if said == "relayed" else may).setdefault(name, set()).add(id)
            case "decide" if waiting:
                id = rng.choice(sorted(waiting))
                about = waiting.pop(id)
                if rng.random() < 0.7:
                    await approved(store, id, *(f"{name}@x.example" for name in about))
                    outbox[id] = dict.fromkeys(about, False)
                else:
                    await set_state(store, id, rng.choice([State.REJECTED, State.WITHDRAWN, State.EXPIRED]))
            case "attempt" if outbox:
                id = rng.choice(sorted(outbox))
                for lease in await store.outbox.lease("one", 100, 1):
                    if lease.intent.intent_id != f"{id}-release":
                        continue
                    results = []
                    for recipient, doubts in zip(lease.recipients, lease.doubts, strict=True):
                        name = str(recipient.address).partition("@")[0]
                        became = rng.choice(["sent", "failed", "retry", "retry", "begun", "doubted"])
                        delivered, further = ATTEMPTED[became]
                        results += last(lease, delivered, clock, doubts + further, [person(name).digest], [recipient])
                        if became in ("retry", "begun"):
                            outbox[id][name] = doubts + further > 0
                            continue
                        del outbox[id][name]
                        if became == "sent" or doubts + further:
                            (has if became == "sent" else may).setdefault(name, set()).add(id)
                    await store.outbox.settle(lease, results, [])
                outbox = {id: left for id, left in outbox.items() if left}
            case "revoke" if outbox:
                id = rng.choice(sorted(outbox))
                sending = (await store.ask(partial(sendings, hold_ids=[id], now_us=microseconds(clock.now()))))[id]
                back = state_after_revocation((await hold_of(store, id)).state, Step.REJECT, sending)
                if sending.under_way or back is None:
                    continue
                stopped: dict[str, Any] = {}
                if back in LET_GO:
                    stopped = {"stopped_by": Step.REJECT.value, "settled": sending.stopped}
                left = frozenset(person(str(r.address).partition("@")[0]).digest for r in sending.left)
                made = replace(await hold_of(store, id), state=back, **stopped)
                await store.holds.change(id, gives(Change(hold=made, cancelled=left)))
                for name, doubted in outbox.pop(id).items():
                    if doubted:
                        may.setdefault(name, set()).add(id)
        pending = {name for some in (*going.values(), *outbox.values()) for name in some}
        if not await store.mailings.newest():
            continue
        counted = await statuses(store, *"abcdef")
        for name, status in zip("abcdef", counted, strict=True):
            assert name not in has or status is CopyStatus.RELAYED, (n, name, status, "certainty before doubt")
            if status is CopyStatus.RELAYED:
                assert name in has, (n, name)
            elif status not in MAY_HAVE:
                assert name not in has, (n, name, status)
                assert name not in may, (n, name, status)
                assert name not in pending, (n, name, status)
            elif status is CopyStatus.ADMITTED:
                assert name in pending, (n, name)
        people = await tally(store)
        assert people.all == sum(status is not CopyStatus.NONE for status in counted)
        assert people.relayed == counted.count(CopyStatus.RELAYED)
        assert people.doubted == counted.count(CopyStatus.DOUBTED)


def test_a_hold_of_an_earlier_version_has_no_separate_part() -> None:
    from smtpguard.mailings.inflight import pack_people, people_of, unpack_people

    digests = [person(name).digest for name in "abc"]
    assert unpack_people(b"".join(digests)) == (digests, [])
    assert unpack_people(pack_people(digests[:2], digests[2:])) == (digests[:2], digests[2:])
    assert people_of(pack_people(digests[:2], digests[2:])) == digests


# certainty before doubt, and when it was sent


async def test_another_process_sees_the_delivered_second_copy(
    store: Store, url: str, tmp_path: Path, clock: Clock
) -> None:
    """A process sees that a copy was taken whose verdict another process recorded, as after a restart."""
    await admit(store, of("T1", "kim", "bo"))
    await store.journal.record([event(Kind.IN_DOUBT, "T1")])
    await admit(store, of("T2", "kim", content="2"))
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as other:
        await other.journal.record([event(Kind.OUTCOME, "T2", at=clock.now(), outcome="relayed")])
        assert await statuses(other, "kim", "bo") == [CopyStatus.RELAYED, CopyStatus.DOUBTED]
    assert await tally(store) == PeopleCounts(relayed=1, doubted=1)


@on_sqlite
async def test_a_first_copy_delivered_in_the_same_batch_counts(store: Store) -> None:
    await admit(store, of("T1", "kim"))
    store.journal.note(event(Kind.OUTCOME, "T1", outcome="relayed"))
    await admit(store, of("T2", "kim", content="2"))
    await store.journal.record([event(Kind.OUTCOME, "T2", outcome="refused", replies=["550 5.7.1 No"])])
    assert await statuses(store, "kim") == [CopyStatus.RELAYED]


@on_sqlite
async def test_the_chart_is_by_time_of_delivery(store: Store, clock: Clock) -> None:
    """The chart shows the time of sending, for copies that were relayed, released an hour later, or only deferred."""
    began = clock.now()
    await admit(store, of("T1", "kim"))
    await outcome(store, "T1", "relayed")
    await hold(store, "H1", person("bo"))
    await admit(store, of("T2", "put-off", content="2"), Action.DEFER)
    clock.pass_(hours=1)
    await approved(store, "H1")
    lease = await leased(store, "H1-release")
    assert await store.outbox.settle(lease, last(lease, DeliveryEvent.TAKE, clock, 0, [person("bo").digest]), [])
    await store.journal.record([])
    grown = await store.mailings.growth((await one(store)).mailing_id)
    assert [point.at.year for point in grown] == [began.year] * len(grown), "a deferred copy has no time of delivery"
    assert (grown[0].sent, grown[0].at - began < timedelta(minutes=1)) == (1, True)
    assert grown[-1].sent == 2
    assert grown[-1].at - began > timedelta(minutes=59)
    assert grown[-1].held == 1


async def went(store: Store) -> tuple[datetime | None, datetime | None]:
    mailing = await one(store)
    return mailing.went_first_at, mailing.went_last_at


async def relayed(store: Store, id: str, clock: Clock) -> None:
    await store.journal.record([event(Kind.OUTCOME, id, at=clock.now(), outcome="relayed")])


@on_sqlite
async def test_arrival_and_departure_are_separate_times(store: Store, clock: Clock) -> None:
    """Arrival and sending have separate times: for a slow relay, a deferred copy that comes again, a later release, and
    a second copy."""
    began = clock.now()
    await admit(store, of("T1", "kim"))
    assert await went(store) == (None, None), "it is on its way"
    clock.pass_(seconds=20)
    await relayed(store, "T1", clock)
    first = clock.now()
    assert await went(store) == (first, first)
    clock.pass_(minutes=5)
    await hold(store, "H1", person("bo"))
    await admit(store, of("T2", "put-off", content="2"))
    await store.journal.record(
        [event(Kind.OUTCOME, "T2", at=clock.now(), outcome="refused", replies=["451 4.7.1 Later"])]
    )
    assert await went(store) == (first, first)
    clock.pass_(hours=1)
    await admit(store, of("T3", "put-off", content="2"))
    await relayed(store, "T3", clock)
    again = clock.now()
    clock.pass_(minutes=5)
    await approved(store, "H1")
    lease = await leased(store, "H1-release")
    clock.pass_(seconds=20)
    assert await store.outbox.settle(lease, last(lease, DeliveryEvent.TAKE, clock, 0, [person("bo").digest]), [])
    released = clock.now()
    clock.pass_(minutes=5)
    await admit(store, of("T4", "kim", content="another"))
    await relayed(store, "T4", clock)
    mailing = await one(store)
    assert (mailing.first_at, mailing.last_at) == (began, clock.now())
    assert await went(store) == (first, clock.now()), "the second copy went out as well"
    grown = await store.mailings.growth(mailing.mailing_id)
    step = (released - first) / 99
    assert [(point.sent, point.held) for point in grown] == [(1, 0), (1, 2), (2, 1), (3, 0)], "by their first copy"
    for point, at in zip(grown, (first, first + timedelta(minutes=5), again, released), strict=True):
        assert at - step <= point.at <= at


@on_sqlite
async def test_the_departure_is_counted_within_the_batch(store: Store, clock: Clock) -> None:
    await admit(store, of("T1", "kim"))
    store.journal.note(event(Kind.OUTCOME, "T1", at=clock.now(), outcome="relayed"))
    await admit(store, of("T2", "bo", content="2"))
    assert await went(store) == (clock.now(), clock.now())


@on_sqlite
@pytest.mark.parametrize("by_wire", [True, False])
async def test_the_colleagues_part_has_a_departure(store: Store, clock: Clock, by_wire: bool) -> None:
    await hold(store, "H1", LIST, apart=["ulf"], by_wire=by_wire)
    clock.pass_(minutes=5)
    if by_wire:
        await store.journal.record([event(Kind.OUTCOME, "H1", at=clock.now(), outcome="relayed", part=True)])
    else:
        lease = await leased(store, "H1-part")
        assert await store.outbox.settle(lease, last(lease, DeliveryEvent.TAKE, clock, 0, [person("ulf").digest]), [])
    assert await went(store) == (clock.now(), clock.now())


@on_sqlite
async def test_a_doubt_that_ends_departs_at_its_outcome(store: Store, clock: Clock) -> None:
    await admit(store, of("T1", "kim"))
    clock.pass_(minutes=15)
    await store.journal.record([event(Kind.IN_DOUBT, "T1", at=clock.now())])
    assert await went(store) == (None, None)
    clock.pass_(minutes=15)
    await relayed(store, "T1", clock)
    assert await went(store) == (clock.now(), clock.now())
    came, left = await store.mailings.growth((await one(store)).mailing_id)
    assert [(point.sent, point.held) for point in (came, left)] == [(0, 1), (1, 0)]
    assert clock.now() - left.at < timedelta(seconds=1)


async def test_people_never_exceed_the_lists_size(store: Store) -> None:
    """Mail to the list's address and to single members never counts more people than the list has."""
    news = person("news v1", weight=1200, lists=("news",))
    members = [person(f"m{n}", lists=("news",)) for n in range(5)]
    await admit(store, of("T1", *members[:3], person("stranger", lists=())))
    await outcome(store, "T1", "relayed")
    await admit(store, of("T2", news, content="2"))
    assert await tally(store) == PeopleCounts(relayed=4, admitted=1197), "three have it already"
    await outcome(store, "T2", "relayed")
    await admit(store, of("T3", *members, content="3"))
    await outcome(store, "T3", "refused")
    assert await tally(store) == PeopleCounts(relayed=1201)
    again = person("news v2", weight=1203, lists=("news",))
    await admit(store, of("T4", again, content="4"))
    await outcome(store, "T4", "relayed")
    assert await tally(store) == PeopleCounts(relayed=1204, apart=1200), (
        "the list has changed a little: at least as many as the larger"
    )


# how many people have it, as an interval


async def has(store: Store) -> tuple[int, int | None]:
    people = await tally(store)
    return people.at_least, people.at_most


@on_sqlite
async def test_people_in_doubt_count_as_possible(store: Store) -> None:
    await admit(store, of("T1", "kim", "bo"))
    assert await has(store) == (0, 0), "in flight, which is counted separately"
    await outcome(store, "T1", "relayed")
    await admit(store, of("T2", "ada", content="2"))
    await store.journal.record([event(Kind.IN_DOUBT, "T2")])
    assert await has(store) == (2, 3)


@on_sqlite
@pytest.mark.parametrize(
    ("known", "said", "told", "least", "most"),
    [
        (False, "relayed", PeopleCounts(relayed=1203, apart=1200), 1203, 2403),
        (False, "in-doubt", PeopleCounts(relayed=1200, doubted=3, apart=1200), 1200, 2403),
        (False, "refused", PeopleCounts(relayed=1200, refused=3), 1200, 1200),
        (True, "relayed", PeopleCounts(relayed=1205), 1205, 1205),
        (True, "in-doubt", PeopleCounts(relayed=1200, doubted=5), 1200, 1205),
        (True, "refused", PeopleCounts(relayed=1200, refused=5), 1200, 1200),
    ],
)
async def test_two_versions_of_a_list_give_an_interval(
    store: Store, clock: Clock, known: bool, said: str, told: PeopleCounts, least: int, most: int
) -> None:
    """Two versions of a list count as between the larger and both together, or exactly if the change is ``known``. The
    outcome for one says nothing about people only on the other."""
    v1, v2 = (person(f"news {v}", weight=some, lists=("news",), version=v) for v, some in (("v1", 1200), ("v2", 1203)))
    await admit(store, of("T1", v1))
    await outcome(store, "T1", "relayed")
    if known:
        change = {"version": "v2", "before": "v1", "people": 1203, "added": 5, "removed": 2}
        await store.journal.record([event(Kind.LIST, "news", at=clock.now(), **change)])
    await admit(store, of("T2", v2, content="2"))
    if said == "in-doubt":
        await store.journal.record([event(Kind.IN_DOUBT, "T2")])
    else:
        await store.journal.record([event(Kind.OUTCOME, "T2", outcome=said, replies=["550 5.7.1 No"])])
    assert await tally(store) == told
    assert await has(store) == (least, most)


@on_sqlite
@pytest.mark.parametrize("version", ["", "v1"], ids=["no index", "stale"])
async def test_how_many_have_it_is_unknown_if_a_list_it_went_to_was(store: Store, version: str) -> None:
    """It stays so when the list has an index again, and is not so for a copy that did not arrive."""
    least = 1200 if version else 1
    news = person("news", weight=least, lists=("news",), version=version, unbounded=True)
    await admit(store, of("T1", news))
    await outcome(store, "T1", "refused")
    assert await has(store) == (0, 0)
    await admit(store, of("T2", news, content="2"))
    await outcome(store, "T2", "relayed")
    assert await has(store) == (least, None)
    await admit(store, of("T3", person("news v2", weight=1203, lists=("news",), version="v2"), content="3"))
    await outcome(store, "T3", "relayed")
    assert await has(store) == (1203, None)


@on_sqlite
async def test_as_many_or_more_are_held_for_a_list_without_an_index(store: Store) -> None:
    """The page, the command line and the API say so; nobody has it, and that is certain."""
    news = person("news", weight=10, lists=("news",), unbounded=True)
    await hold(store, "T1", news)
    people = await tally(store)
    assert people == PeopleCounts(held=10, unbounded=frozenset({"held"}))
    assert (people.at_least, people.at_most) == (0, 0)
    assert (people.amount("held"), people.amount("refused")) == (Amount(10, inf), 0)
    mailing = await one(store)
    assert row(mailing)["unbounded"] == ["held"]
    assert "at least 10 people" in "\n".join(mailing_lines(mailing))
    assert " 10+ " in "\n".join(table([mailing]))
    assert "held 10+," in Follower(lambda: 0.0).line(mailing)


@on_sqlite
async def test_who_has_a_copy_may_have_left_before_it_went_to_the_list(store: Store, clock: Clock) -> None:
    """Of members who had a copy of their own, as many as came to the list or left it may be beside its people."""
    members = [person(f"m{n}", lists=("news",)) for n in range(3)]
    await admit(store, of("T1", *members))
    await outcome(store, "T1", "relayed")
    change = {"version": "v2", "before": "v1", "people": 1200, "added": 1, "removed": 1}
    await store.journal.record([event(Kind.LIST, "news", at=clock.now(), **change)])
    await admit(store, of("T2", person("news v2", weight=1200, lists=("news",), version="v2"), content="2"))
    assert await tally(store) == PeopleCounts(relayed=3, admitted=1197), "in flight, which is counted separately"
    await outcome(store, "T2", "relayed")
    assert await tally(store) == PeopleCounts(relayed=1200, apart=2)
    assert await has(store) == (1200, 1202)


@on_sqlite
async def test_who_has_a_copy_may_have_been_on_the_list_when_it_went_there(store: Store, clock: Clock) -> None:
    """Of those who were on no list when their own copy came, as many as came to the list or left it may be among its
    people."""
    await admit(store, of("T1", person("news v1", weight=1200, lists=("news",), version="v1")))
    change = {"version": "v2", "before": "v1", "people": 1198, "added": 0, "removed": 2}
    await store.journal.record([event(Kind.LIST, "news", at=clock.now(), **change)])
    await admit(store, of("T2", *(person(f"p{n}", lists=(), customer=False) for n in range(3)), content="2"))
    for id in ("T1", "T2"):
        await outcome(store, id, "relayed")
    assert await has(store) == (1201, 1203)


@on_sqlite
@pytest.mark.parametrize("anew", [True, False])
async def test_who_has_a_copy_may_be_on_a_list_that_a_new_policy_names(store: Store, clock: Clock, anew: bool) -> None:
    """Before, nothing was known of the list. So all three may be among its people, and customers behind an alias too."""
    alias = person("alias", weight=20, lists=(), customer=False)
    await admit(store, of("T1", *(person(f"p{n}", lists=()) for n in range(3)), alias))
    clock.pass_(minutes=1)
    if anew:
        await store.journal.record([event(Kind.POLICY, "another", at=clock.now())])
    await admit(store, of("T2", person("news v1", weight=1200, lists=("news",), version="v1"), content="2"))
    for id in ("T1", "T2"):
        await outcome(store, id, "relayed")
    assert await has(store) == (1200 if anew else 1223, 1223)


@on_sqlite
async def test_two_lists_may_have_the_same_people(store: Store) -> None:
    """Two lists may have the same members. A single person counts as on a list, or not, if that is known."""
    member, stranger = person("m", lists=("news",)), person("stranger", lists=())
    perhaps = person("perhaps", lists=(), customer=False, doubt=("news",))
    lists = (person("news v1", weight=1200, lists=("news",)), person("offers v1", weight=900, lists=("offers",)))
    await admit(store, of("T1", *lists, member, stranger, perhaps))
    await outcome(store, "T1", "relayed")
    assert (await tally(store)).relayed == 2102
    assert await has(store) == (1201, 2102)


@on_sqlite
async def test_people_behind_one_address_are_counted_exactly(store: Store) -> None:
    """The people behind one address are counted exactly: customers as members of their lists, the others as on no list."""
    behind = person("behind", weight=900, lists=("news",))
    others = person("others", weight=100, lists=(), customer=False)
    await admit(store, of("T1", behind, others, person("stranger", lists=())))
    await outcome(store, "T1", "relayed")
    assert await has(store) == (1001, 1001)
