"""Vocabularies: which words of a subject someone should be spared, with their inflections and compounds.

A vocabulary comes as parsed YAML (the caller reads files): a mapping with ``groups``, each of one ``language``, with
``terms``, the endings they take (``inflect``), whether they make compounds (``compound``), and what looks like them and is
not (``except``). Finding: Aho-Corasick gives candidates, the word around each decides. Never here: who is to be spared (policy).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ahocorasick

from smtpguard.reading.fold import fold, plainly
from smtpguard.reading.looks import Topic

MOST = 200
PATIENCE = 500
"""So many look-alikes are told apart in one text. A text with more of them is trying something: then a hit is a hit."""
_EDGE = 60
_LONGEST_WORD = 80
COMPOUNDS = ("none", "first", "last", "both")


class BadVocabulary(ValueError):
    """A vocabulary that says something else than a vocabulary can. ``path`` leads to it, ``expected`` says what could stand there."""

    def __init__(self, vocabulary: str, path: tuple[str | int, ...], text: str, expected: str = "") -> None:
        super().__init__(f"vocabulary {vocabulary}: {'.'.join(map(str, path))}: {text}")
        self.vocabulary, self.path, self.text, self.expected = vocabulary, path, text, expected


@dataclass(frozen=True, slots=True)
class _Entry:
    vocabulary: str
    term: str
    endings: frozenset[str]
    first: bool  # the term may begin a compound: bacon + svarv
    last: bool  # the term may end one: jul + skinka
    exceptions: re.Pattern[str] | None


@dataclass(frozen=True, slots=True)
class _Compiled:
    automaton: Any  # ahocorasick.Automaton of tuples of entries; None where there are no terms
    names: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabularies:
    """Compiled once, read-only after. ``documents`` are what it was compiled of, so that it can be sent to another process."""

    documents: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    _compiled: _Compiled = field(default=_Compiled(None, frozenset()), repr=False, compare=False)

    @property
    def names(self) -> frozenset[str]:
        return self._compiled.names

    def find(self, texts: Sequence[tuple[str, str]]) -> tuple[Topic, ...]:
        """Topics in ``(where, text)`` pairs, the first place of each (vocabulary, term), at most ``MOST``."""
        if self._compiled.automaton is None:
            return ()
        found: dict[tuple[str, str], Topic] = {}
        for where, text in texts:
            for entry, context in _hits(self._compiled.automaton, text, found):
                if len(found) < MOST:
                    found[entry.vocabulary, entry.term] = Topic(
                        vocabulary=entry.vocabulary, term=entry.term, where=where, context=context
                    )
        return tuple(found.values())


def compile_vocabularies(documents: Mapping[str, Mapping[str, object]]) -> Vocabularies:
    """From vocabulary name to parsed YAML. Raises BadVocabulary at the first mistake."""
    entries: dict[str, list[_Entry]] = {}
    for name, document in documents.items():
        for entry in _entries(name, document):
            entries.setdefault(entry.term, []).append(entry)
    automaton = None
    if entries:
        automaton = ahocorasick.Automaton()
        for term, those in entries.items():
            automaton.add_word(term, (len(term), any(e.last for e in those), tuple(those)))
        automaton.make_automaton()
    return Vocabularies(documents=documents, _compiled=_Compiled(automaton, frozenset(documents)))


def _entries(name: str, document: Mapping[str, object]) -> Iterator[_Entry]:
    if not isinstance(document, Mapping):
        raise BadVocabulary(name, (), "not a mapping", "a mapping with groups")
    for key in document:
        if key not in ("title", "groups", "vocabulary"):
            raise BadVocabulary(name, (str(key),), f"unknown key {key!r}", "title or groups")
    groups = document.get("groups")
    if not isinstance(groups, list) or not groups:
        raise BadVocabulary(name, ("groups",), "missing or no list", "a list of groups of terms")
    exceptions = [w for i, g in enumerate(groups) for w in _words(name, g, ("groups", i), "except")]
    pattern = _exceptions(exceptions)
    for i, group in enumerate(groups):
        path = ("groups", i)
        for key in group:
            if key not in ("language", "terms", "inflect", "compound", "except"):
                raise BadVocabulary(
                    name, (*path, str(key)), f"unknown key {key!r}", "language, terms, inflect, compound or except"
                )
        compound = group.get("compound", "none")
        compound = {True: "both", False: "none"}.get(compound, compound) if isinstance(compound, bool) else compound
        if compound not in COMPOUNDS:
            raise BadVocabulary(name, (*path, "compound"), f"unknown value {compound!r}", "none, first, last or both")
        endings = frozenset(fold(w) for w in _words(name, group, path, "inflect")) | {""}
        for term in _words(name, group, path, "terms"):
            yield _Entry(
                name,
                " ".join(fold(term).split()),
                endings,
                compound in ("first", "both"),
                compound in ("last", "both"),
                pattern,
            )


def _words(name: str, group: object, path: tuple[str | int, ...], key: str) -> list[str]:
    if not isinstance(group, Mapping):
        raise BadVocabulary(name, path, "not a mapping", "language, terms, inflect, compound, except")
    value = group.get(key, [])
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list) or not all(isinstance(w, str) and w.strip() for w in value):
        raise BadVocabulary(name, (*path, key), "not a list of words", "a list of words, or words in one string")
    if key == "terms" and not value:
        raise BadVocabulary(name, (*path, key), "no terms", "at least one word")
    return value


def _exceptions(phrases: list[str]) -> re.Pattern[str] | None:
    """``*`` at either end of a word stands for any letters: ``*gatan`` is any street."""
    if not phrases:
        return None
    alternatives = [r"\s+".join(re.escape(w).replace(r"\*", r"\w*") for w in fold(p).split()) for p in phrases]
    return re.compile(r"(?<!\w)(?:" + "|".join(sorted(alternatives, key=len, reverse=True)) + r")(?!\w)")


def _hits(automaton: Any, text: str, found: Container[tuple[str, str]]) -> Iterator[tuple[_Entry, str]]:
    """Every entry that ``text`` holds and that is not in ``found`` yet."""
    folded = fold(text)
    if "\n" in folded or "  " in folded:
        folded = " ".join(folded.split())
    plain = plainly(folded)
    patience = PATIENCE
    for end, (length, last, entries) in automaton.iter(plain):
        start, stop = end - length + 1, end + 1
        if not last and start and plain[start - 1].isalnum():
            continue  # in the middle of a word that none of these may end
        before = _letters_before(plain, start)
        after = _letters_after(plain, stop)
        for entry in entries:
            if (entry.vocabulary, entry.term) in found or not _fits(entry, plain[before:start], plain[stop:after]):
                continue
            if entry.exceptions and patience:
                patience -= 1
                window = entry.exceptions.finditer(plain, _back(plain, before), after + _EDGE)
                if any(m.start() < stop and m.end() > start for m in window):
                    continue
            yield entry, _context(plain, before, after)


def _fits(entry: _Entry, before: str, after: str) -> bool:
    if before and not (entry.last and len(before) > 1):
        return False
    if after in entry.endings:
        return True
    return entry.first and len(after) > 2


def _letters_before(text: str, start: int) -> int:
    floor = max(0, start - _LONGEST_WORD)
    while start > floor and text[start - 1].isalnum():
        start -= 1
    return start


def _letters_after(text: str, stop: int) -> int:
    ceiling = min(len(text), stop + _LONGEST_WORD)
    while stop < ceiling and text[stop].isalnum():
        stop += 1
    return stop


def _back(text: str, start: int) -> int:
    """The start of a word some way before, so that an exception of several words can match."""
    start = max(0, start - _EDGE)
    while start and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    return start


def _context(text: str, before: int, after: int) -> str:
    head, tail = max(0, before - 40), min(len(text), after + 40)
    return ("…" if head else "") + text[head:tail].strip() + ("…" if tail < len(text) else "")
