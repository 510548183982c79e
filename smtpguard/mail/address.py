"""An address of a mailbox, as SMTP carries it (RFC 5321 section 4.1.2, RFC 6531 section 3.3).

The grammar of paths on raw bytes, and the canonical key that is the same for every spelling of a mailbox. The null
reverse-path ``<>`` is no address: where a reverse-path may be null, its type is ``Address | None``.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import field
from functools import lru_cache

import idna

from smtpguard.mail.constant import pair

MAX_LOCAL_OCTETS = 255  # RFC 5321 section 4.5.3.1.1 says 64; VERP return addresses are longer, and MTAs accept them
MAX_DOMAIN_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
MAX_PATH_OCTETS = MAX_LOCAL_OCTETS + MAX_DOMAIN_OCTETS + len("<@>")  # RFC 5321 section 4.5.3.1.3 says 256
MAX_LABEL_OCTETS = 63  # RFC 1035 section 2.3.4

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\x80-\U0010ffff]"
_UTF8 = r"[^\x00-\x7f]"
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_QUOTED = rf'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|{_UTF8}|\\[\x20-\x7e])*"'
_LABEL = rf"(?:[A-Za-z0-9_]|{_UTF8})(?:(?:[A-Za-z0-9_\-]|{_UTF8})*(?:[A-Za-z0-9_]|{_UTF8}))?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_LITERAL = r"\[(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[Ii][Pp][Vv]6:[0-9A-Fa-f:.]+)\]"
_MAILBOX = re.compile(rf"(?P<local>{_DOT_STRING}|{_QUOTED})@(?P<domain>{_DOMAIN}|{_LITERAL})\Z")
_SOURCE_ROUTE = re.compile(rf"@{_DOMAIN}(?:,@{_DOMAIN})*:")
_DOT_ONLY = re.compile(rf"{_DOT_STRING}\Z")
_PAIR = re.compile(r"\\(.)", re.S)
_DOTS = re.compile(r"\.{2,}")
_COMMENT = re.compile(r"\([^()]*\)")
# Sendmail takes what is behind one pair without an "@", else the last pair
_BRACKETED = re.compile(r"\A<[^<>@]*>([^<>\s][^<>]*)\Z|<([^<>]+)>[^<>]*\Z")
_PLAIN = re.compile(r"[a-z0-9_\-]+(?:\.[a-z0-9_\-]+)*\Z")  # nearly every local part, in lower case
_PLAIN_LABEL = r"[a-z0-9_]++(?:-++[a-z0-9_]++)*+"
PLAIN = rf"[a-z0-9_\-]++(?:\.[a-z0-9_\-]++)*+@{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*+"
is_plain = re.compile(rf"{PLAIN}\Z").match
"""Matches a text in lower case, of at most 63 octets, that is a mailbox and its own canonical key, sub-addressing
aside: nearly all entries of a list of millions. ASCII, and short enough in every part."""
_RETURN = re.compile(
    r"(?:(?:ms)?prvs\d*|btv\d)=+[^=]+=+(?P<mailbox>.+)"  # BATV
    r"|srs0[=+\-][^=]*=[^=]*=(?P<domain>[^=]*)=(?P<user>.+)"
    r"|srs1[=+\-][^=]*=(?P<host>[^=]*)=(?P<rest>[=+\-].+)",
    re.S,
)
"""A return address as servers make it: when mail comes back to it, they undo it, and some do so for all mail and any tag."""
_WRAPPED = "imceasmtp-"
_HEX = re.compile(r"\+([0-9a-f]{2})")
_SIGN = r"(?:@|%40|[\uff20\ufe6b]|[ \t]?[(\[{][ \t]?at[ \t]?[)\]}][ \t]?)"
_IN_LOCAL = r"""[^\s@\uff20\ufe6b<>",;:()\[\]]"""
IN_TEXT = re.compile(
    rf"""((?<!\\)"(?:[^"\\]|\\.){{0,510}}+"|(?<!{_IN_LOCAL})(?:(?!{_SIGN}){_IN_LOCAL})++){_SIGN}"""
    r"([\w\u0080-\U0010ffff.\-]+|\[[^\s\[\]]{1,64}\])",
    re.IGNORECASE,
)
"""Matches an address in a text as people and links spell it: ``anna@example.com``, ``"anna b"@...``, ``anna%40...``, ``anna (at) ...``.
Groups: the local part, the domain."""
_SPELLED_SIGN = re.compile(_SIGN, re.IGNORECASE)
_SPELLED_DOT = re.compile(r"[ \t]?[(\[{][ \t]?(?:dot|\.)[ \t]?[)\]}][ \t]?", re.IGNORECASE)
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, bidi and zero-width marks, surrogates, line separators


class BadAddress(ValueError):
    """Not a mailbox of RFC 5321 or RFC 6531. The text says what is wrong, never secrets of a session."""


@pair
class Address:
    """One mailbox. ``local`` is unquoted, ``domain`` is as spelled, without a trailing dot. ``text``: as SMTP writes it,
    quoted only where it must be. ``plain``: whether that is its own canonical key, sub-addressing aside."""

    local: str
    domain: str
    text: str = field(init=False, repr=False, compare=False)
    plain: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        local, text = self.local, f"{self.local}@{self.domain}"
        plain = len(text) <= MAX_LABEL_OCTETS and is_plain(text) is not None
        if not plain and not _DOT_ONLY.match(local):
            quoted = local.replace("\\", "\\\\").replace('"', '\\"')
            text = f'"{quoted}"@{self.domain}'
        self.text, self.plain = text, plain  # type: ignore[misc]

    def __str__(self) -> str:
        return self.text

    @property
    def is_ascii(self) -> bool:
        """Whether it can be sent to a relay without SMTPUTF8 (RFC 6531)."""
        return self.local.isascii() and self.domain.isascii()

    @property
    def ascii_domain(self) -> str:
        """The domain in lower case and in A-labels (RFC 5891), by which look-alikes differ."""
        return _ascii_domain(self.domain)

    def canonical(self, delimiters: str = "") -> str:
        """The key that is the same for every spelling of this mailbox: ``local@domain`` in lower case and A-labels.

        Case, quoting, quoted pairs, compatibility forms (NFKC), a trailing dot, white space around, excess dots, and
        comments and angle brackets within the quotes (Sendmail reads what they contain as an address once more) are
        removed. The part after the first of ``delimiters`` (sub-addressing, RFC 5233; see ``delimiters_at``) is cut,
        unless nothing would be left. Routing in the local part (``user%list.example.com@relay``,
        ``list.example.com!user``, ``"user@list.example.com"``, ``"@relay:user@list.example.com"``, Exchange's
        ``IMCEASMTP-user+40list+2Eexample+2Ecom``, BATV's ``prvs=1234567890=user``, SRS) is undone, since a relay may
        undo it too. In doubt two mailboxes share one key, so that no mailbox can hide behind two keys.
        """
        if self.plain and not cuts_plain(delimiters):  # nearly every address
            return self.text
        return _canonical(self.local, self.domain, delimiters)

    def domains(self, canonical: str) -> tuple[str, ...]:
        """Its domains in A-labels: its own, and the one that routing in its local part names, if any. ``canonical``: its
        canonical key."""
        there = canonical.rpartition("@")[2]
        return (there,) if self.domain == there else (self.ascii_domain, there)

    @classmethod
    def parse(cls, text: str) -> Address:
        """``text`` without angle brackets, as people and YAML write it. Raises BadAddress."""
        return _mailbox(text.strip(" \t"))

    @classmethod
    def parse_any(cls, text: str) -> Address | None:
        """Parse as ``parse`` does. Returns None for text that is no address."""
        try:
            return cls.parse(text)
        except BadAddress:
            return None


def with_ascii_domain(word: str) -> str:
    """An address or a Message-ID with its domain in lower case and in A-labels; any other word as it is."""
    local, at, domain = word.rpartition("@")
    try:
        return f"{local}@{_ascii_domain(domain)}" if at and not domain.isascii() else word
    except BadAddress:
        return word


def login_name(login: str) -> str:
    """The name in a login, in lower case, without a domain: "eva" for ``eva``, ``EXAMPLE\\eva`` and ``eva@example.com``."""
    return login.lower().rpartition("\\")[2].partition("@")[0]


def account_name(name: str) -> str:
    """The name, among addresses, of the account with this login that is no address: nobody's address is like it."""
    return f"login {name}"


def after_local(address: Address, ours: Address) -> str | None:
    """The text that follows the local part of ``ours``, with its sign, in lower case: "+list", "" for ``ours`` itself. None if
    the domain is another one, or the local part begins otherwise. Routing in the local part (``name%here@other``) is not
    followed: such mail is for the other domain, and its server decides about it."""
    if address.ascii_domain != ours.ascii_domain:
        return None
    local, wanted = address.local.lower(), ours.local.lower()
    return local[len(wanted) :] if local.startswith(wanted) else None


def with_signs(text: str) -> str:
    """Return a text with "@" and "." where people and links spell these: ``anna%40example.com``, ``anna (at) example (dot) com``."""
    return _SPELLED_DOT.sub(".", spelled) if (spelled := _SPELLED_SIGN.sub("@", text)) != text else text


def parse_path(raw: bytes, *, smtputf8: bool = False) -> Address | None:
    """The path with its ``<>``, from MAIL FROM or RCPT TO, on raw bytes. ``<>`` gives None.

    Source routes (``<@relay.example:user@example.com>``) are dropped, as RFC 5321 appendix C asks. Bytes above 0x7f are
    taken as UTF-8 only with ``smtputf8`` (RFC 6531 section 3.3). Encoded words, comments, CR, LF and NUL are refused.
    Raises BadAddress.
    """
    if not raw.startswith(b"<") or not raw.endswith(b">"):
        raise BadAddress("the address must stand in angle brackets")
    if len(raw) > MAX_PATH_OCTETS:
        raise BadAddress(f"the path is longer than {MAX_PATH_OCTETS} octets")
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
    if len(text) <= MAX_LABEL_OCTETS and is_plain(text):
        local, _, domain = text.partition("@")
        return Address(local, domain)
    if len(text) > 2 * MAX_PATH_OCTETS:
        raise BadAddress("longer than any address")
    if not text.isprintable() and any(unicodedata.category(c) in _UNSEEN for c in text):
        raise BadAddress("control characters in the address")
    if "=?" in text and "?=" in text:
        raise BadAddress("an encoded word is no part of an SMTP address")
    found = _MAILBOX.match(text)
    if not found:
        raise BadAddress("not a mailbox: expected local-part@domain")
    local, domain = found["local"], found["domain"].removesuffix(".")
    if local.startswith('"'):
        local = _PAIR.sub(r"\1", local[1:-1])
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise BadAddress(f"the local part is longer than {MAX_LOCAL_OCTETS} octets")
    if len(domain.encode()) > MAX_DOMAIN_OCTETS:
        raise BadAddress("the domain is longer than 255 octets")
    _ascii_domain(domain)
    return Address(local, domain)


def delimiters_at(delimiters: str, ascii_domain: str) -> str:
    """The sub-address delimiters of a domain. ``delimiters``: the characters that count everywhere, then, each after a
    space, ``domain=characters`` for domains with others; ``*.example.com`` is every name below, and the longest match
    counts."""
    if " " not in delimiters:
        return delimiters
    return _delimiters_at(delimiters, ascii_domain)


@lru_cache(maxsize=4096)
def _delimiters_at(delimiters: str, ascii_domain: str) -> str:
    everywhere, *others = delimiters.split(" ")
    signs = dict(other.split("=", 1) for other in others)
    if ascii_domain in signs:
        return signs[ascii_domain]
    above = [d for d in signs if d.startswith("*.") and ascii_domain.endswith(d[1:])]
    return signs[max(above, key=len)] if above else everywhere


def is_among(domain: str, names: Iterable[str]) -> bool:
    """Whether it is one of these domains; ``*.`` and a domain means every name below it."""
    return any(domain.endswith(name[1:]) if name.startswith("*.") else domain == name for name in names)


def every_delimiter(delimiters: str) -> frozenset[str]:
    """Each delimiter of any domain."""
    everywhere, *others = delimiters.split(" ")
    return frozenset(everywhere).union(*(other.split("=", 1)[1] for other in others))


@lru_cache(maxsize=64)
def cuts_plain(delimiters: str) -> bool:
    """Whether any of them can be in a mailbox that ``is_plain`` matches."""
    return any(is_plain(f"x{sign}x@x") for sign in every_delimiter(delimiters))


@lru_cache(maxsize=4096)
def _canonical(local: str, domain: str, delimiters: str) -> str:
    """Cached, since it is asked repeatedly for one message."""
    local, domain = local.lower(), _ascii_domain(domain)
    if _PLAIN.match(local):
        return f"{_tidy(_cut(local, delimiters_at(delimiters, domain)))}@{domain}"
    local = _tidy(_fold(local))
    while True:  # each round shortens the local part, or is the last
        routed, domain = _routed(local, domain)
        cut = _tidy(_cut(routed, delimiters_at(delimiters, domain)))
        if cut == local:
            return f"{local}@{domain}"
        local = cut


def _ascii_domain(domain: str) -> str:
    """``domain`` in lower case, A-labels and without a trailing dot; a literal in its shortest spelling. Raises BadAddress."""
    if domain.startswith("["):
        return _literal(domain)
    ascii_domain = (domain.lower() if domain.isascii() else _a_labels(domain)).removesuffix(".")
    if len(ascii_domain) > MAX_LABEL_OCTETS and max(map(len, ascii_domain.split("."))) > MAX_LABEL_OCTETS:
        raise BadAddress("a label of the domain is longer than 63 octets")
    return ascii_domain


@lru_cache(maxsize=4096)
def _a_labels(domain: str) -> str:
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except (UnicodeError, ValueError, IndexError):
        raise BadAddress("not a domain name that IDNA knows") from None


def _literal(domain: str) -> str:
    """An address literal (RFC 5321 section 4.1.3): ``[IPv6:0:0:0:0:0:0:0:1]`` is ``[ipv6:::1]``."""
    inner = domain[1:-1].lower()
    tag = "ipv6:" if inner.startswith("ipv6:") else ""
    try:
        return f"[{tag}{ipaddress.ip_address(inner.removeprefix('ipv6:')).compressed}]"
    except ValueError:
        raise BadAddress("not an address literal") from None


def _fold(local: str) -> str:
    """Case-folded and normalized until nothing changes (Unicode's NFKC_Casefold needs two rounds)."""
    if local.isascii():
        return local.lower()
    for _ in range(4):
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", local).casefold())
        if folded == local:
            break
        local = folded
    return local


def _tidy(local: str) -> str:
    """Return a local part without comments, text that Sendmail drops beside angle brackets, surrounding white space, and dots
    that a dot-string does not allow. It stays unchanged if nothing else is left."""
    plain = _COMMENT.sub("", local) if "(" in local else local
    bracketed = _BRACKETED.search(plain) if "<" in plain else None
    return _DOTS.sub(".", (bracketed[1] or bracketed[2] if bracketed else plain).strip(" \t.<>")) or local


def _cut(local: str, delimiters: str) -> str:
    for delimiter in delimiters:
        local = local.partition(delimiter)[0] or local
    return local


def _encapsulated(local: str) -> tuple[str, str] | None:
    """The mailbox that Exchange has encapsulated (MS-OXCMAIL section 2.1.3.2): ``imceasmtp-user+40example+2Ecom``, of
    any domain."""
    if not local.startswith(_WRAPPED):
        return None
    inner = _HEX.sub(lambda sign: chr(int(sign[1], 16)), local.removeprefix(_WRAPPED).replace("_", "/"))
    found = _MAILBOX.match(inner.lower())
    if not found:
        return None
    try:
        return _PAIR.sub(r"\1", found["local"].strip('"')), _ascii_domain(found["domain"])
    except BadAddress:
        return None


def _routed(local: str, domain: str) -> tuple[str, str]:
    """Undo routing in the local part, at any depth. A host without a dot, or none, is the server's own: it is dropped.
    So is an address literal within a route to a name."""
    first = domain
    while True:
        if (wrapped := _encapsulated(local)) is not None:
            local, domain = wrapped
            continue
        route = _SOURCE_ROUTE.match(local)
        if route and route.end() < len(local):
            local = local[route.end() :]
        for head, tail in routes(local):
            if head and (not tail or _MAILBOX.match(f"x@{tail}")):
                try:
                    own = "." not in tail or (tail[0] == "[" and domain != first)
                    local, domain = head, domain if own else _ascii_domain(tail)
                except BadAddress:
                    continue
                break
        else:
            return local, domain


def routes(local: str) -> list[tuple[str, str]]:
    """Each (mailbox, domain) that a relay could see in ``local``, in the order of Postfix and Sendmail; last, what a return
    address is of. IDNA has another full stop."""
    local = local.replace("\u3002", ".")
    inner, at, host = local.rpartition("@")
    site, bang, user = local.partition("!")
    before, percent, behind = local.rpartition("%")
    ways = ((at, inner, host), (bang, user, site), (percent, before, behind))
    found = [(mailbox, domain.strip()) for sign, mailbox, domain in ways if sign]
    if back := _RETURN.match(local):
        mailbox, site, user, host, rest = back.groups()
        found.append((mailbox or user or f"srs0{rest}", site or host or ""))
    return found
