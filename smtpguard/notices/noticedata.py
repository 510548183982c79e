"""The data of a notice about a message, which goes to the templates; and who is asked or told. Pure.

A NOTICE intent has ``reverse_path=None``, one recipient, ``hold_id`` if there is a hold, and this ``data`` (JSON; times
are ISO 8601 UTC with "Z"; absent values are null):

==================  ==================================================================================================
every notice        ``notice``: its kind; ``writer``: true if its reader wrote the message; ``hold_id``; ``turn``: that of the
                    hold (Hold.turn); ``subject``, ``message_id``, ``from`` of the message (unescaped); ``language`` of that message ("" unknown);
                    ``recipients``: number of RCPTs; ``reach``: number of people, ``reach_at_least``: or more;
                    ``lists``: titles that may be named to this reader, and a phrase for other addresses;
                    ``sensitive``: [{``list``, ``category``}], the lists whose membership is sensitive;
                    ``summary``: what it is and whom it is for, in a sentence;
                    ``part``: true if only a part was held, and colleagues have the rest; ``test``: it was sent for
                    approval beforehand, and is never sent itself; ``correction``: it is the correction of a mailing
held, approve       ``held_at``, ``expires_at``; ``reasons``: [{``rule``, ``description``, ``descriptions``:
                    {language: text}, ``sentences``: [str]}]; ``marks``: [str], phrases found in the message, the topics
                    first, ``more_marks``: how many are left out; both without topics if no list was addressed;
                    ``deciders``: [{``each``: int, ``groups``: [{``group``, ``people``: [address], ``short``: too few
                    people, ``own``: its writer would be one of them, ``away``: [{``person``, ``until``: a day,
                    ``deputy``: "" for none}], only if somebody is}], ``out_of_hours``: the same or null}]; ``nobody``:
                    its quorum cannot be filled; to its writer also ``longer``: it waits longer than they were told,
                    and ``apart``: why it did not follow its mailing, as in a reminder
to those asked      ``bound``: the hold's digest (holds.replying.binding_digest), ``may_approve``: whether the policy lets it
                    be approved by mail
to approvers        ``in_place_of``: [{``person``, ``until``: a day}], absent people for whom this reader decides
confirm             the same as held, to its writer, who is asked to confirm it: and ``until``, ``expires``: true if it
                    expires then, false if others decide; ``percent``: of its time, in a reminder
approve             and ``excerpt``: the beginning of the text, ``recipients_shown``: the first addresses, ``senders``:
                    [address], ``covers``: [str], what an approval covers, and in which stages it is sent
decided             ``outcome``: approved | confirmed | rejected | withdrawn | reopened | lapsed | stopped | revoked |
                    released;
                    ``by``: address or null; ``comment``; ``decided_at``; ``voters``: of an approval, all whose votes
                    approved it, ``stages``: in which stages it is sent, "" for all at once. For a revoked approval also ``held_at``,
                    ``expires_at``, ``deciders``; ``back``, ``gone``: messages that were revoked, and that were sent;
                    ``has``, ``doubt``, ``left``: recipients; ``asked``: whether this reader is to decide again;
                    ``confirmed``: its writer had confirmed it; to its writer ``reasons``, as for held
expired             ``held_at``, ``expired_at``, ``deciders``, ``reasons``; ``unconfirmed``: its writer was asked and did not answer
reminder            to approvers: ``held_at``, ``expires_at``, ``percent``: 25 | 50 | 90, ``deciders``; or ``differs``:
                    a copy that the approval does not cover waits by itself; or ``ended``: the approval ended before it
                    was sent; or ``unconfirmed``: its writer was asked and did not answer; or ``later``: a sender's
                    letter came after those that were decided on; ``confirmed``: its writer, and nobody else, decided then
escalation          to owners and out-of-hours approvers: ``held_at``, ``expires_at``, ``deciders``; ``contact``: this
                    reader is the guard's contact, and is told at once that nobody can decide; ``away``: since all who
                    could are away; ``decides``: now | out-of-hours, "" for an owner who does not decide on it
doubt               to approvers and the guard's contact, about a release to a list address in doubt: ``people`` who may
                    have it, ``doubt_since``, ``again``: they were told before, ``contact``: this reader is the contact;
                    ``deciders``
stages              to approvers and writers, of a mailing whose stages wait for a person: ``mailing``: its id; ``stopped``,
                    else it pauses; ``cause``: why it stopped; ``since``; ``has``, ``waits``: people; ``deciders``
rejected            to an internal sender, if the rule has ``explain``: ``at``, ``reasons``, ``marks``, ``more_marks``
question            to its writer: ``by``, ``comment``, ``said_at``; ``held_at``, ``expires_at``, ``deciders``
answer              to approvers: the same, from its writer; ``question``, ``asked_by``: the question answered, "" for
                    none
plea                to approvers: the same; its writer asks for its release
voted               to an approver who voted by mail: ``choice``, "" for none; ``proof``: login | dkim | token; ``refused``: why
                    the vote does not count, "" if it does; ``said_at``
digest              ``role``: sender | approver | owner (whom an escalation is told); ``since``, ``until``, ``person``: the reader
deputy              to an admin: ``person`` is away from ``first`` to ``last``, and ``deputy`` decides in ``groups`` once an admin agrees
stream              to its owner: ``stream``: its name; ``limit``, ``window_minutes``, ``per_person``; ``at``
owner-digest        ``list``: its title, ``list_name``; ``since``, ``until``, ``person``, ``first``
==================  ==================================================================================================

``copy_by``: the address of the reader, who wrote a copy. ``fill`` replaces the data of the primary hold by that of the
copy (``of_copy``).

Before rendering, the renderer adds to the writer's held, confirm and question notices ``mine``: the signed link's text,
if the console has a url; to those with ``bound`` ``answer_to``: the address to vote at, if the settings have one; and
to notices of an approval its state at the time of sending: ``frozen``: [{``selector``, ``list``: a title or null,
``by``, ``since``, ``until``}], the freezes that stop it; ``sent``; ``release_at``: when it takes effect, if it can be
undone until then.

A digest has no subject, message_id or hold_id of its own (null). The renderer adds ``total``: int, ``states``: {state:
int}, ``undecided``: how many wait for this person's vote, ``refused``: how many were never held, ``earlier``: how many
were held before ``since``, and something happened to them since, and ``messages``: [{``hold_id``, ``subject``,
``from``, ``state``, ``test``, ``held_at``, ``expires_at``, ``reach``, ``reach_at_least``, ``lists``, ``reasons``: the
first of them, ``comment``: of a rejection}], at most 50 of them, newest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.values import topics_of
from smtpguard.guard.inforce import InForce
from smtpguard.holds.effects import TEST
from smtpguard.holds.model import Hold, out_of_reach
from smtpguard.holds.replying import binding_digest, may_be_approved
from smtpguard.holds.summary import summary
from smtpguard.journal.chain import utc_text
from smtpguard.lists.declared import ListInfo
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.address import Address
from smtpguard.mailings.differences import FACT as DIFFERS
from smtpguard.policy.facts import OF_TOPICS
from smtpguard.policy.verdict import Hit, Mode, Quorum, Verdict
from smtpguard.reading.looks import Reading

MAX_TOPICS = 12
"""The most topics among the marks of a notice."""
MAX_MARKS = 12
"""The most other marks of a notice."""
UNSAID = Phrase("A person must see this kind of message before it goes to customers.")
NONE: Mapping[str, Any] = {"hold_id": None, "turn": "", "subject": None, "message_id": None, "from": None, "language": "", "recipients": None,
                           "reach": None, "reach_at_least": None, "lists": [], "sensitive": [], "summary": "", "part": False, "test": False, "correction": False, "writer": False}  # fmt: skip
"""The data of a notice that is about no message."""


def about(hold: Hold, in_force: InForce) -> dict[str, Any]:
    lists = addressees(hold, in_force)
    return {
        "hold_id": hold.hold_id,
        "turn": hold.turn,
        "subject": hold.subject,
        "message_id": hold.message_id,
        "from": hold.sender or "",
        "language": hold.language,
        "recipients": len(hold.envelope.recipients),
        "reach": hold.reach,
        "reach_at_least": hold.reach_at_least,
        "lists": lists,
        "sensitive": sensitive(addressed(hold, in_force)),
        "summary": summary(hold, lists),
        "part": hold.part,
        "test": hold.kind == TEST,
        "correction": hold.correction is not None,
        "writer": False,
    }


def of_copy(copy: Hold) -> dict[str, Any]:
    """Return the data of a copy that replaces that of its primary hold in a notice to its writer: each reads of the
    message that they wrote."""
    return {
        "subject": copy.subject,
        "message_id": copy.message_id,
        "from": copy.sender or "",
        "language": copy.language,
        "part": copy.part,
    }


def waiting(hold: Hold, in_force: InForce, now: datetime) -> dict[str, Any]:
    return about(hold, in_force) | {
        "held_at": utc_text(hold.held_at),
        "expires_at": utc_text(hold.expires_at),
        "deciders": deciders(hold, in_force, now),
        "nobody": bool(out_of_reach(hold, in_force.groups)),
    }


def held(hold: Hold, gathered: Gathered) -> dict[str, Any]:
    in_force = gathered.in_force
    return waiting(hold, in_force, hold.held_at) | {
        "reasons": reasons(hold, in_force),
        **marks(gathered, named=bool(nameable(hold, in_force))),
    }


def confirmation(hold: Hold) -> dict[str, Any]:
    """Return the data of a question to the writer: until when they are asked, and whether the hold expires then."""
    confirm = hold.confirm
    assert confirm is not None
    return {"until": utc_text(confirm.until), "expires": confirm.expires, "bound": binding_digest(hold)}


def rejected(hits: Sequence[Hit], gathered: Gathered, now: datetime) -> dict[str, Any]:
    """Return the data of a rejected message. There is no hold, so it comes from the message itself."""
    everyone, header = gathered.everyone, gathered.transaction.message.header
    return {
        **NONE,
        "notice": "rejected",
        "subject": header.get("Subject") or "",
        "message_id": header.get("Message-ID") or "",
        "from": header.get("From") or "",
        "language": gathered.reading.language if isinstance(gathered.reading, Reading) else "",
        "recipients": everyone.total,
        "reach": int(everyone.reach.low),
        "reach_at_least": everyone.reach.high > everyone.reach.low,
        "lists": [gathered.in_force.title(n) for n in everyone.addressed],
        "sensitive": sensitive(gathered.in_force.registry.lists[n] for n in everyone.addressed),
        "writer": True,
        "at": utc_text(now),
        "reasons": sentences(hits, gathered.in_force, named=bool(everyone.addressed)),
        **marks(gathered, named=bool(everyone.addressed)),
    }


def nameable(hold: Hold, in_force: InForce) -> list[str]:
    """Return the titles of the lists that a notice may name: those whose address is a recipient. That a single person
    is on a list is private, above all for a list of a special category (GDPR Art. 9)."""
    return [info.called for info in addressed(hold, in_force)]


def addressees(hold: Hold, in_force: InForce) -> list[str]:
    """Return the titles that are ``nameable``, and a phrase if there are other recipients beside these lists."""
    named = nameable(hold, in_force)
    others = any(in_force.registry.list_at(address) is None for address in hold.envelope.addresses)
    return [*named, Phrase("other addresses")] if named and others else named


def addressed(hold: Hold, in_force: InForce) -> list[ListInfo]:
    """Return the lists whose address is a recipient, each once."""
    found = (in_force.registry.list_at(a) for a in hold.envelope.addresses)
    return list({info.name: info for info in found if info is not None}.values())


def reasons(hold: Hold, in_force: InForce, *, readable: bool = False) -> list[dict[str, Any]]:
    """Return the rules that held a message, as far as its writer may know them. ``readable``: as in ``sentences``."""
    return enforced_reasons(hold.verdict, in_force, named=bool(nameable(hold, in_force)), readable=readable)


def enforced_reasons(
    verdict: Verdict, in_force: InForce, *, named: bool = True, readable: bool = False
) -> list[dict[str, Any]]:
    """Return the rules that decided a verdict, in sentences for people. ``named``, ``readable``: as in
    ``sentences``."""
    return sentences([h for h in verdict.hits if h.mode is Mode.ENFORCE], in_force, named=named, readable=readable)


def sentences(hits: Iterable[Hit], in_force: InForce, *, named: bool, readable: bool = False) -> list[dict[str, Any]]:
    """Return the reasons of rules in sentences for people. ``readable``: differences from the approved content are
    quoted, for approvers who may read the message. ``named``: whether a list address was a recipient. If none was, a
    rule about topics does not name them: that would reveal what the single recipients are to be spared, and so what
    they may believe (GDPR Art. 9)."""
    return [
        _sentences(h, in_force, veiled=not named and any(r.fact in OF_TOPICS for r in h.reasons), readable=readable)
        for h in hits
    ]


def _sentences(hit: Hit, in_force: InForce, *, veiled: bool, readable: bool) -> dict[str, Any]:
    spoken = next((rule.descriptions for rule in in_force.rules.rules if rule.rule_id == hit.rule), {})
    told = [
        r.detail if readable and r.fact == DIFFERS else r.public
        for r in hit.reasons
        if r.public and not (veiled and r.fact in OF_TOPICS)
    ]
    return {
        "rule": "" if veiled else hit.rule,
        "description": "" if veiled else hit.description,
        "descriptions": {} if veiled else dict(spoken),
        "sentences": list(dict.fromkeys(told)) or ([UNSAID] if veiled else []),
    }


def marks(gathered: Gathered, *, named: bool) -> dict[str, Any]:
    """Return ``marks``, phrases for the marks of a message with the topics first, and ``more_marks``, how many more
    there are. ``named``: as in ``sentences``."""
    lists, text = gathered.in_force.registry.lists, gathered.text
    avoid = {topic for name in gathered.everyone.addressed for topic in lists[name].avoid}
    topics = topics_of(text, avoid) if named and isinstance(text, Reading) else ()
    others = gathered.facts.evidence.get("message.looks", ())
    told = [*topics[:MAX_TOPICS], *others[:MAX_MARKS]]
    return {"marks": told, "more_marks": len(topics) + len(others) - len(told)}


def sensitive(lists: Iterable[ListInfo]) -> list[dict[str, str]]:
    """Return those of the lists whose membership is sensitive (GDPR Art. 9). All of ``lists`` may be named."""
    return [{"list": info.called, "category": info.category or ""} for info in lists if info.special]


def approvers(hold: Hold, in_force: InForce, now: datetime) -> list[str]:
    """Return the people who are asked about a hold: those of its quorums, out of hours also those of the out-of-hours
    quorum, and deputies in place of absent people; never its writer."""
    groups: set[str] = set()
    for quorum in hold.verdict.quorum:
        late = quorum.out_of_hours if not in_force.hours.open_at(now) else None
        groups.update(quorum.groups, late.groups if late is not None else ())
    everybody = frozenset().union(*(in_force.groups.besides(group, hold.senders) for group in groups))
    asked = {in_force.groups.deputy(one, now, groups, hold.senders) or one for one in everybody}
    return sorted(asked)


def escalated_to(hold: Hold, in_force: InForce) -> dict[str, str]:
    """Return the owners of the lists of a hold and the out-of-hours approvers, each person once (Groups.person), with
    the address to write to; never its writer. A policy may spell an owner otherwise than a group."""
    same, delimiters = in_force.groups.person, in_force.registry.digester.delimiters
    told = {same(one): one for one in sorted(out_of_hours(hold, in_force))}
    for name in hold.lists:
        owner = in_force.registry.lists[name].owner if name in in_force.registry.lists else None
        if owner:
            told.setdefault(same(Address.parse(owner).canonical(delimiters)), owner)
    return {who: told[who] for who in sorted(told.keys() - set(map(same, hold.senders)))}


def out_of_hours(hold: Hold, in_force: InForce) -> frozenset[str]:
    spare = (q.out_of_hours.groups for q in hold.verdict.quorum if q.out_of_hours is not None)
    return frozenset().union(*(in_force.groups.of(group) for groups in spare for group in groups))


def deciders(hold: Hold, in_force: InForce, now: datetime) -> list[dict[str, Any]]:
    """Return the quorums of a hold with their people. They do not depend on the hour: a hold waits through nights and
    days, and its notice may be read at any time."""

    def quorum_data(quorum: Quorum) -> dict[str, Any]:
        return {
            "each": quorum.each,
            "groups": [_seats(g, quorum.each, hold, in_force, now) for g in quorum.groups],
            "out_of_hours": None if quorum.out_of_hours is None else quorum_data(quorum.out_of_hours),
        }

    return [quorum_data(quorum) for quorum in hold.verdict.quorum]


def answer_binding(hold: Hold, in_force: InForce) -> dict[str, Any]:
    """Return the digest of the hold to which an answer to the notice is bound, and whether the answer may approve."""
    special = in_force.of_special_category(hold.lists)
    return {"bound": binding_digest(hold), "may_approve": may_be_approved(hold, special, in_force.reply_votes)}


def in_place_of(hold: Hold, person: str, in_force: InForce, now: datetime) -> dict[str, Any]:
    """Return the absent people for whom this person decides on a hold, {} if there are none."""
    groups = hold.verdict.all_groups
    away = [
        {"person": absence.person, "until": absence.until.isoformat()}
        for absence in in_force.groups.decided_for(person, now)
        if in_force.groups.deputy(absence.person, now, groups, hold.senders) and absence.person not in hold.senders
    ]
    return {"in_place_of": away} if away else {}


def _seats(group: str, each: int, hold: Hold, in_force: InForce, now: datetime) -> dict[str, Any]:
    everybody = in_force.groups.of(group)
    people = sorted(in_force.groups.besides(group, hold.senders))
    absent = [
        {
            "person": one,
            "until": absence.until.isoformat(),
            "deputy": in_force.groups.deputy(one, now, (group,), hold.senders),
        }
        for one in people
        if (absence := in_force.groups.away(one, now)) is not None
    ]
    return {
        "group": group,
        "people": people,
        "short": len(people) < each,
        "own": len(people) < len(everybody),
    } | ({"away": absent} if absent else {})
