"""smtpguard bypass: begin, show or end the emergency bypass of this host, for a database that is away.

It is a file in the state folder, so anyone who can write there can begin one. The command requires the names of two people
of the settings, and records who called it. All people of the settings get mail at once.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import CannotRun, Command, Context, NotFine, length

if TYPE_CHECKING:
    from smtpguard.config.settings import Settings
    from smtpguard.journal.bypass import Bypass, Bypasses

LONGEST = timedelta(hours=1)


@click.command(cls=Command, json="One JSON object.")
@click.option("--for", "for_", metavar="TIME", help='How long it is in force, like "30m"; at most 1h.')
@click.option("--reason", metavar="TEXT",
              help="The reason; it is journalled, and mailed to the people named in the settings.")  # fmt: skip
@click.option("--as", "person", metavar="ADDRESS", help="Who begins it, of the people named in the settings.")
@click.option("--agreed", metavar="ADDRESS", help="Another of them, who agrees.")
@click.option("--end", "ends", is_flag=True, help="End the one in force now.")
def command(
    context: Context, for_: str | None, reason: str | None, person: str | None, agreed: str | None, ends: bool
) -> None:
    """While the database is away, relay for a short time the mail that needs no database to be judged.

    Without options it shows the one in force. Everything else stays 451.
    """
    from smtpguard.journal.bypass import Bypasses

    settings = context.settings_as_far({"state", "bypass"})
    bypasses, now = Bypasses(settings.state), datetime.now(UTC)
    begins = for_ is not None or reason is not None or person is not None or agreed is not None
    if ends and begins:
        raise click.UsageError("--end stands alone")
    if ends:
        found = bypasses.end(now, context.user)
        if found is None:
            raise NotFine("no bypass is in force on this host")
        sentence = f"Ended: bypass {found.id}. Nothing more is relayed under it."
    elif begins:
        found = _begin(context, settings, bypasses, now, for_, reason, person, agreed)
        sentence = (
            f"Bypass {found.id} is in force until {found.ends:%Y-%m-%d %H:%M} UTC. All people of bypass: {{people}} get mail now, "
            "and every five minutes. To end it: smtpguard bypass --end"
        )
    else:
        found = bypasses.in_force(now)
        sentence = "No bypass is in force on this host."
        if found is not None:
            sentence = f"Bypass {found.id}, until {found.ends:%Y-%m-%d %H:%M} UTC, by {' and '.join(found.people)}: {found.reason}"
    context.answer(row(found) or {"id": None}, sentence)


def _begin(
    context: Context, settings: Settings, bypasses: Bypasses, now: datetime, for_: str | None, reason: str | None,
    person: str | None, agreed: str | None,
) -> Bypass:  # fmt: skip
    from smtpguard.app.clock import ids
    from smtpguard.config.problem import one_of
    from smtpguard.journal.bypass import Bypass

    people = settings.bypass.people
    if not people:
        raise CannotRun(f"{context.config}: bypass: {{people}} names nobody, so there is no bypass")
    if not for_ or not person or not agreed or not (reason or "").strip():
        raise click.UsageError("give --for, --reason, --as and --agreed")
    by_address = {each.lower(): each for each in people}
    for option, given in (("--as", person), ("--agreed", agreed)):
        if given.lower() not in by_address:
            raise CannotRun(f"{option}: the settings do not name {given}; expected {one_of(people)}")
    if person.lower() == agreed.lower():
        raise CannotRun("--agreed: another person must agree")
    lasts = length("--for", for_)
    if not timedelta() < lasts <= LONGEST:
        raise CannotRun("--for: expected at most 1h")
    if (known := bypasses.in_force(now)) is not None:
        raise NotFine(f"a bypass is in force until {known.ends:%Y-%m-%d %H:%M} UTC: end it first")
    made = Bypass(
        id=ids()(), people=(by_address[person.lower()], by_address[agreed.lower()]), user=context.user,
        host=socket.gethostname(), reason=(reason or "").strip(), begins=now, ends=now + lasts,
    )  # fmt: skip
    bypasses.begin(made)
    return made


def row(found: Bypass | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "id": found.id,
        "people": found.people,
        "user": found.user,
        "reason": found.reason,
        "begins": found.begins,
        "ends": found.ends,
        "ended": found.ended,
    }
