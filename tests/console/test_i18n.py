"""Every key of the code has its text; numbers, times and choices are formatted."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from smtpguard import admission, gathering, holds, mailings, policy
from smtpguard.console import journalwords, labels, rulewords
from smtpguard.holds.model import State
from smtpguard.journal.event import NOTICES, Kind
from smtpguard.locale.speech import Speech, choose
from smtpguard.mailings.model import State as MailingState
from smtpguard.mailings.staging import At, Move
from smtpguard.policy.facts import FACTS
from smtpguard.policy.verdict import Action
from tests.every import every


def facts_in_reasons() -> set[str]:
    """The facts in the reasons that smtpguard itself gives, which no policy names."""
    found: set[str] = set()
    rooms = (policy, gathering, holds, mailings, admission)
    for module in (module for room in rooms for module in members(room)):
        for call in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("Reason", "hit"):
                fact = call.args[2] if call.args else next(each.value for each in call.keywords if each.arg == "fact")
                if isinstance(fact, ast.Constant):
                    found.add(str(fact.value))
                elif isinstance(fact, ast.Name) and fact.id != "fact":  # in hit, which is called with it
                    found.add(vars(module)[fact.id])
    return found


def members(room: ModuleType) -> Iterator[ModuleType]:
    for one in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
        yield importlib.import_module(one.name)


def test_every_key_has_its_text() -> None:
    states = {s.value for s in State} | {"stopped", "leaving"}
    assert set(labels.STATES) == set(labels.OWN_STATES) == set(labels.SHORT_STATES) == states
    assert set(labels.MAILING_STATES) == {s.value for s in MailingState} | {"stopped", "confirmed"}
    assert set(rulewords.FACTS) == set(FACTS)
    assert set(rulewords.ACTIONS) == set(Action)
    assert facts_in_reasons() - set(FACTS) == set(rulewords.BUILT_IN_FACTS)
    assert set(journalwords.KIND_WORDS) == {kind.value for kind in Kind}
    of_no_message = {
        "alarm",
        "checkpoint",
        "digest",
        "list-failed",
        "list-stale",
        "list-well",
        "observed",
        "owner-digest",
        "stream",
    }
    assert set(journalwords.NOTICES) | of_no_message == set(NOTICES)
    assert set(journalwords.MAILING_CHANGES) >= {move.value for move in Move}
    assert set(rulewords._PROGRESS) == {at.value for at in At}


@every(
    ("own", "accepted", "language"),
    [
        ("sv", "en", "sv"),
        ("", "sv-SE,sv;q=0.9,en;q=0.8", "sv"),
        ("", "de, en;q=0.5, sv;q=0.6", "sv"),
        ("", "fr;q=1, de", "en"),
        ("", "sv;q=0, en;q=0.1", "en"),
        ("", "SV", "sv"),
        ("", "", "en"),
        ("tlh", ";;;,=,q=1", "en"),
        ("", "sv;q=9999999", "en"),
    ],
)
def test_the_readers_language_is_chosen(own: str, accepted: str, language: str) -> None:
    assert choose(own, accepted) == language


@given(st.text(max_size=300))
def test_any_header_gives_a_known_language(accepted: str) -> None:
    assert choose("", accepted) in ("en", "sv")


def test_numbers_and_times_follow_the_language() -> None:
    at = datetime(2026, 3, 2, 22, 5, tzinfo=UTC)
    english, swedish = Speech("en", ZoneInfo("Europe/Stockholm")), Speech("sv", ZoneInfo("Europe/Stockholm"))
    assert (english.number(412318), swedish.number(412318)) == ("412,318", "412\u00a0318")
    assert (english.when(at), swedish.when(at)) == ("Mon 2 Mar at 23:05", "mån 2 mars kl. 23:05")
    assert (english.size(200), swedish.size(1_400_000)) == ("1 kB", "1,4 MB")
    assert english.ngettext("{n} person", "{n} people", 1) == "1 person"
    assert swedish.ngettext("{n} person", "{n} people", 2) == "2 personer"


@every(
    ("zone", "around", "twice"),
    [("Europe/Stockholm", "2027-10-31T01:00Z", ("Sun 31 Oct at 02:30 (CEST)", "Sun 31 Oct at 02:30 (CET)")),
     ("Australia/Lord_Howe", "2027-04-03T15:00Z", ("Sun 4 Apr at 01:30 (+11)", "Sun 4 Apr at 01:30 (+1030)")),
     ("America/Sao_Paulo", "2018-02-18T02:00Z", ("Sat 17 Feb at 23:30 (-02)", "Sat 17 Feb at 23:30 (-03)")),
     ("Europe/Stockholm", "2027-03-28T01:00Z", ()),
     ("Asia/Kolkata", "2027-12-31T18:30Z", ())],
)  # fmt: skip
def test_no_two_times_look_alike_when_the_clock_changes(zone: str, around: str, twice: tuple[str, ...]) -> None:
    said, middle = Speech("en", ZoneInfo(zone)), datetime.fromisoformat(around)
    shown = [said.when(middle + timedelta(minutes=n)) for n in range(-360, 361, 10)]
    assert len(set(shown)) == len(shown)
    assert set(twice) <= set(shown)
    assert any("(" in each for each in shown) == bool(twice), "the zone is said then alone"


@every(
    ("length", "said"),
    [(-5, "less than a minute"), (59, "less than a minute"), (60, "1 minute"), (3599, "59 minutes"), (3600, "1 hour"),
     (47 * 3600 + 3599, "47 hours"), (48 * 3600, "2 days"), (10 * 86400, "10 days")],
)  # fmt: skip
def test_remaining_time_is_rounded_down(length: int, said: str) -> None:
    assert Speech("en").span(timedelta(seconds=length)) == said
