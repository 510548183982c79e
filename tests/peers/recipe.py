"""The recipes of docs/postfix.md, as a reader would copy them: one heading's blocks, with the ports of this test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "postfix.md"


def recipe(heading: str, ports: Mapping[str, str], page: Path = PAGE) -> dict[str, str]:
    """File, as its first line names it, to its text: under the one heading that begins so. ``ports``: what is to be replaced."""
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
    """Lines of main.cf."""
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines() if line)}
