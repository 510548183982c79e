"""Rates of clients and logins: never more than the limit in any window, exact over processes, and reported once."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpguard.app.ratelimits import Quota, Rates
from tests.clocks import Seconds


def quota(count: int = 3, name: str = "client 192.0.2.1", seconds: float = 60, unit: str = "recipients") -> Quota:
    return Quota(name, unit, "office", count, seconds)


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def rates(tmp_path: Path, clock: Seconds) -> Iterator[Rates]:
    made = Rates(tmp_path / "rates", b"secret", monotonic=clock)
    yield made
    made.close()


def taken(rates: Rates, wanted: Quota, times: int) -> int:
    return sum(rates.take([wanted]) is None for _ in range(times))


@pytest.mark.parametrize("seconds", [1, 60, 86400])
def test_every_window_stays_within_the_limit(rates: Rates, clock: Seconds, seconds: int) -> None:
    rng, times = random.Random(seconds), list[float]()
    wanted = quota(20, seconds=seconds)
    for _ in range(3000):
        clock.now += rng.choice((0, 0.001, 0.01, 0.1)) * seconds * rng.random()
        last = [at for at in times if at > clock.now - seconds]
        before = [at for at in times if at > clock.now - seconds * 62 / 60]
        if rates.take([wanted]) is None:
            assert len(last) < 20
            times.append(clock.now)
        else:
            assert len(before) >= 20, "only what was counted of late stops anybody"
    assert len(times) > 100
    clock.now += 10 * seconds
    assert taken(rates, wanted, 25) == 20


def test_if_one_quota_is_exhausted_none_is_counted(rates: Rates) -> None:
    messages, recipients = quota(2, unit="messages"), quota(5)
    assert [rates.take([messages, recipients]) for _ in range(2)] == [None, None]
    assert rates.take([messages, recipients]) is messages
    assert rates.take([recipients, messages]) is messages
    assert taken(rates, recipients, 10) == 3


def test_names_listeners_units_and_windows_are_separate(rates: Rates) -> None:
    several = [quota(1), quota(1, name="login anna"), quota(1, unit="messages"), quota(1, seconds=3600)]
    assert rates.take([*several, Quota("client 192.0.2.1", "recipients", "shop", 1, 60)]) is None
    assert [taken(rates, each, 2) for each in several] == [0, 0, 0, 0]
    assert taken(rates, quota(3), 5) == 2, "a limit that was raised goes on from what was counted"


def test_processes_share_the_counts(tmp_path: Path) -> None:
    """Whatever they do at once, they take as many as there are."""
    reading, writing = os.pipe()
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                rates = Rates(tmp_path / "rates", b"secret", monotonic=Seconds())
                got = sum(taken(rates, quota(n, name=f"client {n}"), 400) for n in (701, 702))
                os.write(writing, struct.pack("i", got))
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    assert sum(struct.unpack("4i", os.read(reading, 64))) == 701 + 702
    os.close(reading)
    os.close(writing)


def test_beyond_the_rows_the_smallest_counts_are_dropped(tmp_path: Path, clock: Seconds) -> None:
    rates = Rates(tmp_path / "rates", b"secret", rows=64, monotonic=clock)
    greedy = quota(50, name="client greedy")
    assert taken(rates, greedy, 60) == 50
    assert all(rates.take([quota(3, name=f"client {n}"), quota(9, name=f"login {n}")]) is None for n in range(2000))
    assert taken(rates, greedy, 5) == 0
    rates.close()


def test_stops_are_reported_once_a_minute_for_all_processes(rates: Rates, tmp_path: Path, clock: Seconds) -> None:
    other = Rates(tmp_path / "rates", b"secret", monotonic=clock)
    assert rates.stopped(60) == {}
    anna = quota(1, name="login anna" + "ä" * 60)
    for table in (rates, other):
        taken(table, quota(), 5)
        taken(table, anna, 2)
    found = other.stopped(60)
    assert found.pop("client 192.0.2.1") == 7
    assert list(found.values()) == [3]
    assert next(iter(found)).startswith("login annaää")
    taken(rates, quota(), 1)
    assert (rates.stopped(60), other.stopped(60)) == ({}, {}), "not before the minute is over"
    clock.now += 60
    assert rates.stopped(60) == {"client 192.0.2.1": 1}
    assert other.stopped(0) == {}
    other.close()


def test_counts_of_another_boot_do_not_apply(tmp_path: Path, clock: Seconds) -> None:
    """The clock may be set a little, as after a start without a network."""
    for boot, left in ((1000.0, 3), (1009.0, 0), (992.0, 0), (2000.0, 3)):
        rates = Rates(tmp_path / "rates", b"secret", monotonic=clock, boot=lambda boot=boot: boot)  # type: ignore[misc]
        assert taken(rates, quota(), 5) == left
        rates.close()
    assert (tmp_path / "rates").stat().st_mode & 0o777 == 0o600


def test_it_opens_without_the_files_that_the_units_hide(tmp_path: Path) -> None:
    """With ProcSubset=pid, /proc has processes alone."""
    hidden = ["unshare", "-Urmpf", "sh", "-c", 'mount -t proc -o subset=pid proc /proc && exec "$@"', "sh"]
    tried = subprocess.run([*hidden, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no /proc of one's own: {tried.stderr.strip()}")
    opens = f"from smtpguard.app.ratelimits import *; Rates(Path({str(tmp_path / 'rates')!r}), b'secret').close()"
    subprocess.run([*hidden, sys.executable, "-c", opens], check=True, timeout=120)
