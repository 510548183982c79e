"""The pydantic models of the sources of a list's members, and of what expands at the relay without being a customer list (aliases,
list servers). Each kind of source has one.

The key that names the source (csv, sql, ldap...) selects the model. Passwords and tokens are in files, never in the
policy: a url that contains one is refused. What each key means is in policy.schema.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from smtpguard.config.durations import Seconds
from smtpguard.config.fields import is_this_machine
from smtpguard.config.problem import Invalid, one_of
from smtpguard.config.validation import Section, tag
from smtpguard.mail.address import Address, BadAddress

_SECRET_PARAMETER = re.compile(
    r"(?:.*(?:pass(?:word|wd|phrase)?|pwd|token|secret|(?:api|access|subscription)[-_]?key)|key|sig|signature|auth)\Z",
    re.I,
)
"""The names of a url's parameters that hold a secret; libpq's passfile and sslkey are paths."""
_EXAMPLE = "a mapping like {csv: FILE, column: email}"
_PATTERN_MAPS = ("regexp:", "pcre:")
_SECRET_SETTING = re.compile(r"\b(?:pwd|password)\s*=", re.I)  # in a parameter: odbc_connect=DRIVER=...;PWD=...
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z")
_EXPECTED = {"refresh", "stale_after", "at_least", "max_shrink", "max_bad", "timeout", "time_limit"}
"""The keys that say how often and how patiently a source is read, and what is expected of it."""


def canonical(text: str, delimiters: str = "") -> str:
    """Return the canonical form of an address in a policy. Raises Invalid."""
    try:
        return Address.parse(text).canonical(delimiters)
    except BadAddress as e:
        why = str(e).partition(": expected")[0]
        raise Invalid(f'invalid address "{text}": {why}', "local-part@domain") from None


def _mailbox(text: str) -> str:
    canonical(text)
    if "*" in text.rpartition("@")[0]:  # valid in atext, but no mailbox has it
        raise Invalid(f'"{text}" is not an address: wildcards are not allowed', "each address in full")
    return text.strip()


def as_list(value: Any) -> Any:
    """Return a single word as a list of one, and anything else as it is."""
    return [value] if isinstance(value, str) else value


LISTED = BeforeValidator(as_list, json_schema_input_type=str | list[str])
Mailbox = Annotated[str, AfterValidator(_mailbox), Field(title="address")]
Mailboxes = Annotated[list[Mailbox], LISTED]


def _without_password(url: str, where: str) -> str:
    """Return the url. Raises Invalid for one with a password in it; the error does not contain it."""
    try:
        parts = urlsplit(url)
        held = parts.password is not None
        _ = parts.port
    except ValueError:
        raise Invalid("invalid URL", 'a url like "https://crm.example.com/members"') from None
    if held or any(
        _SECRET_PARAMETER.match(name) or _SECRET_SETTING.search(value) for name, value in parse_qsl(parts.query)
    ):
        raise Invalid("the url holds a password or a token in clear", f"the url without it, and {where}")
    return url


def _database(url: str) -> str:
    if not re.match(r"[a-z][a-z0-9]*(\+[a-z0-9_]+)?:", url):
        raise Invalid(
            "not the url of a database", 'a url like "postgresql://reader@db.example.com/crm" or "sqlite:///crm.db"'
        )
    return _without_password(url, "password_file")


def _directory(url: str) -> str:
    if urlsplit(url).scheme not in ("ldap", "ldaps") or not urlsplit(url).hostname:
        raise Invalid("invalid LDAP URL", 'a url like "ldaps://dc1.example.com"')
    if urlsplit(url).path.strip("/") or urlsplit(url).query:
        raise Invalid("more than a server in the url of a directory", "group, or base and filter, for what to look for")
    return _without_password(url, "bind and password_file")


def web(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid("invalid URL", 'a url like "https://crm.example.com/members"')
    if parts.username is not None and parts.password is None:
        raise Invalid("a user in the url", "the url without it")
    return _without_password(url, "token_file or password_file")


def _map(path: str) -> str:
    if path.startswith(_PATTERN_MAPS):
        raise Invalid("a map of patterns cannot be read as one of addresses", "an alias, virtual, hash or texthash map")
    return path


def _attribute(name: str) -> str:
    if not _ATTRIBUTE.match(name):
        raise Invalid(f'invalid attribute name "{name}"', 'a name like "mail" or "proxyAddresses"')
    return name


def _json_path(path: str) -> str:
    if not re.fullmatch(r"(?:\[\]|[^\[\].]+)(?:\.[^\[\].]+|\[\])*", path):
        raise Invalid("invalid JSON path", 'a path like "members[].email" or "[]"')
    return path


def is_in_clear(url: str) -> bool:
    """Return whether what is sent to a url goes unencrypted over a network."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "ldap") and not is_this_machine(parts.hostname or "")


