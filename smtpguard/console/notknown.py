"""What an incident report cannot know, and says so: the last of its parts, for whoever would read silence as "no"."""

from __future__ import annotations

from collections.abc import Iterator

from smtpguard.audit.fate import End
from smtpguard.console.i18n import Speech
from smtpguard.console.proofwords import not_in_it
from smtpguard.console.reporting import Made

MOST = 10
"""Of messages, and of policies, so many are named."""


def not_known(made: Made, said: Speech) -> Iterator[str]:
    report, proof = made.report, made.found.proof
    if report.unsettled:
        shown = ", ".join(report.unsettled[:MOST])
        if len(report.unsettled) > MOST:
            shown += f" {said('and {n} more', n=said.number(len(report.unsettled) - MOST))}"
        yield said("whether the relay took {ids}: look in its own log", ids=shown)
    if not all(some.people.exact for some in (*report.ends.values(), report.reached, report.open)):
        yield said(
            "how many people exactly: of some it is not known whether they are on a list, or on two lists, that it went to, or which of a message's recipients had it"
        )
    if report.shown <= 1 and (report.reached.messages or End.IN_DOUBT in report.ends):
        yield said(
            "whether recipients could read one another's addresses: of no message are several in To and Cc on record"
        )
    if report.reached.messages and report.lists:
        yield said(
            "whom of those behind a list's address it then reached: the relay's word for the address is all there is"
        )
    if report.erased:
        yield said.many(
            report.erased,
            "who wrote # of the messages, and its subject: retention has erased it",
            "who wrote # of the messages, and their subjects: retention has erased it",
        )
    for sha256 in made.purposes.lost[:MOST]:
        yield said(
            "what the rules of the policy {sha256} are for: it is not kept any more, or this version does not read it",
            sha256=sha256[:12],
        )
    for lost in proof.lost if proof is not None else ():
        yield not_in_it(lost, said)
    if proof is None:
        yield said("whether the journal is whole: nobody asked for the proof")
    if End.DEFERRED in report.ends:
        yield said(
            "what became of what was put off: a client that came again with it is counted once more, by what became of that"
        )
    yield said("what went another way than through this guard, and who read what was delivered")
