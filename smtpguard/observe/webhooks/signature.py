"""How a receiver knows that a webhook is ours, and new: HMAC-SHA256 over the time and the body, in one header.

Smtpguard-Signature: t=1767225600,v1=5257a869e7...
"""

from __future__ import annotations

import hmac

HEADER = "Smtpguard-Signature"
TOLERANCE_SECONDS = 300
"""What a receiver should allow between ``t`` and its own clock, so that what somebody recorded cannot be played again."""


def signed(secret: bytes, at: int, body: bytes) -> str:
    """The header's value."""
    return f"t={at},v1={hmac.new(secret, b'%d.' % at + body, 'sha256').hexdigest()}"


def genuine(secret: bytes, header: str, body: bytes, now: int) -> bool:
    """As a receiver asks it. One of several v1 is enough: that is how a secret is changed."""
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t" and value.isdecimal()]
    if len(times) != 1 or abs(now - int(times[0])) > TOLERANCE_SECONDS:
        return False
    right = signed(secret, int(times[0]), body).partition("v1=")[2]
    return any(hmac.compare_digest(value.encode(), right.encode()) for name, _, value in pairs if name == "v1")
