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
@click.option("--extract", metavar="DIR", type=click.Path(path_type=Path), help="Only take its members out, into DIR.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(context: Context, file: Path, extract: Path | None, yes: bool, as_json: bool) -> None:
    """Put the store back as it was when FILE was made. Stop smtpguard first, on every host.

    What was released, decided, frozen or changed since then has come undone in it, so everything is frozen: compare with the log,
    then thaw. Checkpoints and secret are put back where there are none; settings and policy files stay as they are (--extract).
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
                raise CannotRun("this replaces the store: --yes, where nobody can be asked")
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
        click.echo(f"What was there before is in {restored.aside}")
    click.echo("Compare what waits with the log since then (docs/operations.md, Restore), then: smtpguard thaw --all")
