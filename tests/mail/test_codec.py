"""Documents: encoding and decoding is lossless for any value, and newer code reads older documents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.database.batch import FREEZE
from smtpguard.holds.model import HOLD, Choice, Hold, State, Vote
from smtpguard.mail.address import Address
from smtpguard.mail.codec import Codec
from smtpguard.mail.envelope import Body, Envelope, Recipient, Session
from smtpguard.outbox.model import INTENT, Intent, IntentKind
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.verdict import Action, Hit, Miss, Mode, Quorum, Reason, Scope, Verdict
from tests.store.making import a_hold

text = st.text(st.characters(), max_size=12)  # with lone surrogates and NUL
times = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
maybe = lambda strategy: st.none() | strategy  # noqa: E731
many = lambda strategy: st.lists(strategy, max_size=3).map(tuple)  # noqa: E731
addresses = st.builds(Address, text, text.filter(lambda d: "@" not in d))
recipients = st.builds(Recipient, address=addresses, notify=maybe(text), orcpt=maybe(text))
envelopes = st.builds(
    Envelope, reverse_path=maybe(addresses), recipients=many(recipients), size_bytes=maybe(st.integers(0)),
    smtputf8=st.booleans(), body=maybe(st.sampled_from(Body)), ret=maybe(text), envid=maybe(text), auth=maybe(text),
)  # fmt: skip
sessions = st.builds(Session, client_ip=text, helo=text, auth_user=maybe(text), tls=st.booleans())
reasons = st.builds(Reason, fact=text, observed=text, limit=text, public=text, detail=text)
hits = st.builds(
    Hit, rule=text, action=st.sampled_from(Action), mode=st.sampled_from(Mode), description=text,
    scope=st.sampled_from(Scope), reasons=many(reasons), uncertain=st.booleans(),
)  # fmt: skip
quorums = st.recursive(
    st.builds(Quorum, groups=many(text), each=st.integers(1, 9), list=maybe(text)),
    lambda inner: st.builds(Quorum, groups=many(text), out_of_hours=inner),
    max_leaves=3,
)
verdicts = st.builds(
    Verdict, action=st.sampled_from(Action), hits=many(hits), misses=many(st.builds(Miss, rule=text, reason=maybe(reasons))),
    skipped=many(text), unknown=many(st.tuples(text, text)), policy_sha256=text, quorum=many(quorums),
    observed=st.sampled_from(Action), freeze_id=maybe(text),
)  # fmt: skip
votes = st.builds(
    Vote,
    approver=text,
    choice=st.sampled_from(Choice),
    content_sha256=text,
    envelope_sha256=text,
    at=times,
    comment=text,
)
all_holds = st.builds(
    Hold, hold_id=text, mailing_id=text, session=sessions, envelope=envelopes, content_sha256=text,
    size_bytes=st.integers(0), subject=text, message_id=text, verdict=verdicts, state=st.sampled_from(State),
    votes=many(votes), held_at=times, expires_at=times, sender=maybe(text), senders=st.frozensets(text, max_size=3),
    lists=many(text), reach=st.integers(0), acknowledged=st.booleans(), language=text, thread=text, attend_at=maybe(times),
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
intents = st.builds(
    Intent, intent_id=text, kind=st.sampled_from(IntentKind), reverse_path=maybe(addresses), recipients=many(recipients),
    hold_id=maybe(text), content_sha256=maybe(text), data=st.dictionaries(text, values, max_size=3), not_before=maybe(times),
)  # fmt: skip
freezes = st.builds(
    Freeze,
    freeze_id=text,
    selector=st.sampled_from(Selector),
    value=text,
    reason=text,
    by=text,
    at=times,
    until=maybe(times),
)


@given(all_holds)
@settings(max_examples=60, deadline=None)
def test_holds_read_back_the_same(hold: Hold) -> None:
    document = HOLD.dumps(hold)
    assert document.isascii()
    assert "\0" not in document
    assert HOLD.loads(document) == hold


@given(intents)
@settings(max_examples=60, deadline=None)
def test_intents_read_back_the_same(intent: Intent) -> None:
    assert INTENT.loads(INTENT.dumps(intent)) == intent


@given(freezes)
@settings(max_examples=30, deadline=None)
def test_freezes_read_back_the_same(freeze: Freeze) -> None:
    assert FREEZE.loads(FREEZE.dumps(freeze)) == freeze


def test_defaults_are_omitted_and_restored() -> None:
    document = HOLD.to(a_hold("H1"))
    assert "language" not in document
    assert "acknowledged" not in document
    assert HOLD.back(document) == a_hold("H1")


def test_an_unknown_field_is_ignored() -> None:
    document = json.loads(HOLD.dumps(a_hold("H1")))
    assert HOLD.back({**document, "mood": "sunny"}) == a_hold("H1")


def test_a_type_without_a_json_form_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        what: complex

    Odd.__annotations__["what"] = complex
    with pytest.raises(TypeError, match="no JSON form"):
        Codec(Odd)


def test_numbers_without_a_json_form_are_refused() -> None:
    odd: dict[str, Any] = {"x": float("nan")}
    intent = Intent(intent_id="I", kind=IntentKind.NOTICE, reverse_path=None, recipients=(), data=odd)
    with pytest.raises(ValueError):
        INTENT.dumps(intent)


def test_types_are_checked_in_documents_from_elsewhere() -> None:
    checked, document = Codec(Quorum, checked=True), {"groups": ["a"], "each": 2, "list": "news"}
    assert checked.back(document) == Quorum(groups=("a",), each=2, list="news")
    for wrong in ({"groups": [1]}, {"each": "2"}, {"each": True}, {"list": 5}, {"out_of_hours": {"groups": [None]}}):
        with pytest.raises(TypeError):
            checked.back(document | wrong)
