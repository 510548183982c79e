"""A mailing as the admission sees it: the outcome by recipient, people's decisions, and what they mean for the next
message.

A mailing is one text sent to many people, over any number of transactions, senders and connections. ``Mailing`` is what
is stored of it; ``rule_on`` applies people's decisions to one more message. Pure.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from smtpguard.database.codec import Codec
from smtpguard.mailings.staging import Progress
from smtpguard.policy.approvals import Stages
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.shown import Shown

MOST_GRANTS = 20
"""Approvals of one mailing that stand beside each other, the newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One recipient as counts know it: an 8-byte keyed digest. ``lists``: that it is on. ``maybe``: a list that could not
    say leaves it open whether this is a customer. A list's address stands for so many people (``weight``), those of one ``version`` of
    its index."""

    digest: bytes
    customer: bool = False
    maybe: bool = False
    lists: tuple[str, ...] = ()
    weight: int = 1
    version: str = ""


class Fate(enum.IntEnum):
    """What is known of a person's copies: of several the last, save that what has gone on, or may have, is never taken back by
    what becomes of another (``with_another``)."""

    NONE = 0
    DEFERRED = 1  # the client has it still
    REFUSED = 2  # by the relay, for good
    HELD = 3
    ADMITTED = 4  # on its way: decided to relay or to release, and nobody has said what came of it
    RELAYED = 5
    DOUBTED = 6  # the relay may have it, and nobody will ever know
    AGAIN = 7  # on its way, and an earlier one may have arrived or is on its way too
    STOPPED = 8  # held, and it does not go out: rejected, withdrawn, expired

    def with_another(self, fate: Fate) -> Fate:
        """After one more copy was decided on. ADMITTED here is still on its way, not there already."""
        if self is Fate.RELAYED or (self in MAY_HAVE and fate not in (Fate.ADMITTED, Fate.DOUBTED)):
            return self
        return Fate.AGAIN if self in MAY_HAVE else fate

    def failed(self, fate: Fate) -> Fate:
        """After it is known of one copy that it did not arrive, by which ``fate``: of two nobody can say whether the other did."""
        return {Fate.ADMITTED: fate, Fate.AGAIN: Fate.DOUBTED}.get(self, self)


ON_THE_WAY = frozenset({Fate.ADMITTED, Fate.AGAIN})
MAY_HAVE = ON_THE_WAY | {Fate.DOUBTED}
LET_THROUGH = MAY_HAVE | {Fate.RELAYED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """A message as approvals look at it. ``author``: the one address in From, "" where that is not clear. ``proofs``: what proves
    where it comes from ("login NAME", "dkim DOMAIN", or "origin" where only the client does). ``by_address``: it is for a list's
    address, or another that expands. ``fits``: by the name of each template that it was compared with, whether it is a copy of that."""

    content: str
    exact: str
    author: str
    proofs: frozenset[str] = frozenset()
    by_address: bool = False
    fits: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, shown: Shown, *, author: str, proofs: frozenset[str], by_address: bool) -> Coming:
        return cls(content=shown.content, exact=shown.digest, author=author, proofs=proofs, by_address=by_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """What people had before their eyes. ``content``: SHA-256 of its octets; ``exact``: of everything that it shows or opens ("" of
    what an earlier version approved). ``learned``: the template of which copies are covered as well; "" where nothing else is.
    ``also``: who else wrote some of them that were seen, and what proved that."""

    content: str
    exact: str = ""
    author: str = ""
    proofs: frozenset[str] = frozenset()
    learned: str = ""
    also: tuple[tuple[str, frozenset[str]], ...] = ()

    def takes_in(self, coming: Coming) -> bool | None:
        """Whether it is the very same thing, or a copy of it, from the same sender. None: that is to be found out (``fits``)."""
        if not self.exact:
            return self.content == coming.content
        if not self.is_from(coming):
            return False
        if self.exact == coming.exact:
            return True
        return coming.fits.get(self.learned) if self.learned and not coming.by_address else False

    def is_from(self, coming: Coming) -> bool:
        """Whether who was approved stands behind it, proven as well as then."""
        seen = ((self.author, self.proofs), *self.also)
        return any(author and author == coming.author and proofs <= coming.proofs for author, proofs in seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What people allowed. ``hold_id``: the hold whose approval it is. ``rules``: those that had hit when they looked.

    ``people``: how many distinct people it may reach in all; ``said``: because somebody said so. ``approved``: what is counted with
    it; ``cover``: what they saw, and so allowed. ``beforehand``: of a test. ``by_writer``: its writer confirmed it, and nobody approved.
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
    cover: Cover | None = None
    by_writer: bool = False

    def takes_in(self, coming: Coming) -> bool | None:
        """None: it is to be compared with what was learned first."""
        return self.cover.takes_in(coming) if self.cover is not None else False

    def other_lists(self, people: Iterable[Person], always: frozenset[str] = frozenset()) -> frozenset[str]:
        """Lists of some of these people for whom it was not allowed: who is on a list that it was allowed for is covered whatever else
        they are on, lists that ``always`` ask aside."""
        on = {frozenset(person.lists) for person in people if person.lists}
        return frozenset().union(
            *((lists & always) - self.lists if lists & self.lists else lists - self.lists for lists in on)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """What people refused: until then what comes of it from those who wrote it is rejected, with their sentence. ``senders``: their
    addresses; whoever it is where there are none. ``only``: the digest of the one content that was refused, where it was for a
    list's address."""

    hold_id: str
    sentence: str
    until: datetime
    senders: frozenset[str] = frozenset()
    only: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """That it is told by their addresses who got it: what one person asks for and another agrees to (``agreed_by``, "" for nobody
    yet), until then."""

    asked_by: str
    asked_at: datetime
    until: datetime
    agreed_by: str = ""

    @property
    def people(self) -> frozenset[str]:
        """Who may be told: nobody until two agree."""
        return frozenset((self.asked_by, self.agreed_by)) if self.agreed_by else frozenset()


