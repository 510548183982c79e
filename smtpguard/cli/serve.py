"""smtpguard serve: open the ports, prepare database and policy, and supervise the parts until a stop; and run one part in a
process.

Exit status: 0 after a stop; 2 for wrong use, wrong settings and other lasting errors; 75 for an error that may pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import structlog

from smtpguard import __version__
from smtpguard.app.files import NO_ROOM, CannotStart, exposed, fleeting
from smtpguard.cli.context import FAILURES, CannotRun, Command, Context, TryAgain, sentence_of
from smtpguard.config.listeners import MilterListener, SmtpListener, lacking, place
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.config.yaml import load_yaml
from smtpguard.database.errors import StoreError, Unusable
from smtpguard.database.migrate import SchemaError
from smtpguard.observe import log
from smtpguard.processes import part, supervisor
from smtpguard.processes.child import Life
from smtpguard.processes.connections import Connections, most_connections
from smtpguard.processes.listeners import CannotListen, Listener, Wanted, inherited, open_all
from smtpguard.processes.relaylimit import Allowance
from smtpguard.processes.statusfile import Notifier, StatusFile
from smtpguard.processes.supervisor import Supervisor

if TYPE_CHECKING:
    from smtpguard.app.start import Prepared

PARTS: Mapping[str, tuple[str, str]] = {
    "proxy": ("smtpguard.app.proxy", "Proxy"),
    "milter": ("smtpguard.app.milter", "Milter"),
    "delivery": ("smtpguard.app.delivery", "Deliverer"),
    "console": ("smtpguard.app.console", "Console"),
    "metrics": ("smtpguard.app.metrics", "Metrics"),
    "alarms": ("smtpguard.app.alarms", "Alarms"),
}
"""The module and class of each part. A module is imported only where its part runs."""
_SHARES = {"milter": "proxy", "metrics": "alarms"}
"""The parts that run in the processes of another one, if the tree has both."""
_MANY = frozenset({"proxy", "milter"})  # a process for each worker
_READERS = frozenset({"proxy", "milter", "console"})
_GUARDED = frozenset({"proxy", "milter", "delivery"})
"""The parts with which a person is told when something is wrong."""
_WEB = ("console", "metrics")  # these parts open their ports themselves
_ENDED_AT_ONCE = frozenset({"console", "metrics", "alarms"})
_EXTEND_SECONDS = 15.0
_COLLECT = (10_000, 20, 20)
"""The new objects, and collections of younger generations, before a collection: a message leaves few cycles behind."""
_SWITCH_SECONDS = 0.0005
"""The longest that a thread keeps the interpreter's lock while others want it. With Python's 5 ms a message would wait longest for
the thread that writes a batch."""
_ARENA_MAX = -8
"""M_ARENA_MAX of mallopt(3): the most arenas of the C library's allocator."""


@click.command(cls=Command, json=None)
@click.option("--only", "only", type=click.Choice(list(PARTS)), multiple=True,
              help="Run only these parts. May be repeated.")  # fmt: skip
@click.option("--policy-from-file", "from_file", metavar="SHA256", default="",
              help="Put the policy file in force at this start, if it has this SHA-256.")  # fmt: skip
