"""The grammar of the commands that are passed on (RFC 5321 section 4.1, RFC 1870, 3461, 4954, 6152, 6531, XFORWARD).

Parsers of MAIL, RCPT, HELO, EHLO and XFORWARD, on raw bytes and with anchored patterns, and writers of MAIL and RCPT
for the relay. Anything outside the grammar is refused here, so the relay never sees it. Commands for the relay are
written from the parsed values, so that the relay and the policy cannot understand them differently.

Of EHLO keywords a client is offered the relay's, as far as we can carry them, and our own (section 4.1.1.1). PIPELINING
(RFC 2920) and STARTTLS (RFC 3207) are ours, whatever the relay offers; SIZE is the smaller of both. 8BITMIME, SMTPUTF8,
DSN and ENHANCEDSTATUSCODES are passed on from the relay, and so are mechanisms of AUTH if clients may log in here.
CHUNKING and the rest cannot be carried, so they are not offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from smtpguard.mail import reply
from smtpguard.mail.address import Address, BadAddress, parse_path
from smtpguard.mail.constant import maker
from smtpguard.mail.envelope import Body, Envelope, Recipient
from smtpguard.mail.reply import Reply
from smtpguard.mail.xtext import MAX_ENVID, XTEXT, decode_xtext

MAX_COMMAND = 512  # RFC 5321 section 4.5.3.1.4; CRLF counts
MAX_ORCPT = 500  # RFC 3461 section 4.2
MAX_AUTH = 500  # RFC 4954 section 5
MAX_MAIL = MAX_COMMAND + sum(
    (
        26,  # SIZE: RFC 1870 section 6
        17,  # BODY: RFC 6152
        10,  # SMTPUTF8: RFC 6531 section 3.1
        len(" RET=FULL"),
        len(" ENVID=") + MAX_ENVID,
        len(" AUTH=") + MAX_AUTH,
    )
)
MAX_RCPT = MAX_COMMAND + len(" NOTIFY=SUCCESS,FAILURE,DELAY") + len(" ORCPT=") + MAX_ORCPT
MAX_AUTH_COMMAND = (
    12_288  # RFC 4954 section 4 has this limit for responses; clients with tokens need it in the command too
)
MAX_LINE = {b"MAIL": MAX_MAIL, b"RCPT": MAX_RCPT, b"AUTH": MAX_AUTH_COMMAND}
"""Verb -> the longest line with extensions, for clients that said EHLO. All others: MAX_COMMAND."""

_QUOTED = rb'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"'
_LABEL = rb"[A-Za-z0-9]++(?:-++[A-Za-z0-9]++)*+"
_PLAIN = rb"<([A-Za-z0-9_+-]++(?:\.[A-Za-z0-9_+-]++)*+)@(" + _LABEL + rb"(?:\." + _LABEL + rb")*+)>"
"""Nearly every path. In so few octets no limit can be exceeded, so it needs no further check."""
_PLAIN_OCTETS = 66
_PATH = rb"(" + _PLAIN + rb'|<(?:[^<>"\\\x00-\x20\x7f]++|' + _QUOTED + rb")*+>)"
"""Its groups: the path; local part and domain if it is plain."""
_PARAMETERS = rb"((?: +[^ \x00-\x1f\x7f]+)*) *\Z"
_MAIL = re.compile(rb"[Ff][Rr][Oo][Mm]: *" + _PATH + _PARAMETERS)
_RCPT = re.compile(rb"[Tt][Oo]: *" + _PATH + _PARAMETERS)
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^=]+))?\Z")  # esmtp-param, RFC 5321 section 4.1.2
_HELO = re.compile(rb" *([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,254})|\[[A-Za-z0-9.:-]{1,253}\]) *\Z")
_UNITEXT = re.compile(rb"(?:[!-*,-<>-~\x80-\xff]|\+[0-9A-F]{2}|\\x\{[0-9A-F]{2,6}\})+\Z")  # RFC 6533 section 3
_ATOM = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+\Z")
_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}")
_DIGITS = re.compile(rb"[0-9]{1,20}\Z")  # RFC 1870 section 3
_POSTMASTER = b"<postmaster>"  # without a domain: RFC 5321 section 4.5.1

_new_envelope, _new_recipient = maker(Envelope), maker(Recipient)
RcptTo = tuple[Recipient, bytes]
"""The recipient of a RCPT, and the path to send."""


class Refused(Exception):
    """Not in the grammar. ``reply`` is for the client."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(str(answer))
        self.reply = answer


class NotOffered(Exception):
    """The relay does not offer an extension that is used."""


