"""Look for ways around the guard: relays, list servers and listeners that take mail from other hosts.

The guard itself is tried too: a listener up to RCPT, since an open relay would lend others the guard's own address; and a
milter listener up to its first answer. The check can only act as an unknown client on this machine. What another machine
would be answered is reported as unknown, with the commands to find out there. The settings can accept a way by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from ipaddress import ip_address

import dns.asyncresolver
import dns.exception

from smtpguard.app.storestatus import Finding, State
from smtpguard.config.fields import is_this_machine
from smtpguard.config.listeners import MilterListener, SmtpListener
from smtpguard.config.settings import Settings
from smtpguard.lists.declared import ListInfo
from smtpguard.mail.envelope import within
from smtpguard.wire.conversation import NEEDED
from smtpguard.wire.milterpackets import VERSION, Actions, Negotiate, ProtocolError, Quit, answers, encode
from smtpguard.wire.target import RelayTarget, Tls

SECONDS = 10.0
"""The timeout of a connection, and of each reply."""
SOMEBODY = "postmaster@example.org"  # RFC 2606: an outside address that does not exist
SMTP_PORT = 25
THIS_MACHINE, WITHOUT_LOGIN, LIST_SERVERS = "this-machine", "without-login", "list-servers"
"""The names of the ways, as the settings accept them (``accepted_ways``)."""
_SOURCES = {4: "127.0.0.2", 6: "::1"}
"""A source address of this machine that none of its services uses, by IP version. IPv6 has only one loopback address."""
_OFFER = Negotiate(VERSION, int(NEEDED | Actions.SET_MACROS), 0x1FFFFF)
Hosts = Callable[[str], Awaitable[Sequence[str]]]
"""Looks up the mail hosts of a domain, the best first."""


async def negotiate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Negotiate | None:
    """Return a milter's reply to a negotiation; None if it sends none. Raises OSError and ProtocolError."""
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


async def ways(
    settings: Settings,
    targets: Sequence[RelayTarget],
    lists: Iterable[ListInfo],
    domain: str,
    silent: Collection[RelayTarget],
    hosts: Hosts,
    own: Sequence[str],
) -> AsyncIterator[Finding]:
    """Check whether relays and list servers take mail from an unknown client. ``targets``: all relays and their fallbacks.
    ``domain``: one of ours. ``silent``: relays that are down, so a failed connection proves nothing. ``own``: addresses of
    this machine that others can reach."""
    accepted, sender = frozenset(settings.accepted_ways), f"postmaster@{domain}"
    for target in targets:
        for name, what, host, source in _to_the_relay(target, own):
            said = await asyncio.to_thread(
                ask_as_stranger, host, target.port, source, sender, SOMEBODY, implicit_tls=target.tls is Tls.IMPLICIT
            )
            yield _judged(name, what, said, accepted, silent=target in silent)
        server = "THIS-MACHINE" if is_this_machine(target.host) else target.host
        swaks = _swaks(server, target.port, sender, implicit_tls=target.tls is Tls.IMPLICIT)
        text = f"not known: whether the relay takes mail from other machines. Test from one: {swaks} (250 to RCPT: it does)"
        yield State.UNKNOWN.of("way", text)
    named = [str(net.network_address) for net in settings.expanders if net.num_addresses == 1]
    for info in lists:
        for address in info.addresses:
            for host in dict.fromkeys([*named, *await hosts(address.ascii_domain)]):
                said = await asyncio.to_thread(ask_as_stranger, host, SMTP_PORT, None, sender, str(address))
                yield _judged(LIST_SERVERS, f"the list server {host}, which takes mail to {address}", said, accepted)


def _to_the_relay(target: RelayTarget, own: Sequence[str]) -> Iterable[tuple[str, str, str, str | None]]:
    """Yield each way to a relay: its name, its description, the host to ask, and the source address."""
    if target.user is not None:
        yield WITHOUT_LOGIN, f"the relay at {target.host}, without our login", target.host, None
    if is_this_machine(target.host):
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


def _swaks(server: str, port: int, sender: str, *, implicit_tls: bool) -> str:
    """Return the command that asks a server from another machine."""
    tls = "--tls-on-connect " if implicit_tls else ""
    return f"swaks --server {server} --port {port} {tls}--quit-after RCPT --from {sender} --to {SOMEBODY}"


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
    """Return the reply to RCPT for a client without our login, which need not use the TLS that is offered. None if it cannot
    connect. Blocks."""
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


