"""The attributes of a client in XFORWARD and XCLIENT (Postfix's XFORWARD_README and XCLIENT_README): parse both commands of
a trusted peer, and write XFORWARD for the relay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

from smtpguard.mail import reply
from smtpguard.mail.envelope import Session, client_address
from smtpguard.mail.xtext import XTEXT, decode_xtext, encode_xtext
from smtpguard.wire.grammar import Refused

MAX_VALUE_OCTETS = 255
MAX_LINE_OCTETS = 510
_UNKNOWN = b"[UNAVAILABLE]"

_NOT_KNOWN = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_CLIENT_VALUE = {  # common to XFORWARD and XCLIENT
    "NAME": re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,254})\Z"),
    "ADDR": re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|IPV6:[0-9A-F:.]{2,45})\Z", re.IGNORECASE),
    "PORT": re.compile(r"[0-9]{1,5}\Z"),
    "PROTO": re.compile(r"E?SMTP\Z", re.IGNORECASE),
    "HELO": re.compile(r"[!-~]{1,255}\Z"),
}
_XFORWARD_VALUE = _CLIENT_VALUE | {
    "IDENT": re.compile(r"[!-~]{1,255}\Z"),
    "SOURCE": re.compile(r"(?:LOCAL|REMOTE)\Z", re.IGNORECASE),
}
_XCLIENT_VALUE = _CLIENT_VALUE | {
    "LOGIN": re.compile(r"[^\x00-\x20\ufffd]{1,255}\Z"),
    "DESTADDR": _CLIENT_VALUE["ADDR"],
    "DESTPORT": _CLIENT_VALUE["PORT"],
}
_SESSION = ("NAME", "HELO", "PROTO")


def parse_xforward(argument: bytes) -> dict[str, str]:
    return _parse_attributes(argument, _XFORWARD_VALUE)


def parse_xclient(argument: bytes) -> tuple[str | None, str | None, dict[str, str]]:
    """Address and login: None if absent, "" if unavailable; and further attributes, as XFORWARD has them. Raises
    grammar.Refused."""
    given = _parse_attributes(argument, _XCLIENT_VALUE)
    address, login = given.get("ADDR"), given.get("LOGIN")
    if login is not None and not login.isprintable():
        raise Refused(reply.BAD_PARAMETER)
    return address, login, {name: given[name] for name in _SESSION if name in given}


def _parse_attributes(argument: bytes, values: Mapping[str, re.Pattern[str]]) -> dict[str, str]:
    """Attributes in capitals with decoded values, addresses without a tag; unavailable values are empty strings."""
    given: dict[str, str] = {}
    for word in argument.split():
        name, _, raw = word.partition(b"=")
        key = name.decode("latin-1").upper()
        if key not in values or key in given or not XTEXT.match(raw) or len(raw) > MAX_VALUE_OCTETS:
            raise Refused(reply.BAD_PARAMETER)
        value = decode_xtext(raw)
        if value.upper() in _NOT_KNOWN:
            value = ""
        elif not values[key].match(value) or not _is_valid(key, value) or ("=?" in value and "?=" in value):
            raise Refused(reply.BAD_PARAMETER)
        given[key] = value.upper().removeprefix("IPV6:").lower() if key.endswith("ADDR") else value
    if not given:
        raise Refused(reply.BAD_PARAMETER)
    return given


def _is_valid(key: str, value: str) -> bool:
    """Whether the value is valid: 999.1.1.1 is no address, and an invalid one must not make the client count as the
    peer."""
    if key.endswith("ADDR"):
        tagged = value[:5].upper() == "IPV6:"
        try:
            return ip_address(value[5:] if tagged else value).version == (6 if tagged else 4)
        except ValueError:
            return False
    return not key.endswith("PORT") or int(value) < 1 << 16


def xforward_lines(session: Session, offered: str) -> list[bytes]:
    """The commands to send before MAIL, without CRLF, to a relay that offers these attributes."""
    said = {
        "NAME": session.client_name,
        "ADDR": _address(session.client_ip),
        "PROTO": "ESMTP" if session.esmtp else "SMTP",
        "HELO": session.helo,
        "IDENT": session.ident,
        "SOURCE": "REMOTE",
    }
    lines: list[bytes] = []
    line = b"XFORWARD"
    for name in offered.upper().split():
        if name not in said:
            continue
        word = b" " + name.encode("ascii") + b"=" + (encode_xtext(said[name], MAX_VALUE_OCTETS) or _UNKNOWN)
        if len(line) + len(word) > MAX_LINE_OCTETS:
            lines.append(line)
            line = b"XFORWARD"
        line += word
    if line != b"XFORWARD":
        lines.append(line)
    return lines


def _address(address: str) -> str:
    found = client_address(address)  # None: a client on a unix socket has none
    return "" if found is None else f"IPV6:{found}" if found.version == 6 else str(found)
