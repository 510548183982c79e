"""Check the real relay and list sources: whether they do what the guard needs.

Nothing is sent: each transaction is reset before DATA.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from smtpguard.app.finding import Finding, State
from smtpguard.app.lists import declared, names, open_expander
from smtpguard.app.relay import targets
from smtpguard.app.ways import SOMEBODY, Hosts, open_milters, open_relays, own_addresses, ways
from smtpguard.config.settings import MilterListener, Settings, host_name
from smtpguard.lists.declared import ListInfo, Names
from smtpguard.lists.sources import SourceError, Tally, addresses, unfit
from smtpguard.lists.sources.opening import opened, within
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Lost
from smtpguard.policy.parse import Policy
from smtpguard.wire import sasl
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.milter.packet import VERSION, Actions, Negotiate, ProtocolError, Quit, answers, encode
from smtpguard.wire.milter.states import NEEDED
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts, Tls

SECONDS = 10.0
PATIENCE = Timeouts(connect=SECONDS, greeting=SECONDS, command=SECONDS)


async def look(
    settings: Settings, policy: Policy, hosts: Hosts | None = None, own: Callable[[], Sequence[str]] | None = None
) -> AsyncIterator[Finding]:
    """Yields each finding at once. ``own``: addresses of this machine that others can reach."""
    lists, known = declared(policy)[0], names(settings, policy)
    asked = [
        (name, settings.relays[name], replace(each, timeouts=PATIENCE, reachability=None, fallbacks=()))
        for name, relay in targets(settings).items()
        for each in (relay, *relay.fallbacks)
    ]
    logged = [settings.relay_of(each.called) for each in settings.listen.smtp if each.auth]
    domain = sorted(name for name in policy.organization.domains if not name.startswith("*."))[0]
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
    here = (own or own_addresses)()
    async for finding in open_relays(settings, f"postmaster@{domain}", here):
        yield finding
    async for finding in open_milters(settings, here):
        yield finding
    for info in lists.values():
        for finding in await asyncio.to_thread(lambda each: list(_sources(each, settings)), info):
            yield finding
    if policy.expansions:
        for finding in await asyncio.to_thread(lambda: list(_expansions(settings, policy))):
            yield finding
    guarded = [target for _, _, target in asked]
    async for finding in ways(settings, guarded, lists.values(), domain, silent=silent, hosts=hosts, own=own):
        yield finding


def _goes(settings: Settings, route: str, address: Address, of_list: str = "") -> bool:
    """Whether mail to this address takes the route from some listener, or as the guard's own mail. ``route``: "" for the
    default relay."""
    for listener in ("", *(each.called for _, _, each in settings.listen.each())):
        if settings.route(listener, of_list, address.ascii_domain) == route:
            return True
    return False


# What the guard needs of the relay.


async def _relay(
    target: RelayTarget,
    domain: str,
    lists: Sequence[tuple[ListInfo, Address]],
    declared: Sequence[str],
    known: Names,
    *,
    outside: bool,
) -> AsyncIterator[Finding]:
    """``lists``: the list addresses whose mail goes to this relay. ``outside``: whether mail for other domains does."""
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
    for called in () if listed is None else dict.fromkeys((*declared, *connection.announced)):
        if not connection.usable:
            return
        if called in declared or (host_name(called) and not known.answers(called)):
            yield await _named(
                connection, f"postmaster@{domain}", f"{listed}@{called}", called, declared=called in declared
            )
    connection.quit()


async def _named(connection: RelayConnection, sender: str, address: str, name: str, *, declared: bool) -> Finding:
    """Whether the relay accepts a list's local part at one of its own names: mail to that address may reach the list
    too."""
    try:
        said = await _asked(connection, sender, address)
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
    """Whether mail clients could log in through us."""
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
    """Whether a message with this reverse-path to an outside address would be accepted."""
    try:
        said = await _asked(connection, sender, SOMEBODY)
    except Lost as e:
        return State.WRONG.of("sender", f"the relay ends the session at MAIL FROM:<{sender}>: {e}")
    if said.positive:
        return State.FINE.of("sender", f"the relay takes mail from {whose} to the outside")
    return State.WRONG.of("sender", f"the relay does not take mail from {whose} to the outside: {said}")


async def _list(connection: RelayConnection, sender: str, name: str, address: str) -> Finding:
    """Whether mail to a list address would be accepted from a writer of the list. Some servers decide only after DATA."""
    try:
        said = await _asked(connection, sender, address)
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


async def _asked(connection: RelayConnection, sender: str, recipient: str) -> Reply:
    """The first refusal, or the reply to RCPT. The transaction is reset."""
    mail, rcpt = await connection.pipeline([f"MAIL FROM:<{sender}>".encode(), f"RCPT TO:<{recipient}>".encode()])
    await connection.command(b"RSET")
    return rcpt if mail.positive else mail


def _sources(info: ListInfo, settings: Settings) -> Iterator[Finding]:
    """Each is read to its end, as by a sync, and nothing is kept."""
    if not info.members:
        yield State.UNKNOWN.of("source", f"the list {info.name} declares no members")
    for member in info.members:
        tally = Tally()
        try:
            with closing(opened(member, settings.policy.parent)) as source:
                people, label = sum(1 for _ in addresses(source, tally)), within(member, source.label)
        except SourceError as e:
            yield State.WRONG.of("source", f"the list {info.name}: {e}")
            continue
        wrong = unfit(label, people, tally, member)
        text = wrong[0] if wrong is not None else f"{label} holds {many(people, 'address', 'addresses')}"
        yield (State.WRONG if wrong else State.FINE).of("source", f"the list {info.name}: {text}")


def _expansions(settings: Settings, policy: Policy) -> Iterator[Finding]:
    for label, expand, problem in open_expander(settings, policy).tried():
        text = f"what expands at the relay: {problem or f'{label} holds {expand:,} addresses that expand'}"
        yield (State.WRONG if problem else State.FINE).of("source", text)


# Act as an MTA: check whether the running smtpguard answers as a milter at the places in the settings.
#
# Only the negotiation is sent.


_OFFER = Negotiate(VERSION, int(NEEDED | Actions.SET_MACROS), 0x1FFFFF)


async def milter_answers(each: MilterListener) -> Finding:
    name = f"the milter on {each.unix}" if each.unix is not None else f"the milter on {each.address} port {each.port}"
    try:
        async with asyncio.timeout(SECONDS):
            answer = await _negotiated(each)
    except TimeoutError:
        return State.WRONG.of("milter", f"{name} does not answer for {SECONDS:g} s")
    except (OSError, ProtocolError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        return State.WRONG.of("milter", f"{name} does not answer: {why}")
    if answer is None:
        return State.WRONG.of("milter", f"{name} closes the connection")
    return State.FINE.of("milter", f"{name} answers, in version {answer.version} of the protocol")


async def _negotiated(each: MilterListener) -> Negotiate | None:
    """The milter's reply to a negotiation; None if there is none. Raises OSError and ProtocolError."""
    if each.unix is not None:
        reader, writer = await asyncio.open_unix_connection(each.unix)
    else:
        reader, writer = await asyncio.open_connection(each.address, each.port)
    try:
        writer.write(encode(_OFFER))
        decoder = answers()
        while (answer := decoder.next()) is None:
            came = await reader.read(4096)
            if not came:
                return None
            decoder.feed(came)
        writer.write(encode(Quit()))
        if not isinstance(answer, Negotiate):
            raise ProtocolError("it does not negotiate")
        return answer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
