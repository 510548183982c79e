"""``Machine``: ``smtpguard serve`` in its own folder, restarted when it ends, as a service manager does; and actions of
people, time and faults on it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import func, select

from smtpguard.app.services import Services, opened, services
from smtpguard.config.settings import read_settings
from smtpguard.database.engine import Database
from smtpguard.database.errors import Unavailable
from smtpguard.database.schema import hold, outbox
from smtpguard.holds.model import Choice, Conflict, Hold, State
from smtpguard.journal.chain import Entry
from smtpguard.journal.event import Kind
from smtpguard.outbox.rows import NEVER_US
from smtpguard.store.store import Store
from tests import program
from tests.peers.chain import PATIENCE, Recorder, member, rules, until
from tests.peers.postfix import free_port
from tests.program import Program

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
ANNA = "anna@example.com"
CAMPAIGNS = "campaigns@example.com"
RAMADAN = "ramadan@lists.example.com"
APPROVERS = ("eva@example.com", "dpo@example.com")

POLICY = """\
version: 1
organization: {name: Example AB, domains: [example.com], languages: [en]}
groups:
  communications: [eva@example.com, omar@example.com]
  compliance: [dpo@example.com]
approvals: {from: [communications], each: 1}
lists:
  ramadan-greetings:
    title: Ramadan greetings
    owner: omar@example.com
    addresses: [ramadan@lists.example.com]
    members: {csv: ramadan.csv, column: email}
    audience: customers
    sensitivity: special-category
    writers: [campaigns@example.com]
    origin: {clients: [127.0.0.1/32]}
    avoid: [pork, alcohol]
    approvals: {from: [communications, compliance], each: 1}
