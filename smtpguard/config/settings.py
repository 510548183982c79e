"""The daemon's settings in smtpguard.yaml. Every key has a safe default.

Paths are relative to the file, and absolute in the model. Secrets are in files of their own: a literal password is an
error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from smtpguard.config.durations import Delay, Seconds, Span, WorkingSpan
from smtpguard.config.fields import Delimiters, FilePath, Host, Networks, RelayPort, domain_pattern, is_this_machine
from smtpguard.config.listeners import Listen
from smtpguard.config.problem import Broken, Invalid, Problem, did_you_mean, one_of
from smtpguard.config.validation import Section, validate
from smtpguard.config.web import Console, Mentions, Metrics, SecretPlace, Webhook, named_once
from smtpguard.config.yaml import Document, load_yaml

_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)+\Z"
)


def is_host_name(text: str) -> bool:
    return _HOST_NAME.match(text) is not None


def _host_name(text: str) -> str:
    name = text.strip().removesuffix(".")
    if not is_host_name(name):
        raise Invalid(f'"{text}" is no host name', "a name with its domain, like mail.example.com")
    return name.lower()


class RelayAuth(Section):
    user: str = Field(min_length=1)
    password_file: FilePath


class AnyRelay(Section):
    """A relay: the guarded one, or one besides it."""

    host: str = Field(min_length=1)
    port: RelayPort = 25
    tls: Literal["none", "opportunistic", "require", "implicit"] = "opportunistic"
    auth: RelayAuth | None = None
    server_name: str | None = None
    ca_file: FilePath | None = None

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.auth is not None and self.tls == "none":
            raise Invalid("a password would go to the relay in clear", "tls: require, implicit or opportunistic")
        return self


class FallbackRelay(AnyRelay):
    """Tried if the relay, and each fallback before it, cannot be used."""


class Relay(AnyRelay):
    host: str = Field(default="127.0.0.1", min_length=1)
    port: RelayPort = 10026
    clients_without_tls: bool = False
    names: list[Annotated[str, AfterValidator(_host_name)]] = Field(default=[], title="name")
    client_certificate: FilePath | None = None
    client_key: FilePath | None = None
    connections: int = Field(default=20, ge=1, le=10_000)
    messages_per_connection: int = Field(default=100, ge=1)
    idle_seconds: float = Field(default=30, gt=0)
    wait_seconds: float = Field(default=120, gt=0, le=300)
    client_share: float = Field(default=0.5, gt=0, le=1)
    chunking: bool = True
    fallbacks: list[FallbackRelay] = Field(default=[], max_length=10, title="fallback relay")

    @model_validator(mode="after")
    def _whole(self) -> Relay:
        if (self.client_certificate is None) != (self.client_key is None):
            raise Invalid(
                "a client certificate needs a key, and a key needs a certificate", "client_certificate and client_key"
            )
        return self


class RouteRelay(Relay):
    host: str = Field(min_length=1)
    port: RelayPort = 25


_ROUTE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z")


def _route_name(text: str) -> str:
    if not _ROUTE_NAME.match(text) or text == "default":
        raise Invalid(f'"{text}" is not a name of a route', "lower-case letters, digits and hyphens; not default")
    return text


class Route(Section):
    """Another relay for some of the mail: for the recipients that match all that it names."""

    name: Annotated[str, AfterValidator(_route_name)]
    listeners: list[str] = Field(default=[], title="listener")
    lists: list[str] = Field(default=[], title="list")
    domains: list[Annotated[str, BeforeValidator(domain_pattern)]] = Field(default=[], title="domain")
    relay: RouteRelay

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not (self.listeners or self.lists or self.domains):
            raise Invalid("this route matches nothing", "listeners, lists or domains")
        return self

    def takes(self, listener: str, of_list: str, domain: str) -> bool:
        """Whether the route matches a recipient. ``of_list``: the list that has its address, "" for none; ``domain``: its
        domain, in A-labels and lower case."""
        return (
            (not self.listeners or listener in self.listeners)
            and (not self.lists or of_list in self.lists)
            and (not self.domains or any(_covers(each, domain) for each in self.domains))
        )


def _covers(pattern: str, domain: str) -> bool:
    return domain.endswith(pattern[1:]) if pattern.startswith("*.") else domain == pattern


def _routes(routes: list[Route]) -> list[Route]:
    names = [route.name for route in routes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Invalid(f'two routes are called "{twice}"', "a name of its own for each")
    return routes


_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def _database(url: str) -> str:
    if url.partition(":")[0].partition("+")[0] not in ("sqlite", "postgresql"):
        raise Invalid(
            "not a database that smtpguard supports", 'a url like "sqlite:///var/smtpguard.db" or "postgresql://..."'
        )
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        raise Invalid(
            "not the url of a database", 'a url like "postgresql://smtpguard@db.example.com/smtpguard"'
        ) from None
    places = parts.netloc.rpartition("@")[2].split(",")
    if parts.scheme.startswith("sqlite"):
        if parts.netloc or parts.path.strip("/") in ("", ":memory:"):
            text = (
                "an SQLite url must not name a server"
                if parts.netloc
                else "a store in memory is lost when its process ends"
            )
            raise Invalid(
                text, 'three slashes and a relative path, like "sqlite:///var/smtpguard.db"; four for an absolute one'
            )
    elif len(places) > 1 and not all(map(_SERVER.fullmatch, places)):
        wrong = next(place for place in places if not _SERVER.fullmatch(place))
        raise Invalid(f'"{wrong}" is no server', 'servers like "one.example.com:5432,two.example.com"')
    if password is not None or "password=" in url:
        raise Invalid("the url holds a password in clear", "the url without it, and password_file")
    return url


class Store(Section):
    url: Annotated[str, AfterValidator(_database)] = "sqlite:///var/smtpguard.db"
    password_file: FilePath | None = None


class JournalSettings(Section):
    """``front``: whether a verdict that is written alone is recorded in a file of its process first, and moved into the
    database within 100 ms. PostgreSQL has none."""

    front: Literal["on", "off"] = "on"


AlarmName = Literal[
    "store-put-back", "frozen", "store-away", "state-full", "bypass", "start-fails", "clock-jumped", "relay-away", "deferring", "slow", "not-enforced", "policy-unreadable", "policy-differs", "part-away",
    "certificate-ends-now", "certificate-ends", "certificate-unusable", "list-stale", "webhook-behind", "checkpoints-refused", "rule-calls", "breaker", "breaker-observed",
]  # fmt: skip
"""The table is in observe.alarms."""


class Notices(Section):
    from_: str = Field(default="Mail guard <smtpguard@localhost>", alias="from")
    contact: str = ""
    templates: FilePath | None = None


class AlarmRelay(AnyRelay):
    """A relay that takes mail for ``notices: {contact}`` even if the guarded relay does not: another host, or another
    port."""


class AlarmWebhook(Section):
    """Gets alarms only, signed like other webhooks. They never name a person."""

    url: SecretPlace
    secret_file: FilePath
    format: Literal["json", "slack", "teams"] = "json"


def _heard(quiet: list[AlarmName]) -> list[AlarmName]:
    if "bypass" in quiet:
        raise Invalid("the alarm about a bypass is always sent", "other alarms")
    return quiet


class AlarmSettings(Section):
    """The second way for alarms, which needs neither the store nor the guarded relay."""

    relay: AlarmRelay | None = None
    webhook: AlarmWebhook | None = None
    quiet: Annotated[list[AlarmName], AfterValidator(_heard)] = Field(default=[], title="alarm")


_MAILBOX = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\Z")


def _own_address(text: str) -> str:
    if text and not _MAILBOX.match(text):
        raise Invalid(f'"{text}" is no address', 'an address like "approve@guard.example.com"')
    return text


OwnAddress = Annotated[str, AfterValidator(_own_address)]


def _two(people: list[str]) -> list[str]:
    if people and len({person.lower() for person in people}) < 2:
        raise Invalid("one person alone could begin a bypass", "the addresses of two people or more")
    return people


class BypassSettings(Section):
    people: Annotated[list[OwnAddress], AfterValidator(_two)] = Field(default=[], title="person")


class Limits(Section):
    recipients: int = Field(default=1000, ge=1, le=100_000)
    message_mb: int = Field(default=50, ge=1, le=2000)
    line_octets: int = Field(default=1 << 20, ge=1000)
    connections: int = Field(default=2000, ge=1)
    per_client: int = Field(default=100, ge=1)
    idle_seconds: float = Field(default=300, ge=1)
    transaction_seconds: float = Field(default=1200, ge=10)


class FreezeSettings(Section):
    answer: Literal["hold", "defer"] = "hold"
    thaw: Literal["one", "two"] = "one"


_MOST_REPLY_LOCAL = 11
"""With a sign and a token (holds.replying) it has 64 octets, the most by RFC 5321 section 4.5.3.1.1."""


def _short(text: str) -> str:
    if len(text.partition("@")[0]) > _MOST_REPLY_LOCAL:
        raise Invalid(f'"{text}" leaves no room for a token', f"at most {_MOST_REPLY_LOCAL} characters before the @")
    return text


class HoldSettings(Section):
    expires: WorkingSpan = Span(24 * 3600, working=True)
    escalate_after: Seconds = 3600
    quota_gb: float = Field(default=20, gt=0)
    copies: int = Field(default=500, ge=0)
    approve_at: OwnAddress = ""
    reply_at: Annotated[OwnAddress, AfterValidator(_short)] = ""
    approval_lasts: Seconds = 7 * 86400
    rejection_lasts: Seconds = 86400
    release_delay: Delay = 60

    @property
    def quota(self) -> int:
        """In octets."""
        return max(1, int(self.quota_gb * (1 << 30)))

    @model_validator(mode="after")
    def _apart(self) -> HoldSettings:
        if self.reply_at and self.reply_at.lower() == self.approve_at.lower():
            raise Invalid("reply_at is approve_at", "two addresses")
        return self


def _long_enough(seconds: float) -> float:
    """Questions about an incident may come weeks later."""
    if seconds < 30 * 86400:
        raise Invalid("the journal must be kept at least 30 days", "30d or more")
    return seconds


class Retention(Section):
    """A shorter time takes effect a day later (store.retention)."""

    content: Seconds = 30 * 86400
    addresses: Seconds = 90 * 86400
    journal: Annotated[Seconds, AfterValidator(_long_enough)] = 400 * 86400


class Witness(Section):
    """A service that keeps each signed checkpoint on another host."""

    url: SecretPlace
    token_file: FilePath | None = None


def _authority(url: str) -> str:
    """http is allowed: a request has nothing secret, the reply is signed, and most authorities use http."""
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.password is not None):
        raise Invalid("not a url with a host and without a password", 'a url like "http://timestamp.example.com"')
    return url


class Timestamps(Section):
    """A time-stamp authority (RFC 3161)."""

    url: Annotated[str, AfterValidator(_authority)] = ""
    ca_file: FilePath
    every: Seconds = 3600


def _syslog(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.path.strip("/") if parts.scheme == "unix" else parts.hostname
        _ = parts.port
    except ValueError:
        whole = ""
    if not whole or parts.scheme not in ("unix", "udp", "tcp"):
        raise Invalid(f'"{url}" is no syslog server', '"unix:///dev/log", "udp://log.example.com:514" or "tcp://..."')
    return url


class Audit(Section):
    witness: Witness | None = None
    syslog: Annotated[str, AfterValidator(_syslog)] | None = None
    mail: OwnAddress = ""
    timestamps: Timestamps | None = None
    approvers: bool = False

    @property
    def receivers(self) -> tuple[str, ...]:
        """The keys of those outside that get checkpoints at once."""
        stamps = self.timestamps is not None and self.timestamps.url
        given = {"witness": self.witness, "syslog": self.syslog, "timestamps": stamps}
        return tuple(key for key, one in given.items() if one)


class ReturnsSettings(Section):
    addresses: list[OwnAddress] = Field(default=[])


class Nothing(Section):
    """An empty section counts as missing."""


class DkimSign(Section):
    domain: str = Field(min_length=1)
    selector: str = Field(min_length=1)
    key_file: FilePath


class Resolver(Section):
    nameservers: list[Host] = Field(default=[])
    timeout_seconds: float = Field(default=5, gt=0, le=60)


class Logging(Section):
    format: Literal["auto", "json", "text"] = "auto"
    addresses: Literal["clear", "masked"] = "clear"


def _commands(value: Any) -> Any:
    """A command is a sequence of words. A single one need not be in a sequence of commands."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(word, str) for word in value):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise Invalid("no command", "a list of words, or a list of such lists")
    for command in value:
        if not isinstance(command, (list, tuple)) or not command or not all(isinstance(w, str) and w for w in command):
            raise Invalid("no command", 'a list of words, like ["/usr/sbin/postsuper", "-h", "ALL"]')
    return tuple(tuple(command) for command in value)