Words = Annotated[list[str], LISTED, Field(min_length=1)]
MapPath = Annotated[str, AfterValidator(_map)]


class Members(Section):
    """The keys of every source. ``stale_after`` is by default a day, and at least three times ``refresh``: a list that is
    read daily is not stale every day for want of a minute."""

    refresh: Seconds = 15 * 60
    stale_after: Seconds | None = None
    at_least: int = Field(default=1, ge=1)
    max_shrink: float = Field(default=0.2, ge=0, le=1)
    max_bad: float = Field(default=0.05, ge=0, le=1)

    source: ClassVar[str]
    _list: str = PrivateAttr("")

    @model_validator(mode="after")
    def _read_before_it_is_stale(self) -> Members:
        if self.stale_after is not None and self.stale_after <= self.refresh:
            raise Invalid("the list would be stale before it is read again", "a stale_after longer than refresh")
        return self

    @property
    def stale_after_seconds(self) -> int:
        return self.stale_after or max(86_400, 3 * self.refresh)

    @property
    def own(self) -> bool:
        """Return whether it is a source of the list itself, and not of one within it."""
        return not self._list

    def within(self, name: str) -> Self:
        """Return this source of the list ``name`` as one of a list that includes that list."""
        made = self.model_copy()
        made._list = name
        return made

    def label_for(self, label: str) -> str:
        """Return the label of this source for people. Of a list within another it also names that list."""
        return f"{self._list}: {label}" if self._list else label

    def what(self) -> dict[str, Any]:
        """Return the keys that say what is read, as the policy spells them: not how often, how patiently, or what is expected."""
        return self.model_dump(by_alias=True, exclude_none=True, exclude=_EXPECTED)


class Remote(Members):
    timeout: Seconds = 30
    time_limit: Seconds = 3600


class Table(Members):
    """The format of a table of members, in a file or from a web server; omitted keys are detected."""

    column: str | int | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    header: bool | None = None
    encoding: str | None = None
    statuses: Literal["mailed", "all"] = "mailed"
    status_column: str | None = None


class CsvMembers(Table):
    source: ClassVar[str] = "csv"
    csv: str


class TextMembers(Members):
    source: ClassVar[str] = "text"
    text: str


class SqlMembers(Remote):
    source: ClassVar[str] = "sql"
    sql: Annotated[str, AfterValidator(_database)]
    query: str = Field(min_length=1)
    version: str | None = None
    column: str | None = None
    password_file: str | None = None


class LdapMembers(Remote):
    source: ClassVar[str] = "ldap"
    ldap: Annotated[str, AfterValidator(_directory)]
    group: Words | None = None
    base: str | None = None
    filter: str | None = None
    attributes: Annotated[list[Annotated[str, AfterValidator(_attribute)]], BeforeValidator(as_list)] = Field(
        default=["mail", "proxyAddresses"], min_length=1
    )
    bind: str | None = None
    password_file: str | None = None
    starttls: bool = True
    ca_file: str | None = None
    page: int = Field(default=500, ge=1, le=10_000)

    @model_validator(mode="after")
    def _whole(self) -> LdapMembers:
        if (self.group is None) == (self.filter is None):
            raise Invalid("no group, and no base with a filter", "group, or base and filter")
        if self.filter is not None and self.base is None:
            raise Invalid("a filter without a base", "base: where to look, like ou=people,dc=example,dc=com")
        if (self.bind is None) != (self.password_file is None):
            raise Invalid("a login needs a name and a password", "bind and password_file")
        if self.password_file and not self.starttls and is_in_clear(self.ldap):
            raise Invalid("a password would go to the directory in clear", "ldaps://, or starttls: true")
        return self


class OfMailman(Section):
    """A Mailman 3 core, and how long it is waited for."""

    source: ClassVar[str] = "mailman"
    mailman: Annotated[str, AfterValidator(web)]
    user: str = "restadmin"
    password_file: str
    ca_file: str | None = None
    timeout: Seconds = 30
    time_limit: Seconds = 3600

    @model_validator(mode="after")
    def _secret(self) -> Self:
        check_encrypted(self.mailman)
        return self


