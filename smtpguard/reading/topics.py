"""Topics: words of vocabularies that an audience is to be spared, with their inflections and compounds.

A vocabulary comes as parsed YAML (the caller reads files): a mapping with ``groups``, each of one ``language``, with
``terms``, the endings they take (``inflect``), whether they make compounds (``compound``), and similar words that do
not count (``except``). Aho-Corasick finds candidates, the word around each decides, and the decision on a word is
cached from message to message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.reading.fold import fold, undisguised

MOST = 200
"""The most topics of one message."""
PATIENCE = 500
"""The most candidates that are checked for exceptions in one text. A text with more is suspicious: then every candidate
counts."""
_EDGE = 60  # characters around a word in which an exception may stand
_LONGEST_WORD = 80
_CACHED_WORDS = 20_000  # the most words in the cache
_SHORT, _CACHED_TEXTS = 200, 2_000  # characters of a cached text, and the most of these
_WORD = re.compile(r"\w+")
COMPOUNDS = ("none", "first", "last", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A term of a vocabulary that was found. ``where``: subject, text, html, name, alt text or attachment name.

    ``word``: the word in the text ("julskinkan", of which the term is "skink"); ``context``: the words around it.
    """

    vocabulary: str
    term: str
    where: str
    word: str
    context: str = ""

    @property
    def phrase(self) -> Phrase:
        """Return the word, its topic, and its place, for people."""
        return Phrase(_PLACES.get(self.where, _IN_THE_TEXT), word=self.word, topic=topic_name(self.vocabulary))


_IN_THE_TEXT = N_('"{word}" ({topic}, in the text)')
_PLACES: Mapping[str, str] = {
    "subject": N_('"{word}" ({topic}, in the subject)'),
    "alt text": N_('"{word}" ({topic}, in the text of a picture)'),
    "attachment name": N_('"{word}" ({topic}, in the name of an attachment)'),
    "attached text": N_('"{word}" ({topic}, in an attachment)'),
    "name": N_('"{word}" ({topic}, in a name in From, To or Cc)'),
    "hidden text": N_('"{word}" ({topic}, in text that nobody sees)'),
}
TOPICS: Mapping[str, str] = {
    "alcohol": N_("alcohol"),
    "confidential": N_("confidential"),
    "diets": N_("diets"),
    "gambling": N_("gambling"),
    "health": N_("health"),
    "politics": N_("politics"),
    "pork": N_("pork"),
    "redundancy": N_("redundancy"),
}
"""The product's own vocabularies. An admin's vocabulary is called by its own name."""


def topic_name(vocabulary: str) -> Said:
    return Phrase(TOPICS[vocabulary]) if vocabulary in TOPICS else vocabulary


class BadVocabulary(ValueError):
    """A vocabulary is invalid. ``path``: the place of the error; ``expected``: valid values."""

    def __init__(self, vocabulary: str, path: tuple[str | int, ...], text: str, expected: str) -> None:
        super().__init__(f"vocabulary {vocabulary}: {'.'.join(map(str, path))}: {text}")
        self.path, self.text, self.expected = path, text, expected


class _Exceptions:
    """Words similar to a vocabulary's terms that do not count. ``*`` at either end of a word stands for any letters:
    ``*gatan`` is any street."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self._by_word: dict[str, list[str]] = {}
        self._starred: list[tuple[re.Pattern[str], str]] = []
        for phrase in phrases:
            folded = fold(phrase)
            pattern = r"\s+".join(_starred(w) for w in folded.split())
            for word in re.findall(r"[\w*]+", folded):
                if "*" in word:
                    self._starred.append((re.compile(_starred(word)), pattern))
                else:
                    self._by_word.setdefault(word, []).append(pattern)

    def pattern_with(self, words: Sequence[str]) -> re.Pattern[str] | None:
        """Return the exceptions that may contain any of these words, as one pattern, or None."""
        found = {pattern for word in words for pattern in self._by_word.get(word, ())}
        found |= {pattern for starred, pattern in self._starred if any(map(starred.fullmatch, words))}
        return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(found, key=lambda p: (-len(p), p)))})(?!\w)") if found else None


def _starred(word: str) -> str:
    return re.escape(word).replace(r"\*", r"\w*")


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A term, and the words in which it is found."""

    vocabulary: str
    term: str
    endings: frozenset[str]
    first: bool  # the term may begin a compound: bacon + svarv
    last: bool  # the term may end one: jul + skinka
    exceptions: _Exceptions

    def covers(self, other: Entry) -> bool:
        """Return whether it is found in every word in which the other is, but for exceptions."""
        return other.endings <= self.endings and other.first <= self.first and other.last <= self.last

    def fits(self, before: str, after: str) -> bool:
        """Return whether the term counts in a word with this text before and after it."""
        if before and not (self.last and len(before) > 1):
            return False
        return after in self.endings or (self.first and len(after) > 2)


