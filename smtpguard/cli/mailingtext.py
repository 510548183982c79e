"""Mailings as text: a table of them, one in words, and a progress bar while one is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from smtpguard.cli.context import in_columns
from smtpguard.cli.holdrow import in_force, plain
from smtpguard.holds import coverage
from smtpguard.holds.coverage import Coverage
from smtpguard.locale.phrase import many
from smtpguard.mailings.model import Mailing, Tally
from smtpguard.mailings.staging import At, Progress
from smtpguard.policy.freezing import Freeze

WIDTH = 40
_HEAD = (
    "ID",
    "STATE",
    "CAME",
    "WENT OUT",
    "LAST OUT",
    "SENT",
    "AT MOST",
    "ON WAY",
    "DOUBT",
    "HELD",
    "WAITS",
    "REFUSED",
    "STOPPED",
    "PER MIN",
    "LISTS",
    "SUBJECT",
)
_NUMBERS = range(5, 14)
_RECENT = 6  # looks that the current rate is taken from


def per_minute(mailing: Mailing) -> float:
    """People a minute since its first message; if all came at one moment, all of them."""
    minutes = (mailing.last_at - mailing.first_at).total_seconds() / 60
    return mailing.people.all / max(minutes, 1.0)


def table(mailings: Iterable[Mailing]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [_HEAD]
    for one in mailings:
        people = one.people
        figures = (
            people.admitted, people.doubted, people.held, people.deferred, people.refused, people.stopped,
            per_minute(one),
        )  # fmt: skip
        went = ("-" if at is None else f"{at:%Y-%m-%d %H:%M}" for at in (one.went_first_at, one.went_last_at))
        rows.append(
            (one.mailing_id, state(one), f"{one.first_at:%Y-%m-%d %H:%M}", *went, f"{people.at_least:,}",
             f"{people.at_most:,}" if people.at_most != people.at_least else "-", *(f"{n:,.0f}" for n in figures),
             ", ".join(one.lists) or "-", plain(one.subject)[:50])
        )  # fmt: skip
    yield from in_columns(rows, _NUMBERS)


def told(
    mailing: Mailing, now: datetime, freezes: Sequence[Freeze] = (), covers: Sequence[Coverage] = ()
) -> Iterator[str]:
    """Everything about one mailing, a line for each thing. ``freezes``: those that stop its approved messages;
    ``covers``: what each approval covers."""
    people = mailing.people
    yield from _named("Id", mailing.mailing_id)
    yield from _named("State", state(mailing) + (f", waits as {mailing.entry}" if mailing.entry else ""))
    yield from _named("Frozen", f"what is not out goes out when this is thawed: {in_force(freezes)}" if freezes else "")
    sender = f"{mailing.sender or 'nobody named'} (reverse-path {mailing.reverse_path or '<>'})"
    yield from _named("From", sender if mailing.sender or mailing.reverse_path else "")
    yield from _named("Subject", mailing.subject)
    yield from _named("Lists", ", ".join(mailing.lists) or "none: single people")
    yield from _named("Came", _first_and_last(mailing.first_at, mailing.last_at))
    if mailing.went_first_at is not None and mailing.went_last_at is not None:
        yield from _named("Went out", _first_and_last(mailing.went_first_at, mailing.went_last_at))
    yield from _named(
        "Came for",
        f"{many(mailing.customers, 'customer')} in {many(mailing.messages, 'message')}, {per_minute(mailing):,.0f} people a minute",
    )
    on_its_way = f", {people.admitted:,} more {'once thawed' if freezes else 'on the way'}" if people.admitted else ""
    have = _people(people.relayed) if people.at_least == people.at_most else f"{_between(people)} people"
    yield from _named("Sent to", f"{have}{on_its_way}")
    yield from _named("In doubt", f"for {_people(people.doubted)}: the relay may have it" if people.doubted else "")
    stored = f", {many(mailing.copies + 1, 'message')} stored" if mailing.entry else ""
    yield from _named("Held for", f"{_people(people.held)}{stored}" if people.held else "")
    yield from _named("Waits for", f"{_people(people.deferred)}, at the client" if people.deferred else "")
    yield from _named("Refused", f"for {_people(people.refused)}, by the relay" if people.refused else "")
    yield from _named(
        "Stopped", f"for {_people(people.stopped)}: held, and it does not go out" if people.stopped else ""
    )
    if mailing.bounces or mailing.complaints:
        yield from _named("Reported", f"{mailing.bounces:,} bounces and {mailing.complaints:,} complaints")
    for n, grant in enumerate(mailing.grants):
        by = f" by {', '.join(grant.by)}" if grant.by else ""
        how = " beforehand" if grant.beforehand else ""
        most = "exactly" if grant.only else "at most"
        to = f" in all, to {', '.join(sorted(grant.lists))}" if mailing.earlier else ""
        over = "" if now < grant.until else " (over)"
        yield from _named(
            "Approved",
            f"{how}{by} at {grant.since:%Y-%m-%d %H:%M} UTC, for {most} {grant.people:,} people{to}, until {grant.until:%Y-%m-%d %H:%M} UTC{over}".strip(),
        )
        for sentence in coverage.said(covers[n]) if n < len(covers) else ():
            yield from _named("Covers", plain(sentence))
    if (rejection := mailing.rejection) is not None:
        said = f": {rejection.sentence}" if rejection.sentence else ""
        yield from _named("Rejected", f"until {rejection.until:%Y-%m-%d %H:%M} UTC{said}")
    if mailing.progress is not None:
        yield from _named("Stage", _stage(mailing.progress))
    yield f"{bar(mailing)}"


def _first_and_last(first: datetime, last: datetime) -> str:
    return f"first {first:%Y-%m-%d %H:%M:%S} UTC, last {last:%Y-%m-%d %H:%M:%S} UTC"


def _between(people: Tally) -> str:
    return f"at least {people.at_least:,}, at most {people.at_most:,}"


def _people(n: int) -> str:
    return many(n, "person", "people")


def bar(mailing: Mailing) -> str:
    """``[####>?==--x      ]``: sent, on the way, in doubt, held, deferred, refused or stopped, and what is still to
    come of the approved number."""
    people = mailing.people
    allowed = mailing.grant.people if mailing.grant is not None else 0
    whole = max(people.all, allowed, 1)
    parts = ((people.relayed, "#"), (people.admitted, ">"), (people.doubted, "?"), (people.held, "="), (people.deferred, "-"),
             (people.refused + people.stopped, "x"))  # fmt: skip
    drawn, before = "", 0
    for n, sign in parts:
        before += n
        drawn += sign * (round(WIDTH * before / whole) - len(drawn))
    return f"[{drawn:<{WIDTH}}] {100 * people.relayed / whole:.0f} % of {whole:,} sent"


LEGEND = "# sent   > on the way   ? in doubt   = held   - waits at its client   x refused, or stopped"


class Follower:
    """One line for each look: the bar, and the current rate in people a minute. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=_RECENT)

    def line(self, mailing: Mailing) -> str:
        self._seen.append((self._clock(), mailing.people.relayed))
        (then, before), (now, after) = self._seen[0], self._seen[-1]
        rate = 60 * (after - before) / (now - then) if now > then else 0.0
        people = mailing.people
        going = f", on the way {people.admitted:,}" if people.admitted else ""
        doubt = f", in doubt {people.doubted:,}" if people.doubted else ""
        sent = f"{people.at_least:,}" if people.at_least == people.at_most else _between(people)
        figures = (
            f"sent {sent}{going}{doubt}, held {people.held:,}, waits {people.deferred:,}, refused {people.refused:,}"
        )
        return f"{bar(mailing)}  {figures}; {rate:,.0f} a minute; {state(mailing)}"


def state(mailing: Mailing) -> str:
    if mailing.progress is not None and not mailing.entry and mailing.progress.at is At.STOPPED:
        return "stopped"
    return mailing.state.value


def _stage(progress: Progress) -> str:
    on = progress.goes_on_at()
    when = f", goes on at {on:%H:%M} UTC" if on is not None else ""
    why = f" ({progress.why})" if progress.why else ""
    return f"{progress.stage + 1} of {len(progress.stages.steps)}, up to {progress.limit:,} people: {progress.at.value}{why}{when}"


def _named(name: str, value: str) -> Iterator[str]:
    if value:
        yield f"{name + ':':10} {plain(value)}"
