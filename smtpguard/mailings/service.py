"""Show mailings to people and carry out their actions on one: its numbers, its release in stages, reports of bounces
and complaints, and the people that it reached.

Recipients are stored as keyed digests: addresses come back only by matching those that the caller already has, of a list
as it is now or of a file. A person who got a copy of their own is known by a digest. The people behind a list address
are known as a version of the list. They can be matched only if the given addresses make up that version: the list as it
is now, or an export from then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from smtpguard.config.problem import unknown
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds.coverage import Coverage, of_grant
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.effects import canonical
from smtpguard.holds.model import Change, Conflict, Move, NotEntitled, Refused
from smtpguard.holds.sending import Outgoing
from smtpguard.journal.chain import instant, utc_text
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Kind
from smtpguard.lists.members import CsvMembers, Members
from smtpguard.lists.registry import Registry
from smtpguard.lists.writing import version_of
from smtpguard.locale.phrase import Phrase, many
from smtpguard.mailings import copies
from smtpguard.mailings.copies import SAY_WHY, Revocation
from smtpguard.mailings.model import (
    SUREST,
    CopyStatus,
    Disclosure,
    Mailing,
    NoSuch,
    Rejection,
    State,
    event_of,
    whole_id,
)
from smtpguard.mailings.staging import Move as Step
from smtpguard.notices.intents import Notices

if TYPE_CHECKING:
    from smtpguard.store.store import Store


FEW = 20
"""The least people of a mailing that is listed without a hold or a decision."""
DISCLOSED = timedelta(days=1)
"""How long the question of the first person stays open; and how long recipients are disclosed after the second agreed."""
_SLICE = 500


class NoAddresses(Exception):
    """There are no addresses to match, or they cannot be read. The text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """A mailing as it is now, and how much of it was sent when its approval was revoked."""

    mailing: Mailing
    outgoing: Outgoing


