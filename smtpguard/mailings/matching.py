"""Match addresses with the people that a mailing reached.

Recipients are stored as keyed digests: addresses come back only by matching those that the caller already has, of a list
as it is now or of a file. A person who got a copy of their own is known by a digest. The people behind a list address
are known as a version of the list. They can be matched only if the given addresses make up that version: the list as it
is now, or an export from then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from smtpguard.config.problem import unknown
from smtpguard.guard.ports import PolicyInForce
from smtpguard.journal.chain import instant
from smtpguard.journal.event import Kind
from smtpguard.lists.members import CsvMembers, Members
from smtpguard.lists.registry import Registry
from smtpguard.lists.writing import version_of
from smtpguard.locale.phrase import many
from smtpguard.mailings.model import SUREST, CopyStatus
from smtpguard.mailings.service import Mailings

if TYPE_CHECKING:
    from smtpguard.store.store import Store

T = TypeVar("T")
_MANY = 5_000
"""The addresses that are matched at a time."""
Behind = tuple[CopyStatus, Callable[[bytes], bool]]
"""The status of the copy to an address that expands, and a function that tests whether a person is behind the address."""
_NOBODY: Behind = CopyStatus.NONE, lambda digest: False


class NoAddresses(Exception):
    """There are no addresses to match, or they cannot be read. The text says which."""


class Matching:
    """The recipients of a mailing among the members of the list ``name``, or among the addresses in a CSV ``file``.

    ``folder``: for the relative paths of a policy. ``older``: a phrase for each list version that the mailing went to, if nobody
    could be matched at the list's address. ``bad``: a phrase for each source with invalid addresses. Sources are read in a
    thread of their own. Raises NoAddresses.
    """

    def __init__(self, mailings: Mailings, store: Store, policies: PolicyInForce, folder: Path, mailing_id: str, *,
                 name: str | None, file: Path | None, column: str | None) -> None:  # fmt: skip
        self._mailings, self._store, self._folder, self._mailing_id = mailings, store, folder, mailing_id
        self._name = name
        self._registry = policies.current().registry
        self._members = _of_list(self._registry, str(name)) if file is None else _csv(file, column)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="addresses")
        self.older: list[str] = []
        self.bad: list[str] = []

    async def people(self) -> AsyncIterator[tuple[str, CopyStatus]]:
        """Yield every address with the status of the copy to it, NONE if the mailing has not come for that person."""
        try:
            status, is_behind = await (self._at_the_list() if self._name is not None else self._at_any_list())
            digester = self._registry.digester
            everybody = self._addresses("all", say=True)
            while some := await self._in_thread(lambda: list(islice(everybody, _MANY))):
                single = await self._mailings.people(self._mailing_id, some)
                for address in some:
                    whole = status if any(map(is_behind, digester.every_of(address))) else CopyStatus.NONE
                    yield address, max(single.get(address, CopyStatus.NONE), whole, key=SUREST.index)
        finally:
            self._thread.shutdown(wait=False)

    async def _in_thread(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    async def _at_the_list(self) -> Behind:
        """Return the status at the list's own address, which reaches everybody on the list, if the list is unchanged.

        Otherwise note in ``older`` to which version the mailing went.
        """
        name = str(self._name)
        index = self._registry.statuses[name].index
        if index is not None and (status := await self._status_at(name, index.version)) is not CopyStatus.NONE:
            return status, index.__contains__
        await self._look_back([name])
        return _NOBODY

    async def _at_any_list(self) -> Behind:
        """Return the status at the address of the mailing's list that this file is a copy of, as it was then: the whole file,
        or those rows that the list takes."""
        lists = (await self._mailings.show(self._mailing_id)).lists
        for statuses, form in [(statuses, form) for form in (0, -1) for statuses in ("all", None)] if lists else ():
            version = await self._in_thread(partial(version_of, self._digests(statuses, form)))
            for name in lists:
                if (status := await self._status_at(name, version)) is not CopyStatus.NONE:
                    return status, (
                        await self._in_thread(partial(frozenset, self._digests(statuses, form)))
                    ).__contains__
        await self._look_back(lists)
        return _NOBODY

    def _digests(self, statuses: str | None, form: int) -> Iterator[bytes]:
        """Yield the digest of each address. ``form``: 0 for today's, -1 for that of an index that an earlier version made."""
        every = (self._registry.digester.every_of(address) for address in self._addresses(statuses))
        return (digests[form] for digests in every if digests)

    async def _status_at(self, name: str, version: str) -> CopyStatus:
        """Return the status of the copy to the address of a list at this version."""
        digest = self._registry.digester.of_canonical(f"list {name} {version}")
        return (await self._store.mailings.reached_by(self._mailing_id, [digest])).get(digest, CopyStatus.NONE)

    async def _look_back(self, names: Iterable[str]) -> None:
        """Find in the journal the versions of lists that the mailing went to, and note them in ``older``."""
        for name in names:
            for entry, _ in await self._store.journal.history(name, Kind.LIST):
                version, people = entry.data.get("version"), entry.data.get("people")
                if version and await self._status_at(name, str(version)) is not CopyStatus.NONE:
                    phrase = f"the list {name} as it was from {instant(entry.at):%Y-%m-%d %H:%M} UTC on, with {people:,} people"
                    if phrase not in self.older:
                        self.older.append(phrase)

    def _addresses(self, statuses: str | None, *, say: bool = False) -> Iterator[str]:
        """Yield every address in the sources, each spelling once. ``statuses`` "all": also people who have left. ``say``: note
        invalid addresses in ``bad``."""
        from smtpguard.lists.sources import SourceError, Tally, addresses
        from smtpguard.lists.sources.opening import opened

        seen: set[str] = set()
        for members in self._members:
            tally = Tally()
            if statuses and isinstance(members, CsvMembers):
                members = members.model_copy(update={"statuses": statuses})
            try:
                with closing(opened(members, self._folder)) as source:
                    for address in addresses(source, tally):
                        if (text := str(address)) not in seen:
                            seen.add(text)
                            yield text
            except SourceError as error:
                raise NoAddresses(str(error)) from None
            if tally.bad and say:
                rows = many(tally.bad, "row holds", "rows hold")
                self.bad.append(f"{tally.source or 'the source'}: {rows} no address")


def _csv(file: Path, column: str | None) -> Sequence[Members]:
    if not file.exists():
        raise NoAddresses(f"{file}: no such file")
    return [CsvMembers(csv=str(file.absolute()), column=column or None)]


def _of_list(registry: Registry, name: str) -> Sequence[Members]:
    lists = registry.lists
    if name not in lists:
        raise NoAddresses(unknown("list", name, lists))
    if not lists[name].members:
        raise NoAddresses(f"the list {name} has no members to match")
    return lists[name].members
