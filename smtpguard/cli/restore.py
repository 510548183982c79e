"""smtpguard restore: put a backup back, and freeze everything until a person has compared it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smtpguard.cli.context import CannotRun, Context, NotFine

if TYPE_CHECKING:
    from smtpguard.app import backup


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--extract", metavar="DIR", type=click.Path(path_type=Path), help="Only extract the files of the backup into DIR."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(context: Context, file: Path, extract: Path | None, yes: bool, as_json: bool) -> None:
    """Restore the store from the backup FILE. First stop smtpguard on every host.

    Releases, decisions, freezes and changes since the backup are lost in it, so everything is frozen: compare with the log,
    then thaw. Checkpoints and the secret are restored if they are missing; settings and policy files are not (see --extract).
    """
    from smtpguard.app import backup

    try:
        if extract is not None:
            manifest = backup.extract(file, extract)
            _say(context, as_json, file, manifest, extracted=extract)
            return
        manifest = backup.manifest_of(file)
        if not yes:
            if not sys.stdin.isatty():
                raise CannotRun("this replaces the store: without a terminal, --yes is required")
            url = context.settings().store.url
            click.confirm(
                f"{file} was made {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC by smtpguard {manifest.version}.\n"
                f"Put {url} back to that time?",
                abort=True,
            )
        done = backup.restore(context.settings(), file, by=context.user)
    except backup.BadBackup as e:
        raise NotFine(str(e)) from None
    _say(context, as_json, file, done.manifest, restored=done)


def _say(
    context: Context,
    as_json: bool,
    file: Path,
    manifest: backup.Manifest,
    *,
    extracted: Path | None = None,
    restored: backup.Restored | None = None,
) -> None:
    if as_json or context.json:
        context.say(
            {
                "file": str(file),
                "made_at": manifest.made_at,
                "engine": manifest.engine,
                "extracted": extracted and str(extracted),
                "freeze": restored and restored.freeze_id,
                "before": restored and restored.aside and str(restored.aside),
            }
        )
        return
    if restored is None:
        click.echo(f"{extracted} has what is in {file}: {', '.join(manifest.members)}")
        return
    click.echo(f"The store is as it was on {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC, and everything is frozen.")
    if restored.aside is not None:
        click.echo(f"The store before is in {restored.aside}")
    click.echo("Compare the holds with the log since then (docs/operations.md, Restore), then: smtpguard thaw --all")
