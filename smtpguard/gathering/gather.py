"""Everything a rule may ask about one transaction, asked of whoever knows, as far as it is needed, within time limits.

Recipients and header come first, since they are cheap; the text and the origin only when the plan still hangs on them.
Whatever cannot be found out becomes Unknown with its reason: never a guess, never an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from smtpguard.gathering.provenance import Provenance
from smtpguard.gathering.sender import Sender
from smtpguard.gathering.values import OF_HEADER, OF_TEXT, evidence_of, of_envelope, of_header, of_session, of_text
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Reader, Verifier
from smtpguard.lists.declared import Stream
from smtpguard.lists.recipients import Classified
from smtpguard.mail.trace import TraceInfo, trusted
from smtpguard.mail.transaction import Transaction
from smtpguard.policy.cover import Coming
from smtpguard.policy.differing import Approved, Difference
from smtpguard.policy.facts import ONLY_HEADERS, ONLY_TEXT, Count, Facts, Source, Unknown, Value
from smtpguard.policy.slots import Template
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.looks import Reading
from smtpguard.reading.origin import Origin
from smtpguard.reading.prefixes import bare
from smtpguard.reading.shown import Shown

T = TypeVar("T")
_NO_TEMPLATE: Mapping[str, Template] = {}
_NOTHING_APPROVED: Mapping[str, Approved] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Who is asked, and how long each may take. ``trace_key`` knows our own trace headers again."""

    reader: Reader
    verifier: Verifier
    trace_key: bytes
    read_seconds: float = 20.0
    verify_seconds: float = 10.0


