"""Mail of several relays: what passes, what is held and released, and what the guard writes itself, each over its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.catalogue.wholeguard import RAMADAN, WholeGuard, personal_mail, whole_guard
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import Client

BO = "bo@partner.example"


@pytest.fixture
async def bulk() -> AsyncIterator[ScriptedRelay]:
    async with ScriptedRelay() as relay:
        yield relay


@pytest.fixture
async def routed(bulk: ScriptedRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WholeGuard]:
    relay = f"{{host: 127.0.0.1, port: {bulk.port}, tls: none}}"
    routes = f"routes: [{{name: bulk, lists: [ramadan-greetings], relay: {relay}}}]"
    async with whole_guard(tmp_path, monkeypatch, settings=routes) as made:
        yield made


async def began(guard: WholeGuard, *recipients: str) -> tuple[Client, list[str]]:
    client = await guard.connect()
    await client.ask("MAIL FROM:<anna@example.com>")
    return client, [(await client.ask(f"RCPT TO:<{one}>"))[:9] for one in recipients]


async def test_a_release_uses_its_lists_route_and_notices_do_not(routed: WholeGuard, bulk: ScriptedRelay) -> None:
    hold = await routed.hold(await routed.send(personal_mail()))
    assert bulk.messages == []
    notices = await routed.deliver()
    assert notices
    assert not any(RAMADAN in message.recipients for message in notices)
    await routed.release(hold)
    others = await routed.deliver()
    [there] = bulk.messages
    assert there.content.endswith(personal_mail())
    assert there.recipients == [RAMADAN]
    assert not any(RAMADAN in message.recipients for message in others)


async def test_a_list_on_another_route_is_judged_at_the_retry(routed: WholeGuard, bulk: ScriptedRelay) -> None:
    """What is not for this transaction is neither lost nor decided on."""
    client, said = await began(routed, BO, RAMADAN)
    assert said == ["250 2.0.0", "452 4.5.3"]
    assert (await client.ask("DATA")).startswith("354")
    client.say(personal_mail(to=f"{BO}, {RAMADAN}") + b".\r\n")
    assert (await client.hear()).startswith("250 2.0.0 Taken")
    assert [m.recipients for m in routed.relay.messages] == [[BO]]
    client, said = await began(routed, RAMADAN)
    assert said == ["250 2.0.0"]
    assert (await client.ask("DATA")).startswith("354")
    client.say(personal_mail(to=f"{BO}, {RAMADAN}") + b".\r\n")
    assert "Held" in await client.hear()
    assert bulk.messages == []
