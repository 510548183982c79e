"""The journal in words: what an entry says happened, who did it and their comment; and the proof of the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from smtpguard.console.labels import freeze_reason
from smtpguard.holds.replying import Uncounted
from smtpguard.incidents.report import Findings
from smtpguard.journal.chain import Clear, Entry, instant, readable_time
from smtpguard.journal.checkpoint import Lost
from smtpguard.journal.event import Kind, follows, happened
from smtpguard.journal.proof import Proof
from smtpguard.locale.phrase import N_, NN_, Phrase, load
from smtpguard.locale.speech import Speech
from smtpguard.mailings.model import is_automatic
from smtpguard.returns.model import REASONS


@dataclass(frozen=True, slots=True)
class KindWords:
    """The words for a kind of entries. ``lane``: its lane in an incident's chart, if that depends on the kind alone. ``decides``:
    whether people decide on mail by it. ``spoken``: whether a person wrote its comment, and not a program."""

    text: str
    lane: str = ""
    decides: bool = False
    spoken: bool = False


KIND_WORDS: Mapping[str, KindWords] = {
    Kind.VERDICT.value: KindWords(N_("Received and judged")),
    Kind.REFUSED.value: KindWords(N_("The mail server refused the recipients; no message came"), lane="stopped"),
    Kind.OUTCOME.value: KindWords(N_("Outcome")),
    Kind.VOTE.value: KindWords(N_("A vote"), lane="people", decides=True, spoken=True),
    Kind.VOTE_REFUSED.value: KindWords(N_("A vote by mail that does not count")),
    Kind.APPROVED.value: KindWords(N_("Approved: the quorum is complete"), decides=True),
    Kind.CONFIRMED.value: KindWords(N_("Confirmed by its writer"), decides=True),
    Kind.UNCONFIRMED.value: KindWords(N_("Its writer is no longer asked: it waits for the approvers"), decides=True),
    Kind.REJECTED.value: KindWords(N_("Rejected"), lane="stopped", decides=True),
    Kind.WITHDRAWN.value: KindWords(N_("Withdrawn by its writer"), lane="stopped", decides=True, spoken=True),
    Kind.EXPIRED.value: KindWords(N_("Expired without a decision"), lane="stopped", decides=True),
    Kind.APART.value: KindWords(N_("Differs from the approved copies; held on its own")),
    Kind.REOPENED.value: KindWords(
        N_("The approval no longer counts: it waits for a decision again"), decides=True, spoken=True
    ),
    Kind.STOPPED.value: KindWords(N_("Stopped before all had received it"), lane="stopped", decides=True, spoken=True),
    Kind.VOIDED.value: KindWords(N_("Void: its client was told to try again")),
    Kind.ADOPTED.value: KindWords(N_("Sent again; still held")),
    Kind.ESCALATED.value: KindWords(N_("Escalated, since no one had decided")),
    Kind.REMINDED.value: KindWords(N_("Those who are asked were reminded")),
    Kind.RELEASE.value: KindWords(N_("An attempt to send it")),
    Kind.RELEASED.value: KindWords(N_("Delivery completed")),
    Kind.IN_DOUBT.value: KindWords(N_("In doubt whether the mail server accepted it")),
    Kind.SETTLED.value: KindWords(N_("Settled: whether it was sent"), lane="people", decides=True, spoken=True),
    Kind.NOTICE.value: KindWords(N_("A notice")),
    Kind.FREEZE.value: KindWords(N_("Frozen"), lane="stopped", spoken=True),
    Kind.THAW.value: KindWords(N_("Thawed"), lane="people", spoken=True),
    Kind.THAW_ASKED.value: KindWords(N_("A thaw was asked for"), lane="people", spoken=True),
    Kind.MAILING.value: KindWords(N_("The mailing"), lane="people", decides=True, spoken=True),
    Kind.POLICY.value: KindWords(N_("New policy in force")),
    Kind.SECRET.value: KindWords(N_("New secret in force")),
    Kind.PRESERVED.value: KindWords(N_("An incident's data is kept beyond its retention")),
    Kind.INCIDENT.value: KindWords(N_("Information on an incident was recorded"), spoken=True),
    Kind.RETENTION.value: KindWords(N_("Retention changed, now or in a day")),
    Kind.KEY.value: KindWords(N_("New signing key")),
    Kind.LIST.value: KindWords(N_("A list was read")),
    Kind.RETURNED.value: KindWords(N_("A return")),
    Kind.TRIPPED.value: KindWords(N_("What came back stops the rest")),
    Kind.STREAM.value: KindWords(N_("A system exceeds its limit")),
    Kind.ALARM.value: KindWords(N_("A rule alerts a person")),
    Kind.TAKEN.value: KindWords(N_("A person takes an alarm")),
    Kind.VIEWED.value: KindWords(N_("Viewed"), lane="people"),
    Kind.EXPORTED.value: KindWords(N_("Exported")),
    Kind.ASKED.value: KindWords(N_("Its writer was asked"), spoken=True),
    Kind.ANSWERED.value: KindWords(N_("Its writer says"), spoken=True),
    Kind.PLEADED.value: KindWords(N_("Its writer asks that it be sent"), spoken=True),
    Kind.JUDGED.value: KindWords(N_("Its writer's judgement")),
    Kind.BYPASS.value: KindWords(N_("Emergency bypass"), spoken=True),
    Kind.START.value: KindWords(N_("The guard was started")),
    Kind.STOP.value: KindWords(N_("The guard was stopped")),
    Kind.SIGNED_IN.value: KindWords(N_("Sign-in")),
    Kind.SIGN_IN_REFUSED.value: KindWords(N_("Sign-in refused")),
    Kind.SIGNED_OUT.value: KindWords(N_("Sign-out")),
    Kind.ACCOUNT.value: KindWords(N_("An account was changed")),
    Kind.ABSENCE.value: KindWords(N_("Absence changed")),
    Kind.GROUP.value: KindWords(N_("Others are in a group by now")),
    Kind.TOKEN.value: KindWords(N_("A program's token was changed")),
    Kind.WEBHOOK.value: KindWords(N_("A webhook could not be notified")),
    Kind.ERASED.value: KindWords(N_("Data was erased")),
}
DETAILS: Mapping[str, str] = {
    "relay": N_("let through"),
    "confirm": N_("held, and its writer asked"),
    "hold": N_("held"),
    "defer": N_("deferred"),
    "reject": N_("rejected on arrival"),
    "reasons": N_("the reasons"),
    "text": N_("the text"),
    "full": N_("all of it"),
    "html": N_("as it looks"),
    "sent": N_("sent"),
    "failed": N_("failed"),
    "obsolete": N_("no longer needed, and not sent"),
    "retry": N_("to be tried again"),
    "relayed": N_("taken by the mail server"),
    "refused": N_("refused by the mail server"),
    "recalled": N_("stopped on its way"),
    "lost": N_("the connection was lost"),
    "gone": N_("its client had disconnected"),
    "asked": N_("people are asked"),
    "right": N_("it was right to stop it"),
    "mistake": N_("it was a mistake to stop it"),
}
BYPASS_CHANGES: Mapping[str, str] = {
    "begun": N_("begun by two people"),
    "adopted": N_("what was relayed without the database is in the journal"),
    "ended": N_("ended"),
}
"""The changes of a bypass."""
CHOICES: Mapping[str, str] = {
    "approve": N_("approve"),
    "reject": N_("reject"),
    "taken-back": N_("taken back"),
    "lapsed": N_("the quorum was no longer complete"),
    "sent": N_("it was sent"),
    "again": N_("it is to be sent again"),
}
PROOFS: Mapping[str, str] = {
    "login": N_("by mail, from their own login"),
    "dkim": N_("by mail, signed by their domain"),
    "token": N_("by mail, without proof of who wrote it"),
}
"""How a vote by mail was cast, by its proof."""
CONFIRMED_BY: Mapping[str, str] = {
    "mail": PROOFS["login"],
    "link": N_("by the link in its notice"),
    "account": N_("at the console"),
    "token": N_("through the API"),
    "command": N_("by a command"),
}
"""How a writer confirmed a message, by ``way`` of the entry. Its ``proof`` is that of the message."""
NOT_COUNTED: Mapping[str, Phrase] = {no.name.lower(): no.value for no in Uncounted}
"""The reason why a vote by mail does not count, by ``why`` of its entry."""
NOTICES: Mapping[str, str] = {
    "held": N_("to its writer"),
    "approve": N_("to the approvers"),
    "confirm": N_("the question to its writer whether it is meant"),
    "rejected": N_("that it was refused"),
    "decided": N_("about the decision"),
    "deputy": N_("that a deputy waits for an admin"),
    "reminder": N_("a reminder"),
    "doubt": N_("the question whether it was sent"),
    "escalation": N_("escalated"),
    "question": N_("a question to its writer"),
    "answer": N_("its writer's answer"),
    "plea": N_("that its writer asks for its release"),
    "expired": N_("no decision yet"),
    "voted": N_("about a vote by mail"),
    "stages": N_("that its stages wait for a person"),
}
_WAS: Mapping[str, str] = dict.fromkeys(("approved", "releasing"), N_("after it was approved"))
MAILING_CHANGES: Mapping[str, str] = {
    "go": N_("goes on"),
    "stop": N_("stopped"),
    "full": N_("the stage has reached its people"),
    "all": N_("all have received it"),
    "time": N_("the pause is over"),
    "reopened": N_("the decision is taken back"),
    "rejected": N_("what was not sent yet is rejected"),
    "feedback": N_("bounces and complaints were told"),
    "correction": N_("a correction of it was begun"),
    "people asked": N_("one person wants to be told who got it"),
    "people agreed": N_("a second person agrees that it is told who got it"),
    "people": N_("addresses of those who received it"),
    "approvers": N_("how each approver decided"),
    "privacy": N_("what is kept about one person"),
    "person": N_("what was kept about one person"),
}
"""The changes of a mailing."""
_VALUE_WORDS: Mapping[str, Mapping[str, str]] = {
    "action": DETAILS, "choice": CHOICES, "proof": PROOFS, "notice": NOTICES, "outcome": DETAILS,
    "said": DETAILS, "saw": DETAILS, "state": DETAILS, "was": _WAS, "what": MAILING_CHANGES,
}  # fmt: skip
"""The keys of an entry's data whose values are shown, in this order, and the words for their values."""
_BESIDE = {
    "policy": N_("policy"),
    "freeze": N_("freeze"),
    "hold": N_("hold"),
    "mailing": N_("mailing"),
    "journal": N_("journal"),
    "checkpoints": N_("checkpoints"),
}
"""The data beside the journal that a proof compares with it (``Proof.beside``)."""
QUESTIONS_AND_ANSWERS = (Kind.ASKED, Kind.ANSWERED, Kind.PLEADED)
"""The kinds of entries that are questions to a writer, and their answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryText:
    """An entry in words. ``who``: the people, "" for none; ``words``: the comment of a person, "" for none."""

    kind: str
    at: datetime
    text: str
    who: str = ""
    words: str = ""


def entry_in_words(entry: Entry, clear: Clear | None, said: Speech) -> EntryText:
    """Return an entry in words. ``clear``: its names and addresses, None once they are erased."""
    private: Mapping[str, Any] = clear or {}
    data = entry.data
    if entry.kind == Kind.TRIPPED.value:
        return EntryText(kind=entry.kind, at=instant(entry.at), text=breaker_in_words(data, said))
    shown = {"way": CONFIRMED_BY} if entry.kind == Kind.CONFIRMED.value else _VALUE_WORDS
    told = ((words, data.get(key)) for key, words in shown.items())
    details = [said(words[value]) for words, value in told if isinstance(value, str) and value in words]
    if entry.kind == Kind.BYPASS.value:
        details.append(said(BYPASS_CHANGES.get(str(data.get("change")), "")))
    if entry.kind == Kind.MAILING.value and (why := data.get("why")):
        details.append(said.say(load(why)))
    if "bypass" in data:
        when = instant(happened(entry.at, data))
        details.append(
            said("without the database, under the bypass {id}, at {time}", id=data["bypass"], time=said.when(when))
        )
    if entry.kind == Kind.VOTE.value and isinstance(at := data.get("release_at"), str):
        details.append(said("it can be undone until {time}", time=said.clock_in_zone(datetime.fromisoformat(at))))
    if entry.kind == Kind.VOTE_REFUSED.value and (why := NOT_COUNTED.get(str(data.get("why")))):
        details.append(said.say(why))
    if entry.kind == Kind.RELEASED.value:
        details += _outcomes(data, said)
    elif entry.kind in (Kind.RELEASE.value, Kind.IN_DOUBT.value):
        details += _attempted(data, said)
    kind = KIND_WORDS.get(entry.kind, KindWords(entry.kind))  # of another version
    more = ", ".join(details)
    comment = " ".join(private.get("comment", ())) if kind.spoken else ""
    who = private.get("recipients" if entry.kind == Kind.NOTICE.value else "actor", ())
    return EntryText(
        kind=entry.kind,
        at=instant(entry.at),
        text=f"{said(kind.text)}: {more}" if more else said(kind.text),
        who=", ".join(who if entry.kind == Kind.BYPASS.value else who[:1]),
        words=freeze_reason(comment, said),
    )


def is_decision(entry: Entry) -> bool:
    """Return whether people decided on mail by this entry. They did not if it follows another's decision, or if stages stop by
    themselves."""
    automatic = entry.kind == Kind.MAILING.value and is_automatic(entry.data)
    return entry.kind in KIND_WORDS and KIND_WORDS[entry.kind].decides and not follows(entry.data) and not automatic


def breaker_in_words(data: Mapping[str, Any], said: Speech) -> str:
    """Return what a breaker did, with its figures if the entry has them."""
    words = (
        said("A breaker would have stopped the rest") if data.get("observed") else said("A breaker stopped the rest")
    )
    if (reason := REASONS.get(data.get("breaker", ""))) is None:
        return words
    figures = {"n": said.number(data.get("counted", 0)), "people": said.number(data.get("people", 0))}
    return f"{words}. {said(reason, limit=data.get('limit', ''), **figures)}"


def _outcomes(data: Mapping[str, Any], said: Speech) -> list[str]:
    """Return the outcomes of a release's recipients. Earlier versions did not record them."""
    counts = (
        ("sent", NN_("{n} recipient has it", "{n} recipients have it")),
        ("failed", NN_("{n} recipient could not be reached", "{n} recipients could not be reached")),
        ("doubted", NN_("{n} recipient is in doubt", "{n} recipients are in doubt")),
    )
    return [said.ngettext(*forms, n) for key, forms in counts if (n := int(data.get(key, 0)))]


