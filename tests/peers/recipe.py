"""The recipes of docs/postfix.md, copied as a reader would, with the ports of a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "postfix.md"


def recipe(heading: str, ports: Mapping[str, str], page: Path = PAGE) -> dict[str, str]:
    """File name (the first line of a code block) -> text, of the blocks under the heading that begins so. ``ports``:
    what to replace."""
    files: dict[str, str] = {}
    name = ""
    here = inside = False
    for line in page.read_text().splitlines():
        if line.startswith("#") and not inside:
            here = line.lstrip("# ").startswith(heading)
        elif here and line.startswith("```"):
            inside = not inside
        elif here and inside and line.startswith("# "):
            name = line.removeprefix("# ")
            files[name] = ""
        elif here and inside:
            for before, after in ports.items():
                line = line.replace(before, after)
            files[name] += line + "\n"
    assert files, f"{page.name} has no recipe under {heading!r}"
    return files


def parameters(text: str) -> dict[str, str]:
    """Parameters of main.cf."""
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines() if line)}
