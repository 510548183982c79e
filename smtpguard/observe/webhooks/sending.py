"""One delivery attempt of a webhook: a signed POST with limits of time and size. No redirect is followed."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from smtpguard import __version__
from smtpguard.observe.webhooks.payload import Format, shaped

if TYPE_CHECKING:
    import httpx2


SECONDS = 15.0
CONNECT_SECONDS = 5.0
MOST_WAIT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """``problem``: "" if it was accepted. ``gone``: the receiver wants no more (410). ``wait``: the pause that it asked
    for."""

    problem: str = ""
    gone: bool = False
    wait: float = 0.0


class Sender:
    """``http``: a client for tests. The library is imported at the first attempt: most processes never send."""

    def __init__(self, *, seconds: float = SECONDS, http: httpx2.AsyncClient | None = None) -> None:
        self._seconds = seconds
        self._http = http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def send(
        self, url: str, secret: bytes, payload: Mapping[str, Any], now: datetime, form: Format = Format.JSON
    ) -> Answered:
        """Total: any error is an answer. It does not contain the url, which may hold a secret."""
        import httpx2

        if self._http is None:
            timeout = httpx2.Timeout(self._seconds, connect=min(CONNECT_SECONDS, self._seconds))
            self._http = httpx2.AsyncClient(timeout=timeout, follow_redirects=False)
        body = json.dumps(shaped(payload, form), ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"smtpguard/{__version__}",
            "Smtpguard-Id": str(payload["id"]),
            HEADER: signed(secret, int(now.timestamp()), body),
        }
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._http.stream("POST", url, content=body, headers=headers) as answer,
            ):
                return _read(answer)
        except (TimeoutError, httpx2.TimeoutException):
            return Answered(problem="no answer in time")
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            return Answered(problem=type(error).__name__)


def _read(answer: httpx2.Response) -> Answered:
    """By the status; the body is not read."""
    if answer.is_success:
        return Answered()
    asked = answer.headers.get("retry-after", "")
    wait = min(float(asked), MOST_WAIT) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0.0
    return Answered(problem=f"HTTP {answer.status_code}", gone=answer.status_code == 410, wait=wait)


# Signature of a webhook: HMAC-SHA256 over the time and the body, in one header.
#
# Smtpguard-Signature: t=1767225600,v1=5257a869e7...


HEADER = "Smtpguard-Signature"
TOLERANCE_SECONDS = 300
"""The difference between ``t`` and its own clock that a receiver should allow, so that a recorded request cannot be
replayed."""


def signed(secret: bytes, at: int, body: bytes) -> str:
    """The header's value."""
    return f"t={at},v1={hmac.new(secret, b'%d.' % at + body, 'sha256').hexdigest()}"


def genuine(secret: bytes, header: str, body: bytes, now: int) -> bool:
    """The receiver's check. One valid v1 of several is enough, so that a secret can be changed."""
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t" and value.isdecimal()]
    if len(times) != 1 or abs(now - int(times[0])) > TOLERANCE_SECONDS:
        return False
    right = signed(secret, int(times[0]), body).partition("v1=")[2]
    return any(hmac.compare_digest(value.encode(), right.encode()) for name, _, value in pairs if name == "v1")
