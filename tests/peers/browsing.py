"""The console on loopback, and a real Chromium."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from smtpguard.accounts.model import Role
from smtpguard.app.webserver import Server, configure
from smtpguard.console.people.credentials import NotPossible
from tests.console.stage import PASSWORD, Stage, stage

AXE = Path(__file__).parent / "axe" / "axe.min.js"
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONES: tuple[ViewportSize, ...] = ({"width": 390, "height": 844}, {"width": 320, "height": 700})


def missing() -> str:
    """Why no browser can run here, "" if one can."""
    return "" if chromium() else "no chromium: tests/peers/install.sh installs it"


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Site:
    """``here``: the console's parts behind the pages."""

    here: Stage
    browser: Browser
    url: str
    contexts: list[BrowserContext] = field(default_factory=list)

    async def visitor(self, *, language: str = "en-GB", **more: Any) -> Page:
        """A page in a browser with its own cookies. Errors that the browser reports on a page fail the test."""
        context = await self.browser.new_context(
            base_url=self.url, locale=language, viewport=DESKTOP, color_scheme="light", **more
        )
        context.set_default_timeout(120_000)
        self.contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", _fail)
        return page

    async def leave(self) -> None:
        """Close all pages: open ones go on asking for news."""
        for context in self.contexts:
            await context.close()
        self.contexts.clear()

    async def account(self, address: str, *roles: Role) -> None:
        """Create the account if there is none."""
        with suppress(NotPossible):
            await self.here.person(address, *roles)

    async def signed_in(self, address: str, *roles: Role, **more: Any) -> Page:
        """A page, still empty, of a person who has signed in elsewhere. Creates the account if there is none."""
        await self.account(address, *roles)
        page = await self.visitor(**more)
        other = self.here.browser(url=self.url)
        other.origin = self.url
        assert (await other.sign_in(address)).status_code == 303
        cookies = other.http.cookies.jar
        await page.context.add_cookies([{"name": c.name, "value": c.value or "", "url": self.url} for c in cookies])
        return page


async def signs_in(page: Page, address: str) -> None:
    await page.get_by_label("Address").or_(page.get_by_label("Adress")).fill(address)
    await page.locator("#password").fill(PASSWORD)
    async with page.expect_navigation():
        await page.locator("form button[type=submit]").click()


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        oidc = "{issuer: 'http://127.0.0.1:9', client_id: guard, title: Example ID, groups: {guards: approver}}"
        console = f"{{url: '{url}', oidc: {oidc}}}"  # of a provider that does not answer
        async with stage(folder, console=console) as here, async_playwright() as playwright:
            here.show_approvers()
            server = Server(configure(_with_axe(here.app)), listener)
            options = ["--disable-gpu"] + (["--no-sandbox"] if os.getuid() == 0 else [])
            browser = await playwright.chromium.launch(executable_path=chromium(), args=options)
            made = Site(here=here, browser=browser, url=url)
            try:
                yield made
            finally:
                await browser.close()
                server.should_exit = True
                await server.serving


def _with_axe(app: Any) -> Any:
    """The app, with axe-core as its script /axe.js, which the browser compiles once instead of on each page."""
    script = AXE.read_bytes()
    headers = [(b"content-type", b"text/javascript; charset=utf-8"), (b"cache-control", b"max-age=86400")]

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/axe.js":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": script})
        else:
            await app(scope, receive, send)

    return serve


AXE_RUN = """async () => {
  const serious = ['serious', 'critical'];
  const others = axe._audit.rules.filter(rule => !serious.includes(rule.impact)).map(rule => [rule.id, {enabled: false}]);
  const options = {resultTypes: ['violations'], iframes: false, preload: false, rules: Object.fromEntries(others)};
  return (await axe.run(document, options)).violations
    .map(found => [found.id, found.help, found.nodes.slice(0, 3).map(node => node.html.slice(0, 200))]);
}"""


async def violations(page: Page) -> list[Any]:
    """The page's violations of accessibility that axe-core calls serious or critical."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.add_script_tag(url="/axe.js")
    return list(await page.evaluate(AXE_RUN))


def _fail(error: Any) -> None:
    raise AssertionError(f"a script failed: {error}")
