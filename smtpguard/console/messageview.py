"""A held message for its approvers: visible text, header, and attachments by name, size and type; the evidence for holding
it, and its positions in the text; who wrote it: what is proven, and what is only claimed; and the decisions: who has
decided, who still may, and what the next decision would do.

Opening a hostile message costs no more than Bounds allow. Beyond them the page says why it cannot show the message. A
login, or a mail server in front that checks senders, proves the writer. From alone proves nothing. A name of mixed
alphabets may imitate another.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from urllib.parse import unquote

from smtpguard.accounts.model import Role
from smtpguard.console.services import ConsoleServices, Person
from smtpguard.guard.inforce import InForce
from smtpguard.holds.effects import AtOnce, at_once, people_bound
from smtpguard.holds.model import (
    LET_GO,
    Choice,
    Hold,
    State,
    Vote,
    complete,
    entitled,
    missing,
    seats_left,
    standing_votes,
)
from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.locale.speech import Speech
from smtpguard.mail.message import Message
from smtpguard.notices.noticedata import approvers
from smtpguard.policy.verdict import Quorum
from smtpguard.reading.looks import Reading, Side, veiled
from smtpguard.reading.parts import Index, Part, transfer, walk
from smtpguard.reading.request import Bounds, Meter, TooComplex
from smtpguard.reading.text import Text, extract

_BOUNDS = Bounds(seconds=3.0, clock=time.monotonic)
_MOST_TEXT = 100_000
_MOST_FIELDS = 200
_MOST_VALUE = 2_000
_MOST_LINKS = 100
_WORD = re.compile(r"\w{2,}")
_ADDRESS = re.compile(r"https?://\S++|(?<!\S)\S[^\s@]*+@\S++")
_MOST_HTML = 2 << 20
_CID = re.compile(rb"""src\s*=\s*["']?\s*cid:([^"'\s>]{1,300})""", re.I)
_MESSAGES = ("message/rfc822", "message/global", "message/news")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """``n``: the number of its part. ``size_bytes``: decoded, estimated without decoding. ``shown``: an image that is
    shown in the text, and is no attachment for the reader."""

    n: int
    name: str
    kind: str
    size_bytes: int
    shown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """``new`` and ``quoted``: what a reader sees; ``plain``: the text in programs without HTML, if it says something
    else; ``hidden``: text in the HTML that few or none see. ``cut``: there is more of it. ``why``: why not all of it
    can be shown, "" if it can."""

    fields: tuple[tuple[str, str], ...] = ()
    new: str = field(default="", repr=False)
    quoted: str = field(default="", repr=False)
    plain: str = field(default="", repr=False)
    hidden: str = field(default="", repr=False)
    links: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    pictures: tuple[Attachment, ...] = ()
    has_html: bool = False
    cut: bool = False
    why: Said = ""


def opened(message: Message) -> MessageView:
    """Total: every message can be opened, if only its header."""
    header = message.header
    fields = tuple((f.name[:100], f.text[:_MOST_VALUE]) for f in header.fields[:_MOST_FIELDS])
    try:
        text = extract(message.raw, header.named, message.body_start, Meter(_BOUNDS))
        found = list(parts(message))
        attachments = list(_attachments(found))
    except (TooComplex, RecursionError) as bound:
        why = bound.why if isinstance(bound, TooComplex) else Phrase("it is nested too deep")
        return MessageView(fields=fields, why=why)
    hidden = "\n".join(filter(None, (text.hidden, text.unshown)))
    shown = (text.new or text.plain, text.quoted, _otherwise(text), hidden)
    new, quoted, plain, hidden = (_clean(some[:_MOST_TEXT]) for some in shown)
    return MessageView(
        fields=fields,
        new=new,
        quoted=quoted,
        plain=plain,
        hidden=hidden,
        links=tuple(_clean(link[:500]) for link in dict.fromkeys(text.links[: 10 * _MOST_LINKS]))[:_MOST_LINKS],
        attachments=tuple(each for each in attachments if not each.shown),
        pictures=tuple(each for each in attachments if each.shown),
        has_html=any(is_html(part) for part in found),
        cut=any(len(some) > _MOST_TEXT for some in shown),
        why=text.unreadable,
    )


def _otherwise(text: Text) -> str:
    """The text of the plain alternative, if it has words that the HTML has not. Links and images are written out there,
    and layouts differ: a few more words are still the same letter."""
    if not text.plain or not (text.new or text.quoted):
        return ""
    seen = set(_words(" ".join((text.shown, text.hidden, *text.alts))))
    said = _words(text.plain)
    more = sum(word not in seen for word in said)
    return text.plain if more >= 4 and more * 5 > len(said) else ""


def _words(text: str) -> list[str]:
    return _WORD.findall(_ADDRESS.sub(" ", text).casefold())


def attached(message: Message, n: int) -> tuple[Attachment, bytes] | None:
    """One attachment and its octets; None if there is no such part. Raises TooComplex."""
    found = list(parts(message))
    listed = next((each for each in _attachments(found) if each.n == n), None)
    if listed is None:
        return None
    part = found[n]
    if part.kind in _MESSAGES:
        return listed, part.body
    return listed, transfer(part.body, part.encoding)[0]


def parts(message: Message) -> Iterator[Part]:
    """The parts of the message, with attached messages as single parts. Raises TooComplex."""
    found = walk(message.raw, message.header.named, message.body_start, Meter(_BOUNDS))
    return (part for part in found.parts if part.nested == 0)


def is_html(part: Part) -> bool:
    return part.kind == "text/html" and not part.attachment


def content_id(part: Part) -> str:
    fields: Index = part.fields
    return fields["content-id"][0].raw.strip(b"<> \t").decode("latin-1") if "content-id" in fields else ""


def _attachments(found: list[Part]) -> Iterator[Attachment]:
    """All parts that are not shown as text."""
    in_text = _pictures(found)
    for n, part in enumerate(found):
        text = part.kind in ("text/plain", "text/html", "text/enriched", "text/x-amp-html")
        if text and not part.attachment and not part.filename:
            continue
        size = part.end - part.start
        if part.encoding == "base64":
            size = size * 57 // 78  # 57 octets are a line of 76 characters and CRLF (RFC 2045 section 6.8)
        name, kind = _clean(part.filename)[:200], _clean(part.kind)[:100]
        shown = part.kind.startswith("image/") and content_id(part).lower() in in_text
        yield Attachment(n=n, name=name, kind=kind, size_bytes=size, shown=shown)


def _pictures(found: list[Part]) -> frozenset[str]:
    """The Content-IDs that the HTML shows (RFC 2392), in lower case."""
    texts = (transfer(p.body, p.encoding)[0] for p in found if is_html(p) and p.end - p.start <= _MOST_HTML)
    return frozenset(unquote(m.decode("latin-1")).lower() for text in texts for m in _CID.findall(text))


def _clean(text: str) -> str:
    """Without control and bidirectional characters, which change how the page is read (CVE-2021-42574)."""
    return "".join(c if c in "\n\t" or (c.isprintable() and c not in _BIDI) else " " for c in text)


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


_MOST_PHRASES = 20
_MOST_WORDS = 60
_MOST_MARKED = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """``internal``: evidence for mail between colleagues; ``mailing``: evidence for a mailing. ``topics``: those that
    the audience is to be spared; ``others``: other topics. ``words``: what to mark in the text, and why."""

    internal: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    mailing: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()


def evidence(reading: Reading, said: Speech, avoid: Collection[str], *, blind: bool = False) -> Evidence:
    """``avoid``: the topics that the audience is to be spared. ``blind``: for a reader who may not see the text."""

    def phrase(text: Phrase) -> str:
        return said.say(veiled(text, reading.subject) if blind else text)

    heavy = sorted(reading.marks, key=lambda mark: -mark.weight)

    def few(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(texts))[:_MOST_PHRASES]

    found = [(t, phrase(t.phrase)) for t in reading.topics]
    quoted = [
        (word, phrase(m.evidence))
        for m in heavy
        if m.side is Side.INTERNAL
        for word in m.evidence.quoted
        if 2 <= len(word) <= 80
    ]
    return Evidence(
        internal=few(phrase(m.evidence) for m in heavy if m.side is Side.INTERNAL),
        topics=few(text for t, text in found if t.vocabulary in avoid),
        others=few(text for t, text in found if t.vocabulary not in avoid),
        mailing=few(phrase(m.evidence) for m in heavy if m.side is Side.MAILING),
        words=tuple(dict([*quoted, *((t.word, text) for t, text in found)]).items())[-_MOST_WORDS:],
    )


def segments(text: str, words: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Stretches of the text, each with the evidence in it, "" for ordinary text: split at the words, the longest first;
    case does not matter."""
    why = {word.lower(): reason for word, reason in words if word.strip()}
    if not why:
        return [(text, "")] if text else []
    longest = sorted(why, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest))})(?!\w)", re.I)
    parts = enumerate(pattern.split(text, _MOST_MARKED))  # words at odd places
    return [(part, why.get(part.lower(), "") if n % 2 else "") for n, part in parts if part]


_LETTERS = re.compile(r"[^\W\d_]+")
_TOGETHER = ({"HIRAGANA", "KATAKANA", "CJK"}, {"HANGUL", "CJK"})
ALPHABETS = {
    "LATIN": N_("Latin"),
    "CYRILLIC": N_("Cyrillic"),
    "GREEK": N_("Greek"),
    "ARMENIAN": N_("Armenian"),
    "HEBREW": N_("Hebrew"),
    "ARABIC": N_("Arabic"),
}


def authorship(hold: Hold, claimed: str, said: Speech) -> str:
    """One or two sentences. ``claimed``: the address in From, "" if there is none or it is unreadable."""
    user, sender, claims = hold.session.auth_user or "", hold.sender, claimed.lower()
    if user:
        if not claims or user.lower() in (claims, claims.rpartition("@")[0]):
            return said("{who} wrote this, proven by a login.", who=claimed or user)
        text = N_("{user} sent this, proven by a login. It says it is from {claimed}; nothing proves that.")
        return said(text, user=user, claimed=claimed)
    if hold.session.senders_verified and sender is not None and claims in ("", sender.lower()):
        return said("{who} wrote this, verified by the mail server in front.", who=sender)
    if shown := claimed or sender:
        if signers := sorted(proof.removeprefix("dkim ") for proof in hold.proofs if proof.startswith("dkim ")):
            return said("It says it is from {who}; signed (DKIM) by {domains}.", who=shown, domains=", ".join(signers))
        return said("It says it is from {who}; nothing proves that.", who=shown)
    if (path := hold.envelope.reverse_path) is not None:
        return said("Who wrote this is unknown. Its return address is {who}; nothing proves that.", who=path)
    return said("Who wrote this is unknown.")


def mixed(texts: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Words with letters of several alphabets, each with those alphabets."""
    found = {}
    for text in texts:
        for word in _LETTERS.findall(text):
            scripts = {unicodedata.name(c, "?").split(" ")[0] for c in word}
            if len(scripts) > 1 and not any(scripts <= some for some in _TOGETHER):
                found[word] = sorted(scripts)
    return list(found.items())


LARGE = 1000
"""From this number of people on, the approver types the number."""


def confirmed(typed: int | None, reach: int, people: int) -> int | None:
    """The number of people that was typed: at least those whom it waits for, and at most ``people``. None for any other
    number, and for none."""
    return typed if typed is not None and min(reach, people) <= typed <= people else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """So many of each of these groups; out of hours, of those in ``late``."""

    groups: tuple[tuple[int, str], ...]
    late: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """An approver who is away; ``deputy``: who decides for them, "" for nobody."""

    person: str
    until: date
    deputy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPreview:
    """``may``: whether this person may decide now; ``why_not``: own | voted | leaving | over | decided | role | group |
    writer. ``may_back``: whether they may revoke an approval, as far as it is not sent. ``may_undo``: whether they may
    undo one that has not taken effect. ``sends``: whether their approval sends it, and ``people``: how many it may then
    reach, further copies of its mailing included. ``at_once``: why it cannot be sent in stages, if its list declares
    some. ``left``: the incomplete quorums; ``needs``: what they need; ``then``: what they need after this person's
    approval; ``others``: who else may vote; ``away``: approvers who are away; ``together``: voters who have one vote
    together, one of them as deputy; ``idle``: voters whose approval does not count now."""

    votes: tuple[Vote, ...]
    others: tuple[str, ...]
    left: tuple[Quorum, ...]
    needs: tuple[Need, ...]
    may: bool
    may_back: bool
    may_undo: bool
    why_not: str
    sends: bool
    people: int
    then: tuple[Need, ...]
    at_once: AtOnce | None = None
    away: tuple[Away, ...]
    together: tuple[tuple[str, ...], ...]
    idle: frozenset[str]


def outlook_now(here: ConsoleServices, hold: Hold, who: Person) -> DecisionPreview:
    return outlook(hold, who, here.in_force, here.clock.now(), over=here.approvals.is_over(hold))


def outlook(hold: Hold, who: Person, in_force: InForce, now: datetime, *, over: bool) -> DecisionPreview:
    """``over``: its time is (Approvals.is_over)."""
    votes = standing_votes(hold)
    waiting = hold.state is State.WAITING
    mine, is_approver = in_force.addresses_of(who.address), Role.APPROVER in who.roles
    own, voted = bool(mine & hold.senders), [vote.choice for vote in votes if vote.approver in mine]
    asked = entitled(hold, who.address, in_force.groups, at=now, open_now=in_force.hours.open_at(now))
    may_end = is_approver and (bool(voted) or asked)
    if not waiting:
        why_not = "decided"
    elif own:
        why_not = "own"
    elif not is_approver:
        why_not = "role"
    elif not asked:
        why_not = "group"
    elif hold.asks_writer:
        why_not = "writer"
    elif hold.release_at is not None:
        why_not = "leaving"
    elif over:  # until the next sweep
        why_not = "over"
    else:
        why_not = "voted" if Choice.APPROVE in voted else ""
    approval = Vote(
        approver=who.address,
        choice=Choice.APPROVE,
        content_sha256=hold.content_sha256,
        envelope_sha256=hold.envelope.sha256,
        at=now,
    )
    after = replace(hold, votes=(*hold.votes, approval))
    approved = {vote.approver: vote.at for vote in votes if vote.choice is Choice.APPROVE}
    quorums = (q for quorum in hold.verdict.quorum for q in (quorum, quorum.out_of_hours) if q is not None)
    asking = sorted({group for quorum in quorums for group in quorum.groups})
    needed = needs(hold, in_force) if waiting else ()
    groups = tuple(dict.fromkeys(group for need in needed for _, group in (*need.groups, *need.late)))
    return DecisionPreview(
        votes=votes,
        others=_others(hold, groups, votes, in_force, now) if waiting else (),
        left=missing(hold, in_force.groups, in_force.hours.open_at) if waiting else (),
        needs=needed,
        may=not why_not,
        may_back=hold.state in LET_GO and not own and may_end,
        may_undo=waiting and hold.release_at is not None and (own or may_end),
        why_not=why_not,
        sends=complete(after, in_force.groups, in_force.hours.open_at),
        people=_people(after, in_force),
        then=needs(after, in_force),
        at_once=at_once(hold, in_force) if waiting else None,
        away=_away(hold, groups, in_force, now),
        together=in_force.groups.together(approved, asking, hold.senders) if waiting else (),
        idle=frozenset(
            who
            for who, at in approved.items()
            if waiting and not any(in_force.groups.votes({who: at}, asking, hold.senders))
        ),
    )


def _people(hold: Hold, in_force: InForce) -> int:
    if not hold.mailing_id or hold.identity is None:
        return hold.reach
    return people_bound(hold, [v for v in standing_votes(hold) if v.choice is Choice.APPROVE], in_force)


def _others(
    hold: Hold, groups: Sequence[str], votes: Sequence[Vote], in_force: InForce, now: datetime
) -> tuple[str, ...]:
    """People who may vote now, have not, and are in one of these groups."""
    voted = in_force.addresses_of(*(vote.approver for vote in votes))
    return tuple(
        a
        for a in approvers(hold, in_force, now)
        if a not in voted and not in_force.groups.of_person(a, now).isdisjoint(groups)
    )


def needs(hold: Hold, in_force: InForce) -> tuple[Need, ...]:
    """What each incomplete quorum still needs."""
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    late = {v.approver: v.at for v in votes if not in_force.hours.open_at(v.at)}
    everybody = {v.approver: v.at for v in votes}
    return tuple(
        Need(
            groups=_short(quorum, everybody, hold, in_force),
            late=_short(quorum.out_of_hours, late, hold, in_force) if quorum.out_of_hours is not None else (),
        )
        for quorum in missing(hold, in_force.groups, in_force.hours.open_at)
    )


def _short(quorum: Quorum, voted: Mapping[str, datetime], hold: Hold, in_force: InForce) -> tuple[tuple[int, str], ...]:
    """How many votes each group still needs."""
    free = Counter(seats_left(quorum, in_force.groups.votes(voted, quorum.groups, hold.senders)))
    return tuple((free[group], group) for group in quorum.groups if free[group])


def _away(hold: Hold, groups: Sequence[str], in_force: InForce, now: datetime) -> tuple[Away, ...]:
    """People of these groups who are away."""
    people = sorted(frozenset().union(*(in_force.groups.besides(group, hold.senders) for group in groups)))
    return tuple(
        Away(person=one, until=absence.until, deputy=in_force.groups.deputy(one, now, groups, hold.senders))
        for one in people
        if (absence := in_force.groups.away(one, now)) is not None
    )