async def mail_hosts(domain: str) -> Sequence[str]:
    """Return the hosts in a domain's MX records, the best first; none if DNS gives no answer."""
    try:
        answer = await dns.asyncresolver.Resolver().resolve(domain, "MX", lifetime=SECONDS)
    except (dns.exception.DNSException, OSError):
        return ()
    best = sorted(answer, key=lambda record: record.preference)
    return [str(record.exchange).rstrip(".") for record in best if str(record.exchange) != "."]


def reachable_addresses() -> list[str]:
    """Return this machine's addresses that others can reach, as far as its own name resolves to them."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found if not is_this_machine(str(entry[4][0]))})


async def open_relays(settings: Settings, sender: str, own: Sequence[str]) -> AsyncIterator[Finding]:
    """Check whether our SMTP listeners are open relays. ``sender``: an address of ours. ``own``: addresses of this machine that
    others can reach."""
    for each in settings.listen.smtp:
        if is_this_machine(each.address) and each.clients is None and not each.proxy:
            continue  # other hosts cannot reach it
        tried, tls = False, each.tls is not None and each.tls.mode == "implicit"
        for host, source in _places(each, own):
            if not each.proxy and _is_stranger(each, source):
                said = await asyncio.to_thread(
                    ask_as_stranger, host, each.port, source, sender, SOMEBODY, implicit_tls=tls
                )
                tried = tried or said is not None
                if said is not None:
                    yield _open_relay(each, source, *said)
        why = ", since a proxy names the client: test through it" if each.proxy else _untried(tried)
        swaks = _swaks("THIS-MACHINE", each.port, sender, implicit_tls=tls)
        text = (
            f"not known: whether {each.called} takes mail from other machines{why}. Test from one that is not a client: {swaks} "
            f"(250 to RCPT: an open relay)"
        )
        yield State.UNKNOWN.of("clients", text)


def _untried(tried: bool) -> str:
    return "" if tried else ", and this machine has no address outside clients and trust"


async def open_milters(settings: Settings, own: Sequence[str]) -> AsyncIterator[Finding]:
    """Check whether our milter listeners answer an unknown client. A Unix socket is left out: its permissions say who may
    connect."""
    for each in settings.listen.milter:
        if each.unix is not None or (is_this_machine(each.address) and each.clients is None):
            continue
        tried = False
        for host, source in _places(each, own):
            if _is_stranger(each, source):
                answers = await _answers_milter(host, each.port or 0, source)
                tried = tried or answers is not None
                if answers is not None:
                    yield _open_milter(each, source, answers=answers)
        text = (
            f"not known: whether the milter {each.called} accepts other machines{_untried(tried)}. Connect from one that is not its "
            f"MTA: nc THIS-MACHINE {each.port} (it closes at once)"
        )
        yield State.UNKNOWN.of("clients", text)


def _open_milter(each: MilterListener, source: str, *, answers: bool) -> Finding:
    if answers:
        said = f"open: the milter {each.called} accepts {source}, which is not its MTA, and could send messages to it as our MTA"
        return State.OPEN.of("clients", said)
    return State.FINE.of("clients", f"closed: the milter {each.called} does not accept {source}, which is not its MTA")


async def _answers_milter(host: str, port: int, source: str) -> bool | None:
    """Return whether the listener negotiates with an unknown client as with an MTA. None if it cannot connect."""
    try:
        async with asyncio.timeout(SECONDS):
            streams = await asyncio.open_connection(host, port, local_addr=(source, 0))
    except OSError:
        return None
    try:
        async with asyncio.timeout(SECONDS):
            return await negotiate(*streams) is not None
    except (OSError, ProtocolError):  # closed at once, or no answer
        return False


def _places(each: SmtpListener | MilterListener, own: Sequence[str]) -> list[tuple[str, str]]:
    """Return where to try a listener: pairs of the host to connect to, and the source address to connect from."""
    address = ip_address(each.address)
    if not address.is_unspecified:
        return [(each.address, _SOURCES[address.version] if address.is_loopback else each.address)]
    found = [("127.0.0.1", _SOURCES[4])] + ([("::1", _SOURCES[6])] if address.version == 6 else [])
    return [*found, *((host, host) for host in own if address.version == 6 or ip_address(host).version == 4)]


def _is_stranger(each: SmtpListener | MilterListener, source: str) -> bool:
    """Return whether this source is no client of the listener. If everyone is a client, it counts as a stranger too."""
    admitted = each.admitted
    return admitted is None or not within(source, admitted) or any(network.prefixlen == 0 for network in admitted)


def _open_relay(each: SmtpListener, source: str, code: int, text: str) -> Finding:
    if 200 <= code < 300:
        said = f"open relay: {each.called} takes mail to the outside from {source}, which is not a client and did not log in"
        return State.OPEN.of("clients", said)
    return State.FINE.of("clients", f"closed: {each.called} refuses {source}, which is not a client: {code} {text}")
