"""Which freezes stop a held message, for every selector of a freeze."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from smtpguard.holds.model import held_up_by
from smtpguard.policy.freezing import Freeze, Selector, stopped_by
from tests.every import every
from tests.holds.test_model import NOON, hold

KEPT: dict[str, Any] = {"lists": ("news",), "mailing_id": "M1", "thread": "<1@example.com>"}


def freeze(selector: Selector, value: str = "", *, id: str = "F1", hours: int | None = None) -> Freeze:
    until = NOON + timedelta(hours=hours) if hours is not None else None
    return Freeze(freeze_id=id, selector=selector, value=value, reason="a fire", by="root", at=NOON, until=until)


@every(
    ("one", "stops"),
    [
        (freeze(Selector.ALL), True),
        (freeze(Selector.LIST, "news"), True),
        (freeze(Selector.LIST, "ramadan"), False),
        (freeze(Selector.SENDER, "anna@example.com"), True),
        (freeze(Selector.SENDER, "ulf@example.com"), False),
        (freeze(Selector.MAILING, "M1"), True),
        (freeze(Selector.MAILING, "M2"), False),
        (freeze(Selector.MAILING, ""), False),
        (freeze(Selector.THREAD, "<1@example.com>"), True),
        (freeze(Selector.THREAD, "<2@example.com>"), False),
        (freeze(Selector.ALL, hours=1), True),
        (freeze(Selector.ALL, hours=0), False),
    ],
)
def test_each_selector_stops_what_it_selects(one: Freeze, stops: bool) -> None:
    assert bool(held_up_by(hold(**KEPT), (one,), NOON)) is stops


def test_an_empty_value_selects_nothing() -> None:
    for selector in (Selector.MAILING, Selector.THREAD, Selector.LIST):
        assert held_up_by(hold(), (freeze(selector),), NOON) == ()


def test_all_matching_freezes_are_returned() -> None:
    three = (
        freeze(Selector.ALL, id="F1"),
        freeze(Selector.LIST, "ramadan", id="F2"),
        freeze(Selector.LIST, "news", id="F3"),
    )
    stopped = stopped_by(three, lists=["news"], senders=frozenset(), mailing="", thread="", now=NOON)
    assert [f.freeze_id for f in stopped] == ["F1", "F3"]
