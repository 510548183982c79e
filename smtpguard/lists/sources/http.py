"""Members from a web server (CSV, JSON or text, fetched only when it has changed, RFC 9110 section 13), and of a Mailman 3
list, from its core's REST API.

The server's validators (ETag, Last-Modified) are stored beside the indexes once the whole answer was read, and are sent
with the next request; 304 means that nothing has changed.

HTTPS is verified, and a password or token goes only to the server that the policy names, also if it redirects. Answers are bounded
in time and size. The client is here since only sources over HTTP load it.

Addresses at a path in JSON (RFC 8259) are read as a stream: memory holds one value, whatever the answer's size. A path is keys and ``[]``
for every element: ``members[].email``, ``data.customers[].emails[]``, ``[]``. An element without an address is a bad row; JSON that is cut
or malformed anywhere is refused as a whole.

Everybody on the roster of Mailman counts, whatever their delivery status: a member whose delivery is off, by choice or
by bounces, can get the next mail again.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import quote, urlsplit

import httpx2

from smtpguard.config.statefiles import replace_file
from smtpguard.lists.members import HttpMembers, MailmanMembers, OfMailman
from smtpguard.lists.sources import (
    Cell,
    Source,
    SourceError,
    SourceTimeouts,
    Stop,
    Tally,
    late,
    secret,
    shut_down,
    trust,
    untrusted,
)
from smtpguard.lists.sources.files import CsvTable, Format, TextTable, pieces_of, stream, unpacked
from smtpguard.locale.phrase import N_, Phrase, Said

_TOLD = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
_ACCEPT = {"csv": "text/csv", "json": "application/json", "text": "text/plain"}
MAX_REDIRECTS = 5
_AGENT = "smtpguard"
_DENIED = {
    401: N_("the credentials are not accepted"),
    403: N_("access is denied"),
    404: N_("there is no such resource"),
    407: N_("the proxy requires a login"),
}


class _Web:
    """``secret``: the Authorization header for the first server. ``label``: its name in error messages."""

    def __init__(
        self, declared: HttpMembers | OfMailman, base: Path, stop: Stop, *, label: str, secret: str | None, named: str
    ) -> None:
        """``named``: the key of the policy that names the secret's file, for error messages."""
        self._label, self._secret, self._named = label, secret, named
        self._patience = SourceTimeouts(declared, stop)
        self._socket: Any = None
        self._client = httpx2.Client(
            verify=trust(declared.ca_file, base),
            timeout=declared.timeout,
            headers={"User-Agent": _AGENT, "Accept-Encoding": "gzip, identity"},
        )

    def get(self, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        """A response whose headers have come, as a stream: 200 or 304. Raises SourceError for everything else."""
        home = _origin(httpx2.URL(url))
        for _ in range(MAX_REDIRECTS + 1):
            self._patience.look(self._label)
            request = self._client.build_request("GET", url, headers=dict(headers), extensions={"trace": self._trace})
            if self._secret is not None and _origin(request.url) == home:
                request.headers["Authorization"] = self._secret
            with self._mended(), self._patience.cutting(self._cut):
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
    def _mended(self) -> Iterator[None]:
        """Turn the library's exceptions into a SourceError that explains them."""
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise SourceError.saying("{name}: {why}", name=self._label, why=self._said(error)) from None

    def _refused(self, response: httpx2.Response) -> Said:
        answer = f"{response.status_code} {response.reason_phrase}".rstrip()
        if (why := _DENIED.get(response.status_code)) is None:
            return Phrase("it answers {answer}", answer=answer)
        if response.status_code in (401, 403):
            return Phrase("it answers {answer}: {why} (see {key})", answer=answer, why=Phrase(why), key=self._named)
        return Phrase("it answers {answer}: {why}", answer=answer, why=Phrase(why))

    def _said(self, error: Exception) -> Said:
        if why := self._patience.spent():
            return why
        if isinstance(error, httpx2.TimeoutException):
            return late(self._patience.wait_seconds)
        if isinstance(error, httpx2.RemoteProtocolError):
            return Phrase("the response is incomplete or is not HTTP")
        said = str(error) or type(error).__name__
        if why := untrusted(said):
            return why
        if isinstance(error, httpx2.ConnectError):
            return Phrase("it cannot be reached: {why}", why=said)
        return Phrase("the connection failed: {why}", why=said)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)


