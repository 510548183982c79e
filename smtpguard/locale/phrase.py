"""A translatable text: the English message, and the values in it.

``Phrase`` is a str, the English text, so that logs, SMTP replies and programs can use it directly; code that shows it
to a reader passes it to ``speech.Speech``. It keeps its message and its values, also in the store (``dump`` and
``load``), so that no rendered sentence has to be parsed. The model is zope.i18nmessageid.Message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import inf, isfinite
from typing import Any, NamedTuple, Protocol, TypeAlias

_PLACE = re.compile(r"\{(\w+)\}")
_QUOTED = re.compile(r'[“"]\{(\w+)\}[”"]')


def N_(msgid: str) -> str:
    """Mark a message for extraction. It is translated where it is shown."""
    return msgid


def NN_(one: str, many: str) -> tuple[str, str]:
    """Mark a message with a singular and a plural form, in which ``{n}`` is the number."""
    return one, many


class Amount(NamedTuple):
    """A number, or an interval in which it is. ``percent``: both are in percent."""

    low: float
    high: float
    percent: bool = False

    def form(self, one: str) -> int:
        """Return the number that selects the plural form. ``one``: the singular; without {n} it means exactly one."""
        if self.low == self.high == self.low // 1 or (self.high == inf and "{n}" in one):
            return int(self.low)
        return max(2, int(self.high if isfinite(self.high) else self.low))


class Span(NamedTuple):
    """A length of time."""

    seconds: int


class Moment(NamedTuple):
    """A point in time: a reader gets it in the organization's zone, a log or a program in UTC."""

    at: datetime


class Listed(NamedTuple):
    """Texts joined by ``between``."""

    texts: tuple[Said, ...]
    between: str = ", "


Value: TypeAlias = "int | str | Phrase | Amount | Span | Moment | Listed"


class Voice(Protocol):
    """How a language renders numbers, spans and plural forms."""

    def gettext(self, msgid: str) -> str: ...

    def form(self, one: str, many: str, n: int) -> str: ...

    def number(self, n: float) -> str: ...

    def whole(self, at: datetime) -> str: ...


class Phrase(str):
    """A translatable text. ``msgid``: the message in English; ``many``: its plural form, which the value ``n`` selects, "" without
    one."""

    __slots__ = ("many", "msgid", "values")
    msgid: str
    many: str
    values: Mapping[str, Value]

    def __new__(cls, msgid: str, /, **values: Value) -> Phrase:
        return cls.of(msgid, "", values)

    @classmethod
    def counted(cls, one: str, many: str, /, n: int | Amount, **values: Value) -> Phrase:
        """Return the phrase ``one`` or ``many``, which the language's plural rule selects by ``n``."""
        return cls.of(one, many, {"n": n, **values})

    @classmethod
    def of(cls, msgid: str, many: str, values: Mapping[str, Value]) -> Phrase:
        made = str.__new__(cls, _rendered(msgid, many, values, ENGLISH))
        made.msgid, made.many, made.values = msgid, many, values
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Phrase.of, (self.msgid, self.many, dict(self.values))

    @property
    def quoted(self) -> tuple[str, ...]:
        """The values in quotation marks: words of a message."""
        own = (self.values[name] for name in self.quoted_names)
        inner = (word for value in self.values.values() if isinstance(value, Phrase) for word in value.quoted)
        return (*(value for value in own if isinstance(value, str)), *inner)

    @property
    def quoted_names(self) -> frozenset[str]:
        return frozenset(_QUOTED.findall(self.msgid)) & self.values.keys()

    def with_values(self, **values: Value) -> Phrase:
        """Return the same message with other values."""
        return Phrase.of(self.msgid, self.many, {**self.values, **values})


Said: TypeAlias = str | Phrase
"""A translatable text, or literal words of a person."""


def render(text: Said, voice: Voice) -> str:
    """Render a text by ``voice``. A person's literal words stay as they are."""
    return _rendered(text.msgid, text.many, text.values, voice) if isinstance(text, Phrase) else text


def filled(message: str, values: Mapping[str, str]) -> str:
    """Fill the ``{places}`` of a message. A place without a value stays: a mistake in a catalogue breaks no page."""
    if not values:
        return message
    parts = list(_split(message))
    parts[1::2] = [values.get(name, f"{{{name}}}") for name in parts[1::2]]
    return "".join(parts)


@lru_cache(maxsize=2048)
def _split(message: str) -> tuple[str, ...]:
    """Split a message: texts at even places, the names of its ``{places}`` at odd ones."""
    return tuple(_PLACE.split(message))


def places(message: str) -> frozenset[str]:
    """Return the names of the ``{places}`` in a message."""
    return frozenset(_PLACE.findall(message))


