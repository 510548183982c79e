"""Types of values in settings and policy: paths relative to their file, secrets in files, networks, listening addresses,
ports, sub-address delimiters; durations: "15m", "2h 30m", "30d", "24 working hours"; and rates: "20000 in 1h".

Secrets are only in files, never in YAML, nor in the settings. A ``*_file`` may begin with ``$CREDENTIALS_DIRECTORY/``,
where systemd puts what LoadCredential= names. Delimiters become one text, which mail.address reads: those that count
everywhere, then, each after a space, ``domain=delimiters`` for the domains that have others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any

import idna
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from smtpguard.config.problem import Broken, Invalid, Problem, Severity
from smtpguard.config.yaml import Document, Place

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
    """An address or a network. An IPv4 address may also be mapped into IPv6 (RFC 4291 section 2.5.5.2), as client
    addresses are. Raises ValueError."""
    network = ip_network(text.strip(), strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def loose_networks(document: Document) -> Iterator[Problem]:
    """A warning for each network with host bits: ``10.1.2.0/8`` is all of 10.0.0.0/8, and hardly what was meant."""
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
                found = document.problem(place, f'"{value}" has host bits: it is read as {network}', expected)
                yield replace(found, severity=Severity.WARNING)


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
    """The file's text without the final line end that editors add. Raises Broken, without the content."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_SECRET_OCTETS + 1)
    except OSError as e:
        why = f"cannot be read: {e.strerror or 'error'}"
        if CREDENTIALS in path.parts:
            why = f"{CREDENTIALS[1:]} is not set: systemd sets it for a unit with LoadCredential="
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


DELAY_EXPECTED = '0, or a duration of an hour at most, like "60s" or "5m"'
EXPECTED = 'a duration like "15m", "2h" or "30d"'
WORKING_EXPECTED = 'a duration like "24 working hours", "2h" or "3d"'

_UNITS: Mapping[str, int] = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_PART = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([a-z]+)", re.I)
_WORKING = re.compile(r"\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*working\s+hours?\s*\Z", re.I)
_LONGEST = 100 * 366 * 86400


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time; ``working``: only the organization's working hours count."""

    seconds: int
    working: bool = False


def seconds(text: str) -> int:
    """The seconds of a duration. Raises Invalid."""
    total, end = 0.0, 0
    while end < len(text.rstrip()):
        part = _PART.match(text, end)
        if part is None or part[2].lower() not in _UNITS:
            raise Invalid(f'invalid duration "{text}"', EXPECTED)
        total += float(part[1]) * _UNITS[part[2].lower()]
        end = part.end()
    if not 1 <= total <= _LONGEST:
        raise Invalid(f'invalid duration "{text}"', EXPECTED if total < 1 else "at most 100 years")
    return round(total)


def in_short(length: int) -> str:
    """Seconds as text: "6h", "1h 30m". ``seconds`` reads it back."""
    said = []
    for unit in "dhms":
        count, length = divmod(length, _UNITS[unit])
        if count:
            said.append(f"{count}{unit}")
    return " ".join(said) or "0s"


def span(text: str) -> Span:
    """A duration that may be counted in working hours. Raises Invalid."""
    if working := _WORKING.match(text):
        if (length := round(float(working[1]) * 3600)) < 1:
            raise Invalid(f'invalid duration "{text}"', WORKING_EXPECTED)
        if length > 100_000 * 3600:
            raise Invalid(f'"{text}" is too long', "at most 100000 working hours")
        return Span(length, working=True)
    try:
        return Span(seconds(text))
    except Invalid as e:
        raise Invalid(e.text, WORKING_EXPECTED) from None


def from_text(
    parse: Callable[[str], Any], expected: str, *, kept: tuple[type, ...] = (), what: str = ""
) -> Callable[[Any], Any]:
    """Convert a value of the file by ``parse``. Defaults, which are of the types ``kept``, stay. Other values raise
    Invalid: ``what`` they are, by default no duration."""

    def convert(value: Any) -> Any:
        if isinstance(value, kept):
            return value
        if isinstance(value, str):
            return parse(value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        raise Invalid(what or (f"{value} has no unit" if number else "no duration"), expected)

    return convert


_to_seconds = from_text(seconds, EXPECTED)


def _to_delay(value: Any) -> Any:
    if value == 0 and not isinstance(value, bool):
        return 0
    try:
        length = int(_to_seconds(value))
    except Invalid as e:
        raise Invalid(e.text, DELAY_EXPECTED) from None
    if length > 3600:
        raise Invalid(f'"{value}" is too long', DELAY_EXPECTED)
    return length


_PATTERN = r"^(\s*[0-9]{1,9}(\.[0-9]{1,3})?\s*[A-Za-z]+)+\s*$"
_SCHEMA = {"type": "string", "pattern": _PATTERN, "description": EXPECTED, "examples": ["15m", "2h", "30d"]}
_DELAY_SCHEMA = {
    "anyOf": [{"const": 0}, {"type": "string", "pattern": _PATTERN}],
    "description": DELAY_EXPECTED,
    "examples": ["60s", "5m", 0],
}
_SPAN_PATTERN = r"^(\s*[0-9]{1,9}(\.[0-9]{1,3})?\s*[A-Za-z]+)+(\s+[A-Za-z]+)?\s*$"
_SPAN_SCHEMA = {
    "type": "string",
    "pattern": _SPAN_PATTERN,
    "description": WORKING_EXPECTED,
    "examples": ["24 working hours", "2h"],
}

Seconds = Annotated[int, BeforeValidator(_to_seconds), WithJsonSchema(_SCHEMA)]
"""A field of a model: text in the file, whole seconds in the program. Defaults are text too."""
Delay = Annotated[int, BeforeValidator(_to_delay), WithJsonSchema(_DELAY_SCHEMA)]
"""The same, where 0 is allowed."""
WorkingSpan = Annotated[
    Span, BeforeValidator(from_text(span, WORKING_EXPECTED, kept=(Span,))), WithJsonSchema(_SPAN_SCHEMA)
]


RATE_EXPECTED = 'a number and a time, like "20000 in 1h"'
LONGEST_SECONDS = 31 * 86400
_RATE = re.compile(r"\s*([0-9][0-9_ ]{0,14}?)\s+in\s+(.+)\Z")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most, or at least, ``count`` in any ``window_seconds``."""

    count: int
    window_seconds: int


def rate(text: str) -> Rate:
    """Raises Invalid."""
    found = _RATE.match(text)
    if not found:
        raise Invalid(f'invalid limit "{text}"', RATE_EXPECTED)
    return Rate(int(found[1].replace("_", "").replace(" ", "")), window(found[2]))


def window(text: str) -> int:
    """The seconds of a window. Raises Invalid."""
    length = seconds(text.strip())
    if length > LONGEST_SECONDS:
        raise Invalid(f'"{text.strip()}" is too long to count over', "at most 31d")
    return length


RateField = Annotated[
    Rate,
    BeforeValidator(from_text(rate, RATE_EXPECTED, kept=(Rate,), what="invalid limit")),
    WithJsonSchema({"type": "string", "description": RATE_EXPECTED, "examples": ["20000 in 1h"]}),
]
