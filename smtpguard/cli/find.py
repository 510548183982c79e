"""What is kept: smtpguard find finds messages in the journal by a queue id, a Message-ID, an address or words of a
subject; smtpguard privacy shows everything that is kept about a person, or erases what nothing needs any more.

The results name people, so the search itself is journalled; a person's address is not, only its keyed digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import Command, Context, Group, NotFine, mailbox, may_name, progress
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Message, Outcome
from smtpguard.journal.searchindex import queue_ids
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address

if TYPE_CHECKING:
    from smtpguard.lists.digest import Digester
    from smtpguard.store.privacy import PersonalData
    from smtpguard.store.store import Store

MOST = 50


@click.command(cls=Command, json="One JSON object a message.")
@click.argument("words", metavar="TEXT...", nargs=-1, required=True)
@click.option("--most", type=click.IntRange(1, 10_000), default=MOST, show_default=True,
              help="At most so many, newest first.")  # fmt: skip
async def command(context: Context, words: tuple[str, ...], most: int) -> None:
    """Find messages by a queue id (of the MTA in front, or of the relay), a Message-ID, an address, an id of smtpguard, or words of the
    subject (of messages that were held or went to customers). If you give several, a message must match all.

    Exit 1 if nothing is found. The search is journalled.
    """  # fmt: skip
    text = " ".join(words)
    if not text.strip():
        raise click.UsageError("give a queue id, a Message-ID, an address, or words of a subject")

    async with context.store(reads=True) as store:
        may_name(store)
        await store.journal.catch_up()
        ids = list(await store.journal.find(text.split(), most + 1) or await store.journal.called(text))
        shown = [row(id, await _history(store, id)) for id in ids[:most]]
        await context.journal_export(store, words=text, what="find", found=len(shown))
    rows = [one for one in shown if one is not None]
    for each in rows:
        context.answer(each, lines(each))
    if not rows:
        raise NotFine(f"nothing matches {text}")
    if len(ids) > most:
        click.echo(f"There are more: the newest {len(rows)} are shown (--most).", err=True)


async def _history(store: Store, id: str) -> Sequence[tuple[Entry, Clear | None]]:
    """Its entries, and behind them those of the hold that it is a retry of."""
    own = await store.journal.history(id)
    again = next((str(one.data["hold"]) for one, _ in own if one.data.get("retry") and one.data.get("hold")), "")
    return [*own, *(await store.journal.history(again) if again else ())]


def row(id: str, history: Sequence[tuple[Entry, Clear | None]]) -> dict[str, Any] | None:
    """The JSON object; unknown or erased values are null. None for an entry that is no message: a mailing, a freeze."""
    verdicts = [(one, clear) for one, clear in history if one.kind == Kind.VERDICT.value]
    if not verdicts:
        return None
    entry, clear = verdicts[0]
    data, names = verdicts[-1][0].data, clear or {}  # it may have been recalled, and admitted again
    message = Message.of(data, entry.content["private"])
    for one, _ in history:
        if one.kind == Kind.VERDICT.value:
            message = Message.of(one.data, one.content["private"])
        else:
            message.add(one.kind, one.data, one.content["private"])
    ends = [end.value for end in Outcome if end in message.outcomes]
    return {
        "at": entry.time,
        "id": id,
        "ends": ends,
        "hold": data.get("hold"),
        "mailing": data.get("mailing"),
        "reverse_path": _first(names, "reverse_path"),
        "from": _first(names, "from"),
        "login": _first(names, "actor"),
        "subject": _first(names, "subject"),
        "recipients": data.get("counts", {}).get("total"),
        "reach": data.get("counts", {}).get("reach"),
        "message_id": _first(names, "message_id"),
        "queue_ids": list(
            dict.fromkeys((*names.get("ident", ()), *_answers(history)))
        ),  # at a milter, the MTA's own twice
        "client": data.get("client"),
        "listener": data.get("listener"),
    }


def _first(names: Mapping[str, Sequence[str]], role: str) -> str | None:
    return next(iter(names.get(role, ())), None)


def _answers(history: Sequence[tuple[Entry, Clear | None]]) -> Iterator[str]:
    """The relay's replies."""
    for one, clear in history:
        replies = one.data.get("replies", ()) if one.kind == Kind.OUTCOME.value else ()
        if one.kind == Kind.RELEASE.value:
            replies = (clear or {}).get("comment", ())
        yield from queue_ids(replies)


def lines(each: Mapping[str, Any]) -> Iterator[str]:
    """Time and id, what happened to it, its sender and number of people, and its other ids."""
    yield f"{each['at']:%Y-%m-%d %H:%M:%S} UTC  {each['id']}  {', '.join(each['ends'])}"
    sender = each["from"] or each["reverse_path"] or ("<>" if each["reverse_path"] == "" else "erased")
    total, reach = each["recipients"] or 0, each["reach"] or 0
    people = f", {reach:,} people" if reach > total else ""
    yield f"    from {sender} to {total:,} {'recipient' if total == 1 else 'recipients'}{people}"
    called = [f"queue ids {', '.join(each['queue_ids'])}"] if each["queue_ids"] else []
    called += [f"Message-ID {each['message_id']}"] if each["message_id"] else []
    called += [f"held as {each['hold']}"] if each["hold"] else []
    called += [f"of the mailing {each['mailing']}"] if each["mailing"] else []
    if called:
        yield f"    {'; '.join(called)}"


