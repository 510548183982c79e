"""smtpguard renew-secret: a new secret after a leak or a loss.

Holds stay, and the journal continues under the new secret. Clear values in older entries can be checked against their
digests with the old secret only.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from smtpguard.app.clock import ids
from smtpguard.app.files import CannotStart
from smtpguard.app.services import opened
from smtpguard.cli.context import Context, as_json, awaited
from smtpguard.config.settings import Settings
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import KEY_OCTETS, BadKey, installation_key, new_key


@click.command()
@as_json("One JSON object.")
@click.pass_obj
@awaited
async def command(context: Context) -> None:
    """Make a new secret and put it in force. The old one is kept beside it, to verify what was written with it."""

    aside = await renew(context.settings(), by=context.user)
    if context.json:
        context.say({"secret_file": str(context.settings().secret_file), "old": None if aside is None else str(aside)})
        return
    click.echo(f"{context.settings().secret_file} is new" + (f"; the old one is {aside} now." if aside else "."))
    click.echo(
        "Start smtpguard serve again, on every host, with this secret: until then nothing is recorded, and mail waits."
    )


async def renew(settings: Settings, *, by: str) -> Path | None:
    """Make a new secret and use it from now on. Returns the path of the old one; None if there was none. Raises
    CannotStart and LedgerError: the file may then be new already, and the next call makes another one."""
    key = secrets.token_bytes(KEY_OCTETS)
    try:
        before = installation_key(settings.secret_file) if settings.secret_file.exists() else b""
    except BadKey:
        before = b""
    async with opened(settings, new_secret=key) as (store, _):
        try:
            aside = new_key(settings.secret_file, key)
        except BadKey as e:
            raise CannotStart(str(e)) from None
        await store.renew(Event(kind=Kind.SECRET, id=ids()(), at=store.now(), private={"actor": (by,)}), before)
    return aside
