"""English labels for keys of the code: states, reasons, kinds of entries. The catalogues translate them."""

from __future__ import annotations

from collections.abc import Mapping

from smtpguard.accounts.model import Role
from smtpguard.holds.model import LET_GO, Hold
from smtpguard.locale.phrase import N_
from smtpguard.mailings.model import Mailing, State
from smtpguard.mailings.staging import At

STATES: Mapping[str, str] = {
    "waiting": N_("It waits for a decision."),
    "leaving": N_("It is approved, and goes out soon."),
    "approved": N_("It is approved, and is being sent."),
    "releasing": N_("It is being sent."),
    "released": N_("It was approved and has been sent."),
    "stopped": N_("It was approved, but stopped before everyone had received it. The others will not receive it."),
    "undelivered": N_("It was approved, but could not be delivered: no one received it."),
    "in-doubt": N_(
        "It was approved, but it is in doubt whether it was sent: the connection to the mail server was lost."
    ),
    "granted": N_("It was approved: the mailing may go out. The test itself is not sent."),
    "rejected": N_("It was rejected. It is not sent, and never will be."),
    "withdrawn": N_("Its writer withdrew it. It is not sent, and never will be."),
    "expired": N_("It expired without a decision. It was not sent."),
    "void": N_("It is void: the program that sent it was told to try again."),
}
SHORT_STATES: Mapping[str, str] = {
    "waiting": N_("waits"),
    "leaving": N_("approved, goes out soon"),
    "approved": N_("approved"),
    "releasing": N_("being sent"),
    "released": N_("sent"),
    "stopped": N_("stopped before all had it"),
    "undelivered": N_("not delivered"),
    "in-doubt": N_("in doubt"),
    "granted": N_("approved"),
    "rejected": N_("rejected"),
    "withdrawn": N_("withdrawn"),
    "expired": N_("expired"),
    "void": N_("void"),
}
OWN_STATES: Mapping[str, str] = {
    "waiting": N_("It has not been sent. It waits for approval."),
    "leaving": N_("It was approved, and goes out soon, exactly as you wrote it."),
    "approved": N_("It was approved, and is being sent exactly as you wrote it."),
    "releasing": N_("It was approved, and is being sent exactly as you wrote it."),
    "released": N_("It was approved, and has been sent exactly as you wrote it."),
    "stopped": N_("It was approved, but stopped before everyone had received it. The others will not receive it."),
    "undelivered": N_("It was approved, but could not be delivered: no one received it. A separate message says why."),
    "in-doubt": N_(
        "It was approved, but it is in doubt whether it was sent: it may have arrived. Ask before you send it again."
    ),
    "granted": N_("It was approved: the mailing may go out. The test itself is not sent."),
    "rejected": N_("It was rejected. It has not been sent, and will not be."),
    "withdrawn": N_("You withdrew it. It has not been sent, and will not be."),
    "expired": N_("It expired without a decision. It has not been sent, and will not be."),
    "void": N_("It was not taken: your program was told to try again."),
}


def state_key(hold: Hold) -> str:
    """The key of its state in these tables. A release that was stopped after some had got it is "stopped"; an approved
    hold that waits for its release delay is "leaving"."""
    if hold.release_at is not None:
        return "leaving"
    return "stopped" if hold.stopped and hold.state in LET_GO else hold.state.value


def own_states(hold: Hold, *, frozen: bool) -> Mapping[str, str]:
    """The states as its writer reads them. ``frozen``: a freeze stops it."""
    asked = hold.confirm
    if asked is None or (asked.lapsed_at is not None and not asked.expires):
        return KEPT_OWN if frozen else OWN_STATES
    if asked.at is None:
        return ASKED_OWN
    return CONFIRMED_KEPT if frozen else CONFIRMED_OWN


