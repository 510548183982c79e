"""smtpguard explain: say what would happen to messages, and why, as text or JSON. It opens no store and changes nothing.

FILEs are messages, folders of messages, mboxes (RFC 4155), or ``-`` for standard input; other commands read them with
``mails`` too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import CannotRun, Command, Context, mailbox
from smtpguard.cli.holdrow import plain
from smtpguard.config.problem import Undeclared
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import client_address
from smtpguard.mail.fields import mailboxes
from smtpguard.mail.message import Header, Message, with_crlf
from smtpguard.policy.facts import Unknown
from smtpguard.policy.verdict import Action

if TYPE_CHECKING:
    from smtpguard.admission.model import Explained
    from smtpguard.lists.recipients import Count
    from smtpguard.policy.verdict import Reason

ACTIONS = tuple(action.word for action in Action)
_MOST_CONTEXT = 90


@click.command(cls=Command, json="One JSON object a message.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--from", "sender", metavar="ADDRESS",
              help="The reverse-path. Default: Return-Path or X-Envelope-From, then From.")  # fmt: skip
@click.option("--to", "recipients", metavar="ADDRESS", multiple=True,
              help="A recipient; may be repeated. Default: X-Envelope-To, then To and Cc.")  # fmt: skip
@click.option("--login", "--auth", "login", metavar="USER", help="Assume that this user logged in.")
@click.option("--listener", "listener", metavar="NAME",
              help="Assume that it came in at this listener: a name, or an address and port. Default: the first in the settings.")  # fmt: skip
@click.option("--client", "client", metavar="IP", default="127.0.0.1", show_default=True,
              help="Assume that it came from this address.")  # fmt: skip
@click.option("--expect", type=click.Choice(ACTIONS), help="Exit 1 unless every message has this verdict.")
@click.option("-v", "--verbose", is_flag=True, help="Say also why the other rules did not hit.")
async def command(context: Context, files: Sequence[str], sender: str | None, recipients: Sequence[str], login: str | None,
            listener: str | None, client: str, expect: str | None, verbose: bool) -> None:  # fmt: skip
    """Say what the policy file would decide about messages, and why."""
    from smtpguard.app.explaining import explainer, rule_places, session_at

    given = None if sender is None else [_path("--from", sender)]
    to = [_path("--to", recipient) for recipient in recipients]
    if client_address(client) is None:
        raise click.UsageError(f'--client: "{client}" is no address')
    try:
        session = session_at(context.settings(), listener, client, login=login)
    except Undeclared as e:
        raise CannotRun(e.text + (f" ({e.hint})" if e.hint else f": expected {e.expected}")) from None
    count = unread = unexpected = 0
    policy = context.policy()
    purposes, places = policy.rules.purposes(), rule_places(policy, str(context.settings().policy))
    async with explainer(context.settings(), policy) as guard:
        for mail in mails(files):
            problem = mail.unread
            if not problem:
                try:
                    path, people = envelope_of(mail.message.header)
                    reverse_path = given[0] if given else path
                    asked = [a for a in to if a is not None] or people
                    told = await guard.explain(mail.message, reverse_path, asked, session)
                except Exception as error:  # an error of one message must not stop the others
                    problem = why_unread(error)
            if problem:
                unread += 1
                context.answer({"file": mail.name, "error": problem}, f"{mail.name}: {plain(problem)}", err=True)
                continue
            count += 1
            unexpected += expect is not None and told.verdict.action.word != expect
            text = lines(mail.name, reverse_path, asked, told, purposes, places, verbose)
            context.answer(row(mail.name, told, places), text if count == 1 else ["", *text])
    if not count + unread:
        raise CannotRun("there is no message in " + ", ".join(files))
    if unexpected and not context.json:
        click.echo(f"{unexpected} of {count} have another verdict than {expect}.", err=True)
    if unread:
        click.echo(f"{unread} of {count + unread} could not be judged.", err=True)
    if unexpected or unread:
        raise click.exceptions.Exit(1)


def _path(option: str, text: str) -> Address | None:
    """Parse the reverse-path in an option; ``<>`` is the null one."""
    return None if text in ("<>", "") else mailbox(option, text.strip("<>"))


def row(name: str, told: Explained, places: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object of a message. ``places``: the file and line of each rule."""
    verdict, reading, people = told.verdict, told.reading, told.recipients
    readable, looks = reading.readable.value == "yes", told.facts.values.get("message.looks")
    return {
        "file": name,
        "action": verdict.action.word,
        "hits": [
            {
                "rule": h.rule,
                "at": places.get(h.rule),
                "action": h.action.word,
                "mode": h.mode.value,
                "reason": "; ".join(_said(r) for r in h.reasons) or h.description,
            }
            for h in verdict.hits
        ],
        "misses": [
            {"rule": m.rule, "at": places.get(m.rule), "reason": None if m.reason is None else _said(m.reason)}
            for m in verdict.misses
        ],
        "skipped": list(verdict.skipped),
        "unknown": [{"fact": fact, "why": why} for fact, why in verdict.unknown],
        "looks": reading.looks.value if readable and not isinstance(looks, Unknown) else None,
        "score": reading.score if readable else None,
        "marks": [
            {"mark": m.name, "side": m.side.value, "weight": m.weight, "evidence": m.evidence} for m in reading.marks
        ],
        "recipients": {
            "total": people.total,
            "internal": _number(people.internal),
            "outside": _number(people.outside),
            "members": _number(people.members),
            "list_addresses": _number(people.list_addresses),
            "undisclosed": _number(told.facts.values.get("recipients.undisclosed")),
            "reach": _number(people.reach),
            "lists": sorted(people.lists),
        },
        "topics": [
            {"vocabulary": t.vocabulary, "term": t.term, "where": t.where, "word": t.word} for t in reading.topics
        ],
        "quorum": [{"from": list(q.groups), "each": q.each} for q in verdict.quorum],
        "policy_sha256": verdict.policy_sha256,
    }


