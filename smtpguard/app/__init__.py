"""Introduces everyone: the only room that knows all the others, and the only one that builds across them.

files (what stands on disk), policies (what is in force, followed), lists (registry and refresher), telling (the ledger that
logs), start (before the parts), services (what the command line works with), proxy and delivery (the parts of ``serve``).

Here stands what the command line asks for, each imported when it is asked for: ``check`` waits for no database driver.
Never here: a decision about mail.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtpguard.app.services import Services
    from smtpguard.config.settings import Settings
    from smtpguard.lists.registry import Registry
    from smtpguard.lists.sync import Refresher
    from smtpguard.policy.parse import Policy


def read_settings(path: Path) -> Settings:
    """Raises config.problem.Broken with every problem."""
    from smtpguard.config.settings import read_settings

    return read_settings(path)


def read_policy(settings: Settings) -> Policy:
    """As the files have it now, which need not be what is in force. Raises config.problem.Broken."""
    from smtpguard.app.files import read_policy

    return read_policy(settings)


def registry(settings: Settings, policy: Policy) -> Registry:
    """What each recipient is under this policy, with the indexes that are there."""
    from smtpguard.app.lists import open_registry

    return open_registry(settings, policy)


def refresher(settings: Settings, policy: Policy) -> Refresher:
    """What reads the sources of this policy's lists into indexes."""
    from smtpguard.app.lists import open_refresher

    return open_refresher(settings, policy)


def services(settings: Settings) -> AbstractAsyncContextManager[Services]:
    """The store and what works on it. Raises files.CannotStart and LedgerError on entry."""
    from smtpguard.app.services import services

    return services(settings)
