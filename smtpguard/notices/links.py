"""The signed links in the notice to the writer of a held message, who has no account. Pure.

A link expires. It proves that its holder has the notice, and so access to the writer's mailbox. Opening it only shows
the message; to act, the writer submits a form.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

VALID_AFTER_EXPIRY = timedelta(days=7)
"""How long after the hold's expiry a link still shows its outcome."""
_PURPOSE = "writer"
_MAC_OCTETS = 16
_LONGEST = 1000
"""The most characters of a link that are decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a link says. ``address``: the canonical address that it was sent to; ``until``: when it expires."""

    hold_id: str
    address: str
    until: datetime


class Links:
    """Sign and read links. ``secret``: the installation's, so that every process and node accepts the same links."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"smtpguard signed link 1", "sha256")

    def sign(self, link: Link) -> str:
        """Return a link as text for a URL: letters, digits, - and _."""
        payload = "\n".join((_PURPOSE, link.hold_id, str(int(link.until.timestamp())), link.address)).encode()
        return _text(self._mac(payload) + payload)

    def read(self, text: str, now: datetime) -> Link | None:
        """Return the link of a text, None if it was not signed here or has expired. The caller cannot tell which."""
        raw = _octets(text)
        mac, payload = raw[:_MAC_OCTETS], raw[_MAC_OCTETS:]
        if not payload or not hmac.compare_digest(mac, self._mac(payload)):
            return None
        _, hold_id, until, address = payload.decode().split("\n", 3)
        link = Link(hold_id=hold_id, address=address, until=datetime.fromtimestamp(int(until), UTC))
        return link if now < link.until else None

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")[:_MAC_OCTETS]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _octets(text: str) -> bytes:
    """Decode base64. Returns b"" for other text, and for an encoding that is not canonical: one link has one
    spelling."""
    if len(text) > _LONGEST or not text.isascii():
        return b""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return raw if _text(raw) == text else b""
