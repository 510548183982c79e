"""The settings of the listeners for mail, and of who may connect to each.

A listener relays for every client that may connect, and the relay trusts the guard more than an unknown client. So a
listener that other machines reach must name its clients or require a login. One on loopback serves this machine unless
it says more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from smtpguard.config.durations import Rate, RateField
from smtpguard.config.fields import FilePath, Host, Network, Networks, Port, is_this_machine
from smtpguard.config.problem import Invalid, Problem
from smtpguard.config.validation import Section
from smtpguard.config.yaml import Document

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?\Z")


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise Invalid(f'"{text}" is not a valid name of a listener', "letters, digits, hyphens, dots and underscores")
    return text


def _somebody(networks: tuple[Network, ...] | None) -> tuple[Network, ...] | None:
    if networks == ():
        raise Invalid("clients is empty, so no client could connect", "addresses or networks; or leave clients out")
    return networks


ListenerName = Annotated[str, AfterValidator(_name)]
Clients = Annotated[Networks | None, AfterValidator(_somebody)]


class Certificate(Section):
    certificate: FilePath
    key: FilePath


class ServerTls(Certificate):
    mode: Literal["starttls", "implicit"] = "starttls"
    required: bool = False


class ServerAuth(Section):
    required: bool = True
    without_tls: bool = False


def _some(limit: Rate) -> Rate:
    if limit.count < 1:
        raise Invalid("this limit would stop all mail", 'at least 1, like "600 in 1m"')
    return limit


AtMost = Annotated[RateField, AfterValidator(_some)]


class SenderRates(Section):
    messages: AtMost | None = None
    recipients: AtMost | None = None


class Rates(Section):
    client: SenderRates = SenderRates()
    login: SenderRates = SenderRates()

    @property
    def any(self) -> bool:
        return self != Rates()


class SmtpListener(Section):
    address: Host = "127.0.0.1"
    port: Port = 10025
    name: ListenerName | None = None
    clients: Clients = None
    tls: ServerTls | None = None
    senders_verified: bool = False
    auth: ServerAuth | None = None
    proxy: bool = False
    rates: Rates = Rates()

    @model_validator(mode="after")
    def _can_log_in(self) -> SmtpListener:
        if self.auth is not None and self.tls is None and not self.auth.without_tls:
            raise Invalid("no client could log in: this listener has no TLS", "tls, or auth: {without_tls: true}")
        return self

    @property
    def called(self) -> str:
        return self.name or place(self.address, self.port)

    @property
    def proves_senders(self) -> bool:
        """Whether the listener can prove who sends."""
        return self.senders_verified or self.auth is not None

    @property
    def admitted(self) -> tuple[Network, ...] | None:
        """The networks that may connect. None: all may, since no mail is taken before a login."""
        if self.clients is not None:
            return self.clients
        return None if self.auth is not None and self.auth.required else LOOPBACK

    def lacks_clients(self, bound: str | None = None) -> bool:
        """Return whether other machines reach the listener although it neither names its clients nor requires a login.
        ``bound``: the address to which a service manager has bound its socket."""
        near = is_this_machine(bound or self.address) and not self.proxy
        return not near and self.clients is None and self.admitted is not None


def _permissions(value: Any) -> Any:
    """Take octal digits with or without quotes. YAML 1.2 reads 0660 as the decimal number 660."""
    text = str(value).zfill(4) if not isinstance(value, bool) else ""
    if not re.fullmatch("0[0-7]{3}", text):
        raise Invalid(f'"{value}" is not a file mode', 'octal digits, like "0660"')
    return text


class MilterListener(Section):
    """A listener for MTAs. On a Unix socket, ``mode`` and ``group`` say who may connect."""

    address: Host = "127.0.0.1"
    port: Port | None = None
    name: ListenerName | None = None
    clients: Clients = None
    unix: FilePath | None = None
    mode: Annotated[str, BeforeValidator(_permissions)] = "0660"
    group: str | None = Field(default=None, min_length=1)
    senders_verified: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> MilterListener:
        if (self.port is None) == (self.unix is None):
            raise Invalid("a milter listener has either an address or a Unix socket", "address and port, or unix")
        if self.unix is None and self.model_fields_set & {"mode", "group"}:
            raise Invalid("mode and group are for a Unix socket", "unix")
        if self.unix is not None and self.clients is not None:
            raise Invalid("clients cannot be checked on a Unix socket: it has no addresses", "mode and group")
        return self

    @property
    def called(self) -> str:
        return self.name or (str(self.unix) if self.unix is not None else place(self.address, self.port or 0))

    @property
    def proves_senders(self) -> bool:
        return self.senders_verified

    @property
    def admitted(self) -> tuple[Network, ...] | None:
        """The networks of the MTAs that may connect. None: a Unix socket, where permissions decide."""
        return None if self.unix is not None else self.clients if self.clients is not None else LOOPBACK

    def lacks_clients(self, bound: str | None = None) -> bool:
        """Return the same as for an SMTP listener."""
        return self.unix is None and self.clients is None and not is_this_machine(bound or self.address)


class Listen(Section):
    smtp: list[SmtpListener] = Field(default=[SmtpListener()], title="listeners")
    milter: list[MilterListener] = Field(default=[], title="listeners")

    def each(self) -> Iterator[tuple[str, int, SmtpListener | MilterListener]]:
        """Yield every listener with its place in the file: "smtp" or "milter", and its index there."""
        yield from (("smtp", n, listener) for n, listener in enumerate(self.smtp))
        yield from (("milter", n, listener) for n, listener in enumerate(self.milter))


def place(address: str, port: int) -> str:
    """Return address and port as text: "127.0.0.1:25" or "[::]:25"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def open_to_all(document: Document, listen: Listen, trust: Iterable[Network]) -> Iterator[Problem]:
    """Yield a problem for each listener that other machines reach although it neither names clients nor requires a login."""
    for kind, n, listener in listen.each():
        if listener.lacks_clients():
            yield lacking(document, (kind, n), listener, trust)


def lacking(
    document: Document,
    at: tuple[str, int],
    listener: SmtpListener | MilterListener,
    trust: Iterable[Network],
    bound: str | None = None,
) -> Problem:
    """Return the problem of such a listener, with the line to add. ``at``: its place, as in ``Listen.each``. ``trust``: the
    trusted networks, which are probably its clients. ``bound``: the address to which a service manager has bound it."""
    proxied = isinstance(listener, SmtpListener) and listener.proxy
    trusted = [] if proxied else [network_text(network) for network in trust]  # behind a proxy, this is the proxy
    if bound is not None:
        reached = f"systemd has bound {listener.called} to {bound}, so other machines reach it"
    else:
        reached = f"{listener.called} is behind a proxy" if proxied else f"other machines reach {listener.called}"
    if isinstance(listener, MilterListener):
        text = f"{reached}, and it has no clients, so any host could connect"
    else:
        text = f"{reached}, and it has neither clients nor auth, so anyone could send"
    if trusted:
        text += "; trust does not allow a client to connect"
    line = f"clients: [{', '.join(json.dumps(text) for text in trusted or ['192.0.2.0/24'])}]"
    line += "" if trusted else " with your own networks"
    if isinstance(listener, SmtpListener):
        line += ", or auth: {required: true}" if listener.auth is not None else ", or auth: {}"
    return document.problem(("listen", *at), text, line)


def network_text(network: Network) -> str:
    """Return a network as text, a single address without its prefix length."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)
