"""Types of values in settings and policy: paths relative to their file, secrets in files, networks, listening addresses,
ports, and sub-address delimiters.

Secrets are only in files, never in YAML, nor in the settings. A ``*_file`` may begin with ``$CREDENTIALS_DIRECTORY/``,
where systemd puts what LoadCredential= names. Delimiters become one text, which mail.address reads: those that count
everywhere, then, each after a space, ``domain=delimiters`` for the domains that have others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any

import idna
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from smtpguard.config.problem import Broken, Invalid, Problem
from smtpguard.config.yaml import Document, Place

CREDENTIALS = "$CREDENTIALS_DIRECTORY"
NO_CREDENTIALS = (
    "CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential=; for a command set it to "
    "/run/credentials/smtpguard.service"
)
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
        # A command outside of the unit needs few secrets, and says which one it lacks. Nobody can make a file below a device.
        folder = context.get("environ", {}).get("CREDENTIALS_DIRECTORY")
        return (Path(folder) if folder else Path(os.devnull) / CREDENTIALS) / tail
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
    """Parse an address or a network. An IPv4 address may be mapped into IPv6 (RFC 4291 section 2.5.5.2), as client addresses
    are. Raises ValueError."""
    network = ip_network(text.strip(), strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def loose_networks(document: Document) -> Iterator[Problem]:
    """Yield a warning for each network with host bits: ``10.1.2.0/8`` is all of 10.0.0.0/8, which is hardly meant."""
    waiting: list[tuple[Place, Any]] = [((), document.value)]
    for place, value in waiting:
        if isinstance(value, dict):
            waiting += [((*place, key), each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [((*place, n), each) for n, each in enumerate(value)]
        elif isinstance(value, str) and "/" in value:
            try:
                network, written = network_of(value), ip_interface(value.strip())
            except ValueError:
                continue
            if written.ip != written.network.network_address:
                expected = f'"{network}", or a longer prefix'
                text = f'"{value}" has host bits: it is read as {network}'
                yield document.problem(place, text, expected, fatal=False)


def _host(value: Any) -> Any:
    if isinstance(value, str):
        try:
            ip_address(value)
        except ValueError:
            raise Invalid(f'"{value}" is no address', 'an IP address to listen on, like "127.0.0.1" or "::"') from None
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
"""A port to listen on; 0: any."""
RelayPort = Annotated[int, Field(ge=1, le=65535)]
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
    """Return whether an address may be reached from outside: it is public, or stands for all addresses of the machine."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_global


def is_this_machine(host: str) -> bool:
    """Return whether a host is localhost or a loopback address."""
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
    """Return a domain in A-labels and lower case. ``*.`` before it means every name below. ``also``: words for the error. Raises
    Invalid."""
    text = str(name)
    stem = text.removeprefix("*.")
    try:
        ascii_domain = text[: len(text) - len(stem)] + idna.encode(stem, uts46=True).decode().lower()
    except ValueError:
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


MAX_SECRET_OCTETS = 64 << 10


def read_secret(path: Path) -> str:
    """Return the text of a file without the final line end that editors add. Raises Broken, without the content."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_SECRET_OCTETS + 1)
    except OSError as e:
        why = NO_CREDENTIALS if CREDENTIALS in path.parts else f"cannot be read: {e.strerror or 'error'}"
        raise Broken([Problem(str(path), 1, 1, why)]) from None
    if len(raw) > MAX_SECRET_OCTETS:
        raise Broken([Problem(str(path), 1, 1, "is too large to be a secret")])
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Broken([Problem(str(path), 1, 1, "is not UTF-8")]) from None
    if not text:
        raise Broken([Problem(str(path), 1, 1, "is empty")])
    return text