@dataclass(slots=True)
class Mailings:
    """The service behind ``smtpguard mailings``, the console's pages and the API. Raises StoreError."""

    store: Store
    policies: PolicyInForce
    clock: Clock
    term: Deadlines = field(default_factory=Deadlines)
    notices: Notices = field(default_factory=Notices)

    async def list(
        self,
        *,
        least: int = FEW,
        state: State | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> tuple[Mailing, ...]:
        """The latest first: mailings with at least ``least`` people, or with a hold or a decision. ``before``:
        ``last_at`` and id of the last one on the previous page."""
        wanted = state.value if state is not None else None
        return tuple(await self.store.mailings.newest(least=least, state=wanted, limit=limit, before=before))

    async def show(self, mailing_id: str) -> Mailing:
        """By its id, or a unique prefix. Raises NoSuch."""
        found = await self.store.mailings.find(await self.named(mailing_id))
        if found is None:
            raise NoSuch(f"there is no mailing {mailing_id}")
        return found

    async def covers(self, mailing: Mailing) -> tuple[Coverage, ...]:
        """What each approval of it covers, the newest first."""
        names = {grant.cover.learned for grant in mailing.grants if grant.cover is not None and grant.cover.learned}
        documents = await self.store.holds.templates(names)
        return tuple(of_grant(grant, documents) for grant in mailing.grants)

    async def named(self, prefix: str) -> str:
        """The whole id. Raises NoSuch if no id begins so, or several do."""
        return whole_id(prefix, await self.store.mailings.named(prefix.strip()) if prefix.strip() else ())

    # -- people

    async def go_on(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Mailing:
        """Open the next stage, or resume a stopped one. Raises NoSuch, NotEntitled, Conflict."""
        return await self._moved(mailing_id, Step.GO, approver, by, comment)

    async def stop(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Mailing:
        """The rest of a release in stages waits until somebody resumes it: at its client, or stored. Raises NoSuch,
        NotEntitled, Conflict."""
        return await self._moved(mailing_id, Step.STOP, approver, by, comment)

    async def reopen(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Back:
        """The decision is revoked: approved copies that are not sent wait for people again, and the rules decide on the
        next message. Raises NoSuch, NotEntitled, Conflict."""
        return await self._back(mailing_id, Move.REOPEN, approver, by, comment)

    async def reject(self, mailing_id: str, *, approver: str, by: str, comment: str) -> Back:
        """Approved copies that are not sent are rejected, and so are later copies. Raises NoSuch, NotEntitled,
        Conflict; Refused without a reason."""
        return await self._back(mailing_id, Move.REJECT, approver, by, comment)

    async def _back(self, mailing_id: str, move: Move, approver: str, by: str, comment: str) -> Back:
        in_force, now = self.policies.current(), self.clock.now()
        who = canonical(approver, in_force)
        notices = self.notices.at(in_force, now)
        back = Revocation(move=move, who=who, by=by, comment=comment, term=self.term, notices=notices)
        mailing_id = await self.named(mailing_id)
        known = await self.store.mailings.find(mailing_id)
        beforehand = [grant.hold_id for grant in (known.grants if known is not None else ()) if grant.beforehand]
        tests = await self.store.holds.find_all(beforehand)

        def decide(mailing: Mailing, outgoing: Outgoing) -> tuple[Mailing, Change]:
            decided = mailing.grant is not None or (mailing.rejection is not None and move is Move.REOPEN)
            if not decided and not outgoing.stoppable:
                raise Conflict("it has no decision")
            _check_decides(who, mailing, in_force, now)
            if move is Move.REJECT and outgoing.stoppable and not comment.strip():
                raise Refused(SAY_WHY)
            event = event_of(
                mailing,
                now,
                copies.KINDS[move].value,
                (who, by),
                comment,
                back=outgoing.back,
                gone=outgoing.gone,
                doubt=outgoing.doubt,
            )
            rejection = None
            if move is Move.REJECT:
                hold_id = mailing.grant.hold_id if mailing.grant is not None else ""
                until = now + timedelta(seconds=self.term.rejection_seconds)
                rejection = Rejection(hold_id=hold_id, sentence=comment, until=until)
            ended = {grant.hold_id for grant in mailing.grants}
            told = [notices.revoked(test, "revoked", who, comment) for test in tests if test.hold_id in ended]
            return mailing.refused(rejection), Change(events=(event,), intents=tuple(chain.from_iterable(told)))

        mailing, changes, outgoing = await self.store.mailings.take_back(mailing_id, decide, back.step)
        for change in changes:
            if change.hold is not None:
                await copies.begin(self.store, change.hold.hold_id, notices, self.term)
        shown = await self.store.mailings.find(mailing.mailing_id) or mailing
        return Back(mailing=shown, outgoing=outgoing)

    async def feedback(
        self, mailing_id: str, *, bounces: int = 0, complaints: int = 0, by: str, comment: str = ""
    ) -> Mailing:
        """Reports of bounces and complaints, which smtpguard does not see itself. Too many of them stop a release in
        stages. Raises NoSuch, Conflict."""
        if bounces < 0 or complaints < 0 or not bounces + complaints:
            raise Conflict("a report must have a number of bounces or complaints")
        now = self.clock.now()

        def step(mailing: Mailing) -> tuple[Mailing, Change]:
            event = event_of(mailing, now, "feedback", (by,), comment, bounces=bounces, complaints=complaints)
            more = replace(mailing, bounces=mailing.bounces + bounces, complaints=mailing.complaints + complaints)
            return more, Change(events=(event,))

        return await self._changed(mailing_id, step)

    async def people(self, mailing_id: str, addresses: Iterable[str]) -> Mapping[str, CopyStatus]:
        """Those of these addresses that are recipients of it, as they were given, and the status of their copy: for an
        apology to exactly them. Text that is no address is skipped."""
        whole, got = await self.named(mailing_id), dict[str, CopyStatus]()
        digester = self.policies.current().registry.digester
        for some in _slices(addresses):
            digests = {digest: address for address in reversed(some) for digest in digester.every_of(address)}
            statuses = await self.store.mailings.reached_by(whole, list(digests))
            for digest, status in statuses.items():
                address = digests[digest]
                got[address] = max(got.get(address, CopyStatus.NONE), status, key=SUREST.index)
        return {address: status for address, status in got.items() if status is not CopyStatus.NONE}

    async def disclose(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Mailing:
        """Disclose its recipients: the first approver asks, a second one agrees; both may then see them for a day.
        Raises NoSuch, NotEntitled, and Conflict if two have agreed or the same person asks again."""
        in_force, now = self.policies.current(), self.clock.now()
        who = canonical(approver, in_force)

        def step(mailing: Mailing) -> tuple[Mailing, Change]:
            _check_decides(who, mailing, in_force, now)
            there = mailing.as_of(now).disclosure
            if there is not None and there.agreed_by:
                raise Conflict("two people have already agreed")
            if there is not None and there.asked_by in in_force.addresses_of(who):
                raise Conflict("you have asked; another person must agree")
            if there is None:
                made = Disclosure(asked_by=who, asked_at=now, until=now + DISCLOSED)
            else:
                made = replace(there, agreed_by=who, until=now + DISCLOSED)
            what = "people agreed" if made.agreed_by else "people asked"
            return replace(mailing, disclosure=made), Change(events=(event_of(mailing, now, what, (who, by), comment),))

        return await self._changed(mailing_id, step)

    def may_be_told(self, mailing: Mailing, approver: str) -> bool:
        """Whether two people agreed to disclose its recipients, and this is one of them."""
        there = mailing.as_of(self.clock.now()).disclosure
        in_force = self.policies.current()
        return there is not None and bool(there.people & in_force.addresses_of(canonical(approver, in_force)))

    async def _moved(self, mailing_id: str, move: Step, approver: str, by: str, comment: str) -> Mailing:
        in_force, now = self.policies.current(), self.clock.now()
        who = canonical(approver, in_force)

        def step(mailing: Mailing) -> tuple[Mailing, Change]:
            if mailing.grant is None:
                raise Conflict("it is not approved: no release to continue or stop")
            if mailing.progress is None:
                raise Conflict(
                    "it is not released in stages: freeze it to stop it, or reject or reopen it to take back the approval"
                )
            _check_decides(who, mailing, in_force, now)
            moved = mailing.progress.timely(now).moved(
                move, now, comment or Phrase("by {who}", who=who) if move is Step.STOP else ""
            )
            if moved is None:
                raise Conflict(f"it is {mailing.progress.timely(now).at.value}")
            if move is Step.STOP:
                moved = replace(moved, told=True)
            else:
                refused, reported = mailing.people.refused, mailing.reported
                moved = replace(moved, reached=mailing.out, refused=refused, reported=reported)
            event = event_of(mailing, now, move.value, (who, by), comment, stage=moved.stage, limit=moved.limit)
            return replace(mailing, progress=moved), Change(events=(event,))

        return await self._changed(mailing_id, step)

    async def _changed(self, mailing_id: str, step: Any) -> Mailing:
        made = await self.store.mailings.change(await self.named(mailing_id), step)
        return await self.store.mailings.find(made.mailing_id) or made  # with copies that have arrived meanwhile


_PEOPLE = ("at_least", "at_most", "relayed", "admitted", "held", "deferred", "refused", "doubted", "stopped")


def row(mailing: Mailing) -> Mapping[str, Any]:
    """A mailing for programs: people, each once. ``at_least``, ``at_most``: how many have it; ``deferred``: those whose
    copy waits at its client. ``first_at``, ``last_at``: when copies came; ``went_first_at``, ``went_last_at``: when the
    relay accepted the first and the last."""
    people, progress = mailing.people, mailing.progress
    return {
        "id": mailing.mailing_id,
        "reverse_path": mailing.reverse_path or None,
        "from": mailing.sender or None,
        "subject": mailing.subject,
        "lists": list(mailing.lists),
        **{name: getattr(people, name) for name in _PEOPLE},
        "unbounded": sorted(people.unbounded),
        **{name: getattr(mailing, name) for name in ("customers", "messages", "copies", "bounces", "complaints")},
        "first_at": utc_text(mailing.first_at),
        "last_at": utc_text(mailing.last_at),
        "went_first_at": utc_text(mailing.went_first_at) if mailing.went_first_at is not None else None,
        "went_last_at": utc_text(mailing.went_last_at) if mailing.went_last_at is not None else None,
        "state": mailing.state.value,
        "hold": mailing.entry or None,
        "release_at": utc_text(mailing.release_at) if mailing.release_at is not None else None,
        "approved": None
        if (grant := mailing.grant) is None
        else {
            "hold": grant.hold_id,
            "people": grant.people,
            "until": utc_text(grant.until),
            "by": list(grant.by),
            "by_writer": grant.by_writer,
            "covers": "copies" if grant.cover is not None and grant.cover.learned else "message",
            "set": grant.only or None,
        },
        "rejected": None
        if (rejection := mailing.rejection) is None
        else {"hold": rejection.hold_id, "sentence": rejection.sentence, "until": utc_text(rejection.until)},
        "stage": None
        if progress is None
        else {
            "at": progress.at.value,
            "stage": progress.stage + 1,
            "of": len(progress.stages.steps),
            "limit": progress.limit,
            "goes_on_at": utc_text(on) if (on := progress.goes_on_at()) is not None else None,
            "why": progress.why or None,
        },
    }


def _check_decides(who: str, mailing: Mailing, in_force: InForce, now: datetime) -> None:
    """Raises NotEntitled unless the person decides on mailings to its lists, and wrote no copy of it."""
    wrote = writers(mailing, in_force)
    if who in wrote or not decides(who, mailing.lists, in_force, now, wrote):
        raise NotEntitled(f"{who} is not an approver of it")


def writers(mailing: Mailing, in_force: InForce) -> frozenset[str]:
    """All addresses of those who wrote it."""
    return in_force.behind(mailing.writers)


def decides(
    who: str, lists: Iterable[str], in_force: InForce, now: datetime, wrote: frozenset[str] = frozenset()
) -> bool:
    """Whether a person is in a group that decides on mailings to these lists, at any hour. ``wrote``: its writers."""
    groups = {group for quorum in in_force.rules.quorum(lists) for group in quorum.all_groups}
    return any(in_force.groups.decides(who, group, now, wrote) for group in groups)


def _slices(addresses: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(addresses)
    return iter(lambda: list(islice(rest, _SLICE)), [])


T = TypeVar("T")
_MANY = 5_000
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
            while some := await self._apart(lambda: list(islice(everybody, _MANY))):
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
            version = await self._apart(partial(version_of, self._digests(statuses, form)))
            for name in lists:
                if (status := await self._became(name, version)) is not CopyStatus.NONE:
                    return status, (await self._apart(partial(frozenset, self._digests(statuses, form)))).__contains__
        await self._look_back(lists)
        return _NOBODY

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
