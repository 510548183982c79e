"""Gather the facts of one transaction, only those that are needed, within time limits.

Recipients and header come first, since they are cheap. Text and origin follow only when the plan still hangs on them. A
fact that cannot be found out becomes Unknown with its reason: never a guess, never an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import TypeVar

from smtpguard.gathering.sender import Provenance, Sender, client_name
from smtpguard.gathering.turns import Turns
from smtpguard.gathering.values import OF_HEADER, OF_TEXT, evidence_of, of_envelope, of_header, of_text
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Reader, Verifier
from smtpguard.lists.declared import Stream
from smtpguard.lists.recipients import MEMBER, Classified
from smtpguard.mail.address import Address
from smtpguard.mail.constant import changed, constant, maker
from smtpguard.mail.envelope import Transaction
from smtpguard.mail.fields import DkimResult, mailboxes
from smtpguard.mail.message import Message
from smtpguard.mail.trace import NUMBERS, TraceInfo, trusted
from smtpguard.mailings.differences import Approved, Difference
from smtpguard.mailings.model import Candidate
from smtpguard.mailings.slots import Template
from smtpguard.policy.engine import Plan
from smtpguard.policy.facts import ONLY_ORIGIN, ONLY_TEXT, Count, Facts, Source, Unknown
from smtpguard.reading.fingerprint import FEWEST, Identity, checksums
from smtpguard.reading.looks import Reading
from smtpguard.reading.request import Depth, Steps, finished
from smtpguard.reading.shown import ANOTHER_SHOWN, Shown, named_otherwise
from smtpguard.reading.thread import without_prefixes

T = TypeVar("T")
_address = attrgetter("address")
_NOT_APART, _NOT_READ = "it could not be taken apart", "the message could not be read"
_SOURCES = len(Source)
_LITTLE = 500
"""The most letters of a short post with the footer of a list server."""
_LEAST_SUBJECT = 12
"""The fewest characters of a subject that names a conversation."""
_NOTHING_KNOWN = Facts()
_NO_TEMPLATE: Mapping[str, Template] = {}
_NOTHING_APPROVED: Mapping[str, Approved] = {}
_NO_EVIDENCE: Mapping[str, tuple[str, ...]] = {}
_NO_SIZES: Mapping[str, Count] = {}
_NO_LISTS: frozenset[str] = frozenset()
_NO_DIFFERENCE: Mapping[str, tuple[Difference, ...]] = {}


@constant
class Gathered:
    """What is known of one transaction. Each step of the gathering returns the next value.

    ``began``: when the final dot came. ``everyone``: all recipients. ``counted``: the recipients to judge; those of a list
    server's copy were judged with the admitted ``post`` that it copies. ``reading``: at least the header. ``text``: header
    and text, None until the text is asked for. ``looks_unknown``: why the looks are unknown although the text was read: they
    depend on the origin, which could not be verified. ``streams``: the streams whose standing approval it uses. ``shown``,
    ``coming``: what it shows, and who wrote it. ``differs``: by approved hold, the differences from what was approved
    (``Gather.compare``).
    """

    transaction: Transaction
    in_force: InForce
    began: datetime | None
    sender: Sender
    everyone: Classified
    counted: Classified
    post: TraceInfo | None
    facts: Facts
    reading: Reading | Unknown | None = None
    text: Reading | Unknown | None = None
    looks_unknown: Unknown | None = None
    origin: DkimResult | Unknown | None = None
    streams: tuple[Stream, ...] = ()
    shown: Shown | None = None
    coming: Candidate | None = None
    differs: Mapping[str, tuple[Difference, ...]] = field(default_factory=dict)

    @property
    def reports_to(self) -> frozenset[str]:
        """The customer lists to which reports on its delivery would go, against the policy. A list server's copy of an admitted
        post has the server's reverse-path, and a proven writer of the lists means it: these have none."""
        lists, registry = self.sender.reports_to, self.in_force.registry
        if not lists or self.post is not None:
            return _NO_LISTS
        proven = self.sender.is_writer_of(lists, self.transaction, registry, self.origin) is True
        return _NO_LISTS if proven else frozenset(lists)

    @property
    def reports_by_origin(self) -> bool:
        """Whether the origin must be verified to know that the writer may have reports sent to a list."""
        if not self.reports_to:
            return False
        lists, registry = self.sender.reports_to, self.in_force.registry
        return self.sender.is_writer_of(lists, self.transaction, registry, self.origin) is None

    @property
    def behind(self) -> frozenset[str]:
        """Every address that the policy knows of the people who wrote or sent it. They may not decide on it."""
        return self.in_force.behind(self.sender.everything, self.transaction.session.auth_user)

    @property
    def names_another(self) -> bool:
        """Whether it goes to one customer, but To and Cc name only another one."""
        recipients, shown = self.everyone.recipients, self.reading.shown if isinstance(self.reading, Reading) else ()
        if len(recipients) != 1 or len(shown) != 1 or recipients[0].canonical in shown:
            return False
        named = self.in_force.registry.classify(mailboxes(self.transaction.message.header, "to", "cc")).recipients
        if len(named) != 1 or named[0].digest == recipients[0].digest:  # another spelling of the same mailbox
            return False
        return all(one.kind is MEMBER and one.behind is None for one in (*recipients, *named))

    @property
    def by_address(self) -> bool:
        """Whether a recipient is a list's address, or another address that expands to customers."""
        return bool(self.counted.list_addresses.high or self.counted.crowds or self.counted.addressed)

    @property
    def called(self) -> Iterator[str]:
        """The names of its addressees in the policy, and the aliases with customers behind them. What a client adds to an
        address (``list+more@here``) is no name: it is any text."""
        yield self.in_force.organization.name
        for one in self.everyone.recipients:
            if one.behind is not None:
                yield one.canonical
        for name in self.counted.addressed:
            info = self.in_force.registry.lists[name]
            yield from (name, info.title, *map(str, info.addresses))

    @property
    def counts_by_stream(self) -> bool:
        """Whether the origin must be verified to know that it uses a stream. If it does, it counts for the stream, and not
        as a letter of its sender."""
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
        """The digests of the customers whom it claims to answer: it quotes them by address, or names a Message-ID of their
        domain. Anybody can forge either."""
        text = self.text
        if not isinstance(text, Reading) or not text.answers:
            return frozenset()
        first = text.refers_to[0].rpartition("@")[2].lower() if text.refers_to else ""
        return frozenset(
            r.digest
            for r in self.counted.recipients
            if r.digest and (r.canonical in text.quotes or r.canonical.rpartition("@")[2] == first)
        )

    def proofs(self, origin: DkimResult | Unknown | None) -> frozenset[str]:
        """Return what proves its writer: login and signing domains; without them, that the policy declares the client.
        ``origin``: the origin, if it was asked for."""
        user = self.transaction.session.auth_user
        signers = self.reading.vouched if isinstance(self.reading, Reading) else frozenset()
        signers |= origin.domains if isinstance(origin, DkimResult) else frozenset()
        found = {f"dkim {domain}" for domain in signers} | ({f"login {user.lower()}"} if user else set())
        if found:
            return frozenset(found)
        values = self.facts.values
        if origin is not self.origin:
            values = self.sender.facts(self.transaction, self.counted, self.in_force.registry, origin)
        return frozenset({"origin"}) if values.get("sender.proven") is True else frozenset()


