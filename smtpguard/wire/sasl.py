"""The SASL exchanges of mail clients, as far as they name the user (RFC 4954 section 4, RFC 4616, RFC 7628, XOAUTH2).

Parse AUTH commands and their Base64, and find the name in a response of PLAIN, LOGIN, XOAUTH2 or OAUTHBEARER:
mechanisms with a single response. The relay verifies it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from smtpguard.mail import reply
from smtpguard.wire.grammar import MAX_COMMAND, Refused

MAX_RESPONSE = 12_288
"""Octets of a line in an exchange, CRLF included (RFC 4954 section 4): tokens are long."""
MAX_NAME = 255

CARRIED = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER")
TOKENS = frozenset({"XOAUTH2", "OAUTHBEARER"})
"""Mechanisms with a token: a refusal comes with a challenge that tells the client why (RFC 7628 section 3.2.2)."""

_COMMAND = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: ([A-Za-z0-9+/]+={0,2}|=))? *\Z")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}\Z")
_OAUTHBEARER = re.compile(rb"n,a=([^,\x00-\x1f]+),\x01")
_XOAUTH2 = re.compile(rb"user=([^\x00-\x1f]+)\x01")
_ESCAPED = ((b"=2C", b","), (b"=3D", b"="))  # saslname, RFC 5801 section 4


def parse_auth(argument: bytes) -> tuple[str, bytes | None]:
    """Mechanism in capitals, and the initial response as received; ``=`` is an empty one. Raises Refused."""
    found = _COMMAND.match(argument)
    if not found:
        mechanism = re.match(rb"[A-Za-z0-9_-]{1,20} ", argument)
        raise Refused(reply.BAD_BASE64 if mechanism else reply.BAD_PARAMETER)
    initial: bytes | None = found[2]
    return found[1].decode("ascii").upper(), b"" if initial == b"=" else initial


def decoded(coded: bytes) -> bytearray:
    """The caller must wipe it. Raises Refused."""
    if not _BASE64.match(coded):
        raise Refused(reply.BAD_BASE64)
    try:
        return bytearray(base64.b64decode(coded, validate=True))
    except binascii.Error:
        raise Refused(reply.BAD_BASE64) from None


def mechanisms(offered: str) -> tuple[str, ...]:
    """The relay's mechanisms that can be carried, in our order: the parameters of its AUTH keyword."""
    there = offered.upper().split()
    return tuple(name for name in CARRIED if name in there)


def who(mechanism: str, response: bytearray) -> str:
    """The name that the relay is asked to accept. Raises Refused if there is none, or it is invalid.

    For PLAIN the authentication identity, whose password is given: a relay may ignore an authorization identity, and
    then anybody could use it. For LOGIN the first response.
    """
    match mechanism:
        case "PLAIN":
            parts = response.split(b"\0")
            if len(parts) != 3 or not parts[2]:
                raise Refused(reply.BAD_CREDENTIALS)
            try:
                return _name(bytes(parts[1]))
            finally:
                wipe(parts)
        case "LOGIN":
            return _name(bytes(response))
        case "XOAUTH2":
            found = _XOAUTH2.match(response)
        case _:
            found = _OAUTHBEARER.match(response)
    if not found:
        raise Refused(reply.BAD_CREDENTIALS)
    name = bytes(found[1])
    if mechanism == "OAUTHBEARER":
        for escape, meant in _ESCAPED:
            name = name.replace(escape, meant)
    return _name(name)


def fits(mechanism: str, initial: bytes) -> bool:
    """Whether the response may be in the command itself (RFC 4954 section 4)."""
    return len(b"AUTH  \r\n") + len(mechanism) + len(initial) <= MAX_COMMAND


def wipe(secrets: Iterable[bytearray]) -> None:
    for secret in secrets:
        secret[:] = bytes(len(secret))


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise Refused(reply.BAD_CREDENTIALS) from None
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Refused(reply.BAD_CREDENTIALS)
    return name
