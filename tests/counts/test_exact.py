"""Counts equal those of a dict: in batches, in two processes, and on both engines.

Random letters and mailings of several senders to customers, lists and all; held, relayed, retried or released; in
sliding windows, with usual counts, while old rows are swept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.counts import counting, sums, sweeping
from smtpguard.journal.event import Kind
from smtpguard.lists.persons import Person
from smtpguard.policy.counted import Ask
from smtpguard.policy.facts import OF_LETTERS, OF_LISTS, Usual
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import POLICY, SECRET, Gathered, a_hold, event, item, relays, sqlite_url
from tests.store.servers import new_database

HOUR, DAY, MONTH = 3600, 86_400, 30 * 86_400
NEWS = "news"
ON_NEWS = "abc"
USUAL = Usual(2.0, 2)


@dataclass(frozen=True)
class Letter:
    sender: str
    to: str
    content: int
    mode: str  # counted, held, bulk
    quotes: str = ""
    refers: int = -1
    crowd: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.mode == "bulk" else (self.sender, f"client {ord(self.sender) % 2}")

    def asks(self) -> tuple[Ask, ...]:
        asks = [Ask("sender.customers", self.sender, HOUR), Ask("sender.customers", self.sender, DAY)]
        asks += [
            Ask("thread.reach", "thread", HOUR),
            Ask("thread.replies", "thread", HOUR),
            Ask("list.customers", NEWS, DAY),
        ]
        for name in self.names:
            for window in (HOUR, DAY, MONTH):
                asks += [Ask("sender.first_contacts", name, window), Ask("sender.first_contacts", name, window, USUAL)]
            asks += [Ask("sender.answers", name, DAY), Ask("sender.list_contacts", f"{NEWS}\0{name}", DAY)]
        if self.names:
            asks += [Ask("list.first_contacts", f"{NEWS}\0", HOUR), Ask("message.answers", "", DAY)]
        return tuple(asks)

    def item(self, n: int) -> Item:
        people = [p.encode() for p in dict.fromkeys(self.to)]
        everybody = [Person(digest=p, customer=True, lists=(NEWS,) if p.decode() in ON_NEWS else ()) for p in people]
        if self.crowd:
            everybody.append(Person(digest=b"the list", customer=True, lists=(NEWS,), weight=30, version="v1"))
        return item(
            f"T{n}", asks=self.asks(), people=tuple(people), everybody=tuple(everybody), letter_from=self.names,
            content_sha256=f"content {self.content}", message_id=f"<{self.content}@example.com>",
            lists=((NEWS, "v1", 30),) if self.crowd else (), quoted=frozenset(p.encode() for p in self.quotes),
            refers_to=(f"{self.refers}@example.com",) if self.refers >= 0 else (),
        )  # fmt: skip


@dataclass
class Model:
    """All counts, in memory; times in seconds."""

    now: int = 0
    seen: dict[tuple[str, str], dict[bytes, tuple[int, int, int]]] = field(default_factory=dict)  # at, weight, until
    marks: dict[tuple[str, str, str], int] = field(default_factory=dict)
    known: dict[tuple[str, bytes], int] = field(default_factory=dict)
    resets: dict[tuple[str, str], int] = field(default_factory=dict)

    def since(self, fact: str, key: str, seconds: int) -> int:
        return max(self.now - seconds, self.resets.get((fact, key), -1))

    def new(self, one: Item, sender: str = "") -> tuple[set[bytes], set[bytes]]:
        """The first contacts of a name of its sender, or of any of them for "", and those of them that it quotes."""
        since = self.now - 90 * DAY
        senders = [f"from {s}" for s in ((sender,) if sender else one.letter_from)]
        answered = [f"message {m}" for m in one.refers_to] if len(one.people) <= 10 else []
        people = {
            p
            for p in one.people
            if any(self.known.get((name, p), since) <= since for name in senders)
            and all(self.known.get((name, p), since) <= since for name in answered)
        }
        return people, people & one.quoted

    def members(self, ask: Ask, one: Item) -> dict[bytes, int]:
        if ask.fact in ("thread.replies",):
            return {b"m" + one.message_id.encode(): 1}
        if ask.fact == "thread.reach":
            return {b"p" + p.digest: p.weight for p in one.everybody}
        if ask.fact in OF_LISTS:
            return {b"p" + p.digest: p.weight for p in one.everybody if ask.key in p.lists}
        if ask.fact in OF_LETTERS:
            new, quoted = self.new(one, ask.key.rpartition("\0")[2])
            some = quoted if ask.fact == "sender.answers" else new
            if "list" in ask.fact:
                some = some & {p.digest for p in one.everybody if NEWS in p.lists}
            return {b"p" + p: 1 for p in some}
        lists = {f"l{name}\0{version}".encode(): weight for name, version, weight in one.lists}
        return {b"p" + p: 1 for p in one.people} | lists

    def counts(self, one: Item) -> dict[Ask, int]:
        counts = {}
        for ask in one.asks:
            if ask.fact == "message.answers":
                new, quoted = self.new(one)
                counts[ask] = len(new - quoted)
                continue
            members = self.members(ask, one)
            if ask.fact in OF_LETTERS and not members:
                counts[ask] = 0
                continue
            there, since = self.seen.get((ask.fact, ask.key), {}), self.since(*ask[:3])
            inside = {m: w for m, (at, w, _) in there.items() if at > since}
            count = sum(inside.values()) + sum(w for m, w in members.items() if m not in inside)
            counts[ask] = self.unusual(ask, count)
        return counts

    def unusual(self, ask: Ask, count: int) -> int:
        if ask.usual is None or count < ask.usual.least:
            return count
        there = self.seen.get((ask.fact, ask.key), {})
        times = [at for at, _, _ in there.values() if self.now - 35 * DAY < at <= self.now - 7 * DAY]
        most = max((sum(t - ask.window_seconds < at <= t for at in times) for t in times), default=0)
        return count if count > ask.usual.times * most else int(ask.usual.least) - 1

    def record(self, one: Item) -> None:
        longest: dict[tuple[str, str], Ask] = {}
        for ask in one.asks:
            if ask.fact != "message.answers":
                before = longest.get((ask.fact, ask.key), ask)
                longest[ask.fact, ask.key] = max(before, ask, key=lambda a: a.window_seconds)
        writes = []
        for scope, ask in longest.items():
            members = self.members(ask, one)
            there, mark = self.seen.setdefault(scope, {}), (*scope, one.content_sha256 or "")
            again = self.marks.get(mark, 0) > self.now
            span = max(ask.window_seconds, 35 * DAY if ask.fact in OF_LETTERS else 0)
            for member, weight in members.items():
                at, _, until = there.get(member, (-1 << 60, 0, 0))
                if not (again and at > self.since(*ask[:3])):
                    writes.append((there, member, (self.now, weight, max(until, self.now + span))))
            if members and not again:
                self.marks[mark] = self.now + span
        for there, member, row in writes:
            there[member] = row
        if one.letter_from:
            for name in (*[f"from {s}" for s in one.letter_from], f"message {one.message_id.strip('<>')}"):
                self.known.update({(name, p): self.now for p in one.people})

    def let_out(self, sender: str, names: tuple[str, ...], people: str, *, by_sender: bool) -> None:
        self.known.update({(f"from {s}", p.encode()): self.now for s in names for p in people})
        scopes = [(fact, s) for s in names for fact in counting.OF_A_SENDER]
        scopes += [("sender.list_contacts", f"{NEWS}\0{s}") for s in names]
        self.resets.update(dict.fromkeys(scopes if by_sender else (), self.now))


letters = st.builds(
    Letter,
    sender=st.sampled_from("xy"),
    to=st.text("abcdef", min_size=1, max_size=5),
    content=st.integers(0, 3),
    mode=st.sampled_from(["counted", "counted", "held", "bulk"]),
    quotes=st.text("abc", max_size=2),
    refers=st.integers(-1, 2),
    crowd=st.sampled_from([False, False, True]),
)
steps = st.one_of(
    st.tuples(st.just("mail"), st.lists(letters, min_size=1, max_size=4)),
    st.tuples(st.just("mail"), st.lists(letters, min_size=1, max_size=4)),
    st.tuples(st.just("wait"), st.sampled_from([60, 1200, 3599, 3600, 5 * HOUR, DAY, 6 * DAY, 20 * DAY, 89 * DAY])),
    st.tuples(st.just("let out"), st.tuples(st.sampled_from("xy"), st.text("abcdef", max_size=3), st.booleans())),
    st.tuples(st.just("sweep"), st.none()),
)


@pytest.mark.parametrize(("engine", "large"), [("sqlite", 2), ("sqlite", 2000), ("postgresql", 2)])
@given(script=st.lists(steps, max_size=14))
@settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink]
)
def test_counts_equal_those_of_a_dict(
    engine: str, large: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, script: list[Any]
) -> None:
    where = tmp_path_factory.mktemp("exact")
    url = sqlite_url(where / "guard.db") if engine == "sqlite" else new_database(request.getfixturevalue("postgresql"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "LARGE", large)
        asyncio.run(_played(url, where, script))


async def _played(url: str, where: Path, script: list[Any]) -> None:
    clock, model, n = Clock(), Model(), 0
    async with (
        open_store(url, secret=SECRET, state_dir=where, clock=clock) as one,
        open_store(url, secret=SECRET, state_dir=where, clock=clock) as other,
    ):
        await one.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        for at, (what, given_) in enumerate(script):
            store = (one, other)[at % 2]
            if what == "wait":
                clock.pass_(seconds=given_)
                model.now += given_
            elif what == "sweep":
                await store._writer.submit(lambda batch: sweeping.sweep(batch, -(1 << 63), (1 << 63) - 1))
            elif what == "let out":
                sender, people, by_sender = given_
                hold = a_hold(
                    "H", letter_from=(sender, f"client {ord(sender) % 2}"), by_sender=by_sender, lists=(NEWS,)
                )
                known = [p.encode() for p in people]
                await store._writer.submit(partial(counting.reset_for_release, hold=hold, people=known))
                model.let_out(sender, hold.letter_from, people, by_sender=by_sender)
                clock.pass_(seconds=1)  # a count in the same microsecond lasts one microsecond longer
                model.now += 1
            else:
                await _mailed(store, model, given_, n)
                n += len(given_)


async def _mailed(store: Store, model: Model, mail: list[Letter], n: int) -> None:
    """Admit all of the mail in one batch, and compare."""
    found: dict[str, dict[Ask, int]] = {}

    async def admitted(one: Item, letter: Letter) -> None:
        def step(live: Seen) -> Admission:
            found[one.id] = dict(live.counts)
            return relays(one.id, counted=() if letter.mode == "held" else one.asks)(live)

        await store.admit(one, step)

    items = [letter.item(n + i) for i, letter in enumerate(mail)]
    async with Gathered(store):
        tasks = [asyncio.create_task(admitted(one, letter)) for one, letter in zip(items, mail, strict=True)]
    await asyncio.gather(*tasks)
    for one, letter in zip(items, mail, strict=True):
        assert found[one.id] == model.counts(one)
        if letter.mode != "held":
            model.record(one)
