"""smtpguard incident: the report (who sent what, when, to how many, what happened to it and who decided, with its proof),
what is preserved for it, what people say of it, and who has taken an alarm."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import click

from smtpguard.cli.context import CannotRun, Context, Group, NotFine, mailbox, may_name, moment, progress, write_new
from smtpguard.console.incident import ReportText, in_numbers, report_in_words
from smtpguard.console.incidentfile import MissingExtra, pdf_library, to_file
from smtpguard.console.incidentfile import row as report_row
from smtpguard.console.notifying import DRAFT_TITLES, filled_form, form_lines, form_row
from smtpguard.console.notifying import draft as drafted
from smtpguard.console.reporting import Made, NothingFits, make, query_of
from smtpguard.incidents import breach
from smtpguard.incidents.breach import HOURS, Field
from smtpguard.incidents.preservation import Preserved
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import TooMany
from smtpguard.incidents.statement import FORMATS, MARKS, Part
from smtpguard.journal.event import Event
from smtpguard.locale import languages
from smtpguard.locale.speech import Speech

command = Group(help="Report incidents from the journal, and keep their data.")


@command.command(json="As --format json.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--list", "lists", multiple=True, metavar="NAME", help="Messages for this list.")
@click.option("--sender", "senders", multiple=True, metavar="ADDRESS", help="Messages that this address wrote or sent.")
@click.option("--subject", default="", metavar="TEXT", help="Messages with this text in the subject.")
@click.option("--since", metavar="WHEN", help='Messages since this time: "2026-11-26 09:30" in UTC, or "2h" ago.')
@click.option("--until", metavar="WHEN", help="Messages before this time.")
@click.option("--alone", is_flag=True, help="Leave out the other messages of the same mailings.")
@click.option("--no-names", is_flag=True,
              help="Leave out addresses, subjects and comments, so that the report can be passed on.")  # fmt: skip
@click.option("--no-proof", is_flag=True,
              help="Leave out the proof: do not read the whole journal, which can take long.")  # fmt: skip
@click.option("--language", type=click.Choice(languages()), default="en", show_default=True,
              help="The language of the page.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="The format of the report.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write to a new file that only its owner can read.")  # fmt: skip
async def report(
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
    form: str,
    output: Path | None,
) -> None:
    """Report who sent what, when, to how many, with which outcome, and who decided; with the proof that the journal is whole.

    An ID is that of a held message, of another message in the log, of a mailing, of a freeze, or the SHA-256 of a content.
    A message must match all that is given. Exit 1 if none does, or the journal is not whole. A report with names is journalled.
    """  # fmt: skip
    now = datetime.now(UTC)
    asked, wrong = query_of(
        now, ids=ids, lists=lists, senders=senders, subject=subject, alone=alone, since=since, until=until
    )
    for name, problem in wrong.items():
        raise CannotRun(f"--{name}: {problem}")
    if asked.empty:
        raise click.UsageError("give an ID, --list, --sender, --subject, or --since")

    form = "json" if context.json and form == "text" else form
    for_programs = form == "json"
    if form == "pdf" and output is None and sys.stdout.isatty():
        raise click.UsageError("a PDF cannot be written to a terminal: --output FILE")
    if form == "pdf":
        try:
            pdf_library()
        except MissingExtra as error:
            raise CannotRun(str(error)) from None

    said = Speech("en" if for_programs else language)
    made = await making(context, asked, now, said, names=not no_names, prove=not no_proof)
    page = report_in_words(made, said, context.user)
    if for_programs and output is None:
        context.print_json(report_row(made, page))
    else:
        if form == "text":
            content = "".join(f"{line}\n" for line in _page(page, said)).encode()
        else:
            content = to_file(form, made, page, said)
        if output is None:
            click.echo(content, nl=False)
        else:
            write_new({output: content})
    if made.found.proof is not None and not made.found.proof.ok:
        raise click.exceptions.Exit(1)


@command.command(json="One JSON object.")
@click.argument("id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="The reason, for the journal.")
async def hold(context: Context, id: str, reason: str) -> None:
    """Keep everything that a report needs for 180 days, beyond its retention.

    ID is that of a message, a mailing, a held message or a freeze. For a message of a mailing the whole mailing is kept: entries with
    their names, contents, decisions, deliveries and counts; and the journal from the first of them on.
    """
    async with context.store() as store:
        found = await store.preserve(id, by=context.user, reason=reason)
    if found is None:
        raise NotFine(f"the journal has nothing of {id}")
    _print_preserved(context, [found])


@command.command()
async def holds(context: Context) -> None:
    """List what is kept beyond its retention, until when, who asked for it, and why."""
    async with context.store(reads=True) as store:
        _print_preserved(context, await store.preserved())


@command.command(json="One JSON object.")
@click.argument("id", metavar="ID")
@click.option("--as", "person", required=True, metavar="ADDRESS",
              help="Your address; you must be in a group of the policy.")  # fmt: skip
async def renew(context: Context, id: str, person: str) -> None:
    """Keep it for 180 more days. Two people must agree: the second one's request takes effect."""
    from smtpguard.app.files import parse_policy

    async with context.store() as store:
        documents = await store.policies.in_force()
        if not documents:
            raise CannotRun("no policy is in force: nobody is in a group")
        policy = parse_policy(context.settings(), documents)
        by = mailbox("--as", person).canonical(policy.delimiters)
        if not any(by in people for people in policy.groups.values()):
            raise NotFine(f"{person} is in no group of the policy in force")
        try:
            found = await store.preserve_longer(id, by, also=policy.groups.addresses(by))
        except KeyError:
            raise NotFine(f"{id} is not kept beyond its retention: smtpguard incident hold {id}") from None
    _print_preserved(context, [found])


