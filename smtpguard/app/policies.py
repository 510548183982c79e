"""Follow the policy in force: when the gate's generation grows, build the new policy beside the old and swap it in as a whole. And
compare it with this host's policy file, which the next ``smtpguard reload`` would put in force: the same, different, or unusable.

The documents come from the store by their SHA-256, so every process of every node has the same. A transaction keeps the
policy that it began with; the store admits it only if that policy is still in force. A policy that this version cannot
read stops no process: the answer is 451 until another policy is in force.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smtpguard import __version__
from smtpguard.accounts.membership import members
from smtpguard.accounts.model import May
from smtpguard.app.files import parse_policy, store_url
from smtpguard.app.lists import built_registry, names
from smtpguard.config.documents import (
    VOCABULARIES,
    PolicyFile,
    digest,
    policy_documents,
    policy_files,
    shipped,
)
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.database.errors import Outage, PolicyUnreadable, StoreError, Unavailable
from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.guard.inforce import InForce
from smtpguard.journal.clock import Clock
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address
from smtpguard.policy.approvals import Member
from smtpguard.policy.freezing import Gate
from smtpguard.policy.parse import Policy
from smtpguard.reading.request import Surroundings
from smtpguard.reading.topics import compile_vocabularies

if TYPE_CHECKING:
    from smtpguard.guard.policies import CurrentPolicy
    from smtpguard.store.front import Front
    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
"""The time until a store that did not answer is asked again."""
PEOPLE_SECONDS = 60.0
"""How long those whom a directory or a sign-on named are taken as read before: what they said ends by time as well."""
FORGET_SECONDS = 60.0
"""The time from a new policy until the old one is freed: messages under way have used it."""
_SHARED: dict[str, tuple[Policy, Surroundings]] = {}
"""The policy in force at the start, by its SHA-256 (``share``)."""


def share(settings: Settings, sha256: str, policy: Policy) -> None:
    """Keep what is made of the policy in force. Parts that are forked from this process then share it: its vocabularies alone take
    4 MB, and a tenth of a second."""
    _SHARED[sha256] = policy, surroundings(settings, policy)


class Following:
    """The policy in force, as this process follows it (guard.ports.PolicyInForce). Call ``begin`` or ``follow`` once before
    ``current``. ``reading``: also build what a reader needs."""

    def __init__(
        self, store: Store, settings: Settings, digester: Digester, clock: Clock, *, reading: bool = False
    ) -> None:
        self._store = store
        self._settings = settings
        self._digester = digester
        self._clock = clock
        self._reading = reading
        self._alone: InForce | None = None
        self._outage = Outage(log, "the policy in force: waiting for the store", clock.monotonic)
        self._current: InForce | None = None
        self._generation = -1
        """The generation of the gate at which absences were read."""
        self._people_at = float("-inf")
        self._surroundings: Surroundings | None = None
        self._one_at_a_time = asyncio.Lock()
        self._unreadable: tuple[str, str] = ("", "")
        """A policy that cannot be read here, and why; it is not tried again."""
        self._following: asyncio.Task[InForce] | None = None
        self._again = False
        self._look: Look | None = None
        self._looked_at: object = None
        """The policy in force and the stamps of the policy file, at that look."""

    def current(self) -> InForce:
        if self._current is None:
            raise self._none()
        return self._current

    @property
    def policy(self) -> Policy:
        """The policy as it is written, without what others say of its groups."""
        if self._alone is None:
            raise self._none()
        return self._alone

    def around(self) -> tuple[str, Surroundings]:
        """Return the policy's SHA-256, and what a reader needs from that policy."""
        if self._current is None or self._surroundings is None:
            raise self._none()
        return self._current.sha256, self._surroundings

    async def look(self) -> Look | None:
        """Return the policy in force beside the policy file, None if none is in force yet. They are read again only if one of them has
        changed. Raises StoreError."""
        current = await self._store.policies.current()
        if not current.sha256:
            return None
        now = current, stamps(self._settings)
        if now != self._looked_at:
            documents = await self._store.policies.documents(current.sha256)
            self._look = await asyncio.to_thread(_compare, self._settings, current, documents)
            self._looked_at = now
        return self._look

    def list_at(self, address: Address) -> str:
        """Return the list that has this address, "" for none. Raises StoreError."""
        found = self.current().registry.list_at(address)
        return found.name if found is not None else ""

    async def begin(self) -> None:
        """Follow once, for a process that runs even if the policy in force cannot be read. Raises StoreError."""
        try:
            await self.follow()
        except PolicyUnreadable as e:
            log.error("%s", e)

    async def watch(self, front: Front | None = None) -> GateWatch:
        """Begin, and return a watch over the gate that this follows. ``front``: as for the watch. Raises StoreError."""
        await self.begin()
        watch = GateWatch(self._store.gate, self._clock, moved=self.moved, front=front)
        await watch.read()
        return watch

    async def follow(self) -> InForce:
        """Read the policy in force, if it is another than before, and return it. Raises StoreError, PolicyUnreadable if this
        version cannot read it."""
        async with self._one_at_a_time:
            gate = await self._store.gate.read()
            if self._alone is not None and self._alone.sha256 == gate.policy_sha256:
                self._unreadable = ("", "")
                aged = self._alone.groups.elsewhere and self._clock.monotonic() - self._people_at >= PEOPLE_SECONDS
                if self._current is not None and self._generation == gate.generation and not aged:
                    return self._current
                return await self._with_people(self._alone, gate)
            if not gate.policy_sha256:
                raise Unavailable("no policy is in force: smtpguard serve puts one there")
            if gate.policy_sha256 == self._unreadable[0]:
                raise PolicyUnreadable(self._unreadable[1])
            try:
                documents = await self._store.policies.documents(gate.policy_sha256)
                alone, around = await asyncio.to_thread(self._built, gate.policy_sha256, documents)
            except (Broken, KeyError) as e:
                self._unreadable = gate.policy_sha256, unreadable(gate.policy_sha256, e)
                raise PolicyUnreadable(self._unreadable[1]) from None
            in_force = await self._with_people(alone, gate)
            if self._alone is not None:
                # Its rules and their caches name each other, and are too old for the collections that Python begins itself.
                asyncio.get_running_loop().call_later(FORGET_SECONDS, gc.collect)
            self._alone, self._surroundings = alone, around
            self._unreadable = ("", "")
            return in_force

    async def _with_people(self, alone: InForce, gate: Gate) -> InForce:
        """Make the policy with its people the current one. ``alone``: made from the policy only."""
        at = self._clock.monotonic()
        made = await with_people(alone, self._store, self._clock)
        self._current, self._generation, self._people_at = made, gate.generation, at
        return made

    def _none(self) -> Unavailable:
        unreadable, why = self._unreadable
        return PolicyUnreadable(why) if unreadable else Unavailable("no policy is in force yet")

    def moved(self, gate: Gate) -> None:
        """Follow a gate that has moved, without blocking its watch."""
        known = self._current.sha256 if self._current is not None else ""
        if (gate.policy_sha256, gate.generation) == (known, self._generation):
            return
        if self._following is not None and not self._following.done():
            self._again = True  # the running read may be older than this gate
            return
        self._follow_on()

    def _follow_on(self) -> None:
        self._again = False
        self._following = asyncio.create_task(self.follow())
        self._following.add_done_callback(partial(self._followed, before=self._alone))

    def _followed(self, task: asyncio.Task[InForce], *, before: InForce | None) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, PolicyUnreadable):  # mail planned under the old policy gets 451 until it is fixed
            log.error("%s", error)
        elif isinstance(error, StoreError):
            self._outage.report(error)
        elif error is not None:
            log.error("the policy in force cannot be loaded", exc_info=error)
        elif self._alone is not before:
            log.info("policy %s is in force", task.result().sha256[:12])
        if error is None:
            self._outage.end()
        if isinstance(error, StoreError) and not isinstance(error, PolicyUnreadable):
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._follow_on)
        elif self._again:
            self._follow_on()

    def _built(self, sha256: str, documents: dict[str, bytes]) -> tuple[InForce, Surroundings | None]:
        policy, around = _SHARED.get(sha256) or (parse_policy(self._settings, documents), None)
        registry = built_registry(self._settings, policy, self._digester, self._clock)
        if self._reading and around is None:
            around = surroundings(self._settings, policy)
        return InForce.of(policy, registry), around