Commands = Annotated[
    tuple[tuple[str, ...], ...],
    BeforeValidator(_commands),
    WithJsonSchema({"type": "array", "items": {"type": ["string", "array"], "items": {"type": "string"}}}),
]


class Settings(Section):
    """The whole file. ``freeze_hook`` and ``thaw_hook`` run without a shell."""

    hostname: str = ""
    listen: Listen = Listen()
    trust: Networks = ()
    relay: Relay = Relay()
    routes: Annotated[list[Route], AfterValidator(_routes)] = Field(default=[], max_length=50)
    expanders: Networks = ()
    accepted_ways: list[Literal["this-machine", "without-login", "list-servers"]] = Field(default=[], title="way")
    store: Store = Store()
    journal: JournalSettings = JournalSettings()
    policy: FilePath = Field(default=Path("policy.yaml"), validate_default=True)
    state: FilePath = Field(default=Path("var"), validate_default=True)
    secret_file: FilePath = Field(default=Path("var/secret"), validate_default=True)
    notices: Notices = Field(default_factory=lambda: Notices.model_validate({}))
    console: Console | None = None
    webhooks: Annotated[list[Webhook], AfterValidator(named_once)] = Field(default=[])
    metrics: Metrics | None = None
    returns: ReturnsSettings = ReturnsSettings()
    mentions: Mentions = Mentions()
    alarms: AlarmSettings = AlarmSettings()
    bypass: BypassSettings = BypassSettings()
    limits: Limits = Limits()
    freeze: FreezeSettings = FreezeSettings()
    freeze_hook: Commands = ()
    thaw_hook: Commands = ()
    hold: HoldSettings = HoldSettings()
    retention: Retention = Retention()
    audit: Audit = Audit()
    dkim_sign: Annotated[
        DkimSign | None, BeforeValidator(lambda v: v or None, json_schema_input_type=DkimSign | Nothing | None)
    ] = None
    dkim_keys: dict[str, str] = Field(default={})
    resolver: Resolver = Resolver()
    authserv_ids: list[str] = Field(default=[])
    delimiters: Delimiters = "+"
    logging: Logging = Logging()
    workers: int = Field(default=0, ge=0, le=256)

    @model_validator(mode="after")
    def _front(self) -> Settings:
        if any(each.proxy for each in self.listen.smtp) and not self.trust:
            raise Invalid("a listener says proxy: true, and trust names no proxy", "trust: the proxy's address")
        asked = "front" in self.journal.model_fields_set and self.journal.front == "on"
        if asked and not self.store.url.startswith("sqlite"):
            raise Invalid("only an SQLite store can have a front", "journal: {front: off}, or a store in SQLite")
        called = {each.called for _, _, each in self.listen.each()}
        for route in self.routes:
            if unknown := [name for name in route.listeners if name not in called]:
                text = f'route {route.name}: there is no listener "{unknown[0]}"'
                raise Invalid(text, one_of(sorted(called)), did_you_mean(unknown[0], sorted(called)))
        if any(_in_clear(self.relay_of(each.called)) for each in self.listen.smtp if each.auth):
            text = "a listener has auth, and the clients' passwords would go to the relay in clear"
            raise Invalid(text, "relay: {tls: require or implicit}, or clients_without_tls: true")
        return self

    def route(self, listener: str, of_list: str = "", domain: str = "") -> str:
        """The name of the first route that takes a recipient, a key of ``relays``; see Route.takes. "": it goes to
        ``relay``. ``listener``: "" for the guard's own mail."""
        return next((route.name for route in self.routes if route.takes(listener, of_list, domain)), "")

    def relay_of(self, listener: str) -> Relay:
        """The relay of a listener for all recipients without a route of their own; its clients log in there."""
        return self.relays[self.route(listener)]

    @property
    def relays(self) -> Mapping[str, Relay]:
        """All relays: ``relay`` as "", and each route's by its name."""
        return {"": self.relay, **{route.name: route.relay for route in self.routes}}

    @property
    def console_url(self) -> str:
        """The console's address for people, without a final slash; links use it, never Host. "" for none."""
        return self.console.url.rstrip("/") if self.console is not None else ""