_WORDS = {
    "entry": ("entry of the journal names them", "entries of the journal name them"),
    "hold": ("held message", "held messages"),
    "mailing": ("mailing", "mailings"),
    "set": ("set of people for a correction", "sets of people for corrections"),
    "count": ("count", "counts"),
    "sending": ("release or notice", "releases and notices"),
    "returned": ("mail that came back", "mails that came back"),
    "freeze": ("freeze", "freezes"),
    "account": ("account of the console", "accounts of the console"),
    "absence": ("absence", "absences"),
}

an_address = click.argument("address", metavar="ADDRESS")


privacy = Group(help="What is kept about a person: show, erase.")


@privacy.command()
@an_address
async def show(context: Context, address: str) -> None:
    """Everything that is kept about a person, by any address that reaches the same mailbox: for a request of access.

    Names, holds, mailings, counts, what is to be sent and what came back, lists; and how often the journal has the keyed digest alone.
    That it was asked is journalled, without the address.
    """
    from smtpguard.store.privacy import Person, collect, digests_only

    parsed = mailbox("ADDRESS", address.strip())
    async with context.opened(reads=True) as (store, digester):
        may_name(store)
        await store.journal.catch_up()
        person = Person(parsed, digester)
        with progress("Names") as names, progress("Digests") as digests:
            found = await store.walk(lambda open: list(collect(open, person, names)))
            verdicts = await store.walk(lambda open: digests_only(open, person, digests))
        lists = _on_lists(context, parsed, digester)
        await context.journal_export(store, what="privacy", person=list(person.hexes), found=len(found))
    rows = [
        *map(_kept_row, found),
        {"what": "digest", "verdicts": verdicts},
        *({"what": "list", "id": n} for n in lists),
    ]
    context.answers(rows, _kept_lines(found, verdicts, lists))


def _kept_lines(found: Sequence[PersonalData], verdicts: int, lists: Sequence[str]) -> Iterator[str]:
    for what, n in Counter(one.what for one in found).items():
        yield f"{n:,} {_WORDS[what][n != 1]}:"
        yield from (f"  {_kept_line(one)}" for one in found if one.what == what)
    yield f"{many(verdicts, 'verdict has', 'verdicts have')} their keyed digest, which stays as long as the journal."
    there = " It is corrected and erased where the list comes from." if lists else ""
    yield f"Lists: {', '.join(lists) or 'none'}.{there}"


@privacy.command()
@an_address
@click.option("--yes", is_flag=True, help="Without asking.")
async def erase(context: Context, address: str, yes: bool) -> None:
    """Erase what is kept about a person, save what a pending decision or an incident needs, which it names.

    The journal stays provable: its entries keep keyed digests, and say which were erased. Nothing can be put back.
    """
    if not yes:
        click.confirm("Erase it for good?", abort=True, err=True)

    from smtpguard.store.privacy import Person
    from smtpguard.store.privacy import erase as erase_kept

    parsed = mailbox("ADDRESS", address.strip())
    async with context.opened() as (store, digester):
        await store.journal.catch_up()
        person = Person(parsed, digester)
        with progress("Erasing") as bar:
            done = await erase_kept(store, person, by=context.user, progress=bar)
        lists = _on_lists(context, parsed, digester)
    row = {
        "what": "erased",
        "values": done.values,
        "entries": done.entries,
        "holds": done.holds,
        "mailings": sum(done.mailings.values()),
        "lists": list(lists),
    }
    text = [
        f"Erased: values in the journal: {done.values:,}, in entries: {done.entries:,}; holds: {done.holds:,}; "
        f"digests in mailings: {row['mailings']:,}; and what was counted.",
        *(f"Kept: {one.what} {_kept_line(one)}" for one in done.kept),
    ]
    if lists:
        text.append(f"On the lists {', '.join(lists)}: erase it where they come from.")
    context.answers([row, *map(_kept_row, done.kept)], text)


def _on_lists(context: Context, address: Address, digester: Digester) -> tuple[str, ...]:
    """Those on whose indexes they are, on this machine."""
    from smtpguard.app.files import indexes
    from smtpguard.lists.index import BadIndex, Index

    digests, found = digester.every(address), []
    for path in sorted(indexes(context.settings()).glob("*.index")):
        try:
            index = Index(path, *digester.key_ids)
        except (BadIndex, OSError) as error:
            click.echo(f"{path.name}: {error}", err=True)
            continue
        if any(digest in index for digest in digests):
            found.append(path.name.removesuffix(".index"))
    return tuple(found)


def _kept_row(one: PersonalData) -> dict[str, Any]:
    at = None if one.at is None else f"{one.at:%Y-%m-%dT%H:%M:%SZ}"
    return {"what": one.what, "id": one.id, "at": at, "parts": list(one.parts), "stays": one.stays or None}


def _kept_line(one: PersonalData) -> str:
    at = "" if one.at is None else f"{one.at:%Y-%m-%d %H:%M} UTC  "
    return f"{at}{one.id} {', '.join(one.parts)}{f' (stays: {one.stays})' if one.stays else ''}".rstrip()