def dump(text: Said) -> Any:
    """Return a text as JSON: a string for literal words, else an object."""
    if not isinstance(text, Phrase):
        return text
    made: dict[str, Any] = {"msgid": text.msgid}
    if text.many:
        made["many"] = text.many
    if text.values:
        made["values"] = {name: _dumped(value) for name, value in text.values.items()}
    return made


def load(value: Any) -> Said:
    """Return the text of a ``dump``. Raises ValueError for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("no text")
    msgid, many, values = value.get("msgid"), value.get("many", ""), value.get("values", {})
    if not (isinstance(msgid, str) and isinstance(many, str) and isinstance(values, Mapping)):
        raise ValueError("no text")
    return Phrase.of(msgid, many, {str(name): _loaded(each) for name, each in values.items()})


def _dumped(value: Value) -> Any:
    match value:
        case Amount(low, high, percent):
            return {"low": low, "high": None if high == inf else high, **({"percent": True} if percent else {})}
        case Span(seconds):
            return {"seconds": seconds}
        case Moment(at):
            return {"at": at.isoformat()}
        case Listed(texts, between):
            return {"texts": [dump(text) for text in texts], "between": between}
        case str():
            return dump(value)
    return value


def _loaded(value: Any) -> Value:
    match value:
        case str() | int():
            return value
        case {"seconds": int(seconds)}:
            return Span(seconds)
        case {"at": str(at)}:
            return Moment(datetime.fromisoformat(at))
        case {"low": int() | float() as low, "high": None | int() | float() as high}:
            return Amount(low, inf if high is None else high, percent=value.get("percent") is True)
        case {"texts": list(texts), "between": str(between)}:
            return Listed(tuple(map(load, texts)), between)
    return load(value)


class _English:
    def gettext(self, msgid: str) -> str:
        return msgid

    def form(self, one: str, many: str, n: int) -> str:
        return one if n == 1 else many

    def number(self, n: float) -> str:
        return f"{n:,.0f}" if n == n // 1 else f"{n:,.12g}"

    def whole(self, at: datetime) -> str:
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


ENGLISH = _English()


def _rendered(msgid: str, many: str, values: Mapping[str, Value], voice: Voice) -> str:
    if many:
        n = values.get("n", 0)
        message = voice.form(msgid, many, n.form(msgid) if isinstance(n, Amount) else n if isinstance(n, int) else 0)
    else:
        message = voice.gettext(msgid)
    if not values:
        return message
    spoken = {name: value if type(value) is str else _spoken(value, voice) for name, value in values.items()}
    return filled(message, spoken)


def _spoken(value: Value, voice: Voice) -> str:
    match value:
        case Phrase():
            return value if voice is ENGLISH else render(value, voice)
        case str():
            return value
        case Amount():
            return amount(value, voice)
        case Span(seconds):
            return _english_span(seconds) if voice is ENGLISH else span(seconds, voice)
        case Moment(at):
            return voice.whole(at)
        case Listed(texts, between):
            return between.join(render(text, voice) for text in texts)
    return voice.number(value)


def amount(value: Amount, voice: Voice) -> str:
    """Return a number or an interval in words: "12", "between 3 and 5", "at least 7"."""
    low, high, percent = value
    if low == high:
        n = voice.number(_rounded(low, percent))
        return filled(voice.gettext(N_("{n} %")), {"n": n}) if percent else n
    if high == inf:
        return filled(voice.gettext(N_("at least {n}")), {"n": voice.number(low)})
    between = voice.gettext(N_("between {low} and {high} %") if percent else N_("between {low} and {high}"))
    return filled(between, {"low": voice.number(_rounded(low, percent)), "high": voice.number(_rounded(high, percent))})


def _rounded(n: float, percent: bool) -> float:
    return float(f"{n:.3g}") if percent else round(n, 1)


def many(n: int, one: str, several: str = "") -> str:
    """Return a number with its noun, in English: "1 message", "1,200 messages"."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def some_of(words: Sequence[str], most: int) -> str:
    """Return the first words of a list, in English, and the number of the others: "a, b and 3 more"."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def span(seconds: int, voice: Voice) -> str:
    """Return a length of time in the largest unit that divides it, in days from two days on: "10 minutes"."""
    unit, _, (one, many) = next(u for u in _UNITS if seconds >= u[1] and seconds % u[0] == 0)
    n = seconds // unit
    return filled(voice.form(one, many, n), {"n": voice.number(n)})


@lru_cache(maxsize=256)
def _english_span(seconds: int) -> str:
    return span(seconds, ENGLISH)


_UNITS = (
    (86_400, 172_800, NN_("{n} day", "{n} days")),
    (3_600, 3_600, NN_("{n} hour", "{n} hours")),
    (60, 60, NN_("{n} minute", "{n} minutes")),
    (1, 0, NN_("{n} second", "{n} seconds")),
)
