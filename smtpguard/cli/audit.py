"""smtpguard audit: verify or export the journal; and smtpguard find: find messages in it by a queue id, a Message-ID, an address or
words of a subject.

``verify`` walks the whole hash chain, checks clear values against their digests, and compares the chain with the signed
checkpoints in the database and in the state folder. The fronts of all processes are moved into the chain first.
``policy`` shows the policy that the journal names by a SHA-256. ``find`` shows names of people, so the search itself is
journalled.
"""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from email import message_from_string
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from smtpguard.cli.context import AtLeast, CannotRun, Command, Context, Group, NotFine, may_name, progress
from smtpguard.cli.holdrow import freeze_row, goes_out
from smtpguard.holds.model import LIVE, held_up_by
from smtpguard.journal.chain import Clear, Entry, Pair, utc_text
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.outcome import Message, Outcome
from smtpguard.locale.speech import Speech
from smtpguard.reading.fold import query_words

if TYPE_CHECKING:
    from smtpguard.config.settings import Settings
    from smtpguard.journal.timestamp import Stamped, Timestamp
    from smtpguard.policy.freezing import Freeze
    from smtpguard.store.store import Store


PAGE = 1000
"""The most entries that are read at once."""
MOST = 50
"""The most messages that ``find`` shows by default."""
_NOTES = 1000
"""The most checkpoints that are read at once."""
_GONE = (
    "smtpguard: entries {} to {} are gone: retention or somebody else deleted them meanwhile; audit verify says which"
)

_ASIDE = "smtpguard: {} belongs to another state of the journal: its entries were not merged"


command = Group(help="Verify or export the journal, or show an earlier policy.")


@command.command()
@click.option("--against", "kept", type=click.File(encoding="utf-8"), multiple=True, metavar="FILE",
              help="A file of checkpoints kept elsewhere: by a witness, in a log, in mail. May be repeated; - is standard input.")  # fmt: skip
async def verify(context: Context, kept: tuple[TextIO, ...]) -> None:
    """Verify that no entry was edited, removed, inserted or moved, that the other tables agree with the journal, and that time
    stamps are valid. Exit 1 if not."""
    from smtpguard.console.incidentfile import proof_row  # imports pages, which nothing else here needs
    from smtpguard.console.journalwords import disagreements, remarks

    against: list[str] = []
    for each in kept:
        from smtpguard.journal.checkpoint import notes_in

        if not (found := notes_in(_unpacked(each.read()))):
            raise CannotRun(f"{each.name}: it contains no checkpoint")
        against += found

    stamped = _stamped(context.settings())

    async with context.store(reads=True) as store:
        with progress("Journal") as chain, progress("Beside it") as beside:
            proof = await store.journal.audit(
                socket.gethostname(), alone=True, against=against, stamped=stamped.notes, progress=(chain, beside)
            )
        aside = store.journal.fronts_aside()
    bad = proof.first_bad
    if context.json:
        latest = (
            None if stamped.latest is None else {"seq": stamped.latest[0], "at": utc_text(stamped.latest[1], "auto")}
        )
        wrong = [{"seq": seq, "problem": problem} for seq, problem in stamped.bad]
        context.print_json({**proof_row(proof), "timestamped": latest, "timestamps_bad": wrong})
    else:
        whole = f"The journal is whole: {proof.entries:,} entries."
        click.echo(whole if bad is None else f"The journal is not what was written. Entry {bad.seq}: {bad.problem}.")
        for line in remarks(proof, Speech()):
            click.echo(f"{line[0].upper()}{line[1:]}.")
        if stamped.latest is not None and bad is None:
            seq, at = stamped.latest
            click.echo(
                f"A time-stamp authority proves that the entries up to {seq:,} existed at {at:%Y-%m-%d %H:%M:%S} UTC."
            )
        elif context.settings().audit.timestamps is not None and not stamped.bad:
            click.echo("There is no time stamp yet.")
        for seq, problem in stamped.bad:
            click.echo(f"A time stamp{f' of entry {seq:,}' if seq else ''} is not valid: {problem}.")
        if proof.beside:
            click.echo("Other tables do not agree with the journal:")
        for line in disagreements(proof, Speech()):
            click.echo(f"  {line}")
    for file in aside:
        click.echo(_ASIDE.format(file), err=True)
    if not proof.ok or stamped.bad:
        raise click.exceptions.Exit(1)


def _stamped(settings: Settings) -> Stamped:
    """Check the time stamps in the state folder; none if the settings name no ``ca_file``."""
    from smtpguard.app.certificates import authorities
    from smtpguard.journal.linefiles import TIMESTAMPS, lines_of
    from smtpguard.journal.timestamp import MISSING, Stamped, checked

    if settings.audit.timestamps is None:
        return Stamped()
    roots = authorities(settings.audit.timestamps.ca_file)
    try:
        return checked(lines_of(settings.state, TIMESTAMPS), roots)
    except ImportError:
        raise CannotRun(MISSING) from None


