"""smtpguard init: write the first settings and policy from answers or options and the relay's capabilities.

Both only observe: until the admin sets ``enforce: true`` everything passes, and the journal says what would have been
held.
"""

from __future__ import annotations

import asyncio
import grp
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TypeVar

import click
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from smtpguard.app.clock import host_name
from smtpguard.cli.context import CannotRun, Command, Context
from smtpguard.cli.offline import check
from smtpguard.config.documents import POLICY, shipped
from smtpguard.config.fields import is_this_machine
from smtpguard.config.settings import is_host_name
from smtpguard.config.statefiles import naming
from smtpguard.config.yaml import on_a_line
from smtpguard.lists.members import CsvMembers, TextMembers
from smtpguard.lists.sources import SourceError, Tally, addresses, why_implausible
from smtpguard.lists.sources.opening import opened
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address, BadAddress
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts, Tls

T = TypeVar("T")
_SYSTEM = Path("/etc/smtpguard")
_GROUP = "smtpguard"
_TRIAL = ".smtpguard-init-"
"""The beginning of the name of the folder where the files are checked before they get their names."""
_LIST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_PATIENCE = Timeouts(connect=10, greeting=10, command=10)
_NOT_BY_DEFAULT = ("wrong-language",)
"""The rules of the sample that have no effect until a list declares more."""


class Unfit(ValueError):
    """An answer cannot be used. The message has the reason, and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstList:
    """A customer list in the first policy. ``file``: an absolute path. ``source``: its kind, as the policy names it. ``people``: the
    number of addresses in it. ``address``: the list address that the list server expands; None if there is none."""

    name: str
    file: Path
    source: str
    people: int
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """The relay's EHLO reply. ``size_bytes``: None if it names none. ``verified``: its certificate fits its name."""

    names: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    size_bytes: int | None = None
    starttls: bool = False
    verified: bool = False


def domain(text: str) -> str:
    """Parse a domain. Raises Unfit."""
    name = text.strip().lower().removesuffix(".").removeprefix("@")
    if not is_host_name(name):
        raise Unfit(f'"{text}" is not a domain: expected one like example.com')
    return name


def mailbox(text: str) -> str:
    """Parse an address. Raises Unfit."""
    try:
        return str(Address.parse(text.strip()))
    except BadAddress as error:
        raise Unfit(f'"{text}" is not an address: {error}') from None


def place(text: str, port: int = 25) -> tuple[str, int]:
    """Parse host and port: "relay.example.com:25", "192.0.2.1" or "[2001:db8::1]:25". Raises Unfit."""
    found = re.fullmatch(r"\s*(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?\s*", text)
    if found is None or not 1 <= int(found[3] or port) <= 65535:
        raise Unfit(f'"{text}" is not a host with a port: expected one like relay.example.com:25')
    return found[1] or found[2], int(found[3] or port)


def list_name(text: str) -> str:
    """Check the name of a list, and return it. Raises Unfit."""
    if not _LIST_NAME.match(text):
        raise Unfit(
            f'"{text}" is not a name of a list: expected lower-case letters, digits, ".", "_" and "-", like newsletter'
        )
    return text


def one_list(text: str) -> FirstList:
    """Parse "NAME=FILE" or "NAME=FILE:ADDRESS". Raises Unfit."""
    name, _, rest = text.partition("=")
    if not rest:
        raise Unfit(f'"{text}" names no file: expected NAME=FILE or NAME=FILE:ADDRESS')
    file, colon, address = rest.rpartition(":")
    if not (colon and "@" in address):
        file, address = rest, ""
    return _read_list(list_name(name), Path(file), mailbox(address) if address else None)


def _read_list(name: str, file: Path, address: str | None) -> FirstList:
    """Read a list's file, so that a wrong one is reported at once. Raises Unfit."""
    whole = file.expanduser().absolute()
    # The address column of a table is found by its name or its cells.
    is_text = file.suffix in (".txt", ".lst", ".list")
    read = TextMembers(text=str(whole)) if is_text else CsvMembers(csv=str(whole))
    tally = Tally()
    try:
        people = sum(1 for _ in addresses(opened(read, whole.parent), tally))
    except (SourceError, OSError) as error:
        raise Unfit(str(error)) from None
    if (why := why_implausible(str(file), people, tally, read)) is not None:
        raise Unfit(why[0])
    return FirstList(name=name, file=whole, source=read.source, people=people, address=address)


