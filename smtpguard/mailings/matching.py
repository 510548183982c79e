"""Match the recipients of a mailing against given addresses: those of a list as it is now, or of a file.

A person who got a copy of their own is known by a digest. The people behind a list address are known as a version of
the list. They can be matched only if the given addresses make up that version: the list as it is now, or an export from
then.
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
from smtpguard.mailings.service import Mailings, NoAddresses

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

T = TypeVar("T")
_SLICE = 5_000
Behind = tuple[CopyStatus, Callable[[bytes], bool]]
"""The status of the copy to an address that expands, and a test whether a person is behind the address."""
_NOBODY: Behind = CopyStatus.NONE, lambda digest: False


class Matched:
    """Match by the members of the list ``name``, or by the addresses in a CSV ``file``. ``folder``: for the relative
    paths of a policy. ``older``: the version of each list that the mailing went to, if nobody could be matched at its
    address; ``bad``: sources with invalid addresses. Sources are read in a thread of their own. Raises NoAddresses."""

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
        """Every address, and the status of the copy to it; NONE if the mailing has not come for that person."""
        try:
            status, among = await (self._at_the_list() if self._name is not None else self._at_any_list())
            digester = self._registry.digester
            everybody = self._addresses("all", say=True)
            while some := await self._apart(lambda: list(islice(everybody, _SLICE))):
                single = await self._mailings.people(self._mailing_id, some)
                for address in some:
                    whole = status if any(map(among, digester.every_of(address))) else CopyStatus.NONE
                    yield address, max(single.get(address, CopyStatus.NONE), whole, key=SUREST.index)
        finally:
            self._thread.shutdown(wait=False)

    async def _apart(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    async def _at_the_list(self) -> Behind:
        """The status at the list's own address, which reaches everybody on the list, if the list is unchanged. Otherwise
        note since when it has changed."""
        name = str(self._name)
        index = self._registry.statuses[name].index
        if index is not None and (status := await self._became(name, index.version)) is not CopyStatus.NONE:
            return status, index.__contains__
        await self._look_back([name])
        return _NOBODY

    async def _at_any_list(self) -> Behind:
        """The status at the addresses of the mailing's lists, if this file is one of them as it was then: all of it, or
        those entries that the list takes."""
        lists = (await self._mailings.show(self._mailing_id)).lists
        for statuses, form in [(statuses, form) for form in (0, -1) for statuses in ("all", None)] if lists else ():
            version = await self._apart(partial(self._version, statuses, form))
            for name in lists:
                if (status := await self._became(name, version)) is not CopyStatus.NONE:
                    return status, (await self._apart(partial(self._all, statuses, form))).__contains__
        await self._look_back(lists)
        return _NOBODY

    def _version(self, statuses: str | None, form: int) -> str:
        return version_of(self._digests(statuses, form))

    def _all(self, statuses: str | None, form: int) -> frozenset[bytes]:
        return frozenset(self._digests(statuses, form))

    def _digests(self, statuses: str | None, form: int) -> Iterator[bytes]:
        """``form``: 0 for today's digests, -1 for the older ones of indexes that an earlier version made."""
        every = (self._registry.digester.every_of(address) for address in self._addresses(statuses))
        return (digests[form] for digests in every if digests)

    async def _became(self, name: str, version: str) -> CopyStatus:
        digest = self._registry.digester.of_canonical(f"list {name} {version}")
        return (await self._store.mailings.reached_by(self._mailing_id, [digest])).get(digest, CopyStatus.NONE)

    async def _look_back(self, names: Iterable[str]) -> None:
        """Find in the journal when a list got another version."""
        for name in names:
            for entry, _ in await self._store.journal.history(name):
                version, people = entry.data.get("version"), entry.data.get("people")
                if (
                    entry.kind == Kind.LIST.value
                    and version
                    and await self._became(name, str(version)) is not CopyStatus.NONE
                ):
                    said = f"the list {name} as it was from {instant(entry.at):%Y-%m-%d %H:%M} UTC on, with {people:,} people"
                    if said not in self.older:
                        self.older.append(said)

    def _addresses(self, statuses: str | None, *, say: bool = False) -> Iterator[str]:
        """Every address in the sources, each spelling once. ``statuses`` "all": also people who have left. ``say``:
        report invalid addresses."""
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
