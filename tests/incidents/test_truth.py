"""Random histories (tests.guard.history): all that the guard says of them, beside each other and beside what the relay said and
took. In the end nothing waits.

``make fuzz N=100`` plays so many; ``FUZZ="7 8"`` repeats seed 7, and ``STEPS=400`` makes each longer.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from smtpguard.admission.recorded import Recorded
from smtpguard.app.replaydiff import CompiledPolicy
from smtpguard.app.replayed import Replay
from smtpguard.database.schema import outbox, underway
from smtpguard.holds.model import LIVE, SENDING, Hold, HoldQuery, State
from smtpguard.incidents.activity import EXACT, WANTED, Activity, ActivitySums, Decided
from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal.chain import Entry, Pair
from smtpguard.journal.distinct import Interval
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import STAYED, Message, Outcome, relayed
from smtpguard.lists.index import index_path
from smtpguard.observe import figures
from smtpguard.observe.metrics import Counters
from smtpguard.observe.webhooks import topic_of
from smtpguard.policy.facts import FACTS, Source, Unknown
from tests.clocks import MONDAY
from tests.guard.acts import VOTERS
from tests.guard.campaign import DPO, EVA, OMAR
from tests.guard.history import History
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, RAMADAN, house, index
from tests.guard.laws import check_decided, check_found, check_places
from tests.guard.office import LATER, NO, Office
from tests.guard.policies import documents
from tests.guard.relaying import person
from tests.incidents import pages
from tests.store.servers import a_database

SEEDS = range(*map(int, os.environ.get("FUZZ", "0 4").split()))
STEPS = int(os.environ.get("STEPS", "72"))
LET_GO = {15: 0, 45: 12}
"""At which steps a campaign is surely let go, and to how many people, 0 for no number."""
TURN_AWAY = 30
"""At which step one is surely rejected."""
LOOKED = {"not rejected", "covered", "within a number", "stage"}
"""The laws of approvals that each history looks at."""
MORE = 3
"""The most campaigns that are let go at the end for a law that nothing has reached."""
CHECKED = 10
"""So many steps are between two looks at everything."""

RULES = [
    '  - {id: another, when: {recipients.total: ">= 2"}, then: hold}\n',
    '  - {id: another, when: {mailing.customers: ">= 2"}, then: hold}\n',
    "  - {id: another, when: {message.labels: any}, then: reject}\n",
    '  - {id: another, when: {sender.customers: ">= 4 in 1h"}, then: defer}\n',
    '  - {id: another, when: {mailing.customers: ">= 2"}, then: confirm}\n',
]
Pairs = Sequence[Pair]
Behind = Mapping[str, Mapping[str, Sequence[str]]]
SENT = {*SENDING, State.RELEASED, State.UNDELIVERED, State.IN_DOUBT}
ENDS = {
    State.WAITING: Outcome.WAITING, State.REJECTED: Outcome.DECLINED, State.WITHDRAWN: Outcome.WITHDRAWN,
    State.EXPIRED: Outcome.EXPIRED, State.VOID: Outcome.VOID, State.GRANTED: Outcome.GRANTED,
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
async def test_all_that_is_said_is_true(tmp_path: Path, seed: int) -> None:
    await played(History(tmp_path, seed))


@pytest.mark.parametrize("seed", SEEDS[: 1 + len(SEEDS) // 20])
async def test_all_is_true_of_two_hosts_with_postgresql(tmp_path: Path, postgresql: str, seed: int) -> None:
    with a_database(postgresql) as url:
        await played(History(tmp_path, seed, url))


@pytest.mark.parametrize("more", [3, 40], ids=["a few", "many, so people are asked again"])
async def test_a_release_counts_who_is_on_the_list_by_then(tmp_path: Path, more: int) -> None:
    async with house(tmp_path) as home:
        office, members = Office(home), [*MEMBERS, *(f"new{n}@example.net" for n in range(more))]
        id = await office.approved()
        index(home.folder, "ramadan", members)
        home.in_force.registry.reopen()
        await office.step()
        if not office.relay.taken:
            await home.approve(id)
            await office.tell()
        await office.until_quiet(steps=2)
        assert office.relay.has(RAMADAN) == 1
        report = (await home.store.journal.incident(IncidentQuery(ids=frozenset({id})), prove=False)).report
        assert report is not None
        assert report.reached.people == Interval(len(members), len(members))


async def test_a_release_counts_who_was_on_a_list_that_has_no_index_by_then(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        office = Office(home)
        id = await office.approved()
        index_path(home.folder, "ramadan").unlink()
        home.in_force = home.build(DOCUMENTS)
        await office.until_quiet(steps=2)
        assert office.relay.has(RAMADAN) == 1
        report = (await home.store.journal.incident(IncidentQuery(ids=frozenset({id})), prove=False)).report
        assert report is not None
        assert report.reached.people == Interval(len(MEMBERS), len(MEMBERS))
        sent = [data["people"] for kind, data in await home.events(id) if kind == "release"]
        assert sent == [len(MEMBERS), len(MEMBERS)]


async def test_a_release_counts_who_is_behind_an_address_that_has_become_a_list(tmp_path: Path) -> None:
    eid, people = "eid@lists.example.com", [f"eid{n}@example.net" for n in range(12)]
    lists = POLICY.replace(
        "  news:",
        f"  eid:\n    title: Eid\n    addresses: [{eid}]\n    members: {{csv: news.csv, column: email}}\n  news:",
    )
    async with house(tmp_path) as home:
        office = Office(home)
        id = await office.approved(eid)
        index(home.folder, "eid", people)
        await home.put({**DOCUMENTS, "policy.yaml": lists.encode()})
        await home.follow()
        await office.step()
        assert not office.relay.taken, "it reaches another list, so people are asked again"
        await home.approve(id)
        await office.tell()
        await office.until_quiet(steps=2)
        assert office.relay.has(eid) == 1
        report = (await home.store.journal.incident(IncidentQuery(ids=frozenset({id})), prove=False)).report
        assert report is not None
        assert report.reached.people == Interval(len(MEMBERS), len(MEMBERS) + len(people))
        sent = [data["people"] for kind, data in await home.events(id) if kind == "release"]
        assert sent == [len(MEMBERS) + len(people)] * 2


async def test_an_attempt_counts_who_is_on_the_list_as_it_begins(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        office = Office(home)
        id = await office.approved()

        def grows() -> None:
            index(home.folder, "ramadan", [*MEMBERS, "new@example.net"])
            home.in_force.registry.reopen()

        office.relay.before_dot = grows
        await office.until_quiet(steps=2)
        sent = [(data["outcome"], data["people"]) for kind, data in await home.events(id) if kind == "release"]
        assert sent == [("attempt", len(MEMBERS)), ("sent", len(MEMBERS))]


async def test_a_later_attempt_for_one_address_of_a_list_leaves_who_got_it_at_another(tmp_path: Path) -> None:
    both = f"addresses: [{RAMADAN}, eid@lists.example.com]"
    policy = POLICY.replace(f"addresses: [{RAMADAN}]", both)
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": policy.encode()}) as home:
        office = Office(home)
        id = await office.approved("eid@lists.example.com")
        office.relay.says = {"eid@lists.example.com": LATER}
        await office.step()
        index(home.folder, "ramadan", MEMBERS[:30])
        home.in_force.registry.reopen()
        office.relay.says = {"eid@lists.example.com": NO}
        await office.until_quiet(steps=2)
        report = (await home.store.journal.incident(IncidentQuery(ids=frozenset({id})), prove=False)).report
        assert report is not None
        assert report.reached.people == Interval(len(MEMBERS), len(MEMBERS))


async def played(history: History) -> None:
    try:
        await history.open(documents(history.chance))
        views = Views(history)
        for n in range(STEPS):
            sure = {TURN_AWAY: history.turn_away} | {at: partial(history.let_go_in_stages, LET_GO[at]) for at in LET_GO}
            await sure.get(n, history.act)()
            await views.places()
            if n % CHECKED == CHECKED - 1:
                await views.agree()
        for _ in range(MORE):
            if not history.looked.keys() >= LOOKED:
                await history.let_go_in_stages(12)
        assert history.looked.keys() >= LOOKED, history.looked
        await pages.read(history)
        await history.end()
        await views.agree()
        assert await history.left() == []
        if not history.forgets:
            await views.counters()
            await views.webhooks()
        await history.mailboxes.nobody_was_left_out({EVA, OMAR, DPO} - history.absent)
        if not (history.erases or history.forgets):
            await history.mailboxes.all_know_what_became({EVA, OMAR, DPO} - history.absent)
        proof = await history.store.journal.audit("here")
        assert (proof.first_bad, [one for one in proof.beside if one.about != "checkpoints"]) == (None, [])
    finally:
        await history.close()


class Views:
    def __init__(self, history: History) -> None:
        self.history = history

    async def agree(self) -> None:
        await self.history.settle()
        entries, holds = await self.entries(), await self.history.home.holds()
        told = messages(entries)
        self.outcomes(told, holds)
        await self.waiting(holds)
        if self.is_whole(entries):
            await self.activity(entries, holds)
            await self.report(entries, told)
        await self.mailings(entries)
        await self.outbox(holds)
        await self.replayed(entries)
        self.explained(entries)
        await self.history.check_preserved()
        check_decided(entries)
        words = {word for to in self.history.to.values() for word in to} | {*map(str, VOTERS)}
        await check_found(self.history.store, entries, self.history.chance.sample(sorted(words), min(len(words), 3)))

    async def places(self) -> None:
        await self.history.settle()
        check_places(await self.history.home.holds(), await self.history.mailings.list(least=0, limit=1000))

    async def entries(self) -> Pairs:
        return await self.history.store.journal.entries(limit=1_000_000)

    def is_whole(self, entries: Pairs) -> bool:
        """Retention has not cut entries off, nor the sums of hours when it kept them for an incident."""
        first, _ = entries[0]
        return first.seq == 1 and (
            not self.history.forgets or first.time > self.history.clock.now() - timedelta(days=30)
        )

    def outcomes(self, told: Mapping[str, Message], holds: Iterable[Hold]) -> None:
        """The journal's account of each message, beside its hold and the relay."""
        said, took, gone = self.history.said, self.history.took, self.history.recorded - told.keys()
        for hold in holds:
            assert hold.acknowledged or hold.state not in SENT, (hold.hold_id, hold.state)
            if hold.correction is not None or hold.hold_id in gone:  # it is no message
                continue
            end = ENDS.get(hold.state, Outcome.ON_ITS_WAY) if hold.release_at is None else Outcome.ON_ITS_WAY
            assert told[hold.hold_id].end is end, (hold.hold_id, hold.state)
            if hold.state is State.RELEASED:
                assert Outcome.RELEASED in told[hold.hold_id].outcomes, hold.hold_id
        for id, message in told.items():
            has = not message.outcomes.isdisjoint({Outcome.DELIVERED, Outcome.RELEASED})
            assert has == bool(said.get(id)), (id, message.outcomes)
            if id in self.history.lost or took.get(id, set()) - said.get(id, set()):
                assert Outcome.IN_DOUBT in message.outcomes, id
        assert {*said, *took} - gone <= {*told}, "the relay has what no verdict let pass"

    async def waiting(self, holds: Iterable[Hold]) -> None:
        store = self.history.store
        for hold in holds:
            if hold.state in LIVE and hold.acknowledged:
                await store.contents.load(hold.content_sha256)
        wait = [hold.hold_id for hold in holds if hold.state is State.WAITING and not hold.primary]
        figure = await store.ask(lambda c: figures.look(c, store.now(), settled_within=timedelta(minutes=15)))
        page, number, _ = await store.holds.ranked(HoldQuery(states=(State.WAITING,)), first=(), limit=1000)
        assert sorted(hold.hold_id for hold in page) == sorted(wait)
        assert (figure.holds, number, await store.holds.count_waiting()) == (len(wait),) * 3

    async def activity(self, entries: Pairs, holds: Iterable[Hold]) -> None:
        """As summed by the hour and read with what is not summed yet; from all entries; and by the holds."""
        since, now = self.history.began - timedelta(days=1), self.history.clock.now()
        zone = self.history.home.in_force.hours.zone
        found = await self.history.store.journal.activity(since, None, zone)
        stayed, sums = without_effect(entries), ActivitySums(EXACT)
        for entry, _ in entries:
            if Kind(entry.kind) in WANTED and entry.seq not in stayed:
                sums.add(entry.at, entry.kind, entry.id, entry.data)
        assert plain(found) == plain(sums.activity(since, now, zone, ended=False))
        leads = [hold for hold in holds if not hold.primary and hold.kind != "test" and hold.correction is None]
        states, decided = Counter(hold.state for hold in leads), found.decided
        if not (self.history.erases or self.history.forgets):
            assert found.waiting == states[State.WAITING]
            assert decided.withdrawn == states[State.WITHDRAWN]
            assert (decided.rejected, decided.expired) == (states[State.REJECTED], states[State.EXPIRED])
            assert decided.approved + decided.confirmed == sum(states[state] for state in SENT)

    async def report(self, entries: Pairs, told: Mapping[str, Message]) -> None:
        report = (await self.history.store.journal.incident(IncidentQuery(since=0), prove=False)).report
        if report is None:
            return
        said, took = self.history.said, self.history.took
        assert (report.messages, report.reached.messages) == (len(told), sum(map(bool, said.values())))
        reached, perhaps, unreached = report.reached.people, report.perhaps, report.unreached
        surely, perhaps_too = (math.inf if one.high is None else one.high for one in (reached, perhaps))
        behind = self.history.behind | self.history.released
        assert reached.low <= len(self.people(said.items(), behind)) <= surely
        assert len(self.people(took.items(), behind)) <= surely + perhaps_too
        assert {id for id, some in took.items() if some - said[id]} <= set(report.unsettled)
        lows, highs = zip(*((one.low, one.high) for one in (reached, perhaps, unreached)), strict=True)
        verdicts = [entry for entry, _ in entries if "action" in entry.data and not entry.data.get("test")]
        to = ((entry.id, self.history.to[entry.id]) for entry in verdicts)
        assert sum(lows) <= len(self.people(to, behind)) <= sum(math.inf if high is None else high for high in highs)

    def people(self, some: Iterable[tuple[str, Collection[str]]], behind: Behind) -> set[str]:
        """Distinct, of messages and their recipients, with everybody on a list behind its address then."""
        found: set[str] = set()
        for id, addresses in some:
            lists = behind.get(id, {})
            found |= {person(one) for address in addresses for one in lists.get(address, (address,))}
        return found

    async def mailings(self, entries: Pairs) -> None:
        of: dict[str, set[str]] = defaultdict(set)
        unknown: set[str] = set()
        for entry, _ in entries:
            if entry.data.get("mailing") and entry.kind == Kind.VERDICT.value:
                of[str(entry.data["mailing"])].add(id_of(entry))
                if None in (most for _, _, most in entry.data.get("crowds", {}).values()):
                    unknown.add(str(entry.data["mailing"]))
        holds = {hold.hold_id: hold for hold in await self.history.home.holds()}
        for hold in holds.values():
            of[hold.mailing_id].add(hold.hold_id)
        leading = {hold.mailing_id for hold in holds.values() if leads(hold)}
        going = await self.going()
        for mailing in await self.history.mailings.list(least=0, limit=1000):
            ids, tally = of[mailing.mailing_id], mailing.people
            assert mailing.entry or mailing.mailing_id not in leading
            has, may = (
                self.people(((id, some[id]) for id in ids if id in some), self.history.behind)
                for some in (self.history.said, self.history.took)
            )
            if not (self.history.erases or self.history.forgets):
                assert tally.at_least <= len(has), mailing.mailing_id
            if not (self.history.erases or self.history.forgets or mailing.mailing_id in unknown):
                assert len(has) <= tally.relayed + tally.apart, mailing.mailing_id
            in_flight = tally.admitted and mailing.mailing_id in unknown
            if not (self.history.erases or self.history.forgets or in_flight or tally.at_most is None):
                assert len(may) <= tally.at_most + tally.admitted, mailing.mailing_id
            if ids.isdisjoint(going) and not any(holds[id].state in LIVE for id in ids if id in holds):
                assert (tally.held, tally.admitted) == (0, 0), mailing.mailing_id

    async def going(self) -> set[str]:
        """Messages without an outcome, and holds with something in the outbox."""
        ids = select(underway.c.id).union(select(outbox.c.hold_id).where(outbox.c.done.is_(False)))
        return set(await self.history.store.ask(lambda c: c.execute(ids).scalars().all()))

    async def outbox(self, holds: Iterable[Hold]) -> None:
        query = select(outbox.c.hold_id).where(outbox.c.done.is_(False), outbox.c.kind == "release")
        left = set(await self.history.store.ask(lambda c: c.execute(query).scalars().all()))
        for hold in holds:
            if hold.state in (State.APPROVED, State.RELEASING):
                assert hold.hold_id in left, "approved, and not to be sent"
            elif hold.state in ENDS:
                assert hold.hold_id not in left, hold.state

    async def replayed(self, entries: Pairs) -> None:
        """The policy that was in force from the beginning decides each message as it was; and with another rule none that
        was stopped is sure to pass."""
        home = self.history.home
        policies = {entry.id for entry, _ in entries if entry.kind == Kind.POLICY.value}
        if len(policies) > 1 or self.history.erases or self.history.forgets:
            return
        known = dict(await home.store.policies.documents((await home.store.gate.read()).policy_sha256))
        stricter = known["policy.yaml"] + self.history.chance.choice(RULES).encode()
        then = CompiledPolicy(home.build(known))
        for other in (then, CompiledPolicy(home.build({**known, "policy.yaml": stricter}))):
            course = Replay(other, copies=home.term.copies)
            for message in (Recorded(entry, clear) for entry, clear in entries if entry.kind == Kind.VERDICT.value):
                if not message.decided or message.again:
                    continue
                found = course.judge(message, then)
                if other is then:
                    assert message.action in found.actions, (message.id, found)
                assert max(found.actions) >= message.action, (message.id, found)

    def explained(self, entries: Pairs) -> None:
        """``explain`` had the facts of the verdict, and named each of its rules that asks for no more than this message."""
        for entry, clear in entries:
            foretold = self.history.foretold.pop(entry.id, None) if entry.kind == Kind.VERDICT.value else None
            if foretold is None:
                continue
            live = Recorded(entry, clear)
            for name, value in (live.facts or {}).items():
                if name in FACTS and FACTS[name].source is not Source.LIVE:
                    said = foretold.facts.values.get(name)
                    assert said == value or (isinstance(said, Unknown) and isinstance(value, Unknown)), (
                        name,
                        value,
                        said,
                    )
            named = live.enforced | live.observed | live.approved
            for hit in foretold.verdict.hits if live.decided and not live.again else ():
                asks_more = any(
                    FACTS[reason.fact].source is Source.LIVE for reason in hit.reasons if reason.fact in FACTS
                )
                assert hit.rule in named or asks_more, (entry.id, hit, named)

    # once it has ended

    async def counters(self) -> None:
        """Counted as the journal grew, and all at once."""
        history, last = self.history, await self.history.store.journal.last()
        while history.tallied < last:
            await history.count()
        tally = Counters()
        found, _ = await history.store.ask(lambda c: figures.news(c, 0, 1_000_000))
        for event in found:
            tally.add(event)
        grown, whole = history.tally.numbers(), tally.numbers()
        by_hold = {
            "smtpguard_decision_seconds",
            "smtpguard_rule_hold_ends_total",
        }  # of holds as they are when it is read
        assert {name: grown[name] for name in grown.keys() - by_hold} == {
            name: whole[name] for name in whole.keys() - by_hold
        }

    async def webhooks(self) -> None:
        history, last = self.history, await self.history.store.journal.last()
        while (await history.store.cursors.at("chat")).told < last:
            await history.tell()
            history.clock.pass_(hours=2)
        entries = await self.entries()
        if any(entry.kind == Kind.WEBHOOK.value for entry, _ in entries):
            return  # it was given up
        wanted = [
            f"{one.seq}-{one.hash.hex()[:16]}"
            for one, _ in entries
            if one.seq > history.told_from and topic_of(one) is not None
        ]
        got = history.receiver.got
        assert list(dict.fromkeys(one["id"] for one in got)) == wanted, "each, in the order of the journal"
        last_word = {
            one["data"]["hold"]: one["data"].get("outcome") for one in got if one["type"].startswith("message.")
        }
        for hold in await history.home.holds():
            if not hold.primary and not hold.kind and hold.correction is None and hold.state is not State.VOID:
                words = {"approved", "confirmed", "stopped"} if hold.state in SENT else {hold.state.value}
                assert last_word.get(hold.hold_id) in words, hold.hold_id


