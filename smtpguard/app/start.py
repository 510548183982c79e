"""What happens once: before the parts of ``serve`` start, and when a policy is put in force.

A start takes the policy in force from the store and never changes it. Two exceptions: the first start of an empty store, and a
start that is told to take the file with a certain SHA-256.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from smtpguard import __version__
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import CannotStart, parse_policy, read_policy
from smtpguard.app.policyfile import PolicyFile, compare, unreadable
from smtpguard.app.services import opened
from smtpguard.app.synced import first_time, nobody
from smtpguard.audit.event import Event, Kind
from smtpguard.config.problem import Broken, Problem
from smtpguard.config.settings import Settings
from smtpguard.policy.admission import PolicyMoved
from smtpguard.policy.parse import Policy
from smtpguard.store.store import Store

SHORTEST_NAME = 12
"""Digits of a SHA-256 by which a file may be named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutInForce:
    """``before``: the SHA-256 of the policy that was in force, "" for none. ``changed``: another one is now."""

    sha256: str
    before: str
    warnings: tuple[Problem, ...] = ()

    @property
    def changed(self) -> bool:
        return self.sha256 != self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """``sha256``: of the policy in force. ``put``: what this start itself put in force, None for nothing. ``file``: how the policy file
    beside it stands. ``unreadable``: why this version cannot read the policy in force, "" where it can."""

    sha256: str
    file: PolicyFile
    put: PutInForce | None = None
    unreadable: str = ""


async def prepare(
    settings: Settings,
    *,
    by: str,
    parts: tuple[str, ...],
    tell: Callable[[Event], None] = nobody,
    from_file: str = "",
) -> Prepared:
    """State directory, secret, database, policy, lists: what every part counts on. ``tell`` is told of what is read. ``from_file``: the
    SHA-256, or the beginning of it, of the policy file that is to be put in force. Raises Broken, CannotStart and LedgerError.

    Broken is raised only where nothing is in force yet, or where the file was asked for: else the file is of no account.
    """
    async with opened(settings, migrate=True) as (store, _):
        put = None
        if from_file:
            put = await _from_file(store, settings, from_file, by)
        elif not (await store.gate()).policy_sha256:
            put = await _first(store, settings, by)
        sha256 = (await store.gate()).policy_sha256
        try:
            documents = await store.policy(sha256)
        except KeyError:
            documents = {}
        file = compare(settings, documents)
        data = {
            "version": __version__,
            "parts": list(parts),
            "host": socket.gethostname(),
            "policy_in_force": sha256,
            "policy_file": file.state.value,
            "policy_file_sha256": file.sha256 or None,
        }
        await store.record([_event(Kind.START, by, data)])
    try:
        policy = parse_policy(settings, documents)
    except (Broken, KeyError) as e:
        return Prepared(sha256=sha256, file=file, put=put, unreadable=unreadable(sha256, e))
    await first_time(settings, policy, by=by, tell=tell)
    return Prepared(sha256=sha256, file=file, put=put)


async def ended(settings: Settings, *, by: str, status: int) -> None:
    async with opened(settings) as (store, _):
        await store.record([_event(Kind.STOP, by, {"status": status})])


async def reload(settings: Settings, *, by: str) -> PutInForce:
    """Check the policy's files, store them by their SHA-256 and move the gate; every process follows within 250 ms.

    Raises Broken, and the policy in force stays.
    """
    policy = read_policy(settings)
    async with opened(settings) as (store, _):
        before = (await store.gate()).policy_sha256
        if before != policy.sha256:
            await _put(store, policy, by, how="reload", before=before)
        return PutInForce(sha256=policy.sha256, before=before, warnings=policy.warnings)


async def _first(store: Store, settings: Settings, by: str) -> PutInForce | None:
    """Nothing is in force yet. Of two nodes that start at once on an empty store, one puts its file there; the other follows."""
    policy = read_policy(settings)
    try:
        await _put(store, policy, by, how="first start", before="")
    except PolicyMoved:
        return None
    return PutInForce(sha256=policy.sha256, before="", warnings=policy.warnings)


async def _from_file(store: Store, settings: Settings, named: str, by: str) -> PutInForce | None:
    """None where the policy of that name is in force already. Raises CannotStart where the file is another one."""
    wanted, before = named.lower(), (await store.gate()).policy_sha256
    if len(wanted) < SHORTEST_NAME or set(wanted) - set("0123456789abcdef"):
        raise CannotStart(
            f"--policy-from-file {named}: expected the SHA-256 of the policy file, or its first {SHORTEST_NAME} digits"
        )
    if before.startswith(wanted):
        return None
    policy = read_policy(settings)
    if not policy.sha256.startswith(wanted):
        raise CannotStart(
            f"--policy-from-file {named}: {settings.policy} with its vocabularies is {policy.sha256}, and is not put in force"
        )
    await _put(store, policy, by, how="start with --policy-from-file", before=before)
    return PutInForce(sha256=policy.sha256, before=before, warnings=policy.warnings)


async def _put(store: Store, policy: Policy, by: str, *, how: str, before: str) -> None:
    """Raises PolicyMoved where another one than ``before`` is in force meanwhile."""
    data = {
        "sha256": policy.sha256,
        "before": before or None,
        "rules": len(policy.rules.rules),
        "enforce": policy.enforce,
        "how": how,
        "host": socket.gethostname(),
    }
    await store.put_policy(policy.sha256, policy.documents, _event(Kind.POLICY, by, data), before=before)


def _event(kind: Kind, by: str, data: Mapping[str, object]) -> Event:
    return Event(kind=kind, id=ids()(), at=SystemClock().now(), data=data, private={"actor": (by,)})
