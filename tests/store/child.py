"""A process that writes to a store, for test_faults: to be killed, to contend, or to run out of disk space.

It prints and flushes one JSON line after each durable step. What a line names must be in the store.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from smtpguard.admission.model import Admission, Seen
from smtpguard.app.clock import SystemClock
from smtpguard.database.errors import Full, StoreError
from smtpguard.journal.event import Kind
from smtpguard.mail.message import Message
from smtpguard.policy.counted import Ask
from smtpguard.store.store import Store, open_store
from tests.store.making import CONTENT, POLICY, SECRET, a_hold, event, holds, item, notice, relays


def report(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def hold(store: Store, name: str, n: int) -> None:
    """Hold ``n`` messages, one after the other. Prints each id when its client would get 250."""
    await store.contents.keep(CONTENT)
    for i in range(n):
        id = f"{name}{i}"
        admission = await store.admit(item(id, message_id=f"<{id}>"), holds(a_hold(id), notice(f"N{id}", id)))
        report(answered=admission.hold.hold_id if admission.hold else None)


async def count(store: Store, name: str, n: int) -> None:
    """Admit ``n`` messages at once, counted under one key. Prints each count that an admission saw."""
    ask = Ask(fact="sender.customers", key="anna", window_seconds=3600)

    async def one(i: int) -> None:
        seen: list[int] = []

        def step(live: Seen) -> Admission:
            seen.append(live.counts[ask])
            return relays(f"{name}{i}", counted=(ask,))(live)

        await store.admit(item(f"{name}{i}", asks=(ask,), people=(f"{name}{i}".encode(),)), step)
        report(count=seen[-1])

    for start in range(0, n, 20):
        await asyncio.gather(*(one(i) for i in range(start, start + 20)))


async def fill(store: Store, folder: str) -> None:
    """Write until the disk is full. Then delete the ballast file, and write again."""
    for i in range(1000):
        message = Message.of(f"Subject: {i}\r\n\r\n".encode() + b"x" * 50_000)
        try:
            await store.contents.keep(message)
            await store.admit(item(f"F{i}"), holds(a_hold(f"F{i}", content=message)))
        except Full as error:
            report(full=str(error))
            break
        except StoreError as error:
            report(other=f"{type(error).__name__}: {error}")
            break
        report(answered=f"F{i}")
    (Path(folder) / "ballast").unlink()
    await store.contents.keep(CONTENT)
    await store.admit(item("after"), holds(a_hold("after")))
    report(answered="after")
    proof = await store.journal.verify()
    report(proof=proof.ok, entries=proof.entries)
    for i in range(1000):
        if await store.holds.find(f"F{i}") is None:
            break
        report(there=f"F{i}")


async def write(url: str, state_dir: str, what: str, name: str, n: int) -> None:
    async with open_store(url, secret=SECRET, state_dir=Path(state_dir), clock=SystemClock(), migrate=True) as store:
        if (await store.gate.read()).policy_sha256 != POLICY:
            await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY, at=SystemClock().now()))
        if what == "hold":
            await hold(store, name, n)
        elif what == "count":
            await count(store, name, n)
        else:
            await fill(store, name)


def main(url: str, state_dir: str, what: str, name: str, n: str) -> None:
    asyncio.run(write(url, state_dir, what, name, int(n)))


if __name__ == "__main__":
    main(*sys.argv[1:])
