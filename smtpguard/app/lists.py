"""The customer lists of a policy on this machine: who is on them (indexes), and what reads their sources.

Never here: how an index is made or asked (lists).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from smtpguard.app.clock import SystemClock
from smtpguard.app.files import indexes, installation_secret, make_state
from smtpguard.audit.event import Event, Kind
from smtpguard.config.settings import Settings
from smtpguard.guard.ports import Clock
from smtpguard.lists.declared import build
from smtpguard.lists.digest import Digester
from smtpguard.lists.registry import Registry
from smtpguard.lists.sync import Refresher, Report
from smtpguard.policy.parse import Policy


def built_registry(settings: Settings, policy: Policy, digester: Digester, clock: Clock) -> Registry:
    """The lists as this policy declares them, with the indexes that are there."""
    lists, streams = build(*policy.sections(), delimiters=policy.delimiters)
    names = (settings.hostname, settings.relay.host, settings.relay.server_name or "")
    return Registry(
        domains=policy.organization.domains,
        lists=lists,
        streams=streams,
        digester=digester,
        folder=indexes(settings),
        now=clock.now,
        host_names=sorted({name for name in names if "." in name and not _is_ip(name)}),
        expanders=settings.expanders,
    )


def built_refresher(settings: Settings, policy: Policy, digester: Digester) -> Refresher:
    """Paths of sources are relative to the policy file."""
    lists, _ = build(*policy.sections(), delimiters=policy.delimiters)
    return Refresher(lists, folder=indexes(settings), base=settings.policy.parent, digester=digester)


def event(report: Report, by: str = "") -> Event:
    """A list's index was replaced, or its source failed. ``by``: the person who asked for it."""
    data = {"people": report.people, "version": report.version, "problem": report.problem or None,
            "rows": report.rows, "bad_rows": report.bad, "source": report.source}  # fmt: skip
    return Event(kind=Kind.LIST, id=report.list, at=report.at, data=data, private={"actor": (by,)} if by else {})


async def journal(settings: Settings, reports: Sequence[Report], *, by: str) -> bool:
    """False: there is no journal yet, since nothing was ever served here. Raises CannotStart and LedgerError."""
    from smtpguard.app.services import opened
    from smtpguard.store.migrate import NotSetUp

    head, _, file = settings.store.url.partition(":///")
    if head.startswith("sqlite") and not Path(file).exists():
        return False  # to open it would make it
    try:
        async with opened(settings) as (store, _):
            await store.record([event(report, by) for report in reports])
    except NotSetUp:
        return False
    return True


def open_registry(settings: Settings, policy: Policy) -> Registry:
    return built_registry(settings, policy, _digester(settings), SystemClock())


def open_refresher(settings: Settings, policy: Policy) -> Refresher:
    return built_refresher(settings, policy, _digester(settings))


def _digester(settings: Settings) -> Digester:
    """The secret is made here too: lists may be synced before the guard was ever started."""
    make_state(settings)
    return Digester(installation_secret(settings), settings.delimiters)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
