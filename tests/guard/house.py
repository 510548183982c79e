"""``house``: a guard with real parts where possible: policy from YAML, registry over indexes, store.

Reader and verifier answer as a test says (sources), and the way to the relay keeps what was sent.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from smtpguard.admission.dispose import Dispose
from smtpguard.admission.intake import Intake
from smtpguard.app.policies import with_people
from smtpguard.config.statefiles import swap
from smtpguard.database import schema
from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.gathering.gather import Gather, Gathered
from smtpguard.gathering.sender import Sender
from smtpguard.guard.inforce import InForce
from smtpguard.holds import rows as holds
from smtpguard.holds.deadlines import REMINDERS, Deadlines
from smtpguard.holds.model import Choice, Hold
from smtpguard.holds.service import Approvals, Decided
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import index_path
from smtpguard.lists.names import Names
from smtpguard.lists.registry import Registry
from smtpguard.lists.writing import write
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Fence, Recalled, Recipient, Session, Transaction
from smtpguard.mail.message import Message
from smtpguard.mail.reply import OK, Reply
from smtpguard.notices.intents import Notices
from smtpguard.policy.facts import Source, Value
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.parse import Policy, parse
from smtpguard.policy.verdict import Disposition, Held
from smtpguard.store.store import Store, open_store
from smtpguard.store.writer import Committed
from tests.clocks import MONDAY, Clock
from tests.guard.sources import FakeReader, FakeVerifier
from tests.store.making import sqlite_url

KEY = b"0123456789abcdef0123456789abcdef"
RAMADAN = "ramadan@lists.example.com"
MEMBERS = [f"customer{n}@example.net" for n in range(60)]
EVERYTHING = frozenset({Source.HEADERS, Source.TEXT, Source.ORIGIN})

POLICY = """
version: 1
enforce: true
organization: {name: Example AB, domains: [example.com], languages: [sv, en], hours: {zone: UTC}}
groups:
  communications: [eva@example.com, omar@example.com]
  compliance: [dpo@example.com]
  duty: [duty@example.com]
approvals: {from: [communications]}
lists:
  ramadan:
    title: Ramadan greetings
    owner: omar@example.com
    addresses: [ramadan@lists.example.com]
    list_ids: [ramadan.lists.example.com]
    members: {csv: ramadan.csv, column: email}
    sensitivity: special-category
    category: religion
    writers: [campaigns@example.com]
    origin: {dkim: campaigns.example.com}
    avoid: [pork]
    approvals: {from: [communications, compliance], out_of_hours: {from: [duty]}}
  news:
    title: News
    addresses: [news@lists.example.com]
    list_ids: [news.lists.example.com]
    members: {csv: news.csv, column: email}
    writers: [eva@example.com]
streams:
  receipts:
    from: [noreply@example.com]
    origin: {clients: [10.1.2.0/24], dkim: shop.example.com}
    max: 3 in 1h
    max_per_person: 2 in 1d
    owner: eva@example.com
rules:
  - id: internal-to-list
    description: Mail between colleagues never goes to a customer list
    when: {message.looks: [internal, unclear], recipients.list_addresses: any}
    then: hold
  - id: internal-to-hidden-members
    when: {message.looks: [internal, unclear], recipients.undisclosed: ">= 5"}
    then: hold
  - id: internal-to-many-customers
    when: {message.looks: [internal, unclear], mailing.customers: ">= 20"}
    unless: {message.correspondence: true}
    then: hold
    scope: customers
  - id: unsuitable-for-list
    when: {message.unsuitable_topics: any, recipients.list_addresses: any}
    then: hold
  - id: not-a-writer
    when: {recipients.list_addresses: any, sender.is_writer: false}
    then: hold
  - id: no-contracts
    description: Contracts never go to a list
    when: {message.labels: [contract], recipients.list_addresses: any}
    then: reject
    explain: true
