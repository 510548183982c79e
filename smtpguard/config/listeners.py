"""The settings of what is served: the listeners of mail, with the place of each, and who may connect to it; and everything
that speaks HTTP: console, single sign-on, webhooks, metrics.

A listener relays for every client that may connect, and the relay trusts the guard more than an unknown client. So a
listener that other machines reach must name its clients or require a login. One on loopback serves this machine unless
it says more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from smtpguard.config.durations import Rate, RateField, Seconds
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
        """Whether it can prove who sends."""
        return self.senders_verified or self.auth is not None

    @property
    def admitted(self) -> tuple[Network, ...] | None:
        """The networks that may connect; None: all, since no mail is taken before a login."""
        if self.clients is not None:
            return self.clients
        return None if self.auth is not None and self.auth.required else LOOPBACK

    def lacks_clients(self, bound: str | None = None) -> bool:
        """Whether other machines reach it although it neither names its clients nor requires a login. ``bound``: the
        address that a service manager has bound its socket to."""
        near = is_this_machine(bound or self.address) and not self.proxy
        return not near and self.clients is None and self.admitted is not None


def _permissions(value: Any) -> Any:
    """Octal digits, with or without quotes: YAML 1.2 reads 0660 as a decimal number; its digits are used."""
    text = str(value).zfill(4) if not isinstance(value, bool) else ""
    if not re.fullmatch("0[0-7]{3}", text):
        raise Invalid(f'"{value}" is not a file mode', 'octal digits, like "0660"')
    return text


class MilterListener(Section):
    """On a Unix socket, ``mode`` and ``group`` say which MTA may connect."""

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
        """The MTAs that may connect; None for a Unix socket, where permissions decide."""
        return None if self.unix is not None else self.clients if self.clients is not None else LOOPBACK

    def lacks_clients(self, bound: str | None = None) -> bool:
        """Like that of an SMTP listener."""
        return self.unix is None and self.clients is None and not is_this_machine(bound or self.address)


class Listen(Section):
    smtp: list[SmtpListener] = Field(default=[SmtpListener()], title="listeners")
    milter: list[MilterListener] = Field(default=[], title="listeners")

    def each(self) -> Iterator[tuple[str, int, SmtpListener | MilterListener]]:
        """Every listener with its place in the file: ``smtp`` or ``milter``, and its index there."""
        yield from (("smtp", n, listener) for n, listener in enumerate(self.smtp))
        yield from (("milter", n, listener) for n, listener in enumerate(self.milter))


def place(address: str, port: int) -> str:
    """``127.0.0.1:25`` or ``[::]:25``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def open_to_all(document: Document, listen: Listen, trust: Iterable[Network]) -> Iterator[Problem]:
    """Listeners that other machines reach although they neither name clients nor require a login."""
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
    """The problem of such a listener, with the line to add. ``at``: its place, as in ``Listen.each``. ``trust``: the
    networks that the settings trust, probably the clients. ``bound``: the place that a service manager has bound it to.
    """
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
    """A single address without its prefix length."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _web(url: str) -> str:
    parts = urlsplit(url := url.strip())
    if url and (parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment):
        raise Invalid("not a valid http(s) URL", 'a url like "https://guard.example.com"')
    if parts.path not in ("", "/") or parts.username is not None:  # every page is at the root of its host
        raise Invalid("the console's url must not have a path", f'a url like "{parts.scheme}://{parts.hostname}"')
    return url


def _not_ours(name: str) -> str:
    """The log has a journal position beside those of the webhooks, under such a name."""
    if name.startswith("("):
        raise Invalid("names in parentheses are reserved", "another name")
    return name


def secret_place(url: str) -> str:
    """Data sent there must not be readable on the way: https, or this machine."""
    parts = urlsplit(url := url.strip())
    host = parts.hostname or ""
    if parts.scheme != "https" and not (parts.scheme == "http" and is_this_machine(host)):
        raise Invalid("not an https url", 'a url like "https://host.example.com"')
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise Invalid("not a url with a host and without a password", 'a url like "https://host.example.com"')
    return url


RoleName = Literal["viewer", "approver", "operator", "admin"]


class ConsoleSession(Section):
    idle: Seconds = 2 * 3600
    longest: Seconds = 12 * 3600


def _role_lists(value: Any) -> Any:
    """One role need not be in a list."""
    if isinstance(value, Mapping):
        return {group: [roles] if isinstance(roles, str) else roles for group, roles in value.items()}
    return value


class Oidc(Section):
    """Single sign-on. People in none of the ``groups`` are not let in."""

    issuer: Annotated[str, AfterValidator(secret_place)]
    client_id: str = Field(min_length=1)
    client_secret_file: FilePath | None = None
    groups: Annotated[
        dict[str, list[RoleName]],
        BeforeValidator(_role_lists, json_schema_input_type=dict[str, RoleName | list[RoleName]]),
    ] = Field(min_length=1)
    groups_claim: str = Field(default="groups", min_length=1)
    scopes: list[str] = Field(default=["openid", "email", "profile"])
    title: str = ""
    unverified_addresses: bool = False


class SecondFactor(Section):
    required_for: list[RoleName] = Field(default_factory=list)


class Console(Section):
    """Without ``url`` notices have no link, and single sign-on does not work."""

    address: Host = "127.0.0.1"
    port: Port = 8025
    url: Annotated[str, AfterValidator(_web)] = ""
    tls: Certificate | None = None
    proxies: Networks = ()
    session: ConsoleSession = ConsoleSession()
    oidc: Oidc | None = None
    second_factor: SecondFactor = SecondFactor()
    guide: Literal["signed-in", "open"] = "signed-in"

    @model_validator(mode="after")
    def _reachable(self) -> Console:
        if self.oidc is not None and not self.url:
            raise Invalid("single sign-on needs the console's url", "url: beside oidc:")
        return self


def _feed(url: str) -> str:
    parts = urlsplit(url := url.strip())
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.fragment:
        raise Invalid("no url of a feed", 'a url like "https://news.example.com/rss"')
    return url


SourceName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]+$")]


class Feed(Section):
    name: SourceName
    url: Annotated[str, AfterValidator(_feed)]


class Monitoring(Section):
    name: SourceName
    secret_file: FilePath


class Mentions(Section):
    feeds: list[Feed] = Field(default=[], max_length=50)
    every: Seconds = 900
    webhook: Monitoring | None = None


class Metrics(Section):
    """Where metrics are scraped, without a login."""

    address: Host = "127.0.0.1"
    port: Port = 9125


class Webhook(Section):
    url: Annotated[str, AfterValidator(secret_place)]
    secret_file: FilePath
    events: list[Literal["message.held", "message.decided", "freeze.set", "freeze.lifted", "list.stale"]] = Field(
        min_length=1
    )
    name: Annotated[str, AfterValidator(_not_ours)] = Field(default="", max_length=100)
    format: Literal["json", "slack", "teams"] = "json"
    personal: bool = False
    special: bool = False

    @property
    def known_as(self) -> str:
        """Its name. Without a name its host and a digest of the URL: the path of a webhook is often a secret itself."""
        mark = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return self.name or f"{urlsplit(self.url).hostname} {mark}"


def named_once(hooks: list[Webhook]) -> list[Webhook]:
    """Each is identified by its name, or by its url."""
    if len({hook.name or hook.url for hook in hooks}) < len(hooks):
        raise Invalid("two webhooks have the same name, or the same url and no name", "a different name: for each")
    return hooks
