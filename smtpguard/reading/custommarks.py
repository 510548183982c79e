"""The admins' changes to marks: other weights, marks switched off, and marks of their own (a field, a pattern, a term).

Patterns are re2's, so that no pattern and no message together can take more than linear time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import re2

from smtpguard.locale.phrase import Phrase
from smtpguard.reading.decode import words
from smtpguard.reading.fold import fold
from smtpguard.reading.marks import Mark
from smtpguard.reading.surroundings import Custom, Surroundings
from smtpguard.reading.text import Text
from smtpguard.reading.walk import Index

MOST = 200_000


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re2._Regexp:
    """It compiles: the policy was checked (policy.grammar)."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    return re2.compile(pattern, options)


def adjusted(marks: Iterable[Mark], around: Surroundings) -> list[Mark]:
    """The marks with the admins' weights, without those of weight 0."""
    if not around.weights:
        return list(marks)
    weighed = [replace(m, weight=around.weights.get(m.name, m.weight)) for m in marks]
    return [m for m in weighed if m.weight > 0]


def custom_marks(fields: Index, text: Text, around: Surroundings) -> list[Mark]:
    return [m for custom in around.customs if (m := _custom(custom, fields, text)) is not None]


def _custom(custom: Custom, fields: Index, text: Text) -> Mark | None:
    if custom.header:
        given = fields.get(custom.header.lower(), [])
        values = [words(f.raw) for f in given]
        if values and not custom.pattern and not custom.term:
            return _mark(custom, Phrase("the field {field} is there", field=custom.header))
    else:
        values = [text.subject, text.shown[:MOST]]
    for value in values:
        if custom.term and fold(custom.term) in fold(value):
            return _mark(custom, _says(custom, custom.term))
        if custom.pattern and (found := _compiled(custom.pattern).search(value)):
            return _mark(custom, _says(custom, found[0][:60]))
    return None


def _says(custom: Custom, words: str) -> Phrase:
    if custom.header:
        return Phrase('the field {field} says "{words}"', field=custom.header, words=words)
    return Phrase('the text says "{words}"', words=words)


def _mark(custom: Custom, evidence: Phrase) -> Mark:
    return Mark(name=custom.name, side=custom.side, weight=custom.weight, evidence=evidence)
