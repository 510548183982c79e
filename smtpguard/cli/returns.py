"""smtpguard returns: take, list and export the mail that came back after a mailing.

An MTA pipes mail to ``take``. Whatever prevents storing it ends with 75, so that the MTA keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from smtpguard.cli.context import AtLeast, Context, Group, NotFine, TryAgain, moment, sentence_of
from smtpguard.console.pages.returns import deed_in_words, trend_in_words
from smtpguard.database.errors import ContentMissing
from smtpguard.locale.speech import Speech
from smtpguard.mailings.model import Mailing
from smtpguard.returns.growth import Growth
from smtpguard.returns.growth import row as growth_row
from smtpguard.returns.mentions import Outside, by_source
from smtpguard.returns.model import COUNTED, SORTS, By, Return, Sort, row

_BAR = 40
_MENTIONS = 1_000
_SORTS = [sort.value for sort in Sort]


class _Returns(Group):
    """A group in which ``smtpguard returns ID`` is ``smtpguard returns show ID``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


command = _Returns(
    help="Mail that came back after a mailing: take, list, show, mentions, export. An ID alone shows it."
)


@command.command(json="One JSON object.")
@click.argument("mailing_id", metavar="ID")
async def show(context: Context, mailing_id: str) -> None:
    """Show what came back after a mailing: how much of each sort, how fast, whether it grows or falls, and what was done meanwhile."""
    async with context.services() as services:
        mailing = await services.mailings.show(mailing_id)
        growth = await services.returns().growth(mailing)
    context.answer(growth_row(mailing, growth), _page(mailing, growth))


@command.command(json="One JSON object for each mail.")
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--to", "to", multiple=True, metavar="ADDRESS", help="An envelope recipient; may be repeated.")
async def take(context: Context, files: tuple[str, ...], to: tuple[str, ...]) -> None:
    """Store mail that came back: DSNs, complaints, replies, unsubscribes. Exit 0 means that it is stored.

    A FILE is a message, an mbox or a folder of them; without one a message is read from standard input, as from Postfix's pipe.
    Mail that cannot be read is stored as unsorted. The same message is stored once. Exit 75 if it could not be stored: the
    mail server then keeps it and tries again.
    """  # fmt: skip
    from smtpguard.cli.explain import mails

    receipts = []
    try:
        async with context.services() as services:
            for mail in mails(files or ("-",)):
                if mail.unread:
                    raise TryAgain(f"{mail.name}: {mail.unread}")
                receipts.append(await services.returns().take(mail.message, to=to))
    except TryAgain:
        raise
    except Exception as error:  # with any other status the MTA drops the mail
        said = error.message if isinstance(error, click.ClickException) else sentence_of(error)
        raise TryAgain(
            f"it is not stored, and stays where it was: {said or f'{type(error).__name__}: {error}'}"
        ) from error
    for receipt in receipts:
        for one in receipt.returns if context.json else ():
            context.print_json(row(one))
    for receipt in receipts:
        for stop in receipt.freezes:
            click.echo(f"Frozen: {stop.in_words()}", err=True)
        for hook in receipt.hooks:
            if hook.problem is not None:
                click.echo(f"{hook.program}, run at a freeze: {hook.problem}", err=True)
    if not receipts:
        raise NotFine("there is no mail in it")


@command.command("list")
@click.option("--mailing", metavar="ID", help="Only after this mailing.")
@click.option("--sort", type=click.Choice(_SORTS), help="Only these.")
@click.option("--limit", type=AtLeast(1), default=100, show_default=True, help="At most so many, newest first.")
async def list_(context: Context, mailing: str | None, sort: str | None, limit: int) -> None:
    """List mail that came back, newest first: its sort, the mailing that it is about, and how that is known. It names people: that it was asked for is
    journalled."""
    async with context.services() as services:
        whole = await services.store.mailings.whole_id(mailing) if mailing is not None else None
        wanted = Sort(sort) if sort else None
        found = await services.store.returns.newest(mailing=whole, sort=wanted, limit=limit)
        await context.journal_export(services.store, what="returns", found=len(found))
    context.answers(map(row, found), map(_line, found) if found else ["No such mail has come back."])


