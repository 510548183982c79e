"""Entries of the journal as people read them: what happened, who did it, and in whose words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from smtpguard.console.i18n import Speech
from smtpguard.holds.model import Hold, State
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Kind
from smtpguard.policy.freezing import PUT_BACK

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

WORDS: Mapping[str, str] = {
    Kind.VERDICT.value: "It came, and was judged",
    Kind.REFUSED.value: "The mail server refused recipients, and no message came",
    Kind.OUTCOME.value: "What became of it",
    Kind.VOTE.value: "A vote",
    Kind.APPROVED.value: "Approved: all who must have agreed",
    Kind.REJECTED.value: "Rejected",
    Kind.WITHDRAWN.value: "Withdrawn by its writer",
    Kind.EXPIRED.value: "Expired: nobody decided in time",
    Kind.APART.value: "It differs from what was approved, and waits by itself",
    Kind.REOPENED.value: "The approval was taken back: it waits for a decision again",
    Kind.STOPPED.value: "Stopped: those who had not got it do not get it",
    Kind.VOIDED.value: "Void: its sender was told to try again",
    Kind.ADOPTED.value: "It came again, and waits on",
    Kind.ESCALATED.value: "Others were told, since nobody had answered",
    Kind.REMINDED.value: "Those who decide were reminded",
    Kind.RELEASE.value: "An attempt to send it",
    Kind.RELEASED.value: "Its delivery is over",
    Kind.IN_DOUBT.value: "Nobody knows whether the mail server took it",
    Kind.SETTLED.value: "Somebody said whether it was sent",
    Kind.NOTICE.value: "A notice",
    Kind.FREEZE.value: "Frozen",
    Kind.THAW.value: "Thawed",
    Kind.THAW_ASKED.value: "A thaw was asked for",
    Kind.MAILING.value: "The mailing",
    Kind.POLICY.value: "Another policy in force",
    Kind.SECRET.value: "Another secret in force",
    Kind.LIST.value: "A list was read",
    Kind.STREAM.value: "A system sends more than was agreed",
    Kind.ALARM.value: "A rule calls somebody",
    Kind.VIEWED.value: "Looked at",
    Kind.EXPORTED.value: "Exported",
    Kind.ASKED.value: "Its writer was asked",
    Kind.ANSWERED.value: "Its writer says",
    Kind.PLEADED.value: "Its writer asks that it be sent",
    Kind.START.value: "The guard was started",
    Kind.STOP.value: "The guard was stopped",
    Kind.SIGNED_IN.value: "Somebody signed in",
    Kind.SIGN_IN_REFUSED.value: "Somebody was not signed in",
    Kind.SIGNED_OUT.value: "Somebody signed out",
    Kind.ACCOUNT.value: "An account was changed",
    Kind.TOKEN.value: "A program's token was changed",
    Kind.WEBHOOK.value: "A webhook could not be told of it",
    Kind.ERASED.value: "Its time was up: erased",
}
DETAILS: Mapping[str, str] = {
    "relay": "let through",
    "hold": "held",
    "defer": "put off",
    "reject": "rejected by a rule",
    "reasons": "the reasons",
    "text": "the text",
    "full": "all of it",
    "html": "as it looks",
    "sent": "sent",
    "failed": "failed",
    "retry": "to be tried again",
    "relayed": "taken by the mail server",
    "refused": "refused by the mail server",
    "recalled": "stopped on its way",
    "lost": "the connection was lost",
    "gone": "its sender had gone",
    "asked": "people are asked",
}
CHOICES: Mapping[str, str] = {
    "approve": "approve",
    "reject": "reject",
    "taken-back": "taken back",
    "sent": "it was sent",
    "again": "it is to be sent again",
}
NOTICES: Mapping[str, str] = {
    "held": "to its writer",
    "approve": "to those who decide",
    "decided": "about the decision",
    "reminder": "a reminder",
    "doubt": "whether it was sent",
    "escalation": "to others, since nobody answers",
    "question": "a question to its writer",
    "answer": "its writer's answer",
    "plea": "that its writer asks for its release",
    "expired": "nobody has decided",
}
WAS: Mapping[str, str] = dict.fromkeys(("approved", "releasing"), "after it was approved")
DEEDS: Mapping[str, str] = {
    "go": "goes on",
    "stop": "stopped",
    "full": "the stage has reached its people",
    "all": "everybody has got it",
    "time": "the pause is over",
    "reopened": "the decision is taken back",
    "rejected": "what had not gone is rejected",
    "feedback": "bounces and complaints were told",
}
"""What was done to a mailing."""
_TELLING = ("action", "choice", "notice", "outcome", "saw", "state", "was", "what")
_PEOPLES_WORDS = frozenset(
    {
        Kind.VOTE,
        Kind.WITHDRAWN,
        Kind.REOPENED,
        Kind.STOPPED,
        Kind.SETTLED,
        Kind.FREEZE,
        Kind.THAW,
        Kind.THAW_ASKED,
        Kind.ASKED,
        Kind.ANSWERED,
        Kind.PLEADED,
        Kind.MAILING,
    }
)
"""Kinds whose comment is somebody's; of the others it is a program's."""
_SPOKEN = frozenset(kind.value for kind in _PEOPLES_WORDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    at: datetime
    text: str
    who: str = ""
    words: str = ""


def told(entry: Entry, clear: Clear | None, said: Speech) -> Told:
    """``clear``: what names people, None once it was erased."""
    private: Mapping[str, Any] = clear or {}
    data = entry.data
    details = [
        said(words[value])
        for key in _TELLING
        if (value := data.get(key))
        in (words := {"choice": CHOICES, "notice": NOTICES, "was": WAS, "what": DEEDS}.get(key, DETAILS))
        and isinstance(value, str)
    ]
    if entry.kind == Kind.RELEASED.value:
        details += _delivered(data, said)
    kind = said(WORDS[entry.kind]) if entry.kind in WORDS else entry.kind
    more = ", ".join(details)
    comment = " ".join(private.get("comment", ())) if entry.kind in _SPOKEN else ""
    who = private.get("recipients" if entry.kind == Kind.NOTICE.value else "actor", ())
    return Told(
        at=_EPOCH + timedelta(microseconds=entry.at),
        text=f"{kind}: {more}" if more else kind,
        who=", ".join(who[:1]),
        words=reason_of(comment, said),
    )


def _delivered(data: Mapping[str, Any], said: Speech) -> list[str]:
    """What became of the recipients of a release; an earlier version did not say."""
    counts = (
        ("sent", "# recipient has it", "# recipients have it"),
        ("failed", "# recipient could not be reached", "# recipients could not be reached"),
        ("doubted", "of # recipient nobody knows", "of # recipients nobody knows"),
    )
    return [said.many(n, one, several) for key, one, several in counts if (n := int(data.get(key, 0)))]


DECIDED: Mapping[str, str] = {
    "approve": "{who} approved it, {time}.",
    "reject": "{who} rejected it, {time}.",
    "withdrawn": "Its writer has withdrawn it.",
    "expired": "Nobody had decided in time.",
}


def overtaken(hold: Hold, who: str, said: Speech) -> str:
    """Who was faster than ``who``, "" where nobody was."""
    if hold.state in (State.WITHDRAWN, State.EXPIRED):
        return said(DECIDED[hold.state.value])
    others = [vote for vote in hold.votes if vote.approver != who]
    if not others:
        return ""
    last = max(others, key=lambda vote: vote.at)
    return said(DECIDED[last.choice.value], who=last.approver, time=said.when(last.at))


def reason_of(reason: str, said: Speech) -> str:
    """Why something stands still: in somebody's own words, or in the guard's, which are said in the reader's language."""
    return said(reason) if reason == PUT_BACK else reason
