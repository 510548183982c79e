"""Make an incident report for a command: find it, prove the journal, and say why where there is none."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from smtpguard.cli.audit import may_name, progress
from smtpguard.cli.context import CannotRun, Context, NotFine
from smtpguard.console.reporting import Made, NothingFits, make
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import TooMany


async def making(
    context: Context, asked: IncidentQuery, now: datetime, *, names: bool, prove: bool, language: str
) -> Made:
    """Raises CannotRun and NotFine."""
    from smtpguard.app.lists import on_list
    from smtpguard.app.services import opened

    settings = context.settings()
    async with opened(settings, reads=True) as (store, digester):
        if names:
            may_name(store)
        with progress("Verifying the journal") as moved:
            try:
                return await make(
                    asked,
                    partial(store.journal.incident, prove=prove, progress=moved, asked=on_list(settings, digester)),
                    store,
                    at=now,
                    names=names,
                    by=(context.user,),
                    language=language,
                    delimiters=settings.delimiters,
                    keeps=timedelta(seconds=settings.retention.content),
                )
            except TooMany as error:
                raise CannotRun(str(error)) from None
            except NothingFits as error:
                raise NotFine(str(error)) from None