def command(context: Context, only: Sequence[str], from_file: str) -> None:
    """Run the guard until SIGTERM: proxy, milter, delivery, console, metrics and alarms in one process tree. SIGHUP reloads the policy.

    It starts with the policy in force, even if the policy file has changed; only an empty store takes the policy from the file.
    """
    from smtpguard.app import certificates, policies, start
    from smtpguard.app.eventlog import EventLog
    from smtpguard.app.relay import try_relay

    settings = context.settings()
    FAILURES.logged = structured = log.configure(settings.logging.format, settings.logging.addresses)
    if structured:
        log.take_over()
    kinds = tuple(dict.fromkeys(only)) or _configured(settings)
    guards = not _GUARDED.isdisjoint(kinds)
    if guards:
        kinds = tuple(dict.fromkeys((*kinds, "alarms")))
    if "milter" in kinds and not settings.listen.milter:
        raise CannotRun(f"{context.config}: listen.milter has no address and no socket")
    if "metrics" in kinds and not settings.metrics:
        raise CannotRun(f"{context.config}: metrics has no address")
    load(kinds)
    workers = settings.workers or len(os.sched_getaffinity(0))
    with _passing_errors():
        certificates.try_all(settings, kinds)
        try_relay(settings, kinds)
    names = processes(kinds, workers)
    with contextlib.ExitStack() as undo:
        if guards:
            undo.enter_context(_alarm_on_failure(settings))
        listeners = _listeners(settings, kinds)
        for listener in listeners:
            undo.callback(listener.close)
        _check_sockets(context, settings, listeners)
        start.migrate_apart(settings, _extending_start)
        with _passing_errors(), _extending_start():
            preparing = start.prepare(
                settings, by=context.user, parts=tuple(names), committed=EventLog(), from_file=from_file
            )
            done = asyncio.run(preparing)
        said = structlog.get_logger("smtpguard")
        said.info("starting", version=__version__, policy=done.sha256[:12], **_web(settings, kinds))
        for _, sentence in (*exposed(settings), *fleeting(settings)):
            said.warning(sentence)
        _log_policy(said, done)
        if done.policy is not None and not _READERS.isdisjoint(kinds):
            policies.share(settings, done.sha256, done.policy)
        keep()
        life = partial(run, settings=settings, kinds=kinds, parent=os.getpid())
        status = asyncio.run(_supervisor(settings, context.config.absolute(), names, life, listeners).run())
    if status and guards:
        lasting = status == supervisor.CANNOT_RUN
        what = "a part cannot run" if lasting else "its processes die again and again"
        _note_failed_start(settings, f"{what}: the log says why", lasting=lasting)
    try:
        asyncio.run(start.record_stop(settings, by=context.user, status=status))
    except (StoreError, CannotStart, OSError) as e:  # it has ended all the same, with its own status
        said.warning("the end could not be journalled", problem=sentence_of(e))
    raise click.exceptions.Exit(status)


def _log_policy(said: Any, done: Prepared) -> None:
    """Report what this start put in force, and whether the file beside it differs from the policy in force."""
    if done.put is not None:
        before = done.put.before
        told = said.warning if before else said.info
        told("the policy file was put in force at this start", policy=done.sha256[:12], before=before[:12] or None)
        for each in done.put.looser:
            said.warning("the policy may be looser", change=str(each))
        for warning in done.put.warnings:
            said.warning("policy", problem=str(warning))
    if done.unreadable:
        said.critical(done.unreadable)
    if done.file.differs:
        said.warning(
            "the policy file is not the policy in force, which stays in force",
            policy=done.sha256[:12],
            file=str(done.file.path),
            file_sha256=done.file.sha256[:12] or None,
            differing=list(done.file.differing),
            problem=done.file.problem or None,
        )


@contextlib.contextmanager
def _passing_errors() -> Iterator[None]:
    """Raise TryAgain for errors that may pass; let lasting ones through."""
    try:
        yield
    except (CannotStart, CannotListen) as e:
        if e.passing:
            raise TryAgain(str(e)) from None
        raise CannotRun(str(e)) from None
    except StoreError as e:
        if isinstance(e, (Unusable, SchemaError)):
            raise
        raise TryAgain(str(sentence_of(e))) from None
    except OSError as e:
        if e.errno in NO_ROOM:
            raise TryAgain(str(sentence_of(e))) from None
        raise


@contextlib.contextmanager
def _alarm_on_failure(settings: Settings) -> Iterator[None]:
    """Tell a person if the guard does not start, since the alarms part does not run then."""
    try:
        yield
    except (CannotRun, StoreError) as e:
        _note_failed_start(settings, str(sentence_of(e) or e), lasting=not isinstance(e, TryAgain))
        raise


def _note_failed_start(settings: Settings, why: str, *, lasting: bool) -> None:
    """Note a failed start. ``lasting``: there is no other attempt; a person who started it by hand sees the error."""
    from smtpguard.app import start

    asyncio.run(start.note_failed_start(settings, why, datetime.now(UTC), last=lasting and Notifier().managed))


