"""A mailing as the admission sees it: the outcome by recipient, people's decisions, and what these mean for the next
message.

A mailing is one text sent to many people, over any number of transactions, senders and connections. ``Mailing`` is what
is stored of it; mailingverdict applies people's decisions to one more message. Pure.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf

from smtpguard.journal.distinct import Version
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.persons import Person
from smtpguard.locale.phrase import Amount, dump
from smtpguard.mail.codec import Codec
from smtpguard.mail.constant import constant
from smtpguard.mailings.staging import At, Move, Progress
from smtpguard.policy.freezing import Selectable
from smtpguard.policy.stages import Stages
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.shown import Shown

MOST_GRANTS = 20
"""The most approvals of one mailing in force at once, the newest first."""


class CopyStatus(enum.IntEnum):
    """The known status of a person's copies. It is that of the last one, except that no later copy undoes one that was or may have
    been delivered (``with_another``)."""

    NONE = 0
    DEFERRED = 1  # the client keeps it
    REFUSED = 2  # by the relay, for good
    HELD = 3
    ADMITTED = 4  # in flight: to be relayed or released, without an outcome yet
    RELAYED = 5
    DOUBTED = 6  # the relay may have it, for good in doubt
    AGAIN = 7  # in flight, and an earlier one may have arrived or is in flight too
    STOPPED = 8  # held, and not sent: rejected, withdrawn, expired

    def with_another(self, status: CopyStatus) -> CopyStatus:
        """Return the status after one more copy was decided on. ADMITTED here is still in flight, not delivered already."""
        if self is CopyStatus.RELAYED or (self in MAY_HAVE and status not in (CopyStatus.ADMITTED, CopyStatus.DOUBTED)):
            return self
        return CopyStatus.AGAIN if self in MAY_HAVE else status

    def failed(self, status: CopyStatus) -> CopyStatus:
        """Return the status after one copy ended with ``status`` and did not arrive. If there were two, it is unknown whether the
        other did."""
        return {CopyStatus.ADMITTED: status, CopyStatus.AGAIN: CopyStatus.DOUBTED}.get(self, self)


ON_THE_WAY = frozenset({CopyStatus.ADMITTED, CopyStatus.AGAIN})
MAY_HAVE = ON_THE_WAY | {CopyStatus.DOUBTED}
"""The statuses of people who may have a copy."""
LET_THROUGH = MAY_HAVE | {CopyStatus.RELAYED}
"""The statuses of people who have a copy, or may have one."""


@constant
class Candidate:
    """A message as approvals compare it.

    ``content``: the SHA-256 of its octets. ``said``: what it shows, or the digest of that. ``author``: the one address in From, ""
    if there is not exactly one. ``proofs``: the proofs of its origin ("login NAME", "dkim DOMAIN", or "origin" if only the client
    proves it). ``by_address``: a recipient is a list address, or another that expands. ``fits``: whether it is a copy, by the name
    of each template that it was compared with.
    """

    content: str
    said: Shown | str
    author: str
    proofs: frozenset[str] = frozenset()
    by_address: bool = False
    fits: Mapping[str, bool] = field(default_factory=dict)

    @property
    def exact(self) -> str:
        """The digest of what it shows. It is made when it is asked for: a copy that fits a template needs none."""
        return self.said if isinstance(self.said, str) else self.said.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedContent:
    """The approved content. ``content``: the SHA-256 of its octets; ``exact``: the digest of all that it shows or links to, "" if an
    earlier version approved it. ``learned``: the name of the template of copies that are covered too, "" for none. ``also``: other
    writers of copies that were seen, with their proofs."""

    content: str
    exact: str = ""
    author: str = ""
    proofs: frozenset[str] = frozenset()
    learned: str = ""
    also: tuple[tuple[str, frozenset[str]], ...] = ()

    def matches(self, coming: Candidate) -> bool | None:
        """Return whether a message is the same content, or a copy of it, from the same sender; None if it must be compared with the
        template first (``fits``)."""
        if not self.exact:
            return self.content == coming.content
        if not self.is_from(coming):
            return False
        fits = coming.fits.get(self.learned) if self.learned and not coming.by_address else False
        return fits or (True if self.exact == coming.exact else fits)

    def is_from(self, coming: Candidate) -> bool:
        """Return whether an approved writer sent a message, proven at least as well as then."""
        seen = ((self.author, self.proofs), *self.also)
        return any(author and author == coming.author and proofs <= coming.proofs for author, proofs in seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A message to exactly the people who got a mailing. ``people``: the name of that set (``set_of``) at the time
    ``as_of``. ``sent``: how many of them have the mailing; ``may``: how many in the set may have it. ``beyond``: how
    many more got it behind addresses whose people are unknown. ``by``: who asked for it."""

    mailing_id: str
    people: str
    as_of: datetime
    sent: int
    may: int = 0
    beyond: int = 0
    by: str = ""

    @property
    def reach(self) -> int:
        return self.sent + self.may


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An approval in force. ``hold_id``: the approved hold. ``rules``: those that had hit at the time.
    ``only``: the name of the set of people (``set_of``) that it is bound to; "" if it is bound to a number.

    ``people``: the most distinct people that the mailing may reach in all. It adds up ``own``, ``before``, and the numbers of
    approvals for other lists that are in force. ``own``: the number of people that this approval is for; None if an earlier
    version stored it. ``before``: the number of people that the mailing had reached when it was approved, if they are not part
    of ``own``; else 0. ``waits``: how many people have a place in that number while their copies wait for their stage or their
    turn; on a held message, how many its approvers looked at. ``said``: an approver gave the number. ``approved``: the identity
    it is counted by; ``cover``: the content that it covers. ``beforehand``: of a test. ``by_writer``: its writer confirmed it,
    without an approver.
    """

    hold_id: str
    approved: Identity
    lists: frozenset[str]
    rules: frozenset[str]
    people: int
    since: datetime
    until: datetime
    by: tuple[str, ...] = ()
    beforehand: bool = False
    said: bool = False
    cover: ApprovedContent | None = None
    by_writer: bool = False
    only: str = ""
    own: int | None = None
    before: int = 0
    waits: int = 0

    @property
    def more(self) -> bool:
        """Whether the mailing may reach more people under it than it was given for. That is unknown of an earlier version's."""
        return bool(self.own) and self.own != self.people

    def matches(self, coming: Candidate) -> bool | None:
        """Return whether a message is covered; None if it must be compared with the template first."""
        return self.cover.matches(coming) if self.cover is not None else False

    def other_lists(self, people: Iterable[Person], always: frozenset[str]) -> frozenset[str]:
        """Return the lists of these people that it was not approved for. A person on an approved list is covered whatever else they
        are on, except for lists that ``always`` ask. A person on no list may be on each that could not say so; an approval for no
        list is for them too."""
        on = {frozenset(person.lists or (person.doubt if self.lists else ())) for person in people}
        return frozenset().union(
            *((lists & always) - self.lists if lists & self.lists else lists - self.lists for lists in on)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A rejection in force. Until that time copies of the mailing are rejected with this sentence. ``senders``: the writers whose
    copies are rejected; empty for any writer. ``only``: the digest of the one content that was rejected, if it was for a list
    address."""

    hold_id: str
    sentence: str
    until: datetime
    senders: frozenset[str] = frozenset()
    only: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """A disclosure of the addresses of a mailing's recipients, until that time, to a person who asked for it and a second one who
    agreed (``agreed_by``, "" for not yet)."""

    asked_by: str
    asked_at: datetime
    until: datetime
    agreed_by: str = ""

    @property
    def people(self) -> frozenset[str]:
        """The people who may see them: nobody until two agree."""
        return frozenset((self.asked_by, self.agreed_by)) if self.agreed_by else frozenset()


class State(enum.Enum):
    """The state of a mailing in one word, for people."""

    PASSING = "passing"  # nothing of it waits, and no decision was needed
    HELD = "held"  # people are to decide
    APPROVED = "approved"
    PAUSED = "paused"  # between two stages, or stopped
    REJECTED = "rejected"


@constant
class PeopleCounts:
    """The numbers of distinct people by the status of their copies (CopyStatus). A list address weighs as much as its people.

    ``relayed`` have it, as far as is known; ``doubted`` may; for ``admitted`` it is in flight. ``same``: how many of the
    ``relayed`` may be counted twice, as a person on two lists. ``apart``: how many more may have it, if two versions of a list
    share nobody, or who had a copy of their own was not on the list when it went there. ``unbounded``: the fields whose number
    may be higher, since of the people of a list only the least number was known.
    """

    deferred: int = 0
    refused: int = 0
    held: int = 0
    admitted: int = 0
    relayed: int = 0
    doubted: int = 0
    stopped: int = 0
    same: int = 0
    apart: int = 0
    unbounded: frozenset[str] = frozenset()

    @classmethod
    def of(cls, statuses: Sequence[int]) -> PeopleCounts:
        """``statuses``: the numbers of people by status, in the order of CopyStatus."""
        _, deferred, refused, held, admitted, relayed, doubted, again, stopped = statuses
        return cls(
            deferred=deferred, refused=refused, held=held, admitted=admitted + again, relayed=relayed, doubted=doubted,
            stopped=stopped,
        )  # fmt: skip

    @property
    def at_least(self) -> int:
        """The number of people who certainly have it."""
        return self.relayed - self.same

    @property
    def at_most(self) -> int | None:
        """The number of people who have it if all in doubt do, without those for whom it is in flight; None if unknown."""
        return None if self.unbounded & {"relayed", "doubted"} else self.relayed + self.doubted + self.apart

    def amount(self, field: str) -> int | Amount:
        """Return the number of a field, for people."""
        n: int = getattr(self, field)
        return Amount(n, inf) if field in self.unbounded else n

    @property
    def all(self) -> int:
        return self.deferred + self.refused + self.held + self.admitted + self.relayed + self.doubted + self.stopped


FIELDS = {status: status.name.lower() for status in CopyStatus if status} | {CopyStatus.AGAIN: "admitted"}
"""The field of PeopleCounts that counts each status."""
SUREST = (
    CopyStatus.NONE,
    CopyStatus.STOPPED,
    CopyStatus.REFUSED,
    CopyStatus.DEFERRED,
    CopyStatus.HELD,
    CopyStatus.ADMITTED,
    CopyStatus.AGAIN,
    CopyStatus.DOUBTED,
    CopyStatus.RELAYED,
)
"""The statuses by precedence: of those of a person's own copy and of a list's the later one here counts."""


@constant
class Mailing:
    """A mailing. ``first_at``, ``last_at``: when its first and last message came; ``went_first_at``, ``went_last_at``: when the
    relay accepted the first and the last, None if it accepted none. ``subject``, ``reverse_path``, ``sender``: those of its
    first message; they are erased with the retention of addresses.

    ``entry``: the hold that people are to decide on, "" if none waits; ``copies``: the messages stored under it;
    ``release_at``: when its approval takes effect, if it is approved and that can still be undone. The hold has these
    two, and mailings.rows adds them.
    ``customers``: the distinct customers among its recipients in all, whatever the outcome. ``grants``: all approvals in force,
    the newest first.
    """

    mailing_id: str
    first_at: datetime
    last_at: datetime
    subject: str = ""
    reverse_path: str = ""
    sender: str = ""
    lists: tuple[str, ...] = ()
    people: PeopleCounts = field(default_factory=PeopleCounts)
    customers: int = 0
    messages: int = 0
    copies: int = 0
    entry: str = ""
    release_at: datetime | None = None
    grants: tuple[Grant, ...] = ()
    rejection: Rejection | None = None
    progress: Progress | None = None
    bounces: int = 0
    complaints: int = 0
    went_first_at: datetime | None = None
    went_last_at: datetime | None = None
    disclosure: Disclosure | None = None

    @property
    def state(self) -> State:
        if self.entry:
            return State.HELD
        if all(grant.by_writer for grant in self.grants):
            return State.REJECTED if self.rejection is not None else State.PASSING
        if self.progress is not None and self.progress.waits:
            return State.PAUSED
        return State.APPROVED

    @property
    def selectable(self) -> Selectable:
        return Selectable(
            frozenset(self.lists), frozenset(filter(None, (self.sender, self.reverse_path))), self.mailing_id
        )

    @property
    def reported(self) -> int:
        return self.bounces + self.complaints

    @property
    def out(self) -> int:
        """The greatest number of people that it may have been admitted to."""
        return self.people.admitted + self.people.doubted + self.people.relayed

    @property
    def agreed(self) -> int:
        """The number of people who are approved, and whose copies wait for their stage or their turn."""
        return min(self.people.held, sum(grant.waits for grant in self.grants))

    @property
    def grant(self) -> Grant | None:
        """The last approval."""
        return next(iter(self.grants), None)

    @property
    def stage_limit(self) -> int:
        """How many people it may reach in all by the end of the stage of its release: of the last, as many as its approvals
        let."""
        assert self.progress is not None
        most = max((grant.people for grant in self.grants if not grant.only), default=self.progress.limit)
        return most if self.progress.last else min(self.progress.limit, most)

    @property
    def decided(self) -> bool:
        """Return whether there is a decision of people. Of a mailing ``as_of`` a time it is one that is in force then."""
        return any((self.grants, self.rejection, self.progress, self.disclosure))

    @property
    def writers(self) -> frozenset[str]:
        """The sender of its first message, and the writers of the copies that an approval covers, as far as they are known."""
        covers = [grant.cover for grant in self.grants if grant.cover is not None]
        authors = {author for one in covers for author in (one.author, *(who for who, _ in one.also))}
        return frozenset(filter(None, (self.sender, *authors)))

    def allowing(self, people: Iterable[Person], fresh: int, always: frozenset[str] = frozenset()) -> tuple[Grant, ...]:
        """Return the approvals that may cover one more message to ``people``, if its content is covered. ``fresh``: how many of
        them have nothing of it yet, and no place in an approval. Those who have one were agreed to first."""
        everybody = tuple(people)
        return tuple(
            grant
            for grant in self.grants
            if (grant.only or self.out + self.agreed + fresh <= grant.people)
            and not grant.other_lists([p for p in everybody if not grant.only or always.intersection(p.lists)], always)
        )

    def has_place(self, grant: Grant, people: int) -> bool:
        """Return whether an approval has places for this number of people, whose copy has waited for it."""
        return people <= grant.waits or self.out + self.agreed + people <= grant.people

    def as_of(self, now: datetime) -> Mailing:
        """Return the mailing without decisions and stages that have expired."""
        if not self.decided:
            return self
        grants = tuple(grant for grant in self.grants if now < grant.until)
        progress = self.progress.as_of(now) if self.progress is not None and grants else None
        rejection = self.rejection if self.rejection is not None and now < self.rejection.until else None
        disclosure = self.disclosure if self.disclosure is not None and now < self.disclosure.until else None
        return replace(self._under(grants, rejection, progress), disclosure=disclosure)

    def _under(self, grants: Sequence[Grant], rejection: Rejection | None, progress: Progress | None) -> Mailing:
        """Return the mailing under these decisions. ``grants``: the newest first."""
        return replace(self, grants=tuple(_added_up(grants)), rejection=rejection, progress=progress)

    def granted(
        self,
        grant: Grant,
        stages: Stages | None,
        out: int,
        now: datetime,
        at_once: int = 0,
        *,
        held: int = 0,
        reach: int = 0,
    ) -> Mailing:
        """Return the mailing with a new approval for ``grant.people``.

        ``out``: how many people have been admitted so far. ``held``: how many people wait. ``reach``: how many of these wait for
        this approval, at most. The approval has places (``Grant.waits``) for all whom its approvers looked at, and for all who
        had one in an approval that it replaces.

        If it is for other lists than an earlier one, both are in force, and their people add up. An unfinished release in stages
        goes on for another list, and beside what this lets go ``at_once``.
        """
        current = self.as_of(now)
        beside = tuple(old for old in current.grants if not _replaces(grant, old))[: MOST_GRANTS - 1]
        agreed = min(held, sum(old.waits for old in current.grants))
        carried = max(agreed - sum(old.waits for old in beside), 0)
        here = min(reach, held - agreed)
        looked = min(grant.waits, here)
        if grant.only:
            grant = replace(grant, waits=looked + carried)
            return self._under((grant, *beside), _rejection_beside(grant, current.rejection), current.progress)
        others = any(_adds_to(grant, old) for old in beside)
        exceeded = not grant.said and grant.people <= out  # for another list, long after, or for other content
        before = out if others or exceeded else 0
        if looked and not others:
            before = max(before, out + agreed + looked - grant.people)
        grant = replace(grant, own=grant.people, before=before)
        most = _added_up((grant, *beside))[0].people
        # Those who came after the vote get it as far as the number goes.
        waits = min(here, max(looked, most - out - agreed))
        grant = replace(grant, waits=waits + carried)
        old = current.progress
        people = grant.people + (0 if others else grant.before)
        progress = Progress.begin(stages, people, now, out) if stages is not None else None
        if old is not None and old.at is At.STOPPED and progress is not None:
            progress = replace(progress.moved(Move.STOP, now, old.why) or progress, told=old.told)
        elif old is not None and (old.at is At.STOPPED or (beside and progress is None)):
            progress = old.with_more(at_once)  # what waits for its stage goes on waiting
        if others and old is not None and (old.waits or not old.last):
            progress = old.with_more(at_once)
        if grant.by_writer:  # it undoes no decision of others
            return self._under((grant, *beside), current.rejection, current.progress)
        return self._under((grant, *beside), _rejection_beside(grant, current.rejection), progress)

    def refused(self, rejection: Rejection | None = None, *, hold: bool = False) -> Mailing:
        """Return the mailing without its approvals, and with this rejection. If a single content was rejected, approvals of others
        stay in force. ``hold``: a held message was rejected, not the mailing, so that approvals for a set of people stay in force."""
        if rejection is not None and rejection.only:
            left = tuple(g for g in self.grants if g.cover is None or g.cover.exact != rejection.only)
            return self._under(left, rejection, self.progress if left else None)
        return self._under(tuple(grant for grant in self.grants if hold and grant.only), rejection, None)

    def followed(self, hold_id: str, people: int) -> Mailing:
        """Return the mailing after this number of people no longer wait under a hold. Their places are in the approval of that
        hold, or in one that replaced it."""
        holding = [grant for grant in self.grants if grant.waits]
        left = next((grant for grant in holding if grant.hold_id == hold_id), holding[0] if holding else None)
        if left is None or not people:
            return self
        now = replace(left, waits=max(left.waits - people, 0))
        return replace(self, grants=tuple(now if one is left else one for one in self.grants))

    def all_followed(self) -> Mailing:
        """Return the mailing when no copy waits for an approval any more."""
        return replace(self, grants=tuple(replace(one, waits=0) for one in self.grants))

    def ungranted(self, hold_id: str) -> Mailing:
        """Return the mailing without the approval of that hold. A release in stages ends with the last approval."""
        left = tuple(grant for grant in self.grants if grant.hold_id != hold_id)
        if len(left) == len(self.grants):
            return self
        return self._under(left, self.rejection, self.progress if left else None)


def _replaces(grant: Grant, old: Grant) -> bool:
    """Return whether an approval replaces an earlier one: the earlier one is for no other lists, and no other content."""
    if (grant.by_writer and not old.by_writer) or grant.only != old.only:
        return False
    alike = grant.cover is None or old.cover is None or grant.cover == old.cover
    return grant.lists >= old.lists and alike


def _adds_to(grant: Grant, old: Grant) -> bool:
    """Return whether the people of an approval are beside those of an earlier one, since it is for other lists."""
    return not (grant.only or grant.by_writer or old.only or grant.lists >= old.lists)


def _added_up(grants: Sequence[Grant]) -> list[Grant]:
    """Return approvals with the people that they have together, now that these are in force. The newest is first."""
    added: list[Grant] = []
    for grant in reversed(grants):
        if grant.own is None and not grant.only:  # an earlier version stored the sum
            grant = replace(grant, own=0, before=grant.people)
        others = [old.people for old in added if _adds_to(grant, old)]
        people = grant.people if grant.own is None else max(grant.before, *others, 0) + grant.own
        added = [replace(old, people=people) if _adds_to(grant, old) else old for old in added]
        added.append(grant if grant.people == people else replace(grant, people=people))
    return added[::-1]


def _rejection_beside(grant: Grant, rejection: Rejection | None) -> Rejection | None:
    """Return the rejection if it stays in force beside an approval: one of another content, to a list address."""
    stays = rejection is not None and rejection.only and grant.cover is not None and grant.cover.exact != rejection.only
    return rejection if stays else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """The people behind an address that a mailing went to: the members of ``list`` at ``version``; "" if they are
    unknown. ``kind``: as of a recipient (mailingrow); ``status``: that of their copy."""

    list: str
    version: str
    kind: int
    status: CopyStatus
    people: int

    @property
    def of(self) -> Version:
        """The name of the list, or one for all of this kind, and its version."""
        return self.list or f"kind {self.kind}", self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthPoint:
    """The numbers of people at a point of a mailing's growth. ``sent``: those to whom a copy was sent by ``at``; ``held``: those
    whose copy had arrived by then and was not sent yet, or never is."""

    at: datetime
    sent: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedPeople:
    """The people that a mailing has reached by now. ``sent``, ``may``: the single people who have it, and who may, as keyed
    digests."""

    sent: frozenset[bytes] = frozenset()
    may: frozenset[bytes] = frozenset()
    crowds: tuple[Crowd, ...] = ()


def set_of(people: Iterable[bytes]) -> str:
    """Return the name of a set of people: the SHA-256 over their keyed digests of 8 octets in order, each once."""
    return hashlib.sha256(b"".join(sorted(set(people)))).hexdigest()


class NoSuch(KeyError):
    """There is no mailing, or no held message, of this id. The text says so."""


def event_of(
    mailing: Mailing, now: datetime, what: str, actors: tuple[str, ...], comment: str = "", **data: object
) -> Event:
    private = {"actor": tuple(filter(None, actors))} | ({"comment": (comment,)} if comment else {})
    return Event(kind=Kind.MAILING, id=mailing.mailing_id, at=now, data={"what": what, **data}, private=private)


def stages_wait_event(mailing: Mailing, progress: Progress, now: datetime) -> Event:
    """Return the event that a release in stages has stopped by itself, or begun a pause that only a person ends."""
    what = Move.STOP if progress.at is At.STOPPED else Move.FULL
    data = {"why": dump(progress.why)} if progress.why else {}
    return event_of(mailing, now, what.value, ("smtpguard",), stage=progress.stage, limit=progress.limit, **data)


def is_automatic(data: Mapping[str, object]) -> bool:
    """Return whether an entry about a mailing has such an event (``stages_wait_event``), and no act of a person."""
    return "why" in data or data.get("what") == Move.FULL.value


MAILING = Codec(Mailing)
