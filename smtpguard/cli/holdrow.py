"""Write one hold as a row for programs, and as text for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from smtpguard.cli.context import AtLeast
from smtpguard.holds.model import Choice, Hold, State, standing_votes
from smtpguard.holds.sending import NOTHING, Outgoing, Sending
from smtpguard.journal.event import Kind
from smtpguard.locale.phrase import many
from smtpguard.outbox.model import Settled
from smtpguard.policy.freezing import Freeze
from smtpguard.policy.verdict import Mode, Quorum

if TYPE_CHECKING:
    from smtpguard.holds.coverage import Coverage
    from smtpguard.holds.effects import AtOnce
    from smtpguard.holds.service import Decided

all_at_once = click.option("--all-at-once", type=AtLeast(1), default=None, metavar="N",
                           help="Confirm that mail to the address of a list with stages goes to all N people at once.")  # fmt: skip


def reach(hold: Hold) -> str:
    """Write the number of people: "at least" so many if a list could not say who is on it."""
    bound = "at least " if hold.reach_at_least else "at most " if hold.reach_at_most else ""
    return f"{bound}{hold.reach:,}"


def thaw_command(freeze: Freeze) -> str:
    value = f" {shlex.quote(freeze.value)}" if freeze.value else ""
    return f"smtpguard thaw --{freeze.selector.value}{value}"


def freeze_row(freeze: Freeze) -> dict[str, Any]:
    return {
        "id": freeze.freeze_id,
        "selector": freeze.selector.value,
        "value": freeze.value or None,
        "reason": freeze.reason,
        "by": freeze.by,
        "at": freeze.at,
        "until": freeze.until,
    }


def freezes_in_words(freezes: Sequence[Freeze]) -> str:
    """Write all freezes that must be lifted before a message goes."""
    return "; ".join(freeze.in_words() for freeze in freezes)


def goes_out(hold: Hold, freezes: Sequence[Freeze]) -> str:
    """Say when a message goes if these freezes stop it."""
    once = "it goes out" if hold.to_be_sent else "once approved, it is sent"
    return f"{once} when this is thawed: {freezes_in_words(freezes)}"


def leaves(hold: Hold, freezes: Sequence[Freeze]) -> str:
    """Say when an approved message goes, unless these freezes stop it, and how to undo the approval until then; nothing without a
    release delay."""
    if hold.release_at is None:
        return ""
    at = f"{hold.release_at:%Y-%m-%d %H:%M:%S} UTC"
    until = f"; until {at}" if freezes else f", to be released at {at}; until then"
    return f"approved{until} undo it with smtpguard held unvote {hold.hold_id} --as ADDRESS"


def row(hold: Hold, freezes: Sequence[Freeze] = ()) -> dict[str, Any]:
    """Return the JSON object of a hold in a table. ``freezes``: those that stop it."""
    return {
        "id": hold.hold_id,
        "state": hold.state.value,
        "frozen": [freeze_row(f) for f in freezes],
        "stopped": hold.stopped,
        "reverse_path": str(hold.envelope.reverse_path or ""),
        "recipients": [str(a) for a in hold.envelope.addresses],
        "reach": hold.reach,
        "reach_at_least": hold.reach_at_least,
        "lists": list(hold.lists),
        "subject": hold.subject,
        "rules": [h.rule for h in hold.verdict.hits if h.mode is Mode.ENFORCE],
        "held_at": hold.held_at,
        "expires_at": hold.expires_at,
        "release_at": hold.release_at,
        "mailing": hold.mailing_id or None,
        "copies": hold.copies,
        "part_of": hold.primary or None,
        "test": hold.kind == "test",
        "settled": None if hold.settled is None else asdict(hold.settled),
        "asked_at": hold.asked_at,
        "confirm": hold.confirm_row,
        "votes": [
            {"approver": v.approver, "choice": v.choice.value, "at": v.at, "comment": v.comment} for v in hold.votes
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known of a hold. ``freezes``: those that stop it. ``left``: the incomplete quorums. ``whole``: why it cannot be sent in
    its list's stages. ``outgoing``: how far its release, and that of its copies, has come. ``covers``: what its approval would cover,
    None if it is decided. ``history``: its events, each with who did it, or who got the notice, in words."""

    hold: Hold
    freezes: Sequence[Freeze] = ()
    left: Sequence[Quorum] = ()
    whole: AtOnce | None = None
    outgoing: Outgoing = NOTHING
    covers: Coverage | None = None
    history: Sequence[tuple[dict[str, Any], str]] = ()


def detail_fields(known: Known) -> dict[str, Any]:
    hold, whole, own = known.hold, known.whole, known.outgoing.own
    return {
        "at_once": whole.row if whole is not None else None,
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
        "quorum": [quorum_row(q) for q in hold.verdict.quorum],
        "missing": [quorum_row(q) for q in known.left],
        "covers": known.covers.row if known.covers is not None else None,
        "sending": own.row if own is not None else None,
    }


