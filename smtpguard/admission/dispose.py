"""The only place where a verdict takes effect: the message is relayed, held, rejected or deferred.

The verdict is committed before this is called. 250 follows the relay's own 250 or a committed hold, nothing else. The
outcome of a verdict to relay is journalled afterwards, and the client does not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from smtpguard.admission.model import Admission
from smtpguard.admission.record import seconds_since
from smtpguard.gathering.gather import Gathered, trace_text
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind, new_event
from smtpguard.mail import reply
from smtpguard.mail.constant import maker
from smtpguard.mail.envelope import Fence, Lost, Onward, Recalled
from smtpguard.mail.reply import Reply
from smtpguard.mail.trace import prepend
from smtpguard.policy.freezing import Selectable
from smtpguard.policy.verdict import Deferred, Disposition, Held, Relayed

_new_relayed = maker(Relayed)
log = logging.getLogger(__name__)


@dataclass(eq=False)
class Dispose:
    """``note`` records an outcome: in the journal, or in the front of a bypass. ``fence`` makes the last look before a
    final dot: GateWatch's, or that of a bypass. ``trace_key`` and ``hostname`` are for the trace headers."""

    note: Callable[[Event], None]
    fence: Callable[[Selectable, str, Callable[[], bool]], Fence]
    clock: Clock
    trace_key: bytes = field(repr=False)
    hostname: str

    def carry_out(self, gathered: Gathered, admission: Admission, onward: Onward) -> Awaitable[Disposition | None]:
        """Returns what was done. None: a freeze or a new policy recalled the message before its final dot, and it may
        be admitted again, without the connection to the relay."""
        done = admission.disposition
        if done is None:
            return self._relay(gathered, admission, onward)
        return self._stopped(gathered, admission, done, onward)

    async def _stopped(
        self, gathered: Gathered, admission: Admission, done: Disposition, onward: Onward
    ) -> Disposition:
        if isinstance(done, Held) and done.taken:
            done = await self._pass_rest(gathered, admission, done)
        await onward.abandon()
        return done

    async def _pass_rest(self, gathered: Gathered, admission: Admission, held: Held) -> Disposition:
        """The customers' part is held, and the wire passes on the rest. If the rest is stopped now, the client retries
        and gets the same hold."""
        transaction = gathered.transaction
        assert transaction.pass_rest is not None
        trace, fence = self._trace(gathered, admission), self._fence(gathered, admission)
        try:
            said = await transaction.pass_rest(trace, fence, held.taken)
        except Recalled:
            self._note(gathered, held.hold_id, "gone" if transaction.gone() else "recalled", part=True)
            return Deferred(reply=reply.RECALLED)
        except Lost as lost:
            self._note(gathered, held.hold_id, "lost", lost.reply, part=True)
            return Deferred(reply=lost.reply)
        self._note(gathered, held.hold_id, "relayed", said, part=True)
        return held

    async def _relay(self, gathered: Gathered, admission: Admission, onward: Onward) -> Disposition | None:
        id = gathered.transaction.id
        trace, fence = self._trace(gathered, admission), self._fence(gathered, admission)
        try:
            replies = await onward.send(trace, fence)
        except Recalled:
            left = gathered.transaction.gone()
            self._note(gathered, id, "gone" if left else "recalled")
            return Deferred(reply=reply.RECALLED) if left else None
        except Lost as lost:
            if lost.after_dot:
                return self._in_doubt(gathered, id, lost.reply)
            self._note(gathered, id, "lost", lost.reply)
            return Deferred(reply=lost.reply if lost.reply.transient else reply.RELAY_LOST)
        except asyncio.CancelledError:
            self._in_doubt(gathered, id)
            raise
        except Exception:
            log.exception("transaction %s: the connection to the relay failed", id)
            return self._in_doubt(gathered, id)  # it is unknown whether the relay took it
        done = _new_relayed(replies=replies)
        self._note(gathered, id, "relayed" if done.code < 400 else "refused", *replies)
        return done

    def _trace(self, gathered: Gathered, admission: Admission) -> bytes:
        lists = gathered.everyone.addressed
        return prepend(
            gathered.transaction,
            admission.verdict.policy_sha256,
            self.trace_key,
            self.hostname,
            admission.events[0].at,
            lists,
            trace_text(gathered.text) if lists else (),
        )

    def _fence(self, gathered: Gathered, admission: Admission) -> Fence:
        facts = gathered.facts
        mailing = admission.mailing if facts.identity is not None else None
        what = Selectable(facts.lists - admission.unfrozen, facts.senders, mailing, facts.thread)
        return self.fence(what, gathered.in_force.sha256, gathered.transaction.gone)

    def _in_doubt(self, gathered: Gathered, id: str, *said: Reply) -> Disposition:
        """The relay may have taken the message (RFC 1047). The client retries; for a list address a person looks first."""
        self._note(gathered, id, "in-doubt", *said, kind=Kind.IN_DOUBT)
        return Deferred(reply=reply.RELAY_LOST)

    def _note(
        self, gathered: Gathered, id: str, outcome: str, *replies: Reply, part: bool = False, kind: Kind = Kind.OUTCOME
    ) -> None:
        """ "recalled" and "gone": the final dot was not sent. "lost": the relay was lost before it. ``part``: the
        colleagues' part of a held message, which the MTA keeps. A failed note does not change the answer: a verdict to
        relay without an outcome is in doubt anyway."""
        now = self.clock.now()
        to = gathered.transaction.envelope.recipients
        said = [reply.nameless(str(r), (one.address for one in to))[:500] for r in replies]
        data: dict[str, Any] = {"outcome": outcome, "replies": said}
        if part:
            data["part"] = True
        if gathered.began is not None:
            data["seconds"] = seconds_since(gathered.began, now)
        try:
            self.note(new_event(kind=kind, id=id, at=now, data=data))
        except Exception:
            log.exception("transaction %s: its outcome could not be recorded", id)
