"""Findings from the journal: a tool that sends mailings without a declared stream, and people at a listener that proves
no sender."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from smtpguard.app import storestatus
from smtpguard.app.files import read_policy
from smtpguard.app.status import status
from smtpguard.app.storestatus import State, refused_clients, store_findings
from smtpguard.config.settings import read_settings
from smtpguard.database import migrate
from tests.catalogue.test_first_contacts import words
from tests.catalogue.wholeguard import READERS, WholeGuard, personal_mail, policy, whole_guard
from tests.cli.installing import install
from tests.clocks import MONDAY
from tests.guard.house import KEY, FakePassage, house

FRESH = policy(fresh=True)
NEWS = "Hej! Nu är vårens blommor här, och allt annat som en trädgård behöver: fröer, lökar, rosor och redskap.\r\n"


async def found(guard: WholeGuard, about: str) -> list[str]:
    return [f.text for f in await store_findings(guard.settings, read_policy(guard.settings)) if f.about == about]


async def news(
    guard: WholeGuard, sender: str, people: tuple[str, ...], *, source: str = "127.0.0.1", text: str = NEWS
) -> None:
    for n, customer in enumerate(people):
        head = "List-Unsubscribe: <https://news.example.com/u/1>\r\nPrecedence: bulk\r\n"
        content = personal_mail(
            sender=sender,
            to=customer,
            subject="Våren".replace("å", "a"),
            head=head,
            body=text,
            message_id=f"<{sender}{n}>",
        )
        await guard.send(content, customer, sender=sender, source=source)


@pytest.mark.parametrize("origin", ["", "{clients: [127.0.0.5]}", "{clients: [127.0.0.9]}", "{dkim: news.example.com}"])
async def test_a_tool_without_a_stream_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    """A tool is reported unless a declared stream may cover it. The journal has no signatures, so any DKIM origin may."""
    stream = f"streams:\n  news: {{from: news@example.com, origin: {origin}}}\n" if origin else "streams:\n"
    async with whole_guard(tmp_path, monkeypatch, text=FRESH.replace("streams:\n", stream, 1)) as guard:
        await news(guard, "news@example.com", READERS[:19], source="127.0.0.5")
        assert await found(guard, "tool") == []
        await news(guard, "news@example.com", READERS[19:21], source="127.0.0.5")
        await news(guard, "anna@example.com", READERS[30:40], text=words(40, "anna"))
        said = await found(guard, "tool")
        declared = origin in ("{clients: [127.0.0.5]}", "{dkim: news.example.com}")
        assert [text.split(" and the policy")[0] for text in said] == (
            [] if declared else ["news@example.com at 127.0.0.5 sent 21 messages of mailings to customers in 30 days,"]
        )
        await guard.pass_(days=31)
        assert await found(guard, "tool") == []


@pytest.mark.parametrize("listen", ["", ", senders_verified: true"])
async def test_people_at_a_listener_without_proof_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    async with whole_guard(tmp_path, monkeypatch, listen=listen, text=FRESH) as guard:
        for n in range(4):
            await guard.passes(
                personal_mail(
                    sender="anna@example.com", to=READERS[n], head="", body=words(30, n), message_id=f"<{n}@x>"
                ),
                READERS[n],
            )
        assert await found(guard, "listener") == []
        await guard.passes(
            personal_mail(sender="bo@example.com", to=READERS[9], head="", body=words(30, 9)), READERS[9]
        )
        said = await found(guard, "listener")
        assert [text.split(" in 30 days")[0] for text in said] == (
            [] if listen else ["2 people wrote 5 personal messages to customers through listener 127.0.0.1:10025"]
        )
        assert all("rule unproven-to-customers" in text for text in said)


async def test_people_who_count_as_one_sender_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from one client: an MTA in front that is not in ``trust``. What each writes from a client of their own is not
    reported, nor are two people at one of many clients."""
    async with whole_guard(tmp_path, monkeypatch, text=FRESH) as guard:
        n = 0

        async def write(sender: str, source: str) -> None:
            nonlocal n
            n += 1
            letter = personal_mail(sender=sender, to=READERS[n], head="", body=words(30, n), message_id=f"<{n}@x>")
            await guard.passes(letter, READERS[n], source=source)

        for source, people in (("127.0.0.5", ("anna", "bo")), ("127.0.0.6", ("kim",)), ("127.0.0.7", ("ola",))):
            for one in people * 3:
                await write(f"{one}@example.com", source)
        assert await found(guard, "client") == []
        await write("kim@example.com", "127.0.0.5")
        [said] = await found(guard, "client")
        assert said.startswith(
            "3 people wrote 7 personal messages to customers from 127.0.0.5 in 30 days without proof"
        )
        assert "counts them as one sender" in said


async def test_only_a_bounded_number_of_entries_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with whole_guard(tmp_path, monkeypatch, text=FRESH) as guard:
        await news(guard, "news@example.com", READERS[:21], source="127.0.0.5")
        assert await found(guard, "tool") != []
        monkeypatch.setattr(storestatus, "MOST", 20)
        assert await found(guard, "tool") == []


