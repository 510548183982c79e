"""Approving as the policy declares it: how an approval is given and takes effect (by mail too, in stages, and for copies
that differ in a share of their words); absences of approvers, and who decides as deputy; and working hours. Pure: the
time is always given.

An absent person and their deputy have one vote together: a deputy never adds a second one. A working day runs from one
wall-clock time to another in the organization's zone. What passes in between is counted in real time, so that a night
in which the clock changes has its real length.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from fractions import Fraction

from smtpguard.locale.phrase import Amount, Listed, Phrase, Span

SHARE = 0.05
"""The default share of words in which a copy may differ."""
REST = 0.0
"""As a step: all remaining people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """``steps``: how many people each stage takes: a number, a share of the whole below 1, and ``REST`` at the end.

    ``pause_seconds``: the pause between two; None: until a person resumes. ``refused``, ``reported``: the share of the
    people reached that stops the release.
    """

    steps: tuple[float, ...]
    pause_seconds: int | None = 1800
    refused: float = 0.05
    reported: float = 0.005

    @property
    def portions(self) -> Phrase:
        """ "50 people, 1 % of all, the rest"."""
        return Phrase("{sentences}", sentences=Listed(tuple(map(_portion, self.steps))))

    @property
    def sentence(self) -> Phrase:
        if self.pause_seconds is None:
            return Phrase("It is sent in stages: {steps}. An approver opens each further stage.", steps=self.portions)
        pause = Span(self.pause_seconds)
        return Phrase("It is sent in stages: {steps}, with pauses of {time}.", steps=self.portions, time=pause)


def _portion(step: float) -> Phrase:
    if step == REST:
        return Phrase("the rest")
    if step < 1:
        return Phrase("{share} of all", share=Amount(step * 100, step * 100, percent=True))
    return Phrase.counted("{n} person", "{n} people", int(step))


class ByAddress(enum.Enum):
    """How a message to the address of a list with stages is approved: the relay expands it to everybody at once, so it
    cannot be sent in stages."""

    CONFIRM = "confirm"  # the approver confirms that it reaches all of them at once
    REFUSE = "refuse"  # it cannot be approved: it must be sent as single copies


SORTS: Mapping[str, str] = {"complaints": "complaint", "bounces": "bounce", "replies": "reply", "unsubscribes": "unsubscribe"}  # fmt: skip
"""Keys of the policy, and the sort of return that each counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """``least``: so many people, or of ``share`` such a part of those who have it. ``window_seconds``: in so long, 0 for in all.
    ``after``: as soon as so many have it."""

    text: str
    least: Fraction
    share: bool
    window_seconds: int
    after: int = 0

    def trips(self, counted: int, people: int) -> bool:
        """``counted``: how many people have a return of this sort; ``people``: how many certainly have the mailing."""
        if not counted or people < self.after:
            return False
        return counted >= (self.least * people if self.share else self.least)

    def covers(self, other: Limit) -> bool:
        """Whether it surely trips wherever ``other`` does."""
        longer = not self.window_seconds or (0 < other.window_seconds <= self.window_seconds)
        return self.share is other.share and self.least <= other.least and self.after <= other.after and longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """``name``: the key of the policy."""

    name: str
    limit: Limit

    @property
    def sort(self) -> str:
        return SORTS[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakers:
    """``lists``: a breaker that trips stops all mail to the lists of the mailing, not the mailing alone."""

    each: tuple[Breaker, ...] = ()
    lists: bool = False

    @classmethod
    def over(cls, some: Iterable[Breakers]) -> Breakers:
        """All breakers of ``some`` together; the first that trips stops the mailing."""
        every = tuple(some)
        each = dict.fromkeys(breaker for one in every for breaker in one.each)
        return cls(each=tuple(each), lists=any(one.lists for one in every))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What may stop the rest of a mailing. ``people``: how many certainly have it; ``enforce``: whether it is stopped, or
    only noted."""

    breakers: Breakers
    people: int
    enforce: bool
    new_id: Callable[[], str]


