"""smtpguard mailings: the same content to many people as one: its recipients, and the decisions to continue or stop it.

A mailing is named by its id or a unique prefix of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from smtpguard.cli.context import AtLeast, CannotRun, Context, Group, NotFine, as_address
from smtpguard.cli.holdrow import all_at_once, freeze_row, goes_out, needs, of_mailing, taken_back
from smtpguard.cli.mailingtext import LEGEND, Follower, bar, state, table, told
from smtpguard.holds.model import Choice, Conflict
from smtpguard.holds.sending import Outgoing
from smtpguard.holds.service import Decided
from smtpguard.mailings.model import MAY_HAVE, CopyStatus, Mailing, State
from smtpguard.mailings.service import FEW, Back, NoAddresses, row

if TYPE_CHECKING:
    from smtpguard.app.services import Services

STATES = [state.value for state in State]
STATUSES = {
    "sent": (CopyStatus.RELAYED,),
    "on-the-way": (CopyStatus.ADMITTED,),
    "in-doubt": (CopyStatus.DOUBTED,),
    "held": (CopyStatus.HELD,),
    "waiting": (CopyStatus.DEFERRED,),
    "refused": (CopyStatus.REFUSED,),
    "stopped": (CopyStatus.STOPPED,),
}
_EVERY_SECONDS = 1.0
_MOST_OCTETS = 50 << 20

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
            lines = _listed(context, found, lines if follow else 0)
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
        for line in told(mailing, services.clock.now(), frozen, await services.mailings.covers(mailing)):
            click.echo(line)
        if follow:
            await _followed(_looks(services, mailing, follow))


@command.command()
@an_id
@click.option("--from-list", "name", metavar="NAME", help="Match the members of this list, read from its sources.")
@click.option("--from-csv", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Match the addresses in this file.")  # fmt: skip
@click.option("--column", metavar="NAME", help="The column of the CSV file that holds addresses.")
@click.option("--what", type=click.Choice([*STATUSES, "all"]), default="sent", show_default=True,
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
        whole = await services.mailings.named(mailing_id)
        statuses = set(CopyStatus) - {CopyStatus.NONE} if what == "all" else set(STATUSES[what])
        found = may = 0
        try:
            matched = services.matching(whole, name=name, file=file, column=column)
            async for address, status in matched.people():
                if status in statuses:
                    found += 1
                    word = next(word for word, of in STATUSES.items() if status in of)
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
    """What became of the copy of each address in the file, by its digest."""
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
        await _voted(context, services, mailing, Choice.APPROVE, address, comment, all_at_once)


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
            await _voted(context, services, mailing, Choice.REJECT, address, comment)
        else:
            after = back or Back(mailing=await services.mailings.show(mailing.mailing_id), outgoing=Outgoing())
            _told(context, after)
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
        _told(context, back)


def _told(context: Context, back: Back) -> None:
    text = f"{back.mailing.mailing_id}: {state(back.mailing)}{taken_back(back.outgoing)}"
    context.answer({**row(back.mailing), **of_mailing(back.outgoing)}, [text, bar(back.mailing)])


def _moving(name: str) -> Callable[..., Any]:
    """One of the two commands that move a release in stages, by the name of the service's function."""

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


async def _voted(
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
    if context.json:
        context.say({**row(after), "frozen": [freeze_row(f) for f in done.frozen]})
    elif done.missing:
        click.echo(f"{after.mailing_id}: {needs(done)}")
    else:
        later = f"; {goes_out(done.hold, done.frozen)}" if done.frozen else ""
        click.echo(f"{after.mailing_id}: {after.state.value}{later}")


def _listed(context: Context, found: tuple[Mailing, ...], before: int) -> int:
    """Print the table over the earlier one, on a terminal. Returns its number of lines."""
    if context.json:
        context.answers(map(row, found), ())
        return 0
    lines = list(table(found)) if found else ["No mailings of late."]
    over = f"\x1b[{before}F\x1b[J" if before and sys.stdout.isatty() else ""  # moves up so many lines and clears them
    click.echo(over + "\n".join(lines))
    return len(lines)


async def _looks(services: Services, mailing: Mailing, follow: bool) -> AsyncIterator[Mailing]:
    """It now; with ``follow`` again every second."""
    yield mailing
    while follow:
        await asyncio.sleep(_EVERY_SECONDS)
        yield await services.mailings.show(mailing.mailing_id)


async def _rows(context: Context, looks: AsyncIterator[Mailing]) -> None:
    """Print a line for every change."""
    said: Mapping[str, Any] | None = None
    async for mailing in looks:
        if (now := row(mailing)) != said:
            context.say(now)
            said = now


async def _followed(looks: AsyncIterator[Mailing]) -> None:
    follower, line, moving = Follower(time.monotonic), "", sys.stdout.isatty()
    click.echo(LEGEND)
    async for mailing in looks:
        now = follower.line(mailing)
        if moving:
            click.echo(f"\r\x1b[K{now}", nl=False)
        elif now != line:
            click.echo(now)
        line = now
