"""``python -m bench --month [--messages N]``: an ordinary month of a company, with dangerous mail hidden in it, through
the guard.

Thirty simulated days over real sockets on loopback (onthewire): the proxy part with its SQLite store, reader, lists and
policy, a simulated clock, SMTP clients, and a relay that takes everything. The rules are those of
``config/policy.yaml``, or of ``--policy``.

Ordinary mail that is held counts as held wrongly, and an approver approves it an hour later. If the writer is asked,
the writer confirms ten minutes later, and that counts apart. Campaigns wait twenty minutes for their approval, and until
it takes effect, as they should. Dangerous mail is rejected an hour later. Prints, by kind and rule, what was held wrongly
and whom the dangerous mail reached.

The guard is new: every recipient is a first contact. With ``--known`` it knows the customers whom colleagues wrote to
before. The same seed gives the same mail. 20,000 messages take some minutes, most of it for reading each text and for a
commit each.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import logging
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from bench import company as words
from bench.correspondence import CAMPAIGN, DAYS, FIRST, SCRIPT, UNPROVEN, Post, Writing
from bench.onthewire import Answer, Wire
from bench.sink import Sink
from smtpguard.app.files import read_policy
from smtpguard.app.guardline import Line
from smtpguard.app.lists import built_refresher
from smtpguard.app.proxy import Proxy
from smtpguard.app.services import deadlines, opened
from smtpguard.config.documents import shipped
from smtpguard.config.settings import Settings, read_settings
from smtpguard.counts.contacts import PastMessage, record
from smtpguard.database.batch import Batch
from smtpguard.holds.model import Choice, Conflict, NotEntitled, State
from smtpguard.holds.service import Approvals
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.policy.verdict import Mode

MESSAGES, INCIDENTS, CROWD = 20_000, 5, 60
UNLUCKY, WILLED = 50, 120
"""How many customers dangerous mail may reach at most: by accident; and by a script with an account, in a week. Without
an account, a script may reach none."""
_APPROVERS = (f"anna.presschef@{words.HOME[words.SV]}", f"dpo@{words.HOME[words.SV]}")
_SYNC = timedelta(hours=12)


class Clock:
    """A clock that the month sets; ``monotonic`` follows it."""

    def __init__(self, at: datetime) -> None:
        self._at = self._began = at

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return (self._at - self._began).total_seconds()

    def to(self, at: datetime) -> None:
        self._at = max(at, self._at)


@dataclass(slots=True)
class Ordinary:
    """Counts of one ordinary kind."""

    messages: int = 0
    held: int = 0
    asked: int = 0
    rules: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Dangerous:
    """Counts of one dangerous kind. ``reached``: incident -> customers reached."""

    kind: str
    reached: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    rules: Counter[str] = field(default_factory=Counter)

    @property
    def bound(self) -> int:
        """How many customers it may reach at most."""
        if self.kind == UNPROVEN:
            return 0
        return WILLED if self.kind.startswith(SCRIPT) else UNLUCKY

    @property
    def stopped(self) -> int:
        return sum(n == 0 for n in self.reached.values())

    @property
    def in_part(self) -> int:
        return sum(0 < n <= self.bound for n in self.reached.values())

    @property
    def through(self) -> int:
        return sum(n > self.bound for n in self.reached.values())


@dataclass(slots=True)
class Result:
    """``by_writer``: the writer's messages, and how many of them were held wrongly. ``misused``: messages held wrongly
    from accounts that sent dangerous mail within the last week; ``by_writer`` does not count these as wrong."""

    ordinary: dict[str, Ordinary] = field(default_factory=lambda: defaultdict(Ordinary))
    dangerous: dict[str, Dangerous] = field(default_factory=dict)
    by_writer: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    misused: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    """Questions to each person. One question covers a primary hold and its copies."""
    waited: int = 0
    undecided: int = 0
    seconds: float = 0.0

    @property
    def messages(self) -> int:
        return sum(one.messages for one in self.ordinary.values())

    @property
    def wrongly(self) -> int:
        return sum(one.held for one in self.ordinary.values())

    @property
    def about(self) -> int:
        """Ordinary messages about which their writers were asked."""
        return sum(one.asked for one in self.ordinary.values())

    @property
    def incidents(self) -> int:
        return sum(len(one.reached) for one in self.dangerous.values())

    def count(self, of: str) -> int:
        """``of``: ``stopped``, ``in_part`` or ``through``."""
        return sum(getattr(one, of) for one in self.dangerous.values())


class Month:
    """One run. ``played`` creates it."""

    def __init__(self, settings: Settings, line: Line, wire: Wire, clock: Clock, approvals: Approvals) -> None:
        self._settings, self._line, self._wire, self._clock, self._approvals = settings, line, wire, clock, approvals
        self._decisions: list[tuple[datetime, int, str, Choice | None]] = []
        """Heap of decisions by time, with hold and campaign; None: the writer is asked; without a hold: an approval takes
        effect."""
        self._with_another: set[str] = set()
        self._approved: set[str] = set()
        self._misused: dict[str, datetime] = {}
        """When an account last sent dangerous mail."""
        self.result = Result()

    async def play(self, posts: Sequence[Post], progress: Callable[[int], None] = lambda n: None) -> Result:
        began = time.process_time()
        refresh = built_refresher(
            self._settings, self._line.policies.policy, self._line.policies.current().registry.digester
        )
        lists, next_sync = self._line.policies.current().registry.lists, FIRST
        for n, post in enumerate(posts):
            while next_sync <= post.at:  # so that no list gets stale
                for info in lists.values():
                    report = refresh.sync(info, next_sync)
                    assert report.ok, report.problem
                next_sync += _SYNC
            await self._decide(post.at)
            self._clock.to(post.at)
            await self._line.watch.read()
            await self._count(post, await self._wire.send(post.client, post.reverse_path, post.to, post.raw))
            progress(n)
        self.result.seconds = time.process_time() - began
        return self.result

    async def _count(self, post: Post, done: Answer) -> None:
        result, relayed = self.result, done.what == "relayed"
        rules, asks = await self._rules(done), await self._asks(done)
        if post.incident:
            self._misused[post.writer] = post.at
            found = result.dangerous.setdefault(post.kind, Dangerous(kind=post.kind))
            found.reached[post.incident] += self._customers(done.taken)
            found.rules.update(rules)
        elif post.kind == CAMPAIGN and not relayed and self._key(post) not in self._approved:
            result.ordinary[post.kind].messages += 1
            result.waited += 1  # as it should
        else:
            one = result.ordinary[post.kind]
            one.messages += 1
            one.held += not relayed and not asks
            one.asked += asks
            result.asked[post.writer] += asks and done.hold_id not in self._with_another
            one.rules.update(rules)
            mine = result.by_writer[post.writer]
            mine[0] += 1
            if self._is_misused(post.writer, post.at):
                result.misused += not relayed and not asks
            else:
                mine[1] += not relayed and not asks
        if done.hold_id and asks and not post.incident:
            at = post.at + timedelta(minutes=10)
            heapq.heappush(self._decisions, (at, len(self._decisions), f"{done.hold_id} {self._key(post)}", None))
        elif done.hold_id:
            wait = timedelta(minutes=20) if post.kind == CAMPAIGN else timedelta(hours=1)
            misused = post.kind != CAMPAIGN and self._is_misused(post.writer, post.at)
            choice = Choice.REJECT if post.incident or misused else Choice.APPROVE
            heapq.heappush(
                self._decisions, (post.at + wait, len(self._decisions), f"{done.hold_id} {self._key(post)}", choice)
            )
        elif not relayed:
            result.undecided += not rules

    async def _asks(self, done: Answer) -> bool:
        """Whether the writer is asked about it, or about its primary hold."""
        hold = await self._line.store.holds.find(done.hold_id) if done.hold_id else None
        if hold is not None and hold.primary:
            self._with_another.add(hold.hold_id)
            hold = await self._line.store.holds.find(hold.primary)
        return hold is not None and hold.asks_writer

    def _is_misused(self, writer: str, at: datetime) -> bool:
        """Whether the account sent dangerous mail within the last week. Its own messages wait beside that, and the
        approver sees both."""
        return writer in self._misused and at - self._misused[writer] < timedelta(days=7)

    def _key(self, post: Post) -> str:
        """The key of the campaign that it belongs to."""
        return f"{post.writer}|{post.at:%V}|{post.kind}|{'list' if post.to[0].endswith(words.LISTS) else 'copies'}"

    def _customers(self, taken: Sequence[str]) -> int:
        known = self._line.policies.current().registry.classify(Address.parse(to) for to in taken)
        return int(known.customers.low)

    async def _rules(self, done: Answer) -> list[str]:
        """The rules that held it."""
        if not done.hold_id:
            return [] if done.what == "relayed" else [done.what]
        hold = await self._line.store.holds.find(done.hold_id)
        hits = [hit.rule for hit in hold.verdict.hits if hit.mode is Mode.ENFORCE] if hold is not None else []
        return hits or ["a copy of what waits or was rejected"]

    async def _decide(self, until: datetime) -> None:
        while self._decisions and self._decisions[0][0] <= until:
            at, _, named, choice = heapq.heappop(self._decisions)
            hold_id, _, key = named.partition(" ")
            self._clock.to(at)
            if not hold_id:
                await self._approvals.enact()
                self._approved.add(key)
                continue
            hold = await self._line.store.holds.find(hold_id)
            if hold is None or hold.state is not State.WAITING:  # already decided with another hold of its mailing
                continue
            if choice is None:
                hold = await self._line.store.holds.find(hold.primary) if hold.primary else hold
                if hold is not None and hold.asks_writer and hold.confirm is not None:
                    await self._approvals.confirm(
                        hold.hold_id, writer=hold.confirm.writer, by="month", people=hold.reach
                    )
                    continue
                choice = Choice.APPROVE  # approvers decide instead
            for approver in _APPROVERS:
                try:
                    await self._approvals.vote(hold_id, choice, approver=approver, by="month", people=10**6)
                except (
                    Conflict,
                    NotEntitled,
                    KeyError,
                ):  # already decided with another hold of its mailing, or this approver may not decide
                    continue
            if choice is Choice.APPROVE:
                lead = await self._line.store.holds.find((hold and hold.primary) or hold_id)
                due = lead.release_at if lead is not None else None  # later if it can be undone until then
                heapq.heappush(self._decisions, (due or at, len(self._decisions), f" {key}", choice))


async def played(
    folder: Path,
    posts: Sequence[Post],
    writing: Writing,
    rules: str,
    progress: Callable[[int], None] = lambda n: None,
    *,
    known: bool = False,
) -> Result:
    """Play the month. ``rules``: YAML from the key ``rules`` on. ``known``: the guard knows earlier contacts."""
    sink = Sink()
    async with AsyncExitStack() as undo:
        await sink.start(undo)
        words.write(writing.company, folder, rules, sink.port)
        for vocabulary in (shipped() / "vocabularies").glob("*.yaml"):
            (folder / "vocabularies").mkdir(exist_ok=True)
            (folder / "vocabularies" / vocabulary.name).write_bytes(vocabulary.read_bytes())
        settings, clock = read_settings(folder / "smtpguard.yaml"), Clock(FIRST - timedelta(minutes=1))
        policy = read_policy(settings)
        async with opened(settings, migrate=True, clock=clock) as (store, _):
            event = Event(kind=Kind.POLICY, id=policy.sha256[:16], at=clock.now())
            await store.policies.put(policy.sha256, dict(policy.documents), event)
        desk = Proxy(settings, clock)
        undo.push_async_callback(desk.close)
        await desk.start()
        undo.push_async_callback(desk.stop, 1)
        wire = Wire(desk, sink)
        undo.callback(wire.close)
        if known:
            digester = desk.line.policies.current().registry.digester
            written = {
                who: [digester.of(Address.parse(to.address)) for to in people] for who, people in writing.known.items()
            }
            await desk.line.store.write(partial(_know, written))
        approvals = Approvals(desk.line.store, desk.line.policies, SteadyClock(clock), term=deadlines(settings))
        return await Month(settings, desk.line, wire, clock, approvals).play(posts, progress)


def _know(written: Mapping[str, Sequence[bytes]], batch: Batch) -> None:
    """Record that each sender wrote to these people a month ago."""
    at_us = batch.now_us - 30 * 86_400 * 1_000_000
    record(batch, [PastMessage(senders=[who], people=people, at_us=at_us) for who, people in written.items()])


def rules_of(policy: Path) -> str:
    """The text of a policy from the key ``rules`` on."""
    _, found, rest = policy.read_text().partition("\nrules:")
    if not found:
        raise SystemExit(f"{policy} has no rules")
    return f"rules:{rest}"


def table(result: Result) -> Iterator[str]:
    yield f"{result.messages:,} ordinary messages over {DAYS} days, {result.incidents} dangerous things in {len(result.dangerous)} kinds; {result.seconds:,.0f} s of one processor"
    yield ""
    yield "| Ordinary kind | messages | held wrongly | asked about | by rule |"
    yield "|---|---|---|---|---|"
    for kind, one in sorted(result.ordinary.items(), key=lambda each: -each[1].messages):
        yield f"| {kind} | {one.messages:,} | {one.held:,} | {one.asked:,} | {_ruled(one.rules)} |"
    letters = [mine for writer, mine in result.by_writer.items() if writer != words.MAILER]
    worst = max((held / sent for sent, held in letters if sent >= 20), default=0.0)
    yield ""
    yield (
        f"Held wrongly: {result.wrongly:,} of {result.messages:,} ({1000 * result.wrongly / max(1, result.messages):.2f} in 1,000); {result.misused:,} of "
        f"them from accounts from which dangerous mail came that week; of the letters of one other person at most {worst:.1%}. {result.waited:,} of campaigns waited for their approval, as they should; {result.undecided:,} undecided."
    )
    if result.about:
        often = max(result.asked.values())
        yield (
            f"Asked of its writer: {result.about:,} of {result.messages:,}, in {result.asked.total():,} questions to "
            f"{sum(n > 0 for n in result.asked.values()):,} people, to one at most {often}."
        )
    if not result.incidents:
        return
    yield ""
    yield "| Dangerous kind | may reach | stopped | in part | through | customers reached, at most | by rule |"
    yield "|---|---|---|---|---|---|---|"
    for kind, danger in sorted(result.dangerous.items()):
        most = max(danger.reached.values())
        yield f"| {kind} | {danger.bound} | {danger.stopped} | {danger.in_part} | {danger.through} | {most:,} | {_ruled(danger.rules)} |"
    yield ""
    yield f"Of {result.incidents}: {result.count('stopped')} stopped, {result.count('in_part')} in part, {result.count('through')} through."


def _ruled(rules: Counter[str]) -> str:
    return ", ".join(f"{rule} {n:,}" for rule, n in rules.most_common(3))


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench --month")
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--incidents", type=int, default=INCIDENTS, help="of each dangerous kind")
    parser.add_argument(
        "--crowd", type=int, default=CROWD, help="customers to whom one goes who writes to them one by one"
    )
    parser.add_argument("--known", action="store_true", help="the guard knows whom colleagues wrote to before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", type=Path, default=shipped() / "policy.yaml", help="whose rules are played")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    writing = Writing(args.seed, crowd=args.crowd)
    posts = writing.month(args.messages, args.incidents)

    def progress(n: int) -> None:
        if sys.stderr.isatty() and not n % 100:
            print(f"\r{n:,} of {len(posts):,}", end="", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="month-") as folder:
        rules = rules_of(args.policy)
        result = asyncio.run(played(Path(folder), posts, writing, rules, progress, known=args.known))
    for line in table(result):
        print(line)
