"""The few rules that stand in no policy, as hits like any other: pure, and the strictest wins with the policy's own.

- A null sender or an automatic reply has no business at a list's address: 550, so that nothing loops (RFC 3834 section 2).
- A stream above its limits is told to wait, never held: its mail is wanted, its amount is not.
- A retry to a list's address of what the relay may have taken already waits for a person to look at (RFC 1047).

Never here: what the policy says (engine).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from smtpguard.guard.gather import Gathering
from smtpguard.lists.declared import Limit, Stream
from smtpguard.mail.transaction import Transaction
from smtpguard.policy.admission import Ask, Live
from smtpguard.policy.rule import AUTOMATIC, IN_DOUBT, STREAM
from smtpguard.policy.verdict import Action, Hit, Mode, Reason, Verdict


def stream_asks(gathering: Gathering) -> tuple[tuple[Stream, Limit, Ask], ...]:
    """The counts that hang on the streams whose standing approval this message uses: messages in all, and to each person."""
    found = []
    for stream in gathering.streams:
        if stream.max is not None:
            found.append((stream, stream.max, _ask(f"{stream.name}", stream.max)))
        if stream.max_per_person is not None:
            for recipient in {r.canonical: r for r in gathering.counted.recipients if r.digest}.values():
                key = f"{stream.name} {recipient.digest.hex()}"
                found.append((stream, stream.max_per_person, _ask(key, stream.max_per_person)))
    return tuple(found)


def with_fixed(
    verdict: Verdict, gathering: Gathering, live: Live, streams: tuple[tuple[Stream, Limit, Ask], ...]
) -> Verdict:
    """The verdict with the hits of the fixed rules. In a policy that only observes, they observe as well."""
    mode = Mode.ENFORCE if gathering.in_force.enforce else Mode.OBSERVE
    hits = [replace(hit, mode=mode) for hit in _hits(verdict, gathering, live, streams)]
    if not hits:
        return verdict
    enforced = [h.action for h in hits if h.mode is Mode.ENFORCE]
    observed = [h.action for h in hits if h.mode is Mode.OBSERVE]
    return replace(
        verdict,
        action=max(verdict.action, *enforced) if enforced else verdict.action,
        observed=max(verdict.observed, *observed) if observed else verdict.observed,
        hits=(*verdict.hits, *hits),
        quorum=verdict.quorum or gathering.in_force.rules.quorum(gathering.facts.lists),
    )


def is_automatic(transaction: Transaction) -> bool:
    """A null sender, or an answer that nobody wrote. Generated mail (a campaign tool's) is none of it."""
    if transaction.envelope.reverse_path is None:
        return True
    header = transaction.message.header
    submitted = (header.get("Auto-Submitted") or "").strip().lower()
    return (
        submitted.startswith("auto-replied")
        or "X-Autoreply" in header
        or "X-Autorespond" in header
        or (header.get("Precedence") or "").strip().lower() == "auto_reply"
    )


def _ask(key: str, limit: Limit) -> Ask:
    return Ask(fact="stream.messages", key=key, window_seconds=limit.window_seconds)


def _hits(
    verdict: Verdict, gathering: Gathering, live: Live, streams: tuple[tuple[Stream, Limit, Ask], ...]
) -> Iterator[Hit]:
    addressed = gathering.counted.list_addresses.low > 0
    if addressed and is_automatic(gathering.transaction):
        yield Hit(
            rule=AUTOMATIC,
            action=Action.REJECT,
            description="Automatic replies and bounces never go to a list",
            reasons=(
                Reason(
                    fact="message.automatic",
                    observed="true",
                    limit="false",
                    public="Automatic replies and bounces cannot be sent to a mailing list.",
                ),
            ),
        )
    for stream, limit, ask in streams:
        count = live.counts.get(ask, 0)
        if count > limit.count:
            yield Hit(
                rule=STREAM,
                action=Action.DEFER,
                description=f"The stream {stream.name} is above its limit",
                reasons=(
                    Reason(
                        fact="stream.messages",
                        observed=str(count),
                        limit=f"{limit.count} in {limit.window_seconds} s",
                        public="More of this mail came than was agreed, try again later.",
                        detail=f"stream {stream.name}",
                    ),
                ),
            )
            return
    if addressed and live.in_doubt and verdict.action is Action.RELAY:
        yield Hit(
            rule=IN_DOUBT,
            action=Action.HOLD,
            description="An earlier attempt may have reached the list already",
            reasons=(
                Reason(
                    fact="delivery.in_doubt",
                    observed="true",
                    limit="false",
                    public="An earlier attempt to send this message may have reached the list: somebody is to look first.",
                ),
            ),
        )
