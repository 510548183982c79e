"""Fetch members from a web server: HTTPS verified, redirects that carry no credentials, answers bounded in time and
size.

A password or token goes only to the server that the policy names.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import httpx2

from smtpguard.lists.sources import SourceError
from smtpguard.lists.sources.files import pieces_of, stream, unpacked
from smtpguard.lists.sources.server import SourceTimeouts, shut_down

MAX_REDIRECTS = 5
_AGENT = "smtpguard"
_DENIED = {
    401: "the credentials are not accepted",
    403: "access is denied",
    404: "there is no such resource",
    407: "the proxy requires a login",
}


class Web:
    """``secret``: the Authorization header for the first server. ``label``: its name in error messages."""

    def __init__(
        self, *, label: str, patience: SourceTimeouts, verify: ssl.SSLContext, secret: str | None, named: str
    ) -> None:
        """``named``: the key of the policy that names the secret's file, for error messages."""
        self._label, self._patience, self._secret, self._named = label, patience, secret, named
        self._socket: Any = None
        self._client = httpx2.Client(
            verify=verify,
            timeout=patience.wait_seconds,
            headers={"User-Agent": _AGENT, "Accept-Encoding": "gzip, identity"},
        )

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """A response whose headers have come, as a stream: 200 or 304. Raises SourceError for everything else."""
        home = _origin(httpx2.URL(url))
        for _ in range(MAX_REDIRECTS + 1):
            self._patience.look(self._label)
            request = self._client.build_request(
                "GET", url, headers=dict(headers or {}), extensions={"trace": self._trace}
            )
            if self._secret is not None and _origin(request.url) == home:
                request.headers["Authorization"] = self._secret
            with self._mended(), self._patience.cutting(self._cut):
                response = self._client.send(request, stream=True)
            if response.status_code in (200, 304):
                return response
            response.close()
            if not response.has_redirect_location:
                raise SourceError(f"{self._label}: {self._refused(response)}")
            onward = request.url.join(response.headers["Location"])
            if onward.scheme != "https" and onward.scheme != request.url.scheme:
                raise SourceError(
                    f"{self._label}: it redirects from {request.url.scheme} to {onward.scheme}, which is not followed"
                )
            url = str(onward)
        raise SourceError(f"{self._label}: more than {MAX_REDIRECTS} redirects")

    def body(self, response: httpx2.Response, max_octets: int) -> BinaryIO:
        """The decompressed body. Reading raises SourceError when it is cut, too large or too slow."""
        return stream(self._bounded(unpacked(stream(self._chunks(response)), self._label), max_octets))

    def close(self) -> None:
        self._client.close()

    def _chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        with self._mended(), self._patience.cutting(self._cut):
            for chunk in response.iter_raw():
                self._patience.look(self._label)
                yield chunk

    def _bounded(self, raw: BinaryIO, most: int) -> Iterator[bytes]:
        left = most
        for piece in pieces_of(raw):
            left -= len(piece)
            if left < 0:
                raise SourceError(f"{self._label}: the answer is larger than {most >> 20} MB (max_mb)")
            yield piece

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep the socket of each connection."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")

    def _cut(self) -> None:
        if self._socket is not None:
            shut_down(self._socket.fileno())

    @contextmanager
    def _mended(self) -> Iterator[None]:
        """Turn the library's exceptions into a SourceError that explains them."""
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise SourceError(f"{self._label}: {self._said(error)}") from None

    def _refused(self, response: httpx2.Response) -> str:
        said = f"it answers {response.status_code} {response.reason_phrase}".rstrip()
        why = _DENIED.get(response.status_code)
        hint = f" (see {self._named})" if response.status_code in (401, 403) else ""
        return f"{said}: {why}{hint}" if why else said

    def _said(self, error: Exception) -> str:
        if why := self._patience.spent():
            return why
        if isinstance(error, httpx2.TimeoutException):
            return f"no answer within {self._patience.wait_seconds:g} s (timeout)"
        if isinstance(error, httpx2.RemoteProtocolError):
            return "the response is incomplete or is not HTTP"
        said = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in said:
            why = said.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "not known here"
            return f"its certificate is not trusted: {why} (see ca_file)"
        return (
            f"it cannot be reached: {said}"
            if isinstance(error, httpx2.ConnectError)
            else f"the connection failed: {said}"
        )


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)
