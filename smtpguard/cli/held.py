"""smtpguard held: show what waits and why, and take people's decisions on it.

A vote given here is on the hold as it is at that moment. The journal has the system user beside the address that the
vote is given for. Several messages are selected by filters and read first, and each decision is bound to what was read:
a hold that came or changed since is not decided on. The person confirms how many they are.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import (
    AtLeast,
    CannotRun,
    Context,
    Group,
    NotFine,
    as_address,
    as_line,
    in_columns,
    mailbox,
    moment,
    options,
    terminal,
    write_new,
)
from smtpguard.cli.holdrow import (
    Known,
    all_at_once,
    detail_fields,
    goes_out,
    leaves,
    of_mailing,
    plain,
    print_hold,
    quorum_row,
    reach,
    recipients_in_numbers,
    row,
    taken_back,
    vote_in_words,
)
from smtpguard.cli.mailings import state as mailing_state
from smtpguard.config.problem import unknown
from smtpguard.holds import coverage
from smtpguard.holds.coverage import BEGINNING, Coverage
from smtpguard.holds.effects import MOST_LETTERS, Seen, at_once
from smtpguard.holds.model import Choice, Hold, Refused, State, missing
from smtpguard.holds.service import Decided
from smtpguard.journal.event import Kind
from smtpguard.locale.phrase import many
from smtpguard.mailings import copies
from smtpguard.mailings.model import Mailing, NoSuch
from smtpguard.policy.freezing import Freeze
from smtpguard.policy.verdict import Mode

if TYPE_CHECKING:
    from smtpguard.app.services import Services
    from smtpguard.journal.chain import Clear, Entry

_Given = Mapping[str, str | None]
"""The values of ``filters``, by option; None for no condition."""


filters = options(
    click.option("--list", "list_name", metavar="NAME", help="To this list."),
    click.option("--sender", metavar="ADDRESS", help="From this address."),
    click.option("--mailing", metavar="ID", help="Of this mailing, by its id or a beginning of it."),
    click.option("--rule", metavar="RULE", help="Held by this rule."),
    click.option("--since", metavar="TIME", help='Held since then: "2h", or 2026-03-02T09:00 (UTC).'),
)
"""The options that select messages: all that are given must match."""


ASKED = "it is in doubt whether it was sent, and it is not retried automatically. Say which:"
STATES = [state.value for state in State]

an_id = click.argument("hold_id", metavar="ID")
ids = click.argument("hold_ids", metavar="ID...", nargs=-1)
a_count = click.option("--count", type=AtLeast(0), default=None, metavar="N",
                       help="How many messages you mean, for a filter or several IDs; required without a terminal.")  # fmt: skip
a_comment = click.option("--comment", default="", metavar="TEXT", help="A comment; the writer is told.")


command = Group(help="Held mail: list, show, approve, reject, unvote, confirm, withdraw, settle, export.")


@command.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated.")
@filters
@click.option("--limit", type=AtLeast(1), default=1000, show_default=True, help="At most so many, newest first.")
async def list_(context: Context, /, states: Sequence[str], limit: int, **given: str | None) -> None:
    """List held messages, newest first; before them those in doubt, for which somebody must say whether they were sent."""
    async with context.services() as services:
        fits, narrow = matcher(services, **given)
        asked = not states or State.IN_DOUBT.value in states
        holds = [hold for hold in await services.store.holds.asked_about() if fits(hold)][:limit] if asked else []
        async for hold in services.store.holds.every([State(s) for s in states], **narrow):
            if len(holds) == limit:
                break
            if fits(hold) and not (asked and hold.asked_at is not None):
                holds.append(hold)
        frozen, still = await services.freezes.holding_up(*holds), await _stands_still(services)
        standing, pausing = await services.store.mailings.standing(), await copies.paused(services.store, holds)
    if context.json:
        for hold in holds:
            context.print_json(row(hold, frozen.get(hold.hold_id, ())))
        return
    if not holds:
        nothing = "Nothing is in that state." if states else "Nothing is held."
        click.echo("Nothing of that is held." if any(given.values()) else nothing)
    else:
        _table(holds, frozen, pausing)
    for why in still:
        click.echo(why)
    for one in standing:
        why = f" ({one.progress.why})" if one.progress is not None and one.progress.why else ""
        click.echo(
            f"Approved, and its stages wait for a person{why}: smtpguard mailings go-on {one.mailing_id} --as ADDRESS"
        )
    if frozen:
        click.echo("Approved messages that are frozen are sent when they are thawed.")
    for hold in holds:
        if hold.asked_at is not None:
            click.echo(f"{hold.hold_id}: {ASKED} smtpguard held settle {hold.hold_id} --sent or --again --as ADDRESS")


def _table(holds: Sequence[Hold], frozen: Mapping[str, object], pausing: Mapping[str, Mailing]) -> None:
    table = [("ID", "STATE", "HELD", "REACHES", "FROM", "SUBJECT")]
    for hold in holds:
        sender = hold.sender or str(hold.envelope.reverse_path or "<>")
        held_at = hold.held_at.strftime("%Y-%m-%d %H:%M")
        stopped = ", stopped before all had received it" if hold.stopped else ""
        kept, leaving = hold.hold_id in frozen, ""
        if hold.release_at is not None:
            leaving = ", approved" if kept else f", to be released at {hold.release_at:%H:%M:%S} UTC"
        asked = ", its writer is asked" if hold.asks_writer else ""
        mailing = pausing.get(hold.hold_id)
        waits = f", its mailing is {mailing_state(mailing)}" if mailing is not None else ""
        state = hold.state.value + asked + leaving + stopped + waits + (", frozen" if kept else "")
        table.append((hold.hold_id, state, held_at, reach(hold), sender, plain(hold.subject)[:60]))
    for line in in_columns(table):
        click.echo(line)


@command.command()
@an_id
@click.option("--content", is_flag=True, help="Show the message itself, as it came. This is journalled.")
async def show(context: Context, hold_id: str, content: bool) -> None:
    """Show one hold: why it is held, who decides, until when, and what has happened."""
    async with context.services() as services:
        hold = await _hold(services, hold_id)
        if content:
            raw = await _content(context, services, hold, viewed=True)
            click.echo(raw, nl=False)
            return
        known, letters = await _known(services, hold), await _letters(context, services, hold)
        if context.json:
            context.print_json(_full_row(known) | {"letters": letters})
        else:
            print_hold(known, services.policies.current().rules.purposes(), letters)


@command.command()
@ids
@filters
@a_count
@as_address
@a_comment
@click.option("--people", type=AtLeast(1), default=None, metavar="N",
              help="How many people its mailing may reach in all. Default: as many as the list has, or as were seen.")  # fmt: skip
@all_at_once
async def approve(
    context: Context,
    /,
    hold_ids: Sequence[str],
    count: int | None,
    address: str,
    comment: str,
    people: int | None,
    all_at_once: int | None,
    **given: str | None,
) -> None:
    """Approve a held message; it is sent when the quorum is complete. For a mailing: all copies, further ones included.

    You can give several IDs, or filters for all waiting messages that match; say with --count how many they are.
    """
    await _decide(
        context, hold_ids, given, count, Choice.APPROVE,
        approver=address, comment=comment, people=people or 0, all_at_once=all_at_once,
    )  # fmt: skip


@command.command()
@ids
@filters
@a_count
@as_address
@a_comment
async def reject(
    context: Context, /, hold_ids: Sequence[str], count: int | None, address: str, comment: str, **given: str | None
) -> None:
    """Reject a held message. One rejection is enough. An approved message that has not been sent is taken back.

    You can give several IDs, or filters for all waiting messages that match; say with --count how many they are.
    """
    await _decide(context, hold_ids, given, count, Choice.REJECT, approver=address, comment=comment)


@command.command()
@an_id
@as_address
@a_comment
async def unvote(context: Context, hold_id: str, address: str, comment: str) -> None:
    """Take back your approval of a message that still waits for others; or undo an approval before the release, if you are an approver
    or wrote the message."""
    async with context.services() as services:
        done = await services.approvals.unvote(hold_id, approver=address, by=context.user, comment=comment)
        _print_decision(context, done, vote="taken back")


@command.command()
@an_id
@click.option("--people", type=AtLeast(0), required=True, metavar="N",
              help="The number of people that the message reaches.")  # fmt: skip
@as_address
async def confirm(context: Context, hold_id: str, people: int, address: str) -> None:
    """Confirm your own message, if its writer is asked. It is then sent, with all copies of it."""
    async with context.services() as services:
        done = await services.approvals.confirm(hold_id, writer=address, by=context.user, people=people)
        _print_decision(context, done)


@command.command()
@an_id
@as_address
@a_comment
async def withdraw(context: Context, hold_id: str, address: str, comment: str) -> None:
    """Withdraw your own message, even if it is approved, as far as it has not been sent."""
    async with context.services() as services:
        done = await services.approvals.withdraw(hold_id, sender=address, by=context.user, comment=comment)
        _print_decision(context, done)


@command.command()
@an_id
@click.option("--sent", "said", flag_value="sent", help="The relay has it: it was sent.")
@click.option("--again", "said", flag_value="again",
              help="Send it again, with the same release id; people who have it get it twice.")  # fmt: skip
@as_address
@a_comment
async def settle(context: Context, hold_id: str, said: str | None, address: str, comment: str) -> None:
    """Say whether a post to a list in doubt was sent; it is not retried automatically. Only an approver can say it."""
    if said is None:
        raise click.UsageError("give --sent or --again")

    async with context.services() as services:
        hold = await services.approvals.answer_doubt(
            hold_id, sent=said == "sent", approver=address, by=context.user, comment=comment
        )
        text = f"{hold.hold_id}: {hold.state.value}" + ("" if said == "sent" else ", it is sent again")
        context.answer(row(hold, await _frozen(services, hold)), text)


@command.command()
@an_id
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.eml",
              help="Write the message to FILE, and all that is known of it to FILE.json. Existing files are not overwritten.")  # fmt: skip
async def export(context: Context, hold_id: str, output: Path | None) -> None:
    """Export a message, byte for byte as it came, and all that is known of it. The export is journalled.

    Without -o only the message is written to standard output; with --json everything is, the message as base64.
    """
    async with context.services() as services:
        hold = await _hold(services, hold_id)
        files = () if output is None else (output, output.with_suffix(".json"))
        for file in files:
            if file.exists() or not file.parent.is_dir():
                raise CannotRun(f"{file}: " + ("is there already" if file.exists() else "there is no such folder"))
        if len(set(files)) < len(files):
            raise CannotRun(f"{output}: the message itself is not JSON; name it FILE.eml")
        content = await _content(context, services, hold, viewed=False)
        known = _full_row(await _known(services, hold))
        if output is not None:
            written = dict(zip(files, (content, f"{as_line(known)}\n".encode()), strict=True))
            write_new(written)
            for file, octets in written.items():
                click.echo(f"{file}: {len(octets):,} octets", err=True)
        elif context.json:
            context.print_json(known | {"content": base64.b64encode(content).decode("ascii")})
        else:
            click.echo(content, nl=False)


async def _decide(
    context: Context, hold_ids: Sequence[str], given: _Given, count: int | None, choice: Choice, **vote: Any
) -> None:
    """Decide on one message, or on several whose number the person has confirmed. ``vote``: more arguments of the service's ``vote``.
    Exits 1 if any of them was not decided on."""
    if bool(hold_ids) == any(value is not None for value in given.values()):
        raise click.UsageError("give ids, or one of --list, --sender, --mailing, --rule and --since")
    if len(hold_ids) == 1 and count in (None, 1):
        async with context.services() as services:
            only = await services.store.holds.find(hold_ids[0])
            covers = await _covered(services, only) if only is not None and choice is Choice.APPROVE else None
            _print_decision(
                context, await services.approvals.vote(hold_ids[0], choice, by=context.user, **vote), covers
            )
        return
    if vote.get("all_at_once") is not None:
        raise click.UsageError("--all-at-once is for one message")
    async with context.services() as services:
        found, lacking = await select_holds(services, hold_ids, given)
        if not found and not lacking:
            raise NotFine("no waiting message matches")
        if found:
            confirm_number(found, choice, count)
        failed = [{"id": id, "problem": f"there is no hold {id}"} for id in lacking]
        for hold in found:
            try:
                done = await services.approvals.vote(hold.hold_id, choice, by=context.user, seen=Seen.of(hold), **vote)
                _print_decision(context, done)
            except (Refused, KeyError) as refused:
                why = str(refused) if isinstance(refused, Refused) else "it is not kept any more"
                failed.append({"id": hold.hold_id, "problem": why})
    for each in failed:
        context.answer(each, f"{each['id']}: {each['problem']}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


async def _stands_still(services: Services) -> list[str]:
    """Return lines on active freezes, and on a store that seems rolled back and is not frozen for it yet."""
    found = services.store.put_back
    told = [] if found is None else [f"Nothing is sent until this is thawed: {found}."]
    return told + [f"Frozen: {freeze.in_words()}." for freeze in await services.freezes.active()]


async def _hold(services: Services, hold_id: str) -> Hold:
    hold = await services.store.holds.find(hold_id)
    if hold is None:
        raise NoSuch(f"there is no hold {hold_id}")
    return hold


async def _known(services: Services, hold: Hold) -> Known:
    in_force, waiting = services.policies.current(), hold.state is State.WAITING
    return Known(
        hold=hold,
        freezes=await _frozen(services, hold),
        left=missing(hold, in_force.groups, in_force.hours.open_at) if waiting else (),
        whole=at_once(hold, in_force) if waiting else None,
        outgoing=await services.store.holds.outgoing(hold.hold_id),
        covers=await _covered(services, hold) if waiting else None,
        history=[
            ({"at": entry.time, "what": entry.kind, "data": dict(entry.data)}, _who(entry, clear))
            for entry, clear in await services.store.journal.history(hold.hold_id)
        ],
    )


def _who(entry: Entry, clear: Clear | None) -> str:
    if entry.kind == Kind.NOTICE.value:
        return f"to {', '.join(to)}" if (to := (clear or {}).get("recipients")) else ""
    return f"by {by[0]}" if (by := (clear or {}).get("actor")) else ""


def _full_row(known: Known) -> dict[str, Any]:
    """Return all that is known of a hold, as a JSON object."""
    return row(known.hold, known.freezes) | detail_fields(known) | {"history": [event for event, _ in known.history]}


async def _covered(services: Services, hold: Hold) -> Coverage:
    lead = await _hold(services, hold.primary) if hold.primary else hold
    return coverage.of_hold(lead, await services.approvals.learned(lead.hold_id))


async def _letters(context: Context, services: Services, hold: Hold) -> list[dict[str, Any]]:
    """Return the letters of its sender that wait and are decided on with it, each with the beginning of its text. Showing them is
    journalled."""
    if not hold.queue or hold.state is not State.WAITING:
        return []
    found = await services.store.holds.queued(hold.hold_id, MOST_LETTERS)
    if found:
        await context.journal_export(services.store, hold.hold_id, viewed=True, content=hold.content_sha256)
    first: dict[str, str] = {}
    rows = []
    for one, shown in found:
        same = first.setdefault(shown.text, one.hold_id) if shown is not None else one.hold_id
        rows.append({
            "id": one.hold_id,
            "recipients": [str(address) for address in one.envelope.addresses],
            "subject": one.subject,
            "begins": shown.beginning(BEGINNING) if shown is not None else None,
            "same_as": same if same != one.hold_id else None,
        })  # fmt: skip
    return rows


async def _frozen(services: Services, hold: Hold) -> tuple[Freeze, ...]:
    return (await services.freezes.holding_up(hold)).get(hold.hold_id, ())


async def _content(context: Context, services: Services, hold: Hold, *, viewed: bool) -> bytes:
    """Return the content, after the view was journalled."""
    from smtpguard.database.errors import ContentMissing

    try:
        message = await services.store.contents.load(hold.content_sha256)
    except ContentMissing:
        raise NotFine(f"the content of {hold.hold_id} is not kept any more") from None
    await context.journal_export(services.store, hold.hold_id, viewed=viewed, content=hold.content_sha256)
    return bytes(message.raw[:])


def _print_decision(context: Context, done: Decided, covers: Coverage | None = None, *, vote: str = "counted") -> None:
    hold = done.hold
    if context.json:
        context.print_json(
            row(hold, done.frozen) | {"missing": [quorum_row(q) for q in done.missing]} | of_mailing(done.outgoing)
        )
    elif done.missing:
        click.echo(f"{hold.hold_id}: {vote_in_words(done, vote)}")
    else:
        click.echo(f"{hold.hold_id}: {leaves(hold, done.frozen) or (_decision(hold))}{_how(done)}")
        for sentence in coverage.sentences(covers) if covers is not None else ():
            click.echo(f"  {plain(sentence)}")


def _decision(hold: Hold) -> str:
    return "confirmed" if hold.state is State.APPROVED and hold.confirmed else hold.state.value


def _how(done: Decided) -> str:
    """Return what to say beside the state: that it does not go yet, or how much of it had gone."""
    if done.frozen:
        return f"; {goes_out(done.hold, done.frozen)}"
    if done.hold.stopped and done.hold.settled is not None:
        several = done.outgoing.back + done.outgoing.gone + done.outgoing.doubt > 1
        return f", stopped: {recipients_in_numbers(done.hold.settled)}{taken_back(done.outgoing) if several else ''}"
    return taken_back(done.outgoing)


def matcher(
    services: Services,
    *,
    list_name: str | None = None,
    sender: str | None = None,
    mailing: str | None = None,
    rule: str | None = None,
    since: str | None = None,
) -> tuple[Callable[[Hold], bool], Mapping[str, Any]]:
    """Return what says whether a hold matches all filters, and the conditions by which the store leaves out most others. Raises
    CannotRun for values that can match nothing."""
    if list_name is not None:
        lists = services.policies.current().registry.lists
        if list_name not in lists:
            raise CannotRun(unknown("list", list_name, lists))
    who = None if sender is None else mailbox("--sender", sender).canonical(services.digester.delimiters)
    after = None if since is None else moment("--since", since, services.clock.now())
    begins = mailing.strip().upper() if mailing is not None else ""

    def fits(hold: Hold) -> bool:
        return (
            (list_name is None or list_name in hold.lists)
            and (who is None or who in hold.senders)
            and hold.mailing_id.upper().startswith(begins)
            and (rule is None or rule in {hit.rule for hit in hold.verdict.hits if hit.mode is Mode.ENFORCE})
            and (after is None or hold.held_at >= after)
        )

    asks = {"list": list_name, "from": who, "rule": rule}
    marks = [f"{kind}:{name}" for kind, name in asks.items() if name is not None]
    return fits, {"since": after, "mailing": begins, "marks": marks}


async def select_holds(services: Services, ids: Sequence[str], given: _Given) -> tuple[list[Hold], list[str]]:
    """Return the holds with these ids, or without ids all waiting ones that match, each once; and the ids without a hold. A copy
    counts as its primary hold."""
    if not ids:
        fits, narrow = matcher(services, **given)
        waiting = services.store.holds.every([State.WAITING], **narrow)
        return [hold async for hold in waiting if not hold.primary and fits(hold)], []
    found: dict[str, Hold] = {}
    missing = []
    for id in dict.fromkeys(ids):
        hold = await services.store.holds.find(id)
        if hold is not None and hold.primary:
            hold = await services.store.holds.find(hold.primary)
        if hold is None:
            missing.append(id)
        else:
            found[hold.hold_id] = hold
    return list(found.values()), missing


def confirm_number(holds: Sequence[Hold], choice: Choice, count: int | None) -> None:
    """Have the person confirm the number of messages. Raises CannotRun if not: then nothing is decided."""
    n = len(holds)
    does = {Choice.APPROVE: "approves", Choice.REJECT: "rejects"}[choice]
    at_least = "at least " if any(hold.reach_at_least for hold in holds) else ""
    people = many(sum(hold.reach for hold in holds), "person", "people")
    says = f"This {does} {many(n, 'held message')} for {at_least}{people}."
    if count is not None:
        if count != n:
            raise CannotRun(f"--count {count}: there are now {n}; nothing was decided")
        return
    if not terminal():
        raise CannotRun(f"{says} To agree: --count {n}; nothing was decided")
    for hold in holds[:20]:
        sender = hold.sender or str(hold.envelope.reverse_path or "<>")
        click.echo(f"  {hold.hold_id}  {reach(hold)}  {sender}  {plain(hold.subject)[:60]}", err=True)
    if n > 20:
        click.echo(f"  and {n - 20:,} more", err=True)
    typed = str(click.prompt(f"{says} Type {n}", err=True, default="", show_default=False))
    if typed.strip().replace(",", "") != str(n):
        raise CannotRun("the number is not the same; nothing was decided")
