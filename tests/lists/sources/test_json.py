"""Addresses at a path in JSON of every shape, as opposed to wrong or truncated JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.lists.sources import SourceError, Tally
from smtpguard.lists.sources import http as source_json
from smtpguard.lists.sources.http import JsonTable
from tests.every import every


def read(text: str | bytes, path: str) -> tuple[list[str], Tally]:
    tally = Tally(unit="element")
    raw = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    return [cell for _, cell in JsonTable(path).cells(raw, "crm", tally)], tally


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('["a@b.se", "c@d.se"]', "[]"),
        ('{"members": [{"email": "a@b.se"}, {"n": 1, "email": "c@d.se", "x": {"email": "no"}}]}', "members[].email"),
        ('{"a": {"b": [{"c": ["a@b.se"]}, {"c": ["c@d.se"]}]}}', "a.b[].c[]"),
        ('[[{"e": "a@b.se"}], [{"e": "c@d.se"}]]', "[][].e"),
        ('\ufeff {"x": null, "e": "a@b.se" , "y": [1.5e3, true, false, -0, []], "e": "c\\u0040d.se"}\n', "e"),
    ],
)
def test_paths_select_addresses(text: str, path: str) -> None:
    found, tally = read(text, path)
    assert found == ["a@b.se", "c@d.se"]
    assert (tally.rows, tally.bad) == (2, 0)


def test_elements_without_an_address_are_reported() -> None:
    found, tally = read('{"m": [{"e": "a@b.se"}, {"f": 1}, {"e": null}, {"e": ["x"]}, "x", {"e": "c@d.se"}]}', "m[].e")
    assert found == ["a@b.se", "c@d.se"]
    assert (tally.rows, tally.bad) == (6, 4)
    assert [str(row) for row in tally.shown] == [f"element {n}: no address" for n in (2, 3, 4, 5)]
    found, tally = read('[{"e": ["a@b.se", 1]}, {"e": []}, {"e": ["c@d.se"]}]', "[].e[]")
    assert found == ["a@b.se", "c@d.se"]
    assert [str(row) for row in tally.shown] == ["element 2: no address", "element 3: no address"]


def test_an_empty_array_is_accepted_and_a_missing_one_refused() -> None:
    assert read('{"members": []}', "members[].email")[0] == []
    for text in ('{"member": []}', "[]", "{}", '"a@b.se"', "7", '{"members": {"email": "a@b.se"}}'):
        with pytest.raises(SourceError, match=r"the JSON has no value at members\[\]\.email"):
            read(text, "members[].email")


@every(
    "text",
    [
        "", " ", "[", '["a@b.se"', '["a@b.se",', '["a@b.se",]', '{"a"}', '{"a":}', '{"a":1,}', "{1: 2}", "[1 2]", '{"a":1 "b":2}',
        "tru", "[01]", "[+1]", "[.5]", "[NaN]", "['a']", '["\\x"]', '["\n"]', '["a]', "[}", "{]", ",", "[] []", "]", '{"a": 1]',
        "<html>", b"[\"\xff\"]", "[" * 200, '{"a":' * 200,
    ],
)  # fmt: skip
def test_invalid_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(SourceError):
        read(text, "[]")


def test_a_too_long_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_json, "LONGEST", 1000)
    monkeypatch.setattr(source_json, "CHUNK", 100)
    assert read(f'["{"x" * 500}"]', "[]")[0] == ["x" * 500]
    with pytest.raises(SourceError, match="a value longer than 1000 characters"):
        read(f'["{"x" * 5000}"]', "[]")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc") | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def expected(value: Any, steps: list[str]) -> list[str]:
    if not steps:
        return [value] if isinstance(value, str) else []
    if steps[0] == "[]":
        return [found for element in value for found in expected(element, steps[1:])] if isinstance(value, list) else []
    return expected(value[steps[0]], steps[1:]) if isinstance(value, dict) and steps[0] in value else []


@settings(max_examples=200, deadline=None)
@given(values, st.lists(st.sampled_from(["[]", "a", "b"]), min_size=1, max_size=3), st.integers(1, 40), st.data())
def test_values_equal_those_of_the_json_module(value: Any, steps: list[str], chunk: int, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
    path = "".join(step if step == "[]" else f".{step}" for step in steps).removeprefix(".")
    before, source_json.CHUNK = source_json.CHUNK, chunk
    try:
        try:
            found, tally = read(text, path)
        except SourceError:  # no address at the path
            assert expected(value, steps) == []
        else:
            assert found == expected(value, steps)
            assert tally.rows == len(found) + tally.bad
        cut = data.draw(st.integers(0, max(len(text) - 1, 0)))
        if isinstance(value, dict | list | str):
            with pytest.raises(SourceError):
                read(text[:cut], path)
    finally:
        source_json.CHUNK = before
