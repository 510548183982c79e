"""Build the console's accounts, sign-in and API on the shared store."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from smtpguard.app.files import CannotStart
from smtpguard.app.services import accounts, second_factor_for
from smtpguard.config.problem import Broken
from smtpguard.config.secret import read_secret
from smtpguard.config.settings import Settings
from smtpguard.config.web import Console
from smtpguard.console.api.entry import Services as ApiServices
from smtpguard.console.api.routes import routes
from smtpguard.console.api.tokens import Tokens
from smtpguard.console.people.absences import Absent
from smtpguard.console.people.administering import Administering
from smtpguard.console.people.credentials import Factors, Passwords
from smtpguard.console.people.middleware import ConsoleMiddleware, Sessions, Site
from smtpguard.console.people.pages import Pages
from smtpguard.console.people.signing import RateLimit, Signing
from smtpguard.console.services import ConsoleServices
from smtpguard.database.errors import StoreError
from smtpguard.guard.ports import Clock
from smtpguard.holds.links import Links
from smtpguard.store.store import Store

if TYPE_CHECKING:
    from smtpguard.console.people.oidc import Provider

log = logging.getLogger(__name__)

OWN_TRIES, OWN_SECONDS = 8, 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What the console's application needs."""

    middleware: tuple[Middleware, ...]
    routes: tuple[BaseRoute, ...]
    sessions: Sessions
    provider: Provider | None

    async def close(self) -> None:
        try:
            await self.sessions.write()
        except StoreError as error:
            log.warning("sessions: the store does not answer: %s", type(error).__name__)
        if self.provider is not None:
            await self.provider.close()


def front(
    settings: Settings,
    console: Console,
    store: Store,
    clock: Clock,
    *,
    secret: bytes,
    new_id: Callable[[], str],
    port: int,
    passwords: Passwords | None = None,
) -> Front:
    """``port``: where the console listens. Raises CannotStart if a secret cannot be read."""
    place = where(console, port)
    people, passwords, factors = store.people, passwords or Passwords(), Factors(secret)
    sessions = Sessions(people, clock, console.session)
    provider = _provider(console, place, clock, secret)
    theirs = accounts(settings, store, clock, secret=secret, new_id=new_id, passwords=passwords)
    signing = Signing(
        people,
        sessions,
        clock,
        passwords=passwords,
        factors=factors,
        secret=secret,
        new_id=new_id,
        delimiters=settings.delimiters,
    )
    pages = Pages(
        accounts=theirs,
        signing=signing,
        factors=factors,
        place=place,
        provider=provider,
        own=RateLimit(clock, most=OWN_TRIES, seconds=OWN_SECONDS),
        required=second_factor_for(settings),
    )
    door = Middleware(
        ConsoleMiddleware,
        place=place,
        sessions=sessions,
        links=Links(secret),
        clock=clock,
        secret=secret,
        required=second_factor_for(settings),
    )
    return Front(
        middleware=(door,),
        routes=(
            *pages.routes(),
            *Administering(theirs, sso=provider is not None).routes(),
            *Absent(people, clock, delimiters=settings.delimiters).routes(),
        ),
        sessions=sessions,
        provider=provider,
    )


def api(settings: Settings, console: ConsoleServices, store: Store, *, new_id: Callable[[], str]) -> list[BaseRoute]:
    tokens = Tokens(
        store.people,
        console.clock,
        new_id=new_id,
        delimiters=settings.delimiters,
        required=second_factor_for(settings),
    )
    return routes(ApiServices(console=console, tokens=tokens, verify=lambda: store.journal.audit(socket.gethostname())))


def where(console: Console, port: int) -> Site:
    """The console's address for browsers. Without a url in the settings: its listening address, and on this machine its
    names."""
    if console.url:
        return Site(url=console.url.rstrip("/"), proxies=console.proxies)
    scheme = "https" if console.tls is not None else "http"
    hosts = frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]"))
    shown = f"[{console.address}]" if ":" in console.address else console.address
    return Site(url=f"{scheme}://{shown}:{port}", hosts=hosts, proxies=console.proxies)


def _provider(console: Console, place: Site, clock: Clock, secret: bytes) -> Provider | None:
    wanted = console.oidc
    if wanted is None:
        return None
    from smtpguard.console.people.oidc import Provider  # what checks tokens takes 12 MB

    try:
        theirs = read_secret(wanted.client_secret_file).get_secret_value() if wanted.client_secret_file else ""
    except Broken as e:
        raise CannotStart(str(e)) from None
    return Provider(wanted, clock, client_secret=theirs, secret=secret, back=f"{place.url}/login/sso/back")
