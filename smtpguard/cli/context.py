"""The context of every command: the path of the settings, the way to answer, and the services, each built on first use.

A command's module has a ``command``:

    @click.command(cls=Command)
    async def command(context: Context) -> None: ...

It raises CannotRun (exit 2) or NotFine (exit 1), each with one sentence.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pwd
import re
import sqlite3
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from smtpguard.app.services import Brakes, Services
    from smtpguard.config.settings import Settings
    from smtpguard.journal.chain import Pair
    from smtpguard.lists.digest import Digester
    from smtpguard.mail.address import Address
    from smtpguard.policy.parse import Policy
    from smtpguard.store.store import Store

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Failures:
    """Reports why a command ends: in a line of text; for ``serve``, once its log is JSON, as the log's last entry."""

    logged = False

    def report(self, sentence: str, status: int, error: BaseException | None = None) -> None:
        if self.logged:
            from smtpguard.observe import log

            log.failure(sentence, status=status, error=error)
            return
        if error is not None:
            traceback.print_exception(error)
        has_place = sentence.split(": ")[0].count(":") >= 2  # a problem in a file: "file:line:column: what"
        click.echo(sentence if has_place else f"smtpguard: {sentence}", err=True)


FAILURES = Failures()


class CannotRun(click.ClickException):
    """Wrong use, or something that the command needs is missing."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        FAILURES.report(self.message, self.exit_code)


class TryAgain(CannotRun):
    """``serve`` cannot run now, and may be able to soon: the service manager should start it again (EX_TEMPFAIL)."""

    exit_code = os.EX_TEMPFAIL


class NotFine(CannotRun):
    """The command ran, and the thing asked about is not fine."""

    exit_code = 1


class Command(click.Command):
    """A command that gets the Context, and is awaited if it is a coroutine. ``-c FILE`` and ``--json`` may follow it as well as
    precede it. ``json``: the help of that option; None if the command has no output for programs."""

    def __init__(
        self,
        name: str | None = None,
        *,
        json: str | None = "One JSON object a line.",
        params: Sequence[click.Parameter] | None = None,
        callback: Callable[..., Any] | None = None,
        **more: Any,
    ) -> None:
        own = [click.Option(["--json"], is_flag=True, expose_value=False, callback=_json, help=json)] if json else []
        own.append(
            click.Option(["-c", "--config", "config"], type=click.Path(path_type=Path), metavar="FILE",
                         expose_value=False, callback=_config, help="The settings file.")
        )  # fmt: skip
        work = None if callback is None else _as_callback(callback)
        super().__init__(name, params=[*(params or ()), *own], callback=work, **more)


def _json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.obj.json |= value


def _config(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.obj.config, context.obj.named = value, True


def _as_callback(work: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a command's function for click. It exits 1 if the services refuse, or a mailing or a hold does not exist. Ctrl-C ends
    ``--follow``, and is no error there. A group's own work is done only without a command."""

    def run(**given: Any) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            return
        try:
            doing = work(context.obj, **given)
            if asyncio.iscoroutine(doing):
                asyncio.run(doing)
        except KeyboardInterrupt:
            if not given.get("follow"):
                raise
            click.echo(err=True)
        except Exception as error:
            from smtpguard.holds.model import Refused
            from smtpguard.mailings.model import NoSuch

            if isinstance(error, NoSuch):  # a KeyError, whose own text is quoted
                raise NotFine(str(error.args[0])) from None
            if isinstance(error, Refused):
                raise NotFine(str(error)) from None
            raise

    return run


class Group(Command, click.Group):
    """A group whose help shows the first sentence of each of its commands whole."""

    command_class = Command
    group_class = type

    def __init__(self, name: str | None = None, *, json: str | None = None, **more: Any) -> None:
        super().__init__(name, json=json, **more)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        texts = {name: " ".join((command.help or "").split()) for name, command in sorted(self.commands.items())}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, re.split(r"\.(?: (?=[A-Z])|\Z)", text)[0] + ".") for name, text in texts.items()]
            )


class AtLeast(click.IntRange):
    """A whole number of at least ``min``, and not above what every database takes."""

    _MOST = 10**12

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        if number > self._MOST:
            self.fail(f"{number} is too large; expected at most {self._MOST}", param, ctx)
        return number


