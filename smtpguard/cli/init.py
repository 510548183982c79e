"""smtpguard init: write the first settings and policy from answers or options and the relay's capabilities. They only
observe."""

from __future__ import annotations

import asyncio
import grp
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

import click

from smtpguard.app.clock import host_name
from smtpguard.app.firstsettings import (
    Answers,
    FirstList,
    Offered,
    Unfit,
    ask_relay,
    domain,
    list_name,
    mailbox,
    one_list,
    place,
    policy_text,
    read_list,
    settings_text,
)
from smtpguard.cli.context import CannotRun, Command, Context
from smtpguard.cli.offline import check
from smtpguard.config.fields import is_this_machine
from smtpguard.locale.phrase import many
from smtpguard.wire.relay import RelayUnavailable

T = TypeVar("T")
_SYSTEM = Path("/etc/smtpguard")
_GROUP = "smtpguard"


def _option(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, object], object]:
    """A click callback that parses an option's text, or each of its texts."""

    def taken(ctx: click.Context, parameter: click.Parameter, value: object) -> object:
        try:
            if isinstance(value, tuple):
                return tuple(parse(str(each)) for each in value)
            return None if value is None else parse(str(value))
        except Unfit as error:
            raise click.BadParameter(str(error)) from None

    return taken


@click.command(cls=Command, json=None)
@click.option("--domain", "domains", multiple=True, metavar="DOMAIN", callback=_option(domain),
              help="A domain of the organization. May be repeated.")  # fmt: skip
@click.option("--name", metavar="TEXT", help="The organization's name in notices. Default: the first domain.")
@click.option("--language", "languages", multiple=True, type=click.Choice(["en", "sv"]),
              help="The language of notices. Default: en.")  # fmt: skip
@click.option("--relay", metavar="HOST[:PORT]", callback=_option(place),
              help="The server that takes the mail that passes. Default port: 25.")  # fmt: skip
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:10025", show_default=True,
              callback=_option(lambda text: place(text, 10025)), help="The address on which the guard takes mail.")  # fmt: skip
@click.option("--client", "clients", multiple=True, metavar="NETWORK",
              help="Networks that may connect, if other machines do.")  # fmt: skip
@click.option("--list", "lists", multiple=True, metavar="NAME=FILE[:ADDRESS]", callback=_option(one_list),
              help="A customer list: its file (CSV, or text with one address a line), and the address that expands to it.")  # fmt: skip
@click.option("--approver", "approvers", multiple=True, metavar="ADDRESS", callback=_option(mailbox),
              help="An approver of held mail.")  # fmt: skip
@click.option("--contact", metavar="ADDRESS", callback=_option(mailbox),
              help="The address that receives alarms. Default: postmaster at the first domain.")  # fmt: skip
@click.option("--state", type=click.Path(path_type=Path), metavar="FOLDER",
              help="The folder that the guard writes to. Default: /var/lib/smtpguard for /etc/smtpguard, else var beside the settings.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Ask no questions: a missing option takes its default, or is an error.")
def command(
    context: Context,
    domains: tuple[str, ...],
    name: str | None,
    languages: tuple[str, ...],
    relay: tuple[str, int] | None,
    listen: tuple[str, int],
    clients: tuple[str, ...],
    lists: tuple[FirstList, ...],
    approvers: tuple[str, ...],
    contact: str | None,
    state: Path | None,
    yes: bool,
) -> None:
    """Write the first settings and policy, which observe only. Existing files are not overwritten, and no mail is sent.

    They are written to the settings file (-c FILE, otherwise /etc/smtpguard/smtpguard.yaml) and policy.yaml beside it.
    """
    settings = context.config
    policy = settings.with_name("policy.yaml")
    for file in (settings, policy):
        if file.exists() or file.is_symlink():
            raise CannotRun(f"{file} exists, and is not overwritten: name another place with -c FILE")
    if not is_this_machine(listen[0]) and not clients:
        raise click.UsageError(
            f"--listen: other machines reach {listen[0]}: --client NETWORK names those that may connect"
        )
    if yes:
        lacking = [o for o, v in (("--domain", domains), ("--relay", relay), ("--approver", approvers)) if not v]
        if lacking:
            raise click.UsageError(f"--yes asks nothing, and needs {', '.join(lacking)}")
    if not domains:
        domains = _ask("Your domains, with spaces between them", _each(domain))
    if name is None:
        name = domains[0] if yes else _ask("The name of your organization", str.strip, default=domains[0])
    relay, offered, silent = _relay(context, relay, yes=yes)
    if not lists and not yes:
        lists = tuple(_lists())
    if not approvers:
        approvers = _ask("The approvers of held mail: addresses, with spaces between them", _each(mailbox))
    if contact is None:
        usual = f"postmaster@{domains[0]}"
        contact = usual if yes else _ask("The address that receives alarms", mailbox, default=usual)
    if state is None:
        state = Path("/var/lib/smtpguard") if settings.parent == _SYSTEM else Path("var")
    answers = Answers(
        domains=domains, name=name, approvers=approvers, contact=contact, relay=relay, listen=listen, clients=clients, lists=lists,
        languages=languages or ("en",), state=str(state), offered=offered, silent=silent,
    )  # fmt: skip
    _write(settings, policy, answers)
    if silent:
        again = f"smtpguard {_own(settings)}check --live"
        click.echo(f"smtpguard: the relay did not answer: {silent}. Once it does, run {again}", err=True)
    _tell(context, settings, policy, answers)


