"""Readings, surroundings and bounds as JSON, for the process that reads large or malformed messages.

The answer of that process is data and never code: the type of every value is checked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from smtpguard.locale.phrase import Phrase, dump, load
from smtpguard.reading.bounds import Bounds, Depth
from smtpguard.reading.fingerprint import Identity, Sketch
from smtpguard.reading.looks import Looks, Readable, Reading, Topic
from smtpguard.reading.marks import Mark, Side
from smtpguard.reading.surroundings import Custom, Surroundings
from smtpguard.reading.topics import compile_vocabularies


class BadReading(ValueError):
    """Not the output of ``dump_reading`` or the other dump functions."""


def dump_reading(reading: Reading) -> bytes:
    value = {f.name: getattr(reading, f.name) for f in dataclasses.fields(Reading)}
    value["looks"] = reading.looks.value
    value["readable"] = reading.readable.value
    value["marks"] = [[m.name, m.side.value, m.weight, dump(m.evidence), m.group] for m in reading.marks]
    value["why_unreadable"] = dump(reading.why_unreadable)
    value["topics"] = [[t.vocabulary, t.term, t.where, t.word, t.context] for t in reading.topics]
    value["shown"] = sorted(reading.shown)
    value["labels"] = sorted(reading.labels)
    value["vouched"] = sorted(reading.vouched)
    made = reading.identity
    value["identity"] = [made.exact, made.sketch.numbers, made.also, made.instead, made.quoted.numbers, made.beside]
    value["quotes"] = sorted(reading.quotes)
    return json.dumps(value, ensure_ascii=True).encode()


def load_reading(data: bytes) -> Reading:
    """Raises BadReading for any other input."""
    try:
        v = json.loads(data)
        return Reading(
            looks=Looks(v["looks"]),
            score=float(v["score"]),
            marks=tuple(
                Mark(name=_text(n), side=Side(s), weight=float(w), evidence=_phrase(e), group=_text(g))
                for n, s, w, e, g in v["marks"]
            ),
            readable=Readable(v["readable"]),
            why_unreadable=load(v["why_unreadable"]),
            topics=tuple(
                Topic(vocabulary=_text(n), term=_text(t), where=_text(w), word=_text(s), context=_text(c))
                for n, t, w, s, c in v["topics"]
            ),
            subject=_text(v["subject"]),
            from_address=None if v["from_address"] is None else _text(v["from_address"]),
            from_ambiguous=bool(v["from_ambiguous"]),
            shown=frozenset(_text(a) for a in v["shown"]),
            message_id=_text(v["message_id"]),
            thread=_text(v["thread"]),
            conversation=_text(v["conversation"]),
            answers=bool(v["answers"]),
            quotes=frozenset(_text(a) for a in v["quotes"]),
            refers_to=tuple(_text(i) for i in v["refers_to"]),
            labels=frozenset(_text(a) for a in v["labels"]),
            vouched=frozenset(_text(a) for a in v["vouched"]),
            automatic=bool(v["automatic"]),
            forwarded_thread=bool(v["forwarded_thread"]),
            language=_text(v["language"]),
            numbers={_text(k): int(n) for k, n in v["numbers"].items()},
            excerpt=_text(v["excerpt"]),
            campaign=tuple(_text(c) for c in v["campaign"]),
            identity=_identity(*v["identity"]),
            little=bool(v["little"]),
            alone=_text(v["alone"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as wrong:
        raise BadReading(f"not a reading: {type(wrong).__name__}") from None


def _identity(exact: Any, numbers: Any, also: Any, instead: Any, quoted: Any, beside: Any) -> Identity:
    return Identity(
        exact=_text(exact), sketch=Sketch.of(int(n) for n in numbers), also=tuple(_text(a) for a in also), instead=_text(instead),
        quoted=Sketch.of(int(n) for n in quoted), beside=int(beside),
    )  # fmt: skip


def dump_request(surroundings: Surroundings | None, depth: Depth, bounds: Bounds) -> bytes:
    """The head of a request. Without ``surroundings`` those of the previous request are used. The clock is left out."""
    around = None
    if surroundings is not None:
        around = {
            "domains": sorted(surroundings.domains),
            "list_addresses": sorted(surroundings.list_addresses),
            "list_ids": sorted(surroundings.list_ids),
            "delimiters": surroundings.delimiters,
            "vocabularies": surroundings.vocabularies.documents,
            "authserv_ids": sorted(surroundings.authserv_ids),
            "weights": dict(surroundings.weights),
            "customs": [{**dataclasses.asdict(c), "side": c.side.value} for c in surroundings.customs],
        }
    limits = {f.name: getattr(bounds, f.name) for f in dataclasses.fields(Bounds) if f.name != "clock"}
    return json.dumps({"surroundings": around, "depth": depth.value, "bounds": limits}, default=_plain).encode()


def load_request(data: bytes) -> tuple[Surroundings | None, Depth, Bounds]:
    """Raises BadReading, or topics.BadVocabulary."""
    try:
        v = json.loads(data)
        around, limits, depth = v["surroundings"], v["bounds"], Depth(v["depth"])
        return None if around is None else _surroundings(around), depth, Bounds(**limits)
    except (KeyError, TypeError) as wrong:
        raise BadReading(f"not a request: {type(wrong).__name__}") from None


def _surroundings(v: Mapping[str, Any]) -> Surroundings:
    return Surroundings(
        domains=frozenset(v["domains"]),
        list_addresses=frozenset(v["list_addresses"]),
        list_ids=frozenset(v["list_ids"]),
        delimiters=_text(v["delimiters"]),
        vocabularies=compile_vocabularies(v["vocabularies"]),
        authserv_ids=frozenset(v["authserv_ids"]),
        weights={_text(k): float(w) for k, w in v["weights"].items()},
        customs=tuple(Custom(**{**c, "side": Side(c["side"])}) for c in v["customs"]),
    )


def _plain(value: object) -> object:
    """For mapping types of a YAML loader."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _phrase(value: object) -> Phrase:
    if not isinstance(made := load(value), Phrase):
        raise TypeError("not a phrase")
    return made


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
