"""Check the store before anything is started: whether it is the right database, not rolled back, what is frozen in it, and whether it
fits the policy. And find what its journal of the last 30 days shows and the configuration does not have: clients that no listener
would admit now, tools that send mailings, and people who send through a listener that does not prove the sender.

Another version may have written the journal. An entry that does not say who connected is skipped, since a trusted MTA may
have named the client.
"""

from __future__ import annotations

import asyncio
import enum
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from smtpguard.accounts.model import Account, unseated
from smtpguard.admission.packedfacts import unpack
from smtpguard.admission.recorded import FACTS
from smtpguard.app.files import CannotStart, store_url, unwritable
from smtpguard.app.lists import names
from smtpguard.app.policies import look_before_upgrade
from smtpguard.app.services import never_served, opened
from smtpguard.config.fields import CREDENTIALS, NO_CREDENTIALS
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import owner_of, sqlite_file
from smtpguard.counts.backfill import known_since
from smtpguard.database.access import Open
from smtpguard.database.engine import Database, ahead_of_server, clock_problem
from smtpguard.database.errors import StoreError
from smtpguard.database.migrate import Newer, SchemaError, encoding_problem
from smtpguard.database.schema import entry
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry, microseconds
from smtpguard.journal.event import Kind
from smtpguard.lists.declared import Origin
from smtpguard.locale.phrase import some_of
from smtpguard.mail.envelope import Session, within
from smtpguard.policy.freezing import PUT_BACK, Freeze
from smtpguard.policy.parse import Policy
from smtpguard.policy.verdict import Action, Mode
from smtpguard.store.rollbackcheck import Rollback
from smtpguard.store.store import Store


