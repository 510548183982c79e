"""YAML 1.2 with positions: what is read, what is refused, and that only Broken is raised."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.config.problem import Broken, Problem, nearest
from smtpguard.config.yaml import MAX_BYTES, Mark, load_yaml
from tests.every import every


@every(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("true", True), ("False", False), ("~", None), ("", None), ("null", None),
        ("08:00", "08:00"), ("12:30:45", "12:30:45"), ("2026-01-14", "2026-01-14"), ("0755", 755), ("0o17", 15), ("0x1F", 31),
        ("-3", -3), ("+3", 3), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("1_000", "1_000"), (".inf", ".inf"), ("'5'", "5"),
        ('"true"', "true"), ("99999999999999999999999", "99999999999999999999999"), (f"0x{'f' * 400}", f"0x{'f' * 400}"), ("15m", "15m"), (">= 20", None), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    if text == ">= 20":  # begins a block scalar, so it must be quoted
        with pytest.raises(Broken):
            load_yaml(f"a: {text}")
        return
    found = load_yaml(f"a: {text}").value["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_and_values_have_positions() -> None:
    document = load_yaml("a:\n  - {b: 1}\n  - c: 2\n", "f.yaml")
    assert document.mark(("a", 0, "b")) == Mark(2, 9)
    assert document.mark(("a", 0, "b"), key=True) == Mark(2, 6)
    assert document.mark(("a", 1, "c"), key=True) == Mark(3, 5)
    assert document.mark(("a", 1, "c", "missing", 7)) == Mark(3, 8), "the nearest enclosing position"
    assert document.mark(("zzz",)) == Mark(1, 1)
    assert str(document.problem(("a", 1, "c"), "bad", "good")) == "f.yaml:3:8: bad: expected good"


def test_a_key_is_always_a_string() -> None:
    assert load_yaml("5: a\ntrue: b\nno: c\n").value == {"5": "a", "true": "b", "no": "c"}


def test_an_empty_file_is_none() -> None:
    for text in ("", "# a comment\n", "---\n"):
        assert load_yaml(text).value is None


def test_all_errors_are_reported_in_one_pass() -> None:
    with pytest.raises(Broken) as found:
        load_yaml("a: &x 1\na: 2\nb: *x\nc: !!int 5\n", "f.yaml")
    assert [(p.line, p.column) for p in found.value.problems] == [(1, 4), (2, 1), (3, 4), (4, 4)]


def test_a_file_is_named_as_given(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: [")
    with pytest.raises(Broken, match=r"f\.yaml:2:1: not YAML"):
        load_yaml(path)
    with pytest.raises(FileNotFoundError):
        load_yaml(tmp_path / "none.yaml")


def test_a_line_break_that_editors_do_not_show_hides_no_key() -> None:
    for found in ("\x85", "\u2028", "\u2029"):
        for text in (f"a: 1\r\nb: 2 # {found}enforce: false\n", f"a: 1\r\nb: '2  {found} @'\n"):
            for source in (text, text.encode()):
                with pytest.raises(Broken, match=rf"f:2:8: a line break that editors do not show, U\+{ord(found):04X}"):
                    load_yaml(source, "f")


def test_what_is_invisible_is_shown_in_one_line() -> None:
    with pytest.raises(Broken) as found:
        load_yaml('"a\\nb\\e[2J": 1\n"a\\nb\\e[2J": 2\n', "f")
    assert str(found.value) == 'f:2:1: duplicate key "a\\nb\\x1b[2J": first on line 1'


@every(
    "text",
    [
        "[" * 100_000, "{a: " * 50_000, "- " * 100_000, "[" * 100, "- " * 41 + "a", "x" * (MAX_BYTES + 1), "[" + "1," * 500_001 + "]",
        b"\xff\xfe\x00", b"a: \x00", "&a [*a]", "? [a]\n: b\n", "a: b: c", "*a : b", "- - a\n- b: c\n d: e", "a: 1\rb: @x\r",
    ],
)  # fmt: skip
def test_unsupported_yaml_is_an_error(text: str | bytes) -> None:
    with pytest.raises(Broken):
        load_yaml(text)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text("ab:-?[]{},&*!|>'\"%@`# \n\r\t~0", max_size=40), st.binary(max_size=40)))
def test_any_text_raises_only_broken(text: str | bytes) -> None:
    with suppress(Broken):
        assert load_yaml(text).mark(()).line >= 1


def test_the_nearest_name_shares_a_whole_word() -> None:
    names = ["client_share", "client_certificate", "clients_without_tls", "connections"]
    assert nearest("clients_in_clear", names) == "clients_without_tls"
    assert nearest("clients_sahre", names) == "client_share", "a typing error is nearer"
    assert nearest("conections", names) == "connections"
    assert nearest("message.look", ["message.looks", "message.language"]) == "message.looks"
    assert nearest("something_else", names) == ""


def test_problems_of_one_place_stay_in_their_order() -> None:
    either = [Problem("f.yaml", 1, 1, "a list", expected) for expected in ("text", "a whole number", "nothing")]
    assert [*Broken(either).problems] == either
    assert [*Broken(reversed(either)).problems] == either[::-1]
