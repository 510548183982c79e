"""Asks directories who is in the groups that the policy lets them name, on their schedule, beside everything else.

An answer that is none, or no answer, changes nothing for a day (accounts.membership). A directory that hangs keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from smtpguard.accounts.model import HOLDS, Membership, People, nonsense, source_of
from smtpguard.app.policies import Following
from smtpguard.database.errors import LedgerError, PolicyUnreadable
from smtpguard.guard.ports import Clock, Ledger
from smtpguard.lists.sources import SourceError, Tally, cell_address, unfit, unforeseen
from smtpguard.lists.sources.opening import opened
from smtpguard.mail.address import BadAddress
from smtpguard.policy.members import LdapMembers

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
SOON = timedelta(minutes=1)
"""After so long a directory that did not answer is asked again, unless the policy says less."""

Read = Callable[[LdapMembers], People]


def read_by(base: Path, delimiters: str) -> Read:
    """Asks one directory. ``base``: what paths of the policy are relative to."""

    def read(model: LdapMembers) -> People:
        """Raises SourceError."""
        declaration = model.model_dump(by_alias=True, exclude_none=True)
        source, tally = opened(declaration, base), Tally()
        found: dict[int, dict[str, None]] = {}
        try:
            for number, text in source.cells(tally):
                try:
                    found.setdefault(number, {})[cell_address(text).canonical(delimiters)] = None
                except BadAddress as error:
                    tally.reject(number, str(error))
        finally:
            source.close()
        people = tuple(tuple(addresses) for addresses in found.values())
        if wrong := unfit(source.label, len(people), tally, declaration):
            raise SourceError(wrong[0])
        if why := nonsense(people, model.at_least):
            raise SourceError(f"{source.label}: {why}")
        return people

    return read


class Memberships:
    def __init__(self, policies: Following, ledger: Ledger, clock: Clock, read: Read) -> None:
        self._policies, self._ledger, self._clock, self._read = policies, ledger, clock, read
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        while True:
            try:
                await self.begin()
            except LedgerError as error:
                log.warning("groups: the store does not answer: %s", type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Ask all that are due, and wait for them."""
        await self.begin()
        await asyncio.gather(*self._asking.values())

    async def begin(self) -> None:
        try:
            directories = self._policies.policy.directories
        except PolicyUnreadable:  # logged elsewhere
            return
        if not directories:
            return
        known = {one.group: one for one in await self._ledger.policies.memberships()}
        now = self._clock.now()
        for group, model in directories.items():
            source = source_of(model.model_dump(by_alias=True, exclude_none=True))
            before = known.get(group)
            if before is None or before.source != source:
                before = Membership(group=group, source=source)
            if before.people and before.read_at is not None and now - before.read_at >= HOLDS:
                before = replace(before.failed(before.why or "no answer for a day", now), tried_at=before.tried_at)
                await self._ledger.policies.put_membership(before)
                log.error(
                    "group %s: its directory has not answered for a day: nobody counts whom it alone has named", group
                )
            every = timedelta(seconds=model.refresh)
            wait = min(every, SOON) if before.why else every
            if group not in self._asking and (before.tried_at is None or now - before.tried_at >= wait):
                self._asking[group] = asyncio.create_task(self._ask(before, model))

    async def _ask(self, before: Membership, model: LdapMembers) -> None:
        try:
            people = await asyncio.to_thread(self._read, model)
            made = before.read(people, self._clock.now())
        except SourceError as error:
            made = before.failed(str(error), self._clock.now())
        except Exception as error:  # an internal error must not stop the other groups
            made = before.failed(unforeseen(f"group {before.group}", error), self._clock.now())
        try:
            if made.why and made.why != before.why:
                log.warning("group %s: %s; its last members count for a day", made.group, made.why)
            await self._ledger.policies.put_membership(made)
        except LedgerError as error:
            log.warning("group %s: the store does not answer: %s", made.group, type(error).__name__)
        finally:
            del self._asking[before.group]
