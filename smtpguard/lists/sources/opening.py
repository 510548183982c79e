"""From one of a list's ``members``, as the policy declares it, to the source that it names.

Never here: what a declaration may say (policy.models), or reading (the sources).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtpguard.lists.sources import Source, SourceError, Stop
from smtpguard.lists.sources.csv import CsvTable
from smtpguard.lists.sources.files import FileSource
from smtpguard.lists.sources.text import TextTable


def never() -> bool:
    return False


def opened(declaration: Mapping[str, Any], base: Path, *, state: Path | None = None, stop: Stop = never) -> Source:
    """``base``: what relative paths are relative to. ``state``: a folder in which a source may keep what makes its next
    look cheap. Raises SourceError."""
    if declaration.get("csv") is not None:
        return FileSource(base / declaration["csv"], CsvTable.of(declaration))
    if declaration.get("text") is not None:
        return FileSource(base / declaration["text"], TextTable())
    raise SourceError("members name no source: expected csv or text")
