"""Which alarm conditions hold for what was found, and their sentences in both languages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from smtpguard.config.settings import AlarmName
from smtpguard.journal.bypass import Bypass
from smtpguard.locale.phrase import places
from smtpguard.locale.speech import Speech
from smtpguard.observe.alarms import (
    CONDITIONS,
    RuleCall,
    Seen,
    Severity,
    Stopped,
    raised,
    unknown,
)
from smtpguard.policy.freezing import PUT_BACK, Freeze, Selector
from tests.every import every

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
WELL = Seen(
    at=NOW, store="", relay="", frozen=(), put_back="", enforced=True, unreadable="", differs="", stale=(),
    certificates={"c.pem": NOW + timedelta(days=60)}, answered=100, deferred=3, slow=3, absent=(), starts="", spool="",
    behind={"chat": 2.0}, refusing={"witness": 0.0}, called=(), stopped=(), bypass=(), clock_ahead=0, purposes={"many-write": "Many write to one list."},
)  # fmt: skip
MANY = RuleCall(
    rule="many-write",
    list="news",
    people=1234,
    senders=(("anna@example.com", 7), *((f"x{n}@example.com", 1) for n in range(44))),
)
STOPPED = Stopped(mailing="M", breaker="complaints", limit=">= 0.1% after 500", counted=7, people=1200)
BYPASS = Bypass(
    id="B1", people=("eva@example.com", "omar@example.com"), user="root", host="mx1", reason="A fire",
    begins=NOW, ends=NOW + timedelta(minutes=30),
)  # fmt: skip
ALL = Freeze(
    freeze_id="F1",
    selector=Selector.ALL,
    value="",
    by="eva@example.com",
    reason="Wrong list",
    at=NOW - timedelta(hours=1),
)
BACK = replace(ALL, freeze_id="F2", by="smtpguard", reason=PUT_BACK, at=NOW)


def test_a_healthy_guard_raises_no_alarm() -> None:
    assert list(raised(WELL)) == []
    assert unknown(WELL) == frozenset()


@every(
    ("found", "names"),
    [
        ({"frozen": (ALL,)}, ["frozen"]),
        ({"frozen": (BACK,), "put_back": "It was put back"}, ["store-put-back"]),
        ({"frozen": (), "put_back": "It was put back"}, ["store-put-back"]),
        ({"frozen": (ALL, BACK)}, ["store-put-back", "frozen"]),
        ({"store": "no answer"}, ["store-away"]),
        ({"bypass": (BYPASS,)}, ["bypass"]),
        ({"starts": "the store: it does not answer"}, ["start-fails"]),
        ({"clock_ahead": 86_400 * 800}, ["clock-jumped"]),
        ({"clock_ahead": 0}, []),
        ({"relay": "Connection refused"}, ["relay-away"]),
        ({"spool": "no space left in /var/lib"}, ["state-full"]),
        ({"answered": 10, "deferred": 5}, ["deferring"]),
        ({"answered": 11, "deferred": 5}, []),
        ({"answered": 4, "deferred": 4}, []),
        ({"answered": 10, "slow": 5}, ["slow"]),
        ({"answered": 11, "slow": 5}, []),
        ({"answered": 4, "slow": 5}, []),
        ({"enforced": False}, ["not-enforced"]),
        ({"unreadable": "nonsense"}, ["policy-unreadable"]),
        ({"differs": "policy.yaml was changed"}, ["policy-differs"]),
        ({"absent": ("delivery",)}, ["part-away delivery"]),
        ({"stale": ("news", "ramadan")}, ["list-stale news", "list-stale ramadan"]),
        ({"behind": {"chat": 901.0}}, ["webhook-behind chat"]),
        ({"refusing": {"witness": 901.0, "timestamps": 899.0}}, ["checkpoints-refused witness"]),
        ({"called": (MANY,)}, ["rule-calls many-write (news)"]),
        ({"called": (replace(MANY, list=""),)}, ["rule-calls many-write"]),
        ({"stopped": (STOPPED, replace(STOPPED, mailing="N", observed=True))}, ["breaker M", "breaker-observed N"]),
        ({"certificates": {"c.pem": NOW + timedelta(days=29)}}, ["certificate-ends c.pem"]),
        (
            {"certificates": {"c.pem": NOW + timedelta(days=7)}},
            ["certificate-ends c.pem"],
        ),
        ({"certificates": {"c.pem": NOW + timedelta(days=6)}}, ["certificate-ends-now c.pem"]),
        ({"certificates": {"c.pem": NOW - timedelta(days=1)}}, ["certificate-ends-now c.pem"]),
        ({"certificates": {"c.pem": None}}, ["certificate-unusable c.pem"]),
    ],
)
def test_each_alarm_is_raised_by_its_condition(found: dict[str, Any], names: list[str]) -> None:
    assert [alarm.key for alarm in raised(replace(WELL, **found))] == names


def test_unknown_conditions_are_neither_raised_nor_ended() -> None:
    assert list(raised(Seen(at=NOW))) == []
    assert unknown(Seen(at=NOW)) == {condition.name for condition in CONDITIONS} - {"store-put-back"} | {
        "store-put-back"
    }
    assert unknown(replace(WELL, store="away", frozen=None)) == {"store-put-back", "frozen"}
    assert unknown(replace(WELL, starts=None)) == {"start-fails"}


def test_the_settings_know_all_names() -> None:
    assert get_args(AlarmName) == tuple(condition.name for condition in CONDITIONS)


def test_critical_alarms_are_immediate() -> None:
    critical = {c.name for c in CONDITIONS if c.severity is Severity.CRITICAL}
    assert {"store-put-back", "frozen", "store-away", "relay-away", "deferring", "not-enforced"} <= critical
    assert (
        max(c.after_seconds for c in CONDITIONS if c.name in critical - {"list-stale", "certificate-unusable"}) <= 120
    )


EVERY = replace(
    WELL, store="no answer", spool="full", relay="Connection refused", frozen=(ALL, BACK), put_back="It was put back", enforced=False,
    unreadable="nonsense", differs="it was changed", starts="the store: no", stale=("news",), answered=10, deferred=10, slow=10, absent=("proxy",), behind={"chat": 3600.0}, refusing={"syslog": 1000.0}, called=(MANY,),
    certificates={"c.pem": NOW, "d.pem": NOW + timedelta(days=9), "e.pem": None}, stopped=(STOPPED, replace(STOPPED, mailing="N", observed=True)), bypass=(BYPASS,), clock_ahead=86_400,
)  # fmt: skip


def test_every_alarm_is_in_both_languages() -> None:
    alarms = list(raised(EVERY))
    assert [a.condition.name for a in alarms] == [c.name for c in CONDITIONS]
    for alarm in alarms:
        for text in (alarm.title, alarm.says, alarm.does):
            said = Speech("sv").say(text)
            assert said != text
            assert "{" not in said + text
        assert places(alarm.condition.title) <= {"what"}, "the notice of an end has only the title"


def test_a_freeze_that_an_alarm_names_is_whole() -> None:
    """A freeze without a reason is refused: nobody should learn that from an alarm."""
    named = [alarm.does for alarm in raised(EVERY) if "smtpguard freeze" in alarm.does]
    assert len(named) >= 2
    assert all("--reason" in does and "--reason" in Speech("sv").say(does) for does in named)


def test_persons_are_named_only_in_the_private_sentence() -> None:
    (frozen,) = (alarm for alarm in raised(replace(WELL, frozen=(ALL,))))
    said = frozen.title + frozen.says + frozen.does
    assert "eva" not in said
    assert "Wrong list" not in said
    assert frozen.found.private == "By eva@example.com: Wrong list"
    assert Speech("sv").say(frozen.found.private or "") == "Av eva@example.com: Wrong list"


def test_a_senders_alarm_gives_the_number_and_names_privately() -> None:
    (called,) = raised(replace(WELL, called=(MANY,)))
    assert "news (1,234)" in called.says
    assert "anna" not in called.says + called.title
    assert "anna@example.com (7), x0@example.com (1)" in str(called.found.private)
    assert str(called.found.private).endswith("and 5 more")


def test_figures_and_reasons_are_said_in_the_readers_language() -> None:
    swedish = Speech("sv")
    said = [
        swedish.say(alarm.says)
        for alarm in raised(replace(WELL, called=(MANY,), stopped=(STOPPED,), deferred=5000, answered=6000))
    ]
    assert any("5\xa0000" in text and "6\xa0000" in text for text in said)
    assert any("news (1\xa0234)" in text for text in said)
    assert any(
        "Av 1\xa0200 personer som har fått det har 7 klagat" in text and "complaints" not in text for text in said
    )


def test_a_rule_that_is_about_no_list_says_so() -> None:
    (called,) = raised(replace(WELL, called=(replace(MANY, list=""),)))
    assert called.says.endswith("written to: none.")
    assert Speech("sv").say(called.says).endswith("har fått post: inga.")
