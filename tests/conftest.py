"""What holds for every test.

Hypothesis measures no time, since how long an example takes says how busy the machine is. Tests that start whole process trees or
other people's servers are marked by their folder (``peers``, ``faults``), and begin first: whoever takes longest ends the run.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.locale.madeup import made_up as made_up

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Some images say that nothing compiled is kept: then each process that a test starts compiles the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Folders whose tests start smtpguard as a user does, or servers beside it.
_WHOLE = {"peers": "peers", "faults": "faults", "catalogue": "faults", "demo": "peers"}
_MEMORY = Path("/dev/shm")
_LONG = ("test_month", "test_metrics", "test_story", "test_revoking_laws")
"""Files elsewhere that take about as long as those."""


def _has_room(folder: Path) -> bool:
    """2 GB, and as much memory behind them. A test's folder goes when it has passed."""
    try:
        there = os.statvfs(folder)
        memory = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return False
    free = min(there.f_bavail * there.f_frsize, int(memory[1]) << 10 if memory else 0)
    return os.access(folder, os.W_OK) and free >= 2 << 30


if _has_room(_MEMORY):  # a store syncs each commit: on a disk a test of one waits for it half of its time
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
    tempfile.tempdir = os.environ.setdefault("TMPDIR", str(_MEMORY))


def pytest_xdist_auto_num_workers() -> int:
    """Two a core: most of a test of real processes is waiting for them."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = (
        False  # the order is below; by the number of tests, those that take longest came last
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of the ``postgres`` database of this process's server, in which a test makes one of its own."""
    from tests.store.servers import shared

    with shared() as address:
        yield address


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in _WHOLE:
            item.add_marker(_WHOLE[folder])
    items.sort(key=lambda item: item.path.stem not in _LONG and item.path.relative_to(here).parts[0] not in _WHOLE)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: looking for garbage in it is in vain."""
    gc.collect()
    gc.freeze()
