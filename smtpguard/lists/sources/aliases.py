"""Members behind aliases of Postfix. Aliases of aliases are followed, and cycles end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtpguard.lists.sources import Cell, Source, SourceError, Tally, maps
from smtpguard.lists.sources.maps import Entry, is_elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasSource(Source):
    """``names``: aliases whose members these are. ``domain``: the domain of names without one."""

    path: Path
    names: tuple[str, ...]
    domain: str
    entries: Callable[[Path], Iterator[Entry]]

    @classmethod
    def of(cls, declaration: Mapping[str, Any], base: Path) -> AliasSource:
        kind = "aliases" if declaration.get("aliases") is not None else "virtual"
        names = declaration["name"]
        return cls(path=maps.map_path(declaration[kind], base), names=(names,) if isinstance(names, str) else tuple(names),
                   domain=declaration.get("domain") or "", entries=getattr(maps, kind))  # fmt: skip

    @property
    def label(self) -> str:
        return f"{', '.join(self.names)} in {self.path.name}"

    def fingerprint(self) -> bytes:
        """Over the whole result: the files that a map includes are known only by reading it."""
        found = hashlib.blake2b(digest_size=32)
        for place, text in self.cells(Tally()):
            found.update(f"{place} {text}\n".encode("utf-8", "surrogateescape"))
        return found.digest()

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, "line")
        known: dict[str, Entry] = {}
        for entry in self.entries(self.path):
            if entry.wrong:
                tally.rows += 1
                tally.reject(entry.line, entry.wrong)
            else:
                known.setdefault(self._key(entry.name), entry)
        missing = [name for name in self.names if self._key(name) not in known]
        if missing:
            raise SourceError(f"{self.path}: no {missing[0]} is in it")
        yield from self._behind(known, tally)

    def _behind(self, known: Mapping[str, Entry], tally: Tally) -> Iterator[Cell]:
        ahead = [self._key(name) for name in self.names]
        seen = set(ahead)
        while ahead:
            entry = known[ahead.pop()]
            for value in (found for each in entry.values for found in maps.expanded(each, self.path.parent)):
                key = self._key(value.removeprefix("\\"))
                if is_elsewhere(value):
                    tally.ignored += 1
                elif key in known and not value.startswith("\\"):
                    if key not in seen:
                        seen.add(key)
                        ahead.append(key)
                else:
                    tally.rows += 1
                    name = value.removeprefix("\\")
                    if "@" in name:
                        yield entry.line, name
                    elif self.domain:
                        yield entry.line, f"{name}@{self.domain}"
                    else:
                        tally.reject(entry.line, "a name without a domain (declare domain)")

    def _key(self, name: str) -> str:
        """The key of a name: an alias is local, with or without its domain."""
        key = name.strip().strip('"').lower()
        local, _, domain = key.rpartition("@")
        return local if domain == self.domain.lower() and local else key