@contextlib.contextmanager
def _extending_start() -> Iterator[None]:
    """Tell the service manager that work goes on: a migration, or a long list, may take longer than it waits for a start. It is told in
    a thread, since the work may block the event loop."""
    notifier, over = Notifier(), threading.Event()

    def extend() -> None:
        while not over.wait(_EXTEND_SECONDS):
            notifier.not_yet(4 * _EXTEND_SECONDS)

    telling = threading.Thread(target=extend, name="smtpguard-start", daemon=True)
    telling.start()
    try:
        yield
    finally:
        over.set()
        telling.join()


def _configured(settings: Settings) -> tuple[str, ...]:
    """Return the parts that the settings configure. A part without a place to listen is left out."""
    absent = {
        "console": not settings.console,
        "metrics": not settings.metrics,
        "milter": not settings.listen.milter,
        "proxy": not settings.listen.smtp,
    }
    return tuple(part for part in PARTS if not absent.get(part))


def _listeners(settings: Settings, kinds: Sequence[str]) -> list[Listener]:
    """Open the ports of these parts. It comes first: a port in use is reported at once, and one that is handed over serves from then
    on."""
    wanted = [
        Wanted(
            address=each.address,
            port=each.port,
            implicit_tls=each.tls is not None and each.tls.mode == "implicit",
            proxy=each.proxy,
            clients=each.admitted,
        )
        for each in settings.listen.smtp
        if "proxy" in kinds
    ]
    wanted += [
        Wanted(
            part="milter",
            taker="proxy" if "proxy" in kinds else "milter",
            address=each.address,
            port=each.port or 0,
            clients=each.admitted,
            unix=each.unix,
            mode=int(each.mode, 8),
            group=each.group,
        )
        for each in settings.listen.milter
        if "milter" in kinds
    ]
    with _passing_errors(), contextlib.ExitStack() as undo:
        opened = open_all(wanted, inherited())
        for each in opened:
            undo.callback(each.close)
        for kind in _WEB:
            served = getattr(settings, kind) if kind in kinds else None
            # Tried here, so that an error is reported at once; but mail goes on without it, and the part tries again.
            if served is not None and _GUARDED.isdisjoint(kinds):
                for tried in open_all([Wanted(address=served.address, port=served.port)]):
                    tried.close()
        undo.pop_all()
    return opened


def _check_sockets(context: Context, settings: Settings, listeners: Sequence[Listener]) -> None:
    """Check sockets by the address that they are bound to, whoever bound them: those that other hosts reach name their clients, and no
    relay is one of them. Those of the settings that are not open here prove nothing. Raises Broken."""
    from smtpguard.app.ownports import Bound, to_itself

    lacks, ours = [], list[Bound]()
    for each in listeners:
        kind = "smtp" if each.part == "proxy" else "milter"
        said: SmtpListener | MilterListener = getattr(settings.listen, kind)[each.index]
        address, port = str(each.socket.getsockname()[0]), each.socket.getsockname()[1]
        if each.unix is None:
            alone = address == "::" and each.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            ours.append(Bound(("listen", kind, each.index), address, port, bool(alone)))
        if said.lacks_clients(address):
            bound = None if address == said.address else each.name
            lacks.append((kind, each.index, said, bound))
    # No name is resolved: a start does not wait for DNS.
    loops = list(to_itself(settings, ours, ask=False))
    if lacks or loops:
        document = load_yaml(context.config)
        problems = [lacking(document, (k, n), said, settings.trust, bound) for k, n, said, bound in lacks]
        raise Broken([*problems, *(document.problem(place, text) for place, text in loops)])


def _web(settings: Settings, kinds: Sequence[str]) -> dict[str, str]:
    """Return the URLs of console and metrics."""
    said = {}
    if "console" in kinds and (console := settings.console):
        from smtpguard.app.console import where  # loaded with the part

        said["console"] = where(console, console.port).url
    if "metrics" in kinds and (metrics := settings.metrics):
        said["metrics"] = f"http://{place(metrics.address, metrics.port)}/metrics"
    return said


