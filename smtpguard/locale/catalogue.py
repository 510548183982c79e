"""Message catalogues: one ``.po`` file a language, in ``LANGUAGE/LC_MESSAGES/smtpguard.po`` beside this file.

A catalogue is read when the first text in its language is needed, and then cached. There is no compiled form, so adding
a ``.po`` file adds a language, in a wheel as in a working copy. A text that a catalogue does not translate is shown in
English.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from gettext import c2py
from pathlib import Path

DOMAIN = "smtpguard"
FOLDER = Path(__file__).parent
CONTEXT = "\x04"
"""Separates a message's context from the message, as in gettext."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """``locale``: its CLDR name, "en_GB". ``forms``: all plural forms of a message; ``form``: the index of the form for
    a number."""

    locale: str
    texts: Mapping[str, str]
    forms: Mapping[str, tuple[str, ...]]
    form: Callable[[int], int]

    def gettext(self, msgid: str) -> str:
        return self.texts.get(msgid) or msgid

    def pgettext(self, context: str, msgid: str) -> str:
        return self.texts.get(f"{context}{CONTEXT}{msgid}") or msgid

    def ngettext(self, one: str, many: str, n: int) -> str:
        if forms := self.forms.get(one):
            return forms[min(self.form(n), len(forms) - 1)]
        return one if n == 1 else many


def file_of(language: str) -> Path:
    return FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}.po"


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """The languages with a catalogue; English first, the fallback of all others."""
    found = {path.parent.parent.name for path in FOLDER.glob(f"*/LC_MESSAGES/{DOMAIN}.po")}
    return ("en", *sorted(found - {"en"}))


@lru_cache(maxsize=16)
def catalogue(language: str) -> Catalogue:
    """English for a language without one."""
    if language not in languages():
        return catalogue("en")
    return read(file_of(language), language)


def called(language: str) -> str:
    """The language's own name: "Svenska"."""
    from babel import Locale

    name = Locale.parse(catalogue(language).locale).language_name or language
    return name[:1].upper() + name[1:]


def read(path: Path, language: str) -> Catalogue:
    from babel.messages.pofile import read_po  # imported only where texts are translated

    with path.open("rb") as file:
        found = read_po(file)
    texts: dict[str, str] = {}
    forms: dict[str, tuple[str, ...]] = {}
    for message in found:
        if not message.id or message.fuzzy:
            continue
        if isinstance(message.id, tuple | list):
            several = tuple(message.string or ())
            if several and all(several):
                forms[message.id[0]] = several
        elif message.string:
            context = f"{message.context}{CONTEXT}" if message.context else ""
            texts[context + message.id] = str(message.string)
    return Catalogue(locale=found.locale_identifier or language, texts=texts, forms=forms, form=c2py(found.plural_expr))