def _number(span: Count | object) -> int | None:
    """Return a count that is certain, else None."""
    low, high = getattr(span, "low", None), getattr(span, "high", None)
    return int(low) if low is not None and low == high else None


def _said(reason: Reason) -> str:
    limit = f", where the rule asks for {reason.limit}" if reason.limit else ""
    return f"{reason.fact} is {reason.observed}{limit}"


def lines(
    name: str,
    path: Address | None,
    recipients: Sequence[Address],
    told: Explained,
    purposes: Mapping[str, str],
    places: Mapping[str, str],
    verbose: bool,
) -> Iterator[str]:
    verdict = told.verdict
    yield f"{name}: {verdict.action.word.upper()}"
    to = ", ".join(map(str, recipients[:3])) or "nobody"
    more = f" and {len(recipients) - 3} more" if len(recipients) > 3 else ""
    yield f"  From {'<>' if path is None else path} to {_inert(to)}{more}"
    yield f"  {_reach(told)}"
    for hit in verdict.hits:
        how = hit.action.word if hit.mode.value == "enforce" else f"would {hit.action.word}, only observed"
        doubt = ", because a fact that it asks for is unknown" if hit.uncertain else ""
        yield f"  Rule {hit.rule} ({how}{doubt}): {purposes.get(hit.rule) or hit.description or 'no description'}"
        if hit.rule in places:
            yield f"      at {places[hit.rule]}"
        for reason in hit.reasons:
            yield f"      {_said(reason)}"
    if not verdict.hits:
        yield "  No rule takes effect."
    for fact, why in verdict.unknown:
        yield f"  Not known: {fact}, because {why}"
    yield from _reading_lines(told)
    if verdict.quorum:
        yield f"  To release it: {' and '.join(map(str, verdict.quorum))}."
    if verbose:
        for miss in verdict.misses:
            yield f"  Missed: {miss.rule}" + (f", since {_said(miss.reason)}" if miss.reason else "")
    elif verdict.misses:
        yield f"  Missed: {', '.join(m.rule for m in verdict.misses)}."
    if verdict.skipped:
        yield f"  Not evaluated, since they could not make the verdict stricter: {', '.join(verdict.skipped)}."


_LOOKS = {
    "internal": "It looks like mail between colleagues",
    "mailing": "It looks like a mailing",
    "unclear": "It could be mail between colleagues, or a mailing",
}