def _attempted(data: Mapping[str, Any], said: Speech) -> Iterator[str]:
    """Yield the number of recipients of an attempt, and the code of the mail server's answer."""
    if n := int(data.get("recipients", 0)):
        yield said.ngettext("for {n} recipient", "for {n} recipients", n)
    if (code := str(data.get("code", "")))[:1].isdecimal():
        yield said("the mail server answered {code}", code=code)


def proof_in_words(found: Findings, said: Speech) -> str:
    """Return the proof in one line, with what it was compared with."""
    if found.proof is None:
        first = said("not looked for")
    elif found.proof.first_bad is None:
        first = said("the journal is whole: all {n} entries are verified", n=said.number(found.proof.entries))
    else:
        bad = found.proof.first_bad
        first = said(
            "THE JOURNAL WAS ALTERED: entry {seq}: {problem}", seq=said.number(bad.seq), problem=said.say(bad.problem)
        )
    parts = [first, said("up to entry {seq}, {hash}", seq=said.number(found.seq), hash=found.hash.hex())]
    parts[1:1] = remarks(found.proof, said) if found.proof is not None else ()
    if (mark := found.checkpoint) is not None:
        parts.append(said("entry {seq} signed {when}", seq=said.number(mark.seq), when=readable_time(mark.at)))
    return "; ".join(parts)