class State(enum.Enum):
    """One word for a mailing, as people see it."""

    PASSING = "passing"  # nothing of it waits, and nobody had to decide
    HELD = "held"  # people are to decide
    APPROVED = "approved"
    PAUSED = "paused"  # between two stages, or stopped by somebody or something
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Distinct people, each once, by what became of their copies (Fate). A list's address weighs as much as its people.
    ``relayed`` have it, as far as we know; ``doubted`` may; ``admitted`` have it on its way. ``same``: so many of the ``relayed`` may
    be others of them, as who is on two lists is; ``apart``: so many more may have it, if two versions of a list share nobody."""

    deferred: int = 0
    refused: int = 0
    held: int = 0
    admitted: int = 0
    relayed: int = 0
    doubted: int = 0
    stopped: int = 0
    same: int = 0
    apart: int = 0

    @classmethod
    def of(cls, fates: Sequence[int]) -> Tally:
        """``fates``: people by fate."""
        return cls(
            deferred=fates[Fate.DEFERRED],
            refused=fates[Fate.REFUSED],
            held=fates[Fate.HELD],
            admitted=fates[Fate.ADMITTED] + fates[Fate.AGAIN],
            relayed=fates[Fate.RELAYED],
            doubted=fates[Fate.DOUBTED],
            stopped=fates[Fate.STOPPED],
        )

    @property
    def at_least(self) -> int:
        """How many people certainly have it."""
        return self.relayed - self.same

    @property
    def at_most(self) -> int:
        """How many people have it if all do who may: those of whom nobody knows, too. To whom it is on its way is told apart."""
        return self.relayed + self.doubted + self.apart

    @property
    def all(self) -> int:
        return self.deferred + self.refused + self.held + self.admitted + self.relayed + self.doubted + self.stopped


FIELDS: Mapping[Fate, str] = {
    Fate.DEFERRED: "deferred",
    Fate.REFUSED: "refused",
    Fate.HELD: "held",
    Fate.ADMITTED: "admitted",
    Fate.AGAIN: "admitted",
    Fate.RELAYED: "relayed",
    Fate.DOUBTED: "doubted",
    Fate.STOPPED: "stopped",
}
"""Under what each is counted in a Tally."""
SUREST = (
    Fate.NONE,
    Fate.STOPPED,
    Fate.REFUSED,
    Fate.DEFERRED,
    Fate.HELD,
    Fate.ADMITTED,
    Fate.AGAIN,
    Fate.DOUBTED,
    Fate.RELAYED,
)
"""Of the copy of one's own and that of a list one is on, what stands further on counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailing:
    """``first_at``, ``last_at``: when its first and last message came; ``went_first_at``, ``went_last_at``: when the relay took the first
    and the last that went out, None where nothing has. ``subject``, ``reverse_path``, ``sender``: of its first message; they go with
    the retention of addresses.

    ``entry``: the hold that people are to decide on, "" where none waits. ``copies``: messages stored under it.
    ``customers``: distinct customers that it has come for in all, whatever became of them. ``grant``: what was allowed last;
    ``earlier``: what was allowed before it for other lists, and stands beside it.
    """

    mailing_id: str
    first_at: datetime
    last_at: datetime
    subject: str = ""
    reverse_path: str = ""
    sender: str = ""
    lists: tuple[str, ...] = ()
    people: Tally = field(default_factory=Tally)
    customers: int = 0
    messages: int = 0
    copies: int = 0
    entry: str = ""
    grant: Grant | None = None
    earlier: tuple[Grant, ...] = ()
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
    def out(self) -> int:
        """How many people it was let through to, at most."""
        return self.people.admitted + self.people.doubted + self.people.relayed

    @property
    def grants(self) -> tuple[Grant, ...]:
        """All that was allowed, the newest first."""
        return (self.grant, *self.earlier) if self.grant is not None else ()

    def allowing(
        self, people: Iterable[Person], fresh: int, now: datetime, always: frozenset[str] = frozenset()
    ) -> tuple[Grant, ...]:
        """What people allowed that may take in one more message, to these people, of whom so many have nothing of it yet: if it is what
        they saw."""
        everybody = tuple(people)
        return tuple(
            grant
            for grant in self.grants
            if now < grant.until and self.out + fresh <= grant.people and not grant.other_lists(everybody, always)
        )

    def standing(self, now: datetime) -> Mailing:
        """Without what was decided, and begun, for a time that has passed."""
        if self.grant is None and self.rejection is None and self.progress is None and self.disclosure is None:
            return self
        grants = tuple(grant for grant in self.grants if now < grant.until)
        progress = self.progress.timely(now) if self.progress is not None and grants else None
        return replace(
            self,
            grant=next(iter(grants), None),
            earlier=grants[1:],
            rejection=self.rejected(now),
            progress=progress,
            disclosure=self.disclosure if self.disclosure is not None and now < self.disclosure.until else None,
        )

    def granted(self, grant: Grant, stages: Stages | None, out: int, now: datetime, at_once: int = 0) -> Mailing:
        """People have allowed it, which is let through to ``out`` people by now. For other lists than before, what was allowed
        for those stands beside it, and so many people come on top, since all are counted together; a release in stages that
        is not through goes on as it is, beside those whom this reaches ``at_once``."""
        there = self.standing(now)
        beside = tuple(old for old in there.grants if not _replaces(grant, old))[: MOST_GRANTS - 1]
        others = tuple(old for old in beside if not grant.lists >= old.lists)
        if (
            (not others or grant.by_writer) and not grant.said and grant.people <= out
        ):  # of another list, long after, or of other content
            grant = replace(grant, people=out + grant.people)
        progress = Progress.begun(stages, grant.people, now, out) if stages is not None else None
        if others and not grant.by_writer:
            before = max(out, *(old.people for old in others))
            beside = tuple(
                replace(old, people=before + grant.people) if not grant.lists >= old.lists else old for old in beside
            )
            grant = replace(grant, people=before + grant.people)
            old = there.progress
            if old is not None and (old.waits or not old.last or progress is None):
                progress = old.with_more(at_once)
        if grant.by_writer:  # it takes nothing back of what others have decided
            return replace(self, grant=grant, earlier=beside, rejection=there.rejection, progress=there.progress)
        return replace(self, grant=grant, earlier=beside, rejection=_beside(grant, there.rejection), progress=progress)

    def refused(self, rejection: Rejection | None = None) -> Mailing:
        """Nothing that was allowed stands any more; where one content alone was refused, what was allowed beside it does."""
        if rejection is not None and rejection.only:
            left = tuple(g for g in self.grants if g.cover is None or g.cover.exact != rejection.only)
            progress = self.progress if left else None
            return replace(self, grant=next(iter(left), None), earlier=left[1:], rejection=rejection, progress=progress)
        return replace(self, grant=None, earlier=(), rejection=rejection, progress=None)

    def ungranted(self, hold_id: str) -> Mailing:
        """The approval of that hold stands no more. A release in stages ends with the last one."""
        left = tuple(grant for grant in self.grants if grant.hold_id != hold_id)
        if len(left) == len(self.grants):
            return self
        return replace(self, grant=next(iter(left), None), earlier=left[1:], progress=self.progress if left else None)

    def rejected(self, now: datetime) -> Rejection | None:
        """The rejection that still stands."""
        return self.rejection if self.rejection is not None and now < self.rejection.until else None


