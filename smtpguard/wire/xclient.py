"""XCLIENT, as a trusted peer says it of the client that it speaks for (Postfix's XCLIENT_README).

From there on the connection is that client's, with that client's rights: what it says itself must not be taken for the
peer's word. So an XCLIENT that names an address or a login is the last, unless that address is trusted as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtpguard.mail import reply
from smtpguard.wire.grammar import CLIENT_VALUE, Refused, parse_attributes

_VALUE = CLIENT_VALUE | {
    "LOGIN": re.compile(r"[^\x00-\x20\ufffd]{1,255}\Z"),
    "DESTADDR": CLIENT_VALUE["ADDR"],
    "DESTPORT": CLIENT_VALUE["PORT"],
}
_SESSION = ("NAME", "HELO", "PROTO")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """``address`` and ``login``: None where nothing was said of it, "" where it is not known. ``session``: the attributes that
    identify it besides, as XFORWARD has them."""

    address: str | None
    login: str | None
    session: dict[str, str]


def parse_xclient(argument: bytes) -> Told:
    """Raises grammar.Refused."""
    given = parse_attributes(argument, _VALUE)
    address, login = given.get("ADDR"), given.get("LOGIN")
    if login is not None and not login.isprintable():
        raise Refused(reply.BAD_PARAMETER)
    return Told(
        address=address.upper().removeprefix("IPV6:").lower() if address is not None else None,
        login=login,
        session={name: given[name] for name in _SESSION if name in given},
    )
