"""Open the source that one of a list's ``members`` declares.

A source's library beyond the standard one is imported when the first source of its kind is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtpguard.lists.sources import Source, SourceError, Stop
from smtpguard.lists.sources.csv import CsvTable
from smtpguard.lists.sources.files import FileSource, TextTable


def never() -> bool:
    return False


def opened(declaration: Mapping[str, Any], base: Path, *, state: Path | None = None, stop: Stop = never) -> Source:
    """``base``: the folder of relative paths. ``state``: a folder in which a source may store what makes its next check
    cheap. Raises SourceError."""
    match _kind(declaration):
        case "csv":
            return FileSource(base / declaration["csv"], CsvTable.of(declaration))
        case "text":
            return FileSource(base / declaration["text"], TextTable())
        case "sql":
            from smtpguard.lists.sources.sql import SqlSource

            return SqlSource.of(declaration, base, stop)
        case "ldap":
            from smtpguard.lists.sources.ldap import LdapSource

            return LdapSource.of(declaration, base, stop)
        case "mailman":
            from smtpguard.lists.sources.mailman import MailmanSource

            return MailmanSource.of(declaration, base, stop)
        case "http":
            from smtpguard.lists.sources.http import HttpSource

            return HttpSource.of(declaration, base, state, stop)
        case "aliases" | "virtual":
            from smtpguard.lists.sources.maps import AliasSource

            return AliasSource.of(declaration, base)
        case _:
            raise SourceError(f"members have no source: expected {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")


_KINDS = ("csv", "text", "sql", "ldap", "mailman", "http", "aliases", "virtual")


def _kind(declaration: Mapping[str, Any]) -> str:
    return next((kind for kind in _KINDS if declaration.get(kind) is not None), "")


def named(declaration: Mapping[str, Any]) -> str:
    """The label of a source that cannot be opened, from its declaration; without the query of a url, which may contain
    unknown secrets."""
    return within(declaration, str(declaration.get(_kind(declaration)) or "its source").partition("?")[0])


def within(declaration: Mapping[str, Any], label: str) -> str:
    """The label of a source for people: that of a list that this list includes names that list."""
    return f"{declaration['of']}: {label}" if "of" in declaration else label