async def with_people(alone: InForce, store: Store, clock: Clock) -> InForce:
    """Return the policy with who is in its groups and who is away, as others and people themselves say. An admin's agreement to a
    deputy counts while the deputy is in a group, or has an account that may decide. The gate moves with each change of that. Raises
    StoreError."""
    people = store.people
    found: list[Member] = []
    said = await people.absences()
    asked = bool(alone.groups.elsewhere) or any(one.confirmed for one in said)  # to read them takes slow imports
    accounts = await people.everybody() if asked else ()
    if alone.groups.elsewhere:
        known = await people.memberships()
        found = [*members(known, alone.sources_of_groups(), accounts, alone.claims, clock.now())]
    alone = alone.with_people(found, ())
    decides = frozenset(account.address for account in accounts if account.may(May.DECIDE)).union(
        *alone.groups.values()
    )
    kept = (
        replace(one, confirmed=one.confirmed and not decides.isdisjoint(alone.addresses_of(one.deputy))) for one in said
    )
    return alone.with_people((), kept)


def surroundings(settings: Settings, policy: Policy) -> Surroundings:
    """Return what a reader needs to know of a policy: the organization's domains, the vocabularies, and the weights of marks."""
    lists = policy.declared_lists
    given = {a.canonical(policy.delimiters) for info in lists.values() for a in info.addresses}
    implied = {address for address, _ in names(settings, policy).implied()}
    return Surroundings(
        domains=policy.organization.domains,
        list_addresses=frozenset(given | implied),
        list_ids=frozenset(list_id for info in lists.values() for list_id in info.list_ids),
        delimiters=policy.delimiters,
        vocabularies=compile_vocabularies(policy.vocabularies),
        authserv_ids=frozenset(settings.authserv_ids),
        weights=policy.marks,
        customs=policy.own_marks,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The policy in force beside this host's file. ``current``: the policy in force, and since when. ``unreadable``: why this version
    cannot read it, "" if it can. ``started_beside``: a part of this host was started while the file differed from it."""

    file: PolicyFile
    current: CurrentPolicy
    unreadable: str = ""
    started_beside: bool

    def in_words(self) -> str:
        """Return the policy in force, since when, and the state of the file, in one sentence."""
        put = self.current.put
        by = f", by {put.by}" if put is not None and put.by else ""
        since = f", since {put.at:%Y-%m-%d %H:%M} UTC{by}" if put is not None else ""
        return f"policy {self.current.sha256[:12]} is in force{since}; {self.file}"


def look_before_upgrade(settings: Settings) -> Look | None:
    """Compare the two as ``Following.look`` does, in a store that an earlier version may have written, and without what a
    running guard needs. Returns None if there is no store, or no policy is in force. Raises StoreError, and the database's
    errors."""
    from smtpguard.database.engine import Database, is_there
    from smtpguard.database.migrate import revision
    from smtpguard.guard import policies  # imports a database driver, which reading a policy does not need

    url = store_url(settings)
    if not is_there(url):
        return None
    with closing(Database(url, reads=True)) as database, database.read() as connection:
        if revision(connection) is None:
            return None
        current = policies.current(connection)
        documents = policies.policy(connection, current.sha256)
    return _compare(settings, current, documents) if current.sha256 else None


def _compare(settings: Settings, current: CurrentPolicy, documents: Mapping[str, bytes]) -> Look:
    """Compare the policy in force with this host's file. ``documents``: those of the policy in force, {} if they are lost."""
    problem = ""
    try:
        parse_policy(settings, documents)
    except (Broken, KeyError) as e:
        problem = unreadable(current.sha256, e)
    file = compare_file(settings, documents)
    beside = file.differs and socket.gethostname() in current.beside
    return Look(file=file, current=current, unreadable=problem, started_beside=beside)


def unreadable(sha256: str, error: Exception) -> str:
    """Return a sentence on a policy in force that this version cannot read."""
    why = str(error.problems[0]) if isinstance(error, Broken) else "its text is not in the store"
    return (
        f"the policy in force, {sha256[:12]}, cannot be read by smtpguard {__version__}: {why}. Mail is answered 451 until smtpguard "
        "reload puts a policy in force that can be read"
    )


def compare_file(settings: Settings, in_force: Mapping[str, bytes]) -> PolicyFile:
    """Read the policy's files, and compare them with the documents of the policy in force. Never raises."""
    path = settings.policy
    found = PolicyFile(path=path)
    try:
        documents = policy_documents(path)
    except Broken as e:
        return replace(found, problem=str(e.problems[0]))
    names = sorted({*documents, *in_force})
    others = [name for name in names if documents.get(name) != in_force.get(name)]
    product = tuple(name for name in others if _is_the_products(path, name))
    differing = tuple(name for name in others if name not in product)
    found = replace(found, sha256=digest(documents), differing=differing, product=product)
    try:
        if differing:
            parse_policy(settings, documents, where=str(path))
    except Broken as e:
        return replace(found, problem=str(e.problems[0]))
    return found


def _is_the_products(path: Path, name: str) -> bool:
    """Return whether this document of the policy at ``path`` is a shipped one, of this or an earlier version."""
    own = path.parent / VOCABULARIES
    folder, _, file = name.partition("/")
    if folder != VOCABULARIES or own.resolve() == (shipped() / VOCABULARIES).resolve():
        return False
    return not (own / file).exists()


def stamps(settings: Settings) -> tuple[tuple[str, int, int, int], ...]:
    """Return stamps of the policy's files, which show a change of any of them without reading it."""
    found = []
    for path in policy_files(settings.policy).values():
        with suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_ino, stat.st_ctime_ns, stat.st_size))
    return tuple(found)
