"""Renew the secret of an installation after a leak or a loss.

Holds stay, and the journal continues under the new secret. Clear values in older entries can be checked against their
digests with the old secret only.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from smtpguard.app.clock import ids
from smtpguard.app.files import CannotStart
from smtpguard.app.services import opened
from smtpguard.config.settings import Settings
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.digest import KEY_OCTETS, BadKey, installation_key, new_key


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
