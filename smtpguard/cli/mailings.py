"""smtpguard mailings: the same content to many people as one: its recipients, and the decisions to continue or stop it.

A mailing is named by its id or a unique prefix of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from smtpguard.cli.context import AtLeast, CannotRun, Context, Group, NotFine, as_address, in_columns
from smtpguard.cli.holdrow import (
    all_at_once,
    freeze_row,
    freezes_in_words,
    goes_out,
    of_mailing,
    plain,
    taken_back,
    vote_in_words,
)
from smtpguard.holds import coverage
from smtpguard.holds.coverage import Coverage
from smtpguard.holds.model import Choice, Conflict
from smtpguard.holds.sending import Outgoing
from smtpguard.holds.service import Decided
from smtpguard.locale.phrase import many
from smtpguard.mailings.matching import NoAddresses
from smtpguard.mailings.model import FIELDS, MAY_HAVE, CopyStatus, Mailing, PeopleCounts, State
from smtpguard.mailings.service import FEW, Revoked, row
from smtpguard.mailings.staging import At, Progress
from smtpguard.policy.freezing import Freeze

if TYPE_CHECKING:
    from smtpguard.app.services import Services

STATES = [state.value for state in State]
WORDS = {
    "relayed": "sent",
    "admitted": "on-the-way",
    "doubted": "in-doubt",
    "held": "held",
    "deferred": "waiting",
    "refused": "refused",
    "stopped": "stopped",
}
"""The word for each number of a mailing's people."""
_EVERY_SECONDS = 1.0
_MOST_OCTETS = 50 << 20
"""The largest message of a correction."""
_WIDTH = 40
"""The characters of a bar."""
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
"""The columns of numbers."""
_RECENT = 6
"""The looks that the current rate is taken from."""

an_id = click.argument("mailing_id", metavar="ID")
a_comment = click.option("--comment", default="", metavar="TEXT", help="A comment; it is journalled.")
follow = click.option("--follow", is_flag=True, help="Show it again every second, until Ctrl-C.")

command = Group(help="Mailings: list, show, people; correct; approve, reject, go-on, stop, reopen.")


@command.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@click.option("--least", type=AtLeast(1), default=FEW, show_default=True, metavar="N",
              help="Only mailings to at least N people; those that were held or decided are always listed.")  # fmt: skip
@click.option("--limit", type=AtLeast(1), default=100, show_default=True, help="At most so many, latest first.")
@follow
async def list_(context: Context, state: str | None, least: int, limit: int, follow: bool) -> None:
    """List recent mailings: lists, people reached, held, waiting and refused, since when and how fast."""
    async with context.services() as services:
        lines = 0
        while True:
            wanted = State(state) if state else None
            found = await services.mailings.list(least=least, state=wanted, limit=limit)
            lines = _print_table(context, found, lines if follow else 0)
            if not follow:
                return
            await asyncio.sleep(_EVERY_SECONDS)


@command.command()
@an_id
@follow
async def show(context: Context, mailing_id: str, follow: bool) -> None:
    """Show one mailing: its writers and lists, the people that it has reached, the decisions, and its stage."""
    async with context.services() as services:
        mailing = await services.mailings.show(mailing_id)
        if context.json:
            await _rows(context, _looks(services, mailing, follow))
            return
        frozen = await services.freezes.against(mailing) if mailing.grant is not None else ()
        for line in mailing_lines(mailing, frozen, await services.mailings.covers(mailing)):
            click.echo(line)
        if follow:
            await _print_bars(_looks(services, mailing, follow))


