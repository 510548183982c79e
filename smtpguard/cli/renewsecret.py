"""smtpguard renew-secret: a new secret after a leak or a loss."""

from __future__ import annotations

from pathlib import Path

import click

from smtpguard.cli.context import Context


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(context: Context, as_json: bool) -> None:
    """Make a new secret and put it in force. The old one is kept beside it, to verify what was written with it."""

    async def work() -> Path | None:
        from smtpguard.app.renewal import renew

        return await renew(context.settings(), by=context.user)

    aside = context.run(work())
    if as_json or context.json:
        context.say({"secret_file": str(context.settings().secret_file), "old": None if aside is None else str(aside)})
        return
    click.echo(f"{context.settings().secret_file} is new" + (f"; the old one is {aside} now." if aside else "."))
    click.echo(
        "Start smtpguard serve again, on every host, with this secret: until then nothing is recorded, and mail waits."
    )
