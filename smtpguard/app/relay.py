"""The relay of the settings, for every part that speaks to it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from smtpguard.app.certificates import readable
from smtpguard.app.clock import host_name
from smtpguard.app.files import CannotStart
from smtpguard.config.secret import read_secret
from smtpguard.config.settings import AnyRelay, Settings
from smtpguard.processes.numbers import Said
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import Allowance, RelayPool
from smtpguard.wire.reachability import Reachability
from smtpguard.wire.target import RelayTarget, Tls


def try_relay(settings: Settings, parts: Iterable[str]) -> None:
    """Check that these parts have what they need to speak to the relay, once before they start. Raises CannotStart and
    Broken."""
    if not {"proxy", "delivery"}.isdisjoint(parts):
        relay_pool(settings)


def relay_pool(settings: Settings, allowance: Allowance | None = None) -> RelayPool:
    """For use in one event loop. ``allowance``: the share of a limit for the whole process tree; None: the limit is
    this process's own. Raises CannotStart if a file of its TLS cannot be read, and Broken for its password's."""
    try:
        return RelayPool(_with_files(relay_target(settings)), allowance)
    except (OSError, ssl.SSLError) as e:
        raise _unreadable(e) from None


def relay_logins(settings: Settings, pool: RelayPool) -> Logins | None:
    """Logins of mail clients, checked at the pool's relay, if any listener allows them. Raises CannotStart."""
    if not any(each.auth for each in settings.listen.smtp):
        return None
    try:
        return Logins(pool, Guesses(time.monotonic))
    except (OSError, ssl.SSLError) as e:
        raise _unreadable(e) from None


def found(heard: Reachability | None) -> Mapping[str, tuple[float, int]]:
    """What this process reports on the relay (processes.numbers): whether it answered last, and when."""
    return {"relay": (heard.found[0], int(heard.found[1]))} if heard is not None and heard.found is not None else {}


def said_of(pool: RelayPool) -> Said:
    """The same, with its connections and the waiters for one."""
    idle, waits = pool.idle, pool.waits
    return Said(
        counts={"relay waits": waits.times, "relay wait ms": int(waits.seconds * 1000)},
        levels={"relay idle": idle, "relay in use": pool.size - idle, "relay waiting": pool.waiting},
        found=found(pool.target.reachability),
    )


def _with_files(target: RelayTarget) -> RelayTarget:
    readable(target.ca_file, target.client_certificate, target.client_key)
    for host in target.fallbacks:
        _with_files(host)
    return target


def _unreadable(e: OSError) -> CannotStart:
    named = getattr(e, "filename", None) or "relay: its TLS files"
    return CannotStart(f"{named}: {e.strerror or e}")


def relay_target(settings: Settings) -> RelayTarget:
    """For the guarded relay. Raises Broken for a password's file."""
    relay = settings.relay
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
        reachability=Reachability(f"{relay.host} port {relay.port}", kept=settings.state / "relay.json"),
        fallbacks=tuple(
            replace(target_of(each, settings), clients_without_tls=relay.clients_without_tls)
            for each in relay.fallbacks
        ),
    )


def target_of(relay: AnyRelay, settings: Settings) -> RelayTarget:
    """What all relays of the settings have. Raises Broken for its password's file."""
    return RelayTarget(
        host=relay.host,
        port=relay.port,
        tls=Tls(relay.tls),
        server_name=relay.server_name,
        ca_file=relay.ca_file,
        user=relay.auth.user if relay.auth else None,
        password=read_secret(relay.auth.password_file).get_secret_value() if relay.auth else None,
        helo=settings.hostname or host_name(),
    )