def leads(hold: Hold) -> bool:
    return hold.state is State.WAITING and not (hold.primary or hold.queue or hold.kind)


def id_of(verdict: Entry) -> str:
    """The message: a retry of a held one is that."""
    return str(verdict.data["hold"]) if verdict.data.get("retry") and verdict.data.get("hold") else verdict.id


def messages(entries: Pairs) -> dict[str, Message]:
    told: dict[str, Message] = {}
    for entry, _ in entries:
        data, sealed = entry.content["data"], entry.content["private"]
        if entry.kind == Kind.VERDICT.value:
            if id_of(entry) == entry.id:
                told[entry.id] = Message.of(data, sealed)
        elif entry.id in told:
            told[entry.id].add(entry.kind, data, sealed)
    return told


def without_effect(entries: Pairs) -> set[int]:
    """The verdicts to relay of what the relay does not have."""
    verdicts: dict[str, Entry] = {}
    stayed: set[int] = set()
    for entry, _ in entries:
        if entry.kind == Kind.VERDICT.value:
            verdicts[entry.id] = entry
        verdict, end = verdicts.get(entry.id), relayed(entry.kind, entry.data)
        if verdict is not None and end is not None and verdict.data["action"] == "relay":
            (stayed.add if end in STAYED else stayed.discard)(verdict.seq)
    return stayed


def plain(activity: Activity) -> Activity:
    """To be compared: decisions in any order, and when it was asked."""

    def sorted_(decided: Decided) -> Decided:
        return replace(decided, seconds=tuple(sorted(decided.seconds)))

    rules, lists = (
        [replace(one, decided=sorted_(one.decided)) for one in some] for some in (activity.rules, activity.lists)
    )
    days: list[Any] = list(activity.days)
    return replace(activity, until=MONDAY, decided=sorted_(activity.decided), rules=rules, lists=lists, days=days)