_new_facts, _new_gathered = maker(Facts), maker(Gathered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Gathers facts from the sources, each with a timeout. ``planned`` gathers what the rules need. ``open`` and then ``ask``
    gather step by step. ``trace_key`` verifies our own trace headers."""

    reader: Reader
    verifier: Verifier
    trace_key: bytes
    read_seconds: float = 40.0
    verify_seconds: float = 10.0
    turns: Turns = field(default_factory=Turns, init=False)

    async def planned(
        self, transaction: Transaction, in_force: InForce, began: datetime | None = None, *, text: bool
    ) -> tuple[Gathered, Plan]:
        """Gather until the outcome depends on nothing unknown, cheap sources first. The text of a message that waits is read
        too: people will want the reasons, and it is rare. ``text``: read the text of every message."""
        rules, ask = in_force.rules, self.ask
        gathered = await self.open(transaction, in_force, began=began)
        plan = rules.plan(gathered.facts)
        for _ in range(_SOURCES):
            if not plan.pending:
                break
            gathered = await ask(gathered, plan.pending)
            plan = rules.plan(gathered.facts)
        by_path = gathered.sender.reports_to
        if gathered.counts_by_stream or (by_path and gathered.reports_by_origin):
            gathered = await ask(gathered, ONLY_ORIGIN)
            plan = rules.plan(gathered.facts)
        waits = plan.certain[0].waits or (by_path and gathered.reports_to)
        if waits or (text and gathered.facts.identity is None):
            gathered = await ask(gathered, ONLY_TEXT)
            plan = rules.plan(gathered.facts)
        return gathered, plan

    async def open(
        self,
        transaction: Transaction,
        in_force: InForce,
        *,
        began: datetime | None = None,
        everyone: Classified | None = None,
    ) -> Gathered:
        """Read the header, which is cheap, and which the journal always needs. Read the text too of mail that may reach a
        customer, and of a list server's copy: a trace above another text belongs to another message. ``everyone``: the
        recipients, if they differ from the envelope's."""
        registry = in_force.registry
        everyone = everyone or registry.classify(map(_address, transaction.envelope.recipients))
        text: Reading | Unknown | None = None
        expanders = transaction.session.expander or registry.expanders
        post = _post(transaction, in_force, self.trace_key) if expanders else None
        if post is not None:
            text = await self._read(transaction, Depth.TEXT)
            if not isinstance(text, Reading) or not _same_text(text, post):
                post, text = None, None
        counted = everyone if post is None else _not_on_its_lists(post, everyone, in_force, self.trace_key)
        # its mailing is needed if it may reach a customer, or if a rule counts the people that a mailing reaches
        compared = bool(counted.customers.high) or in_force.rules.counts("mailing.reach")
        reading = text or (None if compared else await self._read(transaction, Depth.HEADERS))
        known = _new_gathered(
            transaction=transaction,
            in_force=in_force,
            began=began,
            sender=Sender.of(transaction, registry),
            everyone=everyone,
            counted=counted,
            post=post,
            facts=_NOTHING_KNOWN,
            reading=reading,
            text=text,
            differs=_NO_DIFFERENCE,
        )
        return await self.ask(known, ONLY_TEXT) if compared else _learned(known)

    async def ask(self, known: Gathered, pending: frozenset[Source]) -> Gathered:
        """Add the facts from these sources. They are unknown if a source does not answer."""
        transaction = known.transaction
        reading, text, origin, looks_unknown = known.reading, known.text, known.origin, known.looks_unknown
        if Source.TEXT in pending and text is None:
            text = await self._read(transaction, Depth.TEXT)
            if isinstance(text, Reading):
                text, origin, looks_unknown = await self._with_origin(known, text)
                reading = text
            elif reading is None:  # if the text cannot be read, the header still counts
                reading = await self._read(transaction, Depth.HEADERS)
        if Source.ORIGIN in pending and origin is None:
            origin = await self._verify(transaction)
        return _learned(changed(known, reading=reading, text=text, origin=origin, looks_unknown=looks_unknown))

    async def compare(
        self,
        known: Gathered,
        templates: Mapping[str, Template] = _NO_TEMPLATE,
        approved: Mapping[str, Approved] = _NOTHING_APPROVED,
        to: Sequence[Address] | None = None,
    ) -> Gathered:
        """Add everything that the message shows, and what proves its writer: people who decide need it, and approved
        messages are compared with it. ``templates``: by name, the templates that it may fill. ``approved``: by hold, what
        was approved of its mailing. ``to``: the recipients, if they differ from the envelope's."""
        if known.coming is None:
            known = await self._with_shown(known, templates, to)
        coming, shown = known.coming, known.shown
        assert coming is not None
        assert shown is not None
        new = {name: template.matches(shown) for name, template in templates.items() if name not in coming.fits}
        if new:
            coming = changed(coming, fits={**coming.fits, **new})
        differs = {hold_id: one.differences(shown) for hold_id, one in approved.items()}
        return changed(known, coming=coming, differs=differs) if new or differs or known.differs else known

    async def _with_shown(
        self, known: Gathered, templates: Mapping[str, Template], to: Sequence[Address] | None
    ) -> Gathered:
        message, origin = known.transaction.message, known.origin
        addresses = known.transaction.envelope.addresses if to is None else to
        if origin is None and "DKIM-Signature" in message.header:
            origin = await self._verify(known.transaction)
        recipient = str(addresses[0]).lower() if len(addresses) == 1 else ""
        another = known.names_another
        shown, fits = await self.turns.of(self._shown_in_steps(message, recipient, another, templates))
        if shown is None:
            shown = await _within(self.read_seconds, lambda: self.reader.shown_apart(message), _NOT_APART)
            if isinstance(shown, Shown):
                shown = _with_recipient(shown, recipient, another)
        if isinstance(shown, Unknown):
            shown = Shown(content=message.sha256, opaque=True)
        said, registry = shown, known.in_force.registry
        to_all = known.by_address if to is None else registry.classify(to).addressed
        if to_all and (names := named_otherwise(message.header, (shown.sender, *known.called))):
            said = changed(shown, blocks=(*shown.blocks, names))
        coming = Candidate(
            content=shown.content,
            said=said,
            author=known.sender.claimed or "",
            proofs=known.proofs(origin),
            by_address=known.by_address,
            fits=fits,
        )
        # copies to single people are compared with a test as well, and may have other names
        return changed(known, origin=origin, shown=said if to is None else shown, coming=coming)

    def _shown_in_steps(
        self, message: Message, recipient: str, another: bool, templates: Mapping[str, Template]
    ) -> Steps[tuple[Shown | Unknown | None, Mapping[str, bool]]]:
        try:
            shown = self.reader.shown_at_once(message)
        except Exception as error:
            return _failed(_NOT_APART, error), {}
        yield
        if shown is None:
            return None, {}
        shown = _with_recipient(shown, recipient, another)
        return shown, {name: one.matches(shown) for name, one in templates.items()}

    async def _with_origin(
        self, known: Gathered, text: Reading
    ) -> tuple[Reading, DkimResult | Unknown | None, Unknown | None]:
        """Adjust the looks for the origin. Mail that provably comes from the origin that its list declares is a mailing.
        List headers that nothing proves make no mailing. Returns the reading, the origin if it was asked for, and why the
        looks are unknown, else None."""
        provenance = Provenance(reading=text, transaction=known.transaction, classified=known.counted,
                                registry=known.in_force.registry, weights=known.in_force.marks)  # fmt: skip
        if not provenance.could_matter:
            return provenance.unproven, known.origin, None
        origin = known.origin if known.origin is not None else await self._verify(known.transaction)
        proven = provenance.proven(origin)
        return (text, origin, proven) if isinstance(proven, Unknown) else (proven, origin, None)

    async def _verify(self, transaction: Transaction) -> DkimResult | Unknown:
        return await _within(
            self.verify_seconds,
            lambda: self.verifier.origin(transaction.message),
            "signatures could not be verified",
        )

    async def _read(self, transaction: Transaction, depth: Depth) -> Reading | Unknown:
        message = transaction.message
        try:
            steps = self.reader.in_steps(message, depth)
            seen = await self.turns.of(steps) if depth is Depth.TEXT else finished(steps)
        except Exception as error:
            return _failed(_NOT_READ, error)
        if seen is not None:
            return seen
        return await _within(self.read_seconds, lambda: self.reader.apart(message, depth), _NOT_READ)


def _learned(known: Gathered) -> Gathered:
    """Return it with the sender as the header was read, the facts from its answers, and the streams whose standing approval
    the message uses."""
    transaction, in_force, counted = known.transaction, known.in_force, known.counted
    registry, read = in_force.registry, known.reading if isinstance(known.reading, Reading) else None
    sender, text = known.sender, known.text
    if read is not None:
        sender = sender.read_as(read.from_address, read.from_ambiguous)
    if sender is not known.sender:
        known = changed(known, sender=sender)
    answer = read if read is not None and read.answers else None
    values = of_envelope(transaction, counted, known.everyone.total, registry.lists)
    values.update(sender.facts(transaction, counted, registry, known.origin))
    proven = values.get("sender.proven") is True
    streams: tuple[Stream, ...] = ()
    if (names := values.get("stream")) and isinstance(names, frozenset):
        streams = tuple([s for s in registry.streams_from(sender.claimed or "") if s.name in names])
    evidence = _NO_EVIDENCE
    if known.post is not None:
        copies = f"copies of the post {known.post.id}, which was decided on before expansion"
        evidence = {"recipients.customers": (copies,)}
    if read is not None:
        # Anybody can write Auto-Submitted, so a null reverse-path or a declared origin must confirm it.
        by_origin = proven and not sender.authenticated
        by_machine = transaction.envelope.reverse_path is None or by_origin or bool(streams)
        values.update(of_header(read, counted, bears_out=by_machine))
    elif isinstance(known.reading, Unknown):
        values.update(dict.fromkeys(OF_HEADER, known.reading))
    if isinstance(text, Reading):
        values.update(of_text(text, counted, registry.lists, known.looks_unknown))
        evidence = {**evidence, **evidence_of(text)}
    elif text is not None:
        values.update(dict.fromkeys(OF_TEXT, text))
    sent_by = _names(transaction, counted, sender, proven=proven) if text is not None and not streams else ()
    mailing = values.get("message.looks") == "mailing"
    also_from = sender.account if not proven or sender.login == sender.claimed else ""
    if mailing and not proven and not also_from:
        also_from = client_name(transaction.session.client_ip)
    facts = _new_facts(
        values=values,
        evidence=evidence,
        lists=known.everyone.lists | known.reports_to if sender.reports_to else known.everyone.lists,
        senders=sender.everything | sender.unnamed if sender.unnamed else sender.everything,
        thread=read.thread if read is not None else "",
        threads=threads_of(answer, counted) if answer is not None else (),
        reply=(answer.message_id or transaction.message.sha256) if answer is not None else "",
        sizes={t.name: t.size for t in counted.touched.values()} if counted.touched else _NO_SIZES,
        identity=_identity(transaction, counted, sender, text, proven=proven) if text is not None else None,
        sent_by=sent_by,
        letter_from=sent_by if in_force.rules.counts_letters and not mailing else (),
        also_from=also_from,
        shared=proven and sender.claimed in in_force.organization.shared,
    )
    return changed(known, facts=facts, streams=streams)


def _identity(
    transaction: Transaction, counted: Classified, sender: Sender, text: Reading | Unknown, *, proven: bool
) -> Identity:
    """Return what tells copies of one mailing. A message that could not be read is a copy of the same octets only. A
    campaign's id counts only from a proven sender."""
    if not isinstance(text, Reading):
        return Identity(exact=f"content {transaction.message.sha256}")
    shown = text.identity
    if text.alone and _answers_all(text, counted):
        shown = Identity(exact=text.alone)
    if proven and text.campaign:
        first, *more = (f"campaign {sender.claimed} {name}" for name in text.campaign)
        return changed(shown, exact=first, also=(*more, *shown.names))
    return shown


def _answers_all(reading: Reading, counted: Classified) -> bool:
    """Return whether it quotes mail of each of its customers."""
    return bool(reading.quotes) and all(
        r.canonical in reading.quotes for r in counted.recipients if r.customers or r.perhaps
    )


def _names(transaction: Transaction, counted: Classified, sender: Sender, *, proven: bool) -> tuple[str, ...]:
    """Return the names under which the sender's mail to single customers is counted: From, the login, and the client if
    neither is proven."""
    if not counted.people:
        return ()
    found = [sender.claimed] if sender.claimed is not None else sorted(sender.everything - {sender.account})
    if sender.account:
        found.append(sender.account)
    elif not proven:
        found.append(client_name(transaction.session.client_ip))
    return tuple(dict.fromkeys(found))


def trace_text(text: object) -> tuple[int, ...]:
    """Return the numbers that a trace keeps of a text: its sketch, or checksums if it is too short for one."""
    if not isinstance(text, Reading):
        return ()
    return text.identity.sketch.numbers or checksums(text.excerpt)


def _same_text(text: Reading, post: TraceInfo) -> bool:
    """Return whether ``text`` is the post's text with a footer: at least half of the numbers in the trace fit, and a short
    post stays short. Every member has the trace of an old post, and could put it on another text."""
    if len(post.text) < FEWEST:
        numbers = set(checksums(text.excerpt))
        if sum(map(str.isalpha, text.excerpt)) > _LITTLE:
            return False
    else:  # numbers far behind the smallest belong to a long text around the post
        numbers = set(text.identity.sketch.numbers[: 2 * NUMBERS] or checksums(text.excerpt))
    return 2 * sum(n in numbers for n in post.text) >= len(post.text)


def _with_recipient(shown: Shown, recipient: str, another: bool) -> Shown:
    """Add to ``shown`` the one recipient, and whether the header names another (``Gathered.names_another``)."""
    said = shown.sender + ANOTHER_SHOWN if another and not shown.opaque else shown.sender
    return changed(shown, recipient=recipient, sender=said)


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
    """Return the trace of the admitted post that this message copies, None if it is no list server's copy. A copy comes from
    a declared expander, and has our trace of a post to the list in its List-Id."""
    registry, header = in_force.registry, transaction.message.header
    if not (transaction.session.expander or registry.is_expander(transaction.session.client_ip)):
        return None
    list_ids = header.all("List-Id")
    if len(list_ids) != 1:
        return None
    info = registry.list_with_id(list_ids[0].text.rpartition("<")[2].partition(">")[0])
    trace = trusted(header, key)
    if info is None or trace is None or not trace.admitted_to(info.name, key):
        return None
    return trace


def _not_on_its_lists(post: TraceInfo, everyone: Classified, in_force: InForce, key: bytes) -> Classified:
    """Return the recipients who are not on the lists to which the post was addressed."""
    posted = frozenset(name for name in everyone.touched if post.admitted_to(name, key))
    return in_force.registry.classify(
        r.address for r in everyone.recipients if posted.isdisjoint(r.lists) and posted.isdisjoint(r.doubt)
    )


def threads_of(reading: Reading, counted: Classified) -> tuple[str, ...]:
    """Return the names of a reply's conversation, under each of which it is counted; the largest count is used. Mail programs
    keep different parts of a conversation's header. A subject is a name only for replies to the same list address."""
    names = [reading.thread, f"number {reading.conversation}" if reading.conversation else ""]
    subject = " ".join(without_prefixes(reading.subject).lower().split())
    if counted.addressed and len(subject) >= _LEAST_SUBJECT:
        names.append(f"subject {' '.join(counted.addressed)} {subject[:200]}")
    return tuple(dict.fromkeys(filter(None, names)))
