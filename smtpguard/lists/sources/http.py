"""Members from a web server: CSV, JSON or text, fetched only when it has changed (RFC 9110 section 13).

The server's validators (ETag, Last-Modified) are stored beside the indexes once the whole answer was read, and are sent
with the next request; 304 means that nothing has changed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from smtpguard.config.statefiles import replace_file
from smtpguard.lists.sources import Cell, SourceError, Stop, Tally
from smtpguard.lists.sources.credentials import secret, trust
from smtpguard.lists.sources.csv import CsvTable
from smtpguard.lists.sources.files import Table, TextTable
from smtpguard.lists.sources.json import JsonTable
from smtpguard.lists.sources.timeouts import SourceTimeouts
from smtpguard.lists.sources.web import Web

_TOLD = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
_ACCEPT = {"csv": "text/csv", "json": "application/json", "text": "text/plain"}


class HttpSource:
    """``state``: a folder for the validators of the last answer; without one every sync fetches all of it."""

    def __init__(self, *, url: str, kind: str, table: Table, web: Web, max_octets: int, state: Path | None) -> None:
        self._url, self._kind, self._table, self._web, self._max = url, kind, table, web, max_octets
        self._identity = hashlib.blake2b(repr((url, table)).encode(), digest_size=32)
        self._memo = None if state is None else state / f".{self._identity.hexdigest()[:32]}.http"
        self._response: httpx2.Response | None = None
        self._told: Mapping[str, str] | None = None
        self._opening = secrets.token_bytes(32)

    @classmethod
    def of(cls, declaration: Mapping[str, Any], base: Path, state: Path | None, stop: Stop) -> HttpSource:
        kind = "json" if declaration.get("json") else declaration.get("format") or "csv"
        table: Table
        if kind == "json":
            table = JsonTable(declaration["json"])
        else:
            table = CsvTable.of(declaration) if kind == "csv" else TextTable()
        url, token = declaration["http"], declaration.get("token_file")
        web = Web(label=_label(url), patience=SourceTimeouts.of(declaration, stop), verify=trust(declaration.get("ca_file"), base),
                  secret=f"Bearer {secret(token, base)}" if token else None, named="token_file")  # fmt: skip
        return cls(
            url=url, kind=kind, table=table, web=web, max_octets=declaration.get("max_mb", 1024) << 20, state=state
        )

    @property
    def label(self) -> str:
        return _label(self._url)

    def fingerprint(self) -> bytes:
        if self._told is None:
            before = self._remembered()
            self._told = before if self._fetched(before) else self._told
        if not self._told:
            return self._opening
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
            raise SourceError(
                f"{self.label}: it answers with a web page, perhaps to log in: expected {self._kind} (see token_file)"
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
    """Without the query, which may contain unknown secrets."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
