"""The EHLO keywords that a client is offered: the relay's, as far as we can carry them, and our own (RFC 5321 section
4.1.1.1).

PIPELINING (RFC 2920) and STARTTLS (RFC 3207) are ours, whatever the relay offers; SIZE (RFC 1870) is the smaller of
both. 8BITMIME, SMTPUTF8, DSN and ENHANCEDSTATUSCODES are passed on from the relay, and so are mechanisms of AUTH if
clients may log in here. CHUNKING and the rest cannot be carried, so they are not offered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smtpguard.mail.reply import Reply

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
    """The reply to EHLO."""
    keywords = [hostname, "PIPELINING", f"SIZE {largest(relay, message_octets)}"]
    keywords += [k for k in _CARRIED if k in relay and (k != "SMTPUTF8" or "8BITMIME" in relay)]  # RFC 6531 section 3.1
    if starttls:
        keywords.append("STARTTLS")
    if auth:
        keywords.append(f"AUTH {' '.join(auth)}")
    if trusted:
        keywords += _FOR_THE_TRUSTED
    return Reply(250, tuple(keywords))
