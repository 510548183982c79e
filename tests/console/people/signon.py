"""Single sign-on as a browser does it, with the console and a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from smtpguard.accounts.model import Account
from tests.clocks import MONDAY
from tests.console.holding import EVA
from tests.console.people.provider import CLIENT_SECRET, Provider, provider
from tests.console.stage import URL, Browser, Stage, stage


@dataclass
class SignOn:
    stage: Stage
    at: Provider

    async def begun(self, browser: Browser, then: str = "/me") -> httpx2.Response:
        return await browser.get(f"/login/sso?next={then}")

    async def consented(self, browser: Browser, then: str = "/me") -> str:
        """The address to which the provider sends the browser back after consent."""
        return self.at.consents((await self.begun(browser, then)).headers["location"])

    async def signs_on(self, browser: Browser | None = None) -> httpx2.Response:
        """The answer to the browser's return, after the whole way through the provider."""
        browser = browser or self.stage.browser()
        return await self.comes_back(browser, await self.consented(browser))

    async def comes_back(self, browser: Browser, url: str) -> httpx2.Response:
        assert url.startswith(f"{URL}/login/sso/back?")
        landed = await browser.get(url.removeprefix(URL), **{"sec-fetch-site": "cross-site"})
        assert landed.status_code == 200
        given = {name: browser.hidden(name) for name in ("code", "state", "iss", "error")}
        return await browser.post("/login/sso/back", **given)

    async def eva(self) -> Account:
        return await self.stage.accounts.get(EVA)


@asynccontextmanager
async def sign_on(tmp_path: Path) -> AsyncIterator[SignOn]:
    (tmp_path / "client.secret").write_text(CLIENT_SECRET)
    clock: list[Callable[[], Any]] = [lambda: MONDAY]
    async with provider(lambda: clock[0]()) as at:
        oidc = (
            f"{{issuer: '{at.issuer}', client_id: smtpguard, client_secret_file: client.secret, title: Example ID,"
            " groups: {guards: approver, bosses: [operator, admin]}}"
        )
        async with stage(tmp_path, console=f"{{url: '{URL}', oidc: {oidc}}}") as made:
            clock[0] = made.home.clock.now
            yield SignOn(made, at)
