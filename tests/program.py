"""Start smtpguard as a separate process, forked from one that has already imported it; what tests of one process share.

So all workers of a run pay for the imports once, not at each of thousands of starts. The process gets what a shell
would give it: arguments, environment, working directory, and three descriptors. The real start is tested in tests/cli,
tests/demo and tests/processes.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import pkgutil
import random
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from setproctitle import setproctitle
from sqlalchemy import Connection, Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

from smtpguard.database import migrate
from smtpguard.database.schema import SCHEMA
from smtpguard.policy import parse
from smtpguard.reading import topics

_ROOT = Path(__file__).parent.parent
_MOST = 1 << 20


class Program:
    """The parts of subprocess.Popen that tests use: ``pid``, ``returncode``, ``poll``, ``wait``, ``send_signal``,
    ``terminate``, ``kill``."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdout: IO[bytes],
        stderr: IO[bytes],
        stdin: IO[bytes] | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        listening: socket.socket | None = None,
        powerless: bool = False,
        executable: str = "",
        module: str = "",
    ) -> None:
        """``argv``: the arguments after ``smtpguard``, or of ``main`` in ``module``. ``stdin``: by default /dev/null. ``listening``: a socket passed as a
        service manager does (sd_listen_fds(3)). ``powerless``: without root's capabilities, so that file permissions
        apply. ``executable``: the program by which smtpguard starts itself again (see Door)."""
        self.args = ["smtpguard", *argv]
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._status, theirs = os.pipe()
        weakref.finalize(self, os.close, self._status)
        try:
            with open(os.devnull, "rb") as nothing:  # noqa: PTH123
                self.pid = _Forker.here().start(
                    {
                        "argv": list(argv),
                        "cwd": str(cwd or Path.cwd()),
                        "env": dict(os.environ if env is None else env),
                        "powerless": powerless,
                        "executable": executable,
                        "module": module,
                    },
                    [
                        theirs,
                        (stdin or nothing).fileno(),
                        stdout.fileno(),
                        stderr.fileno(),
                        *([listening.fileno()] if listening is not None else ()),
                    ],
                )
        finally:
            os.close(theirs)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        """Wait for the exit status. The forker writes it into a pipe of this process. The pipe stays open, so two
        threads may wait."""
        status = select.poll()  # not select.select, which takes no descriptor above 1023
        status.register(self._status, select.POLLIN)
        if self.returncode is None and status.poll(None if timeout is None else timeout * 1000):
            with self._lock:
                if self.returncode is None:
                    said = os.read(self._status, 16)
                    # end of file without a status: the forker is dead, and so is everything that it started
                    self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    powerless: bool = False,
    executable: str = "",
    module: str = "",
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, with the output captured as text. For ``powerless``, ``executable`` and ``module`` see Program."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        program = Program(
            argv, stdout=out, stderr=err, cwd=cwd, env=env, powerless=powerless, executable=executable, module=module
        )
        try:
            status = program.wait(timeout)
        except BaseException:
            program.kill()
            program.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess(program.args, status, *texts)


def share_compiled() -> None:
    """Let all stores, policies and engines of this process share what they compile: SQL statements, vocabularies, and the
    statements of a new SQLite database. That is a fifth of a test with a store, and most of one that checks a policy.
    Call it before smtpguard's parts are imported."""
    statements: Any = LRUCache(4000)  # by dialect, statement and parameters
    begin = Engine.__init__

    def begun(engine: Engine, *given: Any, **more: Any) -> None:
        begin(engine, *given, **more)
        engine._compiled_cache = statements

    Engine.__init__ = begun  # type: ignore[assignment,method-assign]
    DefaultDialect.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
    DefaultDialect.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]

    parse._remembered = lru_cache(64)(parse._remembered.__wrapped__)

    compile_, compiled = topics.compile_vocabularies, {}

    def vocabularies(documents: Mapping[str, Mapping[str, object]]) -> topics.Vocabularies:
        if (key := repr(documents)) not in compiled:
            compiled[key] = compile_(documents)
        return compiled[key]

    topics.compile_vocabularies = vocabularies

    upgrade = migrate.upgrade
    created: list[str] = []

    def upgraded(connection: Connection, to: str = SCHEMA) -> None:
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name != "sqlite" or to != SCHEMA or migrate.revision(connection) is not None:
            upgrade(connection, to)
        elif created:
            for statement in created:
                driver.execute(statement)
        else:
            upgrade(connection)
            created.extend(s for s in driver.iterdump() if s not in ("BEGIN TRANSACTION;", "COMMIT;"))

    migrate.upgrade = upgraded

    from smtpguard.store import front

    front.SIZE, front.AGAIN = 1 << 20, 1 << 18  # 8 MB of zeros for each are a tenth of such a test


