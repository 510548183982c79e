"""The report as statements: each marked as fact, estimate or unknown, with the journal entries that it is based on.

Text, HTML, JSON, PDF and the drafts are all made from these, so none of them says more than another. Pure.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from smtpguard.locale.phrase import N_


class Mark(enum.Enum):
    FACT = "fact"  # from the journal
    ESTIMATE = "estimate"  # between bounds that the journal gives
    UNKNOWN = "unknown"  # not known from the journal


MARKS = {Mark.FACT: N_("fact"), Mark.ESTIMATE: N_("estimate"), Mark.UNKNOWN: N_("unknown")}
FORMATS = ("text", "html", "json", "pdf")
"""The formats of a report."""
_SPACES = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"  # used in numbers
NAMED = 4
"""The number of first entries that are named."""


@dataclass(slots=True)
class Entries:
    """Entries may come in any order, each once."""

    many: int = 0
    last: int = 0
    _first: list[int] = field(default_factory=list)

    def add(self, *seqs: int) -> None:
        for seq in seqs:
            self.many += 1
            self.last = max(self.last, seq)
            if len(self._first) < NAMED:
                self._first.append(seq)
                self._first.sort()
            elif seq < self._first[-1]:
                self._first[-1] = seq
                self._first.sort()

    @classmethod
    def of(cls, *seqs: int) -> Entries:
        made = cls()
        made.add(*sorted({seq for seq in seqs if seq}))
        return made

    @property
    def named(self) -> tuple[int, ...]:
        """The first few and the last, in order."""
        return tuple(dict.fromkeys((*self._first, self.last))) if self.many else ()

    @property
    def more(self) -> int:
        """How many are not named."""
        return self.many - len(self.named)


_NONE = Entries()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    text: str
    mark: Mark = Mark.FACT
    entries: Entries = field(default_factory=Entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``key``: the same in every language. Every part has statements."""

    key: str
    title: str
    statements: tuple[Statement, ...]


def fact(text: str, entries: Entries = _NONE) -> Statement:
    return Statement(text=text, entries=entries)


def estimate(text: str, entries: Entries = _NONE) -> Statement:
    return Statement(text=text, mark=Mark.ESTIMATE, entries=entries)


def unknown(text: str, entries: Entries = _NONE) -> Statement:
    return Statement(text=text, mark=Mark.UNKNOWN, entries=entries)


def sure(exact: bool) -> Mark:
    return Mark.FACT if exact else Mark.ESTIMATE


def plain(text: str) -> str:
    """On one line, without control characters for a terminal: text of a message is not trusted."""
    on_one_line = re.sub(r"[\r\n\t]+", " ", text)
    return "".join(c if c.isprintable() or c in _SPACES else "\N{REPLACEMENT CHARACTER}" for c in on_one_line)
