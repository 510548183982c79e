"""Check the real relays, list sources and listeners: whether they do what the guard needs, and whether mail can go around
it.

Nothing is sent: each transaction ends before DATA. The check can only act as an unknown client on this machine.
What another machine would be answered is reported as unknown, with the commands to find out there. The settings can
accept a way by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import dns.asyncresolver
import dns.exception

from smtpguard.app.lists import names, open_expander
from smtpguard.app.relay import targets
from smtpguard.app.storestatus import Finding, State
from smtpguard.config.fields import is_this_machine
from smtpguard.config.listeners import MilterListener, SmtpListener
from smtpguard.config.settings import Settings, is_host_name
from smtpguard.lists.declared import ListInfo, Names
from smtpguard.lists.sources import SourceError, Tally, addresses, unfit
from smtpguard.lists.sources.opening import opened
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Lost, within
from smtpguard.mail.reply import Reply
from smtpguard.policy.parse import Policy
from smtpguard.wire import sasl
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.milterpackets import NEEDED, VERSION, Actions, Negotiate, ProtocolError, Quit, answers, encode
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts, Tls, is_loopback

SECONDS = 10.0
PATIENCE = Timeouts(connect=SECONDS, greeting=SECONDS, command=SECONDS)


async def look(
    settings: Settings, policy: Policy, hosts: Hosts | None = None, own: Callable[[], Sequence[str]] | None = None
) -> AsyncIterator[Finding]:
    """Yields each finding at once. ``own``: addresses of this machine that others can reach."""
    lists, known = policy.declared[0], names(settings, policy)
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
    async for finding in ways(settings, guarded, lists.values(), domain, silent, hosts or _mail_hosts, here):
        yield finding


def _goes(settings: Settings, route: str, address: Address, of_list: str = "") -> bool:
    """Whether mail to this address takes the route from some listener, or as our own. ``route``: "" for the default."""
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
        if called in declared or (is_host_name(called) and not known.answers(called)):
            yield await _named(
                connection, f"postmaster@{domain}", f"{listed}@{called}", called, declared=called in declared
            )
    connection.quit()


async def _named(connection: RelayConnection, sender: str, address: str, name: str, *, declared: bool) -> Finding:
    """Whether the relay accepts a list's local part at one of its own names: mail there may reach the list too."""
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
                people, label = sum(1 for _ in addresses(source, tally)), member.called(source.label)
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
            answer = await _negotiated(*await _milter(each))
    except TimeoutError:
        return State.WRONG.of("milter", f"{name} does not answer for {SECONDS:g} s")
    except (OSError, ProtocolError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        return State.WRONG.of("milter", f"{name} does not answer: {why}")
    if answer is None:
        return State.WRONG.of("milter", f"{name} closes the connection")
    return State.FINE.of("milter", f"{name} answers, in version {answer.version} of the protocol")


async def _milter(each: MilterListener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if each.unix is not None:
        return await asyncio.open_unix_connection(each.unix)
    return await asyncio.open_connection(each.address, each.port)


async def _negotiated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Negotiate | None:
    """The milter's reply to a negotiation; None if there is none. Raises OSError and ProtocolError."""
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


# Ways around the guard: relays, list servers and listeners that take mail from other hosts.
#
# The guard itself is tried too: as an open relay, which would lend others its own address, up to RCPT; and a milter
# listener up to its first answer. Only addresses of this machine can be used; the settings say whether those are clients.


SOMEBODY = "postmaster@example.org"  # RFC 2606: an outside address that does not exist
SMTP_PORT = 25
THIS_MACHINE, WITHOUT_LOGIN, LIST_SERVERS = "this-machine", "without-login", "list-servers"
"""Names of the ways, as the settings accept them (``accepted_ways``)."""
_SOURCES = {4: "127.0.0.2", 6: "::1"}
"""A source address of this machine that none of its services uses; IPv6 has only one."""
Hosts = Callable[[str], Awaitable[Sequence[str]]]
"""The mail hosts of a domain, best first."""


async def ways(
    settings: Settings,
    targets: Sequence[RelayTarget],
    lists: Iterable[ListInfo],
    domain: str,
    silent: Collection[RelayTarget],
    hosts: Hosts,
    own: Sequence[str],
) -> AsyncIterator[Finding]:
    """``targets``: the relay and its fallbacks. ``domain``: one of ours. ``silent``: relays that are down, so a failed
    connection proves nothing. ``own``: addresses of this machine that others can reach."""
    accepted, sender = frozenset(settings.accepted_ways), f"postmaster@{domain}"
    for target in targets:
        for name, what, host, source in _to_the_relay(target, own):
            said = await asyncio.to_thread(
                ask_as_stranger, host, target.port, source, sender, SOMEBODY, implicit_tls=target.tls is Tls.IMPLICIT
            )
            yield _judged(name, what, said, accepted, silent=target in silent)
        yield State.UNKNOWN.of("way", _elsewhere(target, sender))
    named = [str(net.network_address) for net in settings.expanders if net.num_addresses == 1]
    for info in lists:
        for address in info.addresses:
            for host in dict.fromkeys([*named, *await hosts(address.ascii_domain)]):
                said = await asyncio.to_thread(ask_as_stranger, host, SMTP_PORT, None, sender, str(address))
                yield _judged(LIST_SERVERS, f"the list server {host}, which takes mail to {address}", said, accepted)


def _to_the_relay(target: RelayTarget, own: Sequence[str]) -> Iterable[tuple[str, str, str, str | None]]:
    """Each way: its name, its description, the host to ask, and the source address."""
    if target.user is not None:
        yield WITHOUT_LOGIN, f"the relay at {target.host}, without our login", target.host, None
    if is_loopback(target.host):
        both = target.host == "localhost"  # its relay may listen on either
        for host in ("127.0.0.1", "::1") if both else (target.host,):
            what = f"the relay at {host} port {target.port}" if both else "the relay"
            yield THIS_MACHINE, f"{what}, for any program on this machine", host, _SOURCES[6 if ":" in host else 4]
        for address in own:
            yield (
                THIS_MACHINE,
                f"the relay at {address} port {target.port}, for any program on this machine",
                address,
                None,
            )


def _elsewhere(target: RelayTarget, sender: str) -> str:
    tls = "--tls-on-connect " if target.tls is Tls.IMPLICIT else ""
    host = "THIS-MACHINE" if is_loopback(target.host) else target.host
    return (
        f"not known: whether the relay takes mail from other machines. Test from one: swaks --server {host} --port {target.port} "
        f"{tls}--quit-after RCPT --from {sender} --to {SOMEBODY} (250 to RCPT: it does)"
    )


def _judged(
    name: str, what: str, said: tuple[int, str] | None, accepted: frozenset[str], *, silent: bool = False
) -> Finding:
    if said is None:
        closed = State.FINE.of("way", f"closed: {what}: no connection")
        unknown = State.UNKNOWN.of("way", f"not known: {what}: no connection")
        return unknown if silent else closed
    code, text = said
    if not 200 <= code < 300:
        return State.FINE.of("way", f"closed: {what}: {code} {text}")
    if name in accepted:
        text = f"mail can go around the guard through {what}, and accepted_ways: [{name}] accepts that"
        return State.ACCEPTED.of("way", text)
    text = (
        f"mail can go around the guard through {what}. Let it take mail only from the guard; if this is meant, set "
        f"accepted_ways: [{name}]"
    )
    return State.OPEN.of("way", text)


def ask_as_stranger(
    host: str, port: int, source: str | None, sender: str, recipient: str, *, implicit_tls: bool = False
) -> tuple[int, str] | None:
    """The reply to RCPT for a client without our login, which need not use the TLS that is offered. None: it cannot
    connect."""
    anything = ssl.create_default_context()
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    connect = partial(smtplib.SMTP_SSL, context=anything) if implicit_tls else smtplib.SMTP
    said: tuple[int, str] | None = None
    ways = [False]  # whether with STARTTLS
    for starttls in ways:
        try:
            with connect(
                host, port, "localhost", timeout=SECONDS, source_address=(source, 0) if source else None
            ) as smtp:
                if starttls:
                    smtp.starttls(context=anything)
                smtp.ehlo_or_helo_if_needed()
                if not starttls and not implicit_tls and smtp.has_extn("starttls"):
                    ways.append(True)  # in a session of its own: some relays hang up on mail without TLS
                code, text = smtp.mail(sender)
                if code < 300:
                    code, text = smtp.rcpt(recipient)
                said = code, _first_line(text)
        except smtplib.SMTPResponseException as e:
            said = said or (e.smtp_code, _first_line(e.smtp_error))
        except (smtplib.SMTPException, OSError):
            continue
        if said and said[0] < 300:
            break
    return said


def _first_line(text: bytes | str) -> str:
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return next(iter(plain.splitlines()), "")


async def _mail_hosts(domain: str) -> Sequence[str]:
    try:
        answer = await dns.asyncresolver.Resolver().resolve(domain, "MX", lifetime=SECONDS)
    except (dns.exception.DNSException, OSError):
        return ()
    best = sorted(answer, key=lambda record: record.preference)
    return [str(record.exchange).rstrip(".") for record in best if str(record.exchange) != "."]


def own_addresses() -> list[str]:
    """This machine's addresses that others can reach, as far as its own name resolves to them."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found if not is_loopback(str(entry[4][0]))})


async def open_relays(settings: Settings, sender: str, own: Sequence[str]) -> AsyncIterator[Finding]:
    """``sender``: an address of ours. ``own``: addresses of this machine that others can reach."""
    for each in settings.listen.smtp:
        if is_this_machine(each.address) and each.clients is None and not each.proxy:
            continue  # other hosts cannot reach it
        tried = False
        for host, source in _places(each, own):
            if not each.proxy and _is_stranger(each, source):
                tls = each.tls is not None and each.tls.mode == "implicit"
                said = await asyncio.to_thread(
                    ask_as_stranger, host, each.port, source, sender, SOMEBODY, implicit_tls=tls
                )
                tried = tried or said is not None
                if said is not None:
                    yield _open_relay(each, source, *said)
        yield State.UNKNOWN.of("clients", _relay_elsewhere(each, sender, tried=tried))


async def open_milters(settings: Settings, own: Sequence[str]) -> AsyncIterator[Finding]:
    """For a Unix socket its permissions say who may connect."""
    for each in settings.listen.milter:
        if each.unix is not None or (is_this_machine(each.address) and each.clients is None):
            continue
        tried = False
        for host, source in _places(each, own):
            if _is_stranger(each, source):
                said = await _speaks(host, each.port or 0, source)
                tried = tried or said is not None
                if said is not None:
                    yield _open_milter(each, source, speaks=said)
        why = "" if tried else ", and this machine has no address outside clients and trust"
        text = (
            f"not known: whether the milter {each.called} accepts other machines{why}. Connect from one that is not its "
            f"MTA: nc THIS-MACHINE {each.port} (it closes at once)"
        )
        yield State.UNKNOWN.of("clients", text)


def _open_milter(each: MilterListener, source: str, *, speaks: bool) -> Finding:
    if speaks:
        said = f"open: the milter {each.called} accepts {source}, which is not its MTA, and could send messages to it as our MTA"
        return State.OPEN.of("clients", said)
    return State.FINE.of("clients", f"closed: the milter {each.called} does not accept {source}, which is not its MTA")


async def _speaks(host: str, port: int, source: str) -> bool | None:
    """Whether it answers an unknown client's first packet as an MTA's. None: cannot connect."""
    try:
        async with asyncio.timeout(SECONDS):
            streams = await asyncio.open_connection(host, port, local_addr=(source, 0))
    except OSError:
        return None
    try:
        async with asyncio.timeout(SECONDS):
            return await _negotiated(*streams) is not None
    except (OSError, ProtocolError):  # closed at once, or no answer
        return False


def _places(each: SmtpListener | MilterListener, own: Sequence[str]) -> list[tuple[str, str]]:
    """The host to connect to, and the source address to connect from."""
    address = ip_address(each.address)
    if not address.is_unspecified:
        return [(each.address, _SOURCES[address.version] if address.is_loopback else each.address)]
    found = [("127.0.0.1", _SOURCES[4])] + ([("::1", _SOURCES[6])] if address.version == 6 else [])
    return [*found, *((host, host) for host in own if address.version == 6 or ip_address(host).version == 4)]


def _is_stranger(each: SmtpListener | MilterListener, source: str) -> bool:
    """Whether this source is not a client of the listener. If everyone is a client, it counts as unknown too."""
    admitted = each.admitted
    return admitted is None or not within(source, admitted) or any(network.prefixlen == 0 for network in admitted)


def _open_relay(each: SmtpListener, source: str, code: int, text: str) -> Finding:
    if 200 <= code < 300:
        said = f"open relay: {each.called} takes mail to the outside from {source}, which is not a client and did not log in"
        return State.OPEN.of("clients", said)
    return State.FINE.of("clients", f"closed: {each.called} refuses {source}, which is not a client: {code} {text}")


def _relay_elsewhere(each: SmtpListener, sender: str, *, tried: bool) -> str:
    why = "" if tried else ", and this machine has no address outside clients and trust"
    if each.proxy:
        why = ", since a proxy names the client: test through it"
    tls = "--tls-on-connect " if each.tls is not None and each.tls.mode == "implicit" else ""
    return (
        f"not known: whether {each.called} takes mail from other machines{why}. Test from one that is not a client: swaks --server "
        f"THIS-MACHINE --port {each.port} {tls}--quit-after RCPT --from {sender} --to {SOMEBODY} (250 to RCPT: an open relay)"
    )
