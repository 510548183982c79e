"""The console part: the web server for approvers, on the store that the other parts write.

It needs no mail credentials and opens no connection to the relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from smtpguard.admission.model import Explained
from smtpguard.app import mentions, policyfile
from smtpguard.app.alarmchannels import active, take
from smtpguard.app.certificates import RENEWAL_SECONDS, Renewals, of_console
from smtpguard.app.clock import SystemClock, ids
from smtpguard.app.eventlog import EventLog
from smtpguard.app.explaining import Explainer, session_at
from smtpguard.app.files import CannotStart, installation_secret
from smtpguard.app.gathering import gathering
from smtpguard.app.lists import on_list
from smtpguard.app.people import api, front
from smtpguard.app.policies import Following
from smtpguard.app.regularly import every
from smtpguard.app.services import corrections_of, freezes_of, opened, term
from smtpguard.app.webserver import Health, Server, configured
from smtpguard.config.settings import Settings
from smtpguard.console.app import build
from smtpguard.console.people.middleware import WRITE_SECONDS
from smtpguard.console.services import ConsoleServices, OtherFile
from smtpguard.database.errors import StoreError
from smtpguard.freezes.service import GateWatch
from smtpguard.gathering.gather import Gather
from smtpguard.holds.questions import Questions
from smtpguard.holds.service import Approvals
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Session
from smtpguard.mail.message import Message
from smtpguard.mailings.matching import Matched
from smtpguard.mailings.service import Mailings
from smtpguard.policy.parse import Policy
from smtpguard.processes.listeners import CannotListen, Wanted, open_all
from smtpguard.processes.numbers import Said
from smtpguard.processes.part import Part
from smtpguard.returns.service import Returns

STALE_SECONDS = 10.0
"""The oldest that the last read of the gate may be. It is read four times a second."""


class Console(Part):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._renewals = Renewals()

    async def start(self) -> None:
        wanted = self._settings.console
        if wanted is None:
            raise CannotStart("not in the settings; an address and a port are needed")
        try:
            listener = open_all([Wanted(address=wanted.address, port=wanted.port)])[0].socket
        except CannotListen as e:
            raise CannotStart(str(e), passing=e.passing) from None
        self._undo.callback(listener.close)
        application = await self._application(listener.getsockname()[1])
        how = configured(application, proxies=wanted.proxies, tls=wanted.tls)
        self._renewals.watch(of_console(self._settings), how.ssl if wanted.tls is not None else None)
        self._server = Server(how)
        self._serving = asyncio.create_task(self._server.serve([listener]))
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        if self._serving.done():
            self._serving.result()
            raise CannotStart("the web server ended at once")

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run())
            tasks.create_task(every(WRITE_SECONDS, "sessions", self._front.sessions.write))
            tasks.create_task(every(RENEWAL_SECONDS, "certificates", self._renewals.look))
            await self._serving

    def said(self) -> Said:
        return Said(counts=self._renewals.counts)

    async def stop(self, grace_seconds: float) -> None:
        self._server.should_exit = True
        await asyncio.wait({self._serving}, timeout=min(grace_seconds, 5))

    async def _application(self, port: int) -> Health:
        settings, clock = self._settings, SystemClock()
        store, digester = await self._undo.enter_async_context(opened(settings, committed=EventLog()))
        policies = Following(store, settings, digester, clock, reading=True)
        await policies.begin()
        self._watch = GateWatch(store.gate, clock, moved=policies.moved)
        await self._watch.read()
        assert settings.console is not None
        self._front = front(
            settings, settings.console, store, clock, secret=installation_secret(settings), new_id=ids(), port=port
        )
        self._undo.push_async_callback(self._front.close)
        gather = gathering(settings, policies.around, self._undo)
        mailings = Mailings(store, policies, clock, digester, term=term(settings))
        freezes = freezes_of(settings, store, clock, ids(), loud=True)
        console = ConsoleServices(
            store=store,
            on_list=on_list(settings, digester),
            policies=policies,
            reader=gather.reader,
            approvals=Approvals(store, policies, clock, term=term(settings)),
            questions=Questions(store, policies, clock, new_id=ids()),
            freezes=freezes,
            mailings=mailings,
            returns=Returns(store, policies, clock, digester, freezes, key=installation_secret(settings), new_id=ids()),
            explain=partial(_explained, policies, gather, session_at(settings, None, "127.0.0.1")),
            corrections=corrections_of(settings, store, policies, gather, clock, ids()),
            matching=partial(Matched, mailings, store, policies, settings.policy.parent),
            clock=clock,
            settings=settings,
            url=settings.console.url.rstrip("/"),
            policy_file=partial(_other_file, policyfile.Following(settings, store)),
            policy=partial(_policy, policies),
            alarms=partial(active, settings, store),
            take_alarm=lambda key, by: take(settings, store, key, by=by, at=clock.now()),
        )
        programs = [
            *api(settings, console, store, new_id=ids()),
            *mentions.routes(settings, store.returns.mention, clock),
        ]
        pages = build(console, middleware=self._front.middleware, routes=(*self._front.routes, *programs))
        return Health(pages, partial(_ready, self._watch, policies))


async def _other_file(file: policyfile.Following) -> OtherFile | None:
    found = await file.look()
    if found is None or not found.file.differs:
        return None
    return OtherFile(path=str(found.file.path), differing=found.file.differing, problem=found.file.problem)


def _policy(policies: Following) -> Policy:
    """The policy in force. Raises StoreError."""
    policies.current()
    return policies.policy


def _ready(watch: GateWatch, policies: Following) -> Mapping[str, str]:
    """What approvers need (health.Checks)."""
    try:
        policies.current()
        policy = ""
    except StoreError:
        policy = "none is in force that can be read"
    return {"store": "" if watch.age_seconds < STALE_SECONDS else "does not answer", "policy": policy}


async def _explained(
    policies: Following,
    gather: Gather,
    session: Session,
    message: Message,
    reverse_path: Address | None,
    recipients: Sequence[Address],
) -> Explained:
    """With the lists in use."""
    _, around = policies.around()
    return await Explainer(policies.current(), gather, around).explain(message, reverse_path, recipients, session)
