"""The command line: one file for each command group.

This file has the command itself, its global options, the table of commands, and the one place where an error becomes a
line and an exit status: 0 fine; 1 the thing asked about is not fine; 2 wrong use, or cannot run; 75 (``serve`` alone)
cannot run now, and may be able to soon. A command's module is imported only when it is used, so that ``smtpguard
check`` need not wait for a database driver.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import gc
import importlib
import io
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from smtpguard import __version__
from smtpguard.cli.context import FAILURES, CannotRun, Context, sentence_of, terminal

COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("serve", "Run the guard: proxy, milter, delivery and console."),
    "status": ("status", "Show the state of the guard: parts, policy, freezes, relay, store, lists."),
    "demo": ("demo", "Send sample mail through a guard on loopback."),
    "init": ("init", "Write the first settings and policy, which observe only."),
    "check": ("check", "Check settings and policy, every error at once."),
    "explain": ("explain", "Say what the policy file would decide about messages, and why."),
    "test": ("policytest", "Run a policy's own test cases."),
    "replay": ("replay", "Say what the policy file would decide differently from the policy in force."),
    "lists": ("lists", "Customer lists: sync, show, match, overlap."),
    "held": ("held", "Held mail: list, show, approve, reject, unvote, confirm, withdraw, settle, export."),
    "mailings": ("mailings", "Mailings: list, show, people; correct; approve, reject, go-on, stop, reopen."),
    "freeze": ("freeze", "Freeze everything, a list, a sender, a mailing or a conversation."),
    "thaw": ("freeze:thaw", "Lift a freeze."),
    "bypass": ("bypass", "Begin, show or end an emergency bypass, for a database that is away."),
    "audit": ("audit", "Verify or export the journal."),
    "privacy": ("privacy", "Show or erase what is kept about a person."),
    "find": ("audit:find", "Find messages by a queue id, a Message-ID, an address or words of the subject."),
    "report": ("report", "Report what passed, what each rule held, and what people decided."),
    "suggest": ("suggest", "Suggest changes to the policy from recent traffic."),
    "incident": ("incident", "Report incidents: who, what, when, to how many, with proof."),
    "returns": ("returns", "Mail that came back after a mailing: take, list, show, mentions, export."),
    "users": ("users", "Accounts of the console: add, passwd, roles, disable, enable, totp, link, delete, list."),
    "tokens": ("users:tokens", "Tokens of the API: add, revoke, list."),
    "backup": ("backup", "Back up this installation into one verified file."),
    "restore": ("backup:restore", "Restore a backup, with everything frozen."),
    "renew-secret": ("backup:renew_secret", "Make a new secret, after a leak or a loss."),
    "reload": ("policies:reload", "Put the policy file in force."),
    "policy": ("policies", "Policies: history, show, diff, restore, and guide, a hand-out for staff."),
    "schema": ("check:schema", "Print the JSON Schema of a configuration file."),
}
"""The module in smtpguard.cli and one line of help, by name. The click command is the module's ``command``, or the name after the
colon."""

_COLLECT = (200_000, 20, 100)
"""The new objects, and collections of younger generations, before a collection. A short command ends before the first: imports leave
nothing to collect, and looking for it takes a tenth of their time."""

atexit.register(gc.freeze)
"""At its end the interpreter looks for garbage several times, which takes a quarter of a command's processor time."""

SEARCHED = (Path("/etc/smtpguard/smtpguard.yaml"), Path("config/smtpguard.yaml"))


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Escape what the terminal's encoding has not, as JSON does, so that a program can read it too: an em dash is ``\\u2014``."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_escaped.__name__, _escaped)


def _typed(word: str) -> str:
    """Return an argument in UTF-8 that Python took for another encoding, as in the locale C. If it is in no encoding, and names no
    file, it is taken for Latin-1: a freeze's reason must not stop the freeze, nor any page that shows it."""
    try:
        return word if word.isascii() else os.fsencode(word).decode()
    except UnicodeError:
        undecoded = any("\udc80" <= sign <= "\udcff" for sign in word) and not os.path.lexists(word)
    return os.fsencode(word).decode("latin-1") if undecoded else word