def _replaces(grant: Grant, old: Grant) -> bool:
    """Whether an earlier grant is one with this: for no other lists, and of nothing else."""
    if grant.by_writer and not old.by_writer:
        return False
    one, other = grant.cover, old.cover
    if one is None or other is None:
        return grant.lists >= old.lists
    alike = one == other
    return grant.lists >= old.lists and alike


def _beside(grant: Grant, rejection: Rejection | None) -> Rejection | None:
    """The rejection that stands beside an approval: that of another content, to a list's address."""
    apart = rejection is not None and rejection.only and grant.cover is not None and grant.cover.exact != rejection.only
    return rejection if apart else None


def set_of(people: Iterable[bytes]) -> str:
    """The name of a set of people, by their keyed digests of 8 octets: the SHA-256 over them in order, each once."""
    return hashlib.sha256(b"".join(sorted(set(people)))).hexdigest()


class NoSuch(KeyError):
    """No mailing is called so. The text says it."""


def whole_id(prefix: str, found: Collection[str]) -> str:
    """Of those that begin with ``prefix``, the one that is meant. Raises NoSuch where none does, or several do."""
    if prefix.strip().upper() in found:
        return prefix.strip().upper()
    if not found:
        raise NoSuch(f"no mailing is called {prefix}")
    if len(found) > 1:
        raise NoSuch(f"several mailings begin with {prefix}: {', '.join(list(found)[:5])}")
    return next(iter(found))


MAILING = Codec(Mailing)
