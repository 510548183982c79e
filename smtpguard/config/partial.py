"""Read what a command needs from settings that have mistakes elsewhere, and report those mistakes.

The file is split at its top-level keys. Keys with a mistake are left out; if that does not help, all keys that are not
needed are. A mistake in a needed key, or in a key with a similar name, stays an error: a freeze of the wrong store
would be worse than none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from smtpguard.config.problem import Broken, Problem
from smtpguard.config.settings import Settings, read_settings, settings_of
from smtpguard.config.yaml import load_yaml

STORE = frozenset({"store", "state", "secret_file", "delimiters"})
"""Keys that opening the store needs."""
_KEY = re.compile(rb"""(["']?)([A-Za-z_]+)\1[ \t]*:(?:\s|$)""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """The lines of one top-level key, from ``first`` on; ``key`` is "" before the first key."""

    key: str
    first: int
    lines: tuple[bytes, ...]

    def has(self, line: int) -> bool:
        return self.first <= line < self.first + len(self.lines)


def read_needed(path: Path, needed: Collection[str]) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings as far as they can be read, and the problems of what was left out. Raises Broken if a key in
    ``needed`` has a mistake, or may have one."""
    try:
        return read_settings(path), ()
    except Broken as e:
        problems = tuple(e.problems)
        broken = e
    try:
        blocks = _blocks(path.read_bytes())
    except OSError:
        raise broken from None
    if not any(block.key for block in blocks):
        raise broken
    bad = [block for block in blocks if any(block.has(problem.line) for problem in problems) or not _is_yaml(block)]
    necessary = [block for block in blocks if block.key in needed]
    for kept in ([block for block in blocks if block not in bad or block in necessary], necessary):
        if any(_may_be_meant(block, needed) for block in blocks if block not in kept):
            raise broken
        text = _only(blocks, kept)
        try:
            return settings_of(load_yaml(text, str(path)), path.parent, os.environ), problems
        except Broken as e:
            again = e
    raise again


def _blocks(text: bytes) -> list[_Block]:
    blocks: list[_Block] = []
    key, first = "", 1
    lines: list[bytes] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        found = _KEY.match(line)
        if found is not None:
            blocks.append(_Block(key=key, first=first, lines=tuple(lines)))
            key, first, lines = found[2].decode(), number, []
        lines.append(line)
    blocks.append(_Block(key=key, first=first, lines=tuple(lines)))
    return blocks


def _is_yaml(block: _Block) -> bool:
    try:
        load_yaml(b"".join(block.lines))
    except Broken:
        return False
    return True


def _only(blocks: Collection[_Block], kept: Collection[_Block]) -> bytes:
    """Other lines are emptied, so that positions stay the same."""
    return b"".join(b"".join(block.lines) if block in kept else b"\n" * len(block.lines) for block in blocks)


def _may_be_meant(block: _Block, needed: Collection[str]) -> bool:
    """Whether a block that is left out looks like a needed key: "stroe: {...}", or a line without its colon."""
    if block.key and block.key not in Settings.model_fields and get_close_matches(block.key, needed, 1, 0.75):
        return True
    lines = block.lines[1:] if block.key else block.lines
    names = b"|".join(name.encode() for name in needed)
    return any(re.match(rb"[\"']?(?:%b)\b" % names, line) for line in lines)
