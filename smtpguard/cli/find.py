"""smtpguard find: find messages in the journal by a queue id, a Message-ID, an address or words of a subject.

The results name people, so the search itself is journalled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import Command, Context, NotFine, may_name
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Message, Outcome
from smtpguard.journal.searchindex import queue_ids

if TYPE_CHECKING:
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
