"""Aliases and list servers that expand at the relay without being a customer list, as the policy declares them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from smtpguard.config.quantity import Seconds
from smtpguard.config.validation import Section, tag
from smtpguard.policy.fields import Mailboxes
from smtpguard.policy.members import MapPath, Words, encrypted, named, web


class Expands(Section):
    """``addresses_elsewhere``: addresses at another domain with the local part of one that expands, that are something
    else. ``exclude``: addresses that are left out: they expand to nobody, and are behind nothing, whatever a map or
    server says."""

    exclude: Mailboxes = Field(default=[])
    addresses_elsewhere: Mailboxes = Field(default=[])
    refresh: Seconds = 15 * 60

    source: ClassVar[str]


class ExpandsAliases(Expands):
    """aliases(5). ``domains``: the domains of its names; the first is that of names without one."""

    source: ClassVar[str] = "aliases"
    aliases: MapPath
    domains: Words


class ExpandsVirtual(Expands):
    """virtual(5). ``domains``: of names without one, if there are any."""

    source: ClassVar[str] = "virtual"
    virtual: MapPath
    domains: Words | None = None


class ExpandsMailman(Expands):
    """Every list of a Mailman 3 server."""

    source: ClassVar[str] = "mailman"
    mailman: Annotated[str, AfterValidator(web)]
    user: str = "restadmin"
    password_file: str
    ca_file: str | None = None
    timeout: Seconds = 30
    time_limit: Seconds = 3600

    @model_validator(mode="after")
    def _secret(self) -> ExpandsMailman:
        encrypted(self.mailman)
        return self


_KINDS = ("aliases", "virtual", "mailman")


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return tag(next((kind for kind in _KINDS if value.get(kind) is not None), _KINDS[0]))
    return tag(value.source)


AnyExpands = Annotated[
    Annotated[ExpandsAliases, Tag(tag("aliases"))]
    | Annotated[ExpandsVirtual, Tag(tag("virtual"))]
    | Annotated[ExpandsMailman, Tag(tag("mailman"))],
    Discriminator(_kind),
    BeforeValidator(
        lambda value: named(value, _KINDS, "expansions", "a mapping like {aliases: FILE, domains: [example.com]}")
    ),
]
SeveralExpands = Annotated[
    list[AnyExpands],
    BeforeValidator(lambda value: [value] if isinstance(value, dict) else value),
    Field(title="expansions"),
]