def _three_descriptors() -> None:
    """Open /dev/null for standard input, output and error that are closed, for child processes too. The next file, such as the
    store's, would get their number, and what is written to standard error would go into it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest free one
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


class _Commands(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"smtpguard.cli.{module}"), name or "command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and args[0][:1] != "-" and not ctx.resilient_parsing:
            from smtpguard.config.problem import unknown

            ctx.fail(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _whole_output():  # of --help and --version
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _whole_output():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and turn every error into one line on standard error and an exit status."""
        _three_descriptors()
        kwargs.update(standalone_mode=False, prog_name="smtpguard")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and (
                stream.errors == "strict" or codecs.lookup(stream.encoding).name not in ("ascii", "utf-8")
            ):  # Click writes UTF-8 where the locale has ASCII, and octets of a file's name as they are
                stream.reconfigure(errors=_escaped.__name__)
        given = args[0] if args else kwargs.pop("args", None)
        args = ([*map(_typed, sys.argv[1:] if given is None else given)], *args[1:])
        FAILURES.logged = False
        before = gc.get_threshold()
        gc.set_threshold(*_COLLECT)
        serves = "serve" in (args[0] if args else sys.argv[1:])
        # A SIGHUP, which asks for a reload, would end serve before its supervisor takes it: it waits.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP} if serves else ())
        if serves:
            for number in (signal.SIGUSR1, signal.SIGUSR2):  # sent after a log was rotated, or by habit
                signal.signal(number, signal.SIG_IGN)  # in all parts too, which are forked

            from smtpguard.observe import log

            FAILURES.logged = log.is_for_journal() and log.configure("json")
        try:
            status = super().main(*args, **kwargs)
        except click.exceptions.Exit as e:
            status = e.exit_code
        except click.Abort as e:
            if isinstance(e.__context__, EOFError) and not terminal():  # a question, and nobody to answer it
                click.echo("\nsmtpguard: nobody has answered: without a terminal, --yes is needed", err=True)
            status = 130
        except click.exceptions.NoArgsIsHelpError as e:  # a group without a command: show its help
            click.echo(e.format_message(), err=True)
            status = e.exit_code
        except click.UsageError as e:
            where = e.ctx.command_path if e.ctx else "smtpguard"
            sentence = f"{where}: {' '.join(e.format_message().split())} (try {where} --help)"
            if FAILURES.logged:
                FAILURES.report(sentence, e.exit_code)
            else:
                click.echo(sentence, err=True)
            status = e.exit_code
        except click.ClickException as e:
            e.show()
            status = e.exit_code
        except Exception as e:
            known, status = sentence_of(e), 2
            if known is not None:
                FAILURES.report(known, status)
            else:  # an internal error: show all of it
                FAILURES.report(f"an error of smtpguard itself: {type(e).__name__}", status, e)
        finally:
            gc.set_threshold(*before)
            if serves:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)  # without a supervisor nobody takes it
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        FAILURES.logged = False
        sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def _whole_output() -> Iterator[None]:
    """Exit as a shell says of other programs, if a reader closes our output, as ``head`` does. That is no error, and the answer was
    not all given: so it is neither 0 nor Click's 1."""
    try:
        yield
    except BrokenPipeError as e:
        looks = select.poll()
        looks.register(sys.stdout.fileno(), 0)
        if not any(event & select.POLLERR for _, event in looks.poll(0)):  # it was another pipe
            raise CannotRun(str(sentence_of(e))) from None
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", "config", type=click.Path(path_type=Path, readable=False), metavar="FILE", envvar="SMTPGUARD_CONFIG",
              help="The settings file. Default: /etc/smtpguard/smtpguard.yaml, then config/smtpguard.yaml.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.version_option(__version__, prog_name="smtpguard", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Hold internal-looking mail to customer lists until people have decided."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if config is None:
        found = next((path for path in SEARCHED if path.exists()), None)
        ctx.obj = Context(config=found or SEARCHED[0], json=as_json, named=found is not None)
        return
    ctx.obj = Context(config=config, json=as_json)