def parse_helo(argument: bytes) -> str:
    """The domain or address literal of HELO and EHLO; underscores are allowed, since many hosts have them."""
    found = _HELO.match(argument)
    if not found:
        raise Refused(reply.BAD_PARAMETER)
    return found[1].decode("ascii")


@lru_cache(maxsize=1024)  # senders repeat
def parse_mail(argument: bytes, *, extended: bool = True) -> Envelope:
    """The argument of ``MAIL``: an envelope without recipients. Raises Refused."""
    found = _MAIL.match(argument)
    if not found:
        raise Refused(reply.BAD_REVERSE_PATH if argument[:5].upper() == b"FROM:" else reply.BAD_PARAMETER)
    given = _parameters(found[4], extended=extended) if found[4] else {}
    reverse_path, _ = _path(found, "SMTPUTF8" in given, reply.BAD_REVERSE_PATH)
    if not given.keys() <= _OF_MAIL.keys():
        raise Refused(reply.UNKNOWN_PARAMETER)
    values: dict[str, Any] = {}
    for key, value in given.items():
        name, parse = _OF_MAIL[key]
        values[name] = parse(value)
    return _new_envelope(reverse_path=reverse_path, recipients=(), **values)


def parse_rcpt(argument: bytes, *, extended: bool = True, smtputf8: bool = False, here: str = "localhost") -> RcptTo:
    """The argument of ``RCPT``: the recipient, and its path for the relay. Raises Refused.

    The null path is no recipient. A postmaster without a domain is the one of the host ``here``.
    """
    found = _RCPT.match(argument)
    if not found:
        raise Refused(reply.BAD_RECIPIENT if argument[:3].upper() == b"TO:" else reply.BAD_PARAMETER)
    given = _parameters(found[4], extended=extended) if found[4] else {}
    path = found[1]
    if path.lower() == _POSTMASTER:
        address = Address(path[1:-1].decode("ascii"), here)
    else:
        parsed, path = _path(found, smtputf8, reply.BAD_RECIPIENT)
        if parsed is None:
            raise Refused(reply.BAD_RECIPIENT)
        address = parsed
    if not given:
        return _new_recipient(address=address), path
    if not given.keys() <= _OF_RCPT:
        raise Refused(reply.UNKNOWN_PARAMETER)
    return Recipient(
        address=address,
        notify=_notify(given["NOTIFY"]) if "NOTIFY" in given else None,
        orcpt=_orcpt(given["ORCPT"], smtputf8=smtputf8) if "ORCPT" in given else None,
    ), path


def mail_line(envelope: Envelope, offered: Mapping[str, str]) -> bytes:
    """MAIL for a relay that offers ``offered``. Raises NotOffered. SIZE, BODY=7BIT and AUTH ask for nothing, so they are
    left out."""
    line = f"MAIL FROM:<{envelope.reverse_path or ''}>"
    if envelope.size_bytes is not None and "SIZE" in offered:
        line += f" SIZE={envelope.size_bytes}"
    if envelope.body is not None and "8BITMIME" in offered:
        line += f" BODY={envelope.body}"
    elif envelope.body is Body.EIGHTBITMIME:
        raise NotOffered
    if envelope.smtputf8:
        if "SMTPUTF8" not in offered:
            raise NotOffered
        line += " SMTPUTF8"
    if envelope.ret is not None or envelope.envid is not None:
        if "DSN" not in offered:
            raise NotOffered
        if envelope.ret is not None:
            line += f" RET={envelope.ret}"
        if envelope.envid is not None:
            line += f" ENVID={envelope.envid}"
    if envelope.auth is not None and "AUTH" in offered:
        line += f" AUTH={envelope.auth}"
    return line.encode()


def rcpt_line(recipient: Recipient, offered: Mapping[str, str], path: bytes | None = None) -> bytes:
    """RCPT for a relay that offers ``offered``; ``path`` if it is not simply the address. Raises NotOffered."""
    line = b"RCPT TO:" + (path or f"<{recipient.address}>".encode())
    if recipient.notify is not None or recipient.orcpt is not None:
        if "DSN" not in offered:
            raise NotOffered
        if recipient.notify is not None:
            line += f" NOTIFY={recipient.notify}".encode()
        if recipient.orcpt is not None:
            line += f" ORCPT={recipient.orcpt}".encode()
    return line


def _parameters(raw: bytes, *, extended: bool) -> dict[str, bytes]:
    if not extended:
        raise Refused(reply.UNKNOWN_PARAMETER)
    given: dict[str, bytes] = {}
    for word in raw.split():
        found = _PARAMETER.match(word)
        if not found:
            # an xtext value has no "=", so this is a known parameter's value, or no parameter
            raise Refused(reply.BAD_PARAMETER)
        key = found[1].decode("ascii").upper()
        if key in given:
            raise Refused(reply.BAD_PARAMETER)
        given[key] = found[2] or b""  # only SMTPUTF8 may have no value
    return given


