"""What is decided beside the policy's rules: the built-in rules, which no policy can remove, and whether the writer of a
message is asked to confirm it. Pure.

The built-in rules make hits like any other rule, and the strictest action wins.

- A null sender or an automatic reply to a list address: 550, so that nothing loops (RFC 3834 section 2).
- A stream above its limits: deferred, never held. Its mail is wanted, only not so much of it.
- A reverse-path that is a customer list's address, which is not its proven writer's own choice: held. A server behind
  us reports a failed delivery to that address, often with the message, and we never see the report.
- A retry to a list address of a message that the relay may have taken: held until a person has looked (RFC 1047).

Of a question to the writer, the engine has settled what the facts say (policy.confirming). What no fact says is checked
here: whether the question would reach the mailbox of the proven person who wrote the message, and how often that person
was asked lately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from smtpguard.admission.model import Seen
from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.streams import FACT, Exceeded, StreamLimit, exceeded
from smtpguard.holds.model import Hold
from smtpguard.locale.phrase import Phrase, Said
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Transaction
from smtpguard.mail.fields import list_header
from smtpguard.policy import confirming
from smtpguard.policy.confirming import MEANT, MEANT_SECONDS, NOT_ALONE, SYSTEM, TOO_OFTEN, UNPROVEN
from smtpguard.policy.counted import Ask, Live
from smtpguard.policy.facts import OF_SENDERS
from smtpguard.policy.rule import AIMS, AUTOMATIC, IN_DOUBT, RETURNS, STREAM
from smtpguard.policy.verdict import Action, Hit, Mode, Reason, Verdict

WANTED: Mapping[str, Action] = {
    AUTOMATIC: Action.REJECT,
    STREAM: Action.DEFER,
    IN_DOUBT: Action.HOLD,
    RETURNS: Action.HOLD,
}
"""The action of each built-in rule."""


def fixed(action: Action, *, automatic: bool, returns: bool, over: bool, in_doubt: bool) -> Iterator[str]:
    """The rules that hit. ``action``: of the policy's rules. ``automatic``: an automatic message to a list address;
    ``returns``: reports on it would go to a customer list; ``over``: a stream is above its limit; ``in_doubt``: it goes
    to a list address, and the relay may have taken it before."""
    if automatic:
        yield AUTOMATIC
    if returns:
        yield RETURNS
    if over:
        yield STREAM
    elif in_doubt and action <= Action.HOLD:  # an approval may cover all that holds it
        yield IN_DOUBT


def with_fixed(verdict: Verdict, gathered: Gathered, live: Seen, streams: Sequence[StreamLimit]) -> Verdict:
    """The verdict with the hits of the built-in rules. In a policy that only observes, they observe as well."""
    reports_to = gathered.reports_to
    if not (streams or reports_to or gathered.counted.list_addresses.low):
        return verdict
    mode = Mode.ENFORCE if gathered.in_force.enforce else Mode.OBSERVE
    hits = [replace(one, mode=mode) for one in _hits(verdict, gathered, live, streams)]
    if not hits:
        return verdict
    enforced = [h.action for h in hits if h.mode is Mode.ENFORCE]
    observed = [h.action for h in hits if h.mode is Mode.OBSERVE]
    quorum = verdict.quorum or gathered.in_force.rules.quorum(gathered.facts.lists)
    if reports_to and verdict.action.waits:  # the approvals that the recipients alone need are needed all the same
        quorum = gathered.in_force.rules.quorum(gathered.everyone.lists, quorum)
    return replace(
        verdict,
        action=max(verdict.action, *enforced) if enforced else verdict.action,
        observed=max(verdict.observed, *observed) if observed else verdict.observed,
        hits=(*verdict.hits, *hits),
        quorum=quorum,
    )


def _is_automatic(transaction: Transaction) -> bool:
    """A null sender or an automatic reply. Mail of a campaign tool is neither."""
    if transaction.envelope.reverse_path is None:
        return True
    says = list_header(transaction.message.header.named)
    return says.auto_reply or says.auto_submitted.startswith("auto-replied")


def _hits(verdict: Verdict, gathered: Gathered, live: Seen, streams: Sequence[StreamLimit]) -> Iterator[Hit]:
    addressed, over = gathered.counted.list_addresses.low > 0, exceeded(streams, live)
    automatic = addressed and _is_automatic(gathered.transaction)
    for rule in fixed(
        verdict.action,
        automatic=automatic,
        returns=bool(gathered.reports_to),
        over=over is not None,
        in_doubt=addressed and live.in_doubt,
    ):
        if rule == STREAM and over is not None:
            yield _above(over)
        elif rule == RETURNS:
            yield _returns(gathered)
        else:
            yield _OF_LISTS[rule]


def hit(
    rule: str,
    action: Action,
    fact: str,
    public: Said,
    *,
    observed: str = "true",
    limit: str = "false",
    detail: Said = "",
    description: Said | None = None,
) -> Hit:
    """The hit of a rule that is in no policy. ``description``: None for the rule's own."""
    reason = Reason(fact=fact, observed=observed, limit=limit, public=public, detail=detail)
    said = Phrase(AIMS[rule]) if description is None else description
    return Hit(rule=rule, action=action, description=said, reasons=(reason,))


