"""Texts for people, in their language: messages with values, numbers and times, by catalogues. These are ``.po`` files,
``LANGUAGE/LC_MESSAGES/smtpguard.po`` beside this file.

There is no compiled form, so adding a ``.po`` file adds a language, in a wheel as in a working copy. This file says which
there are, without a library: processes that translate nothing read it too.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

DOMAIN = "smtpguard"
FOLDER = Path(__file__).parent


def file_of(language: str) -> Path:
    return FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}.po"


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """The languages with a catalogue; English first, the fallback of all others."""
    found = {path.parent.parent.name for path in FOLDER.glob(f"*/LC_MESSAGES/{DOMAIN}.po")}
    return ("en", *sorted(found - {"en"}))
