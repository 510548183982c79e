"""smtpguard privacy: show everything that is kept about a person, or erase what nothing needs any more.

Both are journalled: not with the person's address, only with its keyed digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click

from smtpguard.app.clock import SystemClock, learned_clock
from smtpguard.app.files import indexes
from smtpguard.cli.context import Context, Group, mailbox, may_name, progress
from smtpguard.lists.digest import Digester
from smtpguard.lists.index import BadIndex, Index
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address
from smtpguard.store import privacy
from smtpguard.store.privacy import Person, PersonalData

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


command = Group(help="What is kept about a person: show, erase.")


@command.command()
@an_address
async def show(context: Context, address: str) -> None:
    """Everything that is kept about a person, by any address that reaches the same mailbox: for a request of access.

    Texts of held messages and of mail that came back are not read: who is named there alone is not found. Names, holds, mailings, counts, what is to be sent and what came back, lists; and how often the journal has the keyed digest alone.
    That it was asked is journalled, without the address.
    """
    parsed = mailbox("ADDRESS", address.strip())
    async with context.opened(reads=True) as (store, digester):
        may_name(store)
        await store.journal.catch_up()
        person = Person(parsed, digester)
        with progress("Names") as names, progress("Digests") as digests:
            found = await store.walk(lambda open: list(privacy.collect(open, person, store.now(), names)))
            verdicts = await store.walk(lambda open: privacy.digests_only(open, person, digests))
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


@command.command()
@an_address
@click.option("--yes", is_flag=True, help="Without asking.")
async def erase(context: Context, address: str, yes: bool) -> None:
    """Erase what is kept about a person, save what a pending decision or an incident needs, which it names.

    The journal stays provable: its entries keep keyed digests, and say which were erased. Nothing can be put back.
    """
    if not yes:
        click.confirm("Erase it for good?", abort=True, err=True)

    parsed = mailbox("ADDRESS", address.strip())
    async with context.opened() as (store, digester):
        await store.journal.catch_up()
        person, clock = Person(parsed, digester), await learned_clock(SystemClock(), store)
        with progress("Erasing") as bar:
            done = await privacy.erase(store, person, by=context.user, now=clock.passed(), progress=bar)
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
    """Return the lists that an address is on, by the indexes on this machine."""
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