SESSIONS: list[dict[str, Any]] = [
    {"client_ip": "192.0.2.1", "listener": "inside"},
    {"client_ip": "192.0.2.1", "listener": "inside"},
    {"client_ip": "198.51.100.7", "listener": "inside"},
    # the client's address is by its MTA (``peer``)
    {"client_ip": "203.0.113.9", "peer": "192.0.2.25", "listener": "inside"},
    {"client_ip": "198.51.100.8", "listener": ""},  # an entry of an earlier version
]


@pytest.fixture
def story(tmp_path: Path) -> Path:
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            for n, session in enumerate(SESSIONS):
                await home.intake()(
                    home.transaction("x@example.org", session=session, Message_ID=f"<{n}@x>"), FakePassage()
                )

    asyncio.run(work())
    return tmp_path


def refused(folder: Path, listen: str) -> list[str]:
    config = folder / "smtpguard.yaml"
    config.write_text(f"{listen}\n" + config.read_text())
    return [finding.text for finding in asyncio.run(refused_clients(read_settings(config), MONDAY))]


def test_clients_that_would_be_refused_are_named(story: Path) -> None:
    listen = "listen: {smtp: [{address: 192.0.2.5, port: 25, name: inside, clients: [192.0.2.0/24]}]}"
    assert refused(story, listen) == [
        "198.51.100.7 would be refused by inside: 1 message of the last 30 days",
        "198.51.100.8 would be refused by every listener: 1 message of the last 30 days",
    ]


def test_entries_without_a_listener_are_matched_to_trusted_mtas(story: Path) -> None:
    listen = "trust: [192.0.2.25]\nlisten: {smtp: [{address: 192.0.2.5, port: 25, name: inside, clients: [198.51.100.0/24]}]}"
    assert refused(story, listen) == [
        "192.0.2.1 would be refused by inside: 2 messages of the last 30 days",
        "192.0.2.25 would be refused by inside: 1 message of the last 30 days",
    ]


def test_a_store_with_an_older_schema_is_read(story: Path) -> None:
    """A store with an older schema is read too, since the check runs before an upgrade."""
    with closing(sqlite3.connect(next(story.rglob("*.db")))) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0007'")
    assert (
        len(refused(story, "listen: {smtp: [{address: 192.0.2.5, port: 25, name: inside, clients: [127.0.0.1]}]}")) == 4
    )


def test_what_is_wrong_with_a_server_is_named(postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock, and an encoding as earlier versions took it: mail with letters that it lacks is answered 451."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE in_use ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    install(tmp_path, KEY, postgresql.replace(":@", "@").replace("/postgres?", "/in_use?"))
    settings = read_settings(tmp_path / "smtpguard.yaml")
    with monkeypatch.context() as before:
        before.setattr(migrate, "encoding_problem", lambda _: "")
        migrate.migrate(settings.store.url)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 240)
    [apart] = [finding for finding in asyncio.run(store_findings(settings)) if finding.about == "clock"]
    assert re.search(r"clock of this host is 2\d\d seconds behind the database server's", apart.text)
    assert apart.well
    monkeypatch.setattr(time, "time", lambda: now() + 3660)
    texts = [finding.text for finding in asyncio.run(store_findings(settings))]
    clock = (
        "the clock of this host is 61 minutes ahead of the database server's: nothing is written until both are right"
    )
    assert clock in texts
    told = asyncio.run(status(settings))
    assert told.store is not None
    assert told.store["problem"] == clock
    assert (
        "the database: its encoding is LATIN1, which has not all letters: it must be UTF8. Stop smtpguard, and restore a "
        "dump of it into a database in UTF8"
    ) in texts


def test_a_server_that_takes_no_writes_is_named(postgresql: str, tmp_path: Path) -> None:
    """It answers all questions, as a stand-by does."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE read_only")
    install(tmp_path, KEY, postgresql.replace(":@", "@").replace("/postgres?", "/read_only?"))
    settings = read_settings(tmp_path / "smtpguard.yaml")
    migrate.migrate(settings.store.url)
    assert [finding.state for finding in asyncio.run(store_findings(settings))] == [State.FINE]
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("ALTER DATABASE read_only SET default_transaction_read_only = on")
    _, finding = asyncio.run(store_findings(settings))
    assert finding.state is State.WRONG
    assert finding.text.startswith("the database server is read-only: cannot execute")
    assert "Promote it if it is a stand-by" in finding.text


@pytest.mark.parametrize("key", ["password_file", "secret_file"])
def test_a_command_without_the_credentials_of_the_unit_does_not_call_the_store_away(key: str, tmp_path: Path) -> None:
    install(tmp_path, KEY, "postgresql://guard@127.0.0.1:9/guard")
    file, place = tmp_path / "smtpguard.yaml", "$CREDENTIALS_DIRECTORY/x"
    if key == "password_file":
        file.write_text(file.read_text().replace(':9/guard"', f':9/guard", password_file: {place}'))
    else:
        file.write_text(file.read_text().replace(f"secret_file: {tmp_path}/secret", f"secret_file: {place}"))
    settings = read_settings(file, {})
    [finding] = asyncio.run(store_findings(settings))
    assert finding.state is State.UNKNOWN
    assert "for a command set it to /run/credentials/smtpguard.service" in finding.text
    told = asyncio.run(status(settings))
    assert finding.text in told.unknown
    assert "store-away" not in [alarm.condition.name for alarm, _ in told.alarms]
