"""``python -m bench --counted``: the store alone, counting the recipients of messages to 50 customers each.

Concurrent callers each admit one message after the other. They are either copies of one mailing, for which the sample
policy counts the customers of the mailing and of its sender; or distinct messages, whose first contacts it counts by
From, login, client and list. The first turn goes to unknown people, the second to the same people again, each in a new
store. No text is read and no rule evaluated. Prints messages a second, and processor time of this process and of the
database server for each recipient.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.through import SAMPLE, cpu_seconds, table
from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.app.clock import SystemClock
from smtpguard.config.documents import policy_documents
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.persons import Person
from smtpguard.policy.counted import Ask
from smtpguard.policy.facts import Count, Facts
from smtpguard.policy.parse import parse
from smtpguard.policy.verdict import Action, Verdict
from smtpguard.reading.fingerprint import Identity
from smtpguard.store.store import Store, open_store
from tests.store.servers import a_server, new_database

_LIST = "newsletter"
_ON_IT = 1_000_000
_CLERKS = 40


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


class Mail:
    """The messages to admit: an item by number and turn."""

    def __init__(self, policy: Path) -> None:
        self.documents = policy_documents(policy)
        self._policy = parse(self.documents)
        self._asks: dict[tuple[str, ...], tuple[Ask, ...]] = {}

    @property
    def sha256(self) -> str:
        return self._policy.sha256

    def asks(self, sender: str, letter_from: tuple[str, ...], people: int) -> tuple[Ask, ...]:
        """What the policy's rules ask for a message to ``people`` customers on one list."""
        key = (sender, *letter_from)
        if key not in self._asks:
            values: dict[str, Any] = {"sender.address": sender, "recipients.customers": Count(people, people)}
            sizes = {_LIST: Count(_ON_IT, _ON_IT)}
            facts = Facts(values=values, letter_from=letter_from, sizes=sizes, lists=frozenset({_LIST}))
            self._asks[key] = self._policy.rules.plan(facts).asks
        return self._asks[key]

    def copy(self, n: int, turn: int, people: int) -> Item:
        """A copy of the one mailing."""
        sender = "campaigns@example.com"
        return self._item(f"{turn}-{n}", n, people, self.asks(sender, (), people), Identity(exact="the mailing"), ())

    def letter(self, n: int, turn: int, people: int) -> Item:
        """A distinct message from one of the clerks."""
        clerk = n % _CLERKS
        names = (f"clerk{clerk}@example.com", f"login clerk{clerk}", f"client 192.0.2.{clerk % 4}")
        asks = self.asks(names[0], names, people)
        return self._item(f"{turn}-{n}", n, people, asks, Identity(exact=f"letter {turn} {n}"), names)

    def _item(
        self, id: str, n: int, people: int, asks: tuple[Ask, ...], identity: Identity, names: tuple[str, ...]
    ) -> Item:
        digests = tuple(_digest(f"person {each}") for each in range(n * people, (n + 1) * people))
        content = hashlib.sha256(id.encode()).hexdigest()
        return Item(
            id=id, key=content, policy_sha256=self._policy.sha256, content_sha256=content, message_id=f"<{id}@example.com>", asks=asks,
            people=digests, everybody=tuple(Person(digest=d, customer=True, lists=(_LIST,)) for d in digests),
            touches=frozenset({_LIST}), senders=frozenset(names[:1]), identity=identity, letter_from=names,
        )  # fmt: skip


KINDS: dict[str, Callable[[Mail, int, int, int], Item]] = {"mailing": Mail.copy, "letters": Mail.letter}


async def _admitted(store: Store, items: Iterator[Item]) -> None:
    for item in items:

        def step(live: Seen, item: Item = item) -> Admission:
            data = {"action": "relay", "counts": {"total": len(item.people)}, "content": item.content_sha256}
            event = Event(kind=Kind.VERDICT, id=item.id, at=live.now, data=data)
            mailing = live.mailing.mailing_id if live.mailing is not None else ""
            return Admission(
                verdict=Verdict(action=Action.RELAY),
                events=(event,),
                counted=item.asks,
                mailing=mailing,
            )

        await store.admit(item, step)
        store.journal.note(
            Event(kind=Kind.OUTCOME, id=item.id, at=datetime.now(UTC), data={"outcome": "relayed", "replies": []})
        )