def _in_clear(relay: Relay) -> bool:
    hosts: tuple[AnyRelay, ...] = (relay, *relay.fallbacks)
    return not relay.clients_without_tls and any(
        each.tls == "none" and not is_this_machine(each.host) for each in hosts
    )


def read_settings(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in this file. Raises Broken with every problem, an unreadable file included."""
    try:
        document = load_yaml(path)
    except OSError as e:
        raise Broken([Problem(str(path), 1, 1, f"cannot be read: {e.strerror or e}")]) from None
    if not document.value:  # an editor or a full disk has emptied it: the defaults are another store and another relay
        raise Broken([document.problem((), "the file has no settings", "at least one key, such as relay")])
    return settings_of(document, path.parent, environ)


def settings_of(document: Document, base: Path, environ: Mapping[str, str]) -> Settings:
    """``base``: the folder that relative paths start from. Raises Broken."""
    base = base.absolute()
    found = validate(document, Settings, {"base": base, "environ": environ})
    return found.model_copy(update={"store": found.store.model_copy(update={"url": _absolute(found.store.url, base)})})


def _absolute(url: str, base: Path) -> str:
    """A SQLite URL with an absolute path; other URLs are unchanged."""
    head, slashes, path = url.partition(":///")
    if not head.startswith("sqlite") or not slashes or not path or path.startswith(("/", ":memory:", "file:")):
        return url
    return f"{head}:///{base / path}"


STORE = frozenset({"store", "state", "secret_file", "delimiters"})
"""Keys that opening the store needs."""
_KEY = re.compile(rb"""(["']?)([A-Za-z_]+)\1[ \t]*:(?:\s|$)""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """The lines of one top-level key, from ``first`` on; ``key`` is "" before the first key."""

    key: str
    first: int
    lines: tuple[bytes, ...]

    def has(self, line: int) -> bool:
        return self.first <= line < self.first + len(self.lines)


def read_needed(path: Path, needed: Collection[str]) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings as far as they can be read, and the problems of what was left out. The file is split at its top-level
    keys. Keys with a mistake are left out; if that does not help, all keys that are not needed are.

    Raises Broken if a key in ``needed`` has a mistake, or a key with a similar name: a freeze of the wrong store would be
    worse than none."""
    try:
        return read_settings(path), ()
    except Broken as e:
        broken = e
    try:
        blocks = _blocks(path.read_bytes())
    except OSError:
        raise broken from None
    if not any(block.key for block in blocks):
        raise broken
    bad = [
        block for block in blocks if any(block.has(problem.line) for problem in broken.problems) or not _is_yaml(block)
    ]
    necessary = [block for block in blocks if block.key in needed]
    for kept in ([block for block in blocks if block not in bad or block in necessary], necessary):
        if any(_may_be_meant(block, needed) for block in blocks if block not in kept):
            raise broken
        text = _only(blocks, kept)
        try:
            return settings_of(load_yaml(text, str(path)), path.parent, os.environ), broken.problems
        except Broken as e:
            again = e
    raise again


def _blocks(text: bytes) -> list[_Block]:
    lines = text.splitlines(keepends=True)
    keys = [(n, found[2].decode()) for n, line in enumerate(lines) if (found := _KEY.match(line)) is not None]
    begun = [(0, ""), *keys, (len(lines), "")]
    return [_Block(key=key, first=n + 1, lines=tuple(lines[n:end])) for (n, key), (end, _) in pairwise(begun)]


def _is_yaml(block: _Block) -> bool:
    try:
        load_yaml(b"".join(block.lines))
    except Broken:
        return False
    return True


def _only(blocks: Collection[_Block], kept: Collection[_Block]) -> bytes:
    """Other lines are emptied, so that positions stay the same."""
    return b"".join(b"".join(block.lines) if block in kept else b"\n" * len(block.lines) for block in blocks)


def _may_be_meant(block: _Block, needed: Collection[str]) -> bool:
    """Whether a block that is left out looks like a needed key: "stroe: {...}", or a line without its colon."""
    if block.key and block.key not in Settings.model_fields and get_close_matches(block.key, needed, 1, 0.75):
        return True
    lines = block.lines[1:] if block.key else block.lines
    names = b"|".join(name.encode() for name in needed)
    return any(re.match(rb"[\"']?(?:%b)\b" % names, line) for line in lines)
