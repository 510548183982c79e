"""An address of a mailbox, as SMTP carries it (RFC 5321 section 4.1.2, RFC 6531 section 3.3).

Here live the grammar of paths on raw bytes, and the canonical key under which every spelling of the same mailbox meets.
Never here: what an address means to anyone (lists), or how it is shown to people (notice).

The null reverse-path ``<>`` is no address: where a reverse-path may be null, its type is ``Address | None``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import idna

MAX_LOCAL_OCTETS = 64  # RFC 5321 section 4.5.3.1.1
MAX_DOMAIN_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
MAX_PATH_OCTETS = 256  # RFC 5321 section 4.5.3.1.3; the brackets count

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]"
_UTF8 = r"[^\x00-\x7f]"
_DOT_STRING = rf"(?:{_ATEXT}|{_UTF8})+(?:\.(?:{_ATEXT}|{_UTF8})+)*"
_QUOTED = rf'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|{_UTF8}|\\[\x20-\x7e])*"'
_LABEL = rf"(?:[A-Za-z0-9_]|{_UTF8})(?:(?:[A-Za-z0-9_\-]|{_UTF8})*(?:[A-Za-z0-9_]|{_UTF8}))?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_LITERAL = r"\[(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|IPv6:[0-9A-Fa-f:.]+)\]"
_MAILBOX = re.compile(rf"(?P<local>{_DOT_STRING}|{_QUOTED})@(?P<domain>{_DOMAIN}|{_LITERAL})\Z")
_SOURCE_ROUTE = re.compile(rf"@{_DOMAIN}(?:,@{_DOMAIN})*:")
_DOT_ONLY = re.compile(rf"{_DOT_STRING}\Z")
_PAIR = re.compile(r"\\(.)", re.S)
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._\-]*@[a-z0-9\-]+(?:\.[a-z0-9\-]+)+\Z")  # what nearly every address is


class BadAddress(ValueError):
    """Not a mailbox that RFC 5321 or RFC 6531 knows. The text says what is wrong, never the secret parts of a session."""


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox. ``local`` is unquoted (what the mailbox is called), ``domain`` is as spelled, without a trailing dot."""

    local: str
    domain: str

    def __str__(self) -> str:
        """The address as SMTP writes it, quoted only where it must be."""
        if _DOT_ONLY.match(self.local):
            return f"{self.local}@{self.domain}"
        quoted = self.local.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"@{self.domain}'

    @property
    def is_ascii(self) -> bool:
        """Whether it can be sent to a relay without SMTPUTF8 (RFC 6531)."""
        return self.local.isascii() and self.domain.isascii()

    @property
    def ascii_domain(self) -> str:
        """The domain in lower case and in A-labels (RFC 5891), which is how look-alikes are told apart."""
        return _ascii_domain(self.domain)

    def canonical(self, delimiters: str = "") -> str:
        """The key under which every spelling of this mailbox meets: ``local@domain`` in lower case and A-labels.

        Case, quoting, quoted pairs, a trailing dot, white space and dots in excess are gone. What follows the first of
        ``delimiters`` (sub-addressing, RFC 5233) is cut, unless nothing would be left. Percent and bang routing in the
        local part (``user%list.example.com@relay``, ``list.example.com!user``) is undone, since a relay may undo it too.
        """
        local, domain = self.local, self.ascii_domain
        if not (local.isascii() and _PLAIN.match(f"{local}@{domain}")):
            local, domain = _routed(local.strip(), domain)
        local = _fold(local)
        for delimiter in delimiters:
            head = local.partition(delimiter)[0]
            local = head or local
        return f"{local}@{domain}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """``text`` without angle brackets, as people and YAML write it. Raises BadAddress."""
        return _mailbox(text.strip())


def parse_path(raw: bytes, *, smtputf8: bool = False) -> Address | None:
    """The path between and with ``<>``, from MAIL FROM or RCPT TO, on raw bytes. ``<>`` gives None.

    Source routes (``<@relay.example:user@example.com>``) are dropped, as RFC 5321 appendix C asks. Bytes above 0x7f are
    taken as UTF-8 only with ``smtputf8`` (RFC 6531 section 3.3). Encoded words, comments, CR, LF and NUL are refused.
    Raises BadAddress.
    """
    if not raw.startswith(b"<") or not raw.endswith(b">"):
        raise BadAddress("the address must stand in angle brackets")
    if len(raw) > MAX_PATH_OCTETS:
        raise BadAddress("the path is longer than 256 octets")
    inner = raw[1:-1]
    if not inner:
        return None
    try:
        text = inner.decode("utf-8" if smtputf8 else "ascii")
    except UnicodeDecodeError:
        raise BadAddress("not UTF-8" if smtputf8 else "characters beyond ASCII need SMTPUTF8") from None
    route = _SOURCE_ROUTE.match(text)
    return _mailbox(text[route.end() :] if route else text)


def _mailbox(text: str) -> Address:
    if text.isascii() and "=?" in text and "?=" in text:
        raise BadAddress("an encoded word is no part of an SMTP address")
    found = _MAILBOX.match(text)
    if not found:
        raise BadAddress("not a mailbox: expected local-part@domain")
    local, domain = found["local"], found["domain"].removesuffix(".")
    if local.startswith('"'):
        local = _PAIR.sub(r"\1", local[1:-1])
        if not local.isprintable():
            raise BadAddress("control characters in the local part")
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise BadAddress("the local part is longer than 64 octets")
    if len(domain.encode()) > MAX_DOMAIN_OCTETS:
        raise BadAddress("the domain is longer than 255 octets")
    if not domain.startswith("["):
        _ascii_domain(domain)
    return Address(local, domain)


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise BadAddress("not a domain name that IDNA knows") from None


def _fold(local: str) -> str:
    return local.lower() if local.isascii() else local.casefold()


def _routed(local: str, domain: str) -> tuple[str, str]:
    """Undo percent and bang routing, however deep, while what is inside is a mailbox itself."""
    for _ in range(8):
        if "%" in local:
            head, _, tail = local.rpartition("%")
        elif "!" in local:
            tail, _, head = local.partition("!")
        elif "@" in local:
            head, _, tail = local.rpartition("@")
        else:
            break
        if not head or "." not in tail or not _MAILBOX.match(f"x@{tail}"):
            break
        try:
            local, domain = head, _ascii_domain(tail)
        except BadAddress:
            break
    return local, domain