WHY_NOT: Mapping[str, str] = {
    "": "",
    "decided": N_("It is decided already."),
    "own": N_("You wrote it, and cannot decide on your own message."),
    "voted": N_("You have approved it. It waits for others now."),
    "leaving": N_("It is approved already, and goes out."),
    "role": N_("You can view it; others decide."),
    "group": N_("Other groups decide on it."),
    "writer": N_("Its writer is asked to confirm it. If they do not confirm it in time, you are asked."),
}
DONE: Mapping[str, str] = {
    "": "",
    "approve": N_("Your approval counts."),
    "reject": N_("It is rejected, and its writer is told why."),
    "unvoted": N_("Your approval is taken back."),
    "undone": N_("It is undone. Nothing was sent, and it waits for a decision again."),
    "asked": N_("The question is on its way to its writer."),
    "sent": N_("It is recorded as sent."),
    "again": N_("It is sent again."),
    "confirmed": N_("You confirmed it."),
    "withdrawn": N_("It is withdrawn. It will not be sent."),
    "answered": N_("The approvers are told."),
    "pleaded": N_("The approvers are told that you ask for its release."),
    "judged": N_("Thank you. It is counted."),
    "mailing": N_("It is done."),
    "people-asked": N_("Another approver must agree; then you both can see who received it."),
    "people-agreed": N_("You agreed: you both can see who received it now."),
    "correcting": N_(
        "The correction waits until others have approved it. Then a copy for each of those who got the mailing passes, and none for anybody else."
    ),
    "thawed": N_("It is lifted. Mail goes on."),
    "thaw-asked": N_("Another person must agree; then it is lifted."),
}
KEPT_STATES: Mapping[str, str] = {
    "waiting": STATES["waiting"],
    "leaving": N_("It is approved, and has not gone."),
    "approved": N_("It is approved, and has not gone."),
    "releasing": N_("It is approved, and not all of it has gone."),
}
"""For holds that a freeze stops."""
KEPT_OWN: Mapping[str, str] = {
    "waiting": OWN_STATES["waiting"],
    "leaving": N_("It was approved, and has not been sent yet."),
    "approved": N_("It was approved, and has not been sent yet."),
    "releasing": N_("It was approved, and has not been sent to everybody yet."),
}
ASKED_OWN: Mapping[str, str] = {
    **OWN_STATES,
    "waiting": N_("It has not been sent yet. Is it meant?"),
    "expired": N_("You did not confirm it in time. It has not been sent, and will not be."),
}
"""For holds whose writer is asked."""
CONFIRMED_OWN: Mapping[str, str] = {
    **OWN_STATES,
    "approved": N_("You confirmed it, and it is being sent exactly as you wrote it."),
    "releasing": N_("You confirmed it, and it is being sent exactly as you wrote it."),
    "released": N_("You confirmed it, and it has been sent exactly as you wrote it."),
}
CONFIRMED_KEPT: Mapping[str, str] = {
    "approved": N_("You confirmed it, and it has not been sent yet."),
    "releasing": N_("You confirmed it, and it has not been sent to everybody yet."),
}
FROZEN: Mapping[str, str] = {
    "all": N_("everything"),
    "list": N_("the list {name}"),
    "sender": N_("mail from {name}"),
    "mailing": N_("the mailing {name}"),
    "thread": N_("a conversation"),
}
"""What a freeze stops, by its selector."""
MAILING_STATES: Mapping[str, str] = {
    "passing": N_("No decision on it is in force."),
    "held": N_("It waits for a decision."),
    "approved": N_("It is approved."),
    "paused": N_("It is approved, and pauses between two stages."),
    "stopped": N_("It is approved, and its release in stages is stopped."),
    "rejected": N_("It is rejected. Further copies are refused."),
}


def mailing_state(mailing: Mailing) -> str:
    """The sentence for its state, in English."""
    stopped = mailing.state is State.PAUSED and mailing.progress is not None and mailing.progress.at is At.STOPPED
    return MAILING_STATES["stopped" if stopped else mailing.state.value]


CATEGORIES: Mapping[str, str] = {
    "": N_("special category"),
    "ethnicity": N_("ethnic origin: special category"),
    "politics": N_("political opinion: special category"),
    "religion": N_("religion: special category"),
    "union": N_("trade union: special category"),
    "genetics": N_("genetic data: special category"),
    "biometrics": N_("biometric data: special category"),
    "health": N_("health: special category"),
    "sexuality": N_("sex life or orientation: special category"),
}
"""GDPR Art. 9, in plain words."""
AUDIENCES: Mapping[str, str] = {  # those that the policy knows; a list may have another
    "customers": N_("customers"),
    "colleagues": N_("colleagues"),
    "employees": N_("employees"),
    "internal": N_("internal"),
    "staff": N_("staff"),
}

ROLES: Mapping[Role, str] = {
    Role.VIEWER: N_("viewer"),
    Role.APPROVER: N_("approver"),
    Role.OPERATOR: N_("operator"),
    Role.ADMIN: N_("admin"),
}
GAPS: Mapping[str, str] = {
    "no-group": N_(
        "{address} has the approver's role and is in no group of the policy: they see no holds, and can decide on none."
    ),
    "no-account": N_("{address} is asked to decide ({groups}) and has no account."),
    "disabled": N_("{address} is asked to decide ({groups}) and has an account that is disabled."),
    "no-role": N_("{address} is asked to decide ({groups}) and has an account without the approver's role."),
}
"""By accounts.model.Gap."""
