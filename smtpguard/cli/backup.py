"""smtpguard backup and restore. A backup is one file of the whole installation, verified before it gets its name. A restore
freezes everything until a person has compared it with the log. And smtpguard renew-secret: a new secret after a leak or a
loss. Holds stay, and the journal continues under it; clear values in older entries can be checked against their digests
with the old secret only."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpguard.app.clock import ids
from smtpguard.app.files import CannotStart
from smtpguard.app.services import opened
from smtpguard.cli.context import AtLeast, CannotRun, Command, Context, NotFine, progress, terminal
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import KEY_OCTETS, BadKey, earlier_keys, new_key

if TYPE_CHECKING:
    from smtpguard.app.archive import Manifest


@click.command(cls=Command, json="One JSON object.")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--keep", type=AtLeast(0), default=0, metavar="N",
              help="If FILE is a folder, keep the newest N backups and delete the others.")  # fmt: skip
@click.option("--without-secret", is_flag=True, help="Leave the secret out. Keep it elsewhere: a restore needs it.")
@click.option("--no-verify", is_flag=True, help="Do not verify the journal in the backup.")
def command(context: Context, target: Path, keep: int, without_secret: bool, no_verify: bool) -> None:
    """Back up store, checkpoints, time stamps, secret, settings and policy into FILE.

    If FILE is a folder, a new file is made in it, with the time in its name. smtpguard may run meanwhile. FILE is replaced only when the new
    one is complete: copied in one transaction, its journal verified, and read back. The backup contains all held mail: protect it.
    """
    from smtpguard.app.archive import BadBackup
    from smtpguard.app.backup import back_up

    try:
        with progress("Verifying") as told:
            made, manifest, removed = back_up(
                context.settings(), context.config, target, by=context.user, secret=not without_secret, keep=keep,
                verify=not no_verify, progress=told,
            )  # fmt: skip
    except BadBackup as e:
        raise NotFine(str(e)) from None
    size_bytes = made.stat().st_size
    row = {
        "file": str(made),
        "size_bytes": size_bytes,
        "made_at": manifest.made_at,
        "engine": manifest.engine,
        "entries": manifest.entries,
        "removed": [str(path) for path in removed],
    }
    verified = "not verified" if manifest.entries is None else f"verified, {manifest.entries:,} entries"
    summary = f"{made}: {size_bytes / 1e6:,.1f} MB, {verified}"
    context.answer(row, [summary, *(f"{path} is removed" for path in removed)])


@click.command(cls=Command, json="One JSON object.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--extract", metavar="DIR", type=click.Path(path_type=Path),
              help="Only extract the files of the backup into DIR.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(context: Context, file: Path, extract: Path | None, yes: bool) -> None:
    """Restore the store from the backup FILE. First stop smtpguard on every host.

    Releases, decisions, freezes and changes since the backup are lost in it, so everything is frozen: compare with the log,
    then thaw. Checkpoints, time stamps and the secret are restored if they are missing; settings and policy files are not (see --extract).
    """
    from smtpguard.app import archive, backup

    try:
        if extract is not None:
            manifest = archive.extract(file, extract)
            text = f"{extract} has what is in {file}: {', '.join(manifest.members)}"
            context.answer(_row(file, manifest) | {"extracted": str(extract)}, text)
            return
        manifest = archive.manifest_of(file)
        if not yes:
            if not terminal():
                raise CannotRun("this replaces the store: without a terminal, --yes is required")
            url = context.settings().store.url
            click.confirm(
                f"{file} was made {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC by smtpguard {manifest.version}.\n"
                f"Put {url} back to that time?",
                abort=True,
            )
        done = backup.restore(context.settings(), file, by=context.user)
    except archive.BadBackup as e:
        raise NotFine(str(e)) from None
    made_at = done.manifest.made_at
    lines = [
        f"The store is as it was on {made_at:%Y-%m-%d %H:%M:%S} UTC, and everything is frozen.",
        *([f"The store before is in {done.aside}"] if done.aside is not None else []),
        "Compare the holds with the log since then (docs/operations.md, Restore), then: smtpguard thaw --all",
    ]
    before = done.aside and str(done.aside)
    context.answer(_row(file, done.manifest) | {"freeze": done.freeze_id, "before": before}, lines)


def _row(file: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "file": str(file),
        "made_at": manifest.made_at,
        "engine": manifest.engine,
        "extracted": None,
        "freeze": None,
        "before": None,
    }


@click.command(cls=Command, json="One JSON object.")
async def renew_secret(context: Context) -> None:
    """Make a new secret and put it in force. First stop smtpguard on every host. The old secret is kept beside the new one, to verify what was
    written with it."""
    from smtpguard.app.backup import check_unused

    settings, key = context.settings(), secrets.token_bytes(KEY_OCTETS)
    check_unused(settings)
    async with opened(settings, new_secret=key, old_secrets=(*earlier_keys(settings.secret_file),)) as (store, _):
        try:
            aside = new_key(settings.secret_file, key)
        except BadKey as e:
            raise CannotStart(str(e)) from None
        # If this fails, the file is new already. The next call makes another secret, and finds the old one set aside.
        await store.renew(Event(kind=Kind.SECRET, id=ids()(), at=store.now(), private={"actor": (context.user,)}))
    row = {"secret_file": str(settings.secret_file), "old": None if aside is None else str(aside)}
    new = f"{settings.secret_file} is new" + (f"; the old one is {aside} now." if aside else ".")
    then = (
        "Start smtpguard serve again, on every host, with this secret: until then nothing is recorded, and mail waits."
    )
    context.answer(row, [new, then])