@dataclass(slots=True)
class Context:
    """The context that every command gets (``Command``)."""

    config: Path
    json: bool = False
    named: bool = True
    """Whether ``config`` was given, or found at a usual place."""
    _settings: Settings | None = None

    def settings(self) -> Settings:
        """Read and check the settings. Raises Broken."""
        from smtpguard.config.settings import read_settings

        if self._settings is None:
            self.must_exist(self.config)
            self._settings = read_settings(self.config)
        return self._settings

    def settings_as_far(self, needed: Collection[str]) -> Settings:
        """Read the settings as far as they can be read, for a command that must work although the file has mistakes, which go to
        standard error. Raises Broken if a mistake is in ``needed``, keys of the settings."""
        from smtpguard.config.settings import read_needed

        self.must_exist(self.config)
        settings, problems = read_needed(self.config, needed)
        for problem in problems:
            click.echo(f"{problem}", err=True)
        if problems:
            click.echo("smtpguard: the settings have errors, and the sections with errors are ignored", err=True)
        return settings

    def must_exist(self, path: Path) -> None:
        """Check that a file exists. Raises CannotRun, with what to do."""
        if path.exists():
            return
        if path == self.config and not self.named:
            raise CannotRun(
                "no settings: neither /etc/smtpguard/smtpguard.yaml nor config/smtpguard.yaml exists; name the file with -c FILE"
            )
        raise CannotRun(f"{path}: no such file")

    def policy(self) -> Policy:
        """Read the policy in the file, which may differ from the one in force. Raises Broken."""
        from smtpguard.app.files import read_policy

        return read_policy(self.settings())

    def services(self) -> AbstractAsyncContextManager[Services]:
        """Open the store and its services, without a listener."""
        from smtpguard.app.services import services

        return services(self.settings())

    def opened(self, *, reads: bool = False) -> AbstractAsyncContextManager[tuple[Store, Digester]]:
        """Open the store and the digester alone. ``reads``: a read-only store is enough."""
        from smtpguard.app.services import opened

        return opened(self.settings(), reads=reads)

    @asynccontextmanager
    async def store(self, *, reads: bool = False) -> AsyncIterator[Store]:
        async with self.opened(reads=reads) as (store, _):
            yield store

    async def journal_export(
        self, store: Store, id: str = "journal", *, viewed: bool = False, words: str = "", **data: object
    ) -> None:
        """Journal that this user exported, or only ``viewed``, what is kept of ``id``. ``words``: those of a search."""
        from smtpguard.journal.event import Event, Kind

        private = {"actor": (self.user,)} | ({"comment": (words,)} if words else {})
        kind = Kind.VIEWED if viewed else Kind.EXPORTED
        await store.journal.record([Event(kind=kind, id=id, at=store.now(), data=data, private=private)])

    def brakes(self, settings: Settings) -> AbstractAsyncContextManager[Brakes]:
        """Open the store and what freezes, without the policy in force: a freeze must not wait for it."""
        from smtpguard.app.services import brakes

        return brakes(settings)

    def print_json(self, row: Mapping[str, Any]) -> None:
        """Print one JSON object on one line: times in UTC with Z, absent values as null."""
        click.echo(as_line(row))

    def answer(self, row: Mapping[str, Any], text: str | Iterable[str], *, err: bool = False) -> None:
        """Print ``row`` for a program, or ``text`` for a person: a line, or several. ``err``: print the text to standard error."""
        if self.json:
            self.print_json(row)
            return
        for line in [text] if isinstance(text, str) else text:
            click.echo(line, err=err)

    def answers(self, rows: Iterable[Mapping[str, Any]], text: Iterable[str]) -> None:
        for one in rows if self.json else text:
            if isinstance(one, str):
                click.echo(one)
            else:
                self.print_json(one)

    @property
    def user(self) -> str:
        """The operating system's user, who is journalled beside the address that a command claims; under sudo also the user who called
        it. $USER and $LOGNAME are not read, since anybody can set them."""
        name = _name_of(os.getuid())
        by = os.environ.get("SUDO_UID", "")
        # It is set by sudo, or by root, who can write anything anyway.
        if os.getuid() == 0 and by.isdecimal() and int(by) > 0:
            name += f" (sudo by {_name_of(int(by))})"
        return name


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name
        return str(uid)


