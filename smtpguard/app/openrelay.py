"""Check whether the running guard is an open relay, or speaks the milter protocol with unknown clients.

The guard would lend them its own address. SMTP is tried up to RCPT, as in ways.py; a milter listener up to its
first answer. The check can only use addresses of this machine; the settings say whether those are clients. What could
not be tried is reported as unknown, with the commands to find out elsewhere.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address

from smtpguard.app.finding import Finding, State
from smtpguard.app.ways import SECONDS, SOMEBODY, ask_as_stranger
from smtpguard.config.fields import is_this_machine
from smtpguard.config.settings import MilterListener, Settings, SmtpListener
from smtpguard.mail.envelope import within
from smtpguard.wire.milter.codec import encode
from smtpguard.wire.milter.packet import Negotiate

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
                    yield _judged(each, source, *said)
        yield Finding(about="clients", state=State.UNKNOWN, text=_elsewhere(each, sender, tried=tried))


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
        yield Finding(about="clients", state=State.UNKNOWN, text=text)


def _milter(each: MilterListener, source: str, *, speaks: bool) -> Finding:
    if speaks:
        said = f"open: the milter {each.called} accepts {source}, which is not its MTA, and could send messages to it as our MTA"
        return Finding(about="clients", state=State.OPEN, text=said)
    return Finding(
        about="clients",
        state=State.FINE,
        text=f"closed: the milter {each.called} does not accept {source}, which is not its MTA",
    )


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


def _judged(each: SmtpListener, source: str, code: int, text: str) -> Finding:
    if 200 <= code < 300:
        said = f"open relay: {each.called} takes mail to the outside from {source}, which is not a client and did not log in"
        return Finding(about="clients", state=State.OPEN, text=said)
    return Finding(
        about="clients",
        state=State.FINE,
        text=f"closed: {each.called} refuses {source}, which is not a client: {code} {text}",
    )


def _elsewhere(each: SmtpListener, sender: str, *, tried: bool) -> str:
    why = "" if tried else ", and this machine has no address outside clients and trust"
    if each.proxy:
        why = ", since a proxy names the client: test through it"
    tls = "--tls-on-connect " if each.tls is not None and each.tls.mode == "implicit" else ""
    return (
        f"not known: whether {each.called} takes mail from other machines{why}. Test from one that is not a client: swaks --server "
        f"THIS-MACHINE --port {each.port} {tls}--quit-after RCPT --from {sender} --to {SOMEBODY} (250 to RCPT: an open relay)"
    )
