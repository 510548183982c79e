"""The metrics part over real HTTP, on both engines: its answers, and that nothing stops it from answering."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from smtpguard import __version__
from smtpguard.app import metrics, start
from smtpguard.app.files import CannotStart
from smtpguard.app.metrics import EACH, Metrics, Watching
from smtpguard.config.documents import shipped
from smtpguard.config.settings import Settings, read_settings
from smtpguard.database.engine import Database
from tests.peers.postfix import free_port
from tests.store.making import on_sqlite
from tests.store.servers import new_database

PATIENCE = 120.0
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return (
        "sqlite:///var/smtpguard.db"
        if request.param == "sqlite"
        else new_database(request.getfixturevalue("postgresql"))
    )


def configured(folder: Path, url: str = "sqlite:///var/smtpguard.db") -> Settings:
    config = Path(shutil.copytree(shipped(), folder / "etc")) / "smtpguard.yaml"
    text = config.read_text().replace("sqlite:///var/smtpguard.db", url.replace(":@", "@"))
    config.write_text(text + f"\nmetrics: {{port: {free_port()}}}\n")
    return read_settings(config)


@pytest.fixture
async def settings(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a prepared installation, with a short interval between looks."""
    monkeypatch.setattr(metrics, "LOOK_SECONDS", 0.02)
    made = configured(tmp_path, url)
    await start.prepare(made, by="root", parts=("proxy",))
    return made


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Metrics]:
    part = Metrics(settings)
    await part.start()
    running = asyncio.create_task(part.serve())
    try:
        yield part
    finally:
        await part.stop(5)
        running.cancel()
        await asyncio.wait({running})
        await part.close()
        assert running.cancelled() or running.exception() is None


async def ask(settings: Settings, said: bytes = GET, source: str = "127.0.0.1") -> tuple[str, dict[str, str], str]:
    """Status line, headers and body of the answer to a request, after which the server closes."""
    assert settings.metrics is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.metrics.port, local_addr=(source, 0))
    writer.write(said)
    head, _, body = (await asyncio.wait_for(reader.read(), PATIENCE)).decode().partition("\r\n\r\n")
    writer.close()
    status, *fields = head.split("\r\n")
    return status, dict(field.split(": ", 1) for field in fields), body


async def scraped(settings: Settings, name: str, **labels: str) -> float | None:
    _, _, body = await ask(settings)
    for family in parsed(body):
        for sample in family.samples:
            if sample.name == f"smtpguard_{name}" and sample.labels == labels:
                return sample.value
    return None


async def until(settings: Settings, number: float, name: str, **labels: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await scraped(settings, name, **labels) != number:  # noqa: ASYNC110 - it is asked as Prometheus would
            await asyncio.sleep(0.02)


async def test_events_appear_in_the_metrics(settings: Settings) -> None:
    async with serving(settings):
        await until(settings, 1, "store_up")
        assert await scraped(settings, "holds_waiting") == 0
        await start.record_stop(settings, by="root", status=0)
        await until(settings, 1, "events_total", kind="stop")
        status, headers, _ = await ask(settings)
        assert status == "HTTP/1.1 200 OK"
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert headers["connection"] == "close"
        openmetrics = GET.replace(b"\r\n\r\n", b"\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n")
        _, headers, body = await ask(settings, openmetrics)
        assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert body.endswith("# EOF\n")


async def test_the_database_fails_and_recovers(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "smtpguard")
    database = Database(settings.store.url)

    def said() -> list[str]:
        return [record.message for record in caplog.records if record.name == "smtpguard.app.metrics"]

    try:
        async with serving(settings):
            await until(settings, 1, "store_up")
            with database.write() as connection:
                connection.exec_driver_sql("ALTER TABLE head RENAME TO away")
            await until(settings, 0, "store_up")
            assert await scraped(settings, "holds_waiting") == 0, "known values are still reported"
            assert await scraped(settings, "store_looked_seconds") != 0
            with database.write() as connection:
                connection.exec_driver_sql("ALTER TABLE away RENAME TO head")
            await until(settings, 1, "store_up")
            while len(said()) < 2:  # noqa: ASYNC110 - no event reports the end of a look
                await asyncio.sleep(0.01)
    finally:
        database.close()
    assert len(said()) == 2, "once, and not at every look"
    assert said()[0].startswith("metrics: reading the store: the database: ")
    assert said()[1].startswith("metrics: reading the store: over, after ")


async def test_it_starts_without_a_secret_and_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret and a database it answers at once, and looks once they exist."""
    monkeypatch.setattr(metrics, "LOOK_SECONDS", 0.02)
    settings = configured(tmp_path)
    async with serving(settings):
        assert await scraped(settings, "store_up") == 0
        assert await scraped(settings, "build_info", version=__version__) == 1
        await start.prepare(settings, by="root", parts=("proxy",))
        await until(settings, 1, "store_up")


async def test_an_unreachable_database_server_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        settings = configured(tmp_path, f"postgresql://guard@127.0.0.1:{taken.getsockname()[1]}/guard")
        settings.state.mkdir()
        settings.secret_file.write_bytes(b"a secret of thirty-two bytes, ok")
        settings.secret_file.chmod(0o600)
        async with serving(settings):
            assert await scraped(settings, "store_up") == 0


async def test_scrapes_are_answered_while_a_look_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrapes are answered while a look hangs, and start no look."""
    looks = 0

    async def hang(*_: object) -> None:
        nonlocal looks
        looks += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(Watching, "look", hang)
    settings = configured(tmp_path)
    await start.prepare(settings, by="root", parts=("proxy",))
    async with serving(settings):
        answers = await asyncio.gather(*(ask(settings) for _ in range(EACH)))
        assert {status for status, _, _ in answers} == {"HTTP/1.1 200 OK"}
        assert await scraped(settings, "store_up") == 0
    assert looks <= 1


async def test_an_internal_error_is_logged_once_and_stops_no_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = asyncio.Event()
    looks = 0

    async def fault(*_: object) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            looked.set()
        raise ZeroDivisionError

    monkeypatch.setattr(metrics, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(Watching, "look", fault)
    settings = configured(tmp_path)
    await start.prepare(settings, by="root", parts=("proxy",))
    async with serving(settings):
        await asyncio.wait_for(looked.wait(), PATIENCE)
        assert (await ask(settings))[0] == "HTTP/1.1 200 OK"
    assert [r.message for r in caplog.records if r.name == "smtpguard.app.metrics"] == [
        "metrics: reading the store: ZeroDivisionError"
    ]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404 Not Found"),
        (b"GET /metrics/more HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404 Not Found"),
        (
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "405 Method Not Allowed",
        ),
        (b"nonsense\r\n\r\n", "400 Bad Request"),
    ],
)
async def test_other_paths_and_methods_are_refused(tmp_path: Path, said: bytes, status: str) -> None:
    settings = configured(tmp_path)
    async with serving(settings):
        assert (await ask(settings, said))[0] == f"HTTP/1.1 {status}"


