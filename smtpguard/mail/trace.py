"""Write the trace headers of a message that passes (RFC 5321 section 4.4, RFC 3848), and recognise our own.

Two fields are prepended: ``Received``, and ``X-Smtpguard`` with the transaction's id, the policy's first twelve digits,
tags of the lists whose addresses were among the recipients (keyed, so that they name nothing), a few numbers of the
text's sketch, and an HMAC. Anybody can write such a field; only one with a valid HMAC is ours. Of mail to a list's
address the HMAC covers what identifies a list server's copy as the post that it was made from: Message-ID and Date,
which expansion keeps, and the text, so that nobody can put another text under the trace of a post that they received.
Of other mail it covers neither field: some relays write both anew.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache

from smtpguard.mail.envelope import Transaction
from smtpguard.mail.message import Header

NAME = "X-Smtpguard"
POLICY_DIGITS = 12
NUMBERS = 12  # of the sketch: with half of them equal it is the same text
MAX_LISTS = 50  # a line stays below 998 octets (RFC 5322 section 2.1.1)
_MAC_OCTETS = 16
_OF_THE_POST = ("message-id", "date")
_TRACE = re.compile(
    r"id=([0-9A-Za-z]{1,64}); policy=([0-9a-f]{0,12});(?: lists=([0-9a-f,]{0,900});)?(?: text=([0-9a-f]{8,96});)? mac=([0-9a-f]{32})\Z"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9.:_\-\[\]]")
_UNSAFE_PATH = re.compile(r"[^\x21-\x3a=\x3f-\x7e]")  # also <, > and ;


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceInfo:
    """``id``: the transaction in which the post was admitted; ``policy``: the beginning of its policy's SHA-256."""

    id: str
    policy: str
    lists: frozenset[str] = frozenset()  # tags
    text: tuple[int, ...] = ()  # the smallest numbers of its sketch; none for a post with little text

    def admitted_to(self, name: str, key: bytes) -> bool:
        """Whether the post was addressed to the list of that name, so that its expansion was already decided."""
        return _tag(name, key) in self.lists


def prepend(
    transaction: Transaction, policy_sha256: str, key: bytes, hostname: str, now: datetime, lists: Collection[str],
    text: Sequence[int] = (),
) -> bytes:  # fmt: skip
    """Both fields, folded, each line ending in CRLF. ``lists``: names of the addressed lists; ``text``: the text's
    sketch."""
    session, envelope = transaction.session, transaction.envelope
    received = _received(
        session.helo, session.client_name, session.client_ip, hostname,
        session.esmtp, envelope.smtputf8, session.tls, bool(session.auth_user),
    )  # fmt: skip
    shown = ""
    if len(envelope.recipients) == 1:  # with several, naming them would disclose a Bcc
        recipient = envelope.recipients[0].address
        if recipient.plain or not _UNSAFE_PATH.search(recipient.text):
            shown = f"\r\n\tfor <{recipient.text}>"
    policy, tags, words, addressed = policy_sha256[:POLICY_DIGITS], "", "", ""
    if lists:
        tags = ",".join(sorted([_tag(name, key) for name in lists])[:MAX_LISTS])
        words = "".join([f"{n:08x}" for n in text[:NUMBERS]])
        addressed = f"\tlists={tags};\r\n" + (f"\ttext={words};\r\n" if words else "")
    mac = _mac(transaction.id, policy, tags, words, transaction.message.header, key, () if lists else _OF_THE_POST)
    return (
        f"{received} id {transaction.id}{shown};\r\n\t{_date(int(now.timestamp()))}\r\n"
        f"{NAME}: id={transaction.id}; policy={policy};\r\n"
        f"{addressed}\tmac={mac}\r\n"
    ).encode("ascii")


@lru_cache(maxsize=1024)
def _received(
    helo: str, name: str, address: str, hostname: str, esmtp: bool, smtputf8: bool, tls: bool, login: bool
) -> str:
    """The beginning of Received, up to its id. Protocols: RFC 3848 and RFC 6531 section 4.3."""
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    client = " ".join(filter(None, (_UNSAFE.sub("?", name)[:255], _UNSAFE.sub("?", literal))))
    protocol = ("UTF8SMTP" if smtputf8 else "ESMTP") + ("S" if tls else "") + ("A" if login else "")
    return (
        f"Received: from {_UNSAFE.sub('?', helo)[:255] or 'unknown'} ({client})\r\n"
        f"\tby {hostname} (smtpguard) with {protocol if esmtp else 'SMTP'}"
    )


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    """RFC 5322 section 3.3, in UTC."""
    return formatdate(second).replace("-0000", "+0000")


def trusted(header: Header, key: bytes) -> TraceInfo | None:
    """The topmost trace field, if it is ours: the one of the last pass. A field below it does not count."""
    fields = header.all(NAME)
    if not fields:
        return None
    found = _TRACE.match(" ".join(fields[0].text.split()))
    if not found:
        return None
    id, policy, tags, words, mac = found.groups(default="")
    # a relay adds a Message-ID or Date to a message that came without (RFC 6409 section 8)
    left_out = (_OF_THE_POST, (), _OF_THE_POST[:1], _OF_THE_POST[1:])
    if not any(hmac.compare_digest(mac, _mac(id, policy, tags, words, header, key, those)) for those in left_out):
        return None
    numbers = tuple(int(words[at : at + 8], 16) for at in range(0, len(words), 8))
    return TraceInfo(id=id, policy=policy, lists=frozenset(filter(None, tags.split(","))), text=numbers)


def _tag(name: str, key: bytes) -> str:
    return _digest(key, b"smtpguard list", name.encode())[:16]


def _digest(key: bytes, purpose: bytes, text: bytes) -> str:
    """HMAC-SHA-256 (RFC 2104) from its two halves, in half the time of hmac.digest."""
    inner, outer = _keyed(key, purpose)
    return hashlib.sha256(outer + hashlib.sha256(inner + text).digest()).hexdigest()


@lru_cache(maxsize=8)
def _keyed(key: bytes, purpose: bytes) -> tuple[bytes, bytes]:
    """Return the two halves of an HMAC key for one purpose, derived from the installation's secret."""
    own = hmac.digest(key, purpose, "sha256").ljust(64, b"\0")
    return own.translate(_INNER), own.translate(_OUTER)


_INNER, _OUTER = (bytes(octet ^ pad for octet in range(256)) for pad in (0x36, 0x5C))


def _mac(id: str, policy: str, tags: str, words: str, header: Header, key: bytes, without: Collection[str]) -> str:
    """Repeated fields are all covered, so that none can be added. ``without``: fields that it does not cover."""
    covered = f"{id}\0{policy}\0{tags}\0{words}"
    for name in _OF_THE_POST:
        found = () if name in without else header.named.get(name, ())
        covered += f"\0{len(found)}"
        for f in found:
            covered += f"\0{' '.join(f.text.split())}"
    return _digest(key, b"smtpguard trace", covered.encode("utf-8", "surrogateescape"))[: 2 * _MAC_OCTETS]
