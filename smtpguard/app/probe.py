"""Looks at the real neighbours: whether the relay does what we need of it, and whether others could go around the guard.

Nothing is ever sent: a transaction is opened, asked about, and reset before DATA. What only others can see is said so.
Never here: reading settings, or printing (cli.live).
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import dns.asyncresolver
import dns.exception

from smtpguard.app.relay import relay_target
from smtpguard.config.settings import Settings
from smtpguard.lists.declared import ListInfo, build
from smtpguard.lists.sources import SourceError, Tally, addresses
from smtpguard.lists.sources.opening import opened
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Lost
from smtpguard.policy.parse import Policy
from smtpguard.wire.handshake import open_connection, tls_context
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts, Tls

SECONDS = 10.0
_SOMEBODY = "postmaster@example.org"  # RFC 2606: an address outside that nobody has
_OTHER_LOOPBACK = "127.0.0.2"
SMTP_PORT = 25


class State(enum.Enum):
    FINE = "fine"
    WRONG = "wrong"  # what we need does not work
    OPEN = "open"  # a way around the guard
    UNKNOWN = "unknown"  # cannot be seen from here


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``about``: relay, tls, auth, sender, source or way. ``text`` is a sentence."""

    about: str
    state: State
    text: str


_NO_CONNECTION = ": no connection"
Hosts = Callable[[str], Awaitable[Sequence[str]]]
"""The mail hosts of a domain, best first."""


async def look(
    settings: Settings, policy: Policy, hosts: Hosts | None = None, own: Callable[[], Sequence[str]] | None = None
) -> AsyncIterator[Finding]:
    """Each finding as it is known. ``own``: addresses of this machine that others can reach."""
    lists, _ = build(*policy.sections(), delimiters=policy.delimiters)
    target = replace(relay_target(settings), timeouts=_patience())
    domain = sorted(name for name in policy.organization.domains if not name.startswith("*."))[0]
    silent = False
    async for finding in _relay(target, domain):
        silent = silent or (finding.about, finding.state) == ("relay", State.WRONG)
        yield finding
    for info in lists.values():
        yield await asyncio.to_thread(_sources, info, settings)
    for way in _relay_ways(target, domain, own or _own_addresses):
        found = await asyncio.to_thread(way)
        if silent and found.text.endswith(_NO_CONNECTION):  # that tells nothing of a relay that is down
            found = replace(found, state=State.UNKNOWN, text=found.text.replace("closed:", "not known:", 1))
        yield found
    for info in lists.values():
        for address in info.addresses:
            for host in await _list_servers(address.ascii_domain, settings, hosts or _mail_hosts):
                yield await asyncio.to_thread(_list_server, host, f"postmaster@{domain}", str(address))


# what we need


async def _relay(target: RelayTarget, domain: str) -> AsyncIterator[Finding]:
    name = f"the relay {target.host} port {target.port}"
    try:
        connection = await open_connection(target, tls_context(target))
    except (RelayUnavailable, OSError) as e:
        why = e.why if isinstance(e, RelayUnavailable) else str(e)
        yield Finding(about="relay", state=State.WRONG, text=f"{name} cannot be used: {why}")
        return
    yield Finding(about="relay", state=State.FINE, text=f"{name} answers and offers {', '.join(connection.extensions)}")
    yield _tls(target, connection)
    if target.user is not None:
        yield Finding(about="auth", state=State.FINE, text="the relay accepts our login")
    for sender, whose in ((f"postmaster@{domain}", "ours"), (_SOMEBODY, "anybody's"), ("", "the null reverse-path")):
        yield await _sender(connection, sender, whose)
    connection.quit()


def _tls(target: RelayTarget, connection: RelayConnection) -> Finding:
    if connection.tls:
        verified = target.tls in (Tls.REQUIRE, Tls.IMPLICIT) or target.password is not None
        how = "verified" if verified else "not verified, since it is opportunistic"
        return Finding(
            about="tls", state=State.FINE, text=f"the way to the relay is encrypted; its certificate is {how}"
        )
    return Finding(
        about="tls", state=State.FINE, text=f"the way to the relay is in clear, as tls: {target.tls.value} allows"
    )


async def _sender(connection: RelayConnection, sender: str, whose: str) -> Finding:
    """Whether a message with this reverse-path to somebody outside would be taken."""
    try:
        said = await _asked(connection, sender, _SOMEBODY)
    except Lost as e:
        return Finding(
            about="sender", state=State.WRONG, text=f"the relay ends the session at MAIL FROM:<{sender}>: {e}"
        )
    if said.positive:
        return Finding(about="sender", state=State.FINE, text=f"the relay takes mail from {whose} to the outside")
    return Finding(
        about="sender", state=State.WRONG, text=f"the relay does not take mail from {whose} to the outside: {said}"
    )


