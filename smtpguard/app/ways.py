"""Find ways around the guard: relays and list servers that take mail from other hosts.

Nothing is sent: each transaction is reset before DATA. The check can only act as an unknown client on this machine.
What another machine would be answered is reported as unknown, with the commands to find out there. The settings can
accept a way by name.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence

import dns.asyncresolver
import dns.exception

from smtpguard.app.finding import Finding, State
from smtpguard.config.settings import Settings
from smtpguard.lists.declared import ListInfo
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
        yield Finding(about="way", state=State.UNKNOWN, text=_elsewhere(target, sender))
    for info in lists:
        for address in info.addresses:
            for host in await _list_servers(address.ascii_domain, settings, hosts or _mail_hosts):
                said = await asyncio.to_thread(ask_as_stranger, host, SMTP_PORT, None, sender, str(address))
                yield _judged(LIST_SERVERS, f"the list server {host}, with {address}", said, accepted)


def _to_the_relay(target: RelayTarget, own: Sequence[str]) -> Iterable[tuple[str, str, str, str | None]]:
    """Each way: its name, its description, the host to ask, and the source address."""
    if target.user is not None:
        yield WITHOUT_LOGIN, f"the relay without our login, from {target.host}", target.host, None
    if is_loopback(target.host):
        yield THIS_MACHINE, "the relay, from another program on this machine", target.host, _OTHER_LOOPBACK
        for address in own:
            yield THIS_MACHINE, f"the relay at {address} port {target.port}, from this machine", address, None


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
        closed = Finding(about="way", state=State.FINE, text=f"closed: {what}: no connection")
        unknown = Finding(about="way", state=State.UNKNOWN, text=f"not known: {what}: no connection")
        return unknown if silent else closed
    code, text = said
    if not 200 <= code < 300:
        return Finding(about="way", state=State.FINE, text=f"closed: {what}: {code} {text}")
    if name in accepted:
        return Finding(
            about="way",
            state=State.ACCEPTED,
            text=f"a way around the guard, accepted by accepted_ways: {what} ({name})",
        )
    text = (
        f"a way around the guard: {what} takes mail; let it accept only the guard, or declare accepted_ways: [{name}]"
    )
    return Finding(about="way", state=State.OPEN, text=text)


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


async def _list_servers(domain: str, settings: Settings, hosts: Hosts) -> Sequence[str]:
    """Where mail for the list would go without us: its domain's mail hosts, and expanders with single addresses."""
    named = [str(net.network_address) for net in settings.expanders if net.num_addresses == 1]
    return list(dict.fromkeys([*named, *await hosts(domain)]))


async def _mail_hosts(domain: str) -> Sequence[str]:
    try:
        answer = await dns.asyncresolver.resolve(domain, "MX", lifetime=SECONDS)
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
