"""The line of a verdict's facts: it is read back as it was, and what it leaves out is unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.admission import packedfacts
from smtpguard.admission.packedfacts import NOT_FOUND, pack, unpack
from smtpguard.policy.facts import FACTS, Count, Fact, Source, Type, Unknown, Value
from tests.every import every

KEPT = {fact.name: fact for fact in FACTS.values() if fact.source is not Source.LIVE and not fact.elsewhere}
NEXT = packedfacts.VERSION + 1
ORDINARY: dict[str, Value] = {name: fact.default for name, fact in KEPT.items()}

_counts = st.builds(lambda low, more: Count(low, low + more), st.integers(0, 9), st.sampled_from([0, 1, float("inf")]))
_OF_TYPE: dict[Type, st.SearchStrategy[Value]] = {
    Type.TRUTH: st.booleans(),
    Type.WORD: st.text(),
    Type.WORDS: st.frozensets(st.text(), max_size=3),
    Type.NETWORK: st.text(),
    Type.COUNT: _counts,
    Type.SHARE: st.sampled_from([Count(0, 0), Count(0.25, 0.25), Count(0, 1)]),
}
_unknown = st.builds(Unknown, why=st.text(max_size=5), known=st.frozensets(st.text(), max_size=2))
_values = st.fixed_dictionaries(
    {}, optional={name: st.one_of(_OF_TYPE[fact.type], _unknown) for name, fact in KEPT.items()}
)
_given = st.dictionaries(st.sampled_from(["sender.customers in 3600", "mailing.share"]), st.one_of(_counts, _unknown))


def read_back(values: dict[str, Value]) -> dict[str, Value]:
    """Another part of the entry says why a fact is unknown."""
    return {
        slot: replace(NOT_FOUND, known=value.known) if isinstance(value, Unknown) else value
        for slot, value in values.items()
    }


@given(_values, _given)
def test_recorded_facts_are_read_back(values: dict[str, Value], counted: dict[str, Value]) -> None:
    line = pack(values, counted, text=True)
    assert unpack(line) == read_back(values | counted)
    assert "\n" not in line


@given(_values)
def test_without_the_text_its_facts_are_unknown(values: dict[str, Value]) -> None:
    known = unpack(pack(values, {}, text=False))
    assert known == read_back({name: v for name, v in values.items() if KEPT[name].source is not Source.TEXT})


def test_an_ordinary_message_takes_few_bytes() -> None:
    assert pack(ORDINARY, {}, text=True) == f'{{"read":"ehto","since":{packedfacts.VERSION}}}'


@every("line", [
    "", "x", "null", "[]", "{}", '{"since":1}', '{"since":"x","read":""}', '{"since":1,"read":"e","not_asked":3}',
    '{"since":Infinity,"read":""}', "[" * 100_000,
])  # fmt: skip
def test_an_invalid_line_gives_nothing(line: str) -> None:
    assert unpack(line) == {}


def test_a_later_fact_is_unknown_in_an_older_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact with a later ``since`` is unknown in older lines. Its row says the version, and nothing else has to."""
    line = pack(ORDINARY, {}, text=True)
    fact = Fact(name="message.of_tomorrow", type=Type.COUNT, source=Source.TEXT, doc="", label="", says={}, since=NEXT)
    later = cast(tuple[tuple[str, tuple[Fact, ...]], ...], tuple((letter, (*facts, fact)) for letter, facts in packedfacts._BY_LETTER if letter == "t"))  # fmt: skip
    monkeypatch.setattr(packedfacts, "_BY_LETTER", later)
    monkeypatch.setattr(packedfacts, "_NAMES", (*packedfacts._NAMES, fact.name))
    unpack.cache_clear()
    packedfacts._kept.cache_clear()
    assert fact.name not in unpack(line)
    line = pack({**ORDINARY, fact.name: Count(3, 3)}, {}, text=True)
    assert unpack(line)[fact.name] == Count(3, 3)
    monkeypatch.setattr(packedfacts, "VERSION", NEXT)
    packedfacts._kept.cache_clear()
    assert unpack(pack({**ORDINARY, fact.name: Count(0, 0)}, {}, text=True))[fact.name] == Count(0, 0)
    unpack.cache_clear()
    packedfacts._kept.cache_clear()


FIRST = {
    "listener.proves_senders": False, "message.looks": "unclear", "message.correspondence": True, "message.topics": [],
    "message.unsuitable_topics": [], "message.readable": "yes", "message.unfinished": [], "message.language": "unclear", "message.marks": [],
    "message.attachments": 0, "message.labels": [], "message.automatic": False, "recipients.internal": 0, "recipients.outside": 1,
    "recipients.list_addresses": 0, "recipients.members": 0, "recipients.customers": 0, "recipients.undisclosed": 0, "recipients.lists": [],
    "recipients.audience": [], "recipients.sensitivity": [], "recipients.reach": 1, "recipients.share": 0, "stream": [],
    "sender.internal": False, "sender.proven": False, "sender.is_writer": False, "list.language": [],
}  # fmt: skip
"""Defaults that a line of version 1 leaves out."""


def test_defaults_never_change() -> None:
    """Defaults of version 1 never change, since that would change the meaning of old lines. A new fact has ``since``
    one higher than the last."""
    now = {name: packedfacts._plain(fact.default) for name, fact in KEPT.items() if fact.since == 1}
    assert json.loads(json.dumps(now)) == FIRST