def _own(settings: Path) -> str:
    """The option that names the settings, for a command line; "" where they are found without it."""
    return "" if settings.parent == _SYSTEM else f"-c {settings} "


def _ask(question: str, parse: Callable[[str], T], default: str | None = None) -> T:
    """Ask until the answer can be used."""

    def taken(text: str) -> T:
        try:
            return parse(text)
        except Unfit as error:
            raise click.UsageError(str(error)) from None

    found: T = click.prompt(question, default=default, value_proc=taken)
    return found


def _each(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def taken(text: str) -> tuple[T, ...]:
        found = tuple(dict.fromkeys(parse(word) for word in text.replace(",", " ").split()))
        if not found:
            raise Unfit("no answer was given")
        return found

    return taken


def _relay(
    context: Context, relay: tuple[str, int] | None, *, yes: bool
) -> tuple[tuple[str, int], Offered | None, str]:
    """Returns the relay, what it offers, and why it did not answer."""
    while True:
        if relay is None:
            relay = _ask("The relay that takes the mail that passes (HOST:PORT)", place)
        try:
            offered = asyncio.run(ask_relay(relay, host_name()))
        except RelayUnavailable as error:
            if yes:
                return relay, None, error.why
            click.echo(f"Error: it does not answer: {error.why}", err=True)
            if click.confirm("Write the settings with it anyway"):
                return relay, None, error.why
            relay = None
            continue
        click.echo(
            f"The relay answers, {'with' if offered.starttls else 'without'} TLS; it offers {', '.join(offered.extensions) or 'nothing'}."
        )
        return relay, offered, ""


def _lists() -> Sequence[FirstList]:
    """Ask for lists until there are no more."""
    found: list[FirstList] = []
    while True:
        again = "another" if found else "a"
        file = click.prompt(
            f"The file of {again} customer list, CSV or an address a line (Enter: none)", default="", show_default=False
        )
        if not file:
            return found
        try:
            read = read_list("unnamed", Path(file), None)
        except Unfit as error:
            click.echo(f"Error: {error}", err=True)
            continue
        click.echo(f"{read.people:,} addresses.")
        taken = {each.name for each in found}

        def unused(text: str, taken: set[str] = taken) -> str:
            if text in taken:
                raise Unfit(f'"{text}" is already the name of a list')
            return list_name(text)

        named = _ask("Its name", unused, default=_usual_name(read.file))
        address = _ask(
            "The address that the list server expands to it (-: none)",
            lambda t: None if t.strip() == "-" else mailbox(t),
            default="-",
        )
        found.append(FirstList(name=named, file=read.file, people=read.people, address=address))


def _usual_name(file: Path) -> str:
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in file.stem.lower()).strip("-")
    return re.sub("-+", "-", name) or "customers"


def _write(settings: Path, policy: Path, answers: Answers) -> None:
    """Write both or neither, after ``check`` has accepted them. Raises CannotRun, and FileExistsError if somebody else
    was first."""
    today = date.today()
    if len({each.name for each in answers.lists}) < len(answers.lists):
        raise CannotRun("--list: two lists have the same name")
    settings.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".init-", dir=settings.parent) as folder:
        trial = Path(folder, settings.name)
        trial.write_text(settings_text(answers, today))
        trial.with_name(policy.name).write_text(policy_text(answers, today))
        wrong = [problem for problem in check(trial).problems if problem.fatal]
        if wrong:
            raise CannotRun("\n".join(str(problem).replace(f"{folder}/", "") for problem in wrong))
        made: list[Path] = []
        try:
            for file in (policy, settings):
                _whose(trial.with_name(file.name))
                os.link(trial.with_name(file.name), file)
                made.append(file)
        except OSError:
            for file in made:
                file.unlink()
            raise


def _whose(file: Path) -> None:
    """The file contains addresses: only its owner and the service's group can read it."""
    file.chmod(0o640)
    if os.geteuid() == 0:
        try:
            os.chown(file, 0, grp.getgrnam(_GROUP).gr_gid)
        except KeyError:  # this machine has no service
            pass


def _tell(context: Context, settings: Path, policy: Path, answers: Answers) -> None:
    people = sum(each.people for each in answers.lists)
    row = {
        "settings": settings,
        "policy": policy,
        "lists": len(answers.lists),
        "addresses": people,
        "relay_answers": answers.offered is not None,
    }
    system, own = settings.parent == _SYSTEM, _own(settings)
    as_service = "runuser -u smtpguard -- " if system and os.geteuid() == 0 else ""
    start = f"smtpguard {own}serve"
    if system and shutil.which("systemctl"):
        start = "systemctl enable --now smtpguard.socket smtpguard.service"
    text = [
        f"Wrote {settings} and {policy}: {many(len(answers.lists), 'list')} with {people:,} addresses. The policy observes, and holds nothing.",
        "Next:",
        f"  {as_service}smtpguard {own}check --live",
        "      whether the relay takes mail, and which ways around the guard are open",
        f"  {start}",
        f"      then let mail come to {answers.listen[0]} port {answers.listen[1]}",
        f"  {as_service}smtpguard {own}report observe --since 14d",
        "      what would have been held",
    ]
    context.answer(row, text)
