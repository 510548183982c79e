"""Types of values in the settings: paths relative to their file, networks, listening addresses, ports, and sub-address
delimiters.

Delimiters become one text, which mail.address reads: those that count everywhere, then, each after a space,
``domain=delimiters`` for the domains that have others.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any

import idna
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from smtpguard.config.problem import Invalid

CREDENTIALS = "$CREDENTIALS_DIRECTORY"
Network = IPv4Network | IPv6Network
_MAPPED_BITS = 96


def _path(value: Any, info: ValidationInfo) -> Any:
    context = info.context or {}
    base: Path = context.get("base", Path())
    if isinstance(value, Path):  # a default
        return base / value
    if not isinstance(value, str) or not value or "\0" in value:
        raise Invalid("no path", "a path, relative to this file or absolute")
    head, _, tail = value.partition("/")
    if head in (CREDENTIALS, "${CREDENTIALS_DIRECTORY}"):
        folder = context.get("environ", {}).get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise Invalid("CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential=", "a path")
        return Path(folder) / tail
    return base / value


def _networks(value: Any) -> Any:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        raise Invalid("not a list of networks", 'addresses or networks, like [127.0.0.1, "10.0.0.0/8"]')
    found = []
    for text in listed:
        try:
            found.append(text if isinstance(text, (IPv4Network, IPv6Network)) else network_of(str(text)))
        except ValueError:
            raise Invalid(f'"{text}" is no network', 'an address or a network, like "10.0.0.0/8"') from None
    return tuple(found)


def network_of(text: str) -> Network:
    """An address or a network. An IPv4 address may also be mapped into IPv6 (RFC 4291 section 2.5.5.2), as client
    addresses are. Raises ValueError."""
    network = ip_network(text.strip(), strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _host(value: Any) -> Any:
    if isinstance(value, str):
        try:
            ip_address(value)
        except ValueError:
            raise Invalid(f'"{value}" is no address', 'an IP address to listen on, like "127.0.0.1" or "::"') from None
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
FilePath = Annotated[
    Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "description": "relative to this file"})
]
Networks = Annotated[
    tuple[Network, ...],
    BeforeValidator(_networks),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "description": "addresses or networks"}),
]
Host = Annotated[str, BeforeValidator(_host)]
"""An address to listen on."""


def is_public(host: str) -> bool:
    """Whether it is reachable from outside, as far as the address says: all addresses of a machine, or a public one."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_global


def is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


EVERYWHERE = "*"
DEFAULT = "+"
_SIGNS = frozenset("!#$%&'*+/=?^_`{|}~.-")
_DOMAIN = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\Z")


def _delimiters(value: Any) -> str:
    if isinstance(value, str):
        return _signs(value)
    if not isinstance(value, dict):
        raise Invalid(
            "no delimiters",
            'characters, like "+"; or characters for each domain, like {"*": "+", lists.example.com: "-"}',
        )
    everywhere = _signs(value.get(EVERYWHERE, DEFAULT))
    others = sorted(
        (domain_pattern(name, also=', or "*" for all others'), _signs(signs))
        for name, signs in value.items()
        if name != EVERYWHERE
    )
    return " ".join([everywhere, *(f"{domain}={signs}" for domain, signs in others)])


def _signs(text: Any) -> str:
    if not isinstance(text, str) or len(text) > 8 or not set(text) <= _SIGNS:
        raise Invalid(f'"{text}" is not a set of delimiters', 'characters of a local part, like "+" or "+-"')
    return text


def domain_pattern(name: Any, *, also: str = "") -> str:
    """A domain in A-labels and lower case, or ``*.`` and one: every name below it. Raises Invalid."""
    text = str(name)
    stem = text.removeprefix("*.")
    try:
        ascii_domain = text[: len(text) - len(stem)] + idna.encode(stem, uts46=True).decode().lower()
    except (UnicodeError, ValueError):
        ascii_domain = text.lower()
    if not _DOMAIN.match(ascii_domain):
        raise Invalid(f'"{text}" is no domain name', f'a name like "lists.example.com", "*.example.com"{also}')
    return ascii_domain


Delimiters = Annotated[
    str,
    BeforeValidator(_delimiters),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}],
                    "description": "characters, or characters for each domain"}),
]  # fmt: skip
