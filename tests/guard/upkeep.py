"""What operators do in a random history, and what must be true at once after each: incident holds, erasure, retention, a
backup that is restored elsewhere, and an emergency bypass."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import Connection, LargeBinary, String, select

from smtpguard.admission.bypass import AWAY_SECONDS, BypassPath
from smtpguard.app import backup, services
from smtpguard.config.settings import read_settings
from smtpguard.database import schema
from smtpguard.database.batch import read_head
from smtpguard.database.errors import ContentMissing, Unavailable
from smtpguard.holds.model import LIVE
from smtpguard.journal.bypass import Bypass, Bypasses
from smtpguard.journal.chain import Clear, Pair
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.store import privacy
from smtpguard.store.bypassed import Bypassed
from smtpguard.store.retention import Retention
from tests.guard.house import KEY, MEMBERS, PatchedStore
from tests.guard.relaying import Relaying

Pairs = Sequence[Pair]
ANNA, DPO, EVA, OMAR = "anna@example.com", "dpo@example.com", "eva@example.com", "omar@example.com"
VERDICT = Kind.VERDICT.value
AT_REST = {"content", "chunk", "cover", "document", "absence"}
"""Tables that an erasure leaves as they are: texts of messages, policies, and what staff do."""
KEYS = {"clear": "seq", "hold": "hold_id", "outbox": "intent_id", "delivery": "intent_id", "mailing": "id", "returned": "mail",
        "freeze": "freeze_id"}  # fmt: skip


class Prompt(Bypassed):
    """It waits for its thread, which else writes an outcome before or after the store looks: a seed repeats itself."""

    def note(self, event: Event) -> None:
        super().note(event)
        self._thread.submit(int).result()


@dataclass(slots=True)
class Evidence:
    """What an incident hold keeps, as it was when it was asked for."""

    clears: dict[int, Clear] = field(default_factory=dict)
    entries: set[int] = field(default_factory=set)
    holds: set[str] = field(default_factory=set)
    mailings: set[str] = field(default_factory=set)
    contents: set[str] = field(default_factory=set)


def of_incident(entries: Pairs, id: str) -> tuple[set[str], set[str]]:
    """The messages and the mailings of an incident, as docs/incident.md says."""
    judged = [one for one, _ in entries if one.kind == VERDICT]
    named = [one for one in judged if id in (one.id, *(one.data.get(key) for key in ("hold", "mailing", "freeze")))]
    mailings = {str(one.data["mailing"]) for one in named if one.data.get("mailing")}
    some = [*named, *(one for one in judged if one.data.get("mailing") in mailings)]
    ids = {one.id for one in some} | {str(one.data["hold"]) for one in some if one.data.get("hold")}
    return ids | {id}, mailings


class Upkeep(Relaying):
    """``recorded``: the messages whose verdicts were in the journal before entries were cut off."""

    def __init__(self, folder: Path, seed: int, url: str = "") -> None:
        super().__init__(folder, seed, url)
        self.kept = defaultdict[str, Evidence](Evidence)
        self.recorded = set[str]()
        self.bypassed = 0

    # incidents

    async def preserve(self) -> None:
        await self.settle()
        entries = await self.store.journal.entries(limit=1_000_000)
        names = [str(name) for one, _ in entries if one.kind == VERDICT
                 for name in (one.id, *(one.data.get(key) for key in ("hold", "mailing", "freeze"))) if name]  # fmt: skip
        if not names:
            return
        over = [hold.hold_id for hold in await self.home.holds() if hold.state not in LIVE and hold.hold_id in names]
        id = self.chance.choice(over if over and self.chance.random() < 0.5 else names)
        made = await self.store.preserve(id, by="root", reason="a lawsuit")
        assert made is not None, id
        ids, mailings = of_incident(entries, id)
        kept = self.kept[id]
        of_it = [(one, clear) for one, clear in entries if one.id in ids or one.id in mailings]
        kept.entries |= {one.seq for one, _ in of_it}
        kept.clears |= {one.seq: clear for one, clear in of_it if clear is not None}
        holds = [hold for hold in await self.home.holds() if hold.hold_id in ids]
        kept.holds |= {hold.hold_id for hold in holds}
        kept.mailings |= {one for one in mailings if await self.store.mailings.find(one) is not None}
        kept.contents |= {hold.content_sha256 for hold in holds if await self._has(hold.content_sha256)}
        if self.forgets:
            await self.retain(days=5)
        if self.erases:
            named = {value for clear in kept.clears.values() for values in clear.values() for value in values}
            await self.erase(self.chance.choice([one for one in (*MEMBERS, ANNA) if one in named] or [ANNA]))
        await self.check_preserved()

    async def _has(self, sha256: str) -> bool:
        try:
            await self.store.contents.load(sha256)
        except ContentMissing:
            return False
        return True

    async def renew(self) -> None:
        for one in await self.store.preserved():
            found = await self.store.preserve_longer(one.id, self.chance.choice([EVA, OMAR]))
            assert found.until >= one.until
            assert found.until == one.until or one.asked_by not in ("", found.asked_by), "by one person alone"

    async def check_preserved(self) -> None:
        """All of it is there, until its time is over."""
        stand = {one.id for one in await self.store.preserved()}
        self.kept = defaultdict(Evidence, {id: one for id, one in self.kept.items() if id in stand})
        if not self.kept:
            return
        entries = {one.seq: clear for one, clear in await self.store.journal.entries(limit=1_000_000)}
        for id, kept in self.kept.items():
            assert kept.entries <= entries.keys(), id
            assert {seq: entries[seq] for seq in kept.clears} == kept.clears, id
            for hold_id in kept.holds:
                assert await self.store.holds.find(hold_id) is not None, (id, hold_id)
            for mailing_id in kept.mailings:
                assert await self.store.mailings.find(mailing_id) is not None, (id, mailing_id)
            for sha256 in kept.contents:
                assert await self._has(sha256), (id, sha256)

    # erasure

    async def erase(self, address: str = "") -> None:
        """Nothing is left of a person but what the erasure says that it keeps."""
        address = address or self.chance.choice([*MEMBERS[:10], ANNA])
        whom = privacy.Person(Address.parse(address), self.home.in_force.registry.digester)
        if self.chance.random() < 0.3:
            await self._erased_while_indexing(whom)
        else:
            await privacy.erase(self.store, whom, by="root")
        left = await self.store.walk(lambda open: list(privacy.collect(open, whom, self.store.now())))
        assert [one for one in left if not one.stays] == [], address
        kept = defaultdict[str, set[str]](set)
        for one in left:
            kept[one.what].add(one.id)
        named = await self.store.ask(lambda c: _naming(c, address))
        seqs = {id.partition(" ")[0] for id in kept["entry"]}
        back = {id.partition(" ")[0] for id in kept["returned"]}
        stay = {"clear": seqs, "hold": kept["hold"], "outbox": kept["sending"], "delivery": kept["sending"],
                "mailing": kept["mailing"], "returned": back, "freeze": kept["freeze"],
                "underway": await self._under_way()}  # fmt: skip
        left_over = {(table, key) for table, key in named if key not in stay.get(table, ())}
        assert left_over == set(), (address, left_over)
        await self._found(address, {int(seq) for seq in seqs})
        self.mailboxes.erased()

    async def _under_way(self) -> set[str]:
        query = select(schema.underway.c.id).where(schema.underway.c.doubt.is_(False))
        return set(await self.store.ask(lambda c: c.execute(query).scalars()))

    async def _erased_while_indexing(self, whom: privacy.Person) -> None:
        """The delivery part has read entries for the index, and writes their words after."""
        ask = self.store.ask

        async def asked(*args: Any, **more: Any) -> Any:
            found = await ask(*args, **more)
            with mock.patch.object(self.store, "ask", ask):
                await privacy.erase(self.store, whom, by="root")
            return found

        with mock.patch.object(self.store, "ask", asked):
            await self.store.journal.index()

    async def _found(self, address: str, seqs: Collection[int]) -> None:
        ids = {one.id for one, _ in await self.store.journal.entries(limit=1_000_000) if one.seq in seqs}
        more = {*await self.store.journal.find([address], 1000)} - ids
        assert not more, (address, more)

    # retention

    async def retain(self, days: int = 0) -> None:
        """As settings say, or in some histories with periods that end soon."""
        self.recorded |= {one.id for one, _ in await self.store.journal.entries(limit=1_000_000) if one.kind == VERDICT}
        keep = Retention(content=timedelta(days=30), addresses=timedelta(days=90), journal=timedelta(days=400))
        if self.forgets:
            await self.pass_(days=days or self.chance.choice([0, 1, 1, 2, 5, 31]))
            keep = Retention(content=timedelta(days=1), addresses=timedelta(days=2), journal=timedelta(days=30))
        while (await self.store.retain(keep)).more:
            pass
        await self._no_names(self.clock.now() - keep.addresses)

    async def _no_names(self, before: datetime) -> None:
        """Of no entry that is older, but those of incidents."""
        keys = await self.store.ask(lambda c: set(c.execute(select(schema.preserved_key.c.key)).scalars()))
        for one, clear in await self.store.journal.entries(limit=1_000_000):
            if one.time >= before:
                break
            assert clear is None or one.id in keys, one.seq

    # a backup

    async def back_up(self) -> None:
        """Restored in a new folder, where it goes on."""
        if self.url:
            return
        await self.settle()
        there = self.folder.parent / f"{self.folder.name}-again"
        for folder in (there, there / "indexes", there / "beside"):
            folder.mkdir()
        (self.folder / "policy.yaml").write_text("version: 1\n")
        here, then = self._settings(self.folder), self._settings(there)
        file = self.folder.parent / f"{self.folder.name}.tar.zst"
        clock = mock.Mock(return_value=self.clock)
        with mock.patch.object(backup, "SystemClock", clock), mock.patch.object(services, "SystemClock", clock):
            await asyncio.to_thread(backup.back_up, read_settings(here), here, file, by="root")
            await self.close()
            await asyncio.to_thread(backup.restore, read_settings(then), file, by="root")
        file.unlink()
        self.folder = there
        await self.open()
        assert any(str(one.reason).startswith("Restored") for one in (await self.store.gate.read()).freezes)

    def _settings(self, folder: Path) -> Path:
        file = folder / "smtpguard.yaml"
        file.write_text(
            f'listen: {{smtp: [{{address: 127.0.0.1, port: 0}}]}}\nstore: {{url: "sqlite:///{folder}/guard.db"}}\n'
            f'state: "{folder}"\nsecret_file: "{folder}/secret"\npolicy: "{self.folder}/policy.yaml"\n'
            'notices: {contact: "it@example.com"}\n'
        )
        if folder == self.folder:
            (folder / "secret").write_bytes(KEY)
            (folder / "secret").chmod(0o600)
        return file

    # a bypass

    async def outage(self) -> None:
        """The store is away, and mail goes under a bypass, until it is back."""
        home, intake, watch = self.home, self.intake, self.home.watch
        folder = Bypasses(self.state)
        journal = (await self.store.ask(read_head)).journal
        kept = Prompt(
            folder, path=self.store.file, journal=journal, secret=KEY, now=self.clock.now,
            take=self.store.journal.take_fronts, note=self.store.journal.note,
        )  # fmt: skip
        path = BypassPath(kept, self.store, watch, self.clock, trace_key=KEY, hostname="guard.example.com")
        await watch.read()
        await path.look()
        now, self.bypassed = self.clock.now(), self.bypassed + 1
        ends = now + timedelta(minutes=self.chance.choice([1, 30]))
        made = Bypass(
            id=f"B{self.bypassed}", people=(EVA, OMAR), user="root", host="here", reason="A fire", begins=now, ends=ends
        )
        folder.begin(made)
        async with self._away(path):
            for _ in range(self.chance.choice([1, 4])):
                to = self.chance.choice(
                    [["x@example.org"], ["y@example.org"], [self.chance.choice(MEMBERS)], ["ramadan@lists.example.com"]]
                )
                looks = self.chance.choice(["mailing", "internal", "unclear"])
                sender = self.chance.choice([ANNA, "otto@example.org"])
                await self.submit(to, X_Looks=looks, sender=sender, body=f"Away {self.bypassed} {self.chance.random()}")
        relayed = path.relayed
        await kept.settle()
        if self.chance.random() < 0.5:
            folder.end(self.clock.now(), "root")
        self.home, self.intake = home, intake
        kept.close()
        await watch.read()
        for _ in range(2):
            await self.store.journal.take_fronts()
        verdicts = [one for one, _ in await self.store.journal.entries(limit=1_000_000) if one.kind == VERDICT]
        assert sum(one.data.get("bypass") == made.id for one in verdicts) == relayed, made.id

    @asynccontextmanager
    async def _away(self, path: BypassPath) -> Any:
        home, front = self.home, self.home.front
        watch: Any = home.watch

        async def away(*_: Any, **more: Any) -> Any:
            raise Unavailable("no connection")

        gates = watch.gates
        home.given_store, home.front, home.bypass = PatchedStore(self.store, {"admit": away}), None, path
        watch.gates = PatchedStore(gates, {"read": away})
        intake, self.intake = self.intake, home.intake()
        self.clock.pass_(seconds=AWAY_SECONDS)
        try:
            yield
        finally:
            home.given_store, home.front, home.bypass, watch.gates, self.intake = self.store, front, None, gates, intake


def _naming(connection: Connection, address: str) -> set[tuple[str, str]]:
    """The table and the key of each row that has this address."""
    named = re.compile(rf"(?<![\w.+-]){re.escape(address)}(?![\w.-])", re.IGNORECASE)
    found = set[tuple[str, str]]()
    for table in schema.metadata.sorted_tables:
        columns = [one for one in table.columns if isinstance(one.type, String | LargeBinary)]
        if table.name in AT_REST or not columns:
            continue
        key = table.c[KEYS[table.name]] if table.name in KEYS else next(iter(table.primary_key.columns))
        for id, *values in connection.execute(select(key, *columns)):
            if any(named.search(_text(value)) for value in values):
                found.add((table.name, str(id)))
    return found


def _text(value: Any) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)
