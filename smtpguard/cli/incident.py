"""smtpguard incident report: who sent what, when, to how many, what happened to it and who decided, with its proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import click

from smtpguard.cli.audit import may_name, progress
from smtpguard.cli.context import CannotRun, Context, NotFine
from smtpguard.cli.times import moment
from smtpguard.console.incident import Told, told
from smtpguard.console.incidentrow import row
from smtpguard.console.reporting import Made, NothingFits, make
from smtpguard.incidents.about import About
from smtpguard.incidents.preserving import Preserved
from smtpguard.incidents.report import TooMany
from smtpguard.journal.chain import microseconds
from smtpguard.locale.catalogue import languages
from smtpguard.locale.speech import Speech


@click.group()
def command() -> None:
    """The facts of an incident, from the journal."""


@command.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--list", "lists", multiple=True, metavar="NAME", help="What touched this list.")
@click.option("--sender", "senders", multiple=True, metavar="ADDRESS", help="What this address wrote or sent.")
@click.option("--subject", default="", metavar="TEXT", help="What has this in its subject.")
@click.option("--since", metavar="WHEN", help='From then on: "2026-11-26 09:30" in UTC, or "2h" ago.')
@click.option("--until", metavar="WHEN", help="Before then.")
@click.option("--alone", is_flag=True, help="Without the other messages of the mailings that the IDs are part of.")
@click.option("--no-names", is_flag=True, help="Without addresses, subjects and what people wrote: to be passed on.")
@click.option(
    "--no-proof", is_flag=True, help="Without the walk over the whole journal, which takes a while in a large one."
)
@click.option("--language", type=click.Choice(languages()), default="en", show_default=True, help="Of the page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def report(
    context: Context,
    ids: tuple[str, ...],
    lists: tuple[str, ...],
    senders: tuple[str, ...],
    subject: str,
    since: str | None,
    until: str | None,
    alone: bool,
    no_names: bool,
    no_proof: bool,
    language: str,
    as_json: bool,
) -> None:
    """Who sent what, when, to how many, what became of it, who decided; and the proof that the journal is whole.

    An ID is that of a held message, of any other as the log has it, of a mailing, of a freeze, or the SHA-256 of a content.
    Whatever is given must all fit. Exit 1 where nothing does, or the journal is not whole. That names were shown is journalled.
    """  # fmt: skip
    now = datetime.now(UTC)
    asked = About(
        ids=frozenset(ids),
        lists=frozenset(lists),
        senders=frozenset(senders),
        subject=subject,
        since=None if since is None else microseconds(moment("--since", since, now)),
        until=None if until is None else microseconds(moment("--until", until, now)),
        whole=not alone,
    )
    if asked == About(whole=not alone):
        raise click.UsageError("say what it is about: an ID, --list, --sender, --subject, or --since")

    for_programs = as_json or context.json

    async def work() -> Made:
        from smtpguard.app.lists import on_list
        from smtpguard.app.services import opened

        settings = context.settings()
        async with opened(settings, reads=True) as (store, digester):
            if not no_names:
                may_name(store)
            with progress("Proving the journal") as moved:
                try:
                    return await make(
                        asked,
                        partial(
                            store.journal.incident,
                            prove=not no_proof,
                            progress=moved,
                            asked=on_list(settings, digester),
                        ),
                        store,
                        at=now,
                        names=not no_names,
                        by=(context.user,),
                        language="en" if for_programs else language,
                        delimiters=settings.delimiters,
                        keeps=timedelta(seconds=settings.retention.content),
                    )
                except TooMany as error:
                    raise CannotRun(str(error)) from None
                except NothingFits as error:
                    raise NotFine(str(error)) from None

    made = context.run(work())
    if for_programs:
        context.say(row(made))
    else:
        said = Speech(language)
        for line in _page(told(made, said), said, now, context.user):
            click.echo(line)
    if made.found.proof is not None and not made.found.proof.ok:
        raise click.exceptions.Exit(1)


@command.command()
@click.argument("id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Why, as the journal has it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def hold(context: Context, id: str, reason: str, as_json: bool) -> None:
    """Keep everything that a report on this needs, whatever retention says: for 180 days.

    ID is that of a message, a mailing, a held message or a freeze. Of a message that is one of a mailing all of that is kept: entries with
    their names, contents, decisions, deliveries and counts; and the journal from the first of them on.
    """

    async def work() -> Preserved:
        from smtpguard.app.services import opened

        async with opened(context.settings()) as (store, _):
            found = await store.preserve(id, by=context.user, reason=reason)
        if found is None:
            raise NotFine(f"the journal has nothing of {id}")
        return found

    _tell(context, [context.run(work())], as_json)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def holds(context: Context, as_json: bool) -> None:
    """What is kept past its time, and until when."""

    async def work() -> Sequence[Preserved]:
        from smtpguard.app.services import opened

        async with opened(context.settings(), reads=True) as (store, _):
            return await store.preserved()

    _tell(context, context.run(work()), as_json)


@command.command()
@click.argument("id", metavar="ID")
@click.option(
    "--as", "person", required=True, metavar="ADDRESS", help="Who wants it: somebody in a group of the policy."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def renew(context: Context, id: str, person: str, as_json: bool) -> None:
    """Keep it for 180 days more. It takes two people: the second who says so decides."""

    async def work() -> Preserved:
        from smtpguard.app.files import parse_policy
        from smtpguard.app.services import opened

        settings = context.settings()
        async with opened(settings) as (store, _):
            try:
                documents = await store.policies.documents((await store.gate.read()).policy_sha256)
                groups = parse_policy(settings, documents).groups
            except KeyError:
                raise CannotRun("no policy is in force: nobody is in a group") from None
            if not any(person in people for people in groups.values()):
                raise NotFine(f"{person} is in no group of the policy in force")
            try:
                return await store.preserve_longer(id, person)
            except KeyError:
                raise NotFine(f"{id} is not kept past its time: smtpguard incident hold {id}") from None

    _tell(context, [context.run(work())], as_json)


def _tell(context: Context, some: Sequence[Preserved], as_json: bool) -> None:
    for one in some:
        if as_json or context.json:
            context.say(
                {
                    "id": one.id,
                    "until": one.until,
                    "by": one.by,
                    "reason": one.reason,
                    "renewal_asked_by": one.asked_by or None,
                }
            )
            continue
        waits = f"; {one.asked_by} wants it longer, and a second person is to agree" if one.asked_by else ""
        click.echo(f"{one.id}: everything is kept until {one.until:%Y-%m-%d %H:%M} UTC{waits}")
    if not some and not (as_json or context.json):
        click.echo("Nothing is kept past its time.")


def _page(page: Told, said: Speech, made: datetime, by: str) -> Iterator[str]:
    yield said("INCIDENT REPORT, made {when} by {who}", when=f"{made:%Y-%m-%d %H:%M:%S} UTC", who=by)
    yield said("About: {what}", what=page.about)
    yield said("Proof: {what}", what=page.proof)
    yield ""
    yield page.short
    for title, lines in page.sections:
        yield ""
        yield title.upper()
        yield from (f"  {line}" for line in lines)
