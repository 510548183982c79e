"""Build what reads a message, verifies its signature and gathers its facts, for real mail, the console and ``explain``
alike; and explain what would happen to a message, with the same gathering and planning but without a store.

To explain, nothing is relayed, counted or written; counts are those of this message alone. List indexes on disk are
used. For a list without an index a temporary one is built and deleted afterwards. Signatures are verified with pinned
keys or keys in DNS.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import dns.asyncresolver

from smtpguard.admission.builtinrules import or_held, with_fixed
from smtpguard.admission.model import Explained, Seen
from smtpguard.admission.preapproval import alone
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import indexes, installation_secret, read_policy
from smtpguard.app.lists import built_refresher, built_registry
from smtpguard.app.policies import surroundings
from smtpguard.config.documents import policy_document
from smtpguard.config.problem import Undeclared
from smtpguard.config.settings import Settings
from smtpguard.gathering.gather import Gather
from smtpguard.gathering.reader import Around, BoundedReader
from smtpguard.gathering.streams import watched
from smtpguard.guard.inforce import InForce
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import index_path
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session, within
from smtpguard.mail.message import Message
from smtpguard.mail.transaction import Transaction
from smtpguard.policy.facts import ONLY_ORIGIN, Source
from smtpguard.policy.parse import Policy
from smtpguard.reading.looks import Reading
from smtpguard.reading.read import read
from smtpguard.reading.request import Surroundings
from smtpguard.wire.dkim import DkimVerifier, Resolver


@dataclass(frozen=True, slots=True)
class Explainer:
    """Made by ``explainer``. ``places``: file and line of each rule."""

    in_force: InForce
    gather: Gather
    around: Surroundings
    places: Mapping[str, str] = field(default_factory=dict)

    async def explain(
        self,
        message: Message,
        reverse_path: Address | None,
        recipients: Sequence[Address],
        session: Session,
        counted: Mapping[str, int] | None = None,
    ) -> Explained:
        """``counted``: counts by fact, used where this message alone has less."""
        envelope = Envelope(reverse_path=reverse_path, recipients=tuple(Recipient(address=a) for a in recipients))
        transaction = Transaction(id=ids()(), session=session, envelope=envelope, message=message)
        gathered = await self.gather.open(transaction, self.in_force)
        gathered = await self.gather.ask(gathered, frozenset({Source.HEADERS, Source.TEXT}))
        plan = self.in_force.rules.plan(gathered.facts)
        for _ in Source:
            if not plan.pending:
                break
            gathered = await self.gather.ask(gathered, plan.pending)
            plan = self.in_force.rules.plan(gathered.facts)
        if gathered.reports_by_origin:
            gathered = await self.gather.ask(gathered, ONLY_ORIGIN)
            plan = self.in_force.rules.plan(gathered.facts)
        streams = watched(gathered)
        asks = (*plan.asks, *(one.ask for one in streams))
        counts, maybe = alone(asks, gathered)
        if counted:
            counts = {ask: max(n, counted.get(ask.fact, 0)) for ask, n in counts.items()}
        live = Seen(now=SystemClock().now(), counts=counts, maybe=maybe)
        verdict = or_held(with_fixed(plan.close(live, misses=True), gathered, live, streams), gathered)
        reading = gathered.text if isinstance(gathered.text, Reading) else read(message, self.around)
        return Explained(
            verdict=verdict,
            reading=reading,
            recipients=gathered.everyone,
            facts=gathered.facts,
            purposes=self.in_force.purposes(),
            places=self.places,
        )


@asynccontextmanager
async def explainer(settings: Settings, policy: Policy | None = None) -> AsyncIterator[Explainer]:
    """With the policy in the file now. Raises Broken, CannotStart."""
    policy = policy or read_policy(settings)
    async with AsyncExitStack() as undo:
        made = built(*indexed(settings, policy, undo), policy, undo)
        yield replace(made, places=rule_places(policy, str(settings.policy)))


def built(settings: Settings, digester: Digester, policy: Policy, undo: AsyncExitStack) -> Explainer:
    """``digester``: of the indexes in the state folder of ``settings``. ``undo`` closes it."""
    around = surroundings(settings, policy)
    in_force = InForce.of(policy, built_registry(settings, policy, digester, SystemClock()))
    key = None if settings.secret_file.is_file() else os.urandom(32)
    return Explainer(in_force, gathering(settings, lambda: (policy.sha256, around), undo, key=key), around)


def session_at(settings: Settings, name: str | None, client: str, *, login: str | None = None) -> Session:
    """A client's session at the listener of this name or place; by default at the first. Raises Undeclared."""
    known = {each.called: each for _, _, each in settings.listen.each()}
    if name is not None and name not in known:
        raise Undeclared("listener", name, known)
    listener = known[name] if name is not None else next(iter(known.values()), None)
    return Session(
        client_ip=client,
        listener=listener.called if listener is not None else "",
        auth_user=login,
        senders_verified=listener is not None and listener.senders_verified,
        proves_senders=listener is not None and listener.proves_senders,
        expander=within(client, settings.expanders),
    )


def rule_places(policy: Policy, where: str) -> Mapping[str, str]:
    """Rule -> "policy.yaml:61". ``where``: the name of the policy's own file."""
    document = policy_document(policy.documents, where)
    marks = {rule["id"]: document.mark(("rules", n)) for n, rule in enumerate(document.value.get("rules") or ())}
    return {rule: f"{mark.file or where}:{mark.line}" for rule, mark in marks.items()}


def indexed(settings: Settings, policy: Policy, undo: AsyncExitStack) -> tuple[Settings, Digester]:
    """The settings and digester for indexes: those in use, or temporary ones if a list has none yet, deleted when
    ``undo`` is closed."""
    lists, _ = policy.declared
    with_members = [info for info in lists.values() if info.members]
    there = settings.secret_file.is_file() and all(
        index_path(indexes(settings), info.name).exists() for info in with_members
    )
    if there:
        return settings, Digester(installation_secret(settings), settings.delimiters)
    folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="smtpguard-explain-")))
    passing = settings.model_copy(update={"state": folder})
    indexes(passing).mkdir(mode=0o700)
    digester = Digester(os.urandom(32), settings.delimiters)
    refresher = built_refresher(passing, policy, digester)
    for info in with_members:  # a list that cannot be read has no index, and is unknown, as for real mail
        refresher.sync(info, SystemClock().now())
    return passing, digester


def gathering(settings: Settings, around: Around, undo: AsyncExitStack, *, key: bytes | None = None) -> Gather:
    """``undo`` closes its reader and verifier. ``key``: of traces, instead of the installation's secret."""
    reader, verifier = BoundedReader(around), _verifier(settings)
    undo.push_async_callback(reader.close)
    undo.push_async_callback(verifier.close)
    return Gather(reader=reader, verifier=verifier, trace_key=key or installation_secret(settings))


def _verifier(settings: Settings) -> DkimVerifier:
    resolver = None
    if settings.resolver.nameservers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = list(settings.resolver.nameservers)
    lookup = Resolver(resolver, seconds=settings.resolver.timeout_seconds).txt
    return DkimVerifier(lookup, pinned=settings.dkim_keys)
