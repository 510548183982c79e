"""The proven origin of a message: DKIM signatures that verified here (RFC 6376), and what a server that received it found
out (Authentication-Results, RFC 8601).

Anybody can write an Authentication-Results field, so only fields with an authserv-id that the admins configured are read.
Even there a sender chooses some of the text, such as the reverse-path: what is in quotes or a comment is no result.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from smtpguard.mail.mailboxes import without_comments
from smtpguard.mail.message import Field

MOST = 8_192
_ID = re.compile(r"\s*(\"[^\"]*\"|[^\s;]+)(?:\s+\d+)?\s*(?:;|\Z)")
_RESULT = re.compile(r"\s*([A-Za-z][\w\-]*)(?:/\d+)?\s*=\s*([A-Za-z]+)")
_QUOTED = r'"(?:[^"\\]|\\.?)*+(?:"|\Z)'  # one that never ends goes on to the end of the text
_PIECE = re.compile(rf'(?:[^;"]|{_QUOTED})+', re.S)
_PROPERTY = re.compile(
    rf'{_QUOTED}|\b(smtp|header|body|policy)\s*\.\s*([A-Za-z][\w\-]*)\s*=\s*({_QUOTED}|[^\s;"]+)', re.S
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthResult:
    """One method's result: ``dkim`` is ``pass``, with properties such as ``header.d``. All in lower case, values as
    spelled."""

    authserv_id: str
    method: str
    result: str
    properties: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        return next((value for key, value in self.properties if key == name), "")


def auth_results(fields: Iterable[Field], trusted: Collection[str]) -> tuple[AuthResult, ...]:
    """The results of every field whose authserv-id is trusted, in order. Total; malformed parts are skipped."""
    if not trusted:
        return ()
    wanted = {t.lower() for t in trusted}
    found: list[AuthResult] = []
    for field in fields:
        if field.name.lower() != "authentication-results":
            continue
        text = field.text
        if len(text) > MOST:
            text = text[:MOST].rpartition(";")[0]  # whole results
        value = without_comments(text, cut=True)
        head = _ID.match(value)
        authserv_id = head[1].strip('"').lower() if head else ""
        if head and authserv_id in wanted:
            found += _results(authserv_id, value[head.end() :])
    return tuple(found)


def _results(authserv_id: str, value: str) -> list[AuthResult]:
    found = []
    for piece in _PIECE.findall(value):
        result = _RESULT.match(piece)
        if result:
            properties = tuple(
                (f"{kind}.{name}".lower(), text.strip('"'))
                for kind, name, text in _PROPERTY.findall(piece, result.end())
                if kind
            )
            found.append(
                AuthResult(
                    authserv_id=authserv_id, method=result[1].lower(), result=result[2].lower(), properties=properties
                )
            )
    return found


def signed_by(results: Iterable[AuthResult]) -> frozenset[str]:
    """The domains whose DKIM signatures passed (``header.d``, RFC 8601 section 2.7.1), in lower case."""
    return frozenset(
        r.get("header.d").lower() for r in results if r.method == "dkim" and r.result == "pass" and r.get("header.d")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A DKIM signature that verified. ``fields``: the names of the signed fields, in lower case. ``at``: when the signer
    says that it was made (t=), None without that. ``limited``: it says how much of the body it covers (l=), even if that
    is all of it."""

    domain: str
    fields: frozenset[str]
    at: datetime | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimResult:
    """``domains``: signing domains (d=) in lower case whose signatures verified and covered From. ``failed``: (domain,
    why).

    ``unresolved``: domains whose keys could not be looked up; neither proven nor failed. ``signatures``: those that verified.
    """

    domains: frozenset[str] = frozenset()
    failed: tuple[tuple[str, str], ...] = ()
    unresolved: frozenset[str] = frozenset()
    signatures: tuple[Signature, ...] = ()