class HttpSource(Source):
    """``state``: a folder for the validators of the last answer; without one every sync fetches all of it."""

    def __init__(self, members: HttpMembers, base: Path, state: Path | None, stop: Stop) -> None:
        self._url, self._max = members.http, members.max_mb << 20
        self._kind = "json" if members.json_path else members.format or "csv"
        self._table: Format = TextTable()
        if members.json_path:
            self._table = JsonTable(members.json_path)
        elif self._kind == "csv":
            self._table = CsvTable.of(members)
        token = f"Bearer {secret(members.token_file, base)}" if members.token_file else None
        self._web = _Web(members, base, stop, label=self.label, secret=token, named="token_file")
        self._identity = hashlib.blake2b(repr((self._url, self._table)).encode(), digest_size=32)
        self._memo = None if state is None else state / f".{self._identity.hexdigest()[:32]}.http"
        self._response: httpx2.Response | None = None
        self._told: Mapping[str, str] | None = None

    @property
    def label(self) -> str:
        return _label(self._url)

    def fingerprint(self) -> bytes:
        if self._told is None:
            before = self._remembered()
            self._told = before if self._fetched(before) else self._told
        if not self._told:
            return self.opening
        known = self._identity.copy()
        known.update(repr(sorted(self._told.items())).encode())
        return known.digest()

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, self._table.unit)
        if self._response is None:
            self._fetched({})
        response, self._response = self._response, None
        assert response is not None
        try:
            tally.size += int(response.headers.get("Content-Length") or 0)
            yield from self._table.cells(self._web.body(response, self._max), self.label, tally)
        finally:
            response.close()
        tally.done = tally.size
        self._remember()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None
        self._web.close()

    def _fetched(self, before: Mapping[str, str]) -> bool:
        """Fetch the answer, unless it is unchanged since the one with the validators ``before``: then True."""
        asked = {_TOLD[name]: value for name, value in before.items()}
        response = self._web.get(self._url, {"Accept": _ACCEPT[self._kind], **asked})
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
        self._told = {name: response.headers[name] for name in _TOLD if name in response.headers}
        return False

    def _remembered(self) -> Mapping[str, str]:
        if self._memo is None:
            return {}
        try:
            kept = json.loads(self._memo.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return (
            {name: value for name, value in kept.items() if name in _TOLD and isinstance(value, str)}
            if isinstance(kept, dict)
            else {}
        )

    def _remember(self) -> None:
        if self._memo is None:
            return
        try:
            if self._told:
                self._memo.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self._memo, json.dumps(dict(self._told)), durable=False)
            else:
                self._memo.unlink(missing_ok=True)
        except OSError:
            pass  # the next sync fetches all of it


