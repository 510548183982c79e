"""Connect to the relays of the settings, for every part that speaks to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from smtpguard.app import certificates
from smtpguard.app.clock import host_name
from smtpguard.app.files import CannotStart
from smtpguard.config.fields import read_secret
from smtpguard.config.settings import AnyRelay, Settings
from smtpguard.database.errors import StoreError
from smtpguard.mail.address import Address
from smtpguard.processes.numbers import ProcessNumbers, of_relay
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import Allowance, RelayPool, Routing
from smtpguard.wire.target import Reachability, RelayTarget, Tls


def try_relay(settings: Settings, parts: Iterable[str]) -> None:
    """Check once, before they start, what these parts need to speak to the relay. Raises CannotStart and Broken."""
    if not {"proxy", "delivery"}.isdisjoint(parts):
        Relays(settings)


ListAt = Callable[[Address], str]
"""Returns the list that has this address, "" for none. Raises StoreError if no policy is known."""


class Relays:
    """The connections of one process to all relays of the settings; for use in one event loop. ``pools``: by route, ""
    for the default relay."""

    def __init__(self, settings: Settings, allowances: Sequence[Allowance] = ()) -> None:
        """``allowances``: the shares of each relay's limit for the whole process tree; empty: the limits are this
        process's own. Raises CannotStart if a file of their TLS cannot be read, and Broken for a password's."""
        self._settings = settings
        shared = iter(allowances)
        try:
            self.pools: Mapping[str, RelayPool] = {
                name: RelayPool(_with_files(target), next(shared, None)) for name, target in targets(settings).items()
            }
        except OSError as e:
            raise _unreadable(e) from None

    async def close(self) -> None:
        for pool in self.pools.values():
            await pool.close()

    def routing(self, listener: str, list_at: ListAt) -> Routing:
        """Return the choice of a relay for the mail of a listener."""
        first = self.pools[self._settings.route(listener)]
        routes = [route for route in self._settings.routes if not route.listeners or listener in route.listeners]
        if not any(route.lists or route.domains for route in routes):
            return Routing(first)

        def choose(address: Address) -> RelayPool | None:
            try:
                return self.to(listener, address, list_at)
            except StoreError:
                return None

        others = [self.pools[name] for name in (*(route.name for route in routes), "")]
        return Routing(first, [pool for pool in others if pool is not first], choose)

    def to(self, listener: str, address: Address, list_at: ListAt) -> RelayPool:
        """Return the relay of a recipient. ``listener``: "" for the guard's own mail."""
        routes = self._settings.routes
        if not routes:
            return self.pools[""]
        of_list = list_at(address) if any(route.lists for route in routes) else ""
        return self.pools[self._settings.route(listener, of_list, address.ascii_domain)]

    def logins(self) -> Mapping[RelayPool, Logins]:
        """Return what checks the logins of mail clients, by relay. Raises CannotStart."""
        guesses = Guesses(time.monotonic)
        checked = {self.pools[self._settings.route(each.called)] for each in self._settings.listen.smtp if each.auth}
        try:
            return {pool: Logins(pool, guesses) for pool in checked}
        except OSError as e:
            raise _unreadable(e) from None

    def watch(self, renewals: certificates.Renewals, logins: Mapping[RelayPool, Logins]) -> None:
        """Watch the certificates that are shown to the relays, by us and for clients that log in there."""
        for (route, relay), pool in zip(self._settings.relays.items(), self.pools.values(), strict=True):
            also = logins[pool].context if pool in logins else None
            renewals.watch(certificates.of_relay(relay, route), pool.context, also)

    def said(self) -> ProcessNumbers:
        """Return what this process reports on each relay: connections, waiters for one, and whether it answered last."""
        counts, levels = dict[str, int](), dict[str, int]()
        for name, pool in self.pools.items():
            idle = pool.idle
            counts[of_relay("waits", name)] = pool.waits
            counts[of_relay("wait ms", name)] = int(pool.wait_seconds * 1000)
            levels[of_relay("idle", name)] = idle
            levels[of_relay("in use", name)] = pool.size - idle
            levels[of_relay("waiting", name)] = pool.waiting
        return ProcessNumbers(
            counts=counts, levels=levels, found=last_answers({n: p.target for n, p in self.pools.items()})
        )


def last_answers(asked: Mapping[str, RelayTarget]) -> Mapping[str, tuple[float, int]]:
    """Return for each relay when this process tried it last, by the monotonic clock, and 1 if it answered, else 0."""
    heard = {name: target.reachability.found for name, target in asked.items() if target.reachability is not None}
    return {of_relay("", name): (each[0], int(each[1])) for name, each in heard.items() if each is not None}


def _with_files(target: RelayTarget) -> RelayTarget:
    if target.ca_file is not None:
        certificates.try_authorities(target.ca_file)
    for path in filter(None, (target.client_certificate, target.client_key)):
        certificates.octets(path)
    for host in target.fallbacks:
        _with_files(host)
    return target


def _unreadable(error: OSError) -> CannotStart:
    named = getattr(error, "filename", None) or "relay: its TLS files"
    return CannotStart(f"{named}: {error.strerror or error}")


def targets(settings: Settings) -> Mapping[str, RelayTarget]:
    """Return the targets of all relays, by route, "" for the default relay. Raises Broken for a password's file."""
    return {name: relay_target(settings, name) for name in settings.relays}


def relay_target(settings: Settings, route: str = "") -> RelayTarget:
    """Return the target of a route's relay, "" for the default relay. Raises Broken for its password's file."""
    relay = settings.relays[route]
    kept = settings.state / (f"relay-{route}.json" if route else "relay.json")
    return replace(
        target_of(relay, settings),
        client_certificate=relay.client_certificate,
        client_key=relay.client_key,
        clients_without_tls=relay.clients_without_tls,
        connections=relay.connections,
        messages_per_connection=relay.messages_per_connection,
        idle_seconds=relay.idle_seconds,
        wait_seconds=relay.wait_seconds,
        client_share=relay.client_share,
        chunking=relay.chunking,
        reachability=Reachability(f"{relay.host} port {relay.port}", kept=kept),
        fallbacks=tuple(
            replace(target_of(each, settings), clients_without_tls=relay.clients_without_tls)
            for each in relay.fallbacks
        ),
    )


def target_of(relay: AnyRelay, settings: Settings) -> RelayTarget:
    """Return a target with what all relays of the settings have. Raises Broken for its password's file."""
    return RelayTarget(
        host=relay.host,
        port=relay.port,
        tls=Tls(relay.tls),
        server_name=relay.server_name,
        ca_file=relay.ca_file,
        user=relay.auth.user if relay.auth else None,
        password=read_secret(relay.auth.password_file) if relay.auth else None,
        helo=settings.hostname or host_name(),
    )