def _print_preserved(context: Context, some: Sequence[Preserved]) -> None:
    for one in some:
        row = {
            "id": one.id,
            "until": one.until,
            "by": one.by,
            "reason": one.reason,
            "renewal_asked_by": one.asked_by or None,
        }
        waits = f"; {one.asked_by} asked to keep it longer, and a second person must agree" if one.asked_by else ""
        why = f", asked for by {one.by}{': ' if one.reason else ''}{one.reason}"
        context.answer(row, f"{one.id}: all its data is kept until {one.until:%Y-%m-%d %H:%M} UTC{why}{waits}")
    if not some and not context.json:
        click.echo("Nothing is kept beyond its retention.")


def _page(page: ReportText, said: Speech) -> Iterator[str]:
    yield f"{page.title.upper()}, {page.made}"
    yield said("About: {what}", what=page.query)
    yield said("Proof: {what}", what=page.proof)
    yield ""
    yield page.short
    yield said("Each line is marked fact, estimate or unknown, and ends with the numbers of its journal entries.")
    for part in page.parts[:-1]:
        yield from _part(part, said)
    yield ""
    yield page.when.upper()
    for step in page.timeline:
        yield f"  {step.seq:>8}  {step.utc}{f'  {step.here}' if step.here else ''}  {step.text}"
        if step.then:
            yield f"  {'':>8}  {step.then}"
    yield from _part(page.parts[-1], said)


def _part(part: Part, said: Speech) -> Iterator[str]:
    yield ""
    yield part.title.upper()
    for one in part.statements:
        numbers = in_numbers(one.entries, said)
        yield f"  {one.text}  [{said(MARKS[one.mark])}{f': {numbers}' if numbers else ''}]"


_LANGUAGE = click.option("--language", type=click.Choice(languages()), default="en", show_default=True,
                         help="Of the text.")  # fmt: skip


async def _journal_event(context: Context, id: str, event: Event) -> str:
    """Journal an event under the id that the journal has for ``id``, and keep what belongs to it. Returns that id. Raises NotFine if
    there is none, or several."""
    async with context.store() as store:
        ids = await store.journal.matching_ids(id)
        if len(ids) != 1:
            raise NotFine(f"several have the name {id}: {', '.join(ids)}" if ids else f"nothing has the name {id}")
        await store.journal.record([replace(event, id=ids[0])])
        await store.preserve(ids[0], by=context.user, reason="an incident")
    return ids[0]


@command.command(json="One JSON object.")
@click.argument("id", metavar="ID")
@click.argument("time", metavar="TIME")
async def aware(context: Context, id: str, time: str) -> None:
    """Say since when the organization is aware of it: the 72 hours of GDPR Art. 33(1) run from then.

    TIME: "2026-11-26 09:30" in UTC, or "2h" ago. It is journalled, with who says so; the last word counts. From then on everything of the
    incident is kept for 180 days (incident hold).
    """
    now = datetime.now(UTC)
    since = moment("TIME", time, now)
    try:
        event = breach.aware_event(id, since, by=context.user, at=now)
    except ValueError as error:
        raise CannotRun(f"TIME: {error}") from None
    called = await _journal_event(context, id, event)
    due = since + HOURS
    text = f"{called}: aware since {since:%Y-%m-%d %H:%M} UTC; the 72 hours end at {due:%Y-%m-%d %H:%M} UTC"
    context.answer({"id": called, "since": since, "due": due}, text)


