"""What ``check --live`` says: how the real relay and the list sources answer, and which ways around the guard are open.

Never here: the asking (app.probe).
"""

from __future__ import annotations

import click

from smtpguard.cli.context import Context
from smtpguard.config.settings import Settings
from smtpguard.policy.parse import Policy

_MARKS = {"fine": "ok", "wrong": "WRONG", "open": "OPEN", "accepted": "open", "unknown": "?"}
_COLOURS = {"fine": "green", "wrong": "red", "open": "red", "accepted": "yellow", "unknown": "yellow"}


def tell(context: Context, settings: Settings, policy: Policy, *, as_json: bool = False) -> bool:
    """A line a finding, as each is known. Whether all is fine: nothing wrong, and no way open that is not accepted."""
    return context.run(_tell(context, settings, policy, as_json or context.json))


async def _tell(context: Context, settings: Settings, policy: Policy, as_json: bool) -> bool:
    from smtpguard.app.finding import State
    from smtpguard.app.probe import look

    fine = True
    async for finding in look(settings, policy):
        fine = fine and finding.state not in (State.WRONG, State.OPEN)
        state = finding.state.value
        if as_json:
            context.say({"about": finding.about, "state": state, "text": finding.text})
        else:
            click.echo(click.style(f"{_MARKS[state]:<6}", fg=_COLOURS[state]) + finding.text)
    return fine