_OF_LISTS = {
    AUTOMATIC: hit(
        AUTOMATIC,
        WANTED[AUTOMATIC],
        "message.automatic",
        Phrase("Automatic replies and bounces cannot be sent to a mailing list."),
    ),
    IN_DOUBT: hit(
        IN_DOUBT,
        WANTED[IN_DOUBT],
        "delivery.in_doubt",
        Phrase("An earlier attempt to send this message may have reached the list: a person must check that first."),
    ),
}


def _returns(gathered: Gathered) -> Hit:
    """The address is named without its sub-address, which may name a person (VERP)."""
    path = gathered.transaction.envelope.reverse_path
    address = path.canonical(gathered.in_force.registry.digester.delimiters) if path is not None else ""
    public = Phrase(
        "Its return path is {address}: if it cannot be delivered, everybody on that list gets a report, and with it this message.",
        address=address,
    )
    observed = ", ".join(sorted(gathered.reports_to))
    return hit(RETURNS, WANTED[RETURNS], "message.reports_to", public, observed=observed, limit="none")


def _above(over: Exceeded) -> Hit:
    limit, name = over.watched.limit, over.watched.stream.name
    return hit(
        STREAM,
        WANTED[STREAM],
        FACT,
        Phrase("This mail exceeds the agreed limit, try again later."),
        observed=str(over.count),
        limit=f"{limit.count} in {limit.window_seconds} s",
        detail=f"stream {name}",
        description=Phrase("The stream {stream} is above its limit", stream=name),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """``address``: canonical; ``proof``: what proves the address: "login", "listener", or "origin"."""

    address: str
    proof: str


def writer_of(gathered: Gathered) -> Writer | Phrase:
    """The writer to ask, or the reason why nobody can be asked."""
    sender, registry = gathered.sender, gathered.in_force.registry
    why = confirming.why_not(gathered.facts.values)
    if why is not None or sender.claimed is None:
        return why or UNPROVEN
    if sender.told is None or gathered.post is not None or _is_automatic(gathered.transaction):
        return SYSTEM
    if gathered.streams or registry.streams_from(sender.claimed):
        return SYSTEM
    if Address.parse(sender.told).canonical(registry.digester.delimiters) != sender.claimed:
        return UNPROVEN
    reach = gathered.everyone.reach
    if reach.low != reach.high or gathered.in_force.staged(gathered.facts.sizes):
        return NOT_ALONE
    session = gathered.transaction.session
    proof = "origin" if not sender.authenticated else "login" if session.auth_user else "listener"
    return Writer(address=sender.claimed, proof=proof)


def asks_of(gathered: Gathered) -> tuple[Ask, ...]:
    """The counts of the writer that the admission reads: how often they were asked, and to which rules' questions they
    have said yes. Empty if nobody can be asked."""
    writer = writer_of(gathered)
    if isinstance(writer, Phrase):
        return ()
    rules = gathered.in_force.rules
    asking = (rule for rule in rules.rules if rule.then is Action.CONFIRM and not rule.observes)
    return (
        _asked(writer, gathered),
        *(_meant(r.rule_id, writer.address) for r in asking if any(c.fact.name in OF_SENDERS for c in r.conditions)),
    )


def _asked(writer: Writer, gathered: Gathered) -> Ask:
    """The count of questions to the writer, this one included."""
    seconds = gathered.in_force.rules.confirming.a_person.window_seconds
    return Ask(fact=confirming.FACT, key=writer.address, window_seconds=seconds)


def is_meant(verdict: Verdict, gathered: Gathered, live: Live) -> bool:
    """Whether a letter is stopped only by the number of people that its sender writes to, and the sender has confirmed
    exactly that within a week. Then the sender is not asked again until a rule holds the letter."""
    if verdict.action is not Action.CONFIRM or not gathered.facts.letter_from:
        return False
    writer = writer_of(gathered)
    hits = [h for h in verdict.hits if h.mode is Mode.ENFORCE]
    return isinstance(writer, Writer) and all(
        live.counts.get(_meant(hit.rule, writer.address), 0) > 1  # more than this message
        and any(reason.fact in OF_SENDERS for reason in hit.reasons)
        for hit in hits
    )


def _meant(rule: str, writer: str) -> Ask:
    return Ask(fact=MEANT, key=f"{writer} {rule}", window_seconds=MEANT_SECONDS)


def or_held(verdict: Verdict, gathered: Gathered, live: Live | None = None) -> Verdict:
    """The verdict, with a hold instead of a confirmation if nobody can be asked, or the writer was asked too often.
    ``live`` None: do not check how often."""
    if verdict.action is not Action.CONFIRM:
        return verdict
    writer = writer_of(gathered)
    if isinstance(writer, Phrase):
        return confirming.held(verdict, writer)
    most = gathered.in_force.rules.confirming.a_person.count
    often = live is not None and live.counts.get(_asked(writer, gathered), 0) > most
    return confirming.held(verdict, TOO_OFTEN) if often else verdict


def is_asked_of(hold: Hold | None, gathered: Gathered) -> bool:
    """Whether the message's writer is being asked about a waiting hold, so that the question can cover this message
    too."""
    if hold is None or hold.question is None:
        return False
    writer = writer_of(gathered)
    return isinstance(writer, Writer) and writer.address == hold.question.writer
