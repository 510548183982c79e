"""Find ways around the guard: relays, list servers and listeners that take mail from other hosts.

Nothing is sent: each transaction is reset before DATA. The check can only act as an unknown client on this machine.
What another machine would be answered is reported as unknown, with the commands to find out there. The settings can
accept a way by name.

The guard itself is tried too: as an open relay, which would lend others its own address, up to RCPT; and a milter
listener up to its first answer. Only addresses of this machine can be used; the settings say whether those are clients.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from ipaddress import ip_address

import dns.asyncresolver
import dns.exception

from smtpguard.app.finding import Finding, State
from smtpguard.config.fields import is_this_machine
from smtpguard.config.settings import MilterListener, Settings, SmtpListener
from smtpguard.lists.declared import ListInfo
from smtpguard.mail.envelope import within
from smtpguard.wire.milter.packet import Negotiate, encode
from smtpguard.wire.target import RelayTarget, Tls, is_loopback

SECONDS = 10.0
SOMEBODY = "postmaster@example.org"  # RFC 2606: an outside address that does not exist
SMTP_PORT = 25
THIS_MACHINE, WITHOUT_LOGIN, LIST_SERVERS = "this-machine", "without-login", "list-servers"
"""Names of the ways, as the settings accept them (``accepted_ways``)."""
_OTHER_LOOPBACK = "127.0.0.2"
Hosts = Callable[[str], Awaitable[Sequence[str]]]
"""The mail hosts of a domain, best first."""


async def ways(
    settings: Settings,
    targets: Sequence[RelayTarget],
    lists: Iterable[ListInfo],
    domain: str,
    *,
    silent: Collection[RelayTarget] = (),
    hosts: Hosts | None = None,
    own: Callable[[], Sequence[str]] | None = None,
) -> AsyncIterator[Finding]:
    """``targets``: the relay and its fallbacks. ``domain``: one of ours. ``silent``: relays that are down, so a failed
    connection proves nothing. ``own``: addresses of this machine that others can reach."""
    accepted, sender = frozenset(settings.accepted_ways), f"postmaster@{domain}"
    for target in targets:
        for name, what, host, source in _to_the_relay(target, (own or own_addresses)()):
            said = await asyncio.to_thread(
                ask_as_stranger, host, target.port, source, sender, SOMEBODY, implicit_tls=target.tls is Tls.IMPLICIT
            )
            yield _judged(name, what, said, accepted, silent=target in silent)
        yield State.UNKNOWN.of("way", _elsewhere(target, sender))
    named = [str(net.network_address) for net in settings.expanders if net.num_addresses == 1]
    for info in lists:
        for address in info.addresses:
            for host in dict.fromkeys([*named, *await (hosts or _mail_hosts)(address.ascii_domain)]):
                said = await asyncio.to_thread(ask_as_stranger, host, SMTP_PORT, None, sender, str(address))
                yield _judged(LIST_SERVERS, f"the list server {host}, which takes mail to {address}", said, accepted)


def _to_the_relay(target: RelayTarget, own: Sequence[str]) -> Iterable[tuple[str, str, str, str | None]]:
    """Each way: its name, its description, the host to ask, and the source address."""
    if target.user is not None:
        yield WITHOUT_LOGIN, f"the relay at {target.host}, without our login", target.host, None
    if is_loopback(target.host):
        yield THIS_MACHINE, "the relay, for any program on this machine", target.host, _OTHER_LOOPBACK
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
    """The reply to RCPT for a client without our login. None: it cannot connect."""
    anything = ssl.create_default_context()
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    bound = (source, 0) if source else None
    try:
        smtp = (
            smtplib.SMTP_SSL(host, port, "localhost", timeout=SECONDS, source_address=bound, context=anything)
            if implicit_tls
            else smtplib.SMTP(host, port, "localhost", timeout=SECONDS, source_address=bound)
        )
        with smtp:
            smtp.ehlo_or_helo_if_needed()
            if not implicit_tls and smtp.has_extn("starttls"):
                smtp.starttls(context=anything)
                smtp.ehlo()
            code, text = smtp.mail(sender)
            if code < 300:
                code, text = smtp.rcpt(recipient)
            smtp.rset()
            return code, text.decode("utf-8", "replace").splitlines()[0] if text else ""
    except smtplib.SMTPResponseException as e:
        return e.smtp_code, str(e.smtp_error)
    except (smtplib.SMTPException, OSError):
        return None


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


_SOURCES = {4: "127.0.0.2", 6: "::1"}
"""A source address of this machine that none of its services uses."""
_HELLO = Negotiate(version=6, actions=0x1FF, steps=0x1FFFFF)


async def open_relays(settings: Settings, sender: str, own: Sequence[str]) -> AsyncIterator[Finding]:
    """``sender``: an address of ours. ``own``: addresses of this machine that others can reach."""
    for each in settings.listen.smtp:
        if is_this_machine(each.address) and each.clients is None and not each.proxy:
            continue  # other hosts cannot reach it
        tried = False
        for host, source in _places(each, own):
            if not each.proxy and _is_stranger(each, source):
                said = await asyncio.to_thread(_asked, each, host, source, sender)
                tried = tried or said is not None
                if said is not None:
                    yield _relay(each, source, *said)
        yield State.UNKNOWN.of("clients", _relay_elsewhere(each, sender, tried=tried))


async def open_milters(settings: Settings, own: Sequence[str]) -> AsyncIterator[Finding]:
    """For a Unix socket its permissions say who may connect."""
    for each in settings.listen.milter:
        if each.unix is not None or (is_this_machine(each.address) and each.clients is None):
            continue
        tried = False
        for host, source in _places(each, own):
            if _is_stranger(each, source):
                said = await asyncio.to_thread(_speaks, host, each.port or 0, source)
                tried = tried or said is not None
                if said is not None:
                    yield _milter(each, source, speaks=said)
        why = "" if tried else ", and this machine has no address outside clients and trust"
        text = (
            f"not known: whether the milter {each.called} accepts other machines{why}. Connect from one that is not its "
            f"MTA: nc THIS-MACHINE {each.port} (it closes at once)"
        )
        yield State.UNKNOWN.of("clients", text)


def _milter(each: MilterListener, source: str, *, speaks: bool) -> Finding:
    if speaks:
        said = f"open: the milter {each.called} accepts {source}, which is not its MTA, and could send messages to it as our MTA"
        return State.OPEN.of("clients", said)
    return State.FINE.of("clients", f"closed: the milter {each.called} does not accept {source}, which is not its MTA")


def _speaks(host: str, port: int, source: str) -> bool | None:
    """Whether it answers an unknown client's first packet as an MTA's. None: cannot connect."""
    try:
        sock = socket.create_connection((host, port), timeout=SECONDS, source_address=(source, 0))
    except OSError:
        return None
    with sock:
        try:
            sock.sendall(encode(_HELLO))
            head = sock.recv(5, socket.MSG_WAITALL)
        except OSError:  # closed at once, or no answer
            return False
    return head[4:] == b"O"


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


def _asked(each: SmtpListener, host: str, source: str, sender: str) -> tuple[int, str] | None:
    implicit = each.tls is not None and each.tls.mode == "implicit"
    return ask_as_stranger(host, each.port, source, sender, SOMEBODY, implicit_tls=implicit)


def _relay(each: SmtpListener, source: str, code: int, text: str) -> Finding:
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
