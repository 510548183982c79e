"""Paged lists of holds, journalled messages and mailings: their filters in a URL, their cursors, and a page of what a person may
see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta, tzinfo
from urllib.parse import urlencode

from starlette.requests import Request

from smtpguard.console.rendering import digits
from smtpguard.console.services import ConsoleServices, Person, sees
from smtpguard.holds.model import LET_GO, Hold, HoldQuery, State
from smtpguard.journal.chain import instant, microseconds
from smtpguard.locale.phrase import N_
from smtpguard.mailings.model import Mailing
from smtpguard.mailings.model import State as MailingState
from smtpguard.mailings.service import FEW
from smtpguard.policy.rule import ASKED as BEFOREHAND

PAGE = 50
"""How many items a page shows."""
_READS = 20
"""The most times that mailings are read for one page, since those of other people are skipped."""
UNVOTED, VOTED, ASKED = "new", "voted", "asked"
APPROVED, CONFIRMED = "approved", "confirmed"
WAITS: Mapping[str, str] = {UNVOTED: N_("nobody has voted yet"), VOTED: N_("somebody has voted")}
"""The choices for waiting holds."""
ENDS: Mapping[str, tuple[State, ...]] = {
    APPROVED: (*LET_GO, State.GRANTED),
    CONFIRMED: (*LET_GO, State.GRANTED),
    "rejected": (State.REJECTED,),
    "withdrawn": (State.WITHDRAWN,),
    "expired": (State.EXPIRED,),
}
"""The choices for decided holds, as the figures count them."""
ANY = "any"
"""Every hold, whatever its state."""
DECIDED = tuple(dict.fromkeys(state for states in ENDS.values() for state in states))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The filters, each by its name in a URL. ``q``: words. ``state``: of ``WAITS``, ``ENDS`` or the page's own. ``mine``: only holds
    that the person is asked to decide. ``mail``: nothing that was sent for approval beforehand, which the figures of Overview do not
    count. ``since``, ``until``: days, the last one included. ``after``: the cursor of the page before."""

    q: str = ""
    list: str = ""
    rule: str = ""
    state: str = ""
    since: date | None = None
    until: date | None = None
    mine: bool = False
    mail: bool = False
    after: str = ""

    @classmethod
    def of(cls, request: Request) -> Filters:
        asked_for = request.query_params
        return cls(
            q=asked_for.get("q", "")[:200].strip(),
            list=asked_for.get("list", "")[:100],
            rule=asked_for.get("rule", "")[:100],
            state=asked_for.get("state", "")[:20],
            since=_day(asked_for.get("since", "")),
            until=_day(asked_for.get("until", "")),
            mine=asked_for.get("mine") == "1",
            mail=asked_for.get("mail") == "1",
            after=asked_for.get("after", "")[:200],
        )

    @property
    def filtered(self) -> bool:
        return replace(self, after="") != Filters()

    @property
    def folded(self) -> bool:
        """Return whether filters that are folded away are in use, so that they must be shown."""
        return bool(self.rule or self.state or self.since or self.until or self.mail)

    def url(self, after: str = "", path: str = "/held") -> str:
        given = {each.name: getattr(self, each.name) for each in fields(self)} | {"after": after}
        query = urlencode({name: "1" if value is True else value for name, value in given.items() if value})
        return f"{path}?{query}" if query else path

    def times(self, zone: tzinfo) -> tuple[datetime | None, datetime | None]:
        """Return the start, and the end, which is excluded."""
        until = None if self.until is None else midnight(self.until + timedelta(days=1), zone)
        return None if self.since is None else midnight(self.since, zone), until

    def wanted(self, here: ConsoleServices, who: Person, states: Sequence[State]) -> HoldQuery | None:
        """Return the query for the holds that match and that the person may see, None if there can be no such hold."""
        in_force = here.in_force
        marks = [f"{kind}:{name}" for kind, name in (("list", self.list), ("rule", self.rule)) if name]
        seats: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        if self.mine or not who.sees_all:
            for groups, absent in in_force.groups.seats(who.address, here.clock.now()):
                if groups:
                    seats.append((_marks("group", groups), _marks("from", absent)))
            if not seats:
                return None
        if self.state in (VOTED, CONFIRMED):
            marks.append(self.state)
        lacks = {UNVOTED: VOTED, APPROVED: CONFIRMED}.get(self.state, "")
        unmarked = (ASKED if self.mine else "", f"rule:{BEFOREHAND}" if self.mail else "", lacks)
        own = _marks("from", here.addresses_of(who.address)) if self.mine else ()
        since, until = self.times(in_force.hours.zone)
        return HoldQuery(
            states=tuple(states),
            words=tuple(self.q.casefold().split()[:5]),
            marks=tuple(marks),
            unmarked=(*filter(None, unmarked), *own),
            seats=tuple(seats),
            since=since,
            until=until,
        )


def _marks(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{kind}:{name}" for name in sorted(names))


async def count_to_decide(here: ConsoleServices, who: Person) -> int:
    """Return the number of holds that the person is asked to decide: as many as ``mine`` shows."""
    wanted = Filters(mine=True).wanted(here, who, [State.WAITING])
    return 0 if wanted is None else (await here.store.holds.ranked(wanted, first=(), limit=1))[1]


def midnight(day: date, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _day(text: str) -> date | None:
    """Parse a day as browsers send it (HTML, section "Dates"). Return None for an invalid day, and for years outside 1970 to
    9998."""
    try:
        found = date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None
    return found if found is not None and 1970 <= found.year < 9999 else None


def cursor(at: datetime, id: str) -> str:
    """Return the cursor after the last item that was looked at."""
    return f"{microseconds(at)}-{id}"


def parse_cursor(after: str) -> tuple[datetime, str] | None:
    """Return the time and id in a cursor, None for an invalid one."""
    first, _, id = after.partition("-")
    at = digits(first)
    return (instant(at), id) if at is not None and id else None


async def page_of_holds(
    here: ConsoleServices, wanted: HoldQuery | None, *, limit: int, after: str
) -> tuple[Sequence[Hold], str]:
    """Return a page of at most ``limit`` wanted holds, newest first, and the cursor of the next page, "" on the last."""
    found: Sequence[Hold] = ()
    if wanted is not None:
        found = await here.store.holds.page(wanted, limit=limit + 1, before=parse_cursor(after))
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], cursor(last.held_at, last.hold_id) if last is not None else ""


async def page_of_mailings(
    here: ConsoleServices,
    who: Person,
    *,
    limit: int,
    after: str = "",
    least: int = FEW,
    state: MailingState | None = None,
) -> tuple[list[Mailing], str]:
    """Return a page of at most ``limit`` mailings that the person sees, latest first, and the cursor of the next page, "" on the
    last. A page may be short although more follow, if many mailings of others are in between."""
    in_force, last = here.in_force, parse_cursor(after)
    found: list[Mailing] = []
    for _ in range(_READS):
        some = await here.mailings.list(least=least, state=state, limit=limit + 1, before=last)
        for mailing in some:
            if len(found) == limit and last is not None:
                return found, cursor(*last)
            last = mailing.last_at, mailing.mailing_id
            if sees(who, mailing, in_force, here.clock.now()):
                found.append(mailing)
        if len(some) <= limit:
            return found, ""
    return found, cursor(*last) if last is not None else ""