def _supervisor(
    settings: Settings, config: Path, parts: Sequence[str], life: Life, listeners: Sequence[Listener]
) -> Supervisor:
    from smtpguard.app import start
    from smtpguard.app.clock import STEADY

    wanted, most = settings.limits.connections, most_connections(parts)
    if listeners and most < wanted:
        what = "fewer connections are taken than limits.connections: a process may have too few file descriptors"
        structlog.get_logger("smtpguard").warning(what, connections=most, wanted=wanted)
    return Supervisor(
        parts=parts,
        life=life,
        listeners=listeners,
        connections=Connections(total=min(wanted, most), per_client=settings.limits.per_client, trusted=settings.trust),
        notifier=Notifier(),
        # -P: run the installed smtpguard, not a module of that name in the current folder.
        reload=[sys.executable, "-P", "-m", "smtpguard", "-c", str(config), "reload"],
        shows=("metrics", "alarms"),
        pages=() if _GUARDED.isdisjoint(parts) else ("console",),
        status_file=StatusFile(settings.state),
        started=partial(start.note_lasting_start, settings),
        ticks=STEADY.watch,  # so that a part that is started again knows of a jump, and since when
        places=[relay.connections for relay in settings.relays.values()],
        caps=[{"delivery": max(1, relay.connections // 4), "alarms": 1} for relay in settings.relays.values()],
    )


def load(names: Iterable[str]) -> None:
    """Import the code of these parts, which their processes then share. Call it before anything else is prepared, and before any
    thread: then classes are in the state in which the parts use them, and all memory is in one arena."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)  # for all threads, which rarely run at once
    for name in names:
        importlib.import_module(PARTS[name][0])
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")
    gc.freeze()  # imports leave no garbage, and ``keep`` would look for it in all that they made


def keep() -> None:
    """Keep all objects that exist now, which the parts will share, out of every later garbage collection, here and in the parts."""
    for value in ("", 0):  # logging asks it: the first time Python asks all subclasses, and writes to them
        isinstance(value, Mapping)
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what only the preparation needed
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def processes(kinds: Sequence[str], workers: int) -> list[str]:
    """Return the names of the processes. One guard in each worker serves both proxy and milter, and the process that watches the
    others serves their numbers too."""
    own = [kind for kind in kinds if _SHARES.get(kind) not in kinds]
    return [name for kind in own for name in [kind] * (workers if kind in _MANY else 1)]


def run(name: str, process: str, channel: int, said: str, settings: Settings, kinds: Sequence[str], parent: int) -> int:
    """Run a part in this process, which is called ``process``. ``channel``: the descriptor of its channel to the
    supervisor, whose pid is ``parent``. ``said``: the beginning of why it could not start before, if the log has it.
    ``kinds``: all parts of the tree. Returns the exit status."""
    # One that outlives its supervisor would keep its port from the next one. The others finish their work.
    part.die_with_parent(signal.SIGKILL if name in _ENDED_AT_ONCE else signal.SIGTERM)
    if os.getppid() != parent:  # it ended before prctl was called
        return supervisor.TRY_AGAIN
    log.speaks(process)
    try:
        one = _make_part(name, settings, kinds)
        gc.freeze()
        sys.setswitchinterval(_SWITCH_SECONDS)
        with socket.socket(fileno=channel) as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(part.run(one, sock))
    except (CannotStart, Broken, StoreError) as e:
        passing = e.passing if isinstance(e, CannotStart) else isinstance(e, StoreError) and not isinstance(e, Unusable)
        status = supervisor.TRY_AGAIN if passing else supervisor.CANNOT_RUN
        told = f"{name}: the store: {e}" if isinstance(e, StoreError) else f"{name}: {e}"
        if not said or not str(e).startswith(said):
            log.failure(str(e) if isinstance(e, Broken) else told, status=status)
        return status
    return 0


def _make_part(name: str, settings: Settings, kinds: Sequence[str]) -> part.Part:
    made = _part(name, settings)
    made.places = [Allowance(relay.connections, n) for n, relay in enumerate(settings.relays.values())]
    if name == "alarms" and "metrics" in kinds:
        made.metrics = _part("metrics", settings)
    return cast("part.Part", made)


def _part(name: str, settings: Settings) -> Any:
    module, kind = PARTS[name]
    return getattr(importlib.import_module(module), kind)(settings)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