class State(enum.Enum):
    FINE = "fine"
    WRONG = "wrong"  # something that we need does not work
    OPEN = "open"  # mail can go around the guard, or others can use it
    ACCEPTED = "accepted"  # open, and the settings accept it
    UNKNOWN = "unknown"  # cannot be found out from here
    ODD = "odd"  # it works, and is probably not meant

    def of(self, about: str, text: str) -> Finding:
        """Return a finding of this state. ``about``: what was looked at, in one word; "way" for what may take mail without the
        guard. ``text``: a sentence."""
        return Finding(about=about, state=self, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A sentence on one thing that a live check found."""

    about: str
    state: State
    text: str

    @property
    def well(self) -> bool:
        return self.state not in (State.WRONG, State.OPEN)


DAYS = 30
"""The days of the journal that are read."""
CONTACTS_DAYS = 30
"""The days after which people have written to most of their customers, so that few count as first contacts."""
CLOCKS_APART = 10
"""The most seconds that the clocks of this host and of the database's server may differ without a finding."""
MOST_CLIENTS = 20
"""The most clients that are named."""
MOST = 200_000
"""The most entries that are read, the newest ones."""
COPIES = 20
"""The messages to customers with one text, or that look like mailings, from which on they come from a tool."""
PERSONAL = 5
"""The personal messages, of at least two people, from which on people write through a listener."""
_MOST_TOOLS = 10
"""The most tools that are named."""
_MOST_READ = 500_000
"""The most entries that are searched for callers, the newest ones."""
_PAGE = 5_000
"""The entries of them that are read at a time."""
_CALLER = re.compile(r'"(client|listener|peer)":"([^"\\]*)"')
_PROOF = frozenset({"listener.proves_senders", "sender.proven"})
_ENCODED = "Stop smtpguard, and restore a dump of it into a database in UTF8"


def unreadable(settings: Settings) -> Finding | None:
    """Return a finding if this command cannot read the store, or this user may not. It is an error only for the user who serves, who
    may write the state folder."""
    password = settings.store.password_file
    if any(file is not None and CREDENTIALS in file.parts for file in (password, settings.secret_file)):
        return State.UNKNOWN.of("store", f"the store was not read: {NO_CREDENTIALS}")
    for path, bits in (
        (settings.state, os.R_OK | os.X_OK),
        (settings.secret_file, os.R_OK),
        (password, os.R_OK),
        (sqlite_file(settings.store.url), os.R_OK if unwritable(settings) else os.R_OK | os.W_OK),
    ):
        if path is not None and os.access(path, os.F_OK) and not os.access(path, bits):
            if os.access(settings.state, os.W_OK):
                text = f"smtpguard serve cannot start as this user: {path} belongs to {owner_of(path)}"
                return State.WRONG.of("store", text)
            text = f"the store was not read: {path} belongs to {owner_of(path)}, not to this user"
            return State.UNKNOWN.of("store", text)
    return None


def is_usable_file(settings: Settings) -> bool:
    """Return whether the store is a SQLite database which this user can read and write, or make."""
    file = sqlite_file(settings.store.url)
    return file is not None and all(_is_writable(path) for path in (file, settings.secret_file))


def _is_writable(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK) or (os.access(path.parent, os.R_OK | os.W_OK) and not path.exists())


async def store_findings(settings: Settings, policy: Policy | None = None) -> list[Finding]:
    """Return the findings on the store; none if the guard has never served. ``policy``: what the store is compared with, if it is
    valid."""
    if (away := unreadable(settings)) is not None:
        return [away]
    if never_served(settings):
        return []
    try:
        async with opened(settings) as (store, _):
            found = list(_freeze_findings(settings, store.put_back, (await store.gate.read()).freezes))
            for file in store.journal.fronts_aside():
                text = f"{file} belongs to another state of the journal, and not all of it was merged; examine it, and move it away"
                found.append(State.WRONG.of("store", text))
            ahead = await store.ask(ahead_of_server)
            if wrong := clock_problem(ahead) or await _write_problem(store):
                found.append(State.WRONG.of("store", wrong))
            elif abs(ahead) > CLOCKS_APART:
                how = "ahead of" if ahead > 0 else "behind"
                text = (
                    f"the clock of this host is {abs(ahead):.0f} seconds {how} the database server's, by which all goes: from "
                    f"five minutes on this host writes nothing"
                )
                found.append(State.ODD.of("clock", text))
            if wrong := await store.ask(encoding_problem):
                found.append(State.WRONG.of("store", f"the database: {wrong}. {_ENCODED}"))
            if settings.console is not None and policy is not None:
                found += _account_findings(policy, await store.people.everybody())
            if policy is not None:
                found += await _name_findings(settings, policy, store)
                found += _contact_findings(policy, await known_since(store), store.now())
                found += await undeclared_senders(settings, policy, store)
            return found
    except (CannotStart, StoreError) as e:
        older = isinstance(e, SchemaError) and not isinstance(e, Newer)
        state = State.UNKNOWN if older else State.WRONG
        return [state.of("store", str(e))]


async def _write_problem(store: Store) -> str:
    """Return why a store that can be read takes no entry; "" if it takes one, or if this user may only read it. The first write to a
    store that was put back journals that, which is not for ``check`` to do."""
    if not store.unwritable and store.put_back is None:
        try:
            await store.try_write()
        except StoreError as error:
            return str(error)
    return ""


async def _name_findings(settings: Settings, policy: Policy, store: Store) -> list[Finding]:
    """Name the addresses that are list addresses only because they have a list's name, with the mail to them lately: one with much
    mail is probably a mailbox of its own."""
    implied = dict(names(settings, policy).implied())
    if not implied:
        return []
    often = await store.journal.named(list(implied), store.now() - timedelta(days=DAYS))
    found = []
    for address, n in sorted(often.items(), key=lambda one: (-one[1], one[0])):
        if n:
            text = (
                f"{address} counts as the list {implied[address]}, and {n:,} message{'s name' if n != 1 else ' names'} it in "
                f"{DAYS} days; if it is something else: addresses_elsewhere: [{address}] at the list"
            )
            found.append(State.ODD.of("name", text))
    quiet = [address for address in implied if not often[address]]
    if quiet:
        text = f"as lists count {some_of(quiet, 3)}, which no message names in {DAYS} days"
        found.append(State.FINE.of("name", text))
    return found


def _contact_findings(policy: Policy, since: datetime | None, now: datetime) -> Iterator[Finding]:
    """Say since when first contacts are known, if rules ask for them. ``since``: None if the next start reads the journal for
    it."""
    enforced = [r for r in policy.rules.rules if r.mode is Mode.ENFORCE and r.then is not Action.RELAY]
    rules = [r.rule_id for r in enforced if any(c.fact.of_letters for c in r.when)]
    if not rules or since is None:
        return
    text, until = f"recipients of past mail are known since {since:%Y-%m-%d}", since + timedelta(days=CONTACTS_DAYS)
    if now >= until:
        yield State.FINE.of("contacts", text)
        return
    text = (
        f"{text} only: until {until:%Y-%m-%d} {some_of(rules, 2)} may count customers as new who had mail before; "
        f"with mode: observe they only report what they would hold"
    )
    yield State.UNKNOWN.of("contacts", text)


def _account_findings(policy: Policy, accounts: Sequence[Account]) -> Iterator[Finding]:
    """Name the people who must decide in the console and cannot."""
    gaps = unseated(accounts, policy.groups.with_deputies(), policy.rules.groups_asked())
    if not accounts:
        yield State.ODD.of("people", "the console has no accounts: smtpguard users add")
        return
    for gap in gaps:
        yield State.ODD.of("people", str(gap))


def policy_findings(settings: Settings) -> list[Finding]:
    """Compare the policy file with the policy in force. Returns nothing if none is in force, or the store cannot be read."""
    if unreadable(settings) is not None:
        return []
    try:
        seen = look_before_upgrade(settings)
    except (StoreError, Broken, SQLAlchemyError, OSError, ValueError):  # of the store, reported elsewhere
        return []
    if seen is None:
        return []
    found = [State.WRONG.of("policy", seen.unreadable)] if seen.unreadable else []
    state = State.ODD if seen.file.differs else State.FINE
    return [*found, state.of("policy", seen.in_words())]


def _freeze_findings(settings: Settings, put_back: Rollback | None, freezes: tuple[Freeze, ...]) -> Iterator[Finding]:
    if put_back is not None:
        yield State.WRONG.of("store", f"{put_back}; nothing is sent until it is thawed")
    for freeze in freezes:
        state = State.WRONG if freeze.reason == PUT_BACK else State.FINE
        yield state.of("store", f"frozen: {freeze.in_words()}")
    if put_back is None and not freezes:
        yield State.FINE.of("store", f"{settings.store.url} is the store that {settings.state} belongs to")


class _Caller(NamedTuple):
    """A client of a message. ``peer``: the address that connected, if it named another client; ``listener``: "" if an earlier
    version did not record it."""

    client: str
    peer: str = ""
    listener: str = ""


def _callers_at(url: str, since: datetime) -> Counter[_Caller]:
    """Count the messages since a time by their caller. The schema may be an older version's, since this runs before an upgrade:
    these columns have been the same since the first. Raises StoreError and ValueError."""
    found: Counter[_Caller] = Counter()
    with closing(Database(url, reads=True)) as database:
        with database.read() as connection:
            last = connection.execute(select(entry.c.seq).order_by(entry.c.seq.desc()).limit(1)).scalar() or 0
        lowest, since_us = last - _MOST_READ, microseconds(since)
        while last > max(lowest, 0):
            start = last - _PAGE
            query = select(entry.c.at, entry.c.kind, entry.c.body).where(entry.c.seq > start, entry.c.seq <= last)
            with database.read() as connection:
                rows = connection.execute(query).all()
            found.update(
                _Caller(**dict(_CALLER.findall(body)))
                for at, kind, body in rows
                if kind == Kind.VERDICT.value and at >= since_us and '"client":"' in body
            )
            if not rows or max(at for at, _, _ in rows) < since_us:
                break
            last = start
    return found


async def refused_clients(settings: Settings, now: datetime) -> list[Finding]:
    """Name the clients that no listener would admit, those with the most messages first. Returns nothing if the store cannot be
    opened, which is reported elsewhere."""
    if not settings.secret_file.exists():
        return []
    try:
        came = await asyncio.to_thread(_callers_at, store_url(settings), now - timedelta(days=DAYS))
    except (StoreError, Broken, ValueError):
        return []
    away: Counter[tuple[str, str]] = Counter()
    for caller, messages in came.items():
        if not _admitted(settings, caller):
            away[caller.peer or caller.client, caller.listener or "every listener"] += messages
    named = away.most_common(MOST_CLIENTS)
    found = [_finding(f"{client} would be refused by {by}", n) for (client, by), n in named]
    if rest := len(away) - len(named):
        found.append(_finding(f"{rest:,} more clients would be refused", away.total() - sum(n for _, n in named)))
    return found


def _admitted(settings: Settings, caller: _Caller) -> bool:
    """Return whether the settings admit a client. If its listener no longer exists it may have been renamed: then any listener may
    admit it."""
    if not caller.listener and settings.trust:  # of an earlier version: it may not be who connected
        return True
    every = [each for _, _, each in settings.listen.each()]
    some = [each for each in every if each.called == caller.listener] or every
    address = caller.peer or caller.client
    return any(each.admitted is None or not address or within(address, each.admitted) for each in some)


def _finding(text: str, messages: int) -> Finding:
    number = f"{messages:,} {'message' if messages == 1 else 'messages'} of the last {DAYS} days"
    return State.UNKNOWN.of("clients", f"{text}: {number}")


@dataclass(slots=True)
class _Traffic:
    """The mail to customers in the journal. ``mailings``: the messages that look like a mailing, by tool (From, client, login);
    ``copies``: by tool, the messages with each text; ``personal``: by listener and client, the personal messages of each sender who
    is not proven."""

    mailings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    copies: dict[tuple[str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    personal: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )


async def undeclared_senders(settings: Settings, policy: Policy, store: Store) -> list[Finding]:
    """Name the tools and people in the journal that the configuration does not provide for. Raises StoreError."""
    seen, before = _Traffic(), await store.journal.last() + 1
    since = microseconds(store.now() - timedelta(days=DAYS))

    def look(open: Open) -> None:
        for page in journal.back(open, before, max(1, before - MOST), journal.VERDICT):
            for made, clear in page:
                if made.at >= since and clear is not None:
                    _count_message(seen, made, clear)
            if page and page[-1][0].at < since:
                break

    await store.walk(look)
    return [*_tool_findings(policy, seen), *_listener_findings(settings, policy, seen)]


def _count_message(seen: _Traffic, made: Entry, clear: Clear) -> None:
    data = made.data
    counts = data.get("counts") or {}
    facts = unpack(clear[FACTS][0]) if FACTS in clear else data.get(FACTS) or {}
    if not counts.get("customers") or data.get("streams"):
        return
    sender, login = "".join(clear.get("from", ())[:1]), "".join(clear.get("actor", ())[:1]).lower()
    tool = sender, str(data.get("client", "")), login
    if data.get("looks") == "mailing":
        seen.mailings[tool] += 1
    elif data.get("mailing"):
        seen.copies[tool][data["mailing"]] += 1
    proven = facts.get("sender.proven", bool(login))
    if data.get("looks") != "mailing" and proven is not True and facts.get("sender.internal", True) is True and sender:
        seen.personal[str(data.get("listener", ""))][tool[1]][sender] += 1


def _tool_findings(policy: Policy, seen: _Traffic) -> Iterator[Finding]:
    """Name the tools that the policy does not declare, those with the most messages first."""
    known = [(info.writers, info.origin) for info in policy.declared_lists.values()]
    known += [(stream.senders, stream.origin) for stream in policy.declared_streams.values()]
    found: Counter[tuple[str, str]] = Counter()
    for tool in {*seen.mailings, *seen.copies}:
        n = seen.mailings[tool] + sum(n for n in seen.copies[tool].values() if n >= COPIES)
        if n >= COPIES and not any(_declares(*one, *tool) for one in known):
            found[tool[0], tool[1]] += n
    for (sender, client), n in found.most_common(_MOST_TOOLS):
        text = (
            f"{sender or 'a sender without From'} at {client} sent {n:,} messages of mailings to customers in {DAYS} days, and the "
            f"policy does not declare it: as the origin of a list, or as a stream"
        )
        yield State.ODD.of("tool", text)


def _declares(senders: frozenset[str], origin: Origin, sender: str, client: str, login: str) -> bool:
    """Return whether a declaration may cover this tool, as far as the journal knows: it has no signatures."""
    session = Session(client_ip=client, auth_user=login or None)
    if origin.names(session):
        return True
    elsewhere = bool(origin.clients) and not within(client, origin.clients)
    return sender in senders and bool(origin.dkim) and not elsewhere


def _listener_findings(settings: Settings, policy: Policy, seen: _Traffic) -> Iterator[Finding]:
    asked = [(r.rule_id, [c.fact for c in r.when]) for r in policy.rules.rules if r.mode is Mode.ENFORCE]
    proof = [rule for rule, facts in asked if any(fact.name in _PROOF for fact in facts)]
    counts = [rule for rule, facts in asked if any(fact.windowed and fact.name.startswith("sender.") for fact in facts)]
    there = {each.called: each.proves_senders for each in settings.listen.smtp}
    for listener, clients in sorted(seen.personal.items()):
        writers = sum(clients.values(), Counter[str]())
        if proof and there.get(listener) is False and (wrote := _wrote(writers)):
            text = (
                f"{wrote} through listener {listener} in {DAYS} days without proof of identity, which {_named(proof)} needs: "
                f"auth, or senders_verified if the MTA in front checks it"
            )
            yield State.ODD.of("listener", text)
        client, most = max(clients.items(), key=lambda one: len(one[1]))
        if counts and listener in there and client and len(most) > len(writers) / 2 and (wrote := _wrote(most)):
            text = (
                f"{wrote} from {client} in {DAYS} days without proof of identity, and {_named(counts)} counts them as one "
                f"sender: if it is an MTA in front, it must name its clients (XFORWARD, and trust: [{client}])"
            )
            yield State.ODD.of("client", text)


def _wrote(writers: Counter[str]) -> str:
    """Return who wrote how much, in words; "" if it may be a single person."""
    several = len(writers) > 1 and writers.total() >= PERSONAL
    return f"{len(writers):,} people wrote {writers.total():,} personal messages to customers" if several else ""


def _named(rules: Sequence[str]) -> str:
    return f"rule {rules[0]}" + (f" (and {len(rules) - 1} more)" if len(rules) > 1 else "")
