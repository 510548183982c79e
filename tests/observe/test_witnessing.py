"""Each checkpoint is sent to the witness in order, at least once, and again if the witness refuses it."""

from __future__ import annotations

import logging
from datetime import timedelta

import httpx2
import pytest

from smtpguard.journal.note import read
from smtpguard.journal.rows import WITNESS, witnessed
from smtpguard.observe.figures import hooks_behind
from smtpguard.observe.witnessing import WARN_SECONDS, Witnessing
from smtpguard.store.store import Store
from tests.journal.test_rows import filled
from tests.store.making import Clock

URL = "https://witness.example.org/guard?for=us"


class Witness:
    """Keeps what it gets. ``status``: its HTTP status."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.headers: list[httpx2.Headers] = []
        self.status = 200

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.headers.append(request.headers)
        if self.status < 300:
            self.kept.append((await request.aread()).decode())
        return httpx2.Response(self.status)


@pytest.fixture
def witness() -> Witness:
    return Witness()


def giving(store: Store, clock: Clock, witness: Witness) -> Witnessing:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(witness))
    return Witnessing(store, clock, URL, token="sesame", http=http)


async def signed(store: Store, times: int = 1) -> None:
    for _ in range(times):
        await filled(store, 3)
        assert await store.journal.checkpoint() is not None


async def test_each_checkpoint_is_sent_once_in_order(store: Store, clock: Clock, witness: Witness) -> None:
    one = giving(store, clock, witness)
    assert await one.give() == 0
    await signed(store, 2)
    assert await one.give() == 1
    assert await store.ask(witnessed) is not None
    await signed(store, 2)
    assert await one.give() == 2
    assert await one.give() == 0
    assert [read(note).seq for note in witness.kept] == [7, 10, 13], "the newest covers all before it"
    assert witness.headers[0]["authorization"] == "Bearer sesame"
    assert witness.headers[0]["content-type"] == "text/plain; charset=utf-8"
    made = await store.ask(witnessed)
    assert made is not None
    assert (made.seq, made.note) == (13, witness.kept[-1])
    await one.close()


async def test_a_refused_checkpoint_is_sent_again(
    store: Store, clock: Clock, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    one = giving(store, clock, witness)
    await signed(store)
    await one.give()
    await signed(store, 2)
    witness.status = 503
    for _ in range(3):
        assert await one.give() == 0
        clock.go(minutes=3)
    assert len([r for r in caplog.records if "did not take" in r.message]) == 1
    clock.go(seconds=WARN_SECONDS)
    assert await one.give() == 0
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert "HTTP 503" in warned[0]
    assert "witness.example.org" not in caplog.text, "its address may have a password in it"
    made = await store.ask(witnessed)
    assert made is not None
    assert made.seq == 4
    refused = (await store.ask(hooks_behind))[WITNESS]
    assert (refused.told, clock.now() - (refused.failing_since or clock.now())) == (4, timedelta(minutes=19))
    witness.status = 204
    clock.go(minutes=3)
    assert await one.give() == 2
    assert (await store.ask(hooks_behind))[WITNESS].failing_since is None
    await one.close()


async def test_a_second_process_sends_nothing_twice(store: Store, clock: Clock, witness: Witness) -> None:
    first, second = giving(store, clock, witness), giving(store, clock, witness)
    await first.give()
    await signed(store)

    async def meanwhile(request: httpx2.Request) -> httpx2.Response:
        assert await second.give() == 0
        return await witness(request)

    first._http = httpx2.AsyncClient(transport=httpx2.MockTransport(meanwhile))
    assert await first.give() == 1
    assert len(witness.kept) == 1
    await first.close()
    await second.close()


async def test_the_log_has_each_checkpoint(store: Store, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    one = Witnessing(store, clock, "")
    await one.give()
    await signed(store)
    with caplog.at_level(logging.INFO):
        assert await one.give() == 1
    [line] = [record.message for record in caplog.records if "checkpoint of entry 4" in record.message]
    assert read(line.partition(": ")[2].replace("\\n", "\n")).seq == 4
    assert await store.ask(witnessed) is None, (
        "a log counts as a witness only if it is kept elsewhere, which is unknown here"
    )


async def test_verify_reports_the_last_witnessed_checkpoint(store: Store, clock: Clock, witness: Witness) -> None:
    one = giving(store, clock, witness)
    await one.give()
    await signed(store)
    assert (await store.journal.verify()).witnessed is None
    await one.give()
    proof = await store.journal.verify()
    assert proof.witnessed is not None
    assert proof.witnessed[0] == 4
    assert (await store.journal.audit("elsewhere", against=witness.kept)).witnessed == proof.witnessed
    await one.close()
