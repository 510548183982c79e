"""The console over real rooms, and a browser that keeps cookies and fills in forms."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from argon2 import PasswordHasher

from smtpguard.accounts.model import Account, Role
from smtpguard.admission.model import Explained
from smtpguard.admission.preapproval import Corrections
from smtpguard.app.console import api, sign_in
from smtpguard.app.explaining import Explainer
from smtpguard.app.services import accounts
from smtpguard.config.settings import Audit, Settings, settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.console.app import build
from smtpguard.console.people.accounts import Accounts
from smtpguard.console.people.credentials import Passwords
from smtpguard.console.people.signing import Signing
from smtpguard.console.services import ConsoleServices
from smtpguard.freezes.service import Freezes
from smtpguard.holds.questions import Questions
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session
from smtpguard.mail.message import Message
from smtpguard.mailings.matching import Matching
from smtpguard.mailings.service import Mailings
from smtpguard.policy.parse import parse
from smtpguard.reading.request import Surroundings
from smtpguard.returns.service import Returns
from tests.guard.house import DOCUMENTS, KEY, House, house

URL = "https://guard.example.com"
PASSWORD = "a password that is long"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
CLIENT = "192.0.2.7"


@dataclass
class Stage:
    home: House
    signing: Signing
    accounts: Accounts
    app: Any
    ids: Iterator[str]
    passwords: Passwords
    told: list[Event] = field(default_factory=list)
    console: ConsoleServices | None = None

    async def person(self, address: str, *roles: Role, password: str = PASSWORD) -> Account:
        return await self.accounts.add(address, roles=roles, password=password, by="root")

    def delay(self, seconds: int) -> None:
        """Set the release delay, in which an approval can be undone."""
        assert self.console is not None
        self.home.term = replace(self.home.term, release_delay_seconds=seconds)
        self.console.approvals.term = self.home.term

    def show_approvers(self) -> None:
        """As with ``audit: {approvers: true}``."""
        assert self.console is not None
        audit = Audit(approvers=True)
        told = self.console.settings.model_copy(update={"audit": audit})
        self.app.state.console = replace(self.console, settings=told)

    def browser(self, *, client: str = CLIENT, url: str = URL) -> Browser:
        transport = httpx2.ASGITransport(app=self.app, client=(client, 4000))
        return Browser(httpx2.AsyncClient(transport=transport, base_url=url, follow_redirects=False))

    async def signed_in(self, address: str, *roles: Role) -> Browser:
        await self.person(address, *roles)
        browser = self.browser()
        answer = await browser.sign_in(address)
        assert answer.status_code == 303, answer.text
        return browser

    async def events(self) -> list[Event]:
        """All committed events. The empty write waits until those of earlier writes have come."""
        await self.home.store.write(lambda batch: None)
        return self.told

    async def kinds(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of this kind."""
        return [dict(event.data) for event in await self.events() if event.kind.value == kind]


class Browser:
    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http
        self.page = ""
        self.origin = "https://" + urlsplit(str(http.base_url)).netloc

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        answer = await self.http.get(path, headers=headers)
        if "csrf" in answer.text:
            self.page = answer.text
        return answer

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]*)"', self.page)
        return found[1] if found else ""

    def hidden(self, name: str) -> str:
        found = re.search(rf'name="{name}" value="([^"]*)"', self.page)
        assert found, name
        return html.unescape(found[1])

    async def post(self, path: str, headers: Any = None, **fields: str | Sequence[str]) -> httpx2.Response:
        """The answer to a POST with what a browser sends along; given fields and headers override it."""
        data = {"csrf": self.csrf} | fields
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"} | (headers or {})
        answer = await self.http.post(path, data=data, headers={k: v for k, v in sent.items() if v})
        if 'name="csrf"' in answer.text:
            self.page = answer.text
        return answer

    async def sign_in(self, address: str, password: str = PASSWORD, code: str = "", **more: str) -> httpx2.Response:
        await self.get("/login")
        return await self.post("/login", address=address, password=password, code=code, **more)


def settings(tmp_path: Path, console: str = "{url: 'https://guard.example.com'}") -> Settings:
    text = f"console: {console}\nhold: {{approve_at: ok@guard.example.com}}\n"
    return settings_of(load_yaml(text), tmp_path, {})


async def _explained(
    home: House, message: Message, reverse_path: Address | None, recipients: Sequence[Address]
) -> Explained:
    """As app does."""
    explainer = Explainer(home.current(), home.gather, Surroundings())
    return await explainer.explain(message, reverse_path, recipients, Session())


def _answers(value: Any) -> Any:
    """An AsyncMock takes a millisecond to make."""

    async def answer(*_: object) -> Any:
        return value

    return answer


@asynccontextmanager
async def stage(
    tmp_path: Path, *, console: str = "{url: 'https://guard.example.com'}", url: str | None = None
) -> AsyncIterator[Stage]:
    """``url``: of the database, as for ``house``."""
    told: list[Event] = []
    async with house(tmp_path, url=url, committed=told.extend) as home, staged(home, tmp_path, told, console) as made:
        yield made


@asynccontextmanager
async def staged(
    home: House, folder: Path, told: list[Event], console: str = "{url: 'https://guard.example.com'}"
) -> AsyncIterator[Stage]:
    """The console of a house. ``told``: where its committed events are."""
    wanted, passwords = settings(folder, console), Passwords(CHEAP)
    numbers = (f"A{n:015d}" for n in itertools.count(1))
    service = accounts(wanted, home.store, home.clock, secret=KEY, new_id=lambda: next(numbers), passwords=passwords)
    signing, provider, door = sign_in(wanted, service, secret=KEY, port=8025)
    mailings = Mailings(home.store, home, home.clock)
    built = ConsoleServices(
        store=home.store,
        policies=home,
        reader=home.reader,
        approvals=home.approvals(),
        questions=Questions(home.store, home, home.clock, new_id=lambda: next(numbers)),
        freezes=Freezes(home.store, SteadyClock(home.clock), new_id=lambda: next(numbers), recall_seconds=0),
        mailings=mailings,
        returns=Returns(
            home.store,
            home,
            home.clock,
            home.in_force.registry.digester,
            Freezes(home.store, SteadyClock(home.clock), new_id=lambda: next(numbers), recall_seconds=0),
            key=KEY,
            new_id=lambda: next(numbers),
        ),
        accounts=service,
        signing=signing,
        provider=provider,
        explain=partial(_explained, home),
        corrections=Corrections(
            store=home.store,
            policies=home,
            gather=home.gather,
            clock=home.clock,
            new_id=lambda: next(numbers),
            term=home.term,
            notices=home.notices,
        ),
        matching=partial(Matching, mailings, home.store, home, home.folder),
        clock=home.clock,
        policy_file=_answers(None),
        alarms=_answers(()),
        take_alarm=_answers(False),
        settings=wanted,
        policy=lambda: parse(DOCUMENTS),
    )
    try:
        app = build(built, middleware=[door], routes=api(built, new_id=lambda: next(numbers)))
        yield Stage(home, signing, service, app, numbers, passwords, told, built)
    finally:
        await signing.close()
        if provider is not None:
            await provider.close()