_Finding = tuple[Entry, re.Pattern[str] | None]


class _Compiled:
    """All terms of all vocabularies in one automaton, and a cache of words with the terms in them."""

    def __init__(self, entries: Mapping[str, Sequence[Entry]]) -> None:
        from smtpguard.reading.phrases import (
            automaton_of,  # imported late: it builds an automaton, which few commands need
        )

        terms = {t: (t, len(t), any(e.last for e in those), tuple(those)) for t, those in entries.items()}
        self._automaton = automaton_of(terms, ("", 1, False, ()))
        self._known: dict[tuple[str, str], tuple[_Finding, ...]] = {}
        self.topics_cached = lru_cache(_CACHED_TEXTS)(self.topics)
        """For short texts that come often, such as a sender's name."""

    def hits(self, plain: str) -> Iterator[tuple[Entry, int, int]]:
        """Yield every entry that ``plain`` contains, each at the first word that no exception excludes."""
        patience = PATIENCE
        done: set[Entry] = set()
        known = self._known
        for end, (term, length, last, entries) in self._automaton.iter(plain):
            start = end - length + 1
            letters = plain[start].isalnum()  # an emoji is a word of its own anywhere
            if letters and not last and start and plain[start - 1].isalnum():
                continue  # it is not at the beginning of its word, and none of these may end one
            before = _word_start(plain, start) if last and letters else start
            after = _word_end(plain, end + 1) if letters else end + 1
            word = plain[before:after]
            findings = known.get((word, term))
            if findings is None:
                findings = self._learn(word, term, word[: start - before], plain[end + 1 : after], entries)
            for entry, exceptions in findings:
                if entry in done:
                    continue
                if exceptions and patience:
                    patience -= 1
                    if _is_excepted(exceptions, plain, before, after):
                        continue
                done.add(entry)
                yield entry, before, after

    def topics(self, texts: tuple[tuple[str, str], ...]) -> tuple[Topic, ...]:
        """Return what ``Vocabularies.find`` does."""
        found: dict[tuple[str, str], Topic] = {}
        words: set[tuple[str, str]] = set()
        met: set[str] = set()
        for where, text in texts:
            plain = _as_terms_are(text)
            for entry, start, stop in self.hits(plain):
                key = entry.vocabulary, entry.term
                word = entry.vocabulary, plain[start:stop]
                room = len(found) < MOST or entry.vocabulary not in met
                if key not in found and word not in words and room:
                    words.add(word)
                    met.add(entry.vocabulary)
                    found[key] = Topic(
                        vocabulary=entry.vocabulary,
                        term=entry.term,
                        where=where,
                        word=word[1],
                        context=_context(plain, start, stop),
                    )
        return tuple(found.values())

    def _learn(self, word: str, term: str, before: str, after: str, entries: Sequence[Entry]) -> tuple[_Finding, ...]:
        """Return the entries of a term that a word contains (or some words, for a term of several), and the
        exceptions that may exclude them."""
        if len(self._known) >= _CACHED_WORDS:
            self._known.clear()
        fitting = [e for e in entries if e.fits(before, after)]
        findings = [(e, e.exceptions.pattern_with(_WORD.findall(word))) for e in fitting]
        found = tuple((e, x) for e, x in findings if x is None or not x.fullmatch(word))
        self._known[word, term] = found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabularies:
    """Vocabularies, compiled once. ``documents``: their sources, so that they can be sent to another process."""

    documents: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    _compiled: _Compiled | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> Mapping[str, Mapping[str, object]]:
        return self.documents

    @staticmethod
    def from_json(documents: Mapping[str, Mapping[str, object]]) -> Vocabularies:
        return compile_vocabularies(documents)

    def terms_in(self, text: str) -> frozenset[str]:
        """Return every term in a text, folded, even if terms share words."""
        hits = () if self._compiled is None else self._compiled.hits(_as_terms_are(text))
        return frozenset(entry.term for entry, _, _ in hits)

    def find(self, texts: Sequence[tuple[str, str]]) -> tuple[Topic, ...]:
        """Return the topics in ``(where, text)`` pairs: the first place of each term, and one term of each word. At
        most ``MOST``, but at least one of each vocabulary: many words of one topic must not hide one of another."""
        if self._compiled is None:
            return ()
        often = sum(len(text) for _, text in texts) <= _SHORT
        return (self._compiled.topics_cached if often else self._compiled.topics)(tuple(texts))