def _timestamps(state: Path) -> Iterator[Timestamp]:
    """The time stamps in the state folder, not checked."""
    from smtpguard.journal.linefiles import TIMESTAMPS, lines_of
    from smtpguard.journal.timestamp import Timestamp, Unproven

    for line in lines_of(state, TIMESTAMPS):
        try:
            yield Timestamp.parse(line)
        except Unproven as problem:
            click.echo(f"smtpguard: a time stamp was left out: {problem}", err=True)


@command.command()
@click.argument("sha256", metavar="SHA256")
@click.option("--all", "whole", is_flag=True, help="Show its vocabularies too.")
async def policy(context: Context, sha256: str, whole: bool) -> None:
    """Show an earlier policy by its SHA-256, or by a unique beginning of it.

    The text is exactly as it was put in force. A policy never contains passwords.
    """
    from smtpguard.cli.policies import documents_of, tell_documents

    whole_id, documents = await documents_of(context, sha256, words=False)
    tell_documents(context, whole_id, documents, whole=whole)


@command.command()
@click.option("--after", type=AtLeast(0), default=0, metavar="SEQ", help="Only entries after this one.")
@click.option("--id", "about", metavar="ID", help="Only what happened to this transaction, hold or freeze.")
@click.option("--clear", is_flag=True,
              help="Include addresses and subjects that are not erased yet. This is journalled.")  # fmt: skip
@click.option("--signed", is_flag=True,
              help="Include the signed checkpoints, each after its entry, and their time stamps at the end: for docs/verify.py.")  # fmt: skip
async def export(context: Context, after: int, about: str | None, clear: bool, signed: bool) -> None:
    """Write every entry, in order, as one JSON object a line, with its hash and the hash of the entry before."""
    async with context.store(reads=True) as store:
        if clear:
            may_name(store)
            await context.journal_export(store, about or "journal", what="journal", after=after, about=about)
        await store.journal.catch_up()
        if about is not None:
            for entry, values in await store.journal.history(about):
                if entry.seq > after:
                    context.print_json(_row(entry, values if clear else None))
            return
        last, until = after, await store.journal.last()
        notes = await store.journal.checkpoints(after, _NOTES) if signed else []
        while page := await store.journal.entries(after=last, until=until, limit=PAGE):
            if after < last < (first := page[0][0].seq) - 1:
                click.echo(_GONE.format(last + 1, first - 1), err=True)
            for entry, values in page:
                context.print_json(_row(entry, values if clear else None))
                while notes and notes[0].seq <= entry.seq:  # less: of the last entry that was trimmed
                    context.print_json({"checkpoint": notes[0].note})
                    notes = notes[1:] or await store.journal.checkpoints(notes[0].seq, _NOTES)
            last = page[-1][0].seq
        for one in _timestamps(context.settings().state) if signed else ():
            if after < one.seq <= last:
                reply = b64encode(one.reply).decode()
                context.print_json({"checkpoint": one.note, "timestamp": reply})


@command.group(invoke_without_command=True, json="One JSON object a line.")
async def key(context: Context) -> None:
    """Print the public key that verifies checkpoints. Keep a copy on another host, before you need it."""
    async with context.store(reads=True) as store:
        key = str(await store.journal.key())
    context.answer({"key": key}, key)


@key.command()
async def rotate(context: Context) -> None:
    """Sign with a new key from now on. Both keys sign a journal entry about the change."""
    from smtpguard.app.clock import ids

    async with context.store() as store:
        event = Event(kind=Kind.KEY, id=ids()(), at=store.now(), private={"actor": (context.user,)})
        key = str(await store.journal.rotate(event))
    context.answer({"key": key}, key)


@command.command(json=None)
@click.argument("entry", type=AtLeast(1))
async def prove(context: Context, entry: int) -> None:
    """Prove, as one JSON object, that an entry is in the signed journal: for docs/verify.py, or any program that knows RFC 6962."""
    async with context.store(reads=True) as store:
        found = await store.journal.inclusion(entry)
    if found is None:
        raise CannotRun(f"entry {entry} is in no signed checkpoint, or is gone")
    context.print_json(
        {
            "entry": _row(found.entry, None),
            "leaf": found.n,
            "size": found.size,
            "path": [hash.hex() for hash in found.path],
            "checkpoint": found.note,
        }
    )


def _unpacked(text: str) -> str:
    """Return a text and, if it is a message or an mbox, the decoded texts of its messages."""
    if "content-transfer-encoding:" not in text.lower():
        return text
    found = [text]
    for one in re.split(r"(?m)^From .*\n", text):
        for part in message_from_string(one, policy=default).walk():
            if part.get_content_type() == "text/plain":
                found.append(str(part.get_content()))
    return "\n".join(found)


def _row(entry: Entry, clear: Clear | None) -> dict[str, Any]:
    """Return the JSON object of an entry. ``body`` in it is the text that was hashed; ``data`` is for reading."""
    return {
        "seq": entry.seq,
        "at": entry.time,
        "at_microseconds": entry.at,
        "kind": entry.kind,
        "id": entry.id,
        "data": entry.data,
        "private": None if clear is None else {role: list(values) for role, values in clear.items()},
        "body": entry.body,
        "prev": entry.prev.hex(),
        "hash": entry.hash.hex(),
    }