def _option(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, object], object]:
    """Return a click callback that parses an option's text, or each of its texts."""

    def parse_value(ctx: click.Context, parameter: click.Parameter, value: object) -> object:
        try:
            if isinstance(value, tuple):
                return tuple(parse(str(each)) for each in value)
            return None if value is None else parse(str(value))
        except Unfit as error:
            raise click.BadParameter(str(error)) from None

    return parse_value


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
    _take_back(settings, policy)
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
        domains = _ask("Your domains, with spaces between them", _parse_each(domain))
    if name is None:
        name = domains[0] if yes else _ask("The name of your organization", str.strip, default=domains[0])
    relay, offered, silent = _relay(relay, yes=yes)
    if not lists and not yes:
        lists = tuple(_lists())
    if not approvers:
        approvers = _ask("The approvers of held mail: addresses, with spaces between them", _parse_each(mailbox))
    if contact is None:
        usual = f"postmaster@{domains[0]}"
        contact = usual if yes else _ask("The address that receives alarms", mailbox, default=usual)
    if state is None:
        state = Path("/var/lib/smtpguard") if settings.parent == _SYSTEM else Path("var")
    if len({each.name for each in lists}) < len(lists):
        raise CannotRun("--list: two lists have the same name")
    _write(
        settings, policy,
        domains=domains, name=name, approvers=approvers, contact=contact, relay=relay, listen=listen, clients=clients, lists=lists,
        languages=languages or ("en",), state=str(state), offered=offered, silent=silent,
    )  # fmt: skip
    if silent:
        again = f"smtpguard {_config_option(settings)}check --live"
        click.echo(f"smtpguard: the relay did not answer: {silent}. Once it does, run {again}", err=True)
    _print_next_steps(context, settings, policy, lists, listen, relay_answers=offered is not None)


def _config_option(settings: Path) -> str:
    """Return the option that names the settings, for a command line; "" where they are found without it."""
    return "" if settings.parent == _SYSTEM else f"-c {settings} "


def _ask(question: str, parse: Callable[[str], T], default: str | None = None) -> T:
    """Ask until the answer can be used."""

    def parse_value(text: str) -> T:
        try:
            return parse(text)
        except Unfit as error:
            raise click.UsageError(str(error)) from None

    found: T = click.prompt(question, default=default, value_proc=parse_value)
    return found


def _parse_each(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def parse_value(text: str) -> tuple[T, ...]:
        found = tuple(dict.fromkeys(parse(word) for word in text.replace(",", " ").split()))
        if not found:
            raise Unfit("no answer was given")
        return found

    return parse_value


def _relay(relay: tuple[str, int] | None, *, yes: bool) -> tuple[tuple[str, int], Offered | None, str]:
    """Ask for the relay, if it is not given, and ask the relay itself. Returns it, what it offers, and why it did not answer."""
    while True:
        if relay is None:
            relay = _ask("The relay that takes the mail that passes (HOST:PORT)", place)
        try:
            offered = asyncio.run(_ask_relay(relay, host_name()))
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
    found: list[FirstList] = []
    while True:
        again = "another" if found else "a"
        file = click.prompt(
            f"The file of {again} customer list, CSV or an address a line (Enter: none)", default="", show_default=False
        )
        if not file:
            return found
        try:
            read = _read_list("unnamed", Path(file), None)
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
        found.append(replace(read, name=named, address=address))


def _usual_name(file: Path) -> str:
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in file.stem.lower()).strip("-")
    return re.sub("-+", "-", name) or "customers"


def _take_back(settings: Path, policy: Path) -> None:
    """Remove what a killed ``init`` has left: its folder, and the policy that it wrote before the settings. That is known by being
    the same file as the one in the folder."""
    for left in settings.parent.glob(f"{_TRIAL}*"):
        trial = left / policy.name
        with suppress(OSError):  # what another user has left, as in /tmp, stays
            if not os.path.lexists(settings) and policy.exists() and trial.exists() and policy.samefile(trial):
                policy.unlink()
            shutil.rmtree(left)


