"""Whose mail counts for which limit, and how those that were stopped are reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from smtpguard.app.files import CannotStart
from smtpguard.app.guardline import TurnedAwayLog
from smtpguard.app.ratelimits import RateLimits
from smtpguard.config.settings import Settings, settings_of
from smtpguard.config.yaml import load_yaml
from smtpguard.mail import reply
from smtpguard.mail.envelope import Session
from smtpguard.processes.numbers import PUT_OFF
from smtpguard.wire.turnedaway import TurnedAway, Why
from tests.clocks import Seconds

TEXT = b"""
listen:
  smtp:
    - {port: 10025, rates: {client: {messages: 2 in 1m, recipients: 5 in 1m}, login: {recipients: 3 in 1h}}}
    - {port: 10026, rates: {login: {messages: 1 in 1m}}}
    - {port: 10027}
trust: [192.0.2.1]
state: .
secret_file: secret
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(load_yaml(TEXT, "smtpguard.yaml"), tmp_path, {})


@pytest.fixture
def limits(settings: Settings) -> Iterator[RateLimits]:
    made = RateLimits(settings, Seconds())
    yield made
    made.close()


def asked(limits: RateLimits, session: Session, times: int, *, first: bool = False, listener: int = 0) -> list[str]:
    rate_check = limits.of(limits._settings.listen.smtp[listener])
    assert rate_check is not None
    said = [rate_check(session, first) for _ in range(times)]
    return ["ok" if one is None else "client" if one is reply.CLIENT_TOO_FAST else "login" for one in said]


def test_a_client_is_an_ipv4_address_or_an_ipv6_network(limits: RateLimits) -> None:
    one = Session(client_ip="192.0.2.7")
    assert asked(limits, one, 3, first=True) == ["ok", "ok", "client"]
    assert asked(limits, one, 4) == ["ok", "ok", "ok", "client"]
    assert asked(limits, replace(one, client_ip="::ffff:192.0.2.7"), 1) == ["client"]
    assert asked(limits, Session(client_ip="192.0.2.8"), 1) == ["ok"]
    for n in range(5):
        assert asked(limits, Session(client_ip=f"2001:db8::{n}:1"), 1) == ["ok"]
    assert asked(limits, Session(client_ip="2001:db8::9:1"), 1) == ["client"]
    assert asked(limits, Session(client_ip="2001:db8:0:1::1"), 1) == ["ok"]


def test_a_trusted_mta_has_no_limit_but_its_named_client_has(limits: RateLimits) -> None:
    assert set(asked(limits, Session(client_ip="192.0.2.1"), 20, first=True)) == {"ok"}
    named = Session(client_ip="198.51.100.1", peer="192.0.2.1")
    assert asked(limits, named, 6) == ["ok"] * 5 + ["client"]


def test_a_login_counts_over_all_its_addresses(limits: RateLimits) -> None:
    sessions = [
        Session(client_ip=f"192.0.2.{n}", auth_user=name) for n, name in enumerate(("Anna", "anna", "ANNA"), 10)
    ]
    assert [asked(limits, each, 1) for each in sessions] == [["ok"]] * 3
    assert asked(limits, sessions[0], 1) == ["login"]
    assert asked(limits, replace(sessions[0], auth_user="bo"), 1) == ["ok"]
    other = Session(client_ip="192.0.2.1", auth_user="anna")
    assert asked(limits, other, 2, first=True, listener=1) == ["ok", "login"], "each listener counts for itself"
    assert limits.of(limits._settings.listen.smtp[2]) is None


def test_stopped_clients_are_one_log_line_a_minute(settings: Settings) -> None:
    clock = Seconds()
    limits = RateLimits(settings, clock)
    for n in range(12):
        asked(limits, Session(client_ip=f"192.0.2.{100 + n}"), 6 + n)
    with capture_logs() as lines:
        limits.report()
        asked(limits, Session(client_ip="192.0.2.100"), 1)
        limits.report()
    [line] = lines
    assert (line["event"], line["recipients"], line["senders"]) == ("rate-limited", sum(range(1, 13)), 12)
    assert len(line["most"]) == 10
    assert line["most"][0] == "client 192.0.2.111: 12"
    clock.now += 61
    with capture_logs() as lines:
        limits.report()
        limits.report()
    assert [line["most"] for line in lines] == [["client 192.0.2.100: 1"]]
    limits.close()


def test_stopped_mail_is_counted_and_not_logged_singly() -> None:
    turned = TurnedAwayLog()
    with capture_logs() as lines:
        turned(
            TurnedAway(
                why=Why.RATE_LIMIT,
                reply=reply.CLIENT_TOO_FAST,
                client="192.0.2.7",
                listener="",
                recipients=2,
                refused=2,
            )
        )
    assert lines == []
    assert turned.counts == {"turned-away rate-limit": 1, PUT_OFF: 0}, "it is the client's doing"


def test_an_unwritable_folder_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "rates").mkdir()
    with pytest.raises(CannotStart, match="rates: Is a directory"):
        RateLimits(settings)
