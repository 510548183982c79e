"""The admission in a batch: what an item sees (Seen), and the rows that its decision writes.

All checks that can refuse an item come before its first row is written: the policy, the content, the step itself, and
whether the step's result can be written as JSON. So a bad item fails alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import update

from smtpguard.admission.model import Admission, ComparisonMissing, Item, Seen
from smtpguard.counts.counting import WindowCounts
from smtpguard.database.batch import Batch
from smtpguard.database.errors import ContentMissing, PolicyMoved
from smtpguard.database.failpoint import passes
from smtpguard.database.schema import hold as hold_table
from smtpguard.holds import contents
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Hold, State
from smtpguard.journal.chain import canonical
from smtpguard.mail.constant import maker
from smtpguard.mailings.inflight import unpack_people
from smtpguard.mailings.mailingbatch import mailings_of
from smtpguard.mailings.mailingrow import MailingRow
from smtpguard.mailings.model import CopyStatus, Grant, Mailing
from smtpguard.mailings.rows import PeopleSets
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import OF_CONTENT, IntentKind
from smtpguard.policy.counted import Ask
from smtpguard.policy.freezing import Freeze, Selector, freezes_mailings
from smtpguard.policy.verdict import Action, Held

_new_seen = maker(Seen)
_SET_REACH = "UPDATE hold SET copies = ?, reach = ? WHERE hold_id = ?"
STATUSES = {
    Action.RELAY: CopyStatus.ADMITTED,
    Action.CONFIRM: CopyStatus.HELD,
    Action.HOLD: CopyStatus.HELD,
    Action.DEFER: CopyStatus.DEFERRED,
    Action.REJECT: CopyStatus.NONE,
}
"""The status of people's copies by the verdict's action."""

# Verdicts without an outcome count too: their process may have died between the final dot and the relay's reply.
_DOUBTS = "SELECT key FROM underway WHERE key {}"


class Run:
    """Consecutive items of one batch, with what was read ahead for all of them."""

    def __init__(self, batch: Batch, items: Sequence[Item]) -> None:
        self._batch = batch
        batch.flush()
        keys = list({item.key for item in items})
        self._duplicates = holds.duplicates(batch, keys)
        self._doubts = {key for (key,) in batch.among(_DOUBTS, keys)}
        self._entries: dict[str, Hold | None] = {}
        self._queues = holds.queues(batch, list({item.sent_by[-1] for item in items if item.sent_by}))
        self._joined: set[str] = set()  # primary holds that have more copies or people after this run
        self._sets = PeopleSets(batch)
        mailings_of(batch).look_up_items(items)
        self._counts = WindowCounts(batch, items)  # some counts need the mailing of an item

    def admit(self, item: Item, step: Callable[[Seen], Admission]) -> Admission:
        batch = self._batch
        if item.policy_sha256 != batch.head.policy:
            raise PolicyMoved("another policy is in force")
        if item.identity is None and freezes_mailings(batch.freezes):
            raise ComparisonMissing("a mailing is frozen")
        row = mailings_of(batch).row_of(item)
        live = self._live(item, row)
        admission = step(live)
        sealed = batch.sealed(admission.events)
        if not set(item.asks).issuperset(admission.counted):
            raise ValueError("counted what was not asked for")
        intents = [outboxes.rows_of(intent, batch.now_us) for intent in admission.intents]
        contents_used = {i.content_sha256 for i in admission.intents if i.kind in OF_CONTENT}
        hold, duplicate, hold_row = admission.hold, self._duplicates.get(item.key), None
        again = hold is not None and duplicate is not None and hold.hold_id == duplicate.hold_id
        if hold is not None:
            hold_row = holds.row_of(hold, item.key) | {"acknowledged": False, "shown": admission.shown}
            contents_used.add(hold.content_sha256)
        for sha256 in contents_used:
            if sha256 is None or not contents.is_kept(batch.connection, sha256):
                raise ContentMissing("the content of the hold is not kept")
        marks = None
        if admission.disposition is None and admission.verdict.action is Action.RELAY:
            mailing = row.known.mailing_id if row is not None else ""
            marks = canonical([sorted(item.touches - admission.unfrozen), sorted(item.senders), mailing, item.thread])
        # From here on nothing is refused.
        batch.append(sealed)
        people = self._recorded(item, row, admission) if row is not None else None
        if marks is not None:
            n = row.known.n if row is not None else None
            batch.rows("underway").append((item.id, item.key, batch.now_us, marks, False, n, people, False))
        if hold_row is not None and hold is not None:
            if again:
                outboxes.remove(batch, hold.hold_id, IntentKind.NOTICE)
                holds.replace(batch.connection, hold)
                now: dict[str, object] = {"acknowledged": False, "lead": hold.primary or None}
                if people is not None:
                    now["people"] = people
                batch.connection.execute(update(hold_table).where(hold_table.c.hold_id == hold.hold_id).values(**now))
            else:
                batch.keep_from_fronts(bytes.fromhex(item.key))
                holds.add(batch.connection, hold_row | {"people": people})
            self._duplicates[item.key] = hold
            if hold.queue:
                self._queues[hold.queue] = hold.hold_id
                self._entries.setdefault(hold.hold_id, hold)
        outboxes.write(batch, intents)
        passes("admission", item.message_id)
        if admission.counted:
            self._counts.record(item, admission.counted, known=admission.verdict.action is not Action.CONFIRM)
        return admission

    def finish(self) -> None:
        self._counts.write()
        if self._joined:
            leads = (lead for id in self._joined if (lead := self._entry(id)) is not None)
            self._batch.execute(_SET_REACH, [(lead.copies, lead.reach, lead.hold_id) for lead in leads])

    def _live(self, item: Item, row: MailingRow | None) -> Seen:
        batch, mailings = self._batch, mailings_of(self._batch)
        counts = self._counts.counts(item) if item.asks else {}
        maybe: dict[Ask, float] = {}
        mailing, entry, fresh, astray = None, None, 0, 0
        grants: tuple[Grant, ...] = ()
        if row is not None:
            of_mailing, maybe = mailings.counts(row, item)
            counts |= of_mailing
            mailing = mailings.view(row)
            if mailing.grant is not None:
                fresh = mailings.new_people(row, item)
                grants, astray = self._covering(item, row, mailing, fresh)
            entry = self._entry(mailing.entry)
        queue = self._entry(self._queues.get(item.sent_by[-1], "")) if item.sent_by else None
        return _new_seen(
            mailing_id=mailing.mailing_id if mailing is not None else "",
            now=batch.now,
            freezes=_stopping(batch.freezes, grants),
            counts=counts,
            maybe=maybe,
            mailing=mailing,
            fresh=fresh,
            grants=grants,
            approved=any(not grant.by_writer for grant in grants),
            entry=entry,
            queue=queue,
            duplicate=self._duplicates.get(item.key),
            generation=batch.head.generation,
            astray=astray,
            in_doubt=item.key in self._doubts
            or (bool(grants) and row is not None and mailings.list_in_doubt(row, item)),
        )

    def _covering(self, item: Item, row: MailingRow, mailing: Mailing, fresh: int) -> tuple[tuple[Grant, ...], int]:
        """The approvals that cover this message. If none does, how many of its recipients are not in the set of people that an approval
        of this content is bound to, or may have it already. Raises ComparisonMissing if that cannot be said yet."""
        if item.test:  # people decide on it whatever was approved before
            return (), 0
        if mailing.agreed and mailing.agreed == mailing.people.held and not mailing.entry:  # who waits has a place
            fresh -= mailings_of(self._batch).waiting(row, item)
        allowing = mailing.allowing(item.everybody, fresh, item.always)
        if not allowing:
            return (), 0
        coming = item.coming
        answers = [grant.matches(coming) if coming is not None else None for grant in allowing]
        if None in answers:
            names = {g.cover.learned for g in allowing if g.cover is not None and g.cover.learned}
            found = contents.templates(self._batch.connection, names)
            if coming is None or found.keys() - coming.fits.keys():
                raise ComparisonMissing("people approved something like it", found)
        covering = [grant for grant, answer in zip(allowing, answers, strict=True) if answer]
        astray = {grant.only: self._astray(grant, item, row) for grant in covering if grant.only}
        grants = tuple(grant for grant in covering if not astray.get(grant.only))
        return grants, 0 if grants else min(astray.values(), default=0)

    def _astray(self, grant: Grant, item: Item, row: MailingRow) -> int:
        """How many of its recipients are not in the set, stand for several, or may have a copy already; two that are one person, too."""
        mailings = mailings_of(self._batch)
        wrong = sum(
            not self._sets.has(grant.only, person.digest) or mailings.may_have(row, person.digest)
            for person in item.everybody
        )
        return wrong or int(item.doubled)

    def _entry(self, hold_id: str) -> Hold | None:
        if not hold_id:
            return None
        if hold_id not in self._entries:
            self._entries[hold_id] = holds.find(self._batch.connection, hold_id)
        return self._entries[hold_id]

    def _recorded(self, item: Item, row: MailingRow, admission: Admission) -> bytes | None:
        """Count the message under its mailing, and a held one under the mailing's primary hold. Returns the digests of
        its people. A retry of a held message changes nothing."""
        mailings, done = mailings_of(self._batch), admission.disposition
        taken = isinstance(done, Held) and bool(done.taken)  # until the MTA reports, it is unknown what it passed on
        if admission.hold is None and isinstance(done, Held):
            if taken:
                mailings.set_status(row, admission.spared, CopyStatus.DOUBTED, only={CopyStatus.DEFERRED})
            return None
        status = STATUSES[admission.verdict.action]
        spared = dict.fromkeys(admission.spared, CopyStatus.DOUBTED if taken else CopyStatus.ADMITTED)
        waited = _waiting(row)
        people = mailings.record(row, item, status, admission.named, spared) if status is not CopyStatus.NONE else None
        more = max(_waiting(row) - waited, 0)
        mailing = row.mailing
        if admission.progress is not None:
            mailing = replace(mailing, progress=admission.progress)
        if mailing.progress is not None and status is CopyStatus.ADMITTED:
            mailing = replace(mailing, progress=mailing.progress.with_reached(mailings.view(row).out, self._batch.now))
        hold, under = admission.hold, admission.under
        stored = hold is not None and bool(under)
        if hold is not None and not under and not hold.kind and leads(hold, self._entry(mailing.entry)):
            mailing, under = replace(mailing, entry=hold.hold_id), hold.hold_id
            self._entries[hold.hold_id] = hold
            # to its reach; other held copies have a hold of their own, and so do deferred posts to a list's address
            more = 0 if hold.by_address else mailings.deferred_singles(row)
        if admission.grown is not None:
            holds.grow(self._batch.connection, admission.grown)
            self._entries[admission.grown.hold_id] = admission.grown
        if mailing is not row.mailing:
            mailings.change(row, mailing)
        lead = self._entry(under)
        if lead is not None and status in (CopyStatus.HELD, CopyStatus.DEFERRED):
            if under != mailing.entry:  # a letter waits with those of its sender
                more = hold.reach if hold is not None else 0
            elif stored and lead.by_address and people is not None:  # other posts may go to the same lists
                there = holds.people_under(self._batch.connection, under)
                more = max(mailings.weight(row, there | set(unpack_people(people)[0])) - lead.reach, 0)
            self._entries[under] = replace(lead, copies=lead.copies + stored, reach=lead.reach + more)
            self._joined.add(under)
        return people


def leads(hold: Hold, entry: Hold | None) -> bool:
    """Whether later copies of its mailing are stored under ``hold``, and no longer under ``entry``: not while that waits,
    unless it alone is a post to a list's address."""
    if entry is None or entry.state is not State.WAITING:
        return True
    return entry.by_address and not hold.by_address


def _waiting(row: MailingRow) -> int:
    """People whose copies of it are held or deferred."""
    return row.statuses[CopyStatus.HELD] + row.statuses[CopyStatus.DEFERRED]


def _stopping(freezes: Sequence[Freeze], grants: Sequence[Grant]) -> tuple[Freeze, ...]:
    """The freezes that an item meets: what is approved as a correction for its people goes to those of a frozen list."""
    spared = frozenset().union(*(grant.lists for grant in grants if grant.only))
    return tuple(f for f in freezes if not (f.selector is Selector.LIST and f.value in spared))
