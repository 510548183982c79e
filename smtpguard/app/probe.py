"""Check the real relays, list sources and listeners: whether they do what the guard needs, and whether mail can go around
it (app.ways).

Nothing is sent: each transaction ends before DATA.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace

from smtpguard.app.lists import built_expander, names, open_registry
from smtpguard.app.policycheck import read_source
from smtpguard.app.relay import targets
from smtpguard.app.storestatus import Finding, State
from smtpguard.app.ways import (
    SECONDS,
    SOMEBODY,
    Hosts,
    mail_hosts,
    negotiate,
    open_milters,
    open_relays,
    reachable_addresses,
    ways,
)
from smtpguard.config.listeners import MilterListener
from smtpguard.config.settings import Settings, is_host_name
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.names import Names
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import Reply
from smtpguard.policy.parse import Policy
from smtpguard.wire import sasl
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.milterpackets import ProtocolError
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts, Tls

PATIENCE = Timeouts(connect=SECONDS, greeting=SECONDS, command=SECONDS)


async def check_live(
    settings: Settings, policy: Policy, hosts: Hosts | None = None, own: Callable[[], Sequence[str]] | None = None
) -> AsyncIterator[Finding]:
    """Check everything, and yield each finding at once. ``hosts``: looks up the mail hosts of a domain; ``own``: returns the
    addresses of this machine that others can reach."""
    lists, known = policy.declared_lists, names(settings, policy)
    asked = [
        (name, settings.relays[name], replace(each, timeouts=PATIENCE, reachability=None, fallbacks=()))
        for name, relay in targets(settings).items()
        for each in (relay, *relay.fallbacks)
    ]
    logged = [settings.relay_of(each.called) for each in settings.listen.smtp if each.auth]
    domain = policy.organization.a_domain
    silent: list[RelayTarget] = []
    for route, relay, target in asked:
        listed = [
            (info, address)
            for info in lists.values()
            for address in info.addresses
            if _goes(settings, route, address, info.name)
        ]
        outside = _goes(settings, route, Address.parse(SOMEBODY))
        async for finding in _relay(target, domain, listed, relay.names, known, outside=outside):
            if (finding.about, finding.state) == ("relay", State.WRONG):
                silent.append(target)
            yield replace(finding, text=f"route {route}: {finding.text}") if route else finding
        if relay in logged and target not in silent:
            yield await _logins(target.for_clients())
    for listener in settings.listen.milter:
        yield await milter_answers(listener)
    here = (own or reachable_addresses)()
    async for finding in open_relays(settings, f"postmaster@{domain}", here):
        yield finding
    async for finding in open_milters(settings, here):
        yield finding
    for info in lists.values():
        for finding in await asyncio.to_thread(lambda each: list(_sources(each, settings, policy)), info):
            yield finding
    if policy.expansions:
        for finding in await asyncio.to_thread(lambda: list(_expansions(settings, policy))):
            yield finding
    guarded = [target for _, _, target in asked]
    async for finding in ways(settings, guarded, lists.values(), domain, silent, hosts or mail_hosts, here):
        yield finding


def _goes(settings: Settings, route: str, address: Address, of_list: str = "") -> bool:
    """Return whether mail to this address takes the route from any listener, or as our own mail. ``route``: "" for the
    default."""
    for listener in ("", *(each.called for _, _, each in settings.listen.each())):
        if settings.route(listener, of_list, address.ascii_domain) == route:
            return True
    return False


async def _relay(
    target: RelayTarget,
    domain: str,
    lists: Sequence[tuple[ListInfo, Address]],
    declared: Sequence[str],
    known: Names,
    *,
    outside: bool,
) -> AsyncIterator[Finding]:
    """Check what the guard needs of a relay. ``lists``: the list addresses whose mail goes to it; ``declared``: its names in the
    settings; ``outside``: whether mail for other domains goes to it."""
    name = f"the relay {target.host} port {target.port}"
    try:
        connection = await open_connection(target)
    except (RelayUnavailable, OSError) as e:
        why = e.why if isinstance(e, RelayUnavailable) else str(e)
        yield State.WRONG.of("relay", f"{name} cannot be used: {why}")
        return
    yield State.FINE.of("relay", f"{name} answers and offers {', '.join(connection.extensions)}")
    yield _tls(target, connection)
    if target.user is not None:
        yield State.FINE.of("auth", "the relay accepts our login")
    senders = (f"postmaster@{domain}", "ours"), (SOMEBODY, "anybody's"), ("", "the null reverse-path")
    for sender, whose in senders if outside else ():
        yield await _sender(connection, sender, whose)
    for info, address in lists:
        if not connection.usable:  # its last finding has the reason
            return
        yield await _list(connection, min(info.writers, default=f"postmaster@{domain}"), info.name, str(address))
    listed = next((str(address).rpartition("@")[0] for _, address in lists), None)
    for host in () if listed is None else dict.fromkeys((*declared, *connection.announced)):
        if not connection.usable:
            return
        if host in declared or (is_host_name(host) and not known.answers(host)):
            yield await _own_name(
                connection, f"postmaster@{domain}", f"{listed}@{host}", host, declared=host in declared
            )
    connection.quit()


async def _own_name(connection: RelayConnection, sender: str, address: str, name: str, *, declared: bool) -> Finding:
    """Check whether the relay accepts a list's local part at one of its own names: mail there may reach the list too."""
    try:
        said = await _try_rcpt(connection, sender, address)
    except Lost as e:
        return State.UNKNOWN.of("name", f"the relay ends the session at RCPT TO:<{address}>: {e}")
    if said.transient:
        text = f"not known: whether the relay takes mail to {address}: {said}"
        return State.UNKNOWN.of("name", text)
    if declared:
        state, takes = (State.FINE, "takes mail") if said.positive else (State.ODD, "takes no mail")
        return state.of("name", f"relay: names has {name}: the relay {takes} to {address}")
    if not said.positive:
        return State.FINE.of("name", f"the relay calls itself {name}, and takes no mail to {address}")
    text = f"the relay calls itself {name}, and takes mail to {address}: declare it with names: [{name}] in relay"
    return State.ODD.of("name", text)


