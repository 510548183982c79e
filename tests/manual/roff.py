"""Man pages (man(7)) from the docs' Markdown: headings, paragraphs, tables, lists, examples, bold text, code and links."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|(?<![\w\\*])\*([^*\s][^*]*)\*(?!\w)")
_ITEM = re.compile(r"(?:[-*]|\d+\.) +")
_CELLS = re.compile(r"(?<!\\)\|")


def page(name: str, section: int, says: str, text: str, *, version: str, see: Sequence[str] = ()) -> str:
    """``text``: the page below its title. Its first paragraphs become DESCRIPTION."""
    lines = [
        f'.TH "{_plain(name).upper()}" {section} "" "smtpguard {version}" "smtpguard"',
        ".SH NAME",
        f"{_plain(name)} \\- {_plain(says)}",
    ]
    if not text.lstrip().startswith("## "):
        lines.append(".SH DESCRIPTION")
    lines += _blocks(text.strip("\n").split("\n"))
    if see:
        lines += [".SH SEE ALSO", ",\n".join(f".BR {_plain(word)} ({number})" for word, number in map(_named, see))]
    return re.sub(r"(?m)^,$", "", "\n".join(lines)).replace("\n\n", "\n") + "\n"


def _named(reference: str) -> tuple[str, str]:
    name, _, number = reference.rstrip(")").partition("(")
    return name, number


def _blocks(lines: list[str]) -> Iterator[str]:
    at, fresh = 0, True  # fresh: right after a heading, where no space is needed
    while at < len(lines):
        line = lines[at]
        begun = at
        if not line.strip():
            at += 1
            continue
        if line.startswith("#"):
            marks, _, words = line.partition(" ")
            yield f".SH {_inline(words).upper()}" if len(marks) == 2 else f".SS {_inline(words)}"
            at, fresh = at + 1, True
            continue
        if line.startswith("```"):
            at = next(n for n in range(at + 1, len(lines)) if lines[n].startswith("```")) + 1
            yield from _example(lines[begun + 1 : at - 1], fresh=fresh)
        elif line.startswith("    "):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            shown = "\n".join(lines[begun:at]).rstrip().split("\n")
            yield from _example([each[4:] for each in shown], fresh=fresh)
        elif line.startswith("|"):
            while at < len(lines) and lines[at].startswith("|"):
                at += 1
            yield from _table(lines[begun:at])
        elif line.startswith("!["):
            at += 1
        elif _ITEM.match(line):
            at = _end(lines, at + 1)
            mark = "\\(bu" if line[0] in "-*" else line.partition(" ")[0]
            yield f".IP {mark} 3"
            yield _inline(" ".join(each.strip() for each in lines[begun:at]).split(" ", 1)[1])
        else:
            at = _end(lines, at + 1)
            if not fresh:
                yield ".PP"
            yield _inline(" ".join(each.strip() for each in lines[begun:at]))
        fresh = False


def _end(lines: Sequence[str], at: int) -> int:
    """The index of the line after the paragraph."""
    while at < len(lines) and lines[at].strip() and not re.match(r"#|\||```|(?:[-*]|\d+\.) ", lines[at]):
        at += 1
    return at


def _example(lines: Sequence[str], *, fresh: bool) -> Iterator[str]:
    yield from ((".in +4n", ".EX") if fresh else (".PP", ".in +4n", ".EX"))
    for line in lines:
        shown = _escaped(line)
        yield f"\\&{shown}" if shown.startswith((".", "'")) else shown
    yield from (".EE", ".in")


def _table(lines: Sequence[str]) -> Iterator[str]:
    """Each row becomes a tagged paragraph (.TP) with its first cell as the tag."""
    heads, _, *rows = [
        [cell.strip().replace("\\|", "|") for cell in _CELLS.split(line.strip().strip("|"))] for line in lines
    ]
    for first, *others in rows:
        yield ".TP"
        yield _inline(first) or "\\&"
        told = [
            f"{_inline(head)}: {_inline(cell)}" if head and len(others) > 1 and number < len(others) else _inline(cell)
            for number, (head, cell) in enumerate(zip(heads[1:], others, strict=True), start=1)
            if cell
        ]
        yield "\n.br\n".join(told) or "\\&"


def _inline(text: str) -> str:
    """One line of text that does not begin a request."""
    text = html.unescape(_LINK.sub(_linked, text))
    found, at = "", 0
    for match in _INLINE.finditer(text):
        code, strong, weak = match.groups()
        found += _escaped(text[at : match.start()])
        found += f"\\fB{_escaped(code or strong)}\\fR" if code or strong else f"\\fI{_escaped(weak)}\\fR"
        at = match.end()
    found += _escaped(text[at:])
    return f"\\&{found}" if found.startswith((".", "'")) else found


def _linked(match: re.Match[str]) -> str:
    words, where = match.groups()
    return f"{words} ({where})" if where.startswith("http") else words


def _escaped(text: str) -> str:
    text = re.sub(r"\\([*|<_])", r"\1", text)
    return (
        text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga")
    )


def _plain(text: str) -> str:
    return _escaped(text)
