"""smtpguard demo: run the play and tell it in plain words. On a terminal the guard then stays up, to be tried by hand."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from smtpguard.cli.context import CannotRun, Command, Context
from smtpguard.demo.script import KALLE, RAMADAN, Disposition, Result, Script, play
from smtpguard.demo.stage import ADMIN, PEOPLE, NotStarted, Stage, stage

_COLOURS = {
    Disposition.RELAYED: "green",
    Disposition.HELD: "yellow",
    Disposition.REJECTED: "red",
    Disposition.DEFERRED: "magenta",
    Disposition.DONE: "cyan",
}
_MARGIN = " " * 14


@click.command(cls=Command, json=None)
@click.option("--stay/--go", default=None, help="Keep running afterwards until Ctrl-C. Default: on a terminal.")
def command(context: Context, stay: bool | None) -> None:
    """Start a guard, a recording relay and two lists of invented people on loopback; send sample mail; show what happened to it."""
    click.echo("Starting a guard, and behind it a relay that records and forwards nothing, all on 127.0.0.1 ...")
    try:
        with _ends_tidily(), stage() as built:
            wrong = _play(built)
            if stay if stay is not None else sys.stdin.isatty() and sys.stdout.isatty():
                _stay(built)
    except NotStarted as e:
        raise CannotRun(f"the guard did not start: {e}") from None
    if wrong:
        raise click.exceptions.Exit(1)


def _play(built: Stage) -> int:
    wrong = number = 0
    click.echo(
        f"Nordhandel AB has a list for Ramadan greetings, {len(built.members):,} people.\n"
        f"Whoever writes to {RAMADAN} reaches them all.\n"
        f"The guard listens on port {built.port}, the relay on port {built.relay.port}.\n"
        f"Those who decide do so at {built.console}\n"
    )
    for number, result in enumerate(play(built, Script(built).scenes()), start=1):
        _tell(number, result)
        wrong += result.wrong is not None
    delivered = {r for taken in built.relay.taken for r in taken.recipients}
    click.echo()
    click.echo(
        f"{number} scenes, {number - wrong} as planned."
        + (click.style(f" {wrong} did not go as planned.", fg="red") if wrong else "")
    )
    click.echo(f"The relay took {len(built.relay.taken)} mails; of the story it saw nothing." if not wrong else
               f"The relay took {len(built.relay.taken)} mails to {len(delivered)} addresses.")  # fmt: skip
    return wrong


def _tell(number: int, result: Result) -> None:
    scene = result.scene
    click.echo(f"{number:>3}  " + click.style(scene.title, bold=True))
    if scene.message is not None:
        to = scene.message.recipients
        shown = to[0] if len(to) == 1 else f"{to[0]} and {len(to) - 1} more"
        for line in _wrapped(f'"{scene.message.subject}", from {scene.message.mail_from or "<>"} to {shown}', indent=5):
            click.echo(f"     {line}")
    word = click.style(f"{scene.disposition.value.upper():<9}", fg=_COLOURS[scene.disposition], bold=True)
    lines = []
    if result.answer is not None:
        lines.append(str(result.answer).replace("\n", " "))
    if scene.because and result.wrong is None:
        lines.append(scene.because)
    lines.extend(f"- {rule}" for rule in result.rules)
    if result.found:
        lines.append("found: " + "; ".join(result.found))
    if result.reach is not None and scene.disposition is Disposition.HELD:
        lines.append(f"it would have reached {result.reach:,} people; the relay saw nothing of it")
    lines.extend(result.lines)
    if result.wrong is not None:
        word = click.style(f"{'WRONG':<9}", fg="red", bold=True, reverse=True)
        lines.append(result.wrong)
    wrapped = [part for line in lines for part in _wrapped(line, indent=len(_MARGIN))]
    for at, line in enumerate(wrapped or [""]):
        click.echo(f"     {word}{line}" if at == 0 else f"{_MARGIN}{line}")


def _wrapped(line: str, *, indent: int) -> list[str]:
    width = max(40, min(shutil.get_terminal_size((110, 24)).columns, 110) - indent)
    return textwrap.wrap(line, width, subsequent_indent="  ")


def _stay(built: Stage) -> None:
    guard = f"{_itself()} -c {built.config}"
    wide = max(map(len, PEOPLE))
    people = "".join(
        f"  {address:<{wide}}  {built.password}{'  (accounts)' * (address == ADMIN)}\n" for address in PEOPLE
    )
    writer = built.link(KALLE)
    click.echo(
        f"""
The guard stays up until Ctrl-C. Decide on what waits, in a browser; sign in with one of these and the password beside it:

  {built.console}

{people}
Kalle needs no account: the notice that he got has his own link, to see why, to withdraw it or to ask for it.

  {writer}

Or try it from another terminal:

  swaks --server 127.0.0.1:{built.port} --from {KALLE} --to {RAMADAN} \\
        --header "Subject: SV: Dieten" --body "Bacon och sprit. /Kalle"
  {guard} held list
  {guard} held show ID
  {guard} freeze --all --reason "trying it out"
  {guard} audit verify
  {guard} incident report --subject Dieten
"""
    )
    with contextlib.suppress(KeyboardInterrupt, OSError):  # OSError: the terminal is gone
        threading.Event().wait()
    with contextlib.suppress(OSError):
        click.echo()


@contextlib.contextmanager
def _ends_tidily() -> Iterator[None]:
    """End as with Ctrl-C on SIGTERM or a closed terminal: stop the guard and delete what it wrote."""

    def leave(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _itself() -> str:
    """Return how to call this command from another terminal: by its name alone only if the shell finds it."""
    program = Path(sys.argv[0])
    if program.name != "smtpguard":
        return f"{sys.executable} -m smtpguard"
    found = shutil.which("smtpguard")
    return "smtpguard" if found and Path(found).resolve() == program.resolve() else str(program.absolute())