def _write(settings: Path, policy: Path, **answers: object) -> None:
    """Write both or neither, after ``check``. ``answers``: the values of the templates. Raises CannotRun, and FileExistsError if
    somebody else was first."""
    settings.parent.mkdir(parents=True, exist_ok=True)
    with naming(settings.parent), tempfile.TemporaryDirectory(prefix=_TRIAL, dir=settings.parent) as folder:
        trial = Path(folder, settings.name)
        trial.write_text(_filled("smtpguard.yaml.j2", answers), encoding="utf-8")
        trial.with_name(policy.name).write_text(_filled("policy.yaml.j2", answers), encoding="utf-8")
        if wrong := check(trial).fatal:
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
    """Let only its owner and the service's group read a file, since it contains addresses."""
    file.chmod(0o640)
    if os.geteuid() == 0:
        try:
            os.chown(file, 0, grp.getgrnam(_GROUP).gr_gid)
        except KeyError:  # this machine has no service
            pass


def _print_next_steps(
    context: Context,
    settings: Path,
    policy: Path,
    lists: Sequence[FirstList],
    listen: tuple[str, int],
    *,
    relay_answers: bool,
) -> None:
    people = sum(each.people for each in lists)
    row = {
        "settings": settings,
        "policy": policy,
        "lists": len(lists),
        "addresses": people,
        "relay_answers": relay_answers,
    }
    system, own = settings.parent == _SYSTEM, _config_option(settings)
    as_service = "runuser -u smtpguard -- " if system and os.geteuid() == 0 else ""
    start = f"smtpguard {own}serve"
    if system and shutil.which("systemctl"):
        start = "systemctl enable --now smtpguard.socket smtpguard.service"
    text = [
        f"Wrote {settings} and {policy}: {many(len(lists), 'list')} with {people:,} addresses. The policy observes, and holds nothing.",
        "Next:",
        f"  {as_service}smtpguard {own}check --live",
        "      whether the relay takes mail, and which ways around the guard are open",
        f"  {start}",
        f"      then let mail come to {listen[0]} port {listen[1]}",
        f"  {as_service}smtpguard {own}report observe --since 14d",
        "      what would have been held",
    ]
    context.answer(row, text)


async def _ask_relay(relay: tuple[str, int], helo: str) -> Offered:
    """Return what the relay offers in its EHLO reply, over TLS if it offers that. No mail is sent. Raises RelayUnavailable."""
    target = RelayTarget(host=relay[0], port=relay[1], helo=helo, timeouts=_PATIENCE)
    connection = await open_connection(target)
    said = connection.extensions
    size = said.get("SIZE", "")
    offered = Offered(
        names=tuple(connection.announced),
        extensions=tuple(said),
        size_bytes=int(size) if size.isdigit() and int(size) else None,
        starttls=connection.tls,
    )
    _part(connection)
    if not offered.starttls:
        return offered
    strict = replace(target, tls=Tls.REQUIRE)
    try:
        connection = await open_connection(strict)
    except RelayUnavailable:
        return offered
    _part(connection)
    return replace(offered, verified=True)


def _part(connection: RelayConnection) -> None:
    """Send QUIT without waiting for the reply."""
    connection.quit()
    connection.abort("it has said what it offers")


def _filled(template: str, answers: Mapping[str, object]) -> str:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    made.filters["yaml"] = on_a_line
    return made.get_template(template).render(answers, today=date.today(), rules=_sample_rules()) + "\n"


def _sample_rules() -> str:
    """Return the sample's rules with their comments, except those that need more than is known yet."""
    _, _, text = (shipped() / POLICY).read_text(encoding="utf-8").partition("\nrules:")
    first, *rules = re.split(r"(?m)^(?=  - id: )", "rules:" + text.split("\n# yaml-language-server")[0])
    wanted = [rule for rule in rules if not rule.startswith(tuple(f"  - id: {name}\n" for name in _NOT_BY_DEFAULT))]
    return first + "".join(wanted).rstrip("\n")
