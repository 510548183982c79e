"""Marks that the policy changes: other weights, switched off, and custom marks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtpguard.reading.looks import Looks
from smtpguard.reading.marks import Side
from smtpguard.reading.surroundings import Custom
from tests.reading.letters import PLATFORM, around, letter, look, names


def test_a_changed_weight_changes_the_result() -> None:
    message = letter(
        "Höstens utställning öppnar på lördag.\n\nhttps://a.example/\nhttps://b.example/\nhttps://c.example/", PLATFORM
    )
    assert look(message).looks is Looks.MAILING
    off = replace(around(), weights=dict.fromkeys(("one-click", "platform-feedback-id", "campaign-header"), 0.0))
    reading = look(message, off)
    assert reading.looks is not Looks.MAILING
    assert "one-click" not in names(reading)


@pytest.mark.parametrize(
    ("custom", "evidence"),
    [
        (Custom(name="c", side=Side.INTERNAL, weight=4, header="X-Department"), "the field X-Department is there"),
        (
            Custom(name="c", side=Side.INTERNAL, weight=4, header="X-Department", term="SALES"),
            'the field X-Department says "SALES"',
        ),
        (
            Custom(name="c", side=Side.INTERNAL, weight=4, header="X-Department", pattern="^sa.es$"),
            'the field X-Department says "Sales"',
        ),
        (Custom(name="c", side=Side.INTERNAL, weight=4, term="project tulip"), 'the text says "project tulip"'),
        (Custom(name="c", side=Side.INTERNAL, weight=4, pattern=r"PT-\d+"), 'the text says "PT-17"'),
    ],
)
def test_custom_marks_are_found(custom: Custom, evidence: str) -> None:
    message = letter("Project Tulip, PT-17", {"X-Department": "Sales"})
    (mark,) = [m for m in look(message, replace(around(), customs=(custom,))).marks if m.name == "c"]
    assert mark.evidence == evidence
    assert "c" not in names(look(letter("x"), replace(around(), customs=(custom,))))


def test_patterns_are_linear() -> None:
    custom = Custom(name="c", side=Side.INTERNAL, weight=1, pattern="(a+)+$")
    look(letter("a" * 50_000 + "!"), replace(around(), customs=(custom,)))


def test_half_a_character_does_not_stop_a_pattern() -> None:
    custom = Custom(name="c", side=Side.INTERNAL, weight=1, pattern="tulip")
    message = letter("+2AA- tulip", {"Content-Type": "text/plain; charset=utf-7", "Subject": "=?utf-7?Q?+2AA-?="})
    assert "c" in names(look(message, replace(around(), customs=(custom,))))
