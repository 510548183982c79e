"""Write the first settings and the first policy of an installation from the admin's answers and the relay's
capabilities.

Both only observe: until the admin sets ``enforce: true`` everything passes, and the journal says what would have been
held.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from smtpguard.config.documents import POLICY, shipped
from smtpguard.config.settings import host_name
from smtpguard.lists.members import CsvMembers, TextMembers
from smtpguard.lists.sources import SourceError, Tally, addresses, unfit
from smtpguard.lists.sources.opening import opened
from smtpguard.mail.address import Address, BadAddress
from smtpguard.wire.handshake import open_connection
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts, Tls

_LIST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_PATIENCE = Timeouts(connect=10, greeting=10, command=10)
_NOT_BY_DEFAULT = ("wrong-language",)
"""Rules of the sample that have no effect until a list declares more."""


class Unfit(ValueError):
    """An answer that cannot be used. The text has the reason, and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstList:
    """``file``: absolute. ``people``: number of addresses in it. ``address``: the list address that the list server
    expands; None if there is none."""

    name: str
    file: Path
    people: int
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """The relay's EHLO reply. ``size_bytes``: its limit, None if it names none. ``verified``: its certificate is valid
    for its name."""

    names: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    size_bytes: int | None = None
    starttls: bool = False
    verified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The admin's answers. ``offered``: None if the relay did not answer; ``silent`` has the reason."""

    domains: Sequence[str]
    name: str
    approvers: Sequence[str]
    contact: str
    relay: tuple[str, int]
    listen: tuple[str, int] = ("127.0.0.1", 10025)
    clients: Sequence[str] = ()
    lists: Sequence[FirstList] = ()
    languages: Sequence[str] = ("en",)
    state: str = "var"
    offered: Offered | None = None
    silent: str = ""


# Checking answers.


def domain(text: str) -> str:
    """Raises Unfit."""
    name = text.strip().lower().removesuffix(".").removeprefix("@")
    if not host_name(name):
        raise Unfit(f'"{text}" is not a domain: expected one like example.com')
    return name


def mailbox(text: str) -> str:
    """Raises Unfit."""
    try:
        return str(Address.parse(text.strip()))
    except BadAddress as error:
        raise Unfit(f'"{text}" is not an address: {error}') from None


def place(text: str, port: int = 25) -> tuple[str, int]:
    """Host and port of "relay.example.com:25", "192.0.2.1" or "[2001:db8::1]:25". Raises Unfit."""
    found = re.fullmatch(r"\s*(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?\s*", text)
    if found is None or not 1 <= int(found[3] or port) <= 65535:
        raise Unfit(f'"{text}" is not a host with a port: expected one like relay.example.com:25')
    return found[1] or found[2], int(found[3] or port)


def list_name(text: str) -> str:
    """Raises Unfit."""
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
    return read_list(list_name(name), Path(file), mailbox(address) if address else None)


def read_list(name: str, file: Path, address: str | None) -> FirstList:
    """Reads the file, so that a wrong one is reported at once. Raises Unfit."""
    whole = file.expanduser().absolute()
    read = members(whole)
    tally = Tally()
    try:
        people = sum(1 for _ in addresses(opened(read, whole.parent), tally))
    except (SourceError, OSError) as error:
        raise Unfit(str(error)) from None
    if (why := unfit(str(file), people, tally, read)) is not None:
        raise Unfit(why[0])
    return FirstList(name=name, file=whole, people=people, address=address)


def members(file: Path) -> CsvMembers | TextMembers:
    """The address column of a table is found by its name or its cells."""
    return TextMembers(text=str(file)) if file.suffix in (".txt", ".lst", ".list") else CsvMembers(csv=str(file))


# Asking the relay.


async def ask_relay(relay: tuple[str, int], helo: str) -> Offered:
    """Its EHLO reply, over TLS if it offers that; nothing is sent. Raises RelayUnavailable."""
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


# The files.


def settings_text(answers: Answers, today: date) -> str:
    return _filled("smtpguard.yaml.j2", answers, today)


def policy_text(answers: Answers, today: date) -> str:
    """policy.yaml: the sample's rules for these lists and people, observing only."""
    return _filled("policy.yaml.j2", answers, today)


def _filled(template: str, answers: Answers, today: date) -> str:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    made.filters |= {"word": _word, "flow": _flow}
    given = {each.name: getattr(answers, each.name) for each in fields(answers)}
    return made.get_template(template).render(given, today=today, members=members, rules=sample_rules()) + "\n"


def sample_rules() -> str:
    """The sample's rules with their comments, except those that need more than is known yet."""
    _, _, text = (shipped() / POLICY).read_text().partition("\nrules:")
    first, *rules = re.split(r"(?m)^(?=  - id: )", "rules:" + text.split("\n# yaml-language-server")[0])
    wanted = [rule for rule in rules if not rule.startswith(tuple(f"  - id: {name}\n" for name in _NOT_BY_DEFAULT))]
    return first + "".join(wanted).rstrip("\n")


def _word(text: str) -> str:
    """As a YAML scalar that keeps its value, in a flow mapping too."""
    return str(yaml.safe_dump([text], default_flow_style=True, width=10_000, allow_unicode=True)).strip()[1:-1]


def _flow(words: Sequence[str]) -> str:
    return "[" + ", ".join(_word(word) for word in words) + "]"