async def _asked(connection: RelayConnection, sender: str, recipient: str) -> Reply:
    """The first refusal, or the reply to RCPT. Nothing is left of it."""
    mail, rcpt = await connection.pipeline([f"MAIL FROM:<{sender}>".encode(), f"RCPT TO:<{recipient}>".encode()])
    await connection.command(b"RSET")
    return rcpt if mail.positive else mail


def _sources(info: ListInfo, settings: Settings) -> Finding:
    if not info.members:
        return Finding(about="source", state=State.UNKNOWN, text=f"the list {info.name} declares no members")
    tally = Tally()
    try:
        sources = [opened(declared, settings.policy.parent) for declared in info.members]
        people = sum(1 for source in sources for _ in addresses(source, tally))
    except SourceError as e:
        return Finding(about="source", state=State.WRONG, text=f"the list {info.name}: {e}")
    if people < info.at_least:
        text = f"the list {info.name}: its source holds {people:,} addresses, fewer than at_least: {info.at_least:,}"
        return Finding(about="source", state=State.WRONG, text=text)
    return Finding(
        about="source", state=State.FINE, text=f"the list {info.name}: its source holds {people:,} addresses"
    )


# ways around


def _relay_ways(target: RelayTarget, domain: str, own: Callable[[], Sequence[str]]) -> Iterable[Callable[[], Finding]]:
    """Whether the relay takes mail from others than us, as far as we can play others."""
    sender = f"postmaster@{domain}"
    if target.user is not None:
        yield lambda: _way(f"the relay without our login, from {target.host}", target, target.host, None, sender)
    if _is_loopback(target.host):
        yield lambda: _way(
            "the relay, from another program on this machine", target, target.host, _OTHER_LOOPBACK, sender
        )
        for address in own():
            yield lambda address=address: _way(  # type: ignore[misc]
                f"the relay, from the network at {address} port {target.port}", target, address, None, sender
            )
    else:
        text = f"whether {target.host} relays for others than this machine can be seen only from another machine"
        yield lambda: Finding(about="way", state=State.UNKNOWN, text=text)


def _way(what: str, target: RelayTarget, host: str, source: str | None, sender: str) -> Finding:
    said = _ask_as_stranger(host, target.port, source, sender, _SOMEBODY, implicit_tls=target.tls is Tls.IMPLICIT)
    return _judged(what, said)


def _list_server(host: str, sender: str, list_address: str) -> Finding:
    what = f"the list server {host}, with {list_address}"
    return _judged(what, _ask_as_stranger(host, SMTP_PORT, None, sender, list_address))


def _judged(what: str, said: tuple[int, str] | None) -> Finding:
    if said is None:
        return Finding(about="way", state=State.FINE, text=f"closed: {what}{_NO_CONNECTION}")
    code, text = said
    if 200 <= code < 300:
        return Finding(
            about="way", state=State.OPEN, text=f"open: {what}: it takes the mail; let it hear the guard alone"
        )
    return Finding(about="way", state=State.FINE, text=f"closed: {what}: {code} {text}")


def _ask_as_stranger(
    host: str, port: int, source: str | None, sender: str, recipient: str, *, implicit_tls: bool = False
) -> tuple[int, str] | None:
    """What somebody without our login hears at RCPT. None: there is no way in."""
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
    """Where mail for the list would go without us: its domain's mail hosts, and expanders that are named one by one."""
    named = [str(net.network_address) for net in settings.expanders if net.num_addresses == 1]
    return list(dict.fromkeys([*named, *await hosts(domain)]))


async def _mail_hosts(domain: str) -> Sequence[str]:
    try:
        answer = await dns.asyncresolver.resolve(domain, "MX", lifetime=SECONDS)
    except (dns.exception.DNSException, OSError):
        return ()
    best = sorted(answer, key=lambda record: record.preference)
    return [str(record.exchange).rstrip(".") for record in best if str(record.exchange) != "."]


def _own_addresses() -> list[str]:
    """This machine's addresses that others can reach, as far as its own name tells."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found if not _is_loopback(str(entry[4][0]))})


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _patience() -> Timeouts:
    return Timeouts(connect=SECONDS, greeting=SECONDS, command=SECONDS)
