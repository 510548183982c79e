"""The policy file's sections as pydantic models: its grammar, its defaults, and its JSON Schema.

A model checks what can be checked where it stands; what needs the rest of the file (a group, a list, a fact's words) is
parse's. Addresses stay as they are written. Never here: the rules' meaning (rule, engine).
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from smtpguard.config.problem import Invalid, did_you_mean, one_of
from smtpguard.config.quantity import Seconds
from smtpguard.config.validation import Section
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.grammar import canonical
from smtpguard.policy.hours import MIDNIGHT, Hours, parse_days, parse_time
from smtpguard.policy.window import RateField

_NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,62}\Z", re.I)


def _mailbox(text: str) -> str:
    canonical(text)
    return text.strip()


def _domain(text: str) -> str:
    """A domain in lower case and A-labels; ``*.`` before it means every name below."""
    name = text.removeprefix("*.")
    try:
        domain = Address.parse(f"x@{name}").ascii_domain
    except BadAddress:
        domain = "["
    if domain.startswith("["):
        raise Invalid(f'"{text}" is no domain name', 'a name like "example.com"')
    return text[: len(text) - len(name)] + domain


def _network(text: str) -> str:
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError:
        raise Invalid(f'"{text}" is no network', 'an address or a network, like "10.1.2.0/24"') from None


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise Invalid(f'"{text}" is no name', "letters, digits, hyphens, dots and underscores")
    return text


def _listed(value: Any) -> Any:
    """One word may stand where several may."""
    return [value] if isinstance(value, str) else value


Mailbox = Annotated[str, AfterValidator(_mailbox), Field(title="address")]
Domain = Annotated[str, AfterValidator(_domain), Field(title="domain")]
NetworkText = Annotated[str, AfterValidator(_network), Field(title="network")]
Name = Annotated[str, AfterValidator(_name)]
Mailboxes = Annotated[list[Mailbox], BeforeValidator(_listed)]
Domains = Annotated[list[Domain], BeforeValidator(_listed)]
Networks = Annotated[list[NetworkText], BeforeValidator(_listed)]
Names = Annotated[list[str], BeforeValidator(_listed)]


class HoursModel(Section):
    days: str = "mon-fri"
    from_: str = Field(default="08:00", alias="from")
    to: str = "18:00"
    zone: str = "UTC"

    @model_validator(mode="after")
    def _sound(self) -> HoursModel:
        self.hours()
        return self

    def hours(self) -> Hours:
        """Raises Invalid."""
        try:
            days = parse_days(self.days)
        except ValueError:
            raise Invalid(f'"{self.days}" are no days', 'days like "mon-fri" or "mon, wed, sat"') from None
        try:
            opens, closes = parse_time(self.from_), parse_time(self.to)
        except ValueError:
            raise Invalid("hours that are no times", 'from and to like "08:00" and "18:00"') from None
        if closes != MIDNIGHT and opens >= closes:
            raise Invalid(f"working hours end at {self.to}, before they begin at {self.from_}", "from earlier than to")
        try:
            zone = ZoneInfo(self.zone)
        except (OSError, ValueError):
            raise Invalid(f'unknown time zone "{self.zone}"', 'a name like "Europe/Stockholm"') from None
        return Hours(days=days, opens=opens, closes=closes, zone=zone)


class OrganizationModel(Section):
    name: str = ""
    domains: Domains = Field(min_length=1)
    languages: Annotated[list[Annotated[Literal["sv", "en"], Field(title="language")]], BeforeValidator(_listed)] = (
        Field(default=["en"], min_length=1, title="language")
    )
    hours: HoursModel = Field(default_factory=lambda: HoursModel.model_validate({}))


class OutOfHoursModel(Section):
    from_: Names = Field(alias="from", min_length=1)
    each: int = Field(default=1, ge=1, le=100)


class ApprovalsModel(OutOfHoursModel):
    """``each`` distinct people of every group in ``from``."""

    out_of_hours: OutOfHoursModel | None = None


class OriginModel(Section):
    """Of each kind that is declared, one must hold."""

    dkim: Domains = Field(default=[])
    clients: Networks = Field(default=[])

    @model_validator(mode="after")
    def _something(self) -> OriginModel:
        if not self.dkim and not self.clients:
            raise Invalid("an origin that nothing proves", "dkim, clients, or both")
        return self


class MembersModel(Section):
    """A source of members, exactly one of ``csv`` and ``text``."""

    csv: str | None = None
    text: str | None = None
    column: str | int | None = None
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    header: bool | None = None
    encoding: str | None = None
    statuses: Literal["mailed", "all"] = "mailed"
    status_column: str | None = None
    refresh: Seconds = 15 * 60
    stale_after: Seconds = 86400
    at_least: int = Field(default=1, ge=1)
    max_shrink: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _one_source(self) -> MembersModel:
        if (self.csv is None) == (self.text is None):
            raise Invalid("members name no source" if self.csv is None else "members name two sources", "csv or text")
        return self


class ListModel(Section):
    title: str = ""
    owner: Mailbox | None = None
    addresses: Mailboxes = Field(default=[])
    list_ids: Names = Field(default=[])
    members: Annotated[list[MembersModel], BeforeValidator(lambda v: [v] if isinstance(v, dict) else v)] = Field(
        default=[]
    )
    audience: Name = "customers"
    sensitivity: Literal["normal", "special-category"] | None = None
    writers: Mailboxes = Field(default=[])
    origin: OriginModel | None = None
    avoid: Names = Field(default=[])
    approvals: ApprovalsModel | None = None


class StreamModel(Section):
    """Standing approval for one-by-one mail from systems; never for a list's address."""

    from_: Mailboxes = Field(alias="from", min_length=1)
    origin: OriginModel
    max: RateField | None = None
    max_per_person: RateField | None = None


_ACTIONS = ("hold", "defer", "reject")


def _action(value: Any) -> Any:
    if value == "relay":
        raise Invalid(
            "a rule cannot relay: the strictest rule wins", 'an exception, as "unless" of the rules it is for'
        )
    if isinstance(value, str) and value not in _ACTIONS:
        raise Invalid(f'unknown action "{value}"', one_of(_ACTIONS), did_you_mean(value, _ACTIONS))
    return value


Conditions = dict[str, Any]
"""Read by grammar, with positions, and described by schema: here they are facts and what is asked of them."""


class RuleModel(Section):
    id: Name
    description: str = ""
    when: Conditions
    unless: Conditions | None = None
    then: Annotated[Literal["hold", "defer", "reject"], BeforeValidator(_action)] = Field(title="action")
    mode: Literal["enforce", "observe"] = "enforce"
    scope: Literal["all", "customers"] = "all"
    explain: bool = False


class PolicyModel(Section):
    """The whole policy file."""

    version: Literal[1] = 1
    enforce: bool = True
    organization: OrganizationModel
    groups: dict[Name, Mailboxes] = Field(default={})
    approvals: ApprovalsModel
    lists: dict[Name, ListModel] = Field(default={})
    streams: dict[Name, StreamModel] = Field(default={})
    marks: dict[Name, Annotated[float, Field(ge=0, le=100)]] = Field(default={})
    rules: list[RuleModel] = Field(default=[])
