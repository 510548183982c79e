"""A problem in a configuration file: its position, what is wrong, and what was expected.

All problems are reported at once, one line each: ``policy.yaml:17:9: unknown action "hodl" (did you mean hold?)``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from smtpguard.locale.phrase import some_of


@dataclass(frozen=True, slots=True)
class Problem:
    """``line`` and ``column`` begin at 1. ``hint`` is a guess at what was meant: "did you mean hold?". ``fatal``: the file cannot be
    put in force; otherwise it can, and probably does not do what was meant."""

    file: str
    line: int
    column: int
    text: str
    expected: str = ""
    hint: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        kind = "" if self.fatal else "warning: "
        tail = f" ({self.hint})" if self.hint else f": expected {self.expected}" if self.expected else ""
        said = f"{kind}{self.text}{tail}"
        if not said.isprintable():  # it names what was written: one line, in which what is invisible can be seen
            said = "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)
        return f"{self.file}:{self.line}:{self.column}: {said}"

    def row(self) -> dict[str, str | int]:
        """Return the JSON object of a problem, as in ``check --json``."""
        text = f"{self.text} ({self.hint})" if self.hint else self.text
        if not self.fatal:
            text = f"warning: {text}"
        return {"file": self.file, "line": self.line, "column": self.column, "text": text, "expected": self.expected}


class Invalid(ValueError):
    """Raised when a value is read that is invalid there. Validation adds a position and makes it a Problem."""

    def __init__(self, text: str, expected: str = "", hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.expected = expected
        self.hint = hint


class Undeclared(Invalid):
    """A name that is not declared. Ignored if the section that would declare it has a mistake itself."""

    def __init__(self, noun: str, name: str, declared: Iterable[str]) -> None:
        names = sorted(declared)
        super().__init__(f'unknown {noun} "{name}"', one_of(names), did_you_mean(name, names))


class Broken(Exception):
    """An unusable file, with every problem found in it. Its text has those that make it so, not mere warnings."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = ordered(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems if problem.fatal))


def ordered(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line, p.column, p.text)))


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A hint at the nearest of ``candidates``, or ""."""
    near = nearest(word, candidates)
    return f"did you mean {near}?" if near else ""


def unknown(noun: str, name: str, candidates: Iterable[str]) -> str:
    hint = did_you_mean(name, candidates)
    return f'unknown {noun} "{name}"' + (f" ({hint})" if hint else "")


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that was probably meant, or "". Names of several words that share a word are nearer."""
    names = {c.lower(): c for c in candidates}
    near = difflib.get_close_matches(word.lower(), names, n=max(1, len(names)), cutoff=0.6)
    if len(words := _words(word)) > 1:
        alike = {name: difflib.SequenceMatcher(None, name, word.lower()).ratio() for name in near}
        near.sort(key=lambda name: -alike[name] - _SHARED * len(words & _words(name)))
    if not near:  # swapped letters score low in short words
        near = [n for n in names if len(n) == len(word) and sorted(n) == sorted(word.lower())][:1]
    return names[near[0]] if near else ""


_MOST_SHOWN = 12
_SHARED = 0.1
"""Added to a similarity of at most 1 for a shared word."""


def _words(name: str) -> frozenset[str]:
    return frozenset(part for part in re.split(r"[._-]", name.lower()) if len(part) > 3)


def one_of(candidates: Iterable[str]) -> str:
    """The candidates as an expectation, in words, shortened."""
    names = list(candidates)
    if not names:
        return "none: there are none yet"
    if len(names) == 1:
        return names[0]
    return f"one of {some_of(names, _MOST_SHOWN)}"
