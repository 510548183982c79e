"""smtpguard reload: check the policy's files and put them in force; every process follows within 250 ms.

The settings are read at the start only. ``policy restore`` uses ``putting`` as well: it says what may get looser, asks,
and reports the result.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import Context, NotFine, as_json, awaited, terminal

if TYPE_CHECKING:
    from smtpguard.app.policychange import Agree, Proposal

yes = click.option("--yes", is_flag=True, help="Put it in force without asking, even if it holds less.")
fail_on_warning = click.option("--fail-on-warning", is_flag=True, help="Change nothing if there is a warning: exit 1.")


@click.command()
@yes
@fail_on_warning
@as_json("One JSON object.")
@click.pass_obj
@awaited
async def command(context: Context, yes: bool, fail_on_warning: bool) -> None:
    """Put the policy file in force. A file with mistakes changes nothing: exit 1.

    If anything may become looser, it is shown and you are asked; without a terminal, --yes is required.
    """
    from smtpguard.app import policychange as app

    settings = context.settings()

    def work(agree: Agree) -> Coroutine[Any, Any, Proposal]:
        return app.reload(settings, by=context.user, agree=agree, fail_on_warning=fail_on_warning)

    done = await putting(context, work, yes=yes, again="smtpguard reload --yes")
    if done is not None and not done.changed:
        settings_file = context.config.name  # names the file for people who have changed the settings instead
        click.echo(f"policy {done.sha256[:12]} was in force already; {settings_file} is read when serve starts")


async def putting(
    context: Context,
    work: Callable[[Agree], Coroutine[Any, Any, Proposal]],
    *,
    yes: bool,
    again: str,
) -> Proposal | None:
    """``again``: the command to type if nobody could be asked. None if everything was reported already. Raises Exit if
    it is not in force."""
    from smtpguard.app.policychange import NotAgreed
    from smtpguard.config.problem import Broken
    from smtpguard.database.errors import PolicyMoved

    asks = not context.json and terminal()

    def agree(proposal: Proposal) -> bool:
        if not context.json:
            _shown(proposal)
        return yes or (asks and click.confirm("Put it in force?", default=False))

    try:
        done = await work(agree)
    except Broken as e:
        for problem in e.problems:
            if context.json:
                context.say(problem.row())
            else:
                click.echo(str(problem), err=True)
        click.echo("smtpguard: the policy in force stays", err=True)
        raise click.exceptions.Exit(1) from None
    except NotAgreed as e:
        _warned(e.proposal)
        if context.json:
            context.say(_row(e.proposal, changed=False))
        how = "" if asks or not e.proposal.looser or e.why == "there are warnings" else f". To put it in force: {again}"
        click.echo(f"smtpguard: the policy in force stays: {e.why}{how}", err=True)
        raise click.exceptions.Exit(1) from None
    except PolicyMoved:
        raise NotFine("somebody else put another policy in force meanwhile: look at it, and try again") from None
    _warned(done)
    if context.json:
        context.say(_row(done, changed=done.changed))
        return None
    if not done.changed:
        return done
    before = f", before it {done.before[:12]}" if done.before else ""
    click.echo(f"policy {done.sha256[:12]} is in force{before}")
    return done


def _shown(proposal: Proposal) -> None:
    click.echo(f"Against the policy in force, {proposal.before[:12]}, this may let more pass:", err=True)
    for each in proposal.looser:
        click.echo(f"  {each}", err=True)


def _warned(proposal: Proposal) -> None:
    for warning in proposal.warnings:
        click.echo(str(warning), err=True)


def _row(proposal: Proposal, *, changed: bool) -> dict[str, Any]:
    return {
        "policy_sha256": proposal.sha256 if changed or not proposal.changed else proposal.before or None,
        "before": proposal.before or None,
        "changed": changed,
        "looser": [each.row() for each in proposal.looser],
        "warnings": [warning.row() for warning in proposal.warnings],
    }