@command.command()
@an_id
@click.option("--from-list", "name", metavar="NAME", help="Match the members of this list, read from its sources.")
@click.option("--from-csv", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Match the addresses in this file.")  # fmt: skip
@click.option("--column", metavar="NAME", help="The column of the CSV file that holds addresses.")
@click.option("--what", type=click.Choice([*WORDS.values(), "all"]), default="sent", show_default=True,
              help="The outcome of their copy.")  # fmt: skip
async def people(
    context: Context, mailing_id: str, name: str | None, file: Path | None, column: str | None, what: str
) -> None:
    """List which of these people the mailing came for, one address a line: for an apology to exactly those.

    The recipients of a mailing are stored as keyed digests, so you must give the addresses to compare. The request is journalled.
    """  # fmt: skip
    if (name is None) == (file is None):
        raise click.UsageError("say from where the addresses come: --from-list or --from-csv")

    async with context.services() as services:
        whole = await services.store.mailings.whole_id(mailing_id)
        found = may = 0
        try:
            matched = services.matching(whole, name=name, file=file, column=column)
            async for address, status in matched.people():
                word = WORDS[FIELDS[status]] if status in FIELDS else ""
                if word and what in (word, "all"):
                    found += 1
                    context.answer({"address": address, "what": word}, address)
                elif status in MAY_HAVE:
                    may += 1
        except NoAddresses as error:
            raise CannotRun(str(error)) from None
        for said in matched.bad:
            click.echo(said, err=True)
        await context.journal_export(services.store, whole, what="people", people=found)
        click.echo("one person" if found == 1 else f"{found:,} people", err=True)
        if may and what == "sent":
            click.echo(f"{may:,} more may get it, or may have it: --what on-the-way, --what in-doubt", err=True)
        if matched.older:
            then = "; ".join(matched.older)
            raise NotFine(f"not all of them: it went to {then}. Match an export from then: --from-csv FILE")


@command.command()
@an_id
@click.option("--message", "message", type=click.File("rb"), metavar="FILE", required=True,
              help="The message (RFC 5322), as its copies will be; - for standard input.")  # fmt: skip
@as_address
@a_comment
@click.option("--in-doubt", "doubt", is_flag=True, help="With those who may have it, or get it still.")
@click.option("--from-csv", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Who was on a list when the mailing went to its address, where the list has changed since.")  # fmt: skip
@click.option("--column", metavar="NAME", help="The column of the CSV file that holds addresses.")
async def correct(
    context: Context,
    mailing_id: str,
    message: IO[bytes],
    address: str,
    comment: str,
    doubt: bool,
    file: Path | None,
    column: str | None,
) -> None:
    """Begin its correction: a message to exactly those who got it.

    It is held until others approve it, for the people of the account at this moment and for nobody else. From then on one copy for
    each of them passes, also while a list of theirs is frozen; a copy for anybody else waits.
    """
    async with context.services() as services:
        from smtpguard.admission.preapproval import NotAll
        from smtpguard.mail.message import Message, with_crlf

        mailing = await services.mailings.show(mailing_id)
        matched = await _statuses(services, mailing, file, column) if file is not None else None
        raw = message.read(_MOST_OCTETS + 1)
        if len(raw) > _MOST_OCTETS:
            raise CannotRun(f"{message.name}: larger than {_MOST_OCTETS >> 20} MB")
        whole = Message.of(with_crlf(raw))
        async with services.correcting() as corrections:
            try:
                hold = await corrections.begin(
                    mailing, whole, starter=address, by=context.user, doubt=doubt, matched=matched,
                    comment=comment,
                )  # fmt: skip
            except NotAll as error:
                raise NotFine(f"{error}: --from-csv FILE") from None
        made = hold.correction
        assert made is not None
        begun = {
            "hold": hold.hold_id,
            "mailing": made.mailing_id,
            "set": made.people,
            "sent": made.sent,
            "may_have": made.may,
            "beyond": made.beyond,
            "as_of": f"{made.as_of:%Y-%m-%dT%H:%M:%SZ}",
        }
        may = f", and {made.may:,} who may have it" if doubt else ""
        context.answer(begun, f"{hold.hold_id}: held, for the {made.sent:,} who have it{may}; others approve it: smtpguard held show {hold.hold_id}")  # fmt: skip
        if made.beyond and not context.json:
            click.echo(f"{made.beyond:,} more got it behind addresses of which nobody here knows who that is", err=True)


async def _statuses(services: Services, mailing: Mailing, file: Path, column: str | None) -> dict[bytes, CopyStatus]:
    """Return the status of the copy of each address in the file, by its digest."""
    from smtpguard.mail.address import Address

    digester = services.policies.current().registry.digester
    try:
        matched = services.matching(mailing.mailing_id, name=None, file=file, column=column)
        found = {digester.of(Address.parse(one)): status async for one, status in matched.people()}
    except NoAddresses as error:
        raise CannotRun(str(error)) from None
    if matched.older:
        raise NotFine(f"these are not all of them: it went to {'; '.join(matched.older)}")
    return found


@command.command()
@an_id
@as_address
@a_comment
@all_at_once
async def approve(context: Context, mailing_id: str, address: str, comment: str, all_at_once: int | None) -> None:
    """Approve a mailing: the copies that are held, and further ones."""
    async with context.services() as services:
        mailing = await services.mailings.show(mailing_id)
        if not mailing.entry:
            raise NotFine(f"nothing of {mailing.mailing_id} waits: it is {mailing.state.value}")
        await _vote(context, services, mailing, Choice.APPROVE, address, comment, all_at_once)


@command.command()
@an_id
@as_address
@a_comment
async def reject(context: Context, mailing_id: str, address: str, comment: str) -> None:
    """Reject a mailing, with all of it that waits. One rejection is enough. Approved messages that have not been sent are
    taken back."""
    async with context.services() as services:
        mailing, back, undecided = await services.mailings.show(mailing_id), None, None
        try:
            back = await services.mailings.reject(
                mailing.mailing_id, approver=address, by=context.user, comment=comment
            )
        except Conflict as conflict:
            undecided = conflict
        others = await services.approvals.reject_waiting(
            mailing.mailing_id, approver=address, by=context.user, comment=comment, but=mailing.entry
        )
        if undecided is not None and not mailing.entry and not others:
            raise undecided
        problems = [f"{hold_id}: {refused}" for hold_id, refused in others.items() if refused is not None]
        if mailing.entry:
            await _vote(context, services, mailing, Choice.REJECT, address, comment)
        else:
            after = back or Revoked(mailing=await services.mailings.show(mailing.mailing_id), outgoing=Outgoing())
            _print_decision(context, after)
    if problems:
        raise NotFine("\n".join(problems))


@command.command()
@an_id
@as_address
@a_comment
async def reopen(context: Context, mailing_id: str, address: str, comment: str) -> None:
    """Take back the decision: approved copies that are not sent yet are held again, and the policy judges the next copy
    anew."""
    async with context.services() as services:
        back = await services.mailings.reopen(mailing_id, approver=address, by=context.user, comment=comment)
        _print_decision(context, back)


def _print_decision(context: Context, back: Revoked) -> None:
    text = f"{back.mailing.mailing_id}: {state(back.mailing)}{taken_back(back.outgoing)}"
    context.answer({**row(back.mailing), **of_mailing(back.outgoing)}, [text, bar(back.mailing)])


def _moving(name: str) -> Callable[..., Any]:
    """Return one of the two commands that move a release in stages. ``name``: that of the service's function."""

    @an_id
    @as_address
    @a_comment
    async def move(context: Context, mailing_id: str, address: str, comment: str) -> None:
        async with context.services() as services:
            moved = getattr(services.mailings, name)
            mailing = await moved(mailing_id, approver=address, by=context.user, comment=comment)
        context.answer(row(mailing), [f"{mailing.mailing_id}: {state(mailing)}", bar(mailing)])

    return move


command.command("go-on", help="Open the next stage, or let what was stopped go on.")(_moving("go_on"))
command.command("stop", help="Let nothing more of it out until somebody goes on.")(_moving("stop"))


async def _vote(
    context: Context,
    services: Services,
    mailing: Mailing,
    choice: Choice,
    address: str,
    comment: str,
    all_at_once: int | None = None,
) -> None:
    done: Decided = await services.approvals.vote(
        mailing.entry, choice, approver=address, by=context.user, comment=comment, all_at_once=all_at_once
    )
    after = await services.mailings.show(mailing.mailing_id)
    later = f"; {goes_out(done.hold, done.frozen)}" if done.frozen else ""
    text = vote_in_words(done) if done.missing else f"{after.state.value}{_leaves(after)}{later}"
    frozen = [freeze_row(freeze) for freeze in done.frozen]
    context.answer({**row(after), "frozen": frozen}, f"{after.mailing_id}: {text}")


def _print_table(context: Context, found: tuple[Mailing, ...], before: int) -> int:
    """Print the table over the earlier one, on a terminal. Returns its number of lines."""
    if context.json:
        context.answers(map(row, found), ())
        return 0
    lines = list(table(found)) if found else ["No mailings of late."]
    over = f"\x1b[{before}F\x1b[J" if before and sys.stdout.isatty() else ""  # moves up so many lines and clears them
    click.echo(over + "\n".join(lines))
    return len(lines)


async def _looks(services: Services, mailing: Mailing, follow: bool) -> AsyncIterator[Mailing]:
    """Yield the mailing as it is now; with ``follow`` again every second."""
    yield mailing
    while follow:
        await asyncio.sleep(_EVERY_SECONDS)
        yield await services.mailings.show(mailing.mailing_id)


async def _rows(context: Context, looks: AsyncIterator[Mailing]) -> None:
    said: Mapping[str, Any] | None = None
    async for mailing in looks:
        if (now := row(mailing)) != said:
            context.print_json(now)
            said = now


async def _print_bars(looks: AsyncIterator[Mailing]) -> None:
    follower, line, moving = Follower(time.monotonic), "", sys.stdout.isatty()
    click.echo(LEGEND)
    async for mailing in looks:
        now = follower.line(mailing)
        if moving:
            click.echo(f"\r\x1b[K{now}", nl=False)
        elif now != line:
            click.echo(now)
        line = now


def _per_minute(mailing: Mailing) -> float:
    """Return the people a minute since its first message; if all came at one moment, all of them."""
    minutes = (mailing.last_at - mailing.first_at).total_seconds() / 60
    return mailing.people.all / max(minutes, 1.0)


def table(mailings: Iterable[Mailing]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [_HEAD]
    for one in mailings:
        people = one.people
        figures = (_number(people, name) for name in ("admitted", "doubted", "held", "deferred", "refused", "stopped"))
        went = ("-" if at is None else f"{at:%Y-%m-%d %H:%M}" for at in (one.went_first_at, one.went_last_at))
        rows.append(
            (one.mailing_id, state(one), f"{one.first_at:%Y-%m-%d %H:%M}", *went, f"{people.at_least:,}",
             _most(people) if people.at_most != people.at_least else "-", *figures, f"{_per_minute(one):,.0f}",
             ", ".join(one.lists) or "-", plain(one.subject)[:50])
        )  # fmt: skip
    yield from in_columns(rows, _NUMBERS)


def mailing_lines(mailing: Mailing, freezes: Sequence[Freeze] = (), covers: Sequence[Coverage] = ()) -> Iterator[str]:
    """Yield everything about one mailing, a line for each thing. ``freezes``: those that stop its approved messages; ``covers``:
    what each approval covers."""
    for name, value in _named(mailing, freezes, covers):
        if value:
            yield f"{name + ':':10} {plain(value)}"
    yield bar(mailing)


def _named(mailing: Mailing, freezes: Sequence[Freeze], covers: Sequence[Coverage]) -> Iterator[tuple[str, str]]:
    """Yield each thing with its name, "" for what there is nothing of."""
    people = mailing.people
    yield "Id", mailing.mailing_id
    yield "State", state(mailing) + (f", waits as {mailing.entry}" if mailing.entry else "") + _leaves(mailing)
    if freezes:
        waits = mailing.progress is not None and mailing.progress.at is At.STOPPED
        then = "after a thaw its stages still wait for a person" if waits else "what is approved goes out with a thaw"
        yield "Frozen", f"{freezes_in_words(freezes)}; {then}"
    sender = f"{mailing.sender or 'nobody named'} (reverse-path {mailing.reverse_path or '<>'})"
    yield "From", sender if mailing.sender or mailing.reverse_path else ""
    yield "Subject", mailing.subject
    yield "Lists", ", ".join(mailing.lists) or "none: single people"
    yield "Came", _first_and_last(mailing.first_at, mailing.last_at)
    if mailing.went_first_at is not None and mailing.went_last_at is not None:
        yield "Went out", _first_and_last(mailing.went_first_at, mailing.went_last_at)
    yield (
        "Came for",
        f"{many(mailing.customers, 'customer')} in {many(mailing.messages, 'message')}, {_per_minute(mailing):,.0f} people a minute",
    )
    on_its_way = (
        f", {_number(people, 'admitted')} more {'once thawed' if freezes else 'on the way'}" if people.admitted else ""
    )
    have = _people(people, "relayed") if people.at_least == people.at_most else f"{_between(people)} people"
    yield "Sent to", f"{have}{on_its_way}"
    yield "In doubt", f"for {_people(people, 'doubted')}: the relay may have it" if people.doubted else ""
    stored = f", {many(mailing.copies + 1, 'message')} to be decided on" if mailing.entry else ""
    yield "Held for", f"{_people(people, 'held')}{stored}" if people.held else ""
    yield "Waits for", f"{_people(people, 'deferred')}, at the client" if people.deferred else ""
    yield "Refused", f"for {_people(people, 'refused')}, by the relay" if people.refused else ""
    yield "Stopped", f"for {_people(people, 'stopped')}: held, and it does not go out" if people.stopped else ""
    if mailing.bounces or mailing.complaints:
        yield "Reported", f"{mailing.bounces:,} bounces and {mailing.complaints:,} complaints"
    for n, grant in enumerate(mailing.grants):
        by = f" by {', '.join(grant.by)}" if grant.by else ""
        how = " beforehand" if grant.beforehand else ""
        most = "exactly" if grant.only else "at most"
        number = (
            f"for {grant.own:,} people, {most} {grant.people:,} in all"
            if grant.more
            else f"for {most} {grant.people:,} people"
        )
        to = f", to {', '.join(sorted(grant.lists))}" if len(mailing.grants) > 1 or grant.more else ""
        yield (
            "Confirmed" if grant.by_writer else "Approved",
            f"{how}{by} at {grant.since:%Y-%m-%d %H:%M} UTC, {number}{to}, until {grant.until:%Y-%m-%d %H:%M} UTC".strip(),
        )
        for sentence in coverage.sentences(covers[n]) if n < len(covers) else ():
            yield "Covers", sentence
    if (rejection := mailing.rejection) is not None:
        said = f": {rejection.sentence}" if rejection.sentence else ""
        yield "Rejected", f"until {rejection.until:%Y-%m-%d %H:%M} UTC{said}"
    if mailing.progress is not None:
        yield "Stage", _stage(mailing.progress, mailing.stage_limit)


def _first_and_last(first: datetime, last: datetime) -> str:
    return f"first {first:%Y-%m-%d %H:%M:%S} UTC, last {last:%Y-%m-%d %H:%M:%S} UTC"


def _between(people: PeopleCounts) -> str:
    return f"at least {people.at_least:,}, at most {_most(people)}"


def _most(people: PeopleCounts) -> str:
    return "unknown" if people.at_most is None else f"{people.at_most:,}"


def _people(people: PeopleCounts, field: str) -> str:
    return f"{'at least ' * (field in people.unbounded)}{many(getattr(people, field), 'person', 'people')}"


def _number(people: PeopleCounts, field: str) -> str:
    """Write a number of people: "120"; "120+" for so many or more."""
    return f"{getattr(people, field):,}{'+' * (field in people.unbounded)}"


def bar(mailing: Mailing) -> str:
    """Draw ``[####>?==--x      ]``: people whose copy is sent, on the way, in doubt, held, deferred, refused or stopped, and those who
    are still to come of the approved number."""
    people = mailing.people
    allowed = mailing.grant.people if mailing.grant is not None else 0
    whole = max(people.all, allowed, 1)
    parts = ((people.relayed, "#"), (people.admitted, ">"), (people.doubted, "?"), (people.held, "="), (people.deferred, "-"),
             (people.refused + people.stopped, "x"))  # fmt: skip
    drawn, before = "", 0
    for n, sign in parts:
        before += n
        drawn += sign * (round(_WIDTH * before / whole) - len(drawn))
    return f"[{drawn:<{_WIDTH}}] {100 * people.relayed / whole:.0f} % of {whole:,} sent"


LEGEND = "# sent   > on the way   ? in doubt   = held   - waits at its client   x refused, or stopped"


class Follower:
    """Makes a line for each look at a mailing: the bar, and the current rate in people a minute. ``clock``: gives monotonic
    seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=_RECENT)

    def line(self, mailing: Mailing) -> str:
        self._seen.append((self._clock(), mailing.people.relayed))
        (then, before), (now, after) = self._seen[0], self._seen[-1]
        rate = 60 * (after - before) / (now - then) if now > then else 0.0
        people = mailing.people
        going = f", on the way {_number(people, 'admitted')}" if people.admitted else ""
        doubt = f", in doubt {_number(people, 'doubted')}" if people.doubted else ""
        sent = f"{people.at_least:,}" if people.at_least == people.at_most else _between(people)
        figures = f"sent {sent}{going}{doubt}, held {_number(people, 'held')}, waits {_number(people, 'deferred')}, refused {_number(people, 'refused')}"
        return f"{bar(mailing)}  {figures}; {rate:,.0f} a minute; {state(mailing)}"


def state(mailing: Mailing) -> str:
    if mailing.progress is not None and not mailing.entry and mailing.progress.at is At.STOPPED:
        return "stopped"
    return mailing.state.value


def _leaves(mailing: Mailing) -> str:
    return "" if mailing.release_at is None else f"; approved, can be undone until {mailing.release_at:%H:%M:%S} UTC"


def _stage(progress: Progress, limit: int) -> str:
    on = progress.goes_on_at()
    person = ", until a person lets it go on" if progress.waits_for_person else ""
    when = f", goes on at {on:%Y-%m-%d %H:%M} UTC" if on is not None else person
    why = f" ({progress.why})" if progress.why else ""
    return (
        f"{progress.stage + 1} of {len(progress.stages.steps)}, up to {limit:,} people: {progress.at.value}{why}{when}"
    )