def remarks(proof: Proof, said: Speech) -> Iterator[str]:
    """Yield what is no fault of the journal, but should be known."""
    for lost in proof.lost:
        if not lost.through:
            yield said(
                "the store was put back (entry {seq}, {when}): it is not known how many entries are missing",
                seq=said.number(lost.seq),
                when=readable_time(lost.at),
            )
            continue
        yield said(
            "the store was put back (entry {seq}, {when}): entries up to {last}, signed until {end}, are not in it",
            seq=said.number(lost.seq),
            when=readable_time(lost.at),
            last=said.number(lost.through),
            end=readable_time(lost.signed_at),
        )
    if proof.renewed:
        yield said(
            "another secret is in force since entry {seq}: names in older entries could not be verified",
            seq=said.number(proof.renewed),
        )
    if proof.others:
        names = ", ".join(proof.others)
        yield said("the state folder also has checkpoints of another store: journal {names}", names=names)
    if proof.unreadable:
        yield said.ngettext(
            "{n} line of the file of checkpoints cannot be read",
            "{n} lines of the file of checkpoints cannot be read",
            proof.unreadable,
        )
    if proof.trimmed:
        yield said("retention has deleted the entries up to {seq}", seq=said.number(proof.trimmed))
    for one in proof.backwards:
        yield said.ngettext(
            "times go backwards: entry {seq} is from {at}, after one from {before}",
            "times go backwards: {n} entries from {seq} on are older than the one before, the first from {at} after {before}",
            one.entries,
            seq=said.number(one.seq),
            at=readable_time(one.at),
            before=readable_time(one.before),
        )
    for id, messages in proof.bypassed.items():
        yield said.ngettext(
            "{n} message was relayed without the database, under the bypass {id}",
            "{n} messages were relayed without the database, under the bypass {id}",
            messages,
            id=id,
        )
    if not proof.filed:
        yield said("the state folder has no checkpoints of this journal: a missing end could not be detected")
    if proof.witnessed is None and proof.first_bad is None:
        yield said("no witness has a checkpoint of it: root on this host could have rewritten all of it")
    elif proof.witnessed is not None and proof.first_bad is None:
        seq, at = proof.witnessed
        yield said(
            "a witness has a checkpoint of entry {seq}, signed {when}: only this host vouches for later entries",
            seq=said.number(seq),
            when=readable_time(at),
        )


def disagreements(proof: Proof, said: Speech) -> Iterator[str]:
    """Yield the data beside the journal that disagrees with it."""
    for one in proof.beside:
        yield said("{what} {id}: {problem}", what=said(_BESIDE[one.about]), id=one.id, problem=said.say(one.problem))


def missing_period(lost: Lost, said: Speech) -> str:
    """Return the period that is missing from the journal."""
    end = readable_time(lost.signed_at)
    if lost.since is None:
        return said(
            "what happened until {end}: the store was put back, and the journal of that time is not in it", end=end
        )
    return said(
        "what happened between {begin} and {end}: the store was put back, and some of the journal of that time is not in it",
        begin=readable_time(lost.since),
        end=end,
    )
