"""What is wrong with a journal, as people read it. Never here: how that is found out (audit.proof)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from smtpguard.console.speech import Speech

PROBLEMS: Mapping[str, str] = {
    "recomputed: the chain differs from its signed checkpoint at #, somewhere after #": "recomputed: the chain differs from its signed checkpoint at {0}, somewhere after {1}",
    "replaced: the journal's head is another entry of this number": "replaced: the journal's head is another entry of this number",
    "the tail is cut: a signed checkpoint knows entries up to #": "the tail is cut: a signed checkpoint knows entries up to {0}",
    "the tail is cut: the journal had entries up to #": "the tail is cut: the journal had entries up to {0}",
    "missing: entry # is gone": "missing: entry {0} is gone",
    "missing: entries # to # are gone": "missing: entries {0} to {1} are gone",
    "replaced: this entry does not follow the one before it": "replaced: this entry does not follow the one before it",
    "edited: the entry does not fit its hash": "edited: the entry does not fit its hash",
    "reordered: the entry stood elsewhere": "reordered: the entry stood elsewhere",
    "edited, and moved": "edited, and moved",
    "inserted: the entry belongs to no chain": "inserted: the entry belongs to no chain",
    "private values are missing": "private values are missing",
    "edited: private values do not fit their digests": "edited: private values do not fit their digests",
    "edited: the report was made of another entry of this number": "edited: the report was made of another entry of this number",
}
"""By what audit.proof says, with # for its numbers."""
_NUMBER = re.compile(r"\d+")


def problem(text: str, said: Speech) -> str:
    """What is wrong with a journal (audit.proof); ``#`` is a number in it."""
    numbers = _NUMBER.findall(text)
    known = PROBLEMS.get(_NUMBER.sub("#", text))
    if known is None:
        return text
    words = said(known)
    for place, number in enumerate(numbers):
        words = words.replace(f"{{{place}}}", said.number(int(number)))
    return words