async def test_one_address_with_all_its_connections_blocks_no_other(tmp_path: Path) -> None:
    settings = configured(tmp_path)
    assert settings.metrics is not None
    async with serving(settings):
        idle = [await asyncio.open_connection("127.0.0.1", settings.metrics.port) for _ in range(EACH + 2)]
        gone = [await _closed(reader) for reader, _ in idle[EACH:]]
        assert gone == [True, True]
        assert (await ask(settings, source="127.0.0.2"))[0] == "HTTP/1.1 200 OK"
        for _, writer in idle:
            writer.close()


async def _closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), PATIENCE) == b""
    except ConnectionError:
        return True


async def test_a_port_in_use_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "smtpguard")
    monkeypatch.setattr(metrics, "PORT_SECONDS", 0.01)
    settings = configured(tmp_path)
    assert settings.metrics is not None
    port = settings.metrics.port
    tried = 0
    listen: Callable[[Metrics], bool] = Metrics._listen

    def noted(part: Metrics) -> bool:
        nonlocal tried
        tried += 1
        return listen(part)

    monkeypatch.setattr(Metrics, "_listen", noted)
    taken = socket.create_server(("127.0.0.1", port))
    async with serving(settings):
        async with asyncio.timeout(PATIENCE):
            while tried < 4:  # noqa: ASYNC110 - it is another task that tries
                await asyncio.sleep(0.01)
        taken.close()
        async with asyncio.timeout(PATIENCE):
            while (await _asked(settings)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    told = [r.message for r in caplog.records if "no metrics" in r.message]
    assert told[0] == f"no metrics: cannot listen on 127.0.0.1:{port}: the port is in use"
    assert len(told) == 2
    assert told[1].startswith("no metrics: over, after ")


async def _asked(settings: Settings) -> str | None:
    try:
        return (await ask(settings))[0]
    except ConnectionError:
        return None


def test_without_an_address_it_cannot_start() -> None:
    with pytest.raises(CannotStart, match="not in the settings"):
        Metrics(Settings())


def get(path: str, accept: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{f'Accept: {accept}' if accept else 'X: y'}\r\n\r\n".encode()


@on_sqlite
async def test_liveness_and_readiness(settings: Settings) -> None:
    """It is ready once the store was read, and not while the relay does not answer. It is alive all the time."""
    async with serving(settings) as part:

        async def ready() -> str:
            return (await ask(settings, get("/readyz")))[0]

        while "200" not in await ready():  # noqa: ASYNC110 - no event reports a look
            await asyncio.sleep(0.05)
        assert (await ask(settings, get("/readyz")))[2] == "ok\n"
        part.told({"found": {"relay": [1.0, 0]}, "ready": {"proxy": 0, "metrics": 1}})
        status, _, body = await ask(settings, get("/readyz"))
        assert "503" in status
        assert body == "relay: does not answer\nmail: no process takes it\n"
        status, fields, body = await ask(settings, get("/readyz", "application/json"))
        assert fields["content-type"].startswith("application/json")
        assert json.loads(body)["checks"] == {
            "store": "", "policy": "", "relay": "does not answer", "mail": "no process takes it",
        }  # fmt: skip
        assert (await ask(settings, get("/healthz")))[::2] == ("HTTP/1.1 200 OK", "ok\n")
        assert "405" in (await ask(settings, b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))[0]


async def test_without_a_store_it_is_alive_but_not_ready(tmp_path: Path) -> None:
    settings = configured(tmp_path)  # no store was ever prepared there
    async with serving(settings):
        status, _, body = await ask(settings, get("/readyz"))
        assert "503" in status
        assert body.splitlines() == ["store: does not answer", "policy: none is known to be in force"]
        assert "200" in (await ask(settings, get("/healthz")))[0]
