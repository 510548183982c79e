"""Words for what the code knows by a key: states, reasons, kinds of entries. In English, as swedish.py looks them up."""

from __future__ import annotations

from collections.abc import Mapping

from smtpguard.holds.model import LET_GO, Hold
from smtpguard.mailings.model import Mailing, State
from smtpguard.mailings.staging import At

STATES: Mapping[str, str] = {
    "waiting": "It waits for a decision.",
    "approved": "It is approved, and is being sent.",
    "releasing": "It is being sent.",
    "released": "It was approved and is sent.",
    "stopped": "It was approved, and stopped before everybody had it: those who had not got it do not get it.",
    "undelivered": "It was approved, but could not be delivered: nobody got it.",
    "in-doubt": "It was approved, and nobody knows whether it was sent: the connection to the mail server was lost.",
    "granted": "It was approved: the mailing may go out. The test itself is not sent.",
    "rejected": "It was rejected. It is not sent, and never will be.",
    "withdrawn": "Its writer withdrew it. It is not sent, and never will be.",
    "expired": "Nobody decided in time. It was not sent.",
    "void": "It is void: the program that sent it was told to try again.",
}
SHORT_STATES: Mapping[str, str] = {
    "waiting": "waits",
    "approved": "approved",
    "releasing": "being sent",
    "released": "sent",
    "stopped": "stopped before all had it",
    "undelivered": "not delivered",
    "in-doubt": "in doubt",
    "granted": "approved",
    "rejected": "rejected",
    "withdrawn": "withdrawn",
    "expired": "expired",
    "void": "void",
}
OWN_STATES: Mapping[str, str] = {
    "waiting": "It has not been sent. It waits until somebody has looked at it.",
    "approved": "It was approved, and is being sent exactly as you wrote it.",
    "releasing": "It was approved, and is being sent exactly as you wrote it.",
    "released": "It was approved, and is sent exactly as you wrote it.",
    "stopped": "It was approved, and stopped before everybody had it: those who had not got it do not get it.",
    "undelivered": "It was approved, but could not be delivered: nobody got it. A message of its own says why.",
    "in-doubt": "It was approved, and nobody knows whether it was sent: it may have arrived. Ask before you send it again.",
    "granted": "It was approved: the mailing may go out. The test itself is not sent.",
    "rejected": "It was rejected. It has not been sent, and will not be.",
    "withdrawn": "You withdrew it. It has not been sent, and will not be.",
    "expired": "Nobody decided in time. It has not been sent, and will not be.",
    "void": "It was not taken: your program was told to try again.",
}


def state_key(hold: Hold) -> str:
    """Its state, as these know it: what was stopped when some had it was not simply sent."""
    return "stopped" if hold.stopped and hold.state in LET_GO else hold.state.value


WHY_NOT: Mapping[str, str] = {
    "": "",
    "decided": "It is decided already.",
    "own": "You wrote it, and nobody decides on their own message.",
    "voted": "You have approved it. It waits for others now.",
    "role": "You may look at it, and others decide.",
    "group": "Others are asked to decide on it.",
}
DONE: Mapping[str, str] = {
    "": "",
    "approve": "Your approval counts.",
    "reject": "It is rejected, and its writer is told why.",
    "unvoted": "Your approval is taken back.",
    "asked": "The question is on its way to its writer.",
    "sent": "It is written down that it was sent.",
    "again": "It is sent again.",
    "withdrawn": "It is withdrawn. It will not be sent.",
    "answered": "Those who decide are told.",
    "pleaded": "Those who decide are told that you ask for its release.",
    "mailing": "It is done.",
    "thawed": "It is lifted. Mail goes on.",
    "thaw-asked": "Somebody else must agree now, and then it is lifted.",
}
KEPT_STATES: Mapping[str, str] = {
    "waiting": STATES["waiting"],
    "approved": "It is approved, and has not gone.",
    "releasing": "It is approved, and not all of it has gone.",
}
"""Of what a freeze stops."""
KEPT_OWN: Mapping[str, str] = {
    "waiting": OWN_STATES["waiting"],
    "approved": "It was approved, and has not been sent yet.",
    "releasing": "It was approved, and has not been sent to everybody yet.",
}
FROZEN: Mapping[str, str] = {
    "all": "everything",
    "list": "the list {name}",
    "sender": "mail from {name}",
    "mailing": "the mailing {name}",
    "thread": "a conversation",
}
"""What a freeze stops, by its selector."""
MAILING_STATES: Mapping[str, str] = {
    "passing": "Nothing stands decided about it.",
    "held": "It waits for a decision.",
    "approved": "It is approved.",
    "paused": "It is approved, and stands between two stages.",
    "stopped": "It is approved, and its release in stages is stopped.",
    "rejected": "It is rejected. What comes of it is refused.",
}


def mailing_state(mailing: Mailing) -> str:
    """The sentence for where it stands, in English."""
    stopped = mailing.state is State.PAUSED and mailing.progress is not None and mailing.progress.at is At.STOPPED
    return MAILING_STATES["stopped" if stopped else mailing.state.value]


CATEGORIES: Mapping[str, str] = {
    "": "special category",
    "ethnicity": "ethnic origin: special category",
    "politics": "political opinion: special category",
    "religion": "religion: special category",
    "union": "trade union: special category",
    "genetics": "genetic data: special category",
    "biometrics": "biometric data: special category",
    "health": "health: special category",
    "sexuality": "sex life or orientation: special category",
}
"""GDPR Art. 9, in plain words."""
GAPS: Mapping[str, str] = {
    "no-group": "{address} has the approver's role and is in no group of the policy: nothing is shown to them, and they decide on nothing.",
    "no-account": "{address} is asked to decide ({groups}) and has no account.",
    "disabled": "{address} is asked to decide ({groups}) and has an account that is disabled.",
    "no-role": "{address} is asked to decide ({groups}) and has an account without the approver's role.",
}
"""accounts.model.Gap."""
