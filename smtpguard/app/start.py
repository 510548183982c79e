"""What happens once: before the parts of ``serve`` start, and when a policy is put in force.

Never here: what the parts do, or following a policy that is in force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from smtpguard import __version__
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.files import read_policy
from smtpguard.app.services import opened
from smtpguard.app.synced import first_time, nobody
from smtpguard.audit.event import Event, Kind
from smtpguard.config.documents import POLICY
from smtpguard.config.problem import Broken, Problem
from smtpguard.config.settings import Settings
from smtpguard.policy.parse import Policy
from smtpguard.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PutInForce:
    """``before``: the SHA-256 of the policy that was in force, "" for none. ``changed``: another one is now."""

    sha256: str
    before: str
    warnings: tuple[Problem, ...] = ()

    @property
    def changed(self) -> bool:
        return self.sha256 != self.before


async def prepare(
    settings: Settings, *, by: str, parts: tuple[str, ...], tell: Callable[[Event], None] = nobody
) -> PutInForce:
    """State directory, secret, database, policy, lists: what every part counts on. ``tell`` is told of what is read. Raises
    Broken, CannotStart and LedgerError.

    A policy with mistakes, or half of one, is no policy: nothing starts under it, even if another one was in force before.
    """
    policy = read_policy(settings)
    async with opened(settings, migrate=True) as (store, _):
        done = await _put(store, settings, policy, by)
        await store.record([_event(Kind.START, by, {"version": __version__, "parts": list(parts)})])
    await first_time(settings, policy, by=by, tell=tell)
    return done


async def ended(settings: Settings, *, by: str, status: int) -> None:
    async with opened(settings) as (store, _):
        await store.record([_event(Kind.STOP, by, {"status": status})])


async def reload(settings: Settings, *, by: str) -> PutInForce:
    """Check the policy's files, store them by their SHA-256 and move the gate; every process follows within 250 ms.

    Raises Broken, and the policy in force stays.
    """
    policy = read_policy(settings)
    async with opened(settings) as (store, _):
        return await _put(store, settings, policy, by)


async def _put(store: Store, settings: Settings, policy: Policy, by: str) -> PutInForce:
    before = (await store.gate()).policy_sha256
    if before != policy.sha256:
        if before and (torn := half_written(settings.policy, policy.documents, await store.policy(before))):
            raise Broken(torn)
        data = {
            "sha256": policy.sha256,
            "before": before or None,
            "rules": len(policy.rules.rules),
            "enforce": policy.enforce,
        }
        await store.put_policy(policy.sha256, policy.documents, _event(Kind.POLICY, by, data))
    return PutInForce(sha256=policy.sha256, before=before, warnings=policy.warnings)


def half_written(path: Path, documents: Mapping[str, bytes], in_force: Mapping[str, bytes]) -> list[Problem]:
    """A file cut off at the end of a rule is a policy still, a looser one. That it is the beginning of what is in force gives
    it away: so a file looks while it is written, or after a disk was full."""
    problems = []
    for name, before in in_force.items():
        now = documents.get(name, before)
        rest = before.removeprefix(now)
        if rest != before and rest.strip():
            file = path if name == POLICY else path.parent / name
            line = now.count(b"\n") + 1
            text = "ends where the policy in force goes on, like a file that is half written"
            problems.append(Problem(str(file), line, 1, text, "the rest, or a comment at the end if this is all of it"))
    return problems


def _event(kind: Kind, by: str, data: Mapping[str, object]) -> Event:
    return Event(kind=kind, id=ids()(), at=SystemClock().now(), data=data, private={"actor": (by,)})
