"""The grammar of the policy file: its types of values, each with its error message (domains, networks, names, days, times
and zones), and its conditions: ``any``, ``[internal, unclear]``, ``">= 20"``, ``">= 300 in 1h"``, ``{matches: ...}``.

One function for each type of value and of fact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, time, timedelta, tzinfo
from fractions import Fraction
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import re2
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from smtpguard.config.durations import from_text, window
from smtpguard.config.fields import network_of
from smtpguard.config.problem import Invalid, Undeclared, did_you_mean, nearest, one_of
from smtpguard.config.validation import Findings
from smtpguard.config.yaml import Place
from smtpguard.lists.members import LISTED, canonical
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.approvals import LONGEST, Groups
from smtpguard.policy.condition import (
    Condition,
    Empty,
    EveryWord,
    InNetwork,
    Pattern,
    Range,
    SetMatches,
    SomeWord,
    Truth,
    Word,
    WordMatches,
)
from smtpguard.policy.facts import FACTS, Fact, Type, Usual
from smtpguard.policy.hours import parse_days, parse_time
from smtpguard.policy.stages import Limit

_NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,62}\Z", re.I)


def _domain(text: str) -> str:
    """Return a domain in lower case and A-labels; ``*.`` before it means every name below."""
    name = text.removeprefix("*.")
    try:
        domain = Address.parse(f"x@{name}").ascii_domain
    except BadAddress:
        domain = "["
    if domain.startswith("["):
        raise Invalid(f'invalid domain name "{text}"', 'a name like "example.com"')
    return text[: len(text) - len(name)] + domain


def _network_text(text: str) -> str:
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
NetworkText = Annotated[str, AfterValidator(_network_text), Field(title="network")]
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
        hint = "this host has no time zones: install the package tzdata"
        if known := available_timezones():
            hint = did_you_mean(name, known) if isinstance(name, str) else ""
        raise Invalid(f'unknown time zone "{name}"', 'a name like "Europe/Stockholm"', hint) from None


_TEXT = WithJsonSchema({"type": "string"})
Days = Annotated[
    frozenset[int], _by(parse_days, "invalid days of the week", 'days like "mon-fri" or "mon, wed, sat"'), _TEXT
]
ClockTime = Annotated[time, _by(parse_time, "invalid time of day", 'a time like "08:00"'), _TEXT]
Zone = Annotated[tzinfo, PlainValidator(_zone), _TEXT]


class DaySpan(NamedTuple):
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
    """Parse a day of the calendar. Raises Invalid."""
    try:
        if not isinstance(text, str) or not _DAY.match(text.strip()):
            raise ValueError
        return date.fromisoformat(text.strip())
    except ValueError:
        raise Invalid(
            f'invalid date "{text}"' if isinstance(text, str) else "invalid date", "a day like 2026-12-24"
        ) from None


def span(text: Any) -> DaySpan:
    """One day, or the first and the last: ``2026-12-20..2027-01-07``. Raises Invalid."""
    if isinstance(text, DaySpan):
        return text
    if not isinstance(text, str):
        raise Invalid("invalid dates", "the first and the last day, like 2026-12-20..2027-01-07")
    first, _, last = text.partition("..")
    made = DaySpan(day(first), day(last or first))
    if made.until < made.since:
        raise Invalid(f"{text} ends before it begins", "the first day, then the last")
    if made.until - made.since > LONGEST:
        raise Invalid(f"{text} is longer than a year", "a year at most")
    return made


def holiday(text: Any) -> DaySpan | Yearly:
    """Parse a span of days, or a day of every year: ``12-25``. Raises Invalid."""
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
    list[Annotated[DaySpan | Yearly, PlainValidator(holiday), WithJsonSchema(_HOLIDAY), Field(title="holiday")]],
    LISTED,
]
Aways = Annotated[
    list[Annotated[DaySpan, PlainValidator(span), WithJsonSchema(_SPAN), Field(title="days")]],
    LISTED,
]


_BOUND = 'a bound like ">= 0.1% after 500" or ">= 20 in 10m"'
_LIMIT = re.compile(
    r">=\s*(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(?P<share>%)?(?:\s+in\s+(?P<window>[0-9].*?))?(?:\s+after\s+(?P<after>[0-9]{1,9}))?\s*\Z"
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


_NUMBER = r"([0-9][0-9_]*(?:\.[0-9]+)?\s*%?)"
_COMPARISON = re.compile(rf"(>=|<=|==|=|>|<)\s*{_NUMBER}(?:\s+in\s+(.+))?\Z")
_BETWEEN = re.compile(rf"between\s+{_NUMBER}\s+and\s+{_NUMBER}(?:\s+in\s+(.+))?\Z")
_TIMES = re.compile(r"x\s*([0-9]+(?:\.[0-9]+)?)\Z")
_MAX_PATTERN = 2000
SPECIAL = "special-category"
_EXPECTED: Mapping[Type, str] = {
    Type.TRUTH: "true or false",
    Type.WORD: "a word, a list of words, or {matches: PATTERN}",
    Type.WORDS: "any, none, a word, a list of words, or {matches: PATTERN}",
    Type.NETWORK: 'an address or a network, like "10.1.2.0/24", or a list of them',
    Type.COUNT: 'any, none, or a comparison like ">= 20", "< 5" or "between 3 and 9"',
    Type.SHARE: 'a comparison like ">= 0.25" or ">= 25 %"',
}
_OVER_TIME: Mapping[Type, str] = {
    Type.COUNT: 'a comparison like ">= 300 in 1h"',
    Type.SHARE: 'a comparison like ">= 25 % in 1d"',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionNames:
    """The names that conditions may use. ``words``: a fact's closed set, if this policy declares one. ``special``:
    lists of a special category."""

    words: Mapping[str, Collection[str]] = field(default_factory=dict)
    groups: Groups = field(default_factory=lambda: Groups(people={}))
    delimiters: str = ""
    special: frozenset[str] = frozenset()


def facts_of(raw: Mapping[str, Any], place: Place, findings: Findings) -> Iterator[tuple[Place, Fact, Any]]:
    """Return the facts that a mapping at ``place`` names, each with its own place and its value. Reports names that
    are no fact."""
    for name, value in raw.items():
        here = (*place, name)
        if name in FACTS:
            yield here, FACTS[name], value
        else:
            findings.invalid(_unknown_fact(name, value, place), here, key=True)


def _unknown_fact(name: str, value: Any, place: Place) -> Invalid:
    text = f'unknown fact "{name}"'
    if instead := _INSTEAD.get((place[-1], name)):
        return Invalid(text, instead)
    # As message: {looks: ...}, and as looks: ... alone.
    whole = f"{name}.{next(iter(value))}" if name in _AREAS and isinstance(value, dict) and value else name
    area, dot, last = whole.partition(".")
    own = _AREAS.get(nearest(area, _AREAS if dot else [*_AREAS, *_ALONE]), {})
    last = last or name
    meant = (
        own.get(nearest(last, own))
        or _ALONE.get(last if own else nearest(last, _ALONE))
        or ("" if own else nearest(whole, FACTS))
    )
    areas = (area if area in FACTS else f"{area}.*" for area in _AREAS)
    return Invalid(text, one_of(own.values() or areas), f"did you mean {meant}?" if meant else "")


_AREAS: dict[str, dict[str, str]] = {}
"""By area, the facts by the last part of their name."""
_ALONE: dict[str, str] = {}
"""All facts by it; of several the first."""
for _fact in FACTS:
    _AREAS.setdefault(_fact.partition(".")[0], {})[_fact.rpartition(".")[2]] = _fact
    _ALONE.setdefault(_fact.rpartition(".")[2], _fact)
_INSTEAD: Mapping[tuple[str | int, str], str] = {
    **dict.fromkeys([("when", "any"), ("when", "or")], "a rule for each of the conditions"),
    **dict.fromkeys([("unless", "any"), ("unless", "or")], "the opposite of each condition in when"),
    **{
        (here, word): "the conditions alone: all must be true" for here in ("when", "unless") for word in ("all", "and")
    },
    ("when", "not"): "the condition in unless",
    ("unless", "not"): "the condition in when",
    ("when", "unless"): "unless beside when",
    ("when", "then"): "then beside when",
}
"""What to write in a section instead of a word that is no fact."""


def condition(fact: Fact, raw: Any, *, every: bool, known: ConditionNames) -> Condition:
    """``every``: it is in ``unless``, where a condition on a set means all members. Raises Invalid."""
    return _GRAMMARS[fact.type](fact, raw, every, known)


def _truth(fact: Fact, raw: Any, every: bool, known: ConditionNames) -> Condition:
    if not isinstance(raw, bool):
        raise Invalid(f"{_said(raw)} for {fact.name}", _EXPECTED[Type.TRUTH])
    return Truth(fact=fact, limit="true" if raw else "false", wanted=raw)


def _word(fact: Fact, raw: Any, every: bool, known: ConditionNames) -> Condition:
    if isinstance(raw, dict):
        if set(raw) == {"group"} and fact.name == "sender.address":
            group = raw["group"]
            if not isinstance(group, str) or group not in known.groups:
                raise Undeclared("group", str(group), known.groups)
            if group in known.groups.elsewhere:
                raise Invalid(f"nobody knows here who is in group {group}", "a group of addresses alone")
            return Word(fact=fact, limit=f"one of group {group}", words=known.groups[group])
        pattern, text = _pattern(fact, raw)
        return WordMatches(fact=fact, limit=f"matches {text}", pattern=pattern)
    words = _words(fact, raw, known)
    return Word(fact=fact, limit=_either(words), words=frozenset(words))


def _set(fact: Fact, raw: Any, every: bool, known: ConditionNames) -> Condition:
    if raw in ("any", "none") and isinstance(raw, str):
        return Empty(fact=fact, limit=raw, wanted=raw == "none")
    if isinstance(raw, dict):
        pattern, text = _pattern(fact, raw)
        return SetMatches(
            fact=fact, limit=f"{'all match' if every else 'matches'} {text}", pattern=pattern, every=every
        )
    words = _words(fact, raw, known)
    kind = EveryWord if every else SomeWord
    return kind(fact=fact, limit=f"{'only ' if every else ''}{_either(words)}", words=frozenset(words))


def _network(fact: Fact, raw: Any, every: bool, known: ConditionNames) -> Condition:
    words = _words(fact, raw, known)
    try:
        networks = tuple(network_of(word) for word in words)
    except ValueError:
        raise Invalid(f"{_said(raw, listed=True)} for {fact.name}", _EXPECTED[Type.NETWORK]) from None
    return InNetwork(fact=fact, limit=f"in {_either(words)}", networks=networks)


def _number(fact: Fact, raw: Any, every: bool, known: ConditionNames) -> Condition:
    if isinstance(raw, dict) and fact.windowed:
        return _bound(fact, raw, known)
    text = " ".join(raw.split()) if isinstance(raw, str) else raw
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        text = f"== {text}"
    expected = _OVER_TIME[fact.type] if fact.windowed else _EXPECTED[fact.type]
    if not isinstance(text, str):
        raise Invalid(f"{_said(raw)} for {fact.name}", expected)
    if text in ("any", "none") and not fact.windowed:
        if text == "none":
            return Range(fact=fact, limit=text, least=0, most=0)
        share = fact.type is Type.SHARE
        return Range(fact=fact, limit=text, least=0 if share else 1, beyond=share)
    if found := _BETWEEN.match(text):
        low, high = _figure(fact, found[1]), _figure(fact, found[2])
        if low > high:
            raise Invalid(f'"{text}" is never true: {found[1]} is more than {found[2]}', "the smaller number first")
        return Range(fact=fact, limit=text, least=low, most=high, **_window(fact, found[3]))
    if not (found := _COMPARISON.match(text)):
        raise Invalid(f'invalid comparison "{text}" for {fact.name}', expected)
    operator, n, over = found[1], _figure(fact, found[2]), _window(fact, found[3])
    if operator in (">=", ">"):
        return Range(fact=fact, limit=text, least=n, beyond=operator == ">", **over)
    if operator in ("<=", "<"):
        return Range(fact=fact, limit=text, most=n, below=operator == "<", **over)
    return Range(fact=fact, limit=text, least=n, most=n, **over)


def _bound(fact: Fact, raw: Mapping[Any, Any], known: ConditionNames) -> Condition:
    """``{at_least: 40, in: 1h, usual: x3, lists: special-category, mailing: same}``; all but the first two are
    optional, and allowed only for facts that support them."""
    keys = [
        "at_least",
        "in",
        *(["usual"] if fact.usual else []),
        *(["lists"] if fact.by_list else []),
        *(["mailing"] if fact.by_mailing else []),
    ]
    for key in raw:
        if key not in keys:
            raise Invalid(f'unknown key "{key}" for {fact.name}', one_of(keys))
    if missing := [key for key in ("at_least", "in") if key not in raw]:
        raise Invalid(f"{fact.name} without {' and '.join(missing)}", _example(fact, keys))
    least, over = raw["at_least"], raw["in"]
    if fact.type is Type.SHARE and isinstance(least, (int, float, str)) and not isinstance(least, bool):
        least = _share(fact, least)
    elif not isinstance(least, int) or isinstance(least, bool) or least < 1:
        raise Invalid(f"{_said(least)} as at_least of {fact.name}", "a number, like 40")
    if not isinstance(over, str):
        raise Invalid(f"{_said(over)} as the time of {fact.name}", "a time, like 1h or 7d")
    usual: Usual | None = None
    lists: frozenset[str] | None = None
    limit = f">= {raw['at_least']} in {over.strip()}"
    if "usual" in raw:
        found = _TIMES.match(raw["usual"]) if isinstance(raw["usual"], str) else None
        if not found or not 1 <= float(found[1]) <= 1000:
            raise Invalid(f"{_said(raw['usual'])} as usual of {fact.name}", "how many times what is usual, like x3")
        usual = Usual(float(found[1]), least)
        limit += f" and more than x{float(found[1]):g} the usual"
    if "lists" in raw:
        lists, said = _lists(fact, raw["lists"], known)
        limit += f" on one list of {said}"
    if "mailing" in raw:
        if raw["mailing"] != "same":
            raise Invalid(f"{_said(raw['mailing'])} as mailing of {fact.name}", "same")
        limit += " with the same mailing"
    return Range(
        fact=fact, limit=limit, least=least, window_seconds=window(over), window=over.strip(), usual=usual, lists=lists,
        same="mailing" in raw,
    )  # fmt: skip


def _example(fact: Fact, keys: Collection[str]) -> str:
    if fact.type is Type.SHARE:
        return "{at_least: 0.25, in: 1d}"
    return "{at_least: 40, in: 1h, usual: x3}" if "usual" in keys else "{at_least: 300, in: 1h}"


def _share(fact: Fact, raw: float | str) -> float:
    found = re.fullmatch(_NUMBER, str(raw).strip())
    if not found:
        raise Invalid(f"{_said(raw)} as at_least of {fact.name}", 'a share like 0.25 or "25 %"')
    return _figure(fact, found[1])


def _lists(fact: Fact, raw: Any, known: ConditionNames) -> tuple[frozenset[str], str]:
    """Names of lists, and ``special-category`` for all lists of one."""
    listed = [raw] if isinstance(raw, str) else raw
    if not isinstance(listed, list) or not listed or not all(isinstance(w, str) for w in listed):
        raise Invalid(f"{_said(raw, listed=True)} as lists of {fact.name}", "names of lists, or special-category")
    names: set[str] = set()
    declared = known.words.get("recipients.lists", ())
    for word in listed:
        if word == SPECIAL:
            names |= known.special
        elif word not in declared:
            raise Undeclared("list", word, [*declared, SPECIAL])
        else:
            names.add(word)
    return frozenset(names), _either(listed)


_GRAMMARS: Mapping[Type, Callable[[Fact, Any, bool, ConditionNames], Condition]] = {
    Type.TRUTH: _truth, Type.WORD: _word, Type.WORDS: _set, Type.NETWORK: _network, Type.COUNT: _number, Type.SHARE: _number,
}  # fmt: skip


def _words(fact: Fact, raw: Any, known: ConditionNames) -> list[str]:
    listed = [raw] if isinstance(raw, str) else raw
    if not isinstance(listed, list) or not listed or not all(isinstance(w, str) for w in listed):
        raise Invalid(f"{_said(raw, listed=True)} for {fact.name}", _EXPECTED[fact.type])
    for word in listed:
        if fact.words and word not in fact.words:
            raise Invalid(f'unknown word "{word}" for {fact.name}', one_of(fact.words), did_you_mean(word, fact.words))
        if fact.name in known.words and word not in known.words[fact.name]:
            raise Undeclared(fact.noun, word, known.words[fact.name])
    if fact.name == "sender.address":
        return [canonical(word, known.delimiters) for word in listed]
    if fact.name == "recipients.domains":
        named = [(word, Address.parse_any(f"x@{word}")) for word in listed]
        return [address.ascii_domain if address is not None else word for word, address in named]
    return [word.lower() for word in listed] if fact.name == "login" else listed


def _pattern(fact: Fact, raw: Mapping[str, Any]) -> tuple[Pattern, str]:
    if set(raw) != {"matches"} or not isinstance(raw["matches"], str):
        raise Invalid(f"{_said(raw)} for {fact.name}", _EXPECTED[fact.type])
    if fact.words:
        raise Invalid(f"{fact.name} has {len(fact.words)} words and needs no pattern", one_of(fact.words))
    return compiled(raw["matches"]), raw["matches"]


def compiled(text: str) -> Pattern:
    """Raises Invalid."""
    if len(text) > _MAX_PATTERN:
        raise Invalid("the pattern is too long", f"at most {_MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20
    try:
        pattern: Pattern = re2.compile(text, options)
    except re2.error as e:
        why = e.args[0].decode("utf-8", "replace") if isinstance(e.args[0], bytes) else e.args[0]
        raise Invalid(f"the pattern is not one that RE2 knows: {why}") from None
    return pattern


def _figure(fact: Fact, text: str) -> float:
    percent = text.endswith("%")
    n = float(text.rstrip("% ").replace("_", "")) / (100 if percent else 1)
    if fact.type is Type.SHARE and n > 1:
        raise Invalid(f"a share of {text}", "between 0 and 1, or between 0 % and 100 %")
    if fact.type is Type.COUNT and percent:
        raise Invalid(f"{fact.name} is a count, not a share", "a number without %")
    return n


def _window(fact: Fact, text: str | None) -> dict[str, Any]:
    if not fact.windowed:
        if text is not None:
            raise Invalid(f"{fact.name} is not counted over a time", "the comparison alone")
        return {}
    if text is None:
        raise Invalid(f"{fact.name} is counted over a time", _OVER_TIME[fact.type])
    return {"window_seconds": window(text), "window": text.strip()}


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _said(raw: Any, *, listed: bool = False) -> str:
    """``listed``: a list may be given."""
    match raw:
        case bool():
            return "true" if raw else "false"
        case str():
            return f'"{raw}"'
        case int() | float():
            return f"the number {raw}"
        case None:
            return "nothing"
        case list():
            return ("a list with an invalid item" if listed else "a list") if raw else "an empty list"
    return "a mapping"
