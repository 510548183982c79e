"""Settings and fixtures for all tests.

Hypothesis has no deadline: how long an example takes depends on how busy the machine is. Tests that start process trees
or other servers are marked by their folder (``peers``, ``faults``). They mostly wait, so they run among the others, but
early, so that none of them is still running alone at the end.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
import tempfile
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from smtpguard.database import access
from tests.locale.madeup import made_up as made_up
from tests.program import share_compiled

if TYPE_CHECKING:  # imported by the fixtures that use them, after share_compiled
    from smtpguard.store.store import Store
    from tests.clocks import Clock
    from tests.guard.campaign import Campaign
    from tests.guard.house import House
    from tests.guard.office import Office

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Some container images set PYTHONDONTWRITEBYTECODE. Each process that a test starts would then compile the whole
# package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

os.umask(0o022)  # Debian's own; with a stricter one, the users of Postfix could not reach their files

# Folders whose tests start smtpguard as a user does, or other servers. The value is the marker.
_WHOLE = {"peers": "peers", "faults": "faults", "catalogue": "faults", "demo": "peers"}
_MEMORY = Path("/dev/shm")
_WAITING = ("peers", "faults", "demo", "processes", "test_metrics", "test_story")
"""Folders and files that mostly wait for processes."""
_LONG = ("test_month", "test_revoking_laws", "test_undo_laws", "test_stages_laws", "test_bounds", "test_truth")
"""Other files that take long, first."""


def _has_room(folder: Path) -> bool:
    """Whether the folder is writable, with 2 GB free there and 2 GB of memory available. pytest deletes a test's folder
    when the test passes."""
    try:
        there = os.statvfs(folder)
        memory = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return False
    free = min(there.f_bavail * there.f_frsize, int(memory[1]) << 10 if memory else 0)
    return os.access(folder, os.W_OK) and free >= 2 << 30


if _has_room(_MEMORY):  # a store syncs each commit; on a disk, a test of the store waits for that half of its time
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
    tempfile.tempdir = os.environ.setdefault("TMPDIR", str(_MEMORY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return two workers a core: tests of real processes mostly wait."""
    return 2 * len(os.sched_getaffinity(0))


gc.disable()  # until all is collected: each worker imports all tests, and garbage collection is a fifth of that
share_compiled()
access.READ_SECONDS *= 10  # a busy machine is no database that is away


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = (
        False  # pytest_collection_modifyitems sets the order; by number of tests, the longest would run last
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of the ``postgres`` database on this worker's server. A test creates its own database there."""
    from tests.store.servers import shared

    with shared() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a new store with the current schema, on each engine."""
    from tests.store import making, servers

    if request.param == "sqlite":
        yield making.sqlite_url(tmp_path / "guard.db")
    else:
        with servers.a_database(request.getfixturevalue("postgresql")) as url:
            yield url


@pytest.fixture
def clock() -> Clock:
    from tests.clocks import Clock

    return Clock()


@pytest.fixture
async def store(url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """An open store with a policy in force."""
    from smtpguard.journal.event import Kind
    from smtpguard.store.store import open_store
    from tests.store.making import POLICY, SECRET, event

    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as opened:
        await opened.policies.put(POLICY, {"policy.yaml": b"version: 1\n"}, event(Kind.POLICY, POLICY))
        yield opened


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    """A guard with real parts."""
    from tests.guard.house import house

    async with house(tmp_path) as made:
        yield made


@pytest.fixture
async def office(home: House) -> Office:
    from tests.guard.office import Office

    return Office(home)


@pytest.fixture
async def campaign(tmp_path: Path) -> AsyncIterator[Campaign]:
    from tests.guard.campaign import Campaign, documents
    from tests.guard.house import house

    async with house(tmp_path, documents=documents()) as home:
        yield Campaign(home)


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]] | None:
    """Run tests on the loop that ``serve`` uses; uvloop takes a seventh less time than asyncio's own."""
    from smtpguard.cli.serve import _loop_factory

    return None if (factory := _loop_factory()) is None else {"as serve": factory}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark it now: -m selects before a last hook of all items is called."""
    if marker := _WHOLE.get(item.nodeid.split("/")[1]):
        item.add_marker(marker)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    files = dict.fromkeys(item.path for item in items)
    waits = {path: path.stem in _WAITING or path.relative_to(here).parts[0] in _WAITING for path in files}
    waiting = [path for path in files if waits[path]]
    working = sorted((path for path in files if not waits[path]), key=lambda path: path.stem not in _LONG)
    place = {path: 0.75 * n / len(waiting) for n, path in enumerate(waiting)}
    place |= {path: n / len(working) for n, path in enumerate(working)}
    items.sort(key=lambda item: place[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let each worker import another share of the files first. In a new clone each compiles its share, with the rewriting
    of asserts, and reads what the others compiled; that is two thirds of its collection."""
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is None:
        return
    named = [session.config.rootpath / arg.partition("::")[0] for arg in session.config.args]
    files = sorted(file for path in named for file in (path.rglob("test_*.py") if path.is_dir() else [path]))
    for file in files[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
        with suppress(Exception, pytest.skip.Exception):  # collection reports it
            importlib.import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Exempt imported modules and collected tests from garbage collection: they live until the end. Collect more seldom
    than by default, which is a twelfth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 50, 100)
    gc.enable()
