"""English words for keys of the code: states, reasons, roles, categories. The catalogues translate them."""

from __future__ import annotations

from collections.abc import Mapping

from smtpguard.accounts.model import Role
from smtpguard.holds.effects import TEST
from smtpguard.holds.model import Hold, State
from smtpguard.locale.phrase import N_
from smtpguard.locale.phrase import Said as Text
from smtpguard.locale.speech import Speech
from smtpguard.mailings.model import Mailing
from smtpguard.mailings.model import State as MailingState
from smtpguard.mailings.staging import At
from smtpguard.policy.freezing import PUT_BACK

STATES: Mapping[str, str] = {
    "waiting": N_("It waits for a decision."),
    "leaving": N_("It is approved, and can still be undone."),
    "approved": N_("It is being sent."),
    "releasing": N_("It is being sent."),
    "released": N_("It has been sent."),
    "stopped": N_("It was stopped before everyone had received it. The others will not receive it."),
    "undelivered": N_("It could not be delivered: no one received it."),
    "in-doubt": N_("It is in doubt whether it was sent: the connection to the mail server was lost."),
    "granted": N_("It was approved, and so was its mailing. The test itself is not sent."),
    "rejected": N_("It was rejected. It is not sent, and never will be."),
    "withdrawn": N_("Its writer withdrew it. It is not sent, and never will be."),
    "expired": N_("It expired without a decision. It was not sent."),
    "void": N_("It is void: the program that sent it was told to try again."),
}
SHORT_STATES: Mapping[str, str] = {
    "waiting": N_("waits"),
    "leaving": N_("approved, can still be undone"),
    "approved": N_("to be sent"),
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
    "stopped": N_("It was stopped before everyone had received it. The others will not receive it."),
    "undelivered": N_("It could not be delivered: no one received it. A separate message says why."),
    "in-doubt": N_("It is in doubt whether it was sent: it may have arrived. Ask before you send it again."),
    "granted": N_("It was approved, and so was its mailing. The test itself is not sent."),
    "rejected": N_("It was rejected. It has not been sent, and will not be."),
    "withdrawn": N_("It was withdrawn. It has not been sent, and will not be."),
    "expired": N_("It expired without a decision. It has not been sent, and will not be."),
    "void": N_("It was not taken: your program was told to try again."),
}
TEST_OWN_STATES: Mapping[str, str] = {**OWN_STATES, "waiting": N_("It waits for approval.")}
CORRECTION_STATES = {"granted": N_("It was approved, and so was one copy for each of those people.")}
WHY_NOT: Mapping[str, str] = {
    "": "",
    "decided": N_("It is decided already."),
    "own": N_("You wrote it, and cannot decide on your own message."),
    "voted": N_("You have approved it. It waits for others now."),
    "leaving": N_("It is approved already."),
    "over": N_("Its time is over: it is not sent."),
    "role": N_("You can view it; others decide."),
    "group": N_("Other groups decide on it."),
    "writer": N_("Its writer is asked to confirm it. Nobody else can let it go."),
}
LATE = N_("Its time is over, but its last reminder is still due: a decision counts.")
"""The sentence for a message that waits, and does not expire before its last reminder."""
DONE: Mapping[str, str] = {
    "": "",
    "approve": N_("Your approval counts."),
    "reject": N_("It is rejected, and its writer is told."),
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
    "done": N_("It is done."),
    "none": N_("Nothing is decided: choose at least one message that waits for you."),
    "people-asked": N_("Another approver must agree; then you both can see who received it."),
    "people-agreed": N_("You agreed: you both can see who received it now."),
    "correcting": N_(
        "The correction waits until others have approved it. Then a copy for each of those who got the mailing passes, and none for anybody else."
    ),
    "thawed": N_("It is lifted. What was approved goes out, unless another freeze stops it."),
    "thaw-asked": N_("Another person must agree; then it is lifted."),
}
FROZEN_STATES: Mapping[str, str] = {
    **STATES,
    "approved": N_("It has not gone yet."),
    "releasing": N_("Not all of it has gone yet."),
}
"""The sentences for holds that a freeze stops."""
FROZEN_OWN_STATES: Mapping[str, str] = {
    **OWN_STATES,
    "leaving": N_("It was approved, and has not been sent yet."),
    "approved": N_("It was approved, and has not been sent yet."),
    "releasing": N_("It was approved, and has not been sent to everybody yet."),
}
ASKED_OWN_STATES: Mapping[str, str] = {
    **OWN_STATES,
    "waiting": N_("It has not been sent yet. Is it meant?"),
    "expired": N_("You did not confirm it in time. It has not been sent, and will not be."),
}
"""The sentences for holds whose writer is asked."""
CONFIRMED_OWN_STATES: Mapping[str, str] = {
    **OWN_STATES,
    "approved": N_("You confirmed it, and it is being sent exactly as you wrote it."),
    "releasing": N_("You confirmed it, and it is being sent exactly as you wrote it."),
    "released": N_("You confirmed it, and it has been sent exactly as you wrote it."),
}
CONFIRMED_FROZEN_STATES: Mapping[str, str] = {
    **OWN_STATES,
    "approved": N_("You confirmed it, and it has not been sent yet."),
    "releasing": N_("You confirmed it, and it has not been sent to everybody yet."),
}
SELECTORS: Mapping[str, str] = {
    "all": N_("everything"),
    "list": N_("the list {name}"),
    "sender": N_("mail from {name}"),
    "mailing": N_("the mailing {name}"),
    "thread": N_("a conversation"),
}
"""What a freeze stops, by its selector."""
MAILING_STATES: Mapping[str, str] = {
    "passing": N_("No decision on it is in force."),
    "confirmed": N_("Its writer confirmed it."),
    "held": N_("It waits for a decision."),
    "approved": N_("It is approved."),
    "paused": N_("It is approved, and pauses between two stages."),
    "stopped": N_("It is approved, and its release in stages is stopped."),
    "rejected": N_("It is rejected. Further copies are refused."),
}
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
AUDIENCES: Mapping[str, str] = {  # those that the policy knows: a list may have another
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
"""The sentences for mismatches between accounts and the policy (accounts.model.Gap)."""
_DECISIONS: Mapping[str, str] = {
    "approve": N_("{who} approved it, {time}."),
    "reject": N_("{who} rejected it, {time}."),
    "withdrawn": N_("Its writer has withdrawn it."),
    "expired": N_("It expired without a decision."),
}


def states(hold: Hold, *, frozen: bool) -> Mapping[str, str]:
    """Return the sentences for a hold's states (Hold.shown_state) as approvers read them. ``frozen``: whether a freeze stops it."""
    found = FROZEN_STATES if frozen else STATES
    return {**found, **CORRECTION_STATES} if hold.correction is not None else found


def own_states(hold: Hold, *, frozen: bool) -> Mapping[str, str]:
    """Return the sentences for a hold's states as its writer reads them. ``frozen``: whether a freeze stops it."""
    if hold.kind == TEST:
        return {**TEST_OWN_STATES, **CORRECTION_STATES} if hold.correction is not None else TEST_OWN_STATES
    asked = hold.confirm
    answered = asked and (asked.at or asked.lapsed_at)
    if asked is None or (answered and hold.reopened_at and answered <= hold.reopened_at):  # others decide
        return FROZEN_OWN_STATES if frozen else OWN_STATES
    if asked.at is None:
        return ASKED_OWN_STATES
    return CONFIRMED_FROZEN_STATES if frozen else CONFIRMED_OWN_STATES


def mailing_state(mailing: Mailing) -> str:
    """Return the sentence for a mailing's state, in English."""
    if mailing.release_at is not None:
        return STATES["leaving"]
    stopped = (
        mailing.state is MailingState.PAUSED and mailing.progress is not None and mailing.progress.at is At.STOPPED
    )
    confirmed = mailing.state is MailingState.PASSING and mailing.grant is not None
    return MAILING_STATES["stopped" if stopped else "confirmed" if confirmed else mailing.state.value]


def earlier_decision(hold: Hold, who: str, said: Speech) -> str:
    """Return the decision or the last vote that came before the vote of ``who``, "" if there is none."""
    if hold.state in (State.WITHDRAWN, State.EXPIRED):
        return said(_DECISIONS[hold.state.value])
    others = [vote for vote in hold.votes if vote.approver != who]
    if not others:
        return ""
    last = others[-1]
    return said(_DECISIONS[last.choice.value], who=last.approver, time=said.when(last.at))


def freeze_reason(reason: Text, said: Speech) -> str:
    """Return the reason of a freeze: in a person's own words, or in the guard's, which are translated."""
    return said(reason) if reason == PUT_BACK else said.say(reason)
