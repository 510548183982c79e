"""Prepare ``serve`` before its parts start, and record its end; and tell a person if it fails to start again and again, since the
alarms part does not run then.

A start takes the policy in force from the store and does not change it. Two exceptions: the first start with an empty
store, and a start that is told to take the file with a given SHA-256. A file in the state folder has the time of the
first of consecutive failures. It has a fixed size and is overwritten in place, so that it can be written on a full disk.
The recipients and ways are those of every alarm.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smtpguard import __version__
from smtpguard.admission.packedfacts import unpack
from smtpguard.app.alarmchannels import AlarmChannels, FileMemory
from smtpguard.app.clock import SystemClock, ids, learn, steady
from smtpguard.app.files import CannotStart, parse_policy, read_policy, store_url
from smtpguard.app.listrefresh import read_new_lists
from smtpguard.app.policies import compare_file, unreadable
from smtpguard.app.services import migrate, opened
from smtpguard.config.documents import PolicyFile, digest, policy_documents
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import overwrite_file, replace_file
from smtpguard.counts.backfill import recall
from smtpguard.counts.contacts import PastMessage
from smtpguard.database.errors import PolicyMoved
from smtpguard.database.migrate import is_current
from smtpguard.gathering.sender import client_name
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address, BadAddress, account_name, login_name
from smtpguard.mail.codec import Codec
from smtpguard.observe.alarms import BY_NAME, Alarm, RaisedAlarm, Seen, raised
from smtpguard.observe.rounds import AGAIN, AlarmMessage, Phase
from smtpguard.policy.parse import Organization, Policy
from smtpguard.processes.part import die_with_parent
from smtpguard.processes.statusfile import Notifier, Tree, trees
from smtpguard.store.store import Store
from smtpguard.store.writer import Committed

if TYPE_CHECKING:
    from smtpguard.app.policycheck import Proposal

log = logging.getLogger(__name__)

SHORTEST_NAME = 12
"""The digits of a SHA-256 that are enough to name a file."""
FILE = "starts.json"
NAME = "start-fails"
OCTETS = 2048
"""The size of the file of failed starts."""
APART = timedelta(minutes=10)
"""The time without a start after which a failed one begins a new series."""
TELL_SECONDS = 60.0
"""The longest that sending the alarm takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a start has prepared. ``sha256``: that of the policy in force. ``put``: what this start put in force, None for nothing.
    ``file``: the state of the policy file beside it. ``unreadable``: why this version cannot read the policy in force, "" if it
    can; if not, ``policy`` is None."""

    sha256: str
    file: PolicyFile
    policy: Policy | None = None
    put: Proposal | None
    unreadable: str = ""


def migrate_apart(settings: Settings, waiting: Callable[[], AbstractContextManager[None]]) -> None:
    """Migrate the store, if need be, in a process of its own: what Alembic takes, 16 MB, ends with it. If that fails,
    ``prepare`` fails in the same way, and reports it. ``waiting`` is entered meanwhile. Call it from the main thread,
    outside a task."""
    if is_current(store_url(settings)):
        return
    for stream in (sys.stdout, sys.stderr):  # else the child would write buffered output again
        stream.flush()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(signal.SIGKILL)
            asyncio.run(migrate(settings))
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        finally:
            os._exit(0)
    with waiting():
        os.waitpid(pid, 0)


async def prepare(
    settings: Settings, *, by: str, parts: tuple[str, ...], committed: Committed | None = None, from_file: str = ""
) -> Prepared:
    """Prepare what every part needs: state folder, secret, database, policy, lists. ``committed`` gets the events about
    lists. ``from_file``: the SHA-256, or its beginning, of a policy file to put in force. Raises Broken, CannotStart
    and StoreError.

    Broken is raised only if no policy is in force yet, or if the file was asked for: otherwise the file does not
    matter.
    """
    async with opened(settings, migrate=True) as (store, digester):
        await learn(steady(SystemClock()), store)
        await store.journal.take_fronts()  # of processes that died, so that their entries come before new ones
        done = None
        if from_file:
            done = await _from_file(store, settings, digester, from_file, by)
        elif not (await store.gate.read()).policy_sha256:
            with suppress(PolicyMoved):  # of two nodes that start at once one puts its file in force, the other follows
                done = await _put(store, settings, digester, policy_documents(settings.policy), by, "first start")
        if known := await recall(store, partial(_past_message, digester)):
            log.warning("recipients of past mail were read from the journal: %d messages", known)
        sha256 = (await store.gate.read()).policy_sha256
        documents = await store.policies.documents(sha256)
        file = compare_file(settings, documents)
        data = {
            "version": __version__,
            "parts": list(parts),
            "host": socket.gethostname(),
            "policy_in_force": sha256,
            "policy_file": file.state,
            "policy_file_sha256": file.sha256 or None,
        }
        await store.journal.record([_event(Kind.START, by, data)])
    try:
        policy = parse_policy(settings, documents)
    except (Broken, KeyError) as e:
        return Prepared(sha256=sha256, file=file, put=done, unreadable=unreadable(sha256, e))
    await read_new_lists(settings, policy, by=by, committed=committed)
    return Prepared(sha256=sha256, file=file, policy=policy, put=done)


async def record_stop(settings: Settings, *, by: str, status: int) -> None:
    async with opened(settings) as (store, _):
        await store.journal.record([_event(Kind.STOP, by, {"status": status})])


async def _put(
    store: Store, settings: Settings, digester: Digester, documents: Mapping[str, bytes], by: str, how: str
) -> Proposal:
    from smtpguard.app.policycheck import propose, put  # 3 MB that no other start needs

    proposal = await propose(settings, store, digester, documents, where=str(settings.policy))
    await put(store, proposal, by=by, how=how)
    return proposal


async def _from_file(store: Store, settings: Settings, digester: Digester, named: str, by: str) -> Proposal | None:
    """Put the policy file in force, if it has the named SHA-256. Returns None if that policy is in force already. Raises
    CannotStart if the file has another SHA-256."""
    wanted, before = named.lower(), (await store.gate.read()).policy_sha256
    if len(wanted) < SHORTEST_NAME or set(wanted) - set("0123456789abcdef"):
        raise CannotStart(
            f"--policy-from-file {named}: expected the SHA-256 of the policy file, or its first {SHORTEST_NAME} digits"
        )
    if before.startswith(wanted):
        return None
    documents = policy_documents(settings.policy)
    if not (found := digest(documents)).startswith(wanted):
        raise CannotStart(
            f"--policy-from-file {named}: {settings.policy} with its vocabularies is {found}, and was not put in force"
        )
    return await _put(store, settings, digester, documents, by, "start with --policy-from-file")


def _past_message(digester: Digester, verdict: Entry, clear: Clear) -> PastMessage | None:
    """Return the sender and the recipients of a verdict, None if it was no letter to customers."""
    data, written = verdict.data, clear.get("from")
    if not written or data.get("looks") == "mailing" or data.get("streams") or not data["counts"]["customers"]:
        return None
    people = []
    for text in clear.get("recipients", ()):
        try:
            people.append(digester.of(Address.parse(text)))
        except BadAddress:
            continue
    message_id = "".join(clear.get("message_id", ())[:1])
    senders = [written[0], *_other_names(digester, data.get("client", ""), clear)]
    return PastMessage(senders=senders, people=people, at_us=verdict.at, message_id=message_id)


def _other_names(digester: Digester, client_ip: str, clear: Clear) -> Iterator[str]:
    """Yield the names of a message's sender beside From, as in gathering. A login gives both that it may have, since the policy
    says which counts."""
    for login in clear.get("actor", ()):
        yield account_name(login_name(login))
        if (address := Address.parse_any(login)) is not None:
            yield address.canonical(digester.delimiters)
    if "actor" not in clear and not any(unpack(text).get("sender.proven") for text in clear.get("facts", ())):
        yield client_name(client_ip)


def _event(kind: Kind, by: str, data: Mapping[str, object]) -> Event:
    return Event(kind=kind, id=ids()(), at=SystemClock().now(), data=data, private={"actor": (by,)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """Failed starts. ``since``: the time of the first of consecutive failures; ``last``, ``why``: the latest. ``told``: when a person
    was told."""

    since: datetime
    last: datetime
    why: str
    told: datetime | None = None


_FAILING = Codec(Failing)


def failing_starts(state: Path, now: datetime) -> Failing | None:
    """Return the starts that have failed up to now. None if the last start succeeded, or nobody tries any more."""
    try:
        found = _FAILING.loads((state / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if now - found.last <= APART else None


def note_lasting_start(settings: Settings) -> None:
    """Note that the start succeeded, and lasts. This makes the file, with room for a later failure."""
    with suppress(OSError):
        _write(settings.state, "{}")


async def note_failed_start(settings: Settings, why: str, now: datetime, *, last: bool = False) -> None:
    """Note that one more start has failed. It tells a person if that has lasted long enough, or if this is the ``last`` attempt; not
    if other processes of this host send alarms, since they report what is wrong."""
    known = failing_starts(settings.state, now)
    here = replace(known or Failing(since=now, last=now, why=""), last=now, why=why[:500])
    condition = BY_NAME[NAME]
    lasts = (now - here.since).total_seconds() >= condition.after_seconds
    due = here.told is None or now - here.told >= AGAIN[condition.severity]
    tells = (last or lasts) and due and not has_alarms_part(trees(settings.state))
    try:
        _write(settings.state, _FAILING.dumps(replace(here, told=now) if tells else here))
    except OSError as e:  # if it were not remembered, a person would be told every few seconds
        if tells:
            log.error("%s: %s: the alarm about failed starts is not sent", settings.state / FILE, e.strerror)
        return
    if not tells:
        return
    alarm = next(raised(Seen(at=now, starts=why)))
    if not await _send_alarm(settings, alarm, here, now):
        with suppress(OSError):
            _write(settings.state, _FAILING.dumps(here))


async def _send_alarm(settings: Settings, alarm: Alarm, here: Failing, now: datetime) -> bool:
    organization = await asyncio.to_thread(_organization, settings)
    ways = AlarmChannels(settings, lambda: organization)
    phase = Phase.BEGINS if here.told is None else Phase.LASTS
    Notifier().not_yet(2 * TELL_SECONDS)
    try:
        async with asyncio.timeout(TELL_SECONDS):
            heard = await ways.send(AlarmMessage(alarm=alarm, phase=phase, began=here.since, at=now))
    except TimeoutError:
        return False
    finally:
        await ways.sender.close()
    if heard:  # the alarms part reports when it is over
        memory = FileMemory(settings.state)
        before = (await memory.known()).get(alarm.key)
        await memory.swap(before, RaisedAlarm(key=alarm.key, began=here.since, told=now))
    return heard


def _organization(settings: Settings) -> Organization | None:
    """Return the organization of the policy file, for the language of the alarm, since no policy may be in force yet. None if it
    cannot be read."""
    with suppress(Broken, OSError):
        return read_policy(settings).organization
    return None


def has_alarms_part(running: Iterable[Tree]) -> bool:
    """Return whether an alarms part is ready: it sends alarms, and ends those that are over."""
    parts = (process for tree in running if tree.serves for process in tree.parts)
    return any(process["part"] == "alarms" and process["ready"] for process in parts)


def _write(state: Path, text: str) -> None:
    """Write the file of failed starts, in place. Raises OSError."""
    path = state / FILE
    if path.exists():
        overwrite_file(path, text)
    else:
        replace_file(path, text.ljust(OCTETS), durable=False)