def of_mailing(outgoing: Outgoing) -> dict[str, Any]:
    """Return the numbers of messages when an approval was revoked: those stopped, and those that had gone or were being sent."""
    return {
        "taken_back": outgoing.back,
        "gone": outgoing.gone,
        "in_doubt": outgoing.doubt,
        "being_sent": outgoing.going,
    }


def taken_back(outgoing: Outgoing) -> str:
    """Write the same numbers in words, to follow a state; nothing if nothing was revoked."""
    if not outgoing.back and not outgoing.doubt:
        return ""
    said = ", taken back before anything was sent" if outgoing.back else ""
    if outgoing.back and outgoing.back + outgoing.gone + outgoing.doubt > 1:
        said = f", taken back: {many(outgoing.back, 'message')}"
    said += f"; {many(outgoing.gone, 'message')} had been sent" if outgoing.gone else ""
    if outgoing.doubt:
        said += f"; {many(outgoing.doubt, 'message')} may have been sent and are in doubt; they are not sent again"
    return said


def recipients_in_numbers(settled: Settled) -> str:
    """Write the numbers of recipients of a release that was stopped."""
    doubt = f", {settled.doubted:,} {'is' if settled.doubted == 1 else 'are'} in doubt" if settled.doubted else ""
    have, get = "has" if settled.sent == 1 else "have", "does" if settled.failed == 1 else "do"
    return f"{settled.sent:,} {have} it{doubt}, {settled.failed:,} {get} not get it"


def quorum_row(quorum: Quorum) -> dict[str, Any]:
    late = None if quorum.out_of_hours is None else quorum_row(quorum.out_of_hours)
    return {"from": list(quorum.groups), "each": quorum.each, "out_of_hours": late}


def vote_in_words(done: Decided, vote: str = "counted") -> str:
    voters = ", ".join(v.approver for v in standing_votes(done.hold) if v.choice is Choice.APPROVE) or "none"
    return f"the vote is {vote}. It needs {'; '.join(map(quorum_in_words, done.missing))}, and has {voters}."


def _mailing_lines(hold: Hold) -> list[tuple[str, str]]:
    if hold.primary:
        whole = "of its sender's letters" if hold.by_sender else "of its mailing"
        return [("Part of", f"{hold.primary}, whose decision is for all {whole}")]
    if (one := hold.correction) is not None:
        may = f" and {one.may:,} who may have it" if one.may else ""
        said = f"for exactly the {one.sent:,} who have {one.mailing_id}{may}, at {one.as_of:%Y-%m-%d %H:%M:%S} UTC"
        return [("Corrects", f"{said}; its approval lets one copy for each of them pass, and nothing else")]
    if hold.kind == "test":
        return [("Test", "it is not sent; its approval lets the mailing itself pass")]
    if hold.copies and hold.queue:
        return [("Letters", f"{hold.copies:,} more letters of its sender wait with it; one decision is for all")]
    if hold.copies:
        return [
            ("Mailing", f"{hold.mailing_id}, {hold.copies:,} more copies of it are stored; one decision is for all")
        ]
    return [("Mailing", hold.mailing_id)] if hold.mailing_id else []


def _recipient_lines(hold: Hold) -> list[tuple[str, str]]:
    """Return a line on the statuses of its recipients, if they differ."""
    done = hold.settled
    if done is None or not (done.failed or done.doubted):
        return []
    lost = ("does not get it", "do not get it") if hold.stopped else ("could not be reached", "could not be reached")
    said = ((done.sent, "has it", "have it"), (done.failed, *lost),
            (done.doubted, "may have it (in doubt)", "may have it (in doubt)"))  # fmt: skip
    parts = (f"{many(n, 'recipient')} {one if n == 1 else several}" for n, one, several in said if n)
    return [("Sent", ", ".join(parts))]


def _doubt_lines(hold: Hold, own: Sending | None) -> list[tuple[str, str]]:
    if own is None or not own.doubt:
        return []
    n = own.may_have(hold)
    who = many(n, "person", "people")
    doubt = [("In doubt", f"it may have been sent to {who}: an attempt has begun, and the relay's answer is not known")]
    asked = "It is not retried automatically: say whether it was sent with smtpguard held settle, --sent or --again"
    return [*doubt, *([("Asked", asked)] if hold.asked_at is not None else [])]


