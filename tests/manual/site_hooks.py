"""What mkdocs is told of pages that are read beside the source as well: files outside of docs/ come along, or are named and no link."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_OUTSIDE = re.compile(r"\[([^\[\]]*)\]\(\.\./([^)\s#]+)\)")
_BROUGHT = ("config", "systemd")
"""Folders whose files are given to whoever follows a link: as they are, below ``files/``."""


def on_files(files: Files, config: Any) -> Files:
    for path in sorted(path for folder in _BROUGHT for path in (ROOT / folder).rglob("*") if path.is_file()):
        name = str(PurePosixPath("files", path.relative_to(ROOT)))
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        here = ROOT / target
        return f"[{words}](files/{target})" if here.is_file() and target.split("/")[0] in _BROUGHT else words

    return _OUTSIDE.sub(link, markdown)
