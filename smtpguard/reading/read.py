"""Read a message: what it looks like, and why. The entry point of this room.

``read`` accepts any bytes and raises nothing. An unreadable message gives "unreadable", one that passes a bound "too
complex", each with the reason.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.mail.constant import constant, maker
from smtpguard.mail.fields import NAMES, AuthResult, ListHeader, auth_results, list_header, signed_by
from smtpguard.mail.message import Message
from smtpguard.reading.copies import CAMPAIGNS, body_key, campaign_of, identity_of
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.fold import language_of
from smtpguard.reading.headermarks import LABELS, header_marks, labels_of
from smtpguard.reading.looks import CONVERSATION, Looks, Readable, Reading, judge
from smtpguard.reading.marks import KINDS, Mark, Side
from smtpguard.reading.parts import Index
from smtpguard.reading.people import People, addresses_in, display_names, people_of, quoted_people
from smtpguard.reading.request import Bounds, Depth, Meter, Steps, Surroundings, TooComplex, finished
from smtpguard.reading.shown import other_texts
from smtpguard.reading.text import Text, extract, subject_of
from smtpguard.reading.textmarks import adjusted, custom_marks, shape_marks, text_marks
from smtpguard.reading.thread import OF_THREADS, REPLY, first_id, prefix_of, referenced_ids, thread_of
from smtpguard.reading.topics import Topic

_new_reading = maker(Reading)
_NOWHERE = Surroundings()
_USUAL = Bounds()
_EXCERPT = 2_000
_NOBODY: frozenset[str] = frozenset()
_NO_TEXT = Text()
_NO_COPY = Identity()
_NOT_JUDGED: tuple[Looks, float, tuple[Mark, ...]] = Looks.UNCLEAR, 0.0, ()
# Fields that may occur once (RFC 5322 section 3.6), and decide what people see or programs read.
_ONCE = ("from", "sender", "subject", "message-id")
_READ_FIELDS = NAMES | LABELS | CAMPAIGNS | OF_THREADS | {"authentication-results", "return-path"}
"""Fields that tell more of a message than who wrote what to whom."""
_SERVERS = {
    "x-mailman-version": "Mailman", "x-beenthere": "Mailman", "x-mailman-rule-hits": "Mailman", "mailing-list": "ezmlm",
    "x-sympa-to": "Sympa", "x-google-group-id": "Google Groups", "x-majordomo-version": "Majordomo", "x-mlmmj-version": "mlmmj",
    "x-groupsio-msgnum": "Groups.io", "x-mailing-list": "a list server", "x-discourse-post-id": "Discourse",
    "x-yahoo-profile": "Yahoo Groups", "x-egroups-from": "eGroups",
    "x-ecartis-version": "Ecartis", "x-listprocessor-version": "ListProc",
}  # fmt: skip
_SERVERS_OWN = ("list", "leaving", "subscription")  # groups of marks that a list server makes
_ANNOUNCEMENT = 4.0  # people's posts reach 2.5 at most
# Marks of a person's own writing beside the list server's fields.
_PERSONAL = frozenset(
    {"outlook-thread", "quoted-headers", "quoting-markup", "quoted-text", "colleague-quoted", "colleague-referenced", "references",
     "reply-prefix", "mail-program", "thread-index", "originator-org", "our-exchange", "composition", "signed", "personal-voice",
     "mobile-footer", "calendar", "addressed", "work-talk"}
)  # fmt: skip
_LEAVING = frozenset({"unsubscribe-words", "preferences", "unsubscribe-link"})


@constant
class TextRead:
    """What a text says by itself. ``language``: the language of what is shown."""

    text: Text
    topics: tuple[Topic, ...]
    marks: tuple[Mark, ...]
    language: str


class Texts:
    """Readings of texts that came twice, for further messages with them: a mailing without names in it is the same in
    all copies. They hold for one policy, and one set of bounds. Of a text that came once a hash alone is kept."""

    def __init__(self, most: int = 16, octets: int = 128 << 10, hashes: int = 1024) -> None:
        """Keep at most ``most`` texts, none in a message of more ``octets``."""
        self._most, self._octets, self._hashes = most, octets, hashes
        self._once: OrderedDict[int, None] = OrderedDict()
        self._read: OrderedDict[bytes, TextRead] = OrderedDict()

    def of(self, message: Message, subject: str, around: Surroundings, meter: Meter) -> Steps[TextRead]:
        """Return what the text of a message says. Raises TooComplex and RecursionError."""
        if message.size_bytes > self._octets:
            return (yield from _text_read(message, around, meter))
        body = message.raw[message.body_start :]
        once = hash((subject, body))  # takes a tenth of the time of the digest
        if once not in self._once:
            self._once[once] = None
            if len(self._once) > self._hashes:
                self._once.popitem(last=False)
            return (yield from _text_read(message, around, meter))
        self._once.move_to_end(once)
        named = message.header.named
        head = [(name, [f.raw for f in given]) for name, given in named.items() if name.startswith("content-")]
        digest = hashlib.sha256(repr((subject, head)).encode("utf-8", "surrogatepass"))
        digest.update(body)
        key = digest.digest()
        made = self._read.get(key)
        if made is None:
            made = yield from _text_read(message, around, meter)
            self._read[key] = made
            if len(self._read) > self._most:
                self._read.popitem(last=False)
        if key in self._read:
            self._read.move_to_end(key)
        return made


def _text_read(message: Message, around: Surroundings, meter: Meter) -> Steps[TextRead]:
    text = extract(message.raw, message.header.named, message.body_start, meter)
    yield from meter.pause()
    topics = around.vocabularies.find(_places(text))
    yield from meter.pause()
    shown = text.new or text.plain
    language = language_of(shown) if shown else ""
    yield from meter.pause()
    return TextRead(text=text, topics=topics, marks=_marks_of_text(text, around), language=language)


def _marks_of_text(text: Text, around: Surroundings) -> tuple[Mark, ...]:
    defects = [KINDS["defect"].mark(d) for d in dict.fromkeys(text.defects)]
    return (*text_marks(text, around), *shape_marks(text), *defects)


def read(
    message: Message,
    surroundings: Surroundings = _NOWHERE,
    depth: Depth = Depth.TEXT,
    bounds: Bounds = _USUAL,
    *,
    marked: bool = True,
    texts: Texts | None = None,
) -> Reading:
    """Read ``message``. Pure, total, and bounded by ``bounds``. ``marked`` False: skip looks, which take half the
    time of a header. ``texts``: readings of earlier messages; the result is the same."""
    header = message.header
    fields = header.named
    usual = _READ_FIELDS.isdisjoint(fields) and len(fields) == len(header.fields) and not header.broken
    if usual and not marked and depth is Depth.HEADERS:
        return _read_plain_header(fields, surroundings)
    return finished(read_in_steps(message, surroundings, depth, bounds, marked=marked, texts=texts))


def read_in_steps(
    message: Message,
    surroundings: Surroundings,
    depth: Depth = Depth.TEXT,
    bounds: Bounds = _USUAL,
    *,
    marked: bool = True,
    texts: Texts | None = None,
) -> Steps[Reading]:
    """Do as ``read``, with pauses between the steps."""
    header = message.header
    fields = header.named
    lists = list_header(fields)
    people = people_of(fields, surroundings)
    results = auth_results(header.fields, surroundings.authserv_ids)
    subject = subject_of(fields)
    yield
    text = _NO_TEXT
    readable: Readable = Readable.YES
    why: Said = ""
    said: TextRead | None = None
    if header.broken:
        readable, why = Readable.UNREADABLE, Phrase("its header block is broken")
    elif len(fields) < len(header.fields) and (
        twice := [fields[name][0].name for name in _ONCE if len(fields.get(name, ())) > 1]
    ):
        readable, why = Readable.UNREADABLE, Phrase("it has more than one {field} field", field=twice[0])
    if depth is Depth.TEXT:
        meter = Meter(bounds)
        try:
            if len(header.fields) > bounds.header_fields:
                raise TooComplex(Phrase("its header has more than {n} fields", n=bounds.header_fields))
            said = yield from (
                texts.of(message, subject, surroundings, meter) if texts else _text_read(message, surroundings, meter)
            )
            text = said.text
            if text.unreadable and readable is Readable.YES:
                readable, why = Readable.UNREADABLE, text.unreadable
            meter.look_at_the_clock()
        except TooComplex as bound:
            readable, why = Readable.TOO_COMPLEX, bound.why
        except RecursionError:
            readable, why = Readable.TOO_COMPLEX, Phrase("it is nested too deep")
    if said is None and marked:
        text = Text(subject=subject)
    own = said.marks if said is not None else None
    if said is None and depth is Depth.TEXT:  # of a text that was not read nobody knows that it is empty
        own = tuple(m for m in _marks_of_text(text, surroundings) if m.name != "empty")
    yield
    marks = _marks(fields, lists, people, text, surroundings, own, results) if marked else []
    if why:
        name = "ambiguous" if readable is Readable.UNREADABLE else "defect"
        marks.append(KINDS[name].mark(Phrase("it cannot be read as a whole: {why}", why=why)))
    looks, score, weighed = judge(adjusted(marks, surroundings), readable=readable) if marked else _NOT_JUDGED
    message_id = first_id(fields, "message-id")
    first, number, answers = thread_of(fields, subject, message_id)
    identity, alone = _NO_COPY, ""
    if depth is Depth.TEXT:
        yield
        identity, alone = _identity(message, message_id, text, people, readable)
        yield
    return _new_reading(
        looks=looks,
        score=score,
        marks=weighed,
        readable=readable,
        why_unreadable=why,
        topics=_topics(said, fields, surroundings) if said is not None else (),
        subject=subject,
        from_address=people.sender or None,
        from_ambiguous=people.ambiguous,
        shown=frozenset(people.shown),
        message_id=message_id,
        thread=first,
        conversation=number,
        answers=answers,
        quotes=quoted_people(fields, text.split, surroundings) if text.split.kind else _NOBODY,
        refers_to=referenced_ids(fields) if answers else (),
        labels=labels_of(fields),
        vouched=signed_by(results) if results else _NOBODY,
        automatic=lists.automatic or _is_report(fields),
        forwarded_thread=bool(weighed)
        and any(m.name == "colleague-quoted" for m in weighed)
        and (bool(text.nested) or any(m.name in ("forward-prefix", "attached-mail") for m in weighed)),
        language=said.language if said is not None else "",
        numbers=text.numbers,
        excerpt=text.shown[:_EXCERPT],
        campaign=campaign_of(fields, lists, subject),
        identity=identity,
        alone=alone,
    )


def _topics(said: TextRead, fields: Index, around: Surroundings) -> tuple[Topic, ...]:
    """Return the topics of the text, and of the names and other fields that it is shown with."""
    places = [("name", "\n".join(names))] if (names := display_names(fields, around)) else []
    places += [("text", text) for text in other_texts(fields, said.text.subject)]
    if not places:
        return said.topics
    known = {(t.vocabulary, t.term) for t in said.topics}
    more = around.vocabularies.find(places)
    return (*said.topics, *(t for t in more if (t.vocabulary, t.term) not in known))


def _read_plain_header(fields: Index, around: Surroundings) -> Reading:
    """Return the reading of a header with none of _READ_FIELDS, and each field once, as nearly all mail has."""
    froms = addresses_in(fields, around, "from")
    subject, message_id = subject_of(fields), first_id(fields, "message-id")
    prefixed = prefix_of(subject)
    return _new_reading(
        looks=Looks.UNCLEAR,
        score=0.0,
        marks=(),
        readable=Readable.YES,
        subject=subject,
        from_address=froms[0] if froms else None,
        from_ambiguous=len(set(froms)) > 1,
        shown=frozenset(addresses_in(fields, around, "to", "cc")),
        message_id=message_id,
        thread=message_id,
        answers=prefixed is not None and prefixed[0] == REPLY,
        automatic=_is_report(fields),
    )


def _identity(
    message: Message, message_id: str, text: Text, people: People, readable: Readable
) -> tuple[Identity, str]:
    if readable is Readable.YES and message_id:
        return identity_of(text, people.sender, f"message {message_id}")
    body = body_key(message.raw, message.body_start, text.boundaries)
    return (Identity(exact=body), "") if readable is not Readable.YES else identity_of(text, people.sender, body)


def _is_report(fields: Index) -> bool:
    """Return whether it is a delivery status or complaint, by its type (RFC 6522). Its list headers belong to another
    message."""
    if "content-type" in fields:
        value = fields["content-type"][0].raw[:500].lower()
        if b"multipart/report" in value or b"message/delivery-status" in value:
            return True
    return "return-path" in fields and fields["return-path"][0].raw.strip() == b"<>"


def _places(text: Text) -> list[tuple[str, str]]:
    places = [("subject", text.subject), ("html" if text.markup.source else "text", text.shown)]
    places += [("html", text.markup.rejoined)] if text.markup.rejoined else []
    places += [("text", text.plain)] if text.plain else []
    places += [("alt text", alt) for alt in text.markup.alts]
    places += [("attachment name", name) for name in (*(a.name for a in text.attachments), *text.othernames) if name]
    places += [("attached text", text.attached)] if text.attached else []
    places += [("hidden text", each) for each in (text.markup.hidden, text.unshown) if each]
    return places


def _marks(
    fields: Index,
    lists: ListHeader,
    people: People,
    text: Text,
    around: Surroundings,
    own: tuple[Mark, ...] | None,
    results: Sequence[AuthResult],
) -> list[Mark]:
    """Return all marks. ``own``: those of the text; None if only the header is read."""
    marks = [*header_marks(fields, lists, people, around, results), *(own or ())]
    if _is_report(fields):
        marks = [m for m in marks if m.side is Side.NEITHER]
        marks.append(KINDS["report"].mark("it is a report on another message, by its type or its null return path"))
    elif any(m.name == "tool-notice" for m in marks):  # its signs of a mailing are the tool's
        marks = [m for m in marks if m.side is not Side.MAILING]
    elif server := _list_server(fields, lists, marks):
        personal = any(m.name in _PERSONAL for m in marks)
        whose = (*_SERVERS_OWN, *(("sender", "machine") if personal else ()))
        marks = [m for m in marks if not (m.side is Side.MAILING and m.group in whose)]
        says = N_("it is a post on a discussion list; {server} put the list headers on it")
        if personal:
            says = N_("it is a person's post on a discussion list; {server} put the list headers on it")
        marks.append(KINDS["list-post"].mark(says, server=server))
    elif own is not None and not _bulk_signs(lists, marks):
        marks.append(KINDS["no-bulk-signs"].mark("nothing in it is said to be sent to many"))
    names = {m.name for m in marks}
    by_machine = "noreply" in names and not names.isdisjoint(("auto-generated", "do-not-reply"))
    if by_machine and (one := people.one_outside(around)):
        marks.append(KINDS["machine-to-one"].mark("a machine sent it to {address} alone", address=one[:80]))
    return [*marks, *custom_marks(fields, text, around)]


def _bulk_signs(lists: ListHeader, marks: list[Mark]) -> bool:
    return bool(lists.unsubscribe or lists.list_id or lists.precedence or lists.feedback_id) or any(
        m.name in _LEAVING or m.group == "platform" for m in marks
    )


def _list_server(fields: Index, lists: ListHeader, marks: list[Mark]) -> str:
    """Return the name of the list server that a person's post came through, or an empty string."""
    server = "a list server" if lists.post else ""
    if not fields.keys().isdisjoint(_SERVERS):
        server = next(name for field, name in _SERVERS.items() if field in fields)
    if not server or any(
        m.group in ("platform", "links") and m.name not in ("feedback-id", "campaign-links") for m in marks
    ):
        return ""
    return "" if _announces(marks) else server


def _announces(marks: list[Mark]) -> bool:
    """Return whether a newsletter came through the list server: enough marks that the server did not make, and no
    conversation."""
    if any(m.name in CONVERSATION for m in marks):
        return False
    own: dict[str, float] = {}
    for m in marks:
        if m.side is Side.MAILING and m.group not in _SERVERS_OWN:
            own[m.group] = max(own.get(m.group, 0.0), m.weight)
    return sum(own.values()) >= _ANNOUNCEMENT
