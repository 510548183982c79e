"""Open the console's accounts without the console, for the command line: a command then starts in half the time."""

from __future__ import annotations

from collections.abc import Callable

from smtpguard.accounts.rows import People
from smtpguard.config.settings import Settings
from smtpguard.console.people.accounts import Accounts
from smtpguard.console.people.credentials import Factors, Passwords
from smtpguard.guard.ports import Clock
from smtpguard.store.store import Store


def accounts(
    settings: Settings,
    store: Store,
    clock: Clock,
    *,
    secret: bytes,
    new_id: Callable[[], str],
    passwords: Passwords | None = None,
) -> Accounts:
    """For the console and ``smtpguard users`` alike."""
    return Accounts(
        People(store),
        clock,
        new_id=new_id,
        passwords=passwords or Passwords(),
        factors=Factors(secret),
        delimiters=settings.delimiters,
    )
