"""Explain what would happen to a message, with the gathering and planning of real mail but without a store.

Nothing is relayed, counted or written; counts are those of this message alone. List indexes on disk are used. For a list
without an index a temporary one is built and deleted afterwards. Signatures are verified with pinned keys or keys in DNS.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.asyncresolver

from smtpguard.admission.builtinrules import or_held, with_fixed
from smtpguard.admission.model import Explained
from smtpguard.admission.preapproval import seen_alone
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import indexes, installation_secret
from smtpguard.app.lists import built_expander, built_refresher, built_registry
from smtpguard.app.policies import surroundings
from smtpguard.config.documents import policy_document
from smtpguard.config.problem import Undeclared
from smtpguard.config.settings import Settings
from smtpguard.gathering.gather import Gather
from smtpguard.gathering.reader import Around, BoundedReader
from smtpguard.gathering.streams import watched
from smtpguard.guard.inforce import InForce
from smtpguard.lists.digest import Digester
from smtpguard.lists.expansions import expansions_path
from smtpguard.lists.index import index_path
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session, Transaction, within
from smtpguard.mail.message import Message
from smtpguard.policy.parse import Policy
from smtpguard.reading.looks import Reading
from smtpguard.reading.read import read
from smtpguard.reading.request import Surroundings
from smtpguard.wire.dkim import DkimVerifier, Resolver


@dataclass(frozen=True, slots=True)
class Explainer:
    """What explains messages under one policy."""

    in_force: InForce
    gather: Gather
    around: Surroundings

    async def explain(
        self,
        message: Message,
        reverse_path: Address | None,
        recipients: Sequence[Address],
        session: Session,
        counted: Mapping[str, int] | None = None,
    ) -> Explained:
        """Return what would happen to a message, and why. ``counted``: counts by fact, used where they are higher than those of
        this message alone."""
        envelope = Envelope(reverse_path=reverse_path, recipients=tuple(Recipient(address=a) for a in recipients))
        transaction = Transaction(id=ids()(), session=session, envelope=envelope, message=message)
        gathered, plan = await self.gather.planned(transaction, self.in_force, text=True)
        streams = watched(gathered)
        asks = (*plan.asks, *(one.ask for one in streams))
        known = counted or {}
        live = seen_alone(asks, gathered, SystemClock().now(), lambda ask: known.get(ask.fact, 0))
        verdict = or_held(with_fixed(plan.close(live, misses=True), gathered, live, streams), gathered)
        reading = gathered.text if isinstance(gathered.text, Reading) else read(message, self.around)
        return Explained(verdict=verdict, reading=reading, recipients=gathered.everyone, facts=gathered.facts)


@asynccontextmanager
async def explainer(settings: Settings, policy: Policy) -> AsyncIterator[Explainer]:
    """Make an explainer. Raises CannotStart."""
    async with AsyncExitStack() as undo:
        yield built(*indexed(settings, policy, undo), policy, undo)


def built(settings: Settings, digester: Digester, policy: Policy, undo: AsyncExitStack) -> Explainer:
    """Make an explainer that ``undo`` closes. ``digester``: that of the indexes in the state folder of ``settings``."""
    around = surroundings(settings, policy)
    in_force = InForce.of(policy, built_registry(settings, policy, digester, SystemClock()))
    key = None if settings.secret_file.is_file() else os.urandom(32)
    return Explainer(in_force, gathering(settings, lambda: (policy.sha256, around), undo, key=key), around)


def session_at(settings: Settings, name: str | None, client: str, *, login: str | None = None) -> Session:
    """Return a client's session at the listener of this name or place; by default at the first. Raises Undeclared."""
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
    """Return the place of each rule by its id, such as "policy.yaml:61". ``where``: the name of the policy's own file."""
    document = policy_document(policy.documents, where)
    marks = {rule["id"]: document.mark(("rules", n)) for n, rule in enumerate(document.value.get("rules") or ())}
    return {rule: f"{mark.file or where}:{mark.line}" for rule, mark in marks.items()}


def indexed(settings: Settings, policy: Policy, undo: AsyncExitStack) -> tuple[Settings, Digester]:
    """Return settings and a digester for indexes: those in use, if they are complete. A list, or what expands at the relay,
    that has no index yet gets a temporary one in a folder beside links to the others, deleted when ``undo`` is closed."""
    lists, known = policy.declared_lists.values(), settings.secret_file.is_file()
    digester = Digester(installation_secret(settings) if known else os.urandom(32), settings.delimiters)
    in_use = {file.name: file.absolute() for file in indexes(settings).glob("*") if file.is_file()} if known else {}
    new = [info for info in lists if info.members and index_path(Path(), info.name).name not in in_use]
    expands = bool(policy.expansions) and expansions_path(Path()).name not in in_use
    if known and not new and not expands:
        return settings, digester
    folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="smtpguard-explain-")))
    passing = settings.model_copy(update={"state": folder})
    indexes(passing).mkdir(mode=0o700)
    for name, file in in_use.items():
        (indexes(passing) / name).symlink_to(file)
    refresher = built_refresher(passing, policy, digester)
    for info in new:  # a list that cannot be read has no index, and is unknown, as for real mail
        refresher.sync(info, SystemClock().now())
    if expands:
        expander = built_expander(passing, policy, built_registry(passing, policy, digester, SystemClock()))
        expander.sync(expander.info, SystemClock().now())
    return passing, digester


def gathering(settings: Settings, around: Around, undo: AsyncExitStack, *, key: bytes | None = None) -> Gather:
    """Build what reads a message, verifies its signature and gathers its facts, for real mail as well. ``undo`` closes its
    reader and verifier. ``key``: verifies our own trace headers, instead of the installation's secret."""
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
