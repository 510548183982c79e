"""Members from a web server (CSV, JSON or text), fetched only when they have changed (RFC 9110 section 13); and the HTTP client.

The server's validators (ETag, Last-Modified) are stored beside the indexes once the whole answer was read, and are sent
with the next request; 304 means that nothing has changed.

HTTPS is verified, and a password or token goes only to the server that the policy names, also if it redirects. Answers are bounded
in time and size. The client is here since only sources over HTTP load it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx2

from smtpguard.config.statefiles import replace_file
from smtpguard.lists.members import HttpMembers, OfMailman
from smtpguard.lists.sources import (
    Cell,
    Source,
    SourceError,
    SourceTimeouts,
    Stop,
    Tally,
    secret,
    shut_down,
    tls_context,
    too_late,
    why_untrusted,
)
from smtpguard.lists.sources.files import CsvTable, Format, TextTable, pieces_of, stream, unpacked
from smtpguard.lists.sources.jsontable import JsonTable
from smtpguard.locale.phrase import N_, Phrase, Said

_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
"""The header fields of an answer that are its validators, each with the field of a request that sends it back."""
_ACCEPT = {"csv": "text/csv", "json": "application/json", "text": "text/plain"}
MAX_REDIRECTS = 5
_AGENT = "smtpguard"
_DENIED = {
    401: N_("the credentials are not accepted"),
    403: N_("access is denied"),
    404: N_("there is no such resource"),
    407: N_("the proxy requires a login"),
}


class WebClient:
    """A client for one server of the policy, and those to which it redirects."""

    def __init__(
        self, declared: HttpMembers | OfMailman, base: Path, stop: Stop, *, label: str, secret: str | None, named: str
    ) -> None:
        """``label``: the server's name in error messages. ``secret``: the Authorization header, for the first server alone.
        ``named``: the key of the policy that names the secret's file, for error messages."""
        self._label, self._secret, self._named = label, secret, named
        self._patience = SourceTimeouts(declared, stop)
        self._socket: Any = None
        self._client = httpx2.Client(
            verify=tls_context(declared.ca_file, base),
            timeout=declared.timeout,
            headers={"User-Agent": _AGENT, "Accept-Encoding": "gzip, identity"},
        )

    def get(self, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        """Return a response of status 200 or 304 whose headers have come, as a stream. Raises SourceError for any other."""
        home = _origin(httpx2.URL(url))
        for _ in range(MAX_REDIRECTS + 1):
            self._patience.check(self._label)
            request = self._client.build_request("GET", url, headers=dict(headers), extensions={"trace": self._trace})
            if self._secret is not None and _origin(request.url) == home:
                request.headers["Authorization"] = self._secret
            with self._explained(), self._patience.cutting(self._cut):
                response = self._client.send(request, stream=True)
            if response.status_code in (200, 304):
                return response
            response.close()
            if not response.has_redirect_location:
                raise SourceError.saying("{name}: {why}", name=self._label, why=self._refused(response))
            onward = request.url.join(response.headers["Location"])
            if onward.scheme != "https" and onward.scheme != request.url.scheme:
                raise SourceError.saying(
                    "{name}: it redirects from {one} to {other}, which is not followed",
                    name=self._label,
                    one=request.url.scheme,
                    other=onward.scheme,
                )
            url = str(onward)
        raise SourceError.saying("{name}: more than {n} redirects", name=self._label, n=MAX_REDIRECTS)

    def body(self, response: httpx2.Response, max_octets: int) -> BinaryIO:
        """Return the decompressed body. Reading raises SourceError when it is cut, too large or too slow."""
        return stream(self._bounded(unpacked(stream(self._chunks(response)), self._label), max_octets))

    def close(self) -> None:
        self._client.close()

    def _chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        with self._explained(), self._patience.cutting(self._cut):
            for chunk in response.iter_raw():
                self._patience.check(self._label)
                yield chunk

    def _bounded(self, raw: BinaryIO, most: int) -> Iterator[bytes]:
        left = most
        for piece in pieces_of(raw):
            left -= len(piece)
            if left < 0:
                raise SourceError.saying(
                    "{name}: the answer is larger than {n} MB (max_mb)", name=self._label, n=most >> 20
                )
            yield piece

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep the socket of each connection."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")

    def _cut(self) -> None:
        if self._socket is not None:
            shut_down(self._socket.fileno())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the library's exceptions into a SourceError that explains them."""
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise SourceError.saying("{name}: {why}", name=self._label, why=self._why(error)) from None

    def _refused(self, response: httpx2.Response) -> Said:
        answer = f"{response.status_code} {response.reason_phrase}".rstrip()
        if (why := _DENIED.get(response.status_code)) is None:
            return Phrase("it answers {answer}", answer=answer)
        if response.status_code in (401, 403):
            return Phrase("it answers {answer}: {why} (see {key})", answer=answer, why=Phrase(why), key=self._named)
        return Phrase("it answers {answer}: {why}", answer=answer, why=Phrase(why))

    def _why(self, error: Exception) -> Said:
        if why := self._patience.spent():
            return why
        if isinstance(error, httpx2.TimeoutException):
            return too_late(self._patience.wait_seconds)
        if isinstance(error, httpx2.RemoteProtocolError):
            return Phrase("the response is incomplete or is not HTTP")
        said = str(error) or type(error).__name__
        if why := why_untrusted(said):
            return why
        if isinstance(error, httpx2.ConnectError):
            return Phrase("it cannot be reached: {why}", why=said)
        return Phrase("the connection failed: {why}", why=said)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)


