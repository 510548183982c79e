"""Types of values in the policy file, each with its error message: domains, networks, names, days, times and
zones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, time, timedelta, tzinfo
from fractions import Fraction
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from smtpguard.config.fields import from_text, network_of, window
from smtpguard.config.problem import Invalid, did_you_mean
from smtpguard.lists.members import LISTED
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.absences import LONGEST
from smtpguard.policy.approvals import Limit
from smtpguard.policy.hours import parse_days, parse_time

_NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,62}\Z", re.I)


def _domain(text: str) -> str:
    """A domain in lower case and A-labels; ``*.`` before it means every name below."""
    name = text.removeprefix("*.")
    try:
        domain = Address.parse(f"x@{name}").ascii_domain
    except BadAddress:
        domain = "["
    if domain.startswith("["):
        raise Invalid(f'invalid domain name "{text}"', 'a name like "example.com"')
    return text[: len(text) - len(name)] + domain


def _network(text: str) -> str:
    try:
        return str(network_of(text))
    except ValueError:
        raise Invalid(f'invalid network "{text}"', 'an address or a network, like "10.1.2.0/24"') from None


def _login(text: str) -> str:
    if not text.strip() or any(c.isspace() or not c.isprintable() for c in text.strip()):
        raise Invalid(f'invalid login name "{text}"', 'a name like "newsletter" or "newsletter@example.com"')
    return text.strip().lower()


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise Invalid(f'invalid name "{text}"', "letters, digits, hyphens, dots and underscores")
    return text


Domain = Annotated[str, AfterValidator(_domain), Field(title="domain")]
NetworkText = Annotated[str, AfterValidator(_network), Field(title="network")]
Name = Annotated[str, AfterValidator(_name)]
Domains = Annotated[list[Domain], LISTED]
Networks = Annotated[list[NetworkText], LISTED]
Logins = Annotated[list[Annotated[str, AfterValidator(_login), Field(title="login")]], LISTED]
Names = Annotated[list[str], LISTED]


def _by(parse: Callable[[str], Any], wrong: str, expected: str) -> BeforeValidator:
    def parsed(text: Any) -> Any:
        try:
            return parse(text)
        except (ValueError, AttributeError):
            raise Invalid(wrong, expected) from None

    return BeforeValidator(parsed)


def _zone(name: Any) -> Any:
    if name == "UTC":  # needs no database of zones
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError, TypeError):
        near = did_you_mean(name, available_timezones()) if isinstance(name, str) else ""
        raise Invalid(f'unknown time zone "{name}"', 'a name like "Europe/Stockholm"', near) from None


_TEXT = WithJsonSchema({"type": "string"})
Days = Annotated[
    frozenset[int], _by(parse_days, "invalid days of the week", 'days like "mon-fri" or "mon, wed, sat"'), _TEXT
]
ClockTime = Annotated[time, _by(parse_time, "invalid time of day", 'a time like "08:00"'), _TEXT]
Zone = Annotated[tzinfo, PlainValidator(_zone), _TEXT]


class Span(NamedTuple):
    """The first and the last day, both included."""

    since: date
    until: date

    def days(self) -> Iterator[date]:
        for n in range((self.until - self.since).days + 1):
            yield self.since + timedelta(days=n)


class Yearly(NamedTuple):
    """A day of every year."""

    month: int
    day: int


def day(text: Any) -> date:
    """A day of the calendar. Raises Invalid."""
    try:
        if not isinstance(text, str) or not _DAY.match(text.strip()):
            raise ValueError
        return date.fromisoformat(text.strip())
    except ValueError:
        raise Invalid(
            f'invalid date "{text}"' if isinstance(text, str) else "invalid date", "a day like 2026-12-24"
        ) from None


def span(text: Any) -> Span:
    """One day, or the first and the last: ``2026-12-20..2027-01-07``. Raises Invalid."""
    if isinstance(text, Span):
        return text
    if not isinstance(text, str):
        raise Invalid("invalid dates", "the first and the last day, like 2026-12-20..2027-01-07")
    first, _, last = text.partition("..")
    made = Span(day(first), day(last or first))
    if made.until < made.since:
        raise Invalid(f"{text} ends before it begins", "the first day, then the last")
    if made.until - made.since > LONGEST:
        raise Invalid(f"{text} is longer than a year", "a year at most")
    return made


def holiday(text: Any) -> Span | Yearly:
    """A span of days, or a day of every year: ``12-25``. Raises Invalid."""
    if not isinstance(text, str) or not _OF_A_YEAR.match(text.strip()):
        return span(text)
    try:
        made = date.fromisoformat(f"2028-{text.strip()}")  # a leap year
    except ValueError:
        raise Invalid(f'invalid day of the year "{text}"', "month and day, like 12-24") from None
    return Yearly(made.month, made.day)


_OF_A_YEAR = re.compile(r"\d{2}-\d{2}\Z")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_SPAN = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}(\.\.\d{4}-\d{2}-\d{2})?$"}
_HOLIDAY = {"type": "string", "pattern": r"^(\d{2}-\d{2}|\d{4}-\d{2}-\d{2}(\.\.\d{4}-\d{2}-\d{2})?)$"}
Holidays = Annotated[
    list[Annotated[Span | Yearly, PlainValidator(holiday), WithJsonSchema(_HOLIDAY), Field(title="holiday")]],
    LISTED,
]
Aways = Annotated[
    list[Annotated[Span, PlainValidator(span), WithJsonSchema(_SPAN), Field(title="days")]],
    LISTED,
]


_BOUND = 'a bound like ">= 0.1% after 500" or ">= 20 in 10m"'
_LIMIT = re.compile(
    r">=\s*(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(?P<share>%)?(?:\s+in\s+(?P<window>[0-9]\S*(?:\s[a-z]+)?))?(?:\s+after\s+(?P<after>[0-9]{1,9}))?\s*\Z"
)


def limit(text: str) -> Limit:
    """Raises Invalid."""
    found = _LIMIT.match(text.strip())
    if found is None:
        raise Invalid(f'"{text}" is no bound of a breaker', _BOUND)
    least, share = Fraction(found["number"]), bool(found["share"])
    if not least or (share and least > 100) or (not share and least.denominator > 1):
        raise Invalid(f'"{text}" is no bound of a breaker', "more than 0 people, or a share of up to 100%")
    return Limit(
        text=" ".join(text.split()),
        least=least / 100 if share else least,
        share=share,
        window_seconds=window(found["window"]) if found["window"] else 0,
        after=int(found["after"] or 0),
    )


LimitField = Annotated[
    Limit,
    BeforeValidator(from_text(limit, _BOUND, kept=(Limit,), what="no bound of a breaker")),
    WithJsonSchema({"type": "string", "description": _BOUND, "examples": [">= 0.1% after 500", ">= 20 in 10m"]}),
]
