"""What ``check --live`` says: how the store stands, how the real relay and the list sources answer, and which ways around the guard
are open.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click

from smtpguard.app.finding import Finding, State
from smtpguard.cli.context import Context
from smtpguard.config.settings import Settings
from smtpguard.policy.parse import Policy

_MARKS = {"fine": "ok", "wrong": "WRONG", "open": "OPEN", "accepted": "open", "unknown": "?", "odd": "odd"}
_COLOURS = {"fine": "green", "wrong": "red", "open": "red", "accepted": "yellow", "unknown": "yellow", "odd": "yellow"}


def tell(context: Context, settings: Settings, policy: Policy, *, as_json: bool = False) -> bool:
    """A line a finding, as each is known. Whether all is fine: nothing wrong, and no way open that is not accepted."""
    return context.run(_tell(context, settings, policy, as_json or context.json))


async def _tell(context: Context, settings: Settings, policy: Policy, as_json: bool) -> bool:
    from smtpguard.app.probe import look

    fine = await store(context, settings, policy, as_json=as_json)
    async for finding in look(settings, policy):
        fine = _said(context, finding, as_json) and fine
    return fine


async def store(context: Context, settings: Settings, policy: Policy | None, *, as_json: bool) -> bool:
    """A line a finding on the store and on who decides in it, and whether it may go on as it is."""
    from smtpguard.app.storestatus import policy_stands, stands
    from smtpguard.app.turnedaway import turned_away

    found = [*await stands(settings, policy), *await asyncio.to_thread(policy_stands, settings)]
    found += await turned_away(settings, datetime.now(UTC))
    well = [_said(context, finding, as_json) for finding in found]
    return all(well)


def _said(context: Context, finding: Finding, as_json: bool) -> bool:
    """Whether it is well."""
    state = finding.state.value
    if as_json:
        context.say({"about": finding.about, "state": state, "text": finding.text})
    else:
        click.echo(click.style(f"{_MARKS[state]:<6}", fg=_COLOURS[state]) + finding.text)
    return finding.state not in (State.WRONG, State.OPEN)
