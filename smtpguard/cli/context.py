"""What every command gets: the path of the settings, the way to answer, and the services, each built on first use.

A command's module has a ``command``:

    @click.command()
    @click.option("--json", "as_json", is_flag=True)      # --json may stand after the command as well
    @click.pass_obj
    def command(context: Context, as_json: bool) -> None: ...

It raises CannotRun (exit 2) or NotFine (exit 1), each with one sentence.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sqlite3
import traceback
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from smtpguard.app.services import Brakes, Services
    from smtpguard.config.settings import Settings
    from smtpguard.policy.parse import Policy


T = TypeVar("T")


class Failures:
    """How a command says why it ends: in one line of text; ``serve`` as the last entry of its log once that is JSON."""

    logged = False

    def tell(self, sentence: str, status: int, error: BaseException | None = None) -> None:
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
    """Wrong use, or something that it needs is not there."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        FAILURES.tell(self.message, self.exit_code)


class TryAgain(CannotRun):
    """``serve`` cannot run now, and may be able to soon: whoever started it is to start it again (EX_TEMPFAIL of sysexits.h)."""

    exit_code = os.EX_TEMPFAIL


class NotFine(CannotRun):
    """It ran, and the thing asked about is not fine."""

    exit_code = 1


@dataclass(slots=True)
class Context:
    """Handed to every command by click (``@click.pass_obj``)."""

    config: Path
    json: bool = False
    named: bool = True
    """Whether ``config`` was given, or found where it is looked for."""
    planned: Path | None = None
    """A policy file that stands for the settings' own."""
    hurried: bool = False
    """Whether the settings were read no further than was needed at once."""

    def settings(self) -> Settings:
        """Read and checked. Raises BadConfiguration."""
        from smtpguard.app.files import read_settings

        self.must_exist(self.config)
        return read_settings(self.config)

    def settings_as_far(self, needed: Collection[str]) -> Settings:
        """As far as they can be read, for what has to work although the file has mistakes; those are told on standard error. Raises
        BadConfiguration where one is in ``needed``, keys of the settings."""
        from smtpguard.config.partial import read_needed

        self.must_exist(self.config)
        settings, problems = read_needed(self.config, needed)
        for problem in problems:
            click.echo(f"{problem}", err=True)
        if problems:
            click.echo("smtpguard: the settings have mistakes, and what they are in is left out here", err=True)
        return settings

    def must_exist(self, path: Path) -> None:
        """Raises CannotRun, and says what to do, where there is no such file."""
        if path.exists():
            return
        if path == self.config and not self.named:
            raise CannotRun(
                "no settings: neither /etc/smtpguard/smtpguard.yaml nor config/smtpguard.yaml is there; -c FILE names them"
            )
        raise CannotRun(f"{path}: no such file")

    def policy(self) -> Policy:
        """The policy as the file has it now, which need not be the one in force. Raises config.problem.Broken."""
        from smtpguard.app.files import read_policy

        return read_policy(self.settings())

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Services]:
        """The store and what works on it, without a listener: for held, audit and reload."""
        from smtpguard.app.services import services

        async with services(self.settings()) as opened:
            yield opened

    @asynccontextmanager
    async def brakes(self, needed: Collection[str]) -> AsyncIterator[Brakes]:
        """The store and what freezes it, without the policy in force: a freeze is not to wait for it. Mistakes in keys of the
        settings other than ``needed`` do not matter. Who needs no more than the store does not even wait for them to be read: they are
        told by ``tell_mistakes``."""
        from smtpguard.app.services import brakes
        from smtpguard.config.brief import STORE, read_brief

        self.must_exist(self.config)
        brief = read_brief(self.config) if set(needed) == STORE else None
        async with brakes(brief or self.settings_as_far(needed)) as opened:
            yield opened
        self.hurried = brief is not None

    def tell_mistakes(self) -> None:
        """What a hurried command has not told of the settings."""
        if self.hurried:
            from smtpguard.config.brief import STORE
            from smtpguard.config.problem import Broken

            try:
                self.settings_as_far(STORE)
            except Broken as e:  # what was to be done is done
                for problem in e.problems:
                    click.echo(f"{problem}", err=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(work)

    def say(self, row: Mapping[str, Any]) -> None:
        """One JSON object on one line: times in UTC with Z, what is absent as null."""
        click.echo(as_line(row))

    @property
    def user(self) -> str:
        """The operating system's user, who is journalled beside the address that a command claims. Not what $USER or $LOGNAME
        say, which anybody may set; through sudo, who it was as well."""
        name = _name_of(os.getuid())
        by = os.environ.get("SUDO_UID", "")
        if os.getuid() == 0 and by.isdecimal() and int(by) > 0:  # sudo set it, or root, who could write anything anyway
            name += f" (sudo by {_name_of(int(by))})"
        return name


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name
        return str(uid)


def as_line(row: Mapping[str, Any]) -> str:
    """As one line of JSON."""
    return json.dumps(row, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (tuple, list)):
        return list(value)
    return str(value)


def sentence_of(error: Exception) -> str | None:
    """What went wrong, in one line, for the errors that the world makes. None: an error of ours."""
    from smtpguard.app.files import CannotStart
    from smtpguard.config.problem import Broken
    from smtpguard.database.errors import LedgerError

    if isinstance(error, Broken):
        return "\n".join(map(str, error.problems))
    if isinstance(error, CannotStart):
        return str(error)
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}"
    if isinstance(error, LedgerError):
        return f"the store: {error or type(error).__name__}"
    if isinstance(error, sqlite3.Error) or type(error).__module__.startswith("sqlalchemy."):
        return f"the store: {str(error).splitlines()[0]}"
    return None