class _Forker:
    """The process that has imported everything, one for all test workers of a run: whoever needs it first starts it, and
    it ends with the last of them."""

    _made: _Forker | None = None

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(8)
        while not self._connected(f"\0smtpguard-tests-forker-{run}"):
            time.sleep(0.01)
        self._asking = threading.Lock()
        atexit.register(self.close)

    def _connected(self, name: str) -> bool:
        """Connect to it; False while another worker has bound its name and does not listen yet."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            try:
                listening.bind(name)
            except OSError:
                return self._socket.connect_ex(name) == 0
            listening.listen(64)
            number = listening.fileno()
            argv = [sys.executable, "-m", "tests.program", str(number)]
            self._process = subprocess.Popen(argv, pass_fds=[number], cwd=_ROOT)
            self._socket.connect(name)
            return True

    @classmethod
    def here(cls) -> _Forker:
        if cls._made is None or cls._made._owner != os.getpid():
            cls._made = cls()
        return cls._made

    def start(self, wanted: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """Fork, and return the pid. Descriptors: the pipe for the exit status; standard input, output and error;
        optionally a socket to listen on."""
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(wanted).encode()], descriptors)
            answer = self._socket.recv(16)
        if not answer:
            raise RuntimeError("the process that starts smtpguard has ended")
        return int(answer)

    def close(self) -> None:
        """Returns when all processes that were started here have ended."""
        if self._owner == os.getpid():
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.recv(16)
            self._socket.close()


class Door:
    """Let other programs, such as a shell, fork smtpguard through ``tool``, which they run in place of Python.

    ``tool -P -m smtpguard WORDS`` runs the command with the caller's descriptors, working directory and environment,
    and exits with its status. ``tool serve WORDS`` prints the pid and leaves the process running. Any other arguments
    run Python.
    """

    def __init__(self, tool: Path) -> None:
        name = f"smtpguard-tests-{os.getpid()}-{secrets.token_hex(8)}"
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(f"\0{name}")
        self._listening.listen(16)
        tool.write_text(_TOOL.format(python=sys.executable, name=name))
        tool.chmod(0o755)
        threading.Thread(target=self._open, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _open(self) -> None:
        while True:
            try:
                asking, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._let_in, args=(asking,), daemon=True).start()

    @staticmethod
    def _let_in(asking: socket.socket) -> None:
        with asking:
            wanted, given, _, _ = socket.recv_fds(asking, _MOST, 3)
            status, theirs = os.pipe()
            try:
                request = json.loads(wanted)
                pid = _Forker.here().start(request, [theirs, *given])
            finally:
                for descriptor in (theirs, *given):
                    os.close(descriptor)
            with open(status, "rb") as said, contextlib.suppress(OSError):  # noqa: PTH123
                asking.send(str(pid).encode() if request["serves"] else said.read() or b"-9")


_TOOL = """\
#!{python} -IS
import json, os, socket, sys
serves, words = sys.argv[1:2] == ["serve"], sys.argv[1:]
if not serves and words[:3] != ["-P", "-m", "smtpguard"]:
    os.execv({python!r}, [{python!r}, *words])
asked = {{"argv": words[1 if serves else 3:], "cwd": os.getcwd(), "env": dict(os.environ), "serves": serves}}
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.connect("\\0{name}")
socket.send_fds(door, [json.dumps(asked).encode()], [0, 2 if serves else 1, 2])
said = int(door.recv(16))
if serves:
    print(said)
else:
    sys.exit(said if said >= 0 else 128 - said)
