"""Show mailings to people and carry out their actions on one: its numbers, its release in stages, reports of bounces
and complaints, and the people that it reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds.coverage import Coverage, of_grant
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.effects import canonical
from smtpguard.holds.model import Change, Conflict, Move, NotEntitled, Refused
from smtpguard.holds.sending import Outgoing
from smtpguard.journal.chain import utc_text, utc_text_or_none
from smtpguard.journal.clock import Clock
from smtpguard.locale.phrase import Phrase
from smtpguard.mailings import copies
from smtpguard.mailings.model import (
    SUREST,
    CopyStatus,
    Disclosure,
    Mailing,
    NoSuch,
    Rejection,
    State,
    event_of,
)
from smtpguard.mailings.revocation import KINDS, NO_REASON, Revocation
from smtpguard.mailings.staging import Move as Step
from smtpguard.notices.intents import Notices

if TYPE_CHECKING:
    from smtpguard.store.store import Store


FEW = 20
"""The least number of people of a mailing that is listed without a hold or a decision."""
DISCLOSED = timedelta(days=1)
"""How long the first person's request stays open, and how long recipients are disclosed after the second agreed."""
_PEOPLE = ("at_least", "at_most", "relayed", "admitted", "held", "deferred", "refused", "doubted", "stopped")
"""The numbers of people in a mailing's row, by their names in PeopleCounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A mailing whose approval was revoked, as it is now. ``outgoing``: how much of it was sent by then."""

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
        """Return the mailings with at least ``least`` people, or with a hold or a decision, the latest first.

        ``before``: ``last_at`` and id of the last one on the previous page.
        """
        wanted = state.value if state is not None else None
        return tuple(await self.store.mailings.newest(least=least, state=wanted, limit=limit, before=before))

    async def show(self, mailing_id: str) -> Mailing:
        """Return the mailing with this id, or the only one whose id begins so. Raises NoSuch."""
        found = await self.store.mailings.find(await self.store.mailings.whole_id(mailing_id))
        if found is None:
            raise NoSuch(f"there is no mailing {mailing_id}")
        return found

    async def covers(self, mailing: Mailing) -> tuple[Coverage, ...]:
        """Return what each approval of a mailing covers, the newest first."""
        names = {grant.cover.learned for grant in mailing.grants if grant.cover is not None and grant.cover.learned}
        documents = await self.store.holds.templates(names)
        return tuple(of_grant(grant, documents) for grant in mailing.grants)

    # -- people

    async def go_on(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Mailing:
        """Open the next stage, or resume a stopped one. Raises NoSuch, NotEntitled, Conflict."""
        return await self._moved(mailing_id, Step.GO, approver, by, comment)

    async def stop(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Mailing:
        """Let the rest of a release in stages wait until somebody resumes it, at its client or stored.

        Raises NoSuch, NotEntitled, Conflict.
        """
        return await self._moved(mailing_id, Step.STOP, approver, by, comment)

    async def reopen(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Revoked:
        """Revoke the decision: approved copies that are not sent wait for people again, and the rules decide on the next message.

        Raises NoSuch, NotEntitled, Conflict.
        """
        return await self._back(mailing_id, Move.REOPEN, approver, by, comment)

    async def reject(self, mailing_id: str, *, approver: str, by: str, comment: str) -> Revoked:
        """Reject approved copies that are not sent, and later copies.

        Raises NoSuch, NotEntitled, Conflict; Refused without a reason.
        """
        return await self._back(mailing_id, Move.REJECT, approver, by, comment)

    async def _back(self, mailing_id: str, move: Move, approver: str, by: str, comment: str) -> Revoked:
        in_force, now = self.policies.current(), self.clock.now()
        who = canonical(approver, in_force)
        notices = self.notices.at(in_force, now)
        back = Revocation(move=move, who=who, by=by, comment=comment, term=self.term, notices=notices)
        mailing_id = await self.store.mailings.whole_id(mailing_id)
        known = await self.store.mailings.find(mailing_id)
        approved = await self.store.holds.find_all(
            [grant.hold_id for grant in known.grants] if known is not None else []
        )

        def decide(mailing: Mailing, outgoing: Outgoing) -> tuple[Mailing, Change]:
            decided = mailing.grant is not None or (mailing.rejection is not None and move is Move.REOPEN)
            if not decided and not outgoing.stoppable:
                raise Conflict("it has no decision")
            _check_decides(who, mailing, in_force, now)
            if move is Move.REJECT and outgoing.stoppable and not comment.strip():
                raise Refused(NO_REASON)
            event = event_of(
                mailing,
                now,
                KINDS[move].value,
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
            # what is stopped has its own notices, except for a test, which is never sent itself
            ended = {grant.hold_id for grant in mailing.grants if grant.beforehand or not outgoing.stoppable}
            told = [
                notices.revoked(hold, "revoked", who, comment, confirmed=hold.confirmed)
                for hold in approved
                if hold.hold_id in ended
            ]
            return mailing.refused(rejection), Change(events=(event,), intents=tuple(chain.from_iterable(told)))

        mailing, changes, outgoing = await self.store.mailings.take_back(mailing_id, decide, back.step)
        for change in changes:
            if change.hold is not None:
                await copies.begin(self.store, change.hold.hold_id, notices, self.term)
        shown = await self.store.mailings.find(mailing.mailing_id) or mailing
        return Revoked(mailing=shown, outgoing=outgoing)

    async def feedback(
        self, mailing_id: str, *, bounces: int = 0, complaints: int = 0, by: str, comment: str = ""
    ) -> Mailing:
        """Add reports of bounces and complaints, which smtpguard does not see itself. Too many of them stop a release in stages.

        Raises NoSuch, Conflict.
        """
        if bounces < 0 or complaints < 0 or not bounces + complaints:
            raise Conflict("a report must have a number of bounces or complaints")
        now = self.clock.now()

        def step(mailing: Mailing) -> tuple[Mailing, Change]:
            event = event_of(mailing, now, "feedback", (by,), comment, bounces=bounces, complaints=complaints)
            more = replace(mailing, bounces=mailing.bounces + bounces, complaints=mailing.complaints + complaints)
            return more, Change(events=(event,))

        return await self._changed(mailing_id, step)

    async def people(self, mailing_id: str, addresses: Sequence[str]) -> Mapping[str, CopyStatus]:
        """Return those of these addresses that are recipients of it, as they were given, with the status of their copy.

        They may get an apology, and nobody else. Text that is no address is skipped.
        """
        whole, got = await self.store.mailings.whole_id(mailing_id), dict[str, CopyStatus]()
        digester = self.policies.current().registry.digester
        digests = {digest: address for address in reversed(addresses) for digest in digester.every_of(address)}
        for digest, status in (await self.store.mailings.reached_by(whole, list(digests))).items():
            address = digests[digest]
            got[address] = max(got.get(address, CopyStatus.NONE), status, key=SUREST.index)
        return {address: status for address, status in got.items() if status is not CopyStatus.NONE}

    async def disclose(self, mailing_id: str, *, approver: str, by: str, comment: str = "") -> Mailing:
        """Disclose its recipients: the first approver asks, a second one agrees, and both may then see them for a day.

        Raises NoSuch, NotEntitled, and Conflict if two have agreed or the same person asks again.
        """
        in_force, now = await self.policies.follow(), self.clock.now()
        who = canonical(approver, in_force)

        def step(mailing: Mailing) -> tuple[Mailing, Change]:
            _check_decides(who, mailing, in_force, now)
            asked = mailing.disclosure
            if asked is not None and not in_force.decides(asked.asked_by, mailing.lists, mailing.writers, now):
                asked = None
            if asked is not None and asked.agreed_by:
                raise Conflict("two people have already agreed")
            if asked is not None and asked.asked_by in in_force.addresses_of(who):
                raise Conflict("you have asked; another person must agree")
            if asked is None:
                made = Disclosure(asked_by=who, asked_at=now, until=now + DISCLOSED)
            else:
                made = replace(asked, agreed_by=who, until=now + DISCLOSED)
            what = "people agreed" if made.agreed_by else "people asked"
            return replace(mailing, disclosure=made), Change(events=(event_of(mailing, now, what, (who, by), comment),))

        return await self._changed(mailing_id, step)

    def may_see_recipients(self, mailing: Mailing, approver: str) -> bool:
        """Return whether two people agreed to disclose its recipients, and this is one of them and still decides on it."""
        in_force, now = self.policies.current(), self.clock.now()
        disclosure, who = mailing.as_of(now).disclosure, canonical(approver, in_force)
        agreed = disclosure is not None and bool(disclosure.people & in_force.addresses_of(who))
        return agreed and in_force.decides(who, mailing.lists, mailing.writers, now)

    async def _moved(self, mailing_id: str, move: Step, approver: str, by: str, comment: str) -> Mailing:
        in_force = await self.policies.follow() if move is Step.GO else self.policies.current()
        now = self.clock.now()
        who = canonical(approver, in_force)

        def step(mailing: Mailing) -> tuple[Mailing, Change]:
            if mailing.grant is None:
                raise Conflict("it is not approved: no release to continue or stop")
            if mailing.progress is None:
                raise Conflict(
                    "it is not released in stages: freeze it to stop it, or reject or reopen it to take back the approval"
                )
            _check_decides(who, mailing, in_force, now)
            why = comment or Phrase("by {who}", who=who) if move is Step.STOP else ""
            moved = mailing.progress.moved(move, now, why)
            if moved is None:
                raise Conflict(f"it is {mailing.progress.at.value}")
            if move is Step.STOP:
                moved = replace(moved, told=True)
            else:
                refused, reported = mailing.people.refused, mailing.reported
                moved = replace(moved, reached=mailing.out, refused=refused, reported=reported)
            event = event_of(mailing, now, move.value, (who, by), comment, stage=moved.stage, limit=moved.limit)
            return replace(mailing, progress=moved), Change(events=(event,))

        return await self._changed(mailing_id, step)

    async def _changed(self, mailing_id: str, step: Any) -> Mailing:
        made = await self.store.mailings.change(await self.store.mailings.whole_id(mailing_id), step)
        return await self.store.mailings.find(made.mailing_id) or made  # with copies that have arrived meanwhile


def row(mailing: Mailing) -> Mapping[str, Any]:
    """Return the JSON object of a mailing, for programs. It counts each person once.

    ``at_least``, ``at_most``: how many people have it; ``deferred``: those whose copy waits at its client. ``first_at``,
    ``last_at``: when copies came; ``went_first_at``, ``went_last_at``: when the relay accepted the first and the last.
    """
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
        "went_first_at": utc_text_or_none(mailing.went_first_at),
        "went_last_at": utc_text_or_none(mailing.went_last_at),
        "state": mailing.state.value,
        "hold": mailing.entry or None,
        "release_at": utc_text_or_none(mailing.release_at),
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
            "limit": mailing.stage_limit,
            "goes_on_at": utc_text_or_none(progress.goes_on_at()),
            "why": progress.why or None,
        },
    }


def _check_decides(who: str, mailing: Mailing, in_force: InForce, now: datetime) -> None:
    if not in_force.decides(who, mailing.lists, mailing.writers, now):
        raise NotEntitled(f"{who} is not an approver of it")