def print_hold(known: Known, purposes: Mapping[str, str], letters: Sequence[Mapping[str, Any]] = ()) -> None:
    """Print all about a hold. ``purposes``: the purpose of each rule in the command's language, as far as the policy in force has it.
    ``letters``: those of its sender, which are decided on with it."""
    from smtpguard.holds import coverage  # a freeze should not wait for it

    hold, freezes, whole, outgoing = known.hold, known.freezes, known.whole, known.outgoing
    stopped = " (stopped before all had received it)" if hold.stopped else ""
    unheard = "" if hold.acknowledged else " (its client has not had an answer yet)"
    shown = [str(a) for a in hold.envelope.addresses[:10]]
    others = len(hold.envelope.recipients) - len(shown)
    stays = outgoing.back if hold.state is State.RELEASED else 0
    lines = [
        ("Id", hold.hold_id),
        ("State", hold.state.value + stopped + unheard),
        *([("Decided", leaves(hold, freezes))] if hold.release_at is not None else []),
        *([("Frozen", goes_out(hold, freezes))] if freezes else []),
        *_doubt_lines(hold, outgoing.own),
        *_recipient_lines(hold),
        *([("Not gone", f"{many(stays, 'message')} let go with it")] if stays else []),
        ("From", f"{hold.sender or 'no known sender'} (reverse-path {hold.envelope.reverse_path or '<>'})"),
        ("To", ", ".join(shown) + (f" and {others:,} more" if others else "") if hold.correction is None else ""),
        (
            "Reaches",
            f"{reach(hold)} {'person' if hold.reach == 1 else 'people'}"
            + (f"; lists: {', '.join(hold.lists)}" if hold.lists else ""),
        ),
        ("Subject", hold.subject),
        *_mailing_lines(hold),
        *(
            [("At once", f"{whole.sentence}{'' if whole.refused else f': --all-at-once {whole.people}'}")]
            if whole
            else []
        ),
        ("Held", f"{hold.held_at:%Y-%m-%d %H:%M} UTC, until {hold.until:%Y-%m-%d %H:%M} UTC"),
        ("Content", f"{hold.size_bytes:,} octets, SHA-256 {hold.content_sha256}"),
    ]
    for name, value in lines:
        click.echo(f"{name + ':':9} {plain(value)}")
    said: set[str] = set()
    for hit in hold.verdict.hits:
        observing = " (observes)" if hit.mode is Mode.OBSERVE else ""
        click.echo(f"Rule:     {hit.rule}{observing}: {plain(purposes.get(hit.rule) or hit.description)}")
        for reason in hit.reasons:
            detail = plain(reason.detail or reason.public)
            seen, *evidence = detail.split("; ")
            click.echo(f"          {seen}" + ("; as above" if evidence and detail in said else ""))
            for found in evidence if detail not in said else ():
                click.echo(f"            {found}")
            said.add(detail)
    for vote in hold.votes:
        comment = f": {plain(vote.comment)}" if vote.comment else ""
        click.echo(f"Vote:     {vote.choice.value} by {vote.approver} at {vote.at:%Y-%m-%d %H:%M} UTC{comment}")
    for sentence in coverage.sentences(known.covers) if known.covers is not None else ():
        click.echo(f"Covers:   {plain(sentence)}")
    for letter in letters:
        to, *rest = letter["recipients"]
        beside = f" and {len(rest):,} more" if rest else ""
        click.echo(f"Letter:   {letter['id']} to {plain(to)}{beside}: {plain(letter['subject'])}")
        same = letter["same_as"]
        click.echo(
            f"          {f'the same text as {same}' if same else plain(letter['begins'] or 'its text is not known')}"
        )
    waits = (
        ["its writer to confirm it"]
        if hold.asks_writer
        else map(quorum_in_words, known.left if not hold.primary else ())
    )
    for one in waits:
        click.echo(f"Waits for {one}")
    for event, who in known.history:
        keys = ("way",) if event["what"] == Kind.CONFIRMED.value else _DESCRIBING
        told = (str(event["data"][key]) for key in keys if event["data"].get(key) is not None)
        at = event["data"].get("release_at")
        goes = f"(can be undone until {datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S} UTC)" if at else ""
        words = filter(None, (*dict.fromkeys((event["what"], *told)), goes, who))
        click.echo(f"{event['at']:%Y-%m-%d %H:%M:%S} UTC  {plain(' '.join(words))}")


_DESCRIBING = ("action", "notice", "choice", "proof", "why", "state", "outcome", "code")
"""The keys of a journal entry's data that describe it. A confirmation is described by its way: its proof is the message's."""


def quorum_in_words(quorum: Quorum) -> str:
    """Write a quorum: "1 of communications and 1 of compliance, or out of hours 1 of duty"."""
    return (
        str(quorum)
        if quorum.out_of_hours is None
        else f"{quorum}, or out of hours {quorum_in_words(quorum.out_of_hours)}"
    )


def plain(text: str) -> str:
    """Replace control characters: text from a message must not control the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
