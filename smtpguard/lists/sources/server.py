"""What the sources on other machines share: credentials in files, the CAs that may sign the server's certificate, timeouts
(for each answer, for all answers together, and none once the sync is cancelled), and answers over HTTP.

A path may begin with ``$CREDENTIALS_DIRECTORY/``, where systemd puts what LoadCredential= names. HTTPS is verified, and a
password or token goes only to the server that the policy names, also if it redirects. Answers are bounded in time and size.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

from smtpguard.config.problem import Broken
from smtpguard.config.secret import read_secret
from smtpguard.lists.sources import SourceError, Stop
from smtpguard.lists.sources.files import pieces_of, stream, unpacked

_FOLDER = ("$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}")


def file_of(written: str, base: Path) -> Path:
    """The file that the policy names; ``base`` is the policy's own folder. Raises SourceError."""
    head, _, tail = written.partition("/")
    if head not in _FOLDER:
        return base / written
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise SourceError(
            f"{written}: CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential="
        )
    return Path(folder) / tail


def secret(written: str, base: Path) -> str:
    """The password or token in a file. Raises SourceError, which does not contain it."""
    file = file_of(written, base)
    try:
        return read_secret(file).get_secret_value()
    except Broken as error:
        problem = error.problems[0]
        raise SourceError(f"the secret in {problem.file} {problem.text}") from None


def trust(ca_file: str | None, base: Path) -> ssl.SSLContext:
    """Certificates are verified by the system's CAs, or by those in ``ca_file`` alone. Raises SourceError."""
    if ca_file is None:
        return ssl.create_default_context()
    file = file_of(ca_file, base)
    try:
        return ssl.create_default_context(cafile=str(file))
    except OSError as error:  # an SSLError is one
        why = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else "no certificates in PEM"
        raise SourceError(f"the certificates in {file} cannot be used: {why}") from None


LOOK_SECONDS = 0.2


class SourceTimeouts:
    """The time starts when it is created."""

    def __init__(
        self, *, wait_seconds: float, limit_seconds: float, stop: Stop, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.wait_seconds = wait_seconds
        self._limit = limit_seconds
        self._stop = stop
        self._now = monotonic
        self._end = monotonic() + limit_seconds

    @classmethod
    def of(cls, declaration: Mapping[str, Any], stop: Stop) -> SourceTimeouts:
        return cls(
            wait_seconds=declaration.get("timeout", 30), limit_seconds=declaration.get("time_limit", 3600), stop=stop
        )

    def spent(self) -> str:
        """Why the time is over, "" before that."""
        if self._stop():
            return "stopped before its end"
        return f"no end within {self._limit:g} s (time_limit)" if self._now() > self._end else ""

    def look(self, label: str) -> None:
        """Called between two answers. Raises SourceError when the time is over."""
        if why := self.spent():
            raise SourceError(f"{label}: {why}")

    @contextmanager
    def cutting(self, cut: Callable[[], object]) -> Iterator[None]:
        """For a wait within a library that cannot check: ``cut`` aborts it, from another thread, when the time is over."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_SECONDS):
                if self.spent():
                    cut()
                    return

        watcher = threading.Thread(target=watch, name="list source watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def untrusted(said: str) -> str:
    """The server's certificate is not trusted, in words, by a library's error; "" for another error."""
    if "CERTIFICATE_VERIFY_FAILED" not in said:
        return ""
    why = said.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "not known here"
    return f"its certificate is not trusted: {why} (see ca_file)"


def shut_down(descriptor: int) -> None:
    """Shut a connection down, so that a wait on it ends even if the network is dead."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        end.shutdown(socket.SHUT_RDWR)


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
        failed = "it cannot be reached" if isinstance(error, httpx2.ConnectError) else "the connection failed"
        return untrusted(said) or f"{failed}: {said}"


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)