"""


def _serve(number: int) -> None:
    """Fork on request and report each exit, until the last test worker has closed its connection."""
    _make_ready()
    # now, before a child has another environment: the first call fixes the room for a title
    setproctitle("smtpguard's tests: start programs")
    gc.collect()
    gc.freeze()
    listening = socket.socket(fileno=number)
    workers: set[socket.socket] = set()
    running: dict[int, _Running] = {}  # by pidfd
    while True:
        watched: list[Any] = [listening, *workers, *running]
        ready, _, _ = select.select(watched, [], [])
        for one in ready:
            if one is listening:
                workers.add(listening.accept()[0])
            elif one in workers:
                if not _forked(one, running):
                    _end(one, running)
                    workers.remove(one)
                    if not workers:
                        return
            elif one in running:
                _report(one, running)


class _Running(NamedTuple):
    """``told``: the pipe for the exit status."""

    pid: int
    told: int
    worker: socket.socket


def _report(process: int, running: dict[int, _Running]) -> None:
    pid, told, _ = running.pop(process)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(told)
    os.close(process)


def _end(worker: socket.socket, running: dict[int, _Running]) -> None:
    """Kill what an interrupted test left, and answer its worker by closing."""
    for process, one in list(running.items()):
        if one.worker is worker:
            os.kill(one.pid, signal.SIGKILL)
            _report(process, running)
    worker.close()


def _make_ready() -> None:
    """Import everything that a command or part needs, hold a message, release and deliver it, do once what is done
    regularly, and report it. Forked processes inherit what this caches: policies, compiled statements and templates."""
    share_compiled()
    import smtpguard.app
    import smtpguard.cli

    for package in (smtpguard.app, smtpguard.cli):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    from smtpguard.database import engine

    engine._ROOMY = math.inf  # type: ignore[assignment]  # a log at its full length is 30 MB for a few messages
    asyncio.run(_a_message())
    for thread in threading.enumerate():  # some are about to end
        if thread is not threading.current_thread():
            thread.join(120)
    assert threading.active_count() == 1, "a fork copies only the calling thread"


async def _a_message() -> None:
    import pytest

    from smtpguard.config.documents import policy_documents, shipped
    from smtpguard.incidents.query import IncidentQuery
    from tests.catalogue.wholeguard import personal_mail, whole_guard
    from tests.faults import machine
    from tests.peers import chain

    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        async with whole_guard(Path(folder), patch) as guard:
            await guard.release(await guard.held(personal_mail()))
            await guard.deliver()
            for _, _, work in guard.office._regularly():
                await work()
            await guard.office._store.journal.incident(IncidentQuery(since=0), prove=True)
        for text in ((shipped() / "policy.yaml").read_text(), machine.policy(), chain.POLICY + chain.rules()):
            (Path(folder) / "policy.yaml").write_text(text)
            parse.parse(policy_documents(Path(folder) / "policy.yaml"))


def _forked(asked: socket.socket, running: dict[int, _Running]) -> bool:
    """Fork one process. False: the test worker has closed the socket."""
    wanted, descriptors, _, _ = socket.recv_fds(asked, _MOST, 5)
    if not wanted:
        return False
    request, [told, *given] = json.loads(wanted), descriptors
    pid = os.fork()
    if pid == 0:
        _become(request, given)
    for descriptor in given:
        os.close(descriptor)
    running[os.pidfd_open(pid)] = _Running(pid, told, asked)
    asked.send(str(pid).encode())
    return True


def _become(request: Mapping[str, object], given: Sequence[int]) -> None:
    """Run smtpguard in the forked child. Never returns."""
    status = 1
    try:
        for number, descriptor in enumerate(given):
            os.dup2(descriptor, number)
        os.closerange(len(given), os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(request["env"])  # type: ignore[call-overload]
        if len(given) > 3:
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
        os.chdir(str(request["cwd"]))
        if request.get("powerless"):
            _give_up_power()
        sys.executable = request.get("executable") or sys.executable  # type: ignore[assignment]
        setproctitle("smtpguard " + " ".join(request["argv"]))  # type: ignore[arg-type]
        sys.argv = ["smtpguard", *request["argv"]]  # type: ignore[misc]
        from smtpguard.database import failpoint

        folder = os.environ.get("SMTPGUARD_FAILPOINT")
        failpoint._folder = (
            Path(folder) if folder else None
        )  # failpoint reads the environment at import, which was in the parent
        random.seed()
        if request.get("module"):
            importlib.import_module(str(request["module"])).main(*request["argv"])  # type: ignore[misc]
        else:
            from smtpguard.cli import main

            main()
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _give_up_power() -> None:
    """Drop all capabilities (capset(2))."""
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset((ctypes.c_uint32 * 2)(0x20080522, 0), nothing):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
