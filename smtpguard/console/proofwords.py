"""What a proof says of a journal, as people read it: what is wrong, and what is not and should be known all the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from smtpguard.console.i18n import Speech
from smtpguard.console.ports import Found
from smtpguard.journal.agreement import Lost
from smtpguard.journal.chain import instant
from smtpguard.journal.proof import Proof

PROBLEMS: Mapping[str, str] = {
    "recomputed, or put back and gone on: the chain differs from its signed checkpoint at #, somewhere after #": "recomputed, or put back and gone on: the chain differs from its signed checkpoint at {0}, somewhere after {1}",
    "replaced: the journal's head is another entry of this number": "replaced: the journal's head is another entry of this number",
    "the tail is cut, or this is an older copy: a signed checkpoint knows entries up to #": "the tail is cut, or this is an older copy: a signed checkpoint knows entries up to {0}",
    "the tail is cut: the journal had entries up to #": "the tail is cut: the journal had entries up to {0}",
    "a checkpoint that does not agree was not signed here: it is forged, or of another secret": "a checkpoint that does not agree was not signed here: it is forged, or of another secret",
    "a checkpoint in the database cannot be read": "a checkpoint in the database cannot be read",
    "the journal was replaced: a checkpoint in the database knows another one": "the journal was replaced: a checkpoint in the database knows another one",
    "the journal was replaced, or the state folder was another store's before": "the journal was replaced, or the state folder was another store's before",
    "missing: entry # is gone": "missing: entry {0} is gone",
    "missing: entries # to # are gone": "missing: entries {0} to {1} are gone",
    "replaced: this entry does not follow the one before it": "replaced: this entry does not follow the one before it",
    "edited: the entry does not fit its hash": "edited: the entry does not fit its hash",
    "reordered: the entry stood elsewhere": "reordered: the entry stood elsewhere",
    "edited, and moved": "edited, and moved",
    "inserted: the entry belongs to no chain": "inserted: the entry belongs to no chain",
    "private values are missing": "private values are missing",
    "edited: private values do not fit their digests": "edited: private values do not fit their digests",
    "edited: the report was made of another entry of this number": "edited: the report was made of another entry of this number",
}
"""By what journal.proof and journal.rows say, with # for its numbers."""
_NUMBER = re.compile(r"\d+")


def problem(text: str, said: Speech) -> str:
    """What is wrong with a journal (journal.proof); ``#`` is a number in it."""
    numbers = _NUMBER.findall(text)
    known = PROBLEMS.get(_NUMBER.sub("#", text))
    if known is None:
        return text
    words = said(known)
    for place, number in enumerate(numbers):
        words = words.replace(f"{{{place}}}", said.number(int(number)))
    return words


def proved(found: Found, said: Speech) -> str:
    """The proof in a line, with what it was held against."""
    if found.proof is None:
        first = said("not looked for")
    elif found.proof.first_bad is None:
        first = said("the journal is whole, each of its {n} entries checked", n=said.number(found.proof.entries))
    else:
        bad = found.proof.first_bad
        first = said(
            "THE JOURNAL IS NOT WHAT WAS WRITTEN: entry {seq}: {problem}",
            seq=said.number(bad.seq),
            problem=problem(bad.problem, said),
        )
    parts = [first, said("up to entry {seq}, {hash}", seq=said.number(found.seq), hash=found.hash.hex())]
    parts[1:1] = noted(found.proof, said) if found.proof is not None else ()
    if (mark := found.checkpoint) is not None:
        parts.append(said("entry {seq} signed {when}", seq=said.number(mark.seq), when=_moment(mark.at)))
    return "; ".join(parts)


def noted(proof: Proof, said: Speech) -> Iterator[str]:
    """What is no fault of the journal, and should be known all the same."""
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
            "another secret is in force since entry {seq}: names before it could not be held against their digests",
            seq=said.number(proof.renewed),
        )
    if proof.others:
        names = ", ".join(proof.others)
        yield said("the state folder has checkpoints of another store as well: journal {names}", names=names)
    if proof.unreadable:
        yield said.many(
            proof.unreadable,
            "# line of the file of checkpoints cannot be read",
            "# lines of the file of checkpoints cannot be read",
        )
    if not proof.filed:
        yield said(
            "no file of checkpoints of this journal is beside the store: an end that was cut off could not be told"
        )


def not_in_it(lost: Lost, said: Speech) -> str:
    """Of what time the journal has nothing."""
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
