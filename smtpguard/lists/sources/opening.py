"""Open a source of members.

A source's library beyond the standard one is imported when the first source of its kind is opened.
"""

from __future__ import annotations

from pathlib import Path

from smtpguard.lists.members import (
    AliasesMembers,
    CsvMembers,
    HttpMembers,
    LdapMembers,
    MailmanMembers,
    Members,
    SqlMembers,
    TextMembers,
    VirtualMembers,
)
from smtpguard.lists.sources import Source, Stop
from smtpguard.lists.sources.files import CsvTable, FileSource, TextTable


def never() -> bool:
    """Return False: a Stop for callers who never give up."""
    return False


def opened(members: Members, base: Path, *, state: Path | None = None, stop: Stop = never) -> Source:
    """Open a source of members. Raises SourceError.

    ``base``: the folder of relative paths. ``state``: a folder in which a source may store what makes its next check cheap. A list
    within another is no source by itself.
    """
    match members:
        case CsvMembers():
            return FileSource(base / members.csv, CsvTable.of(members))
        case TextMembers():
            return FileSource(base / members.text, TextTable())
        case SqlMembers():
            from smtpguard.lists.sources.sql import SqlSource

            return SqlSource(members, base, stop)
        case LdapMembers():
            from smtpguard.lists.sources.ldap import LdapSource

            return LdapSource(members, base, stop)
        case MailmanMembers():
            from smtpguard.lists.sources.mailman import MailmanSource

            return MailmanSource(members, base, stop)
        case HttpMembers():
            from smtpguard.lists.sources.http import HttpSource

            return HttpSource(members, base, state, stop)
        case AliasesMembers() | VirtualMembers():
            from smtpguard.lists.sources.maps import AliasSource

            return AliasSource(members, base)
    raise TypeError(members.source)
