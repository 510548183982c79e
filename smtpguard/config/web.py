"""The settings of everything that speaks HTTP: console, single sign-on, webhooks, feeds, metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from smtpguard.config.durations import Seconds
from smtpguard.config.fields import FilePath, Host, Networks, Port, is_this_machine
from smtpguard.config.listeners import Certificate
from smtpguard.config.problem import Invalid
from smtpguard.config.validation import Section


def _web(url: str) -> str:
    parts = urlsplit(url := url.strip())
    if url and (parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment):
        raise Invalid("not a valid http(s) URL", 'a url like "https://guard.example.com"')
    if parts.path not in ("", "/") or parts.username is not None:  # every page is at the root of its host
        raise Invalid("the console's url must not have a path", f'a url like "{parts.scheme}://{parts.hostname}"')
    return url


def _not_ours(name: str) -> str:
    """The log keeps its position in the journal beside those of the webhooks, under a name in parentheses."""
    if name.startswith("("):
        raise Invalid("names in parentheses are reserved", "another name")
    return name


def _secret_place(url: str) -> str:
    """Refuse a URL on whose way others could read: it must be https, or on this machine."""
    parts = urlsplit(url := url.strip())
    host = parts.hostname or ""
    if parts.scheme != "https" and not (parts.scheme == "http" and is_this_machine(host)):
        raise Invalid("not an https url", 'a url like "https://host.example.com"')
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise Invalid("not a url with a host and without a password", 'a url like "https://host.example.com"')
    return url


SecretPlace = Annotated[str, AfterValidator(_secret_place)]
RoleName = Literal["viewer", "approver", "operator", "admin"]


class ConsoleSession(Section):
    idle: Seconds = 2 * 3600
    longest: Seconds = 12 * 3600


def _role_lists(value: Any) -> Any:
    """Put a single role into a list."""
    if isinstance(value, Mapping):
        return {group: [roles] if isinstance(roles, str) else roles for group, roles in value.items()}
    return value


class Oidc(Section):
    """Single sign-on. People in none of the ``groups`` are not let in."""

    issuer: SecretPlace
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
    url: SecretPlace
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
        """Its name. Without one, its host and a digest of the URL, since the path of a webhook is often a secret."""
        mark = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return self.name or f"{urlsplit(self.url).hostname} {mark}"


def named_once(hooks: list[Webhook]) -> list[Webhook]:
    """Refuse two webhooks of one name, or of one url without a name."""
    if len({hook.name or hook.url for hook in hooks}) < len(hooks):
        raise Invalid("two webhooks have the same name, or the same url and no name", "a different name: for each")
    return hooks
