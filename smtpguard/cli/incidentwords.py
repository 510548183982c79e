"""smtpguard incident aware, write, authority, draft and ack: what people say of an incident, and what is told to whom."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from smtpguard.cli.context import CannotRun, Context, NotFine, as_json, moment
from smtpguard.cli.incidentreport import making
from smtpguard.console.ports import ActiveAlarm
from smtpguard.incidents import breach
from smtpguard.incidents.breach import HOURS, Field
from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal.event import Event
from smtpguard.locale.catalogue import languages

AUDIENCES = ("customers", "staff")
_LANGUAGE = click.option(
    "--language", type=click.Choice(languages()), default="en", show_default=True, help="Of the text."
)


async def _written(context: Context, id: str, event: Event) -> str:
    """Under what the journal calls it; which that is."""
    from dataclasses import replace

    from smtpguard.app.services import opened

    async with opened(context.settings()) as (store, _):
        ids = await store.journal.called(id)
        if len(ids) != 1:
            raise NotFine(f"several have the name {id}: {', '.join(ids)}" if ids else f"nothing has the name {id}")
        await store.journal.record([replace(event, id=ids[0])])
        await store.preserve(ids[0], by=context.user, reason="an incident")
    return ids[0]


@click.command()
@click.argument("id", metavar="ID")
@click.argument("time", metavar="TIME")
@as_json("One JSON object.")
@click.pass_obj
def aware(context: Context, id: str, time: str) -> None:
    """Say since when the organization is aware of it: the 72 hours of GDPR Art. 33(1) run from then.

    TIME: "2026-11-26 09:30" in UTC, or "2h" ago. It is journalled, with who says so; the last word counts. From then on everything of the
    incident is kept for 180 days (incident hold).
    """
    now = datetime.now(UTC)
    since = moment("TIME", time, now)
    try:
        event = breach.aware(id, since, by=context.user, at=now)
    except ValueError as error:
        raise CannotRun(f"TIME: {error}") from None
    called = context.run(_written(context, id, event))
    due = since + HOURS
    if context.json:
        context.say({"id": called, "since": since, "due": due})
        return
    click.echo(f"{called}: aware since {since:%Y-%m-%d %H:%M} UTC; the 72 hours end at {due:%Y-%m-%d %H:%M} UTC")


@click.command()
@click.argument("id", metavar="ID")
@click.argument("field", type=click.Choice([each.value for each in Field]))
@click.option("--text", default=None, metavar="TEXT", help="What it says; else it is read from standard input.")
@as_json("One JSON object.")
@click.pass_obj
def write(context: Context, id: str, field: str, text: str | None) -> None:
    """Write a field of the notification to the authority, which only people can fill.

    It is journalled, with who wrote it and when; the last word of a field counts.
    """
    now = datetime.now(UTC)
    given = sys.stdin.read() if text is None else text
    try:
        event = breach.wrote(id, Field(field), given, by=context.user, at=now)
    except ValueError as error:
        raise CannotRun(str(error)) from None
    called = context.run(_written(context, id, event))
    if context.json:
        context.say({"id": called, "field": field, "at": now})
        return
    click.echo(f"{called}: {field} is written")


@click.command()
@click.argument("id", metavar="ID")
@click.option("--no-names", is_flag=True, help="Without addresses, subjects and who wrote what.")
@_LANGUAGE
@as_json("One JSON object.")
@click.pass_obj
def authority(context: Context, id: str, no_names: bool, language: str) -> None:
    """Say what GDPR Art. 33(3) asks for, field by field, for the authority's form.

    Filled where the journal has facts, with what people wrote, and with how much of the 72 hours is left. Exit 1 while a field is empty.
    """
    from smtpguard.console.breachform import as_row, filled, lines
    from smtpguard.console.incident import report_in_words
    from smtpguard.locale.speech import Speech

    now = datetime.now(UTC)
    made = context.run(
        making(context, IncidentQuery(ids=frozenset([id])), now, names=not no_names, prove=False, language=language)
    )
    said = Speech(language)
    form = filled(made, report_in_words(made, said, context.user), said)
    if context.json:
        context.say(as_row(form, made))
    else:
        for line in lines(form, said, made.names):
            click.echo(line)
    if any(row.empty for row in form.rows):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("id", metavar="ID")
@click.option("--to", "audience", type=click.Choice(AUDIENCES), required=True, help="To whom.")
@_LANGUAGE
@as_json("One JSON object.")
@click.pass_obj
def draft(context: Context, id: str, audience: str, language: str) -> None:
    """Draft what to tell customers or staff, from facts alone.

    It states only what the report marks as a fact. Text in brackets is for people to fill in.
    """
    from smtpguard.console.drafts import draft as drafted
    from smtpguard.console.incident import report_in_words
    from smtpguard.locale.speech import Speech

    now = datetime.now(UTC)
    made = context.run(
        making(context, IncidentQuery(ids=frozenset([id])), now, names=False, prove=False, language=language)
    )
    said = Speech(language)
    text = drafted(audience, made, report_in_words(made, said), said).text
    if context.json:
        context.say({"audience": audience, "language": language, "text": text})
    else:
        click.echo(text)


@click.command()
@click.argument("alarm", metavar="[ALARM]", required=False)
@as_json("One JSON object an alarm.")
@click.pass_obj
def ack(context: Context, alarm: str | None) -> None:
    """Take an alarm, so that it is not sent again every quarter of an hour. Without ALARM: say which stand, and who has them.

    ALARM is what its mail says, or a beginning of it that no other has. It is journalled. What lasts is sent again a day later.
    """

    async def work() -> Sequence[ActiveAlarm]:
        from smtpguard.app.activealarms import active, take
        from smtpguard.app.services import opened

        settings = context.settings()
        async with opened(settings, reads=alarm is None) as (store, _):
            stand = await active(settings, store)
            if alarm is None:
                return stand
            exact = [each for each in stand if each.key == alarm]
            meant = exact or [each for each in stand if each.key.startswith(alarm)]
            if len(meant) != 1:
                names = ", ".join(each.key for each in meant or stand) or "none"
                raise NotFine(f"{'several alarms are' if meant else 'no alarm is'} called {alarm}; there are: {names}")
            if not await take(settings, store, meant[0].key, by=context.user, at=datetime.now(UTC)):
                raise NotFine(f"{meant[0].key} could not be taken: try again")
            return [each for each in await active(settings, store) if each.key == meant[0].key]

    found = context.run(work())
    for one in found:
        if context.json:
            taken = one.taken_at if one.taken_by else None
            context.say(
                {
                    "alarm": one.key,
                    "title": str(one.title),
                    "since": one.since,
                    "taken_by": one.taken_by or None,
                    "taken_at": taken,
                }
            )
            continue
        who = f"taken by {one.taken_by}" if one.taken_by else "nobody has taken it"
        click.echo(f"{one.key}: {one.title}, since {one.since:%Y-%m-%d %H:%M} UTC; {who}")
    if not found and alarm is None and not context.json:
        click.echo("No alarm stands.")
