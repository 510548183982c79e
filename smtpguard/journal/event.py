"""Events, and their kinds. Everything that smtpguard decides or does is one event, and all are in one order.

An event becomes an entry of the hash chain (chain.py). Its ``data`` is chained as it is and stays as long as the
journal. What names a person is in ``private``, is chained as keyed digests only, and can be erased after its retention
without breaking the chain.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any

from smtpguard.mail.constant import constant, maker


class Kind(enum.Enum):
    """The kind of an event. The journal has the values."""

    VERDICT = "verdict"  # a message was decided on; data.action says how. Committed before any effect
    REFUSED = "refused"  # a transaction without a message: the relay had refused recipients at RCPT. No verdict
    OUTCOME = "outcome"  # of a verdict to relay: relayed, refused, lost, recalled, gone
    VOTE = "vote"  # by mail: data.way is mail, data.proof login, dkim or token
    VOTE_REFUSED = "vote-refused"  # a vote by mail, to the address of a notice, that does not count: data.why
    APPROVED = "approved"  # the quorum is complete; the release is in the outbox
    CONFIRMED = "confirmed"  # its writer confirmed it, and the number of people; the release is in the outbox
    UNCONFIRMED = "unconfirmed"  # its writer is no longer asked: it waits for others to decide
    REJECTED = "rejected"  # also after stopped, once it is known that nobody has it
    WITHDRAWN = "withdrawn"  # also after stopped, once it is known that nobody has it
    EXPIRED = "expired"
    APART = "apart"  # a copy that differs from what was approved waits for people by itself
    REOPENED = "reopened"  # an approval was revoked, or ended, before anything was sent: it waits for people again
    STOPPED = "stopped"  # an approval was revoked when some had it, or may have it: the rest is not sent
    VOIDED = "voided"  # a hold whose 250 the client never got
    ADOPTED = "adopted"  # a retry has taken up a hold whose 250 the client never got
    ESCALATED = "escalated"
    REMINDED = "reminded"
    RELEASE = "release"  # an attempt to deliver a release, for each recipient
    RELEASED = "released"  # all recipients of a release are settled
    IN_DOUBT = "in-doubt"  # the final dot was sent and nothing came back
    SETTLED = "settled"  # a person decided on a release to a list address in doubt: data.choice is sent, or again
    NOTICE = "notice"  # a notice or DSN of ours: sent, or could not be; or "obsolete", no longer needed and not sent
    FREEZE = "freeze"
    THAW = "thaw"
    THAW_ASKED = "thaw-asked"  # where two have to agree: the first of them
    MAILING = "mailing"  # an action on a mailing: resumed, stopped, reopened, or a report of bounces and complaints
    POLICY = "policy"  # another policy is in force
    RETURNED = "returned"  # mail came back: data.sort is bounce, complaint, reply, ...; data.counts says whether breakers count it
    TRIPPED = "tripped"  # a breaker: so much of a mailing came back that the rest is stopped, by data.freezes
    STREAM = "stream"  # a stream is above its limits: further messages of it wait at the client
    ALARM = "alarm"  # a rule calls a person: data.lists has the number of people addressed by list
    TAKEN = "taken"  # a person takes an alarm; its id is the alarm's
    LIST = "list"  # a list's index was replaced, or its source failed
    VIEWED = "viewed"  # somebody looked at held content
    ASKED = "asked"  # an approver asked its writer
    ANSWERED = "answered"  # its writer answered
    PLEADED = "pleaded"  # its writer asked for its release
    JUDGED = "judged"  # its writer's judgement of the stop: data.said is right, or mistake
    EXPORTED = "exported"
    BYPASS = "bypass"  # the emergency bypass: data.change is begun, adopted (so many messages of a front) or ended
    START = "start"
    STOP = "stop"
    SIGNED_IN = "signed-in"
    SIGN_IN_REFUSED = "sign-in-refused"
    SIGNED_OUT = "signed-out"
    ACCOUNT = "account"  # data.change: added, password, roles, disabled, enabled, second-factor, ...
    ABSENCE = "absence"  # an absence of an approver, and their deputy: data.change is away, back, agreed or refused
    GROUP = "group"  # a change of a group's members: data.change is directory, directory-away, sign-on, or deputy (may decide, or no more)
    TOKEN = "token"  # of the API: data.change says added or revoked
    WEBHOOK = "webhook"  # an entry that a hook did not accept
    SECRET = "secret"  # from here on another secret is in force
    KEY = "key"  # from here on another key signs checkpoints; the one before has signed it
    RETENTION = "retention"  # the retention was changed; a shorter one takes effect a day later
    PRESERVED = "preserved"  # an incident is kept past its retention; data.change: begun, renewal asked, renewed, ended
    INCIDENT = "incident"  # what people say of an incident; data.change: aware (data.since), written (data.field)
    ERASED = "erased"  # retention, or privacy erase (data.what: person), has erased private parts or content


DECISIONS: Mapping[Kind, str] = {
    Kind.APPROVED: "approved",
    Kind.CONFIRMED: "approved",
    Kind.UNCONFIRMED: "waiting",
    Kind.REJECTED: "rejected",
    Kind.WITHDRAWN: "withdrawn",
    Kind.EXPIRED: "expired",
    Kind.VOIDED: "void",
    Kind.ADOPTED: "waiting",
    Kind.REOPENED: "waiting",
    Kind.APART: "waiting",
}
"""The kinds that change the state of a hold, each with the public name of the new state."""
ENDS: Mapping[Kind, str] = {
    **{kind: state for kind, state in DECISIONS.items() if state != "waiting"},
    Kind.CONFIRMED: "confirmed",
}
"""The kinds that end the wait of a hold, each with the name under which it is counted."""


@constant
class Event:
    """One thing that happened. ``id``: its object, such as a transaction, a hold, a freeze.

    ``data``: JSON values only (str, int, float, bool, None, list, dict). ``private``: values in clear by role (``reverse_path``,
    ``from``, ``recipients``, ``subject``, ``actor``, ``comment``, ``message_id``, ``ident``, ``helo``, ``envid``).
    """

    kind: Kind
    id: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


new_event = maker(Event)


TOLD = (
    Kind.VOTE, Kind.APPROVED, Kind.CONFIRMED, Kind.REJECTED, Kind.WITHDRAWN, Kind.EXPIRED, Kind.REMINDED, Kind.ESCALATED,
    Kind.ANSWERED, Kind.PLEADED,
)  # fmt: skip
"""The kinds of later events of a hold that cause a notice. In a flood only a digest has them. A vote is one if it completes an approval
before that takes effect (``release_at``)."""


def decided_at(at: datetime, data: Mapping[str, Any]) -> datetime:
    """Return when people made the decision of an entry of ``DECISIONS``. An approval may take effect after its last vote. ``at``: the
    entry's time."""
    try:
        return datetime.fromisoformat(data["decided_at"])
    except (KeyError, TypeError, ValueError):
        return at


def follows(data: Mapping[str, Any]) -> bool:
    """Return whether an entry of ``DECISIONS`` is about a copy, which follows the decision on its primary hold (``with``). An entry with
    ``leads`` makes a hold a primary one."""
    return "with" in data and "leads" not in data


def happened(at: int, data: Mapping[str, Any]) -> int:
    """Return when the event of an entry happened, in microseconds. An event under a bypass enters the journal later, once the store is
    back. ``at``: the entry's time."""
    given = data.get("happened")
    return given if isinstance(given, int) else at


NOTICES = (
    "alarm", "answer", "approve", "checkpoint", "confirm", "decided", "deputy", "digest", "doubt", "escalation", "expired", "held",
    "list-failed", "list-stale", "list-well", "observed", "owner-digest", "plea", "question", "rejected", "reminder", "stages",
    "stream", "voted",
)  # fmt: skip
"""The names of notices in entries of the kind ``notice``. Each has a template of its name."""