@click.command(cls=Command, json="One JSON object a message.")
@click.argument("words", metavar="TEXT...", nargs=-1, required=True)
@click.option("--most", type=click.IntRange(1, 10_000), default=MOST, show_default=True,
              help="At most so many, newest first.")  # fmt: skip
async def find(context: Context, words: tuple[str, ...], most: int) -> None:
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
        with progress("Searching") as moved:
            ids = list(
                await store.journal.find(query_words(text), most + 1, moved) or await store.journal.matching_ids(text)
            )
        freezes = (await store.gate.read()).freezes
        shown = [await _found(store, id, freezes) for id in ids[:most]]
        await context.journal_export(store, words=text, what="find", found=len(shown))
    rows = [one for one in shown if one is not None]
    for each, goes in rows:
        context.answer(each, lines(each, goes))
    if not rows:
        raise NotFine(f"nothing matches {text}")
    if len(ids) > most:
        click.echo(f"There are more: the newest {len(rows)} are shown (--most).", err=True)


async def _found(store: Store, id: str, freezes: Sequence[Freeze]) -> tuple[dict[str, Any], str] | None:
    """Return the JSON object of a message with the freezes that stop it, and when it goes if any does."""
    if (one := row(id, await _history(store, id))) is None:
        return None
    hold = await store.holds.find(one["hold"]) if one["hold"] and freezes else None
    stopped = held_up_by(hold, freezes) if hold is not None and hold.state in LIVE else ()
    goes = goes_out(hold, stopped) if hold is not None and stopped else ""
    return one | {"frozen": [freeze_row(freeze) for freeze in stopped]}, goes


async def _history(store: Store, id: str) -> Sequence[Pair]:
    """Return the entries of a message, and behind them those of the hold that it is a retry of."""
    own = await store.journal.history(id)
    again = next((str(one.data["hold"]) for one, _ in own if one.data.get("retry") and one.data.get("hold")), "")
    return [*own, *(await store.journal.history(again) if again else ())]


def row(id: str, history: Sequence[Pair]) -> dict[str, Any] | None:
    """Return the JSON object of a message; unknown or erased values are null. None if the history is that of no message, but of a
    mailing or a freeze."""
    verdicts = [n for n, (one, _) in enumerate(history) if one.kind == Kind.VERDICT.value]
    if not verdicts:
        return None
    entry, clear = history[verdicts[0]]
    last, names = history[verdicts[-1]][0], clear or {}  # it may have been recalled, and admitted again
    data, message = last.data, Message.of(last.data, last.content["private"])
    for one, _ in history[verdicts[-1] + 1 :]:
        message.add(one.kind, one.data, one.content["private"])
    numbers = Counter(end.value for end in message.ends() or ())
    for share in message.shares() if not numbers else ():
        numbers[share.end.value] += share.people
    ends = [end.value for end in Outcome if end in message.outcomes]
    return {
        "at": entry.time,
        "id": id,
        "ends": ends,
        "numbers": {end: numbers[end] for end in ends},
        "hold": data.get("hold"),
        "mailing": data.get("mailing"),
        "reverse_path": _first(names, "reverse_path"),
        "from": _first(names, "from"),
        "login": _first(names, "actor"),
        "subject": _first(names, "subject"),
        "recipients": data.get("counts", {}).get("total"),
        "reach": data.get("counts", {}).get("reach"),
        "message_id": _first(names, "message_id"),
        # At a milter, the MTA's own twice.
        "queue_ids": list(dict.fromkeys((*names.get("ident", ()), *_answers(history)))),
        "client": data.get("client"),
        "listener": data.get("listener"),
    }


def _first(names: Mapping[str, Sequence[str]], role: str) -> str | None:
    return next(iter(names.get(role, ())), None)


def _answers(history: Sequence[Pair]) -> Iterator[str]:
    """Yield the queue ids in the relay's replies."""
    from smtpguard.journal.searchindex import queue_ids  # imports a database driver, as no help needs

    for one, clear in history:
        replies = one.data.get("replies", ()) if one.kind == Kind.OUTCOME.value else ()
        if one.kind == Kind.RELEASE.value:
            replies = (clear or {}).get("comment", ())
        yield from queue_ids(replies)


def _ends(each: Mapping[str, Any]) -> str:
    """Write the outcomes: one as a word, several with their numbers."""
    words = {Outcome.ON_ITS_WAY.value: "approved, frozen"} if each["frozen"] else {}
    several = len(each["ends"]) > 1
    return ", ".join(
        f"{words.get(end, end)} {n:,}" if several else words.get(end, end) for end, n in each["numbers"].items()
    )


def lines(each: Mapping[str, Any], goes: str) -> Iterator[str]:
    """Yield the lines of a message: time and id, what happened to it, when it goes if a freeze stops it, its sender and number of people, and its other ids."""
    yield f"{each['at']:%Y-%m-%d %H:%M:%S} UTC  {each['id']}  {_ends(each)}"
    if goes:
        yield f"    {goes}"
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