async def _logins(target: RelayTarget) -> Finding:
    try:
        connection = await open_connection(target)
    except (RelayUnavailable, OSError) as e:
        why = e.why if isinstance(e, RelayUnavailable) else str(e)
        return State.WRONG.of("auth", f"mail clients cannot log in at the relay: {why}")
    offered = sasl.mechanisms(connection.extensions.get("AUTH", ""))
    connection.quit()
    if not offered:
        text = f"mail clients cannot log in at the relay: it offers none of {', '.join(sasl.CARRIED)}"
        return State.WRONG.of("auth", text)
    return State.FINE.of("auth", f"mail clients can log in at the relay with {', '.join(offered)}")


def _tls(target: RelayTarget, connection: RelayConnection) -> Finding:
    if connection.tls:
        verified = target.tls in (Tls.REQUIRE, Tls.IMPLICIT) or target.password is not None
        how = "verified" if verified else "not verified, since it is opportunistic"
        return State.FINE.of("tls", f"the connection to the relay is encrypted; its certificate is {how}")
    return State.FINE.of("tls", f"the connection to the relay is not encrypted, as tls: {target.tls.value} allows")


async def _sender(connection: RelayConnection, sender: str, whose: str) -> Finding:
    """Check whether a message with this reverse-path to an outside address would be accepted."""
    try:
        said = await _try_rcpt(connection, sender, SOMEBODY)
    except Lost as e:
        return State.WRONG.of("sender", f"the relay ends the session at MAIL FROM:<{sender}>: {e}")
    if said.positive:
        return State.FINE.of("sender", f"the relay takes mail from {whose} to the outside")
    return State.WRONG.of("sender", f"the relay does not take mail from {whose} to the outside: {said}")


async def _list(connection: RelayConnection, sender: str, name: str, address: str) -> Finding:
    """Check whether mail to a list address would be accepted from a writer of the list. Some servers decide only after DATA."""
    try:
        said = await _try_rcpt(connection, sender, address)
    except Lost as e:
        text = f"the relay ends the session at RCPT TO:<{address}>, of the list {name}: {e}"
        return State.WRONG.of("list", text)
    if said.positive:
        return State.FINE.of("list", f"the relay takes mail to {address}, of the list {name}")
    if said.transient:
        text = f"not known: whether the relay takes mail to {address}, of the list {name}: {said}"
        return State.UNKNOWN.of("list", text)
    text = f"the relay does not take mail to {address}, of the list {name}, from {sender}: {said}"
    return State.WRONG.of("list", text)


async def _try_rcpt(connection: RelayConnection, sender: str, recipient: str) -> Reply:
    """Send MAIL and RCPT, and reset the transaction. Returns the first refusal, or the reply to RCPT."""
    mail, rcpt = await connection.pipeline([f"MAIL FROM:<{sender}>".encode(), f"RCPT TO:<{recipient}>".encode()])
    await connection.command(b"RSET")
    return rcpt if mail.positive else mail


def _sources(info: ListInfo, settings: Settings, policy: Policy) -> Iterator[Finding]:
    """Read each source of a list. Blocks."""
    if not info.members:
        yield State.UNKNOWN.of("source", f"the list {info.name} declares no members")
    for member in info.members:
        held = read_source(member, settings.policy.parent, policy)
        text = held.wrong or f"{held.label} holds {many(held.people, 'address', 'addresses')}"
        yield (State.WRONG if held.wrong else State.FINE).of("source", f"the list {info.name}: {text}")


def _expansions(settings: Settings, policy: Policy) -> Iterator[Finding]:
    for label, expand, problem in built_expander(settings, policy, open_registry(settings, policy)).trial():
        text = f"what expands at the relay: {problem or f'{label} holds {expand:,} addresses that expand'}"
        yield (State.WRONG if problem else State.FINE).of("source", text)


async def milter_answers(each: MilterListener) -> Finding:
    """Check as an MTA whether the running smtpguard answers as a milter. Only the negotiation is sent."""
    name = f"the milter on {each.unix}" if each.unix is not None else f"the milter on {each.address} port {each.port}"
    try:
        async with asyncio.timeout(SECONDS):
            answer = await negotiate(*await _connect(each))
    except TimeoutError:
        return State.WRONG.of("milter", f"{name} does not answer for {SECONDS:g} s")
    except (OSError, ProtocolError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        return State.WRONG.of("milter", f"{name} does not answer: {why}")
    if answer is None:
        return State.WRONG.of("milter", f"{name} closes the connection")
    return State.FINE.of("milter", f"{name} answers, in version {answer.version} of the protocol")


async def _connect(each: MilterListener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if each.unix is not None:
        return await asyncio.open_unix_connection(each.unix)
    return await asyncio.open_connection(each.address, each.port)