def _label(url: str) -> str:
    """Without what may be a secret: the query, and parts of the path that look like a token, after their first letters."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    path = "/".join(f"{each[:4]}…" if _is_token(each) else each for each in parts.path.split("/"))
    return f"{parts.scheme}://{parts.hostname}{port}{path}"


def _is_token(segment: str) -> bool:
    """Sixteen characters or more, with digits among the letters of a run of six or more."""
    runs = (run for run in re.split(r"[-_.~%=+]", segment) if len(run) >= 6)
    return len(segment) >= 16 and any(re.search(r"\d", run) and re.search(r"[^\W\d]", run) for run in runs)


CHUNK = 1 << 16
LONGEST = 1 << 20  # characters of one value
DEEPEST = 100
_TOKEN = re.compile(
    r'[\s]*(?:(?P<mark>[\[\]{},:])|(?P<string>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")|(?P<other>[^\s\[\]{},:"]+)(?=[\s\[\]{},:"]))'
)
_BLANK = re.compile(r"\s*\Z")
_OTHER = re.compile(r"(?:true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\Z")


@dataclass(frozen=True, slots=True)
class JsonTable:
    path: str

    unit: ClassVar[str] = "element"

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        steps = tuple(re.findall(r"\[\]|[^\[\].]+", self.path))
        return _Walk(steps, name, tally).cells(_tokens(raw, name))


def _tokens(raw: BinaryIO, name: str) -> Iterator[str]:
    """The tokens of one text, as they are read."""
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    text, at, ended = "", 0, False
    while True:
        found = _TOKEN.match(text, at)
        if found is not None and (found.end() < len(text) or ended):
            at = found.end()
            yield found[found.lastindex or 0]
        elif ended:
            if _BLANK.match(text, at):
                return
            raise SourceError.saying("{name}: not JSON, or truncated JSON", name=name)
        elif len(text) - at > LONGEST:
            raise SourceError(f"{name}: a value longer than {LONGEST} characters")
        else:
            octets = raw.read(CHUNK)
            ended = not octets
            try:
                text = text[at:] + decode(octets, final=ended) + "\n" * ended  # which ends a top-level number
            except UnicodeDecodeError:
                raise SourceError(f"{name}: the JSON is not UTF-8") from None
            at = 0


class _Walk:
    """The current position, and whether it matches the path. ``_number`` counts the addresses, good and bad."""

    def __init__(self, steps: tuple[str, ...], name: str, tally: Tally) -> None:
        self._steps, self._name, self._tally = steps, name, tally
        self._number = 0
        self._met = False  # whether the path has matched at all

    def cells(self, ahead: Iterator[str]) -> Iterator[Cell]:
        yield from self._value(ahead, self._next(ahead), 0, 0)
        if next(ahead, None) is not None:
            raise SourceError(f"{self._name}: something else follows the JSON")
        if not self._met:
            raise SourceError(f"{self._name}: the JSON has no value at {''.join(self._shown())}")

    def _value(self, ahead: Iterator[str], token: str, depth: int, matched: int) -> Iterator[Cell]:
        """``matched``: the number of steps of the path matched so far, -1 outside the path."""
        if depth > DEEPEST:
            raise SourceError(f"{self._name}: JSON nested deeper than {DEEPEST}")
        if token == "[":
            yield from self._array(ahead, depth, self._step(matched, "[]"))
        elif token == "{":
            yield from self._object(ahead, depth, matched)
        elif token[0] == '"':
            text = self._string(token)
            if matched == len(self._steps):
                self._met = True
                yield self._count(), text
        elif not _OTHER.match(token):
            raise SourceError(f"{self._name}: not JSON: expected a value")

    def _array(self, ahead: Iterator[str], depth: int, inside: int) -> Iterator[Cell]:
        self._met = self._met or inside > 0
        token = self._next(ahead)
        while token != "]":
            before = self._number
            yield from self._value(ahead, token, depth + 1, inside)
            if inside > 0 and self._number == before:
                self._tally.reject(self._count(), "no address")
            token = self._further(ahead, "]", "bracket")

    def _count(self) -> int:
        self._number += 1
        self._tally.rows += 1
        return self._number

    def _object(self, ahead: Iterator[str], depth: int, matched: int) -> Iterator[Cell]:
        token = self._next(ahead)
        while token != "}":
            if token[0] != '"' or self._next(ahead) != ":":
                raise SourceError(f"{self._name}: not JSON: expected a key and a colon")
            inside = self._step(matched, self._string(token))
            yield from self._value(ahead, self._next(ahead), depth + 1, inside)
            token = self._further(ahead, "}", "brace")

    def _further(self, ahead: Iterator[str], end: str, called: str) -> str:
        """The beginning of the next element, or ``end``."""
        token = self._next(ahead)
        if token == ",":
            token = self._next(ahead)
            if token == end:
                raise SourceError(f"{self._name}: not JSON: a comma before a {called}")
        elif token != end:
            raise SourceError(f"{self._name}: not JSON: expected a comma or a {called}")
        return token

    def _step(self, matched: int, step: str) -> int:
        return matched + 1 if 0 <= matched < len(self._steps) and self._steps[matched] == step else -1

    def _next(self, ahead: Iterator[str]) -> str:
        token = next(ahead, None)
        if token is None:
            raise SourceError.saying("{name}: not JSON, or truncated JSON", name=self._name)
        return token

    def _string(self, token: str) -> str:
        try:
            text: str = json.loads(token)
        except ValueError:
            raise SourceError(f"{self._name}: not JSON: a text with a wrong escape") from None
        return text

    def _shown(self) -> Iterator[str]:
        for n, step in enumerate(self._steps):
            yield step if step == "[]" or not n else f".{step}"


PAGE = 1000
MAX_ANSWER = 32 << 20
MAX_AGAIN = 3
_EXPECTED = "expected the root of its REST API, as https://lists.example.com/3.1"


class Core:
    """A Mailman core's REST API."""

    def __init__(self, declared: OfMailman, base: Path, stop: Stop) -> None:
        self._root = declared.mailman.rstrip("/")  # as https://lists.example.com/3.1
        self.label = f"Mailman at {urlsplit(self._root).hostname}"
        login = base64.b64encode(f"{declared.user}:{secret(declared.password_file, base)}".encode()).decode()
        self.web = _Web(declared, base, stop, label=self.label, secret=f"Basic {login}", named="password_file")

    def lists(self) -> Iterator[tuple[str, str]]:
        """Each list's posting address and its List-Id. Raises SourceError."""
        for entry in self._pages("lists"):
            yield self._text(entry, "fqdn_listname"), self._text(entry, "list_id")

    def roster(self, list_id: str, role: str) -> Iterator[str]:
        """The addresses of everybody with this role. Raises SourceError, midway too."""
        for entry in self._pages(f"lists/{quote(list_id, safe='@.')}/roster/{role}"):
            yield self._text(entry, "email")

    def _pages(self, path: str) -> Iterator[Mapping[str, Any]]:
        """All entries, a page at a time. If entries are deleted meanwhile the others move up, and one could be missed
        between two pages: then it starts again. Reading an entry twice does no harm."""
        page = met = 0
        total, again = -1, MAX_AGAIN
        while page == 0 or met < total:
            page += 1
            answer = self._asked(f"{path}?count={PAGE}&page={page}")
            size, entries = answer.get("total_size"), answer.get("entries", [])
            if not isinstance(size, int) or not isinstance(entries, list):
                raise SourceError(f"{self.label}: it does not answer as Mailman 3 does: {_EXPECTED}")
            before, total = total, size
            if total < before and again:
                page, met, again = 0, 0, again - 1
                continue
            if not entries and met < total:
                raise SourceError.saying(
                    "{name}: incomplete answer: {n} of {total} entries", name=self.label, n=met, total=total
                )
            met += len(entries)
            yield from entries

    def _asked(self, path: str) -> Mapping[str, Any]:
        response = self.web.get(f"{self._root}/{path}", {"Accept": "application/json"})
        try:
            octets = self.web.body(response, MAX_ANSWER).read()
        finally:
            response.close()
        try:
            answer = json.loads(octets)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise SourceError(f"{self.label}: the answer is not JSON: {_EXPECTED}")
        return answer

    def _text(self, entry: Any, key: str) -> str:
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, str):
            raise SourceError(f"{self.label}: an entry without {key}")
        return value


class MailmanSource(Source):
    """It is always read: Mailman has no cheap way to say whether its members have changed."""

    def __init__(self, members: MailmanMembers, base: Path, stop: Stop) -> None:
        self._members, self._core = members, Core(members, base, stop)

    @property
    def label(self) -> str:
        return f"{self._members.list_id} of {self._core.label}"

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, "member")
        number = 0
        for role in self._members.roles:
            for email in self._core.roster(self._members.list_id, role):
                number += 1
                tally.rows += 1
                yield number, email

    def close(self) -> None:
        self._core.web.close()
