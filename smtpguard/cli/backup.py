"""smtpguard backup: the whole installation in one file, verified before it gets its name."""

from __future__ import annotations

from pathlib import Path

import click

from smtpguard.cli.audit import progress
from smtpguard.cli.context import Context, NotFine


@click.command()
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="If FILE is a folder, keep the newest N backups and delete the others.",
)
@click.option("--without-secret", is_flag=True, help="Leave the secret out. Keep it elsewhere: a restore needs it.")
@click.option("--no-verify", is_flag=True, help="Do not verify the journal in the backup.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(context: Context, target: Path, keep: int, without_secret: bool, no_verify: bool, as_json: bool) -> None:
    """Back up store, checkpoints, secret, settings and policy into FILE.

    If FILE is a folder, a new file is made in it, with the time in its name. smtpguard may run meanwhile. FILE is replaced only when the new
    one is complete: copied in one transaction, its journal verified, and read back. The backup contains all held mail: protect it.
    """

    from smtpguard.app.backup import BadBackup, back_up

    try:
        with progress("Verifying") as told:
            made = back_up(
                context.settings(), context.config, target, by=context.user, secret=not without_secret, keep=keep,
                verify=not no_verify, progress=told,
            )  # fmt: skip
    except BadBackup as e:
        raise NotFine(str(e)) from None
    if as_json or context.json:
        context.say(
            {
                "file": str(made.file),
                "size_bytes": made.size_bytes,
                "made_at": made.manifest.made_at,
                "engine": made.manifest.engine,
                "entries": made.manifest.entries,
                "removed": [str(path) for path in made.removed],
            }
        )
        return
    verified = "not verified" if made.manifest.entries is None else f"verified, {made.manifest.entries:,} entries"
    click.echo(f"{made.file}: {made.size_bytes / 1e6:,.1f} MB, {verified}")
    for path in made.removed:
        click.echo(f"{path} is removed")
