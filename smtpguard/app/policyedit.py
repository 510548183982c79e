"""Set a key in the text of a policy file and keep everything else: comments, order and style."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import yaml


class NotEditable(ValueError):
    """The place is not in this file, or is written in an unsupported style. The text says which."""


def with_key(text: str, path: Sequence[str | int], key: str, value: Any, reason: str) -> str:
    """``path``: the mapping, from the top; a missing top-level mapping is added. ``reason`` becomes a comment. Raises
    NotEditable."""
    root = yaml.compose(text, yaml.SafeLoader)
    said = f"# {' '.join(reason.split())}"
    if not isinstance(root, yaml.MappingNode):
        raise NotEditable("it is no mapping")
    node: yaml.Node = root
    for n, step in enumerate(path):
        found = _child(node, step)
        if found is None:
            if n or len(path) > 1 or not isinstance(step, str):
                raise NotEditable(f"{'.'.join(map(str, path))} is not in this file")
            end = "" if text.endswith("\n") else "\n"
            return f"{text}{end}\n{step}:\n  {said}\n  {key}: {_flow(value)}\n"
        node = found
    if not isinstance(node, yaml.MappingNode):
        raise NotEditable(f"{'.'.join(map(str, path))} is no mapping")
    there = _child(node, key)
    if there is not None:
        return _replaced(text, there, value, said)
    if not node.value and node.flow_style:  # {} becomes a block, which can have comments
        line = text.rfind("\n", 0, node.start_mark.index) + 1
        indent = " " * (_indent(text[line:]) + 2)
        after = text.find("\n", node.end_mark.index)
        after = len(text) if after < 0 else after
        trailing = text[node.end_mark.index : after].strip()
        head = text[: node.start_mark.index].rstrip(" ")
        return (
            f"{head}{f'  {trailing}' if trailing else ''}\n{indent}{said}\n{indent}{key}: {_flow(value)}{text[after:]}"
        )
    if node.flow_style:
        head = text[: node.end_mark.index - 1].rstrip()
        rest = text[node.end_mark.index - 1 :]
        return _above(f"{head}, {key}: {_flow(value)}{rest}", node.start_mark.index, said)
    first = node.value[0][0].start_mark
    line = text.rfind("\n", 0, first.index) + 1
    indent = " " * first.column
    if text[line : first.index].strip():  # after "- " of a sequence: use its second line
        after = text.find("\n", node.value[0][1].end_mark.index) + 1
        return f"{text[:after]}{indent}{said}\n{indent}{key}: {_flow(value)}\n{text[after:]}"
    return f"{text[:line]}{indent}{said}\n{indent}{key}: {_flow(value)}\n{text[line:]}"


def diff(old: str, new: str, name: str) -> str:
    """A unified diff for patch(1)."""
    return "".join(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name}, as suggested"
        )
    )


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        return node.value[step] if step < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == str(step)), None)
    return None


def _replaced(text: str, there: yaml.Node, value: Any, said: str) -> str:
    """Replace a value on one line, or a block of several."""
    start, end = there.start_mark.index, there.end_mark.index
    while end > start and text[end - 1] in " \n":  # a block ends where the next key begins
        end -= 1
    if "#" in text[start:end] and "\n" in text[start:end]:
        raise NotEditable(f"what stands at line {there.start_mark.line + 1} has comments of its own")
    between = " " if text[start - 1] == "\n" or "\n" in text[start:end] else ""
    if between:
        start = len(text[:start].rstrip())
    return _above(f"{text[:start]}{between}{_flow(value)}{text[end:]}", start, said)


def _above(text: str, index: int, said: str) -> str:
    """Insert the comment on a line above that of ``index``."""
    line = text.rfind("\n", 0, index) + 1
    return f"{text[:line]}{' ' * _indent(text[line:])}{said}\n{text[line:]}"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _flow(value: Any) -> str:
    """On one line, in the usual style."""
    if isinstance(value, str) and value[:1] == ">":
        return f'"{value}"'
    made = yaml.safe_dump([value], default_flow_style=True, width=1_000_000, allow_unicode=True, sort_keys=False)
    return str(made).strip()[1:-1]
