"""Postfix's alias, virtual and hash maps as text, and the members behind their aliases: aliases(5), virtual(5), postmap(1).

Continuation lines, comments, quotes and ``:include:`` files are read; a pipe or a file is no mailbox, and is counted.
Maps of patterns (regexp, pcre) and compiled maps are refused. Aliases of aliases are followed, and cycles end.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smtpguard.lists.members import AliasesMembers, VirtualMembers
from smtpguard.lists.sources import Cell, Source, SourceError, Tally, open_file, why_not_opened

LONGEST_LINE = 16 << 20  # with its continuations: half a million addresses
INCLUDE = ":include:"
_TABLE = re.compile(r"[a-z]{2,12}:(?=[^:])", re.I)
_TEXT_TABLES = frozenset({"hash", "btree", "dbm", "lmdb", "cdb", "sdbm", "texthash"})
_PATTERN = re.compile(r"!?/|(?:if|endif)\b")
_VALUES = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.){0,500}+")+')  # with a bound, since many quotes may never close
_ALIAS = re.compile(r'(\s*+"(?:[^"\\]|\\.)*+"\s*+|[^:"]++):(.*)\Z', re.S)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a map: the name and its targets, as they are spelled. ``wrong``: the problem of a line without them."""

    line: int
    name: str = ""
    values: tuple[str, ...] = ()
    wrong: str = ""


def map_path(written: str, base: Path) -> Path:
    """Return the text file of a map named as in Postfix, with or without its type: ``hash:/etc/aliases``.

    Raises SourceError.
    """
    kind = _TABLE.match(written)
    if kind is None:
        return base / written
    if kind[0][:-1].lower() not in _TEXT_TABLES:
        raise SourceError(f"{written}: cannot be read by its text: expected an alias, virtual, hash or texthash map")
    return base / written[kind.end() :]


def aliases(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file as in aliases(5). Raises SourceError."""
    for line, text in _logical_lines(path):
        found = _ALIAS.match(text)
        if found is None:
            yield Entry(line, wrong="no colon after the alias")
        else:
            yield Entry(line, _unquoted(found[1]), tuple(_values(found[2])))


def virtual(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file as in virtual(5) and postmap(1). Raises SourceError."""
    for line, text in _logical_lines(path):
        name, *rest = text.split(None, 1)
        values = [word for part in _values(rest[0] if rest else "") for word in _words(part)]
        if values:
            yield Entry(line, _unquoted(name), tuple(values))
        else:
            yield Entry(line, wrong="nothing after the address")


def expanded(value: str, base: Path) -> Iterator[str]:
    """Yield the value; for ``:include:FILE`` the values in the file, and in those that it includes, each file once.

    Raises SourceError.
    """
    if not _is_include(value):
        yield value
        return
    ahead, read = [(value, base)], set[str]()
    while ahead:
        written, folder = ahead.pop()
        path = folder / _unquoted(written)[len(INCLUDE) :].strip()
        if (real := os.path.realpath(path)) in read:
            continue
        read.add(real)
        for _, text in _logical_lines(path, continued=False):
            for inner in _values(text):
                if _is_include(inner):
                    ahead.append((inner, path.parent))
                else:
                    yield inner


def _is_include(value: str) -> bool:
    return _unquoted(value).lower().startswith(INCLUDE)


def is_elsewhere(value: str) -> bool:
    """Return whether a value is a command or a file, and no mailbox."""
    return _unquoted(value).startswith(("|", "/"))


def _logical_lines(path: Path, *, continued: bool = True) -> Iterator[tuple[int, str]]:
    """Yield lines with their continuations, each with the number of its first."""
    begun, parts, size = 0, list[str](), 0
    try:
        with open_file(path) as file:
            for number, octets in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
                if b"\0" in octets:
                    raise SourceError(f"{path}: a compiled map: expected its text")
                size += len(octets)
                if size > LONGEST_LINE:
                    raise SourceError(f"{path}:{number}: a line longer than {LONGEST_LINE >> 20} MB")
                line = octets.decode("utf-8", "surrogateescape").rstrip()
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                if continued and line[0].isspace():
                    parts.append(line)
                    continue
                if parts:
                    yield begun, " ".join(parts)
                if _PATTERN.match(line) and continued:
                    raise SourceError(f"{path}:{number}: a map of patterns: expected addresses, one a line")
                begun, parts, size = number, [line], len(octets)
    except OSError as error:
        raise SourceError(why_not_opened(path, error)) from None
    if parts:
        yield begun, " ".join(parts)


def _values(text: str) -> list[str]:
    return [value.strip() for value in _VALUES.findall(text) if value.strip()]


def _words(value: str) -> list[str]:
    """Split a value at white space, which separates addresses in a virtual map, unless they have names and brackets."""
    return [value] if '"' in value or value.endswith(">") else value.split()


def _unquoted(text: str) -> str:
    """Return the text without quotes around all of it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('\\"', ""):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


class AliasSource(Source):
    """The members of aliases. A name without a domain has the one that is declared."""

    def __init__(self, members: AliasesMembers | VirtualMembers, base: Path) -> None:
        written, self._entries = (
            (members.aliases, aliases) if isinstance(members, AliasesMembers) else (members.virtual, virtual)
        )
        self._path, self._names, self._domain = map_path(written, base), members.name, members.domain or ""

    @property
    def label(self) -> str:
        return f"{', '.join(self._names)} in {self._path.name}"

    def fingerprint(self) -> bytes:
        """Return a digest of all members: the files that a map includes are known only by reading it."""
        found = hashlib.blake2b(digest_size=32)
        for place, text in self.cells(Tally()):
            found.update(f"{place} {text}\n".encode("utf-8", "surrogateescape"))
        return found.digest()

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, "line")
        known: dict[str, Entry] = {}
        for entry in self._entries(self._path):
            if entry.wrong:
                tally.rows += 1
                tally.reject(entry.line, entry.wrong)
            else:
                known.setdefault(self._key(entry.name), entry)
        missing = [name for name in self._names if self._key(name) not in known]
        if missing:
            raise SourceError.saying("{name}: no {what} is in it", name=str(self._path), what=missing[0])
        yield from self._members(known, tally)

    def _members(self, known: Mapping[str, Entry], tally: Tally) -> Iterator[Cell]:
        ahead = [self._key(name) for name in self._names]
        seen = set(ahead)
        while ahead:
            entry = known[ahead.pop()]
            for value in (found for each in entry.values for found in expanded(each, self._path.parent)):
                name = value.removeprefix("\\")  # which says that it is no alias
                key = self._key(name)
                if is_elsewhere(value):
                    tally.ignored += 1
                elif key in known and name == value:
                    if key not in seen:
                        seen.add(key)
                        ahead.append(key)
                else:
                    tally.rows += 1
                    if "@" in name:
                        yield entry.line, name
                    elif self._domain:
                        yield entry.line, f"{name}@{self._domain}"
                    else:
                        tally.reject(entry.line, "a name without a domain (declare domain)")

    def _key(self, name: str) -> str:
        """Return the key of a name: an alias is local, with or without its domain."""
        key = name.strip().strip('"').lower()
        local, _, domain = key.rpartition("@")
        return local if domain == self._domain.lower() and local else key