"""


def policy() -> str:
    return POLICY + rules()


def members(n: int = 150) -> str:
    """The CSV of ``n`` members, by default fewer than the sample policy requires an approval for."""
    return "email\n" + "".join(f"{member(i)}\n" for i in range(n))


class Machine:
    """``only``: the parts to run. ``wrap``: words before the command, such as a shell that mounts something first."""

    def __init__(
        self,
        root: Path,
        relay_port: int,
        *,
        workers: int = 1,
        store: str = "sqlite:///var/guard.db",
        only: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        wrap: Sequence[str] = (),
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.port = free_port()
        self.armed = root / f"armed-{self.port}"
        self.armed.mkdir()
        self.log = root / f"log-{self.port}"
        self.starts = 0
        self._only, self._wrap = tuple(only), tuple(wrap)
        self._environment = {**os.environ, "SMTPGUARD_FAILPOINT": str(self.armed), **(environment or {})}
        self._process: subprocess.Popen[bytes] | Program | None = None
        self._database: Database | None = None
        self._lock = threading.Lock()
        if not (root / "ramadan.csv").exists():
            (root / "ramadan.csv").write_text(members())
        if not (root / "policy.yaml").exists():
            (root / "policy.yaml").write_text(policy())
        shows = f", tls: {{certificate: {tls[0]}, key: {tls[1]}}}" if tls is not None else ""
        keys = {
            "listen": f"{{smtp: [{{address: 127.0.0.1, port: {self.port}{shows}}}]}}",
            "trust": "[127.0.0.1]",
            "relay": f"{{host: 127.0.0.1, port: {relay_port}, tls: none}}",
            "store": f'{{url: "{store}"}}',
            "policy": "policy.yaml",
            "hold": "{release_delay: 0}",
            "notices": '{from: "Mail guard <smtpguard@example.com>", contact: "it@example.com"}',
            "logging": "{format: json}",
            "workers": str(workers),
            **(settings or {}),
        }
        self.config = root / f"smtpguard-{self.port}.yaml"
        self.config.write_text("".join(f"{k}: {v}\n" for k, v in keys.items()))

    # start and stop

    def start(self) -> Machine:
        self._start()
        if not self._only or "proxy" in self._only:
            until(self._greets, "smtpguard to answer: " + self.said())
        else:
            until(lambda: b'"ready"' in self.log.read_bytes(), "the part to be ready")
        return self

    def _start(self) -> None:
        only = [word for part in self._only for word in ("--only", part)]
        argv = ["-c", str(self.config), "serve", *only]
        with self.log.open("ab") as log:
            if self._wrap or "LD_PRELOAD" in self._environment:  # which a process gets only at its start
                self._process = subprocess.Popen(
                    [*self._wrap, sys.executable, "-m", "smtpguard", *argv],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=self._environment,
                )  # fmt: skip
            else:
                self._process = Program(argv, stdout=log, stderr=log, cwd=ROOT, env=self._environment)
        self.starts += 1

    def keep(self) -> None:
        """Start it again if it has ended, as a service manager would."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._start()

    def _greets(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=120) as s:
                return s.recv(3) == b"220"
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    def parts(self, name: str = "") -> list[int]:
        """Process ids of the running parts of this name (``proxy``, ``delivery``), or of all. None if the supervisor has
        ended."""
        found = []
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        for child in children:
            try:
                title = Path(f"/proc/{child}/cmdline").read_text()
            except OSError:
                continue
            if title.startswith(f"smtpguard: {name}"):
                found.append(int(child))
        return found

    def kill_all(self) -> None:
        """SIGKILL to all processes, as in a loss of power."""
        for pid in (self.pid, *self.parts()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert self._process is not None
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
            raise AssertionError("smtpguard did not stop: " + self.said()) from None

    def __enter__(self) -> Machine:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            if self._database is not None:
                self._database.close()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    # people and time

    def run(self, *words: str, exits: int | None = 0) -> subprocess.CompletedProcess[str]:
        argv, env = ["-c", str(self.config), *words], {**os.environ, "SMTPGUARD_FAILPOINT": str(self.armed)}
        if inside := self._inside():
            done = subprocess.run(
                [*inside, sys.executable, "-m", "smtpguard", *argv],
                capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=env,
            )  # fmt: skip
        else:
            done = program.run(argv, timeout=PATIENCE, cwd=ROOT, env=env)
        assert exits is None or done.returncode == exits, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def _inside(self) -> Sequence[str]:
        return ()

    def with_services(self, work: Callable[[Services], Awaitable[T]]) -> T:
        """The result of ``work`` with the services of the command line, without a new process."""

        async def run() -> T:
            async with services(read_settings(self.config)) as at_hand:
                return await work(at_hand)

        return asyncio.run(run())

    def ask(self, question: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            async with opened(read_settings(self.config)) as (store, _):
                return await question(store)

        return asyncio.run(run())

    def holds(self, message_id: str = "") -> list[Hold]:
        found = self.ask(lambda store: store.holds.newest())
        return [h for h in found if not message_id or h.message_id.strip("<>") == message_id]

    def history(self, id: str) -> list[tuple[Kind, Mapping[str, Any]]]:
        return [(Kind(e.kind), e.data) for e, _ in self.ask(lambda store: store.journal.history(id))]

    def entries(self, id: str) -> list[Entry]:
        return [entry for entry, _ in self.ask(lambda store: store.journal.history(id))]

    def approve(self, *hold_ids: str) -> None:
        """Cast all votes that the holds need, except those already cast."""

        async def votes(at_hand: Services) -> None:
            for hold_id in hold_ids:
                for who in APPROVERS:
                    try:
                        await at_hand.approvals.vote(hold_id, Choice.APPROVE, approver=who, by="test")
                    except Conflict:
                        pass

        self.with_services(votes)

    def hours_pass(self) -> None:
        """Make all pending entries of the outbox due, and end all leases. Only while no delivery works on them."""
        until(self.hours_passed, "a turn to write")

    def hours_passed(self) -> bool:
        """``hours_pass`` once; False if another process held the store for longer than a statement waits."""
        due = f"UPDATE outbox SET next_at = 0, leased_until = 0 WHERE NOT done AND next_at < {NEVER_US}"
        return self.written(due, "UPDATE delivery SET next_at = 0")

    def waits_pass(self) -> None:
        """Make retries due, except those of entries that are leased or attempted."""
        due = (
            "UPDATE outbox SET next_at = 0 WHERE NOT done AND owner IS NULL AND intent_id NOT IN"
            " (SELECT intent_id FROM delivery WHERE state = 'attempted')"
        )
        pending = "UPDATE delivery SET next_at = 0 WHERE state = 'pending'"
        until(lambda: self.written(due, pending), "a turn to write")

    def written(self, *statements: str) -> bool:
        """Run the statements in one transaction; False if another process held the store for longer than a statement
        waits, as may happen on a busy machine."""
        try:
            with self.database.write() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
        except Unavailable:
            return False
        return True

    @property
    def database(self) -> Database:
        """A connection to read, or to change times."""
        if self._database is None:
            self._database = Database(read_settings(self.config).store.url)
        return self._database

    def outbox(self) -> int:
        """The number of entries that are not settled, apart from digests, which may wait, and questions to people."""
        with self.database.read() as connection:
            return int(connection.execute(_OPEN).scalar_one())

    def state(self, hold_id: str) -> State:
        with self.database.read() as connection:
            return State(connection.execute(select(hold.c.state).where(hold.c.hold_id == hold_id)).scalar_one())

    def idle(self) -> None:
        """Wait until all notices are sent."""
        self.until(lambda: self.outbox() == 0, "the outbox to be empty")

    def until(self, true: Callable[[], Any], why: str) -> None:
        """Wait until ``true``, restarting the guard if it ends."""

        def kept() -> Any:
            self.keep()
            return true()

        until(kept, f"{why}; {self.said()}")

    def arm(self, when: str, step: str, item: str) -> Path:
        """Kill the process whose transaction does this ``step`` to this ``item``, around its commit. Steps are named in
        database/failpoint.py. Returns the armed file."""
        (self.root / "new").write_text(f"{when} {step} {item}")
        return (self.root / "new").rename(self.armed / f"{when}-{step}")

    def verified(self) -> None:
        """Assert that the journal is one whole chain."""
        proof = self.ask(lambda store: store.journal.verify())
        assert proof.ok, proof


def fired(point: Path) -> bool:
    """Whether the armed process was killed."""
    return not point.exists()


_OPEN = (
    select(func.count())
    .select_from(outbox)
    .where(outbox.c.done.is_(False), outbox.c.doc.not_like('%"digest"%'), outbox.c.next_at < NEVER_US)
)


@contextmanager
def machine(root: Path, **more: Any) -> Iterator[tuple[Machine, Recorder]]:
    """A running machine and its relay. At the end the journal is verified."""
    with Recorder() as recorder:
        built = Machine(root / "guard", recorder.port, **more)
        synced(built)
        with built:
            yield built, recorder
            built.verified()


def synced(built: Machine) -> None:
    built.run("lists", "sync")
