"""Members of a Mailman 3 list, from its core's REST API.

Everybody on the roster counts, whatever their delivery status: a member whose delivery is off, by choice or by bounces, can get the
next mail again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from smtpguard.lists.members import MailmanMembers, OfMailman
from smtpguard.lists.sources import Cell, Source, SourceError, Stop, Tally, secret
from smtpguard.lists.sources.http import WebClient

PAGE = 1000
"""The entries that one request asks for."""
MAX_ANSWER = 32 << 20  # octets
MAX_AGAIN = 3
"""How often the entries are read again because some were deleted meanwhile."""
_EXPECTED = "expected the root of its REST API, as https://lists.example.com/3.1"


class Core:
    """The REST API of a Mailman core."""

    def __init__(self, declared: OfMailman, base: Path, stop: Stop) -> None:
        self._root = declared.mailman.rstrip("/")  # as https://lists.example.com/3.1
        self.label = f"Mailman at {urlsplit(self._root).hostname}"
        login = base64.b64encode(f"{declared.user}:{secret(declared.password_file, base)}".encode()).decode()
        self.web = WebClient(declared, base, stop, label=self.label, secret=f"Basic {login}", named="password_file")

    def lists(self) -> Iterator[tuple[str, str]]:
        """Yield each list's posting address and its List-Id. Raises SourceError."""
        for entry in self._pages("lists"):
            yield self._text(entry, "fqdn_listname"), self._text(entry, "list_id")

    def roster(self, list_id: str, role: str) -> Iterator[str]:
        """Yield the addresses of everybody with this role. Raises SourceError, midway too."""
        for entry in self._pages(f"lists/{quote(list_id, safe='@.')}/roster/{role}"):
            yield self._text(entry, "email")

    def _pages(self, path: str) -> Iterator[Mapping[str, Any]]:
        """Yield all entries, a page at a time. If entries are deleted meanwhile the others move up, and one could be missed
        between two pages: then it starts again. Reading an entry twice does no harm."""
        page = met = 0
        total, again = -1, MAX_AGAIN
        while page == 0 or met < total:
            page += 1
            answer = self._get(f"{path}?count={PAGE}&page={page}")
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

    def _get(self, path: str) -> Mapping[str, Any]:
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
    """The members of a Mailman list. It is always read: Mailman has no cheap way to say whether its members have changed."""

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
