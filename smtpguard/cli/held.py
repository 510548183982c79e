"""smtpguard held: what waits, why, and what people make of it.

A vote given here is on the hold as it stands; who the system says is asking is journalled beside the address that is voted
as. Never here: who may decide (policy.approval), or what a decision does (guard.approvals).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import Context, NotFine
from smtpguard.guard.approvals import Decided, Refused
from smtpguard.policy.approval import Choice, Hold, State, missing
from smtpguard.policy.verdict import Mode, Quorum

if TYPE_CHECKING:
    from smtpguard.app.services import Services

PAGE = 1000
STATES = [state.value for state in State]

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
an_id = click.argument("hold_id", metavar="ID")
as_address = click.option("--as", "address", metavar="ADDRESS", required=True, help="Who you are.")
a_comment = click.option("--comment", default="", metavar="TEXT", help="Why; the writer is told.")


@click.group()
def command() -> None:
    """Held mail: list, show, approve, reject, withdraw, export."""


@command.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many, newest first.")
@as_json
@click.pass_obj
def list_(context: Context, states: Sequence[str], limit: int, as_json: bool) -> None:
    """What was held, newest first."""

    async def work() -> list[Hold]:
        async with context.services() as services:
            return await _newest(services, [State(s) for s in states], limit)

    holds = context.run(work())
    if as_json or context.json:
        for hold in holds:
            context.say(_row(hold))
        return
    if not holds:
        click.echo("Nothing is held." if not states else "Nothing is in that state.")
        return
    table = [("ID", "STATE", "HELD", "REACHES", "FROM", "SUBJECT")]
    for hold in holds:
        sender = hold.sender or str(hold.envelope.reverse_path or "<>")
        held_at = hold.held_at.strftime("%Y-%m-%d %H:%M")
        table.append((hold.hold_id, hold.state.value, held_at, f"{hold.reach:,}", sender, _plain(hold.subject)[:60]))
    widths = [max(len(row[n]) for row in table) for n in range(5)]
    for row in table:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip())


@command.command()
@an_id
@click.option("--content", is_flag=True, help="The message itself, as it came. That it was looked at is journalled.")
@as_json
@click.pass_obj
def show(context: Context, hold_id: str, content: bool, as_json: bool) -> None:
    """Everything about one hold: why, who decides, until when, and what has happened."""

    async def work(services: Services) -> None:
        hold = await _hold(services, hold_id)
        if content:
            raw = await _content(context, services, hold, viewed=True)
            click.echo(raw, nl=False)
            return
        in_force = services.policies.current()
        open_now = missing(hold, in_force.groups, in_force.open_at) if hold.state is State.WAITING else ()
        history = [
            {"at": entry.time, "what": entry.kind, "data": dict(entry.data)}
            for entry, _ in await services.store.history(hold.hold_id)
        ]
        if as_json or context.json:
            context.say(_row(hold) | _more(hold, open_now) | {"history": history})
        else:
            _tell(hold, open_now, history)

    _run(context, work, hold_id)


@command.command()
@an_id
@as_address
@a_comment
@as_json
@click.pass_obj
def approve(context: Context, hold_id: str, address: str, comment: str, as_json: bool) -> None:
    """Agree that it goes out; it does when everybody who must has agreed."""
    _vote(context, hold_id, Choice.APPROVE, address, comment, as_json)


@command.command()
@an_id
@as_address
@a_comment
@as_json
@click.pass_obj
def reject(context: Context, hold_id: str, address: str, comment: str, as_json: bool) -> None:
    """Decide that it does not go out. One rejection is enough."""
    _vote(context, hold_id, Choice.REJECT, address, comment, as_json)


@command.command()
@an_id
@as_address
@a_comment
@as_json
@click.pass_obj
def withdraw(context: Context, hold_id: str, address: str, comment: str, as_json: bool) -> None:
    """Take back a message of one's own."""

    async def work(services: Services) -> None:
        done = await services.approvals.withdraw(hold_id, sender=address, by=context.user, comment=comment)
        _said(context, done, as_json)

    _run(context, work, hold_id)


@command.command()
@an_id
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where to; standard output if not given. An existing file is not overwritten.")  # fmt: skip
@click.pass_obj
def export(context: Context, hold_id: str, output: Path | None) -> None:
    """The message itself, byte for byte as it came. That it was exported is journalled."""

    async def work(services: Services) -> None:
        hold = await _hold(services, hold_id)
        if output is None:
            click.echo(await _content(context, services, hold, viewed=False), nl=False)
            return
        with output.open("xb") as file:
            file.write(await _content(context, services, hold, viewed=False))
        click.echo(f"{output}: {hold.size_bytes:,} octets", err=True)

    _run(context, work, hold_id)


def _vote(context: Context, hold_id: str, choice: Choice, address: str, comment: str, as_json: bool) -> None:
    async def work(services: Services) -> None:
        done = await services.approvals.vote(hold_id, choice, approver=address, by=context.user, comment=comment)
        _said(context, done, as_json)

    _run(context, work, hold_id)


def _run(context: Context, work: Callable[[Services], Awaitable[None]], hold_id: str) -> None:
    """With the services; what the hold does not allow is exit 1, in one sentence."""

    async def run() -> None:
        async with context.services() as services:
            await work(services)

    try:
        context.run(run())
    except Refused as refused:
        raise NotFine(str(refused)) from None
    except KeyError:
        raise NotFine(f"nothing is held as {hold_id}") from None


