"""mkdocs hooks for pages that are also read in the source tree: files outside docs/ are copied, or their links become
text."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_OUTSIDE = re.compile(r"\[([^\[\]]*)\]\(\.\./([^)\s#]+)\)")
_TABLE = re.compile(r"<table>.*?</table>", re.S)
_ROW = re.compile(r"<tr>.*?</tr>", re.S)
_BROUGHT = ("config", "systemd")
"""Folders whose files are copied unchanged to ``files/``, for links from pages."""


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


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """In a table of more than two columns, label each cell, for screens too narrow for columns (site.css)."""
    return _TABLE.sub(lambda table: _told(table[0]), content)


def _told(table: str) -> str:
    heads = [re.sub(r"<[^>]*>", "", head).strip() for head in re.findall(r"<th[^>]*>(.*?)</th>", table, re.S)]
    if len(heads) < 3:
        return table

    def row(match: re.Match[str]) -> str:
        names = iter(heads)

        def cell(_: re.Match[str]) -> str:
            name = next(names, "").replace('"', "&quot;")
            return f'<td data-is="{name}"' if name else "<td"

        return re.sub(r"<td\b", cell, match[0])

    return _ROW.sub(row, table)
