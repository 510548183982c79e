"""``smtpguard reload``: check the policy's files and put them in force; every process follows within 250 ms.

The settings are read at the start only. Never here: checking or storing a policy (app.start).
"""

from __future__ import annotations

import click

from smtpguard.cli.context import Context


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(context: Context, as_json: bool) -> None:
    """Put the policy file in force. A file with mistakes changes nothing: exit 1."""
    from smtpguard.app import start
    from smtpguard.config.problem import Broken

    settings = context.settings()
    try:
        done = context.run(start.reload(settings, by=context.user))
    except Broken as e:
        for problem in e.problems:
            if as_json or context.json:
                context.say(problem.row())
            else:
                click.echo(str(problem), err=True)
        click.echo("smtpguard: the policy in force stays", err=True)
        raise click.exceptions.Exit(1) from None
    for warning in done.warnings:
        click.echo(str(warning), err=True)
    if as_json or context.json:
        context.say({"policy_sha256": done.sha256, "before": done.before or None, "changed": done.changed})
    elif done.changed:
        click.echo(
            f"policy {done.sha256[:12]} is in force" + (f", before it {done.before[:12]}" if done.before else "")
        )
    else:
        settings_file = context.config.name  # whoever changed that hears that it was not this which they needed
        click.echo(f"policy {done.sha256[:12]} was in force already; {settings_file} is read when serve starts")
