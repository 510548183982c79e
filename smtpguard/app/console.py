"""The console part: the web server for approvers, on the store that the other parts write.

It needs no mail credentials and opens no connection to the relay.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount

from smtpguard.admission.model import Explained
from smtpguard.app import mentions
from smtpguard.app.alarmchannels import active_alarms, take_alarm
from smtpguard.app.certificates import RENEWAL_SECONDS, Renewals, of_console, server_context
from smtpguard.app.clock import every, ids
from smtpguard.app.eventlog import EventLog
from smtpguard.app.explaining import Explainer, gathering, session_at
from smtpguard.app.files import CannotStart, installation_secret
from smtpguard.app.lists import on_list
from smtpguard.app.policies import Following
from smtpguard.app.services import accounts, corrections_of, second_factor_for, services
from smtpguard.app.webserver import Health, Server, configure
from smtpguard.config.documents import PolicyFile
from smtpguard.config.fields import read_secret
from smtpguard.config.listeners import place
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.config.web import Console as Wished
from smtpguard.console.api.entry import Api
from smtpguard.console.api.operation import ApiServices
from smtpguard.console.api.tokens import Tokens
from smtpguard.console.app import OPERATIONS, build
from smtpguard.console.people.accounts import Accounts
from smtpguard.console.people.middleware import ConsoleMiddleware, Site
from smtpguard.console.people.sessions import WRITE_SECONDS, Sessions
from smtpguard.console.people.signing import Signing
from smtpguard.console.services import ConsoleServices
from smtpguard.database.errors import StoreError
from smtpguard.freezes.gatewatch import STALE_SECONDS, GateWatch
from smtpguard.gathering.gather import Gather
from smtpguard.holds.questions import Questions
from smtpguard.journal.clock import Clock
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session
from smtpguard.mail.message import Message
from smtpguard.notices.links import Links
from smtpguard.processes.listeners import CannotListen, Wanted, open_all
from smtpguard.processes.numbers import ProcessNumbers
from smtpguard.processes.part import Part

if TYPE_CHECKING:
    from smtpguard.console.people.oidc import Provider

log = logging.getLogger(__name__)


class Console(Part):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._renewals = Renewals()

    async def start(self) -> None:
        wanted = self._settings.console
        if wanted is None:
            raise CannotStart("not in the settings; an address and a port are needed")
        try:
            listener = open_all([Wanted(address=wanted.address, port=wanted.port)])[0].socket
        except CannotListen as e:
            raise CannotStart(str(e), passing=e.passing) from None
        self._undo.callback(listener.close)
        application = await self._application(listener.getsockname()[1])
        tls = server_context(wanted.tls) if wanted.tls is not None else None
        self._renewals.watch(of_console(self._settings), tls)
        self._server = Server(configure(application), listener, proxies=wanted.proxies, tls=tls)
        while not self._server.started and not self._server.serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        if self._server.serving.done():
            self._server.serving.result()
            raise CannotStart("the web server ended at once")

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run())
            tasks.create_task(every(WRITE_SECONDS, "sessions", self._signing.sessions.write))
            tasks.create_task(every(RENEWAL_SECONDS, "certificates", self._renewals.look))
            await self._server.serving

    def said(self) -> ProcessNumbers:
        return ProcessNumbers(counts=self._renewals.counts)

    async def stop(self, grace_seconds: float) -> None:
        await self._server.end(grace_seconds)

    async def _application(self, port: int) -> Health:
        settings, serving = self._settings, services(self._settings, committed=EventLog(), serving=True)
        has = await self._undo.enter_async_context(serving)
        store, policies, digester, clock = has.store, has.policies, has.digester, has.clock
        self._watch = await policies.watch()
        secret = installation_secret(settings)
        people = accounts(settings, store, clock, secret=secret, new_id=ids())
        self._signing, provider, door = sign_in(settings, people, secret=secret, port=port)
        if provider is not None:
            self._undo.push_async_callback(provider.close)
        self._undo.push_async_callback(self._signing.close)
        gather = gathering(settings, policies.around, self._undo)
        console = ConsoleServices(
            store=store,
            on_list=on_list(settings, digester),
            policies=policies,
            reader=gather.reader,
            approvals=has.approvals,
            questions=Questions(store, policies, clock, new_id=ids()),
            freezes=has.freezes,
            mailings=has.mailings,
            returns=has.returns(),
            accounts=people,
            signing=self._signing,
            provider=provider,
            explain=partial(_explained, policies, gather, session_at(settings, None, "127.0.0.1")),
            corrections=corrections_of(settings, store, policies, gather, clock),
            matching=has.matching,
            clock=clock,
            settings=settings,
            policy_file=partial(_other_file, policies),
            policy=lambda: policies.policy,
            alarms=partial(active_alarms, settings, store),
            take_alarm=lambda key, by: take_alarm(settings, store, key, by=by, at=clock.now()),
        )
        programs = (*api(console, new_id=ids()), *mentions.routes(settings, store.returns.mention, clock))
        pages = build(console, middleware=[door], routes=programs)
        return Health(pages, partial(_ready, self._watch, policies))


async def _other_file(policies: Following) -> PolicyFile | None:
    found = await policies.look()
    return found.file if found is not None and found.file.differs else None


def _ready(watch: GateWatch, policies: Following) -> Mapping[str, str]:
    """Return the health checks of what approvers need (webserver.Checks)."""
    try:
        policies.current()
        policy = ""
    except StoreError:
        policy = "none is in force that can be read"
    return {"store": "" if watch.age_seconds < STALE_SECONDS else "does not answer", "policy": policy}


async def _explained(
    policies: Following,
    gather: Gather,
    session: Session,
    message: Message,
    reverse_path: Address | None,
    recipients: Sequence[Address],
) -> Explained:
    """Explain a message with the policy and the lists in use."""
    _, around = policies.around()
    return await Explainer(policies.current(), gather, around).explain(message, reverse_path, recipients, session)


def sign_in(
    settings: Settings, accounts: Accounts, *, secret: bytes, port: int
) -> tuple[Signing, Provider | None, Middleware]:
    """Return the console's sign-in, the provider of single sign-on, and what every request passes. ``port``: where the console
    listens. Raises CannotStart if a secret cannot be read."""
    console, clock = settings.console, accounts.clock
    assert console is not None
    site, required = where(console, port), second_factor_for(settings)
    sessions = Sessions(accounts.people, clock, console.session)
    provider = _provider(console, site, clock, secret)
    door = Middleware(
        ConsoleMiddleware,
        site=site,
        sessions=sessions,
        links=Links(secret),
        clock=clock,
        secret=secret,
        required=required,
    )
    return Signing(accounts, sessions, secret=secret, required=required), provider, door


def api(console: ConsoleServices, *, new_id: Callable[[], str]) -> list[BaseRoute]:
    store, settings = console.store, console.settings
    tokens = Tokens(
        store.people,
        console.clock,
        new_id=new_id,
        delimiters=settings.delimiters,
        required=console.signing.required,
    )
    services = ApiServices(console=console, tokens=tokens, verify=lambda: store.journal.audit(socket.gethostname()))
    return [Mount("/api/v1", Api(OPERATIONS, services).application())]


def where(console: Wished, port: int) -> Site:
    """Return the console's address for browsers. Without a url in the settings it is the listening address, and on this machine
    its names."""
    if console.url:
        return Site(url=console.url.rstrip("/"), proxies=console.proxies)
    scheme = "https" if console.tls is not None else "http"
    hosts = frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]"))
    return Site(url=f"{scheme}://{place(console.address, port)}", hosts=hosts, proxies=console.proxies)


def _provider(console: Wished, site: Site, clock: Clock, secret: bytes) -> Provider | None:
    wanted = console.oidc
    if wanted is None:
        return None
    from smtpguard.console.people.oidc import Provider  # what checks tokens takes 12 MB

    try:
        theirs = read_secret(wanted.client_secret_file) if wanted.client_secret_file else ""
    except Broken as e:
        raise CannotStart(str(e)) from None
    return Provider(wanted, clock, client_secret=theirs, secret=secret, back=f"{site.url}/login/sso/back")
