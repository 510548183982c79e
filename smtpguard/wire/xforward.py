"""Send XFORWARD to the relay, so that it logs the client instead of us (Postfix's XFORWARD_README).

It applies to one transaction, so every transaction sends all attributes again, also that one is unknown.
"""

from __future__ import annotations

import re

from smtpguard.mail.envelope import Session, client_address

MAX_VALUE_OCTETS = 255
MAX_LINE_OCTETS = 510
_UNKNOWN = b"[UNAVAILABLE]"
_PLAIN = re.compile(r"[!-*,-<>-~]*")


def xforward(session: Session, offered: str) -> list[bytes]:
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
        word = b" " + name.encode("ascii") + b"=" + (xtext(said[name]) or _UNKNOWN)
        if len(line) + len(word) > MAX_LINE_OCTETS:
            lines.append(line)
            line = b"XFORWARD"
        line += word
    if line != b"XFORWARD":
        lines.append(line)
    return lines


def xtext(text: str) -> bytes:
    """RFC 3461 section 4, truncated to the longest value."""
    if len(text) <= MAX_VALUE_OCTETS and _PLAIN.fullmatch(text):
        return text.encode()
    coded = b""
    for octet in text.encode():
        word = b"%c" % octet if 33 <= octet <= 126 and octet not in b"+=" else b"+%02X" % octet
        if len(coded) + len(word) > MAX_VALUE_OCTETS:
            break
        coded += word
    return coded


def _address(address: str) -> str:
    found = client_address(address)  # None: a client on a unix socket has none
    return "" if found is None else f"IPV6:{found}" if found.version == 6 else str(found)
