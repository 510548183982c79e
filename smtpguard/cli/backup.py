"""smtpguard backup: the whole installation in one file, verified before it gets its name."""

from __future__ import annotations

from pathlib import Path

import click

from smtpguard.cli.audit import progress
from smtpguard.cli.context import Context, NotFine


@click.command()
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--keep", type=click.IntRange(0), default=0, metavar="N", help="Where FILE is a folder: the newest N stay."
)
@click.option(
    "--without-secret", is_flag=True, help="Leave the secret out: keep it apart, without it nothing can be restored."
)
@click.option("--no-verify", is_flag=True, help="Do not verify the journal in it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(context: Context, target: Path, keep: int, without_secret: bool, no_verify: bool, as_json: bool) -> None:
    """Back up store, checkpoints, secret, settings and policy into FILE.

    Where FILE is a folder, a new file in it has the time in its name. serve may run meanwhile. FILE is replaced only when the new
    one is whole: it is copied in one transaction, its journal is verified, and it is read back. Whoever has it has all held mail.
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