class HttpSource(Source):
    """Members from a web server. ``state``: a folder for the validators of the last answer; without one every sync fetches all
    of it."""

    def __init__(self, members: HttpMembers, base: Path, state: Path | None, stop: Stop) -> None:
        self._url, self._max = members.http, members.max_mb << 20
        self._kind = "json" if members.json_path else members.format or "csv"
        self._table: Format = TextTable()
        if members.json_path:
            self._table = JsonTable(members.json_path)
        elif self._kind == "csv":
            self._table = CsvTable.of(members)
        token = f"Bearer {secret(members.token_file, base)}" if members.token_file else None
        self._web = WebClient(members, base, stop, label=self.label, secret=token, named="token_file")
        self._identity = hashlib.blake2b(repr((self._url, self._table)).encode(), digest_size=32)
        self._validators_file = None if state is None else state / f".{self._identity.hexdigest()[:32]}.http"
        self._response: httpx2.Response | None = None
        self._validators: Mapping[str, str] | None = None

    @property
    def label(self) -> str:
        return _label(self._url)

    def fingerprint(self) -> bytes:
        if self._validators is None:
            before = self._stored_validators()
            self._validators = before if self._fetch(before) else self._validators
        if not self._validators:
            return self.opening
        known = self._identity.copy()
        known.update(repr(sorted(self._validators.items())).encode())
        return known.digest()

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, self._table.unit)
        if self._response is None:
            self._fetch({})
        response, self._response = self._response, None
        assert response is not None
        try:
            tally.size += int(response.headers.get("Content-Length") or 0)
            yield from self._table.cells(self._web.body(response, self._max), self.label, tally)
        finally:
            response.close()
        tally.done = tally.size
        self._store_validators()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None
        self._web.close()

    def _fetch(self, before: Mapping[str, str]) -> bool:
        """Fetch the answer, unless it is unchanged since the one with the validators ``before``. Return whether it is."""
        conditions = {_CONDITIONS[name]: value for name, value in before.items()}
        response = self._web.get(self._url, {"Accept": _ACCEPT[self._kind], **conditions})
        if response.status_code == 304:
            response.close()
            if not before:
                raise SourceError(f"{self.label}: it answers 304 to an unconditional request")
            return True
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            response.close()
            raise SourceError.saying(
                "{name}: it answers with a web page, perhaps to log in: expected {kind} (see token_file)",
                name=self.label,
                kind=self._kind,
            )
        self._response = response
        self._validators = {name: response.headers[name] for name in _CONDITIONS if name in response.headers}
        return False

    def _stored_validators(self) -> Mapping[str, str]:
        if self._validators_file is None:
            return {}
        try:
            kept = json.loads(self._validators_file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return (
            {name: value for name, value in kept.items() if name in _CONDITIONS and isinstance(value, str)}
            if isinstance(kept, dict)
            else {}
        )

    def _store_validators(self) -> None:
        if self._validators_file is None:
            return
        try:
            if self._validators:
                self._validators_file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self._validators_file, json.dumps(dict(self._validators)), durable=False)
            else:
                self._validators_file.unlink(missing_ok=True)
        except OSError:
            pass  # the next sync fetches all of it


def _label(url: str) -> str:
    """Return a url without what may be a secret: the query, and parts of the path that look like a token, after their first
    letters."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    path = "/".join(f"{each[:4]}…" if _is_token(each) else each for each in parts.path.split("/"))
    return f"{parts.scheme}://{parts.hostname}{port}{path}"


def _is_token(segment: str) -> bool:
    """Return whether a segment has sixteen characters or more, and digits among the letters of a run of six or more."""
    runs = (run for run in re.split(r"[-_.~%=+]", segment) if len(run) >= 6)
    return len(segment) >= 16 and any(re.search(r"\d", run) and re.search(r"[^\W\d]", run) for run in runs)