@command.command(json="One JSON object for each mention.")
@click.option("--since", default="7d", show_default=True, metavar="WHEN",
              help='Since this time: "2026-11-26 09:30" in UTC, or "2h" ago.')  # fmt: skip
async def mentions(context: Context, since: str) -> None:
    """List reports in news and feeds, by source; one that several sources have is listed under each."""
    begin = moment("--since", since, datetime.now(UTC))

    async with context.services() as services:
        found = await services.returns().outside(begin, _MENTIONS)
    rows = (
        {
            "title": one.title,
            "first_at": one.first_at,
            "sources": [{"name": name, "url": url or None} for name, url in one.sources],
        }
        for one in found
    )
    context.answers(rows, _mentioned(found) if found else ["No report in news or feeds has come in."])


def _mentioned(found: Sequence[Outside]) -> Iterator[str]:
    for name, some in by_source(found):
        yield name
        for one in some:
            url = next(url for source, url in one.sources if source == name)
            yield f"  {one.first_at:%Y-%m-%d %H:%M} UTC  {one.title}{f'  {url}' if url else ''}"


@command.command(json=None)
@click.argument("mail", metavar="MAIL")
async def export(context: Context, mail: str) -> None:
    """Write a mail that came back, byte for byte, to standard output. MAIL is its id, or a beginning of it. The export is
    journalled."""
    async with context.services() as services:
        found = await services.store.returns.called(mail.lower()) if mail.strip() else ()
        if len(found) != 1:
            raise NotFine(f"{'several mails begin' if found else 'no mail that came back begins'} with {mail}")
        try:
            message = await services.store.contents.load(found[0])
        except ContentMissing:
            raise NotFine(f"{found[0]} is no longer kept") from None
        await context.journal_export(services.store, found[0][:16], what="returned", mail=found[0])
    click.echo(bytes(message.raw[:]), nl=False)


def _page(mailing: Mailing, growth: Growth) -> Iterator[str]:
    said, people = Speech("en"), mailing.people
    yield f"{mailing.mailing_id}  {mailing.subject or '(no subject)'}"
    sure = people.at_least == people.at_most
    if people.at_most is None:
        yield f"  at least {people.at_least:,} people have it, at most unknown"
    else:
        yield f"  {people.at_least:,}{'' if sure else f' to {people.at_most:,}'} people have it"
    yield f"  {trend_in_words(growth, said)}"
    yield ""
    for one in growth.done:
        yield f"  {one.at:%Y-%m-%d %H:%M:%S} UTC  {deed_in_words(one, said)}"
    yield ""
    for total in growth.totals:
        share = f" ({100 * total.counted / people.at_least:.3g} %)" if total.counted and people.at_least else ""
        likely = f", {total.likely:,} more are likely" if total.likely else ""
        yield f"  {SORTS[total.sort]}: {total.all:,}, of which {total.counted:,} count{share}{likely}"
    most = max((sum(one.by.values()) for one in growth.stretches), default=0)
    for stretch in growth.stretches if most else ():
        n = sum(stretch.of(sort) for sort in COUNTED)
        sorts = ", ".join(f"{SORTS[sort]} {stretch.of(sort)}" for sort in COUNTED if stretch.of(sort))
        yield f"  {stretch.at:%Y-%m-%d %H:%M}  {'#' * round(_BAR * n / most):<{_BAR}}  {n:>6,}  {sorts}".rstrip()


def _line(one: Return) -> str:
    about = one.match.mailing or one.match.message
    known = {By.NOTHING: "of no known mailing", By.LIKENESS: f"likely of {about}"}.get(
        one.match.by, f"of {about} (by its {one.match.by.value})"
    )
    who = one.said.address or one.said.author
    cells = [one.sort.value, known, who, one.said.status, one.said.subject or one.said.why]
    return f"{one.at:%Y-%m-%d %H:%M:%S} UTC  {one.mail[:16]}  " + "; ".join(filter(None, cells))