class Gathering:
    """What is known of one transaction so far. ``open`` first, then ``ask`` for what a plan says is pending."""

    def __init__(
        self,
        transaction: Transaction,
        in_force: InForce,
        sources: Sources,
        began: datetime | None = None,
        everyone: Classified | None = None,
    ) -> None:
        """``began``: when its final dot had come. ``everyone``: its recipients, where they are not as the envelope says."""
        self.began = began
        registry = in_force.registry
        self.transaction = transaction
        self.in_force = in_force
        self.sender = Sender.of(transaction, registry, registry.digester.delimiters)
        self.everyone = everyone or registry.classify(transaction.envelope.addresses)
        self.post = _post(transaction, in_force, sources.trace_key)
        self.counted = (
            self.everyone if self.post is None else _beside(self.post, self.everyone, in_force, sources.trace_key)
        )
        """Those who are judged here. Who gets a copy of a post that was admitted already was judged with the post."""
        self.reading: Reading | Unknown | None = None
        self.text: Reading | Unknown | None = None
        """``reading``: what the header says, at least; ``text``: the same with the text, once that was asked for."""
        self.looks_unknown: Unknown | None = None
        """Why nobody can say what it looks like although it was read: its origin would tell, and could not be verified."""
        self.origin: Origin | Unknown | None = None
        self.shown: Shown | None = None
        self.coming: Coming | None = None
        """What it shows and who stands behind it, once that was asked for (``compare``)."""
        self.differs: Mapping[str, tuple[Difference, ...]] = {}
        """By the holds that people approved: in what it differs from what they saw, where that was asked for."""
        self.streams: tuple[Stream, ...] = ()
        """Those whose standing approval this message uses."""
        self.facts = Facts(
            values=self._of_envelope(),
            evidence=self._expanded(),
            lists=self.everyone.lists,
            senders=self.sender.everything,
            sizes=self._sizes(),
        )
        self._sources = sources

    @property
    def behind(self) -> frozenset[str]:
        """Every address of whoever wrote or sent it, under any name that it bears, as far as the policy knows: none of them decides
        on it."""
        login = self.in_force.logging_in_as(self.transaction.session.auth_user)
        return self.in_force.addresses_of(*self.sender.everything, *login)

    async def open(self) -> Facts:
        """The header's facts: cheap, and needed for the record whatever the rules say. With the text where it is going to be
        asked for: of all that may reach a customer; and of a list server's copy, since a trace with another text under it is
        somebody else's."""
        if self.post is not None and self.post.text:
            await self._confirm(self.post)
        return await self.ask(ONLY_TEXT if self.needs_identity else ONLY_HEADERS)

    async def ask(self, pending: frozenset[Source]) -> Facts:
        """Everything from these sources; unknown where they do not answer."""
        if Source.TEXT in pending and self.text is None:
            self.text = await self._read(_HEADERS_AND_TEXT)
            if isinstance(self.text, Reading):
                self.reading = self.text
                await self._consider_origin(self.text)
            elif self.reading is None:  # where the text cannot be read, what the header says still stands
                self.reading = await self._read(ONLY_HEADERS)
        elif Source.HEADERS in pending and self.reading is None:
            self.reading = await self._read(ONLY_HEADERS)
        if Source.ORIGIN in pending:
            await self._verify()
        self._learn()
        return self.facts

    async def compare(
        self, templates: Mapping[str, Template] = _NO_TEMPLATE, approved: Mapping[str, Approved] = _NOTHING_APPROVED
    ) -> None:
        """Everything that it shows or opens, and what proves who stands behind it: for people who decide on it, or by what they
        decided on another. ``templates``: by name, what it may be a copy of. ``approved``: by its hold, what people have approved of
        its mailing."""
        if self.coming is None:
            await self._take_apart()
        coming, shown = self.coming, self.shown
        assert coming is not None
        assert shown is not None
        new = {name: template.takes_in(shown) for name, template in templates.items() if name not in coming.fits}
        if new:
            self.coming = replace(coming, fits={**coming.fits, **new})
        self.differs = {hold_id: one.differences(shown) for hold_id, one in approved.items()}

    async def _take_apart(self) -> None:
        message = self.transaction.message
        if self.origin is None and "DKIM-Signature" in message.header:
            await self._verify()
        shown = await _within(
            self._sources.read_seconds, lambda: self._sources.reader.shown(message), "it could not be taken apart"
        )
        self.shown = Shown(content=message.sha256, opaque=True) if isinstance(shown, Unknown) else shown
        self.coming = Coming.of(
            self.shown, author=self.sender.claimed or "", proofs=self._proofs(), by_address=self.by_address
        )

    @property
    def by_address(self) -> bool:
        """Whether it is for a list's address, or for another that expands to customers."""
        return bool(self.counted.list_addresses.high or self.counted.crowds or self.counted.addressed)

    def _proofs(self) -> frozenset[str]:
        """Who logged in, who signed it; where neither is known, that the client is the one that the policy declares."""
        user = self.transaction.session.auth_user
        signers = self.reading.vouched if isinstance(self.reading, Reading) else frozenset()
        signers |= self.origin.domains if isinstance(self.origin, Origin) else frozenset()
        found = {f"dkim {domain}" for domain in signers} | ({f"login {user.lower()}"} if user else set())
        facts = self.sender.facts(self.transaction, self.counted, self.in_force.registry, self.origin)
        return frozenset(found) or (frozenset({"origin"}) if facts.get("sender.proven") is True else frozenset())

    async def _confirm(self, post: TraceInfo) -> None:
        text = await self._read(_HEADERS_AND_TEXT)
        if isinstance(text, Reading):
            numbers = set(text.identity.sketch.numbers)
            if 2 * sum(n in numbers for n in post.text) >= len(post.text):
                self.reading = self.text = text
                return
        self.post, self.counted = None, self.everyone
        self.facts = replace(self.facts, values=self._of_envelope(), evidence={}, sizes=self._sizes())

    def _of_envelope(self) -> Mapping[str, Value]:
        size, lists = self.transaction.message.size_bytes, self.in_force.registry.lists
        return of_session(self.transaction.session) | of_envelope(self.counted, self.everyone.total, size, lists)

    def _sizes(self) -> Mapping[str, Count]:
        return {t.name: Count(t.size.low, t.size.high) for t in self.counted.touched.values()}

    async def _consider_origin(self, text: Reading) -> None:
        """What does not look like a mailing is one if it provably comes from where its list says; what looks like one by list headers
        is none if nothing proves those."""
        provenance = Provenance(reading=text, transaction=self.transaction, classified=self.counted,
                                registry=self.in_force.registry, weights=self.in_force.marks)  # fmt: skip
        if not provenance.could_matter:
            self.text = self.reading = provenance.unproven
            return
        proven = provenance.proven(await self._verify())
        if isinstance(proven, Unknown):
            self.looks_unknown = proven
        else:
            self.text = self.reading = proven

    async def _verify(self) -> Origin | Unknown:
        if self.origin is None:
            self.origin = await _within(
                self._sources.verify_seconds,
                lambda: self._sources.verifier.origin(self.transaction.message),
                "signatures could not be verified",
            )
        return self.origin

    @property
    def counts_by_stream(self) -> bool:
        """Whether only the origin can say if a stream is used, by which its mail is counted, or is no letter of its sender's."""
        if self.sender.claimed is None or "stream" in self.facts.values:
            return False
        streams = self.in_force.registry.streams_from(self.sender.claimed)
        if streams and self.counted.people and self.in_force.rules.counts_letters:
            return True
        if (
            streams
            and isinstance(self.reading, Reading)
            and self.reading.automatic
            and self.in_force.rules.asks_automatic
        ):
            return True
        return any(s.max is not None or s.max_per_person is not None for s in streams)

    @property
    def quoted(self) -> frozenset[bytes]:
        """Digests of the customers whom it answers, as it says: by a quotation that names them, or by the Message-ID of a message
        that was made in their domain. Anybody can write either."""
        text = self.text
        if not isinstance(text, Reading) or not text.answers:
            return frozenset()
        first = text.refers_to[0].rpartition("@")[2].lower() if text.refers_to else ""
        return frozenset(
            r.digest
            for r in self.counted.recipients
            if r.digest and (r.canonical in text.quotes or r.canonical.rpartition("@")[2] == first)
        )

    def _by_machine(self, values: Mapping[str, Value]) -> bool:
        """Whether it may be automatic: Auto-Submitted is anybody's to write, so that a null reverse-path or a declared origin has to
        bear it out."""
        by_origin = values.get("sender.proven") is True and not self.sender.authenticated
        return self.transaction.envelope.reverse_path is None or by_origin or bool(self.streams)

    def _letter_from(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """Under whom the first contacts of a letter to single customers are counted: its From, who logged in, and, where neither is
        proven, the client. What looks like a mailing is none, nor is a stream's."""
        if not (self.counted.people and self.in_force.rules.counts_letters) or self.streams:
            return ()
        if values.get("message.looks") == "mailing":
            return ()
        session, sender = self.transaction.session, self.sender
        found = [sender.claimed] if sender.claimed is not None else sorted(sender.everything)
        if session.auth_user:
            found.append(sender.login)
        elif values.get("sender.proven") is not True:
            found.append(f"client {session.client_ip}")
        return tuple(dict.fromkeys(found))

    @property
    def needs_identity(self) -> bool:
        """Whether what it is a copy of is yet to be found out: of all that may reach a customer, and of everything where a rule
        counts the people whom a mailing reaches."""
        if self.facts.identity is not None:
            return False
        return self.counted.customers.high > 0 or self.in_force.rules.counts("mailing.reach")

    def _identity(self, proven: bool) -> Identity | None:
        """None until the text was asked for. What nobody could read in time is a copy of the same octets. A campaign is
        believed of a sender who is proven."""
        if isinstance(self.text, Reading):
            shown = self.text.identity
            if self.text.little and self._answers(self.text):
                shown = Identity(exact=self.text.alone)
            if proven and self.text.campaign:
                first, *more = (f"campaign {self.sender.claimed} {name}" for name in self.text.campaign)
                return replace(shown, exact=first, also=(*more, *shown.names))
            return shown
        return None if self.text is None else Identity(exact=f"content {self.transaction.message.sha256}")

    def _answers(self, reading: Reading) -> bool:
        """Whether it quotes mail of all the customers whom it is for."""
        return bool(reading.quotes) and all(
            r.canonical in reading.quotes for r in self.counted.recipients if r.customers or r.perhaps
        )

    async def _read(self, need: frozenset[Source]) -> Reading | Unknown:
        reader, message, otherwise = self._sources.reader, self.transaction.message, "the message could not be read"
        try:
            seen = reader.at_once(message, need)
        except Exception as error:
            return _failed(otherwise, error)
        if seen is not None:
            return seen
        return await _within(self._sources.read_seconds, lambda: reader.apart(message, need), otherwise)

    def _learn(self) -> None:
        reading, text, known, registry = self.reading, self.text, self.facts, self.in_force.registry
        if isinstance(reading, Reading):
            self.sender = self.sender.read_as(reading.from_address, reading.from_ambiguous)
        values: dict[str, Value] = dict(known.values)
        values.update(self.sender.facts(self.transaction, self.counted, registry, self.origin))
        self.streams = self.sender.proven_streams(self.transaction, self.counted, registry, self.origin)
        evidence, thread = known.evidence, ""
        if isinstance(reading, Reading):
            values.update(of_header(reading, self.counted, bears_out=self._by_machine(values)))
            thread = reading.thread
        elif reading is not None:
            values.update(dict.fromkeys(OF_HEADER, reading))
        if isinstance(text, Reading):
            values.update(of_text(text, self.counted, registry.lists, self.looks_unknown))
            evidence = {**evidence, **evidence_of(text)}
        elif text is not None:
            values.update(dict.fromkeys(OF_TEXT, text))
        self.facts = Facts(
            values=values,
            evidence=evidence,
            lists=known.lists,
            senders=self.sender.everything,
            thread=thread,
            threads=threads_of(reading, self.counted),
            reply=reply_of(reading, self.transaction),
            sizes=known.sizes,
            identity=self._identity(values.get("sender.proven") is True),
            letter_from=self._letter_from(values) if text is not None else (),
            shared=self.sender.claimed in self.in_force.shared and values.get("sender.proven") is True,
        )

    def _expanded(self) -> Mapping[str, tuple[str, ...]]:
        if self.post is None:
            return {}
        return {"recipients.customers": (f"copies of the post {self.post.id}, which was decided on before expansion",)}


_HEADERS_AND_TEXT = ONLY_HEADERS | ONLY_TEXT


async def _within(seconds: float, ask: Callable[[], Awaitable[T | Unknown]], otherwise: str) -> T | Unknown:
    try:
        async with asyncio.timeout(seconds):
            return await ask()
    except TimeoutError:
        return Unknown(why=f"{otherwise}: no answer within {seconds:g} s")
    except Exception as error:
        return _failed(otherwise, error)


def _failed(otherwise: str, error: Exception) -> Unknown:
    return Unknown(why=f"{otherwise}: {type(error).__name__}")


def _post(transaction: Transaction, in_force: InForce, key: bytes) -> TraceInfo | None:
    """The admitted post of which this is a list server's copy: from a declared expander, with our own trace in it, which
    says that the post was addressed to the very list whose List-Id the copy bears."""
    registry, header = in_force.registry, transaction.message.header
    if not (transaction.session.expander or registry.is_expander(transaction.session.client_ip)):
        return None
    list_ids = header.all("List-Id")
    info = registry.list_with_id(_bracketed(list_ids[0].text)) if len(list_ids) == 1 else None
    trace = trusted(header, key)
    if info is None or trace is None or not trace.admitted_to(info.name, key):
        return None
    return trace


def _beside(post: TraceInfo, everyone: Classified, in_force: InForce, key: bytes) -> Classified:
    """The recipients whom the lists that the post was addressed to do not explain."""
    posted = frozenset(name for name in everyone.touched if post.admitted_to(name, key))
    return in_force.registry.classify(
        r.address for r in everyone.recipients if posted.isdisjoint(r.lists) and posted.isdisjoint(r.doubt)
    )


def _bracketed(list_id: str) -> str:
    """The identifier of a List-Id field (RFC 2919 section 3)."""
    return list_id.rpartition("<")[2].partition(">")[0]


# The keys under which a reply's conversation is counted: from its header, and from the lists it is for.
#
# Programs differ in what they keep of a conversation, so a reply is counted under each name that it gives it, and the largest
# count is the conversation's. Its subject is a name only among replies to the same list's address, and only if it is long
# enough to be one.


SUBJECT = 12  # characters that a subject has at least to name a conversation


def threads_of(reading: Reading | Unknown | None, counted: Classified) -> tuple[str, ...]:
    """None of what is no reply, as far as its header says."""
    if not isinstance(reading, Reading) or not reading.answers:
        return ()
    names = [reading.thread, f"number {reading.conversation}" if reading.conversation else ""]
    subject = " ".join(bare(reading.subject).lower().split())
    if counted.addressed and len(subject) >= SUBJECT:
        names.append(f"subject {' '.join(counted.addressed)} {subject[:200]}")
    return tuple(dict.fromkeys(filter(None, names)))


def reply_of(reading: Reading | Unknown | None, transaction: Transaction) -> str:
    """What one reply is known by, in however many envelopes it comes; "" of what is none."""
    if not isinstance(reading, Reading) or not reading.answers:
        return ""
    return reading.message_id or transaction.message.sha256