def compile_vocabularies(documents: Mapping[str, Mapping[str, object]]) -> Vocabularies:
    """Compile vocabularies. ``documents``: parsed YAML by name. Raises BadVocabulary at the first error."""
    entries: dict[str, list[Entry]] = {}
    for name, document in documents.items():
        for entry in entries_of(name, document):
            entries.setdefault(entry.term, []).append(entry)
    return Vocabularies(documents=documents, _compiled=_Compiled(entries) if entries else None)


def entries_of(name: str, document: Mapping[str, object]) -> Iterator[Entry]:
    """Yield the entries of one vocabulary. Raises BadVocabulary."""
    if not isinstance(document, Mapping):
        raise BadVocabulary(name, (), "not a mapping", "a mapping with groups")
    for key in document:
        if key not in ("title", "groups", "vocabulary"):
            raise BadVocabulary(name, (str(key),), f'unknown key "{key}"', "title or groups")
    groups = document.get("groups")
    if not isinstance(groups, list) or not groups:
        raise BadVocabulary(name, ("groups",), "missing or no list", "a list of groups of terms")
    exceptions = _Exceptions(
        [w for i, g in enumerate(groups) for w in _list_of_words(name, g, ("groups", i), "except")]
    )
    for i, group in enumerate(groups):
        path = ("groups", i)
        for key in group:
            if key not in ("language", "terms", "inflect", "compound", "except"):
                raise BadVocabulary(
                    name, (*path, str(key)), f'unknown key "{key}"', "language, terms, inflect, compound or except"
                )
        compound = group.get("compound", "none")
        compound = {True: "both", False: "none"}.get(compound, compound) if isinstance(compound, bool) else compound
        if compound not in COMPOUNDS:
            text = f'unknown value "{compound}"' if isinstance(compound, str) else "no value"
            raise BadVocabulary(name, (*path, "compound"), text, "none, first, last or both")
        endings = frozenset(fold(w) for w in _list_of_words(name, group, path, "inflect")) | {""}
        for term in _list_of_words(name, group, path, "terms"):
            yield Entry(
                name,
                " ".join(fold(term).split()),
                endings,
                compound in ("first", "both"),
                compound in ("last", "both"),
                exceptions,
            )


def words_of(group: Mapping[str, object], key: str) -> list[str]:
    return _list_of_words("", group, (), key)


def _list_of_words(name: str, group: object, path: tuple[str | int, ...], key: str) -> list[str]:
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


def _as_terms_are(text: str) -> str:
    """Spell a text as terms are: folded, disguises undone, runs of white space one space."""
    folded = fold(text)
    if "\n" in folded or "  " in folded:
        folded = " ".join(folded.split())
    return undisguised(folded).replace("_", " ")


def _is_excepted(exceptions: re.Pattern[str], plain: str, start: int, stop: int) -> bool:
    window = exceptions.finditer(plain, _some_words_before(plain, start), stop + _EDGE)
    return any(m.start() < stop and m.end() > start for m in window)


def _word_start(text: str, start: int) -> int:
    floor = max(0, start - _LONGEST_WORD)
    while start > floor and text[start - 1].isalnum():
        start -= 1
    return start


def _word_end(text: str, stop: int) -> int:
    ceiling = min(len(text), stop + _LONGEST_WORD)
    while stop < ceiling and text[stop].isalnum():
        stop += 1
    return stop


def _some_words_before(text: str, start: int) -> int:
    """Return the start of a word some way before, so that an exception of several words can match."""
    start = max(0, start - _EDGE)
    while start and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    return start


def _context(text: str, before: int, after: int) -> str:
    head, tail = max(0, before - 40), min(len(text), after + 40)
    return ("…" if head else "") + text[head:tail].strip() + ("…" if tail < len(text) else "")