"""
DOCUMENTS = {"policy.yaml": POLICY.encode(), "vocabularies/pork.yaml": b"groups: [{language: en, terms: [bacon]}]\n"}


@dataclass
class FakePassage:
    """A connection to the relay for one message, with set replies."""

    message: bytes = b""
    replies: tuple[Reply, ...] = (OK,)
    raises: BaseException | None = None
    before_dot: Callable[[], Any] = lambda: None
    sent: list[bytes] = field(default_factory=list)
    abandoned: int = 0
    begun: int = 0
    failed: int = 0

    def begin(self) -> None:
        self.begun += 1

    async def send(self, prepend: bytes, fence: Fence) -> tuple[Reply, ...]:
        made = self.before_dot()
        if asyncio.iscoroutine(made):
            await made
        if not await fence():
            raise Recalled
        if self.raises is not None:
            self.failed += 1
            raise self.raises
        self.sent.append(prepend + self.message)
        return self.replies

    async def abandon(self) -> None:
        self.abandoned += 1


class PatchedStore:
    """A store with some methods replaced, by their names as called: "admit", "holds.change"."""

    def __init__(self, store: Any, methods: Mapping[str, Any]) -> None:
        self._store, self._methods = store, methods

    def __getattr__(self, name: str) -> Any:
        if name in self._methods:
            return self._methods[name]
        under = {key[len(name) + 1 :]: method for key, method in self._methods.items() if key.startswith(f"{name}.")}
        found = getattr(self._store, name)
        return PatchedStore(found, under) if under else found


class House:
    """Built by ``house()``. Its parts are attributes, for tests to look at or to replace."""

    def __init__(self, store: Store, clock: Clock, folder: Path, documents: dict[str, bytes]) -> None:
        self.store = store
        self.clock = clock
        self.folder = folder
        self.reader = FakeReader()
        self.verifier = FakeVerifier()
        self.ids: Iterator[str] = (f"T{n:015d}" for n in itertools.count(1))
        self.watch = GateWatch(store.gate, clock)
        self.gather = Gather(reader=self.reader, verifier=self.verifier, trace_key=KEY)
        self.notices = Notices()
        self.in_force = self.build(documents)
        self.given_store: Any = store  # what the services get, which tests may patch
        self.front: Any = None
        self.bypass: Any = None
        self.term = Deadlines(release_delay_seconds=0)

    def build(self, documents: dict[str, bytes]) -> InForce:
        policy: Policy = parse(documents)
        registry = Registry(
            names=Names(policy.declared_lists, domains=policy.organization.domains, delimiters="+"),
            lists=policy.declared_lists,
            streams=policy.declared_streams,
            digester=Digester(KEY, "+"),
            folder=self.folder,
            now=self.clock.now,
            expanders=(),
        )
        return InForce.of(policy, registry)

    def current(self) -> InForce:
        return self.in_force

    async def expire(self, hold_id: str) -> None:
        """Its last reminder goes out, and its time passes."""
        hold = await self.hold(hold_id)
        for at in (self.term.reminder_at(hold, REMINDERS[-1], self.in_force), hold.expires_at):
            self.clock.pass_(seconds=max((at - self.clock.at).total_seconds(), 0))
            await self.approvals().sweep()

    async def follow(self) -> InForce:
        gate = await self.store.gate.read()
        alone = self.build(dict(await self.store.policies.documents(gate.policy_sha256)))
        self.in_force = await with_people(alone, self.store, self.clock)
        return self.in_force

    async def put(self, documents: dict[str, bytes]) -> str:
        sha256 = parse(documents).sha256
        await self.store.policies.put(sha256, documents, Event(kind=Kind.POLICY, id=sha256[:16], at=self.clock.now()))
        return sha256

    def intake(self) -> Intake:
        dispose = Dispose(
            self.given_store.journal.note, self.watch.fence, self.clock, trace_key=KEY, hostname="guard.example.com"
        )
        return Intake(
            self.given_store,
            self,
            self.gather,
            dispose,
            self.watch,
            self.clock,
            term=self.term,
            notices=self.notices,
            front=self.front,
            bypass=self.bypass,
        )

    def approvals(self) -> Approvals:
        return Approvals(self.given_store, self, SteadyClock(self.clock), notices=self.notices, term=self.term)

    async def approve(self, id: str, *people: str, **more: Any) -> Decided:
        """What the last approval did, by default of both groups that decide about the list ramadan."""
        for who in people or ("eva@example.com", "dpo@example.com"):
            done = await self.approvals().vote(id, Choice.APPROVE, approver=who, by="test", **more)
        return done

    def transaction(self, *to: str, **more: Any) -> Transaction:
        """A transaction with a message from Anna to ``to``. Takes ``session``, ``reverse_path``, ``gone``, ``id``,
        ``refused``, and the arguments of ``mail``."""
        session, gone = more.pop("session", {}), more.pop("gone", lambda: False)
        reverse_path = more.pop("reverse_path", "anna@example.com")
        id = more.pop("id", None) or next(self.ids)
        refused = more.pop("refused", ())
        return Transaction(
            id=id,
            session=Session(**({"client_ip": "192.0.2.1", "helo": "mx.example.com"} | session)),
            envelope=Envelope(
                reverse_path=Address.parse(reverse_path) if reverse_path else None,
                recipients=tuple(Recipient(address=Address.parse(t)) for t in to),
            ),
            message=Message.of(mail(*to, **more)),
            refused=refused,
            gone=gone,
        )

    async def send(self, *to: str, **more: Any) -> Disposition:
        """What became of such a transaction, whose relay takes everything."""
        return await self.intake()(self.transaction(*to, **more), FakePassage())

    async def held(self, *to: str, **more: Any) -> Hold:
        """The hold of such a transaction, by default to the list ramadan."""
        done = await self.send(*(to or (RAMADAN,)), **more)
        assert isinstance(done, Held), done
        return await self.hold(done.hold_id)

    async def gathered(self, transaction: Transaction, *asked: frozenset[Source]) -> Gathered:
        """The gathered facts once each of these sources was asked."""
        known = await self.gather.open(transaction, self.in_force)
        for pending in asked:
            known = await self.gather.ask(known, pending)
        return known

    def sender(self, transaction: Transaction) -> Sender:
        """The sender before the header is read."""
        registry = self.in_force.registry
        return Sender.of(transaction, registry)

    async def facts(self, *to: str, ask: frozenset[Source] = EVERYTHING, **more: Any) -> dict[str, Value]:
        """The facts of such a transaction once ``ask`` was asked."""
        return dict((await self.gathered(self.transaction(*to, **more), ask)).facts.values)

    async def freeze(
        self,
        selector: Selector = Selector.ALL,
        value: str = "",
        *,
        id: str = "F1",
        seen: bool = True,
        defers: bool = False,
    ) -> None:
        """Store a freeze. ``seen``: the watch reads it too."""
        now = self.clock.now()
        stop = Freeze(freeze_id=id, selector=selector, value=value, reason="a fire", by="root", at=now, defers=defers)
        await self.store.gate.freeze(stop, Event(kind=Kind.FREEZE, id=id, at=now))
        if seen:
            await self.watch.read()

    async def thaw(self, id: str = "F1") -> None:
        await self.store.gate.thaw(id, Event(kind=Kind.THAW, id=id, at=self.clock.now()))
        await self.watch.read()

    async def hold(self, id: str) -> Hold:
        hold = await self.store.holds.find(id)
        assert hold is not None, f"{id} is not held"
        return hold

    async def holds(self) -> list[Hold]:
        """All holds, copies included, in order of arrival."""

        def read(connection: Connection) -> list[Hold]:
            order = (schema.hold.c.held_at, schema.hold.c.hold_id)
            return holds.find_all(connection, list(connection.scalars(select(order[1]).order_by(*order))))

        return await self.store.holds._access.ask(read)

    async def events(self, id: str) -> list[tuple[str, dict[str, Any]]]:
        return [(entry.kind, dict(entry.data)) for entry, _ in await self.store.journal.history(id)]

    async def settled(self, id: str) -> list[tuple[str, dict[str, Any]]]:
        """The events, with the outcomes that are written with a later batch."""
        await self.store.journal.record(())
        return await self.events(id)

    async def outbox(self) -> list[Any]:
        """The intents that can be leased now; they stay in the outbox."""
        leases = await self.store.outbox.lease("test", 1000, 1)
        for lease in leases:
            await self.store.outbox.settle(lease, (), ())
        return [lease.intent for lease in leases]


def mail(*to: str, sender: str = "Anna <anna@example.com>", body: str = "Bacon at noon?", **headers: str) -> bytes:
    """A raw message. ``headers``: with underscores for hyphens; None removes a default."""
    fields: dict[str, str | None] = {
        "From": sender,
        "To": ", ".join(to[:10]),
        "Subject": "SV: lunch",
        "Message-ID": "<1@example.com>",
        "Date": "Mon, 2 Mar 2026 09:00:00 +0000",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{head}\r\n{body}\r\n".encode()


def index(folder: Path, name: str, members: Iterable[str], at: datetime = MONDAY) -> None:
    digester = Digester(KEY, "+")
    path = index_path(folder, name)
    digests = [digester.of(Address.parse(m)) for m in members]
    swap(write(path, digests, key_id=digester.key_id, built_at=at, fingerprint=b"f" * 16), path)
    os.utime(path, (at.timestamp(), at.timestamp()))


@asynccontextmanager
async def house(
    tmp_path: Path,
    *,
    documents: dict[str, bytes] = DOCUMENTS,
    url: str | None = None,
    committed: Committed | None = None,
    fronted: bool = True,
) -> AsyncIterator[House]:
    """A house. ``url``: of its new store, by default SQLite in the folder. ``committed`` gets journalled events.
    ``fronted``: with a journal's front."""
    clock = Clock()
    folder = tmp_path / "indexes"
    index(folder, "ramadan", MEMBERS)
    index(folder, "news", ["reader@example.org", "anna@example.com"])
    async with open_store(
        url or sqlite_url(tmp_path / "guard.db"),
        secret=KEY,
        state_dir=tmp_path,
        clock=clock,
        migrate=True,
        committed=committed,
    ) as store:
        made = House(store, clock, folder, documents)
        if fronted:
            made.front = await store.open_front()
            made.watch = GateWatch(store.gate, clock, front=made.front)
        await made.put(documents)
        await made.watch.read()
        yield made