async def _measured(url: str, root: Path, mail: Mail, kind: str, chosen: argparse.Namespace) -> list[tuple[float, ...]]:
    """For each turn: messages a second, and microseconds for each recipient here and in the server."""
    found: list[tuple[float, ...]] = []
    async with open_store(url, secret=bytes(32), state_dir=root, clock=SystemClock(), migrate=True, hot=True) as store:
        put = Event(kind=Kind.POLICY, id=mail.sha256, at=datetime.now(UTC), data={})
        await store.policies.put(mail.sha256, mail.documents, put)
        for turn in range(2):
            items = [KINDS[kind](mail, n, turn, chosen.people) for n in range(chosen.messages)]
            coming, people = iter(items), chosen.messages * chosen.people
            servers = _servers(url)
            started, cpu, beside = time.monotonic(), time.process_time(), cpu_seconds(servers)
            await asyncio.gather(*(_admitted(store, coming) for _ in range(chosen.waiters)))
            seconds, used, theirs = time.monotonic() - started, time.process_time() - cpu, cpu_seconds(servers) - beside
            found.append((chosen.messages / seconds, used / people * 1e6, theirs / people * 1e6))
    return found


def _servers(url: str) -> list[int]:
    """The pids of the database server: processes whose working directory is the socket's folder in the URL."""
    folder = parse_qs(urlsplit(url).query).get("host", [""])[0]
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd") if folder else ():
        try:
            if place.readlink() == Path(folder):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def main(argv: Sequence[str]) -> None:
    options = argparse.ArgumentParser(prog="python -m bench --counted", description=__doc__)
    options.add_argument("--messages", type=int, default=1000, help="of each turn (1000)")
    options.add_argument("--people", type=int, default=50, help="of each message (50)")
    options.add_argument("--waiters", type=int, default=64)
    options.add_argument("--runs", type=int, default=3, help="of which the medians are printed")
    options.add_argument("--store", choices=("sqlite", "postgresql"), help="both where PostgreSQL is to be had")
    options.add_argument("--kind", choices=tuple(KINDS))
    chosen = options.parse_args(argv)
    kinds = [chosen.kind] if chosen.kind else list(KINDS)
    mail = Mail(SAMPLE / "policy.yaml")
    stores = [chosen.store] if chosen.store else ["sqlite", "postgresql"]
    print(f"python -m bench --counted {' '.join(argv)}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    with ExitStack() as stack:
        servers = {"postgresql": stack.enter_context(a_server()).get_uri()} if "postgresql" in stores else {}
        head = ["".ljust(34), "messages/s", "CPU us a person", "in the server"]
        table(head, _rows(stores, kinds, servers, mail, chosen))


def _rows(
    stores: Sequence[str], kinds: Sequence[str], servers: dict[str, str], mail: Mail, chosen: argparse.Namespace
) -> Iterator[list[str]]:
    found: dict[tuple[str, str, int], list[tuple[float, ...]]] = {}
    for _ in range(chosen.runs):
        for store in stores:
            for kind in kinds:
                with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
                    url = new_database(servers[store]) if store in servers else f"sqlite:///{folder}/guard.db"
                    for turn, figures in enumerate(asyncio.run(_measured(url, Path(folder), mail, kind, chosen))):
                        found.setdefault((store, kind, turn), []).append(figures)
    for (store, kind, turn), runs in found.items():
        rate, cpu, server = (statistics.median(each) for each in zip(*runs, strict=True))
        name = f"{store}, {kind}{', the same people again' if turn else ''}"
        yield [name, f"{rate:,.0f}", f"{cpu:.1f}", f"{server:.1f}" if store in servers else ""]