@command.command(json="One JSON object.")
@click.argument("id", metavar="ID")
@click.argument("field", type=click.Choice([each.value for each in Field]))
@click.option("--text", default=None, metavar="TEXT", help="What it says; else it is read from standard input.")
async def write(context: Context, id: str, field: str, text: str | None) -> None:
    """Write a field of the notification to the authority, which only people can fill.

    It is journalled, with who wrote it and when; the last word of a field counts.
    """
    now = datetime.now(UTC)
    given = sys.stdin.read() if text is None else text
    try:
        event = breach.text_event(id, Field(field), given, by=context.user, at=now)
    except ValueError as error:
        raise CannotRun(str(error)) from None
    called = await _journal_event(context, id, event)
    context.answer({"id": called, "field": field, "at": now}, f"{called}: {field} is written")


@command.command(json="One JSON object.")
@click.argument("id", metavar="ID")
@click.option("--no-names", is_flag=True, help="Without addresses, subjects and who wrote what.")
@_LANGUAGE
async def authority(context: Context, id: str, no_names: bool, language: str) -> None:
    """Say what GDPR Art. 33(3) asks for, field by field, for the authority's form.

    Filled where the journal has facts, with what people wrote, and with how much of the 72 hours is left. Exit 1 while a field is empty.
    """
    now, said = datetime.now(UTC), Speech(language)
    made = await making(context, IncidentQuery(ids=frozenset([id])), now, said, names=not no_names)
    form = filled_form(made, report_in_words(made, said, context.user), said)
    context.answer(form_row(form, made), form_lines(form, said.local(made.purposes.zone), made.names))
    if any(row.empty for row in form.rows):
        raise click.exceptions.Exit(1)


@command.command(json="One JSON object.")
@click.argument("id", metavar="ID")
@click.option("--to", "audience", type=click.Choice(list(DRAFT_TITLES)), required=True, help="To whom.")
@_LANGUAGE
async def draft(context: Context, id: str, audience: str, language: str) -> None:
    """Draft what to tell customers or staff, from facts alone.

    It states only what the report marks as a fact. Text in brackets is for people to fill in.
    """
    now, said = datetime.now(UTC), Speech(language)
    made = await making(context, IncidentQuery(ids=frozenset([id])), now, said, names=False)
    text = drafted(audience, made, report_in_words(made, said), said)
    context.answer({"audience": audience, "language": language, "text": text}, text)


@command.command(json="One JSON object an alarm.")
@click.argument("alarm", metavar="[ALARM]", required=False)
async def ack(context: Context, alarm: str | None) -> None:
    """Take an alarm, so that it is sent again a day later only, and a warning a week later. Without ALARM: say which stand, and who has them.

    ALARM is what its mail says, or a beginning of it that no other has. It is journalled.
    """
    from smtpguard.app.alarmchannels import active_alarms, take_alarm

    settings = context.settings()
    async with context.store(reads=alarm is None) as store:
        found = await active_alarms(settings, store)
        if alarm is not None:
            alarm = " ".join(alarm.split())  # its mail may have broken the line
            exact = [each for each in found if each.key == alarm]
            meant = exact or [each for each in found if each.key.startswith(alarm)]
            if len(meant) != 1:
                names = ", ".join(each.key for each in meant or found) or "none"
                raise NotFine(f"{'several alarms are' if meant else 'no alarm is'} called {alarm}; there are: {names}")
            if not await take_alarm(settings, store, meant[0].key, by=context.user, at=datetime.now(UTC)):
                raise NotFine(f"{meant[0].key} could not be taken: try again")
            found = [each for each in await active_alarms(settings, store) if each.key == meant[0].key]
    for one in found:
        row = {
            "alarm": one.key,
            "title": str(one.title),
            "since": one.began,
            "taken_by": one.taken_by or None,
            "taken_at": one.taken_at if one.taken_by else None,
        }
        who = f"taken by {one.taken_by}" if one.taken_by else "nobody has taken it"
        context.answer(row, f"{one.key}: {one.title}, since {one.began:%Y-%m-%d %H:%M} UTC; {who}")
    if not found and alarm is None and not context.json:
        click.echo("No alarm stands.")


async def making(
    context: Context, asked: IncidentQuery, now: datetime, said: Speech, *, names: bool, prove: bool = False
) -> Made:
    """Make a report, and journal it if it has names. Raises CannotRun and NotFine."""
    from smtpguard.app.lists import on_list

    settings = context.settings()
    async with context.opened(reads=True) as (store, digester):
        if names:
            may_name(store)
        with progress("Verifying the journal") as moved:
            try:
                return await make(
                    asked,
                    partial(store.journal.incident, prove=prove, progress=moved, asked=on_list(settings, digester)),
                    store,
                    at=now,
                    names=names,
                    by=(context.user,),
                    language=said.language,
                    delimiters=settings.delimiters,
                    keeps=timedelta(seconds=settings.retention.content),
                )
            except TooMany as error:
                raise CannotRun(str(error)) from None
            except NothingFits as error:
                raise NotFine(str(error)) from None