class MailmanMembers(OfMailman, Remote):
    list_id: str = Field(min_length=1)
    roles: Annotated[list[Literal["member", "owner", "moderator", "nonmember"]], BeforeValidator(as_list)] = Field(
        default=["member"], min_length=1, title="role"
    )


class HttpMembers(Remote, Table):
    source: ClassVar[str] = "http"
    http: Annotated[str, AfterValidator(web)]
    format: Literal["csv", "json", "text"] | None = None
    json_path: Annotated[str, AfterValidator(_json_path)] | None = Field(None, alias="json")
    token_file: str | None = None
    ca_file: str | None = None
    max_mb: int = Field(default=1024, ge=1, le=1 << 20)

    @model_validator(mode="after")
    def _secret(self) -> HttpMembers:
        if self.format == "json" and self.json_path is None:
            raise Invalid("no path to the addresses in the JSON", 'json: a path like "members[].email"')
        if self.format not in (None, "json") and self.json_path is not None:
            raise Invalid("a path into JSON, but the format is not JSON", "json, or format")
        if self.token_file is not None:
            check_encrypted(self.http)
        return self


class AliasesMembers(Members):
    """A map in the format of aliases(5)."""

    source: ClassVar[str] = "aliases"
    aliases: MapPath
    name: Words
    domain: str | None = None


class VirtualMembers(Members):
    """A map in the format of virtual(5), or the text of hash, lmdb and cdb maps."""

    source: ClassVar[str] = "virtual"
    virtual: MapPath
    name: Words
    domain: str | None = None


class ListMembers(Members):
    """Everybody on another list."""

    source: ClassVar[str] = "list"
    list: str


def check_encrypted(url: str) -> None:
    """Raise Invalid if a secret would go to this url in clear."""
    if is_in_clear(url):
        raise Invalid("a password or token would go to the server in clear", "a url with https://")


def _one_of(kinds: Sequence[type[Any]], noun: str, example: str) -> Any:
    """Return the type of a source, of which exactly one key names its kind."""
    names = [kind.source for kind in kinds]

    def named(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Invalid(f"{noun} have no source", example)
        given = [name for name in names if value.get(name) is not None]
        if len(given) != 1:
            text = f"{noun} have {'two sources' if given else 'no source'}"
            raise Invalid(text, one_of(names) + ("; several sources are a list of them" if given else ""))
        return value

    def chosen(value: Any) -> str:
        given = value if isinstance(value, dict) else {value.source: value}
        return tag(next((name for name in names if given.get(name) is not None), names[0]))

    return Annotated[
        Union[tuple(Annotated[kind, Tag(tag(kind.source))] for kind in kinds)],  # noqa: UP007
        Discriminator(chosen),
        BeforeValidator(named),
    ]


def _several(value: Any) -> Any:
    if isinstance(value, str):
        raise Invalid("members have no source", _EXAMPLE)
    return [value] if isinstance(value, dict) else value


if TYPE_CHECKING:
    AnyMembers = Members
else:
    AnyMembers = _one_of(
        (CsvMembers, TextMembers, SqlMembers, LdapMembers, MailmanMembers, HttpMembers, AliasesMembers, VirtualMembers, ListMembers),
        "members", _EXAMPLE,
    )  # fmt: skip
SeveralMembers = Annotated[
    list[AnyMembers], BeforeValidator(_several, json_schema_input_type=AnyMembers | list[AnyMembers])
]
"""One source, or a list of several."""


class Expands(Section):
    exclude: Mailboxes = Field(default=[])
    addresses_elsewhere: Mailboxes = Field(default=[])
    refresh: Seconds = 15 * 60

    source: ClassVar[str]


class ExpandsAliases(Expands):
    """A map in the format of aliases(5)."""

    source: ClassVar[str] = "aliases"
    aliases: MapPath
    domains: Words


class ExpandsVirtual(Expands):
    """A map in the format of virtual(5)."""

    source: ClassVar[str] = "virtual"
    virtual: MapPath
    domains: Words | None = None


class ExpandsMailman(OfMailman, Expands):
    """Every list of a Mailman 3 server."""


if TYPE_CHECKING:
    AnyExpands = Expands
else:
    AnyExpands = _one_of(
        (ExpandsAliases, ExpandsVirtual, ExpandsMailman),
        "expansions",
        "a mapping like {aliases: FILE, domains: [example.com]}",
    )
SeveralExpands = Annotated[
    list[AnyExpands],
    BeforeValidator(lambda value: [value] if isinstance(value, dict) else value),
    Field(title="expansions"),
]
