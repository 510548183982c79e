"""Another secret for an installation: after a leak, or where it is lost.

Nothing that waits is lost, and the journal goes on under the new one; what names people in it before can be held against its
digests with the old one only.
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
    """Make a new secret and put it in force. Returns where the old one is now; None where there was none. Raises CannotStart and
    LedgerError: the file may then be new already, and the next try makes another one."""
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