def as_line(row: Mapping[str, Any]) -> str:
    from smtpguard.observe.terminal import escaped

    return escaped(json.dumps(row, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        from smtpguard.journal.chain import utc_text

        return utc_text(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def write_new(files: Mapping[Path, bytes], *, mode: int = 0o600) -> None:
    """Write new files, each as a whole; if one of them cannot be written, none. The first is last to get its name, so once it is
    there, all are. Raises CannotRun."""
    with ExitStack() as stack:
        naming: dict[Path, Callable[[], None]] = {}
        for path, octets in files.items():
            with _refused(path):
                naming[path] = stack.enter_context(_written(path, octets, mode))
        with ExitStack() as undo:
            for path in reversed(naming):
                with _refused(path):
                    naming[path]()
                undo.callback(path.unlink, missing_ok=True)
            undo.pop_all()


@contextmanager
def _written(path: Path, octets: bytes, mode: int) -> Iterator[Callable[[], None]]:
    """Write a file without a name, so that nothing is left of it if this process is killed. Yields what names it, if there
    is none at ``path``. A file system that has no such files, as of a memory stick, gets a draft. Raises OSError."""
    from smtpguard.config.statefiles import drafted

    try:
        unnamed = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    else:
        with os.fdopen(unnamed, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(unnamed)
            os.fchmod(unnamed, mode)
            # a directory's descriptor makes Python call linkat(2), which alone follows the link in /proc
            yield partial(os.link, f"/proc/self/fd/{unnamed}", path, src_dir_fd=unnamed)
        return
    with drafted(path, octets) as draft:
        draft.chmod(mode)

        def name() -> None:
            path.touch(exist_ok=False)
            draft.replace(path)

        yield name


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotRun(f"{path}: {error.strerror}") from None


def terminal() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty()


def sentence_of(error: Exception) -> str | None:
    """Return what went wrong, in one line, and what to do if a file is another user's. None for an internal error."""
    said = _error_text(error)
    if said and said.endswith(os.strerror(errno.EACCES)):
        return f"{said}; run it as root, or as the user of smtpguard serve"
    return said


def _error_text(error: Exception) -> str | None:
    from smtpguard.app.files import CannotStart
    from smtpguard.config.problem import Broken
    from smtpguard.database.errors import CommitUnknown, StoreError

    if isinstance(error, (Broken, CannotStart)):
        return str(error)
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}"
    if isinstance(error, CommitUnknown):
        return f"the store: {error}; it is not known whether it was written: look before you repeat it"
    if isinstance(error, StoreError):
        return f"the store: {error}"
    if isinstance(error, sqlite3.Error) or type(error).__module__.startswith("sqlalchemy."):
        return f"the store: {str(error).splitlines()[0]}"
    return None


def moment(option: str, text: str, now: datetime) -> datetime:
    """Parse a time in an option. Raises CannotRun."""
    from smtpguard.incidents import query  # a freeze should not wait for it

    try:
        return query.moment(text, now)
    except ValueError as error:
        raise CannotRun(f"{option}: {error}") from None


def mailbox(option: str, text: str) -> Address:
    """Parse an address in an option. Raises CannotRun."""
    from smtpguard.mail.address import Address, BadAddress

    try:
        return Address.parse(text)
    except BadAddress as error:
        raise CannotRun(f'{option}: "{text}" is no address: {error}') from None


def length(option: str, text: str) -> timedelta:
    """Parse a length of time in an option. Raises CannotRun."""
    from smtpguard.config.durations import seconds
    from smtpguard.config.problem import Invalid

    try:
        return timedelta(seconds=seconds(text))
    except Invalid as e:
        raise CannotRun(f"{option}: {e.text}; expected {e.expected}") from None


def period(since: str, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Return the period that ``a_since`` and ``an_until`` give. Raises CannotRun."""
    begin = moment("--since", since, now)
    end = now if until is None else moment("--until", until, now)
    if end <= begin:
        raise CannotRun(f"--until: {end:%Y-%m-%dT%H:%M} is not after --since, {begin:%Y-%m-%dT%H:%M}")
    return begin, end


def roughly(seconds: float) -> str:
    """Write a length of time in its largest unit, as a whole number: "7 d", "12 min"."""
    seconds = round(seconds)
    size, unit = next((each for each in ((86_400, "d"), (3_600, "h"), (60, "min")) if seconds >= each[0]), (1, "s"))
    return f"{seconds // size} {unit}"


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Return lines whose columns are as wide as their widest cells, save the last one. ``right``: the columns of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *cells, last in rows:
        padded = (cell.rjust(widths[n]) if n in right else cell.ljust(widths[n]) for n, cell in enumerate(cells))
        yield "  ".join((*padded, last)).rstrip()


def may_name(store: Store) -> None:
    """Check that it can be journalled that names were shown. Raises CannotRun."""
    if store.unwritable:
        raise CannotRun(
            f"showing names must be journalled, and {store.unwritable}. To go on, leave the names out, or copy the "
            "whole folder to where you can write"
        )


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on standard error, for people: verifying a year takes minutes."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def advance(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        yield advance


async def judged(store: Store, since: datetime, until: datetime) -> AsyncIterator[Pair]:
    """Yield the verdicts of a period, in order, with a progress bar."""
    from smtpguard.journal.scan import verdicts

    await store.journal.catch_up()
    with progress("Reading the journal") as moved:
        async for page in verdicts(store, since, until, moved):
            for one in page:
                yield one


def options(*some: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds several options, in this order."""

    def add(command: _Command) -> _Command:
        for option in reversed(some):
            command = option(command)
        return command

    return add


as_address = click.option("--as", "address", metavar="ADDRESS", required=True, help="Your address.")
an_until = click.option("--until", default=None, metavar="TIME",
                        help="The end of the period, as --since. Default: now.")  # fmt: skip


def a_since(default: str) -> Callable[[_Command], _Command]:
    text = '"7d", "12h", or 2026-03-02T09:00 (UTC).'
    return click.option("--since", default=default, show_default=True, metavar="TIME", help=text)
