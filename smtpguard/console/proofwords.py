"""The proof of a journal in words: what is wrong with it, and what is right but should be known."""

from __future__ import annotations

from collections.abc import Iterator

from smtpguard.incidents.report import Found
from smtpguard.journal.agreement import Lost
from smtpguard.journal.chain import instant
from smtpguard.journal.proof import Proof
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech

_ABOUT = {
    "policy": N_("policy"),
    "freeze": N_("freeze"),
    "hold": N_("hold"),
    "mailing": N_("mailing"),
    "journal": N_("journal"),
    "checkpoints": N_("checkpoints"),
}


def proved(found: Found, said: Speech) -> str:
    """The proof in a line, with what it was compared with."""
    if found.proof is None:
        first = said("not looked for")
    elif found.proof.first_bad is None:
        first = said("the journal is whole: all {n} entries are verified", n=said.number(found.proof.entries))
    else:
        bad = found.proof.first_bad
        first = said(
            "THE JOURNAL WAS ALTERED: entry {seq}: {problem}",
            seq=said.number(bad.seq),
            problem=said.say(bad.problem),
        )
    parts = [first, said("up to entry {seq}, {hash}", seq=said.number(found.seq), hash=found.hash.hex())]
    parts[1:1] = noted(found.proof, said) if found.proof is not None else ()
    if (mark := found.checkpoint) is not None:
        parts.append(said("entry {seq} signed {when}", seq=said.number(mark.seq), when=_moment(mark.at)))
    return "; ".join(parts)


def noted(proof: Proof, said: Speech) -> Iterator[str]:
    """What is no fault of the journal, but should be known."""
    for lost in proof.lost:
        yield said(
            "the store was put back (entry {seq}, {when}): entries up to {last}, signed until {end}, are not in it",
            seq=said.number(lost.seq),
            when=_moment(lost.at),
            last=said.number(lost.through),
            end=_moment(lost.signed_at),
        )
    if proof.renewed:
        yield said(
            "another secret is in force since entry {seq}: names in older entries could not be verified",
            seq=said.number(proof.renewed),
        )
    if proof.others:
        names = ", ".join(proof.others)
        yield said("the state folder also has checkpoints of another store: journal {names}", names=names)
    if proof.unreadable:
        yield said.ngettext(
            "{n} line of the file of checkpoints cannot be read",
            "{n} lines of the file of checkpoints cannot be read",
            proof.unreadable,
        )
    if proof.trimmed:
        yield said("retention has deleted the entries up to {seq}", seq=said.number(proof.trimmed))
    for one in proof.backwards:
        yield said.ngettext(
            "times go backwards: entry {seq} is from {at}, after one from {before}",
            "times go backwards: {n} entries from {seq} on are older than the one before, the first from {at} after {before}",
            one.entries,
            seq=said.number(one.seq),
            at=_moment(one.at),
            before=_moment(one.before),
        )
    for id, messages in proof.bypassed.items():
        yield said.ngettext(
            "{n} message was relayed without the database, under the bypass {id}",
            "{n} messages were relayed without the database, under the bypass {id}",
            messages,
            id=id,
        )
    if not proof.filed:
        yield said("the state folder has no checkpoints of this journal: a missing end could not be detected")
    if proof.witnessed is None and proof.first_bad is None:
        yield said("no witness has a checkpoint of it: root on this host could have rewritten all of it")
    elif proof.witnessed is not None and proof.first_bad is None:
        seq, at = proof.witnessed
        yield said(
            "a witness has a checkpoint of entry {seq}, signed {when}: only this host vouches for later entries",
            seq=said.number(seq),
            when=_moment(at),
        )


def disagreeing(proof: Proof, said: Speech) -> Iterator[str]:
    """Other data in the store that disagrees with the journal."""
    for one in proof.beside:
        yield said("{what} {id}: {problem}", what=said(_ABOUT[one.about]), id=one.id, problem=said.say(one.problem))


def not_in_it(lost: Lost, said: Speech) -> str:
    """The period that is missing from the journal."""
    end = _moment(lost.signed_at)
    if lost.since is None:
        return said(
            "what happened until {end}: the store was put back, and the journal of that time is not in it", end=end
        )
    return said(
        "what happened between {begin} and {end}: the store was put back, and some of the journal of that time is not in it",
        begin=_moment(lost.since),
        end=end,
    )


def _moment(at: int) -> str:
    return f"{instant(at):%Y-%m-%d %H:%M:%S} UTC"