def _path(found: re.Match[bytes], utf8: bool, bad: Reply) -> tuple[Address | None, bytes]:
    """The address, and the path for the relay. ``found``: by a pattern with ``_PATH``."""
    raw, local, domain, _ = found.groups()
    if local is not None and len(raw) <= _PLAIN_OCTETS:
        return Address(local.decode("ascii"), domain.decode("ascii")), raw
    if not utf8 and not raw.isascii():
        raise Refused(reply.NEEDS_SMTPUTF8)
    try:
        address = parse_path(raw, smtputf8=utf8)
    except BadAddress:
        raise Refused(bad) from None
    return address, f"<{address or ''}>".encode()


def _matching(value: bytes, pattern: re.Pattern[bytes], longest: int) -> str:
    if len(value) > longest or not pattern.match(value):
        raise Refused(reply.BAD_PARAMETER)
    return value.decode("ascii")


def _check_printable(xtext: bytes) -> None:
    """The decoded value is printable: no encoded CR, LF or NUL (RFC 3461 sections 4.2 and 4.4)."""
    if not decode_xtext(xtext).isprintable():
        raise Refused(reply.BAD_PARAMETER)


def _size(value: bytes) -> int:
    return int(_matching(value, _DIGITS, 20))


def _nothing(value: bytes) -> bool:
    if value:
        raise Refused(reply.BAD_PARAMETER)
    return True


def _body(value: bytes) -> Body:
    body = _BODIES.get(value.upper())
    if body is None:
        raise Refused(reply.BAD_PARAMETER)
    return body


def _ret(value: bytes) -> str:
    ret = value.upper()
    if ret not in (b"FULL", b"HDRS"):
        raise Refused(reply.BAD_PARAMETER)
    return ret.decode("ascii")


def _envid(value: bytes) -> str:
    envid = _matching(value, XTEXT, MAX_ENVID)
    _check_printable(value)
    return envid


def _auth(value: bytes) -> str:
    if value == b"<>":
        return "<>"
    auth = _matching(value, XTEXT, MAX_AUTH)
    _check_printable(value)
    try:
        Address.parse(decode_xtext(value))
    except BadAddress:
        raise Refused(reply.BAD_PARAMETER) from None
    return auth


_BODIES = {body.encode(): body for body in Body}
_OF_MAIL: dict[str, tuple[str, Callable[[bytes], object]]] = {
    "SIZE": ("size_bytes", _size),
    "BODY": ("body", _body),
    "SMTPUTF8": ("smtputf8", _nothing),
    "RET": ("ret", _ret),
    "ENVID": ("envid", _envid),
    "AUTH": ("auth", _auth),
}
"""A parameter of MAIL, its field in ``Envelope``, and the parser of its value, which raises Refused."""
_OF_RCPT = {"NOTIFY", "ORCPT"}


def _notify(value: bytes) -> str:
    text = value.decode("latin-1")
    if not _NOTIFY.fullmatch(text.upper()) or len(set(text.upper().split(","))) != text.count(",") + 1:
        raise Refused(reply.BAD_PARAMETER)
    return text


def _orcpt(value: bytes, *, smtputf8: bool) -> str:
    kind, _, address = value.partition(b";")
    if len(value) > MAX_ORCPT or not _ATOM.match(kind) or not (_UNITEXT if smtputf8 else XTEXT).match(address):
        raise Refused(reply.BAD_PARAMETER)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise Refused(reply.BAD_PARAMETER) from None
    _check_printable(address)
    return text


_CARRIED = ("8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
_FOR_THE_TRUSTED = (
    "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
    "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
)


def largest(relay: Mapping[str, str], message_octets: int) -> int:
    """The largest message that both accept; a relay's SIZE without a number, or 0, sets no limit."""
    said = relay.get("SIZE", "").strip()
    return min(message_octets, int(said)) if said.isdecimal() and int(said) else message_octets


def offer(
    hostname: str,
    relay: Mapping[str, str],
    message_octets: int,
    *,
    starttls: bool,
    trusted: bool,
    auth: Sequence[str] = (),
) -> Reply:
    keywords = [hostname, "PIPELINING", f"SIZE {largest(relay, message_octets)}"]
    keywords += [k for k in _CARRIED if k in relay and (k != "SMTPUTF8" or "8BITMIME" in relay)]  # RFC 6531 section 3.1
    if starttls:
        keywords.append("STARTTLS")
    if auth:
        keywords.append(f"AUTH {' '.join(auth)}")
    if trusted:
        keywords += _FOR_THE_TRUSTED
    return Reply(250, tuple(keywords))