def _reading_lines(told: Explained) -> Iterator[str]:
    """Yield what the message looks like, why, and the words in it of topics to be spared."""
    reading, looks = told.reading, told.facts.values.get("message.looks")
    if reading.readable.value != "yes":
        yield f"  It cannot be read completely: {_inert(reading.why_unreadable)}. Found in the rest:"
    elif isinstance(looks, Unknown):
        yield f"  What it looks like is unknown: {looks.why}. Otherwise:"
    else:
        yield f"  {_LOOKS[reading.looks.value]} (score {reading.score:+g}):"
    order: Mapping[str, int] = {"internal": 0, "mailing": 1, "neither": 2}
    counted: set[tuple[str, str]] = set()
    outweighed = False
    for mark in sorted(reading.marks, key=lambda m: (order[m.side.value], -m.weight, m.name)):
        group = mark.side.value, mark.group or mark.name
        sign = {"internal": "+", "mailing": "-", "neither": ""}[mark.side.value]
        weight = f"{sign}{mark.weight:g}" if sign else ""
        if sign and group in counted:
            weight, outweighed = f"({weight})", True
        counted.add(group)
        yield f"    {weight:>7}  {mark.name:22}{_inert(mark.evidence)}"
    if outweighed:
        yield "    In brackets: the same sign as a heavier mark above, not counted again."
    for topic in reading.topics:
        yield f'  Topic {topic.vocabulary}: "{_inert(topic.word)}" in the {topic.where}: {_inert(topic.context)}'


def _reach(told: Explained) -> str:
    people = told.recipients
    reach = _number(people.reach)
    number = f"between {people.reach.low:g} and {people.reach.high:g}" if reach is None else f"{reach:,}"
    lists = f", on {', '.join(sorted(people.lists))}" if people.lists else ""
    return f"It would reach {number} {'person' if reach == 1 else 'people'}{lists}."


def _inert(text: str) -> str:
    """Return text quoted from a message without terminal control sequences, and shortened."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= _MOST_CONTEXT + 60 else clean[: _MOST_CONTEXT + 60] + "…"


_MBOX = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\r\n]*\r?\n")
_MBOX_QUOTED = re.compile(rb"^>(>*From )", re.M)


@dataclass(frozen=True, slots=True)
class Mail:
    """A message in a file. ``name``: its file, and its position if the file has several. ``unread``: why there is no message."""

    name: str
    message: Message
    unread: str = ""


_NOTHING = Message.of(b"")


def envelope_of(header: Header) -> tuple[Address | None, list[Address]]:
    """Return reverse-path and recipients, as far as the header has them: from Return-Path and X-Envelope-*, else from From, To, Cc and
    Bcc."""
    path: Address | None = None
    for name in ("Return-Path", "X-Envelope-From", "From"):
        if name in header:
            path = next(iter(mailboxes(header, name)), None)
            break
    people: list[Address] = []
    for names in (("X-Envelope-To",), ("To", "Cc", "Bcc")):
        people = [a for name in names for a in mailboxes(header, name)]
        if people:
            break
    return path, list(dict.fromkeys(people))


def mails(files: Sequence[str]) -> Iterator[Mail]:
    """Yield the messages of each FILE in order. An unreadable one has ``unread``, and the rest follow. Raises CannotRun if there is no
    such file."""
    for name in files:
        if name == "-":
            yield from _messages("-", sys.stdin.buffer.read())
            continue
        path = Path(name)
        if path.is_dir():
            for inner in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
                yield from _in_file(str(inner), inner)
        elif path.exists():
            yield from _in_file(name, path)
        else:
            raise CannotRun(f"{name}: no such file")


def _in_file(name: str, path: Path) -> Iterator[Mail]:
    try:
        raw = path.read_bytes()
    except (OSError, MemoryError) as error:
        yield Mail(
            name, _NOTHING, unread=getattr(error, "strerror", None) or "it is too large for the memory of this machine"
        )
        return
    yield from _messages(name, raw)


def why_unread(error: Exception) -> str:
    """Return why one message could not be read, in a phrase."""
    return f"it cannot be looked at ({type(error).__name__}: {str(error)[:200] or 'no more is known'})"


def _messages(name: str, raw: bytes) -> Iterator[Mail]:
    """Yield one message, or those of an mbox, with CRLF line ends."""
    if not raw.startswith(b"From "):
        if raw.strip():
            yield Mail(name, Message.of(with_crlf(raw)))
        return
    pieces = [p for p in _MBOX.split(raw) if p.strip()]
    for i, piece in enumerate(pieces, 1):
        content = _MBOX_QUOTED.sub(rb"\1", piece.rstrip(b"\r\n") + b"\n")
        yield Mail(name if len(pieces) == 1 else f"{name}:{i}", Message.of(with_crlf(content)))
