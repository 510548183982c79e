"""The console part: with a policy file that differs from the policy in force, and with a policy that it cannot read."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from smtpguard.accounts.model import Role
from smtpguard.app import start
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.console import Console
from smtpguard.app.files import installation_secret
from smtpguard.app.services import accounts, opened
from smtpguard.config.settings import Settings, read_settings
from smtpguard.console.people.credentials import Passwords
from smtpguard.journal.event import Event, Kind
from tests.console.stage import CHEAP, PASSWORD

EVA = "eva@example.com"
POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com]}
groups: {some: [eva@example.com]}
approvals: {from: [some]}
rules:
  - {id: many, when: {recipients.total: ">= 100"}, then: hold}
"""


@dataclass
class Browser:
    http: httpx2.AsyncClient
    page: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        answer = await self.http.get(path, headers=headers)
        self.page = answer.text
        return answer

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        csrf = re.search(r'name="csrf" value="([^"]*)"', self.page)
        assert csrf
        origin = str(self.http.base_url).rstrip("/")
        return await self.http.post(path, data={"csrf": csrf[1], **fields}, headers={"Origin": origin})


def text(answer: httpx2.Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def installed(folder: Path) -> Settings:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "smtpguard.yaml").write_text("console: {address: 127.0.0.1, port: 0}\n")
    return read_settings(folder / "smtpguard.yaml")


async def prepared(settings: Settings) -> None:
    """Put a policy in force, and make an account for Eva."""
    await start.prepare(settings, by="test", parts=("console",))
    async with opened(settings) as (store, _):
        await accounts(
            settings, store, SystemClock(), secret=installation_secret(settings), new_id=ids(),
            passwords=Passwords(CHEAP),
        ).add(EVA, roles=[Role.APPROVER, Role.OPERATOR, Role.VIEWER], password=PASSWORD, by="test")  # fmt: skip


@asynccontextmanager
async def console(settings: Settings) -> AsyncIterator[Browser]:
    """A browser with Eva signed in."""
    part = Console(settings)
    await part.start()
    serving = asyncio.create_task(part.serve())  # keeps the gate fresh, however long a request takes
    try:
        port = part._server.listener.getsockname()[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
            browser = Browser(http)
            await browser.get("/login")
            assert (await browser.post("/login", address=EVA, password=PASSWORD)).status_code == 303
            yield browser
    finally:
        await part.stop(1)
        serving.cancel()
        await asyncio.wait({serving})
        await part.close()


async def test_the_policy_page_shows_that_the_file_differs(tmp_path: Path) -> None:
    settings = installed(tmp_path)
    await prepared(settings)
    async with console(settings) as eva:
        assert (await eva.get("/readyz")).text == "ok\n"
        assert (await eva.get("/healthz")).status_code == 200
        assert "is not what is in force" not in text(await eva.get("/policy"))
        settings.policy.write_text(POLICY.replace(">= 100", ">= 200"))
        said = f"{settings.policy}, is not what is in force. What differs: policy.yaml. smtpguard reload would put it in force."
        assert said in text(await eva.get("/policy"))
        swedish = text(await eva.get("/policy", **{"Accept-Language": "sv"}))
        assert f"{settings.policy}, är inte det som gäller. Det som skiljer: policy.yaml." in swedish
        settings.policy.write_text(POLICY.replace("then: hold", "then: hodl"))
        assert "and cannot be put in force: " in text(await eva.get("/policy"))
        settings.policy.write_text(POLICY)
        assert "is not what is in force" not in text(await eva.get("/policy"))


async def test_with_an_unreadable_policy_decisions_answer_503(tmp_path: Path) -> None:
    """Pages of decisions answer 503 and say why; signing in, the own account and freezing work."""
    settings = installed(tmp_path)
    await prepared(settings)
    async with opened(settings) as (store, _):
        event = Event(kind=Kind.POLICY, id="P", at=SystemClock().now(), data={"sha256": "f" * 64})
        await store.policies.put("f" * 64, {"policy.yaml": b"version: 99\n"}, event)
    async with console(settings) as eva:
        ready = await eva.get("/readyz")
        assert (ready.status_code, "policy" in ready.text) == (503, True)
        for path in ("/", "/held", "/mailings", "/policy", "/history"):
            answer = await eva.get(path)
            assert answer.status_code == 503, path
            assert "This version of the guard cannot read the policy in force." in text(answer), path
        assert "kan inte läsa reglerna som gäller" in text(await eva.get("/held", **{"Accept-Language": "sv"}))
        assert (await eva.get("/no/such/page")).status_code == 404
        assert (await eva.get("/me")).status_code == 200
        assert (await eva.get("/still")).status_code == 200
        frozen = await eva.post("/freeze", selector="all", reason="Wrong policy", hours="1")
        assert "Wrong policy" in text(frozen)
        assert frozen.status_code == 200
        wrong = await eva.get("/still")
        assert wrong.status_code == 200
        refused = await eva.post("/freeze", selector="sender", sender="no address", reason="x", hours="1")
        assert (refused.status_code, "Not an address" in text(refused)) == (422, True)
    async with opened(settings) as (store, _):
        assert [freeze.reason for freeze in (await store.gate.read()).freezes] == ["Wrong policy"]
