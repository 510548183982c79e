"""Put another policy in force: check it, compare it with the one in force, ask where it may let more pass, and journal
the change.

``reload`` takes the policy file, ``restore`` a policy kept in the store.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import parse_policy
from smtpguard.app.lists import built_registry
from smtpguard.app.policycheck import EXPANSIONS, CheckedPolicy, check_policy, shown
from smtpguard.app.policyfile import stamps
from smtpguard.app.services import opened
from smtpguard.config.documents import digest, policy_documents
from smtpguard.config.problem import Broken, Problem
from smtpguard.config.settings import Settings
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import Digester
from smtpguard.policy.looser import Looser, looser
from smtpguard.policy.parse import Policy
from smtpguard.store.store import Store

MOST_TOLD = 100
"""Changes that the journal records in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A sound policy that could be put in force. ``before``: the SHA-256 of the one in force, "" for none.
    ``warnings``: what is probably not meant, or cannot be read now. ``looser``: what it may let pass that the one in
    force would have stopped."""

    policy: Policy
    before: str
    warnings: tuple[Problem, ...] = ()
    looser: tuple[Looser, ...] = ()

    @property
    def sha256(self) -> str:
        return self.policy.sha256

    @property
    def changed(self) -> bool:
        return self.sha256 != self.before


class NotAgreed(Exception):
    """It is not put in force, and the one before stays. ``why``: one sentence."""

    def __init__(self, proposal: Proposal, why: str) -> None:
        super().__init__(why)
        self.proposal, self.why = proposal, why


Agree = Callable[[Proposal], bool]


def never(_: Proposal) -> bool:
    return False


async def reload(settings: Settings, *, by: str, agree: Agree = never, fail_on_warning: bool = False) -> Proposal:
    """Put the policy file in force. ``agree`` is asked if something may get looser. Every process follows within 250
    ms. Raises Broken with what ``check`` would refuse, NotAgreed, PolicyMoved if somebody else was faster, CannotStart
    and StoreError. On an error the policy in force stays."""
    before = stamps(settings)
    documents = await asyncio.to_thread(policy_documents, settings.policy)
    async with opened(settings) as (store, digester):
        proposal = await propose(settings, store, digester, documents, where=shown(settings.policy))
        now = await asyncio.to_thread(policy_documents, settings.policy)
        if digest(now) != digest(documents) or stamps(settings) != before:
            text = "the policy's files were changed while they were read"
            expected = "a file that is replaced by renaming a complete new one"
            raise Broken([Problem(str(settings.policy), 1, 1, text, expected)])
        return await _agreed(store, proposal, by, "reload", agree, fail_on_warning)


async def restore(
    settings: Settings, sha256: str, *, by: str, agree: Agree = never, fail_on_warning: bool = False
) -> Proposal:
    """Put an earlier policy in force, like ``reload``. Also raises KeyError if none is kept under that SHA-256."""
    async with opened(settings) as (store, digester):
        documents = await store.policies.documents(sha256)
        proposal = await propose(settings, store, digester, documents, where=f"policy.yaml of {sha256[:12]}")
        return await _agreed(store, proposal, by, "restore", agree, fail_on_warning)


async def propose(
    settings: Settings, store: Store, digester: Digester, documents: Mapping[str, bytes], *, where: str
) -> Proposal:
    """Check these documents and compare them with the policy in force. Raises Broken and StoreError."""
    before = (await store.gate.read()).policy_sha256
    try:
        in_force: Mapping[str, bytes] = await store.policies.documents(before) if before else {}
    except KeyError:
        in_force = {}
    return await asyncio.to_thread(_proposed, settings, digester, documents, where, before, in_force)


def _proposed(
    settings: Settings,
    digester: Digester,
    documents: Mapping[str, bytes],
    where: str,
    before: str,
    in_force: Mapping[str, bytes],
) -> Proposal:
    old: Policy | None = None
    lost: tuple[Looser, ...] = ()
    try:
        old = parse_policy(settings, in_force) if in_force else None
    except Broken:
        pass
    if before and old is None:
        text = "the policy in force cannot be read by this smtpguard: what becomes looser is unknown"
        lost = (Looser(text=text, file=where),)
    indexed = (
        _indexed(settings, old, parse_policy(settings, documents, where), digester) if old is not None else frozenset()
    )
    checked: CheckedPolicy = check_policy(documents, settings.policy.parent, settings, where=where, indexed=indexed)
    if checked.fatal:
        raise Broken(checked.problems)
    new = checked.policy
    found = looser(old, new, where=where) if old is not None and old.sha256 != new.sha256 else lost
    return Proposal(policy=new, before=before, warnings=checked.problems, looser=found)


def _indexed(settings: Settings, old: Policy, new: Policy, digester: Digester) -> frozenset[str]:
    """Lists with unchanged sources and an index to use while their sources are away."""
    registry = built_registry(settings, old, digester, SystemClock())
    registry.reopen()
    same = {name for name, info in new.lists.items() if name in old.lists and old.lists[name].members == info.members}
    found = {name for name in same if registry.statuses[name].index is not None}
    if old.expansions == new.expansions:
        found.add(EXPANSIONS)
    return frozenset(found)


async def _agreed(store: Store, proposal: Proposal, by: str, how: str, agree: Agree, fail_on_warning: bool) -> Proposal:
    if fail_on_warning and proposal.warnings:
        raise NotAgreed(proposal, "there are warnings")
    if not proposal.changed:
        return proposal
    if proposal.looser and not agree(proposal):
        raise NotAgreed(proposal, "the policy may become looser, and that was not confirmed")
    await put(store, proposal, by=by, how=how)
    return proposal


async def put(store: Store, proposal: Proposal, *, by: str, how: str) -> None:
    """Put it in force in one commit with its journal entry. Raises PolicyMoved if another policy is in force by now
    than it was compared with."""
    policy = proposal.policy
    data = {
        "sha256": policy.sha256,
        "before": proposal.before or None,
        "rules": len(policy.rules.rules),
        "enforce": policy.enforce,
        "how": how,
        "host": socket.gethostname(),
        "looser": len(proposal.looser),
        "warnings": len(proposal.warnings),
    }
    private: dict[str, tuple[str, ...]] = {"actor": (by,)}
    if proposal.looser:  # contains addresses
        private["looser"] = tuple(each.text for each in proposal.looser[:MOST_TOLD])
    event = Event(kind=Kind.POLICY, id=ids()(), at=SystemClock().now(), data=data, private=private)
    await store.policies.put(policy.sha256, policy.documents, event, before=proposal.before)
