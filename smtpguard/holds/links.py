"""Signed links that let the writer of a held message see it and act on it without an account. Each has one purpose and
expires.

A link proves that its holder has the notice, and so access to the writer's mailbox. Opening it only shows the message;
to act, the writer submits a form.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WRITER = "writer"
AFTER = timedelta(days=7)
"""How long after the hold's expiry a link still shows its outcome."""

_MAC_OCTETS = 16
_LONGEST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """``address``: whom it was sent to, canonical."""

    hold_id: str
    address: str
    until: datetime


class Links:
    """``secret``: the installation's, so that every process and node accepts the same links."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"smtpguard signed link 1", "sha256")

    def sign(self, link: Link, purpose: str = WRITER) -> str:
        """As text for a URL: letters, digits, - and _."""
        payload = "\n".join((purpose, link.hold_id, str(int(link.until.timestamp())), link.address)).encode()
        return _text(self._mac(payload) + payload)

    def read(self, text: str, now: datetime, purpose: str = WRITER) -> Link | None:
        """None for a link that was not signed here, has another purpose, or has expired: the caller cannot tell which."""
        raw = _octets(text)
        mac, payload = raw[:_MAC_OCTETS], raw[_MAC_OCTETS:]
        if not payload or not hmac.compare_digest(mac, self._mac(payload)):
            return None
        meant, hold_id, until, address = payload.decode().split("\n", 3)
        link = Link(hold_id=hold_id, address=address, until=datetime.fromtimestamp(int(until), UTC))
        return link if meant == purpose and now < link.until else None

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")[:_MAC_OCTETS]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _octets(text: str) -> bytes:
    """b"" for text that is not base64, or not its canonical encoding: one link has one spelling."""
    if len(text) > _LONGEST or not text.isascii():
        return b""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return raw if _text(raw) == text else b""
