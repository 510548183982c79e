"""Swedish and English for the pages: texts, numbers, times, and how long still.

A text is written in English where it is used, ``_("Waiting")``, and looked up in swedish.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

from babel import Locale
from babel.dates import format_datetime
from babel.numbers import format_compact_decimal, format_decimal

from smtpguard.console.swedish import TEXTS

LANGUAGES = ("en", "sv")
_LOCALES = {"sv": "sv_SE", "en": "en_GB"}
_RANGE = re.compile(r"\s*([a-z]{1,8})(?:-[a-z0-9-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?\s*\Z", re.I)


def choose(own: str, accepted: str, fallback: str = "en") -> str:
    """The reader's own choice, else the best of Accept-Language (RFC 9110 section 12.5.4), else ``fallback``."""
    if own in LANGUAGES:
        return own
    wanted = [(float(m[2] or 1), m[1].lower()) for part in accepted.split(",")[:20] if (m := _RANGE.match(part))]
    for weight, language in sorted(wanted, key=lambda each: -each[0]):
        if weight and language in LANGUAGES:
            return language
    return fallback if fallback in LANGUAGES else "en"


@dataclass(frozen=True, slots=True)
class Speech:
    """One reader's language and the organisation's zone. ``year``: the one that need not be said."""

    language: str = "en"
    zone: tzinfo = UTC
    year: int = 0
    locale: Locale = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "locale", Locale.parse(_LOCALES[self.language]))

    def __call__(self, text: str, **values: object) -> str:
        said = TEXTS[text] if self.language == "sv" else text
        return said.format(**values) if values else said

    def many(self, n: int, one: str, several: str) -> str:
        """``one`` or ``several``, in which "#" is the number."""
        return self(one if n == 1 else several).replace("#", self.number(n))

    def number(self, n: float) -> str:
        return str(format_decimal(n, locale=self.locale))

    def short(self, n: int) -> str:
        """For an axis: "500K"."""
        return str(format_compact_decimal(n, locale=self.locale))

    def when(self, at: datetime) -> str:
        here = at.astimezone(self.zone)
        year = "" if self.year in (0, here.year) else " y"
        pattern = {"sv": f"EEE d MMM{year} 'kl.' HH:mm", "en": f"EEE d MMM{year} 'at' HH:mm"}[self.language]
        return str(format_datetime(here, pattern, locale=self.locale))

    def clock(self, at: datetime) -> str:
        return f"{at.astimezone(self.zone):%H:%M:%S}"

    def size(self, octets: int) -> str:
        """ "3 kB", "1.4 MB"."""
        if octets < 1_000_000:
            return f"{self.number(max(1, round(octets / 1000)))} kB"
        return f"{self.number(round(octets / 1_000_000, 1))} MB"

    def span(self, length: timedelta) -> str:
        """ "3 days", "5 hours", "12 minutes": rounded down, as time that is left must be."""
        minutes = int(length.total_seconds()) // 60
        if minutes < 1:
            return self("less than a minute")
        if minutes < 60:
            return self.many(minutes, "# minute", "# minutes")
        if minutes < 48 * 60:
            return self.many(minutes // 60, "# hour", "# hours")
        return self.many(minutes // 1440, "# day", "# days")