LONGEST = timedelta(days=366)
"""The longest absence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """``person`` (canonical) is absent from the beginning of ``since`` to the end of ``until``, by the organization's
    calendar. ``deputy``: canonical, "" for none. ``confirmed``: an admin has agreed that the deputy decides in groups
    that they are not in. ``ended``: when they came back early, or cancelled it."""

    person: str
    since: date
    until: date
    deputy: str = ""
    confirmed: bool = False
    ended: datetime | None = None

    def covers(self, at: datetime, zone: tzinfo) -> bool:
        on = self.since <= at.astimezone(zone).date() <= self.until
        return on and (self.ended is None or at < self.ended)

    def over(self, at: datetime, zone: tzinfo) -> bool:
        return self.until < at.astimezone(zone).date() or (self.ended is not None and self.ended <= at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a group, from a directory or a sign-on. ``addresses``: all of theirs, canonical; the first is the one
    that they vote as."""

    group: str
    addresses: tuple[str, ...]


def together(policy: Iterable[Absence], said: Iterable[Absence]) -> tuple[Absence, ...]:
    """The policy's absences and people's own. A person's own replaces every absence of the policy for them that begins
    before its end."""
    own = {absence.person: absence for absence in said}
    kept = (a for a in policy if a.person not in own or a.since > own[a.person].until)
    return (*kept, *own.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups(Mapping[str, frozenset[str]]):
    """Group -> canonical addresses of its members, and their absences. ``aliases``: for each address of a person with
    several, all of theirs. ``elsewhere``: groups whose members others name too. ``zone``: in which days begin."""

    people: Mapping[str, frozenset[str]]
    elsewhere: frozenset[str] = frozenset()
    absences: tuple[Absence, ...] = ()
    aliases: Mapping[str, frozenset[str]] = field(default_factory=dict)
    zone: tzinfo = UTC
    _named: Mapping[str, list[tuple[str, str]]] = field(init=False, repr=False, compare=False)
    """Local part -> people with an address that has it, and its domain."""

    def __post_init__(self) -> None:
        named: dict[str, list[tuple[str, str]]] = {}
        for person in frozenset().union(*self.people.values()):
            for address in self._addresses(person):
                name, _, domain = address.rpartition("@")
                named.setdefault(name, []).append((person, domain))
        object.__setattr__(self, "_named", named)

    def __getitem__(self, group: str) -> frozenset[str]:
        return self.people[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.people)

    def __len__(self) -> int:
        return len(self.people)

    def of(self, group: str) -> frozenset[str]:
        """Its members, present or absent; empty for a group that no longer exists."""
        return self.people.get(group, frozenset())

    def besides(self, group: str, without: Set[str]) -> frozenset[str]:
        """Its members, present or absent, but nobody who is in ``without`` under any address."""
        return frozenset(one for one in self.of(group) if self._addresses(one).isdisjoint(without))

    def named(self, addresses: Iterable[str], ours: Callable[[str], bool], login: str = "") -> frozenset[str]:
        """The people one of whose local parts is this login, or that of one of these addresses; both in domains that are
        ``ours``."""
        apart = (one.rpartition("@") for one in addresses)
        names = [name for name, _, domain in apart if name in self._named and ours(domain)]
        found = {person for name in names for person, domain in self._named[name] if ours(domain)}
        return frozenset(found.union(person for person, _ in self._named.get(login, ())))

    def with_members(self, found: Iterable[Member]) -> Groups:
        """With the members that others name, of groups for which the policy lets them."""
        people, aliases = dict(self.people), dict(self.aliases)
        for member in found:
            if member.group not in self.elsewhere or not member.addresses:
                continue
            everything = frozenset(member.addresses).union(*(aliases.get(a, frozenset()) for a in member.addresses))
            if len(everything) > 1:
                aliases |= dict.fromkeys(everything, everything)
            if everything.isdisjoint(people[member.group]):
                people[member.group] |= {member.addresses[0]}
        return replace(self, people=people, aliases=aliases)

    def with_absences(self, absences: Iterable[Absence]) -> Groups:
        return replace(self, absences=tuple(absences))

    def with_deputies(self) -> Mapping[str, frozenset[str]]:
        """Group -> its members, and everybody who may decide as deputy of one at some time."""
        return {
            group: people | {a.deputy for a in self.absences if a.deputy and a.confirmed and a.person in people}
            for group, people in self.people.items()
        }

    def away(self, person: str, at: datetime) -> Absence | None:
        """The absence of this person at ``at``; None while they are present."""
        mine = self._addresses(person)
        return next((a for a in self.absences if a.person in mine and a.covers(at, self.zone)), None)

    def deputy(self, person: str, at: datetime, groups: Iterable[str], without: Set[str] = frozenset()) -> str:
        """The deputy of an absent person in at least one of these groups; "" for none: the person is present, has named
        no deputy who may decide, or one who is absent too, or one of ``without``: the message's writer."""
        absence = self.away(person, at)
        if absence is None or not absence.deputy or self.away(absence.deputy, at) is not None:
            return ""
        theirs = self._addresses(absence.deputy)
        if theirs & without or not any(
            self._may(absence, g) for g in groups if not self.of(g).isdisjoint(self._addresses(person))
        ):
            return ""
        return absence.deputy

    def decided_for(self, deputy: str, at: datetime) -> tuple[Absence, ...]:
        """The absences at ``at`` for which this person is the deputy."""
        mine = self._addresses(deputy)
        return tuple(a for a in self.absences if a.deputy in mine and a.covers(at, self.zone))

    def decides(self, who: str, group: str, at: datetime, without: Set[str] = frozenset()) -> bool:
        """Whether they decide in a group: as a member, or now as deputy of a member. Nobody in ``without`` does, nor
        as their deputy: a deputy does not decide on what the absent person wrote."""
        members = self.besides(group, without)
        return self._addresses(who).isdisjoint(without) and (
            who in members
            or any(a.confirmed and not self._addresses(a.person).isdisjoint(members) for a in self.decided_for(who, at))
        )

    def of_person(self, who: str, at: datetime) -> frozenset[str]:
        """The groups in which they decide at that time: their own, and those of the people whose deputy they are."""
        return frozenset(group for group in self.people if self.decides(who, group, at))

    def there(self, group: str, at: datetime, without: Set[str] = frozenset()) -> frozenset[str]:
        """The people of a group who can decide: its present members, and the deputies of the absent ones."""
        found = set()
        for person in self.besides(group, without):
            if self.away(person, at) is None:
                found.add(person)
            elif deputy := self.deputy(person, at, (group,), without):
                found.add(deputy)
        return frozenset(found)

    def votes(
        self, voted: Mapping[str, datetime], groups: Iterable[str], without: Set[str] = frozenset()
    ) -> tuple[frozenset[str], ...]:
        """For each vote that counts, the groups for which it may count; ``voted``: who voted, and when. Nobody in
        ``without`` votes, and a person has one vote, whatever their addresses.

        A deputy's vote counts as their own and as the absent person's at once: one vote. A vote given before an absence
        stays valid, and then the deputy adds none. A vote given during an absence is shared with the deputy's.
        """
        alone, stands = self._shared(voted, groups, without)
        return tuple(
            frozenset().union(*(stands[who] for who, of in alone.items() if of == one))
            for one in dict.fromkeys(alone.values())
        )

    def together(
        self, voted: Mapping[str, datetime], groups: Iterable[str], without: Set[str] = frozenset()
    ) -> tuple[tuple[str, ...], ...]:
        """Those of the voters who have one vote together, since one of them was away and another decides for them: also
        after the absence, until one of them votes again."""
        alone, _ = self._shared(voted, groups, without)
        shared = (tuple(who for who, of in alone.items() if of == one) for one in dict.fromkeys(alone.values()))
        return tuple(some for some in shared if len({self.person(who) for who in some}) > 1)

    def _shared(
        self, voted: Mapping[str, datetime], groups: Iterable[str], without: Set[str]
    ) -> tuple[dict[str, str], dict[str, set[str]]]:
        """By voter one of those who share the vote, and the groups for which it may count."""
        groups = tuple(groups)
        voted = {who: at for who, at in voted.items() if self._addresses(who).isdisjoint(without)}
        alone = {who: self.person(who) for who in voted}  # voter -> one of those who share the vote
        stands: dict[str, set[str]] = {}
        for who, at in voted.items():
            stands[who] = {g for g in groups if not self._addresses(who).isdisjoint(self.of(g))}
            for absence in self.decided_for(who, at):
                person = self._addresses(absence.person)
                theirs = [one for one in voted if one in person]
                may = {g for g in groups if self._may(absence, g) and not person.isdisjoint(self.of(g))}
                if may and any(absence.covers(voted[one], self.zone) for one in theirs):
                    shared, other = alone[who], alone[theirs[0]]
                    alone.update((one, shared) for one, of in alone.items() if of == other)
                elif not theirs and person.isdisjoint(without):
                    stands[who] |= may
        return alone, stands

    def _may(self, absence: Absence, group: str) -> bool:
        return absence.confirmed or not self._addresses(absence.deputy).isdisjoint(self.of(group))

    def person(self, address: str) -> str:
        """The same for all addresses of a person."""
        return min(self._addresses(address))

    def _addresses(self, person: str) -> frozenset[str]:
        return self.aliases.get(person) or frozenset({person})


DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MIDNIGHT = time(0)
FARTHEST = timedelta(days=36525)
"""A deadline is no later than this: 100 years, as the longest duration in the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """``days``: 0 is Monday. ``closes`` at 00:00 is the end of the day. Opens before it closes; at least one day.
    ``holidays``: days off; ``yearly``: (month, day) of those that come every year."""

    days: frozenset[int]
    opens: time
    closes: time
    zone: tzinfo
    holidays: frozenset[date] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        if not self.days or (self.closes != MIDNIGHT and self.opens >= self.closes):
            raise ValueError("working hours of no length")

    def open_at(self, at: datetime) -> bool:
        """Whether ``at`` (aware) is within working hours."""
        day = at.astimezone(self.zone).date()
        return any(
            begin <= at < end for begin, end in (self._of(d) for d in (day, day - timedelta(days=1))) if begin < end
        )

    def working_deadline(self, start: datetime, length: timedelta, *, within: bool = False) -> datetime:
        """The first moment, in UTC, at which ``length`` of working time has passed since ``start``, at most FARTHEST later;
        with ``within`` the first one in working hours: not the moment at which they end."""
        start, left = start.astimezone(UTC), max(length, timedelta())
        if not left and not within:
            return start
        for begin, end in self._spans(start):
            passed = end - max(begin, start)
            if passed > left or (passed == left and not within):
                return max(begin, start) + left
            left -= passed
        return start + FARTHEST

    def worked(self, start: datetime, end: datetime) -> timedelta:
        some = timedelta()
        for begin, close in self._spans(start):
            if begin >= end:
                break
            some += min(close, end) - max(begin, start)
        return some

    def _spans(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Open spans, in UTC, that end after ``start`` and at most FARTHEST later."""
        day, done = start.astimezone(self.zone).date(), start
        for n in range(-1, FARTHEST.days - 1):
            begin, end = self._of(day + timedelta(days=n))
            if begin < end and end > done:  # a date that a zone leaves out has the hours of the next one
                yield begin, end
                done = end

    def _of(self, day: date) -> tuple[datetime, datetime]:
        """When that day's work begins and ends, in UTC; equal on a day off."""
        begin = datetime.combine(day, self.opens, self.zone).astimezone(UTC)
        if day.weekday() not in self.days or day in self.holidays or (day.month, day.day) in self.yearly:
            return begin, begin
        last = day + timedelta(days=1) if self.closes == MIDNIGHT else day
        return begin, datetime.combine(last, self.closes, self.zone).astimezone(UTC)


def parse_days(text: str) -> frozenset[int]:
    """ "mon-fri", "mon, wed, sat-sun", "monday-friday". Raises ValueError."""
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        a = _day(first.strip())
        b = _day(last.strip()) if dash else a
        days.update(range(a, b + 1) if a <= b else (*range(a, 7), *range(b + 1)))
    return frozenset(days)


def _day(name: str) -> int:
    if len(name) >= 3:
        for n, day in enumerate(DAYS):
            if day.startswith(name):
                return n
    raise ValueError(name)


def parse_time(text: str) -> time:
    """ "08:00"; "24:00" is midnight at the end of the day. Raises ValueError."""
    hour, colon, minute = text.partition(":")
    if not (colon and hour.isascii() and hour.isdigit() and minute.isascii() and minute.isdigit() and len(minute) == 2):
        raise ValueError(text)
    return MIDNIGHT if text == "24:00" else time(int(hour), int(minute))
