"""What begins the correction of a mailing at a terminal: everything that reads a message, beside the store that is open already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from smtpguard.admission.correcting import Corrections
from smtpguard.app.files import installation_secret
from smtpguard.app.policies import Following
from smtpguard.app.signatures import dkim_verifier
from smtpguard.config.settings import Settings
from smtpguard.gathering.gather import Gather
from smtpguard.gathering.reader import BoundedReader
from smtpguard.guard.ports import Clock
from smtpguard.holds.deadlines import Deadlines
from smtpguard.lists.digest import Digester
from smtpguard.notices.intents import Notices
from smtpguard.store.store import Store


@asynccontextmanager
async def corrections(
    settings: Settings,
    store: Store,
    digester: Digester,
    clock: Clock,
    new_id: Callable[[], str],
    *,
    term: Deadlines,
    notices: Notices,
) -> AsyncIterator[Corrections]:
    """Raises LedgerError."""
    async with AsyncExitStack() as undo:
        policies = Following(store, settings, digester, clock, reading=True)
        await policies.begin()
        reader, verifier = BoundedReader(policies.around), dkim_verifier(settings)
        undo.push_async_callback(reader.close)
        undo.push_async_callback(verifier.close)
        yield Corrections(
            ledger=store,
            policies=policies,
            gather=Gather(reader=reader, verifier=verifier, trace_key=installation_secret(settings)),
            clock=clock,
            new_id=new_id,
            term=term,
            notices=notices,
        )