async def _newest(services: Services, states: Sequence[State], limit: int) -> list[Hold]:
    holds: list[Hold] = []
    while len(holds) < limit:
        last = holds[-1] if holds else None
        page = await services.store.holds(
            states=states,
            limit=min(PAGE, limit - len(holds)),
            before=last.held_at if last else None,
            after_id=last.hold_id if last else None,
        )
        holds += page
        if len(page) < PAGE:
            break
    return holds


async def _hold(services: Services, hold_id: str) -> Hold:
    hold = await services.store.hold(hold_id)
    if hold is None:
        raise NotFine(f"nothing is held as {hold_id}")
    return hold


async def _content(context: Context, services: Services, hold: Hold, *, viewed: bool) -> bytes:
    """The content, after it was journalled that somebody gets to see it."""
    from smtpguard.audit.event import Event, Kind
    from smtpguard.policy.admission import ContentMissing

    try:
        message = await services.store.content(hold.content_sha256)
    except ContentMissing:
        raise NotFine(f"the content of {hold.hold_id} is not kept any more") from None
    await services.store.record(
        [
            Event(
                kind=Kind.VIEWED if viewed else Kind.EXPORTED,
                id=hold.hold_id,
                at=services.clock.now(),
                data={"content": hold.content_sha256},
                private={"actor": (context.user,)},
            )
        ]
    )
    return bytes(message.raw[:])


def _row(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.hold_id,
        "state": hold.state.value,
        "reverse_path": str(hold.envelope.reverse_path or ""),
        "recipients": [str(a) for a in hold.envelope.addresses],
        "reach": hold.reach,
        "lists": list(hold.lists),
        "subject": hold.subject,
        "rules": [h.rule for h in hold.verdict.hits if h.mode is Mode.ENFORCE],
        "held_at": hold.held_at,
        "expires_at": hold.expires_at,
        "mailing": hold.mailing_id or None,
        "votes": [
            {"approver": v.approver, "choice": v.choice.value, "at": v.at, "comment": v.comment} for v in hold.votes
        ],
    }


def _more(hold: Hold, left: Sequence[Quorum]) -> dict[str, Any]:
    return {
        "sender": hold.sender,
        "size_bytes": hold.size_bytes,
        "message_id": hold.message_id,
        "content_sha256": hold.content_sha256,
        "envelope_sha256": hold.envelope.sha256,
        "policy_sha256": hold.verdict.policy_sha256,
        "reasons": [
            {"rule": h.rule, "fact": r.fact, "observed": r.observed, "limit": r.limit, "detail": r.detail}
            for h in hold.verdict.hits
            for r in h.reasons
        ],
        "quorum": [_quorum(q) for q in hold.verdict.quorum],
        "missing": [_quorum(q) for q in left],
    }


def _quorum(quorum: Quorum) -> dict[str, Any]:
    return {"from": list(quorum.groups), "each": quorum.each}


def _said(context: Context, done: Decided, as_json: bool) -> None:
    hold = done.hold
    if as_json or context.json:
        context.say(_row(hold) | {"missing": [_quorum(q) for q in done.missing]})
    elif done.missing:
        left = "; ".join(f"{q.each} of each of {', '.join(q.groups)}" for q in done.missing)
        click.echo(f"{hold.hold_id}: the vote is counted. It waits still for {left}.")
    else:
        click.echo(f"{hold.hold_id}: {hold.state.value}")


def _tell(hold: Hold, left: Sequence[Quorum], history: Sequence[dict[str, Any]]) -> None:
    shown = [str(a) for a in hold.envelope.addresses[:10]]
    more = len(hold.envelope.recipients) - len(shown)
    lines = [
        ("Id", hold.hold_id),
        ("State", hold.state.value + ("" if hold.acknowledged else " (its client has not had an answer yet)")),
        ("From", f"{hold.sender or 'nobody who can be told'} (reverse-path {hold.envelope.reverse_path or '<>'})"),
        ("To", ", ".join(shown) + (f" and {more:,} more" if more else "")),
        ("Reaches", f"{hold.reach:,} people" + (f"; lists: {', '.join(hold.lists)}" if hold.lists else "")),
        ("Subject", hold.subject),
        ("Held", f"{hold.held_at:%Y-%m-%d %H:%M} UTC, until {hold.expires_at:%Y-%m-%d %H:%M} UTC"),
        ("Content", f"{hold.size_bytes:,} octets, SHA-256 {hold.content_sha256}"),
    ]
    for name, value in lines:
        click.echo(f"{name + ':':9} {_plain(value)}")
    for hit in hold.verdict.hits:
        observing = " (observes)" if hit.mode is Mode.OBSERVE else ""
        click.echo(f"Rule:     {hit.rule}{observing}: {_plain(hit.description)}")
        for reason in hit.reasons:
            click.echo(f"          {_plain(reason.detail or reason.public)}")
    for vote in hold.votes:
        comment = f": {_plain(vote.comment)}" if vote.comment else ""
        click.echo(f"Vote:     {vote.choice.value} by {vote.approver} at {vote.at:%Y-%m-%d %H:%M} UTC{comment}")
    for quorum in left:
        click.echo(f"Waits for {quorum.each} of each of {', '.join(quorum.groups)}")
    for event in history:
        click.echo(f"{event['at']:%Y-%m-%d %H:%M:%S} UTC  {event['what']}")


def _plain(text: str) -> str:
    """Without what could steer a terminal; what came in a message is not to be trusted with one."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
