"""Render texts, numbers, times and durations in one reader's language, by its message catalogue. A text that a catalogue
does not translate is shown in English."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from gettext import c2py
from pathlib import Path
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime
from babel.numbers import format_compact_decimal, format_decimal

from smtpguard.locale import file_of, languages
from smtpguard.locale.phrase import N_, Amount, Said, amount, filled, render, span

_RANGE = re.compile(r"\s*([a-z]{1,8})(?:-[a-z0-9-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?\s*\Z", re.I)
_CONTEXT = "\x04"
"""Separates a message's context from the message, as in gettext."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The texts of one language. ``locale``: its CLDR name, "en_GB". ``forms``: all plural forms of a message. ``form``: returns
    which is for a number."""

    locale: str
    texts: Mapping[str, str]
    forms: Mapping[str, tuple[str, ...]]
    form: Callable[[int], int]

    def gettext(self, msgid: str) -> str:
        return self.texts.get(msgid) or msgid

    def pgettext(self, context: str, msgid: str) -> str:
        return self.texts.get(f"{context}{_CONTEXT}{msgid}") or msgid

    def ngettext(self, one: str, many: str, n: int) -> str:
        if forms := self.forms.get(one):
            return forms[min(self.form(n), len(forms) - 1)]
        return one if n == 1 else many


@lru_cache(maxsize=1024)
def _decimal(n: float, locale: Locale) -> str:
    """Return a number in digits. Cached, since a page has thousands, most of them small."""
    return str(format_decimal(n, locale=locale))


@lru_cache(maxsize=16)
def catalogue(language: str) -> Catalogue:
    """Return the catalogue of a language, English if it has none. It is read at the first call."""
    if language not in languages():
        return catalogue("en")
    return read(file_of(language), language)


def language_name(language: str) -> str:
    """Return what a language calls itself: "Svenska"."""
    name = Locale.parse(catalogue(language).locale).language_name or language
    return name[:1].upper() + name[1:]


def read(path: Path, language: str) -> Catalogue:
    """Read a .po file. Raises OSError."""
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
            context = f"{message.context}{_CONTEXT}" if message.context else ""
            texts[context + message.id] = str(message.string)
    return Catalogue(locale=found.locale_identifier or language, texts=texts, forms=forms, form=c2py(found.plural_expr))


def choose(own: str, accepted: str) -> str:
    """Return the reader's own choice, else the best of Accept-Language (RFC 9110 section 12.5.4), else "en"."""
    spoken = languages()
    if own in spoken:
        return own
    wanted = [(float(m[2] or 1), m[1].lower()) for part in accepted.split(",")[:20] if (m := _RANGE.match(part))]
    for weight, language in sorted(wanted, key=lambda each: -each[0]):
        if weight and language in spoken:
            return language
    return "en"


@dataclass(frozen=True, slots=True)
class Speech:
    """What one reader is told, in their language. ``zone``: of the times. ``year``: the year that is left out of dates."""

    language: str = "en"
    zone: tzinfo = UTC
    year: int = 0
    words: Catalogue = field(init=False, repr=False, compare=False)
    locale: Locale = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = catalogue(self.language)
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "locale", Locale.parse(words.locale))

    def __call__(self, text: Said, /, **values: object) -> str:
        """Return a message with its values filled in, or a text that has its values, in the reader's language."""
        if not values:
            return render(text, self) if type(text) is not str else self.words.gettext(text)
        return filled(self.words.gettext(text), {name: str(value) for name, value in values.items()})

    def say(self, text: Said) -> str:
        """Return a text in the reader's language, literal words as they are."""
        return render(text, self)

    def gettext(self, msgid: str) -> str:
        return self.words.gettext(msgid)

    def form(self, one: str, many: str, n: int) -> str:
        return self.words.ngettext(one, many, n)

    def pgettext(self, context: str, msgid: str, /, **values: object) -> str:
        """Translate a message that has several meanings. ``context``: which is meant."""
        return filled(self.words.pgettext(context, msgid), {name: str(value) for name, value in values.items()})

    def ngettext(self, one: str, many: str, n: int | Amount, /, **values: object) -> str:
        """Return the plural form for ``n``, in which ``{n}`` is the number."""
        shown = {"n": self.number(n), **{name: str(value) for name, value in values.items()}}
        return filled(self.words.ngettext(one, many, n.form(one) if isinstance(n, Amount) else n), shown)

    def number(self, n: float | Amount) -> str:
        if isinstance(n, Amount):
            return amount(n, self)
        return _decimal(n, self.locale)

    def short(self, n: int) -> str:
        """Return a number for an axis: "500K", "2.5K"."""
        return str(format_compact_decimal(n, locale=self.locale, fraction_digits=1))

    def when(self, at: datetime) -> str:
        """Return a time to the minute, with its zone in an hour that comes twice, as when summer time ends."""
        here = at.astimezone(self.zone)
        # CLDR date patterns: https://unicode.org/reports/tr35/tr35-dates.html
        pattern = N_("EEE d MMM 'at' HH:mm") if self.year in (0, here.year) else N_("EEE d MMM y 'at' HH:mm")
        said = str(format_datetime(here, self.words.gettext(pattern), locale=self.locale))
        other = here.replace(fold=1 - here.fold)
        return said if other.utcoffset() == here.utcoffset() else f"{said} ({here.tzname()})"

    def local(self, zone: str) -> Speech:
        """Return the same speech with the times of ``zone``, "" for UTC."""
        return replace(self, zone=ZoneInfo(zone or "UTC"))

    def whole(self, at: datetime) -> str:
        """Return a time with year and zone, for texts that are read elsewhere and later."""
        here = at.astimezone(self.zone)
        pattern = self.words.gettext(N_("EEEE d MMMM y 'at' HH:mm"))
        return f"{format_datetime(here, pattern, locale=self.locale)} ({here.tzname()})"

    @property
    def zone_name(self) -> str:
        """The name of the zone: "Europe/Stockholm", "UTC"."""
        return str(self.zone)

    def long_day(self, at: datetime) -> str:
        """Return a day: "Tuesday 3 March 2026"."""
        return str(format_date(at.astimezone(self.zone).date(), "EEEE d MMMM y", locale=self.locale))

    def day(self, day: date) -> str:
        """Return a day for a sentence: "3 March". A short month may end in a full stop, as in Swedish."""
        return str(format_date(day, "d MMMM", locale=self.locale))

    def short_day(self, day: date) -> str:
        """Return a day for charts and tables: "3 Mar"."""
        return str(format_date(day, "d MMM", locale=self.locale))

    def clock(self, at: datetime) -> str:
        return f"{at.astimezone(self.zone):%H:%M:%S}"

    def clock_in_zone(self, at: datetime) -> str:
        return f"{self.clock(at)} ({at.astimezone(self.zone).tzname()})"

    def size(self, octets: int) -> str:
        """Return a size: "3 kB", "1.4 MB"."""
        if octets < 1_000_000:
            return f"{self.number(max(1, round(octets / 1000)))} kB"
        return f"{self.number(round(octets / 1_000_000, 1))} MB"

    def span(self, length: timedelta) -> str:
        """Return a length of time, rounded down, as time that is left must be: "3 days", "5 hours", "12 minutes"."""
        minutes = int(length.total_seconds()) // 60
        if minutes < 1:
            return self(N_("less than a minute"))
        unit = 1 if minutes < 60 else 60 if minutes < 48 * 60 else 1440
        return span(minutes // unit * unit * 60, self)
