"""Apply a change to a hold, and to the mailing that it represents, in one commit.

A decision on the primary hold of a mailing decides the whole mailing. The copies under it follow in slices; later
copies meet the decision at admission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, and_, case, exists, false, func, or_, select, update

from smtpguard.counts import counting
from smtpguard.database.batch import Batch
from smtpguard.database.errors import ContentMissing
from smtpguard.database.schema import DECIDED, outbox
from smtpguard.database.schema import hold as table
from smtpguard.freezes import rows as freezes
from smtpguard.holds import contents
from smtpguard.holds import rows as holds
from smtpguard.holds.model import (
    LET_GO,
    LIVE,
    SENDING,
    Change,
    Choice,
    Hold,
    OnReleaseEnd,
    PolicyChanged,
    State,
    after,
    held_up_by,
    settles_as,
    standing_votes,
    with_lead_data,
)
from smtpguard.holds.model import Move as Step
from smtpguard.holds.sending import UNSENT, Sending, after_late_outcome
from smtpguard.journal.deliverystatus import DeliveryStatus
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.envelope import Recipient
from smtpguard.mailings.mailingbatch import mailings_of
from smtpguard.mailings.mailingrow import MailingRow
from smtpguard.mailings.model import ON_THE_WAY, Candidate, CopyStatus, Mailing, NoSuch
from smtpguard.mailings.staging import Move
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import OF_CONTENT, IntentKind, Lease, Settled
from smtpguard.outbox.rows import RecipientChange
from smtpguard.policy.confirming import MEANT_SECONDS
from smtpguard.policy.freezing import Freeze, Gate

_STATUSES = {
    State.WAITING: CopyStatus.HELD,
    State.APPROVED: CopyStatus.ADMITTED,
    State.REJECTED: CopyStatus.STOPPED,
    State.WITHDRAWN: CopyStatus.STOPPED,
    State.EXPIRED: CopyStatus.STOPPED,
    State.VOID: CopyStatus.DEFERRED,  # its client keeps the message
}
"""The status of people's copies by the state of their hold."""

_SENDING = [state.value for state in SENDING]
_LET_GO = [state.value for state in LET_GO]

Follow = Callable[[Hold, Hold, Mailing | None, int, Sending, bool], Change | None]
"""A function that gets the primary hold, a copy of it, their mailing, how many new people the copy would reach, the
state of its release, and whether the approval covers it. It returns the copy's change, None for nothing
yet. A copy that waits on is not covered, and waits for people by itself."""
Asking = Callable[[Hold, Sequence[Recipient]], Change]
"""A function that gets a hold, and the recipients of its release about whom people are asked, and returns its
change."""


def change(batch: Batch, hold_id: str, step: Callable[[Hold], Change], policy: str = "") -> Change:
    """Apply ``step`` to a hold. ``policy``: the SHA-256 of the policy by which people decide, "" for any. Raises NoSuch
    if there is no such hold, and PolicyChanged if another policy is in force."""
    if policy not in ("", batch.head.policy):
        raise PolicyChanged("the policy has changed meanwhile")
    held = existing(batch, hold_id)
    return apply(batch, held, step(held))


def existing(batch: Batch, hold_id: str) -> Hold:
    """Return a hold. Raises NoSuch if there is no such hold."""
    batch.flush()
    held = holds.find(batch.connection, hold_id)
    if held is None:
        raise NoSuch(f"there is no hold {hold_id}")
    return held


def existing_mailing(batch: Batch, mailing_id: str) -> MailingRow:
    """Return the row of a mailing. Raises NoSuch if there is no such mailing."""
    batch.flush()
    row = mailings_of(batch).by_name(mailing_id)
    if row is None:
        raise NoSuch(f"there is no mailing {mailing_id}")
    return row


def apply(batch: Batch, held: Hold, made: Change) -> Change:
    """Write the change of a hold, with the effects on its mailing, its people and the outbox. Returns the change as
    written. Raises ContentMissing if the content of a release is not stored."""
    if made.hold is not None and made.hold.hold_id != held.hold_id:
        raise ValueError("a change of one hold wrote another")
    approved = made.hold is not None and (
        made.hold.state is State.APPROVED or (made.hold.release_at is not None and held.release_at is None)
    )
    if made.hold is not None and held.state is State.WAITING and not held.primary and approved:
        stopped = held.held_up or bool(held_up_by(made.hold, batch.freezes))
        made = replace(made, hold=replace(made.hold, held_up=stopped))
    row = mailings_of(batch).by_name(held.mailing_id) if made.hold is not None and held.mailing_id else None
    if row is not None and approved:
        # Before its release is in the outbox: then an earlier copy would count as in flight.
        mailings_of(batch).look_up(row, holds.people(batch.connection, held.hold_id)[0])
    heir = _heir(batch, made.hold) if made.hold is not None and made.hold.state is State.VOID else None
    if heir is not None:
        made = with_lead_data(heir, made)
    sealed = batch.sealed(made.events)
    intents = [outboxes.rows_of(intent, batch.now_us) for intent in made.intents]
    for intent in made.intents:
        if intent.kind in OF_CONTENT and not contents.is_kept(batch.connection, intent.content_sha256 or ""):
            raise ContentMissing("the content of the hold is not kept")
    batch.append(sealed)
    if made.cover:
        contents.keep_template(batch, made.cover)
    over = True  # no answer to an attempt is outstanding
    if made.hold is not None and held.state in SENDING and _is_revoked(held, made.hold):
        over = _stop_release(batch, row, held, made.hold)
    outboxes.write(batch, intents)
    if made.hold is not None:
        if held.state is State.WAITING and made.hold.state is State.APPROVED:
            confirmed = made.hold.confirmed
            if held.letter_from:
                counting.reset_for_release(
                    batch, held, holds.people(batch.connection, held.hold_id)[0], anew=not confirmed
                )
            if confirmed:
                counting.record_confirmed(batch, held, MEANT_SECONDS)
        granted = made.hold.state is State.GRANTED and held.state is not State.GRANTED
        holds.replace(batch.connection, made.hold, over_at=batch.now_us if granted else None)
        entry = ""
        if heir is not None:
            if row is not None and row.mailing.entry == held.hold_id and heir.mailing_id == held.mailing_id:
                entry = heir.hold_id
            _promote(batch, made.hold, heir, whole=bool(entry))
        if row is not None:
            _apply_to_mailing(batch, row, held, made.hold, made, entry, over=over)
        if not held.acknowledged and made.hold.state not in LIVE:  # its client has it: nothing of it is ever to be sent
            batch.flush()
            for kind in (IntentKind.NOTICE, IntentKind.PART):
                outboxes.remove(batch, held.hold_id, kind)
    return made


def _is_revoked(before: Hold, hold: Hold) -> bool:
    return hold.state not in SENDING or (hold.stopped and not before.stopped)


def _stop_release(batch: Batch, row: MailingRow | None, held: Hold, back: Hold) -> bool:
    """Stop the release of a hold that was revoked. Returns whether no answer is outstanding. The people are looked up
    before: afterwards an admitted copy that is not in the outbox would count as delivered."""
    batch.flush()
    if row is not None:
        mailings_of(batch).look_up(row, holds.people(batch.connection, held.hold_id)[0])
    if back.state in LET_GO:
        return outboxes.cancel_rest(batch, held.hold_id)
    outboxes.remove(batch, held.hold_id)
    return True


def _apply_to_mailing(
    batch: Batch, row: MailingRow, before: Hold, hold: Hold, made: Change, entry: str, *, over: bool
) -> None:
    """Apply the change of a hold to its mailing. ``entry``: the copy that leads the mailing in its place, if it is known;
    ``over``: whether no answer to an attempt is outstanding."""
    mailings, now = mailings_of(batch), batch.now
    mailing = row.mailing
    if mailing.entry == hold.hold_id and hold.state is not State.WAITING:
        mailing = replace(mailing, entry=entry or _next_entry(batch, hold.mailing_id))
    if made.grant is not None:
        view = mailings.view(row)
        waiting, reach = view.people.held, hold.reach if hold.state is State.APPROVED else 0  # a test goes to nobody
        mailing = mailing.granted(made.grant, made.stages, view.out, now, made.at_once, held=waiting, reach=reach)
    if made.rejection is not None:
        mailing = mailing.refused(made.rejection, hold=True)
    if made.ungranted:
        mailing = mailing.ungranted(made.ungranted)
    if mailing is not row.mailing:
        mailings.change(row, mailing)
    if hold.state is before.state and not _is_revoked(before, hold):
        return
    held, apart = holds.people(batch.connection, hold.hold_id)
    if before.state in SENDING and hold.state in LET_GO:
        if not _is_revoked(before, hold):
            return
        mailings.record_not_sent(row, made.cancelled, CopyStatus.STOPPED)  # if some people had it, or may have it
        doubted = hold.settled is not None and hold.settled.doubted
        if over:  # another copy may still be on its way to those who did not get this one
            lost = made.cancelled | outboxes.not_sent(batch.connection, hold.hold_id)
            got = [person for person in held if person not in lost]
            mailings.set_status(row, got, CopyStatus.DOUBTED if doubted else CopyStatus.RELAYED, only=ON_THE_WAY)
    elif before.state in SENDING and hold.state in _STATUSES:
        mailings.record_not_sent(row, held, _STATUSES[hold.state])
    elif hold.state is State.APPROVED:
        if not hold.queue:
            row.mailing = row.mailing.followed(hold.primary or hold.hold_id, mailings.people_without(row, held))
        mailings.record_release(row, held)
        if not held_up_by(hold, batch.freezes):
            mailings.advance(row)
    elif hold.state in _STATUSES:
        mailings.set_status(row, held, _STATUSES[hold.state], only={CopyStatus.HELD})
        if hold.state is State.VOID:
            less = {"copies": func.coalesce(table.c.copies, 0) - 1}
            if mailing.entry != hold.primary:  # a letter counts with its sender's, a copy with its mailing
                less["reach"] = table.c.reach - case((table.c.queue.is_not(None), hold.reach), else_=0)
            batch.connection.execute(update(table).where(table.c.hold_id == hold.primary).values(**less))
            # the colleagues' part was not sent either
            mailings.record_failure(row, apart, CopyStatus.DEFERRED)
            mailings.set_status(row, apart, CopyStatus.DEFERRED, only={CopyStatus.DOUBTED})


def _heir(batch: Batch, void: Hold) -> Hold | None:
    """Return the copy or letter that takes the place of a hold that became void, None if none waits under it. It has the lists,
    rules and writers of that hold, and the rest of its time. The oldest is first; of those whose clients have no 250 yet the
    newest, which becomes void last."""
    batch.flush()
    query = select(table.c.hold_id).where(table.c.lead == void.hold_id, table.c.state == State.WAITING.value)
    answered = table.c.acknowledged.is_(True)
    order = case((answered, 0), else_=1), case((answered, table.c.held_at), else_=-table.c.held_at), table.c.hold_id
    next_id = batch.connection.execute(query.order_by(*order).limit(1)).scalar()
    copy = holds.find(batch.connection, next_id) if next_id is not None else None
    if copy is None:
        return None
    asked = void.confirm if void.confirm is not None and void.confirm.lapsed_at is None else None
    heir = replace(copy.in_place_of(void), primary="", confirm=asked, expires_at=void.expires_at)
    return replace(heir, by_sender=True, letter_from=void.letter_from) if void.queue else heir


def _promote(batch: Batch, void: Hold, successor: Hold, *, whole: bool) -> None:
    """Put the successor in the place of a hold that became void. ``whole``: it leads the mailing, whose deferred copies count."""
    batch.flush()
    waiting = select(func.count(), func.sum(table.c.reach)).where(
        table.c.lead == void.hold_id, table.c.state == State.WAITING.value
    )
    count, reach = batch.connection.execute(waiting).one()
    holds.replace(batch.connection, replace(successor, attend_at=batch.now))
    for ids, values in (
        (
            table.c.hold_id == successor.hold_id,
            {"lead": None, "copies": count - 1, "reach": void.reach if whole else int(reach)},
        ),
        (and_(table.c.lead == void.hold_id, table.c.state.not_in(_LET_GO)), {"lead": successor.hold_id}),
        (table.c.hold_id == void.hold_id, {"lead": successor.hold_id, "copies": 0}),
    ):
        batch.connection.execute(update(table).where(ids).values(**values))
    notices = (outbox.c.hold_id == void.hold_id, outbox.c.done.is_(False), outbox.c.kind == IntentKind.NOTICE.value)
    batch.connection.execute(update(outbox).where(*notices).values(hold_id=successor.hold_id))


def _next_entry(batch: Batch, mailing_id: str) -> str:
    """Return the hold that people decide on after the one that has ended, "" for none. An earlier one that was reopened
    may have waited beside it, or a post to a list's address. Letters of a sender lead no mailing."""
    batch.flush()
    ids = select(table.c.hold_id).where(
        table.c.state == State.WAITING.value,
        table.c.lead.is_(None),
        table.c.queue.is_(None),
        table.c.mailing == mailing_id,
    )
    found = holds.find_all(batch.connection, batch.connection.execute(ids).scalars().all())
    wait = [(hold.by_address, hold.held_at, hold.hold_id) for hold in found if not hold.kind]
    return min(wait, default=("",))[-1]


def leads_to_follow(connection: Connection) -> list[str]:
    """Return the primary holds that were decided on and still have waiting copies, or that were revoked and have copies
    in the outbox."""
    left = and_(
        table.c.state.in_(_SENDING), table.c.stopped.is_(None), outboxes.kept_by_its_lead(), outboxes.in_outbox()
    )
    query = select(table.c.lead).where(table.c.lead.is_not(None), or_(_decided_with_lead(), left))
    return [id for id in connection.execute(query.distinct()).scalars() if id is not None]


def _decided_with_lead() -> ColumnElement[bool]:
    lead = table.alias("lead")
    decided = exists().where(lead.c.hold_id == table.c.lead, lead.c.state != State.WAITING.value)
    return and_(table.c.state == State.WAITING.value, decided)


def follow(batch: Batch, lead_id: str, n: int, step: Follow) -> int:
    """Let the oldest ``n`` copies under a hold follow its decision. Returns how many did; if fewer than ``n``, no more
    can for now, since their stage or a freeze keeps them. If the approval has ended, copies that still wait are held
    anew, as one. If it was revoked, copies that were approved with it are revoked too."""
    batch.flush()
    lead = holds.find(batch.connection, lead_id)
    if lead is None:
        return 0
    ids, sendings = _following(batch, lead, n)
    done = 0
    for copy_id in ids:
        copy = holds.find(batch.connection, copy_id)
        assert copy is not None
        row = mailings_of(batch).by_name(copy.mailing_id)
        people, _ = holds.people(batch.connection, copy_id)
        new = mailings_of(batch).people_without(row, people) if row is not None else 0
        view = mailings_of(batch).view(row) if row is not None else None
        made = step(lead, copy, view, new, sendings.get(copy_id, UNSENT), _covered(batch, view, lead, copy, new))
        # In the outbox it would fill its stage with nothing sent, and the pause would pass: all stages would go at once
        # with the thaw. A sender's letters have no stages.
        staged = view is not None and view.progress is not None and not lead.queue
        frozen = staged and bool(held_up_by(copy, batch.freezes))
        if made is None or (frozen and made.hold is not None and made.hold.state is State.APPROVED):
            if row is not None and not frozen:
                mailings_of(batch).advance(row, and_then=new)
            return done
        if copy.state is State.WAITING and made.hold is not None and made.hold.state is State.WAITING:
            _set_apart(batch, lead, row, copy, made, people)
        else:
            apply(batch, copy, made)
        done += 1
    row = mailings_of(batch).by_name(lead.mailing_id) if done < n and lead.mailing_id else None
    if row is not None and any(grant.waits for grant in row.mailing.grants):  # some have got another copy meanwhile
        batch.flush()
        left = select(table.c.hold_id).where(table.c.mailing == lead.mailing_id, _decided_with_lead())
        if batch.connection.execute(left.limit(1)).first() is None:
            mailings_of(batch).change(row, row.mailing.all_followed())
    return done


def _covered(batch: Batch, mailing: Mailing | None, lead: Hold, copy: Hold, new: int) -> bool:
    """Return whether the approval of the primary hold covers a copy; once that has ended and was not revoked, whether
    another for its lists covers the same content. A copy that has no place in the approved number of people is not
    covered. An earlier version did not compare what each copy shows. A sender's letters that wait as one hold are
    covered as they are, if they were listed."""
    if lead.queue and copy.state is State.WAITING:
        listed = [v.letters for v in standing_votes(lead) if v.choice is Choice.APPROVE and v.letters is not None]
        return not listed or holds.is_listed(batch.connection, lead.hold_id, min(listed), copy.hold_id)
    if mailing is None or copy.state is not State.WAITING or copy.mailing_id != lead.mailing_id:
        return True
    came = Candidate(
        content=copy.content_sha256, said=copy.exact, author=copy.author, proofs=copy.proofs, by_address=copy.by_address
    )
    grant = next((grant for grant in mailing.grants if grant.hold_id == lead.hold_id), None)
    if grant is None:
        others = () if lead.stopped_by else (one for one in mailing.grants if not (one.only or one.by_writer))
        return any(
            one.lists.issuperset(copy.lists) and mailing.has_place(one, new) and one.matches(came) for one in others
        )
    if not mailing.has_place(grant, new):
        return False
    if not lead.exact or copy.exact == lead.exact:
        return True
    cover = grant.cover
    if cover is None or not cover.learned or copy.by_address:
        return False
    return cover.is_from(came) and contents.is_learned_from(batch.connection, cover.learned, copy.hold_id)


def _set_apart(
    batch: Batch, lead: Hold, row: MailingRow | None, copy: Hold, made: Change, people: Sequence[bytes]
) -> None:
    """Let a copy wait as a hold of its own, or under the one of its mailing that waits; a letter waits under the first
    that came after those that were decided on."""
    batch.flush()
    if row is not None and any(grant.hold_id == lead.hold_id for grant in row.mailing.grants):  # its place is free
        row.mailing = row.mailing.followed(lead.hold_id, mailings_of(batch).people_without(row, people))
    entry = row.mailing.entry if row is not None else ""
    under = holds.queues(batch, [lead.queue]).get(lead.queue, "") if lead.queue else entry
    apply(batch, copy, made if under else with_lead_data(made.hold or copy, made))
    batch.flush()
    reach = copy.reach
    if row is not None and not lead.queue:
        reach = mailings_of(batch).weight(row, people)
        mailings_of(batch).change(row, replace(row.mailing, entry=entry or copy.hold_id))
    own = {"lead": under} if under else {"lead": None, "copies": 0, "reach": reach}
    batch.connection.execute(update(table).where(table.c.hold_id == copy.hold_id).values(**own))
    if under:
        first = existing(batch, under)
        if (told := first.told_with(copy)) != first.told:
            holds.grow(batch.connection, replace(first, told=told))
        more = {"copies": func.coalesce(table.c.copies, 0) + 1, "reach": table.c.reach + reach}
        batch.connection.execute(update(table).where(table.c.hold_id == under).values(**more))


def _following(batch: Batch, lead: Hold, n: int) -> tuple[Sequence[str], Mapping[str, Sending]]:
    """Return the ids of the copies that follow next and, if they are revoked, the state of their releases."""
    if lead.state.value in outboxes.KEEPS or lead.stopped_by:
        back = and_(table.c.state.in_(_SENDING), table.c.stopped.is_(None), outboxes.in_outbox())
    else:
        back = false()
    waiting = lead.state is not State.WAITING and not lead.stopped_by
    # One whose client has no 250 yet follows once it has, or becomes void.
    wait = and_(table.c.state == State.WAITING.value, table.c.acknowledged.is_(True))
    copies = (
        select(table.c.hold_id).where(table.c.lead == lead.hold_id).order_by(table.c.held_at, table.c.hold_id).limit(n)
    )
    ids = batch.connection.execute(copies.where(or_(wait if waiting else false(), back))).scalars().all()
    sendings = outboxes.sendings(batch.connection, ids, batch.now_us) if ids else {}
    if lead.stopped_by and not ids:  # copies that still wait do not follow what was stopped
        ids = batch.connection.execute(copies.where(wait)).scalars().all()
    return ids, sendings


def record_attempt(batch: Batch, lease: Lease, changes: Sequence[RecipientChange], over: OnReleaseEnd | None) -> None:
    """Write the results of an attempt for the recipients of an entry, and the changes of its hold."""
    intent = lease.intent
    held = holds.find(batch.connection, intent.hold_id or "") if intent.kind in OF_CONTENT else None
    if held is None:
        outboxes.settle(batch, intent.intent_id, changes)
    else:
        record_results(batch, held, intent.intent_id, changes, over, part=intent.kind is IntentKind.PART)


def record_results(
    batch: Batch,
    held: Hold,
    intent_id: str,
    changes: Sequence[RecipientChange],
    over: OnReleaseEnd | None,
    *,
    part: bool = False,
) -> Hold:
    """Write results for recipients of a hold's release, or of the colleagues' part: for the people behind them, if the
    hold is in a mailing, and for the hold. Returns the hold as changed."""
    row = mailings_of(batch).by_name(held.mailing_id) if held.mailing_id else None
    mine: set[bytes] = set()
    if row is not None:
        mine = set(holds.people(batch.connection, held.hold_id)[part])
        mailings_of(batch).look_up(row, mine)  # before the entry is settled, which changes who is in flight
    done = outboxes.settle(batch, intent_id, changes)
    settled = outboxes.totals(batch, intent_id) if done else None
    if row is not None:
        lost = CopyStatus.STOPPED if held.stopped_by and not part else CopyStatus.REFUSED
        _record_people(batch, row, held.hold_id, mine, changes, settled, lost)
    if part:
        return held
    asked = held.asked_at if outboxes.asked(batch.connection, held.hold_id, batch.now_us) else None
    made = replace(
        held, state=_state_after(held, changes, settled) or held.state, settled=settled or held.settled, asked_at=asked
    )
    if made != held:
        holds.write_attempt(batch, made)
    if settled is not None and over is not None:
        events, intents = over(made, intent_id)
        if made.state.value in (Kind.REJECTED.value, Kind.WITHDRAWN.value) and made.state is not held.state:
            data = {"was": held.state.value} | ({"with": held.primary} if held.primary else {})
            # Nobody has it after all.
            events = (*events, Event(kind=Kind(made.state.value), id=held.hold_id, at=batch.now, data=data))
        outboxes.record(batch, events, intents)
    return made


def _state_after(held: Hold, changes: Sequence[RecipientChange], settled: Settled | None) -> State | None:
    """Return the state of a hold by the results of all recipients, or because an attempt has begun; None if it does not
    change."""
    if settled is not None:
        return (
            after_late_outcome(held.state, held.stopped_by, settled)
            if held.stopped_by
            else after(held.state, settles_as(settled))
        )
    begun = any(one.outcome.in_doubt for one in changes)
    return after(held.state, Step.ATTEMPT) if begun and held.asked_at is None and not held.stopped_by else None


def _record_people(
    batch: Batch,
    row: MailingRow,
    hold_id: str,
    mine: set[bytes],
    changes: Sequence[RecipientChange],
    settled: Settled | None,
    lost: CopyStatus,
) -> None:
    """Write the status of the people behind recipients. Those not settled in the outbox are in doubt (inflight).
    ``mine``: the people of the hold. ``settled``: the numbers of all recipients by outcome; with it, people known by no
    recipient did not get it. ``lost``: the status of those who do not get it."""
    mailings = mailings_of(batch)
    for one in changes:
        people = mine & one.people
        if one.status is DeliveryStatus.DELIVERED:
            mailings.set_status(row, people, CopyStatus.RELAYED, only=set(CopyStatus), at=batch.now_us)
            row.note_sent(batch.now_us)
        elif one.status is DeliveryStatus.ATTEMPTED and one.over:
            mailings.set_status(row, people, CopyStatus.DOUBTED, only=ON_THE_WAY)
        elif one.status is DeliveryStatus.REFUSED:
            mailings.record_not_sent(row, people, CopyStatus.REFUSED)
        elif one.status is DeliveryStatus.CANCELLED:
            mailings.record_not_sent(row, people, CopyStatus.STOPPED)
    if settled is not None and settled.sent:
        mailings.record_sent(row, mine)
    elif settled is not None:
        if settled.doubted:
            others = mine - outboxes.not_sent(batch.connection, hold_id)
            mailings.set_status(row, others, CopyStatus.DOUBTED, only=ON_THE_WAY)
        mailings.record_not_sent(row, mine, lost)
    mailings.judge(row)


def freeze(batch: Batch, stop: Freeze, event: Event) -> Gate:
    """Write a freeze, and stop the releases in stages that it selects. Returns the gate."""
    gate = freezes.freeze(batch, stop, event)
    _stop_stages(batch, stop)
    return gate


def _stop_stages(batch: Batch, freeze: Freeze) -> None:
    """Stop every release in stages that a freeze selects. Thawing does not resume them."""
    batch.flush()
    wanted = f"SELECT n FROM mailing WHERE {DECIDED} AND state IN ('approved', 'paused', 'held')"
    for n in [n for (n,) in batch.select(wanted)]:
        row = mailings_of(batch).by_number(n)
        if row is None or (progress := row.mailing.progress) is None or not freeze.stops(row.mailing.selectable):
            continue
        if (stopped := progress.moved(Move.STOP, batch.now, Phrase("a freeze"))) is not None:
            mailings_of(batch).change(row, replace(row.mailing, progress=stopped))


def change_mailing(batch: Batch, mailing_id: str, step: Callable[[Mailing], tuple[Mailing, Change]]) -> Mailing:
    """Apply ``step`` to a mailing. Raises NoSuch if there is no such mailing."""
    row = existing_mailing(batch, mailing_id)
    mailing, change = step(mailings_of(batch).view(row))
    outboxes.record(batch, change.events, change.intents)
    mailings_of(batch).change(row, mailing)
    mailings_of(batch).judge(row)
    return mailings_of(batch).view(row)


def prolong_pauses(batch: Batch, ids: Iterable[str]) -> None:
    """Let the pauses of these mailings that end by time begin now."""
    for row in map(mailings_of(batch).by_name, ids):
        if row is not None and (paused := row.mailing.progress) is not None and paused.goes_on_at() is not None:
            mailings_of(batch).change(row, replace(row.mailing, progress=replace(paused, since=batch.now)))


def ask(batch: Batch, hold_id: str, step: Asking, over: OnReleaseEnd) -> None:
    """Let ``step`` ask people about the recipients of a hold that are in doubt, or remind them. Raises NoSuch if there is no such
    hold."""
    held = existing(batch, hold_id)
    for intent_id, some in outboxes.unanswered(batch.connection, hold_id, batch.now_us).items():
        held = record_results(batch, held, intent_id, some, over)
    doubts = outboxes.asked(batch.connection, hold_id, batch.now_us)
    if doubts:
        apply(batch, held, step(held, _recipients(doubts)))


def _recipients(doubts: Mapping[str, Sequence[RecipientChange]]) -> list[Recipient]:
    return [one.outcome.recipient for some in doubts.values() for one in some]


def answer(batch: Batch, hold_id: str, step: Asking, over: OnReleaseEnd, *, sent: bool) -> Change:
    """Apply a person's answer about all recipients that are asked about. Raises NoSuch if there is no such hold."""
    held = existing(batch, hold_id)
    doubts = outboxes.asked(batch.connection, hold_id, batch.now_us)
    made = apply(batch, held, step(held, _recipients(doubts)))
    if made.hold is None:
        return made
    if sent:
        for intent_id, some in doubts.items():
            record_results(batch, made.hold, intent_id, some, over)
    else:
        outboxes.repeat(batch, doubts)
    after = holds.find(batch.connection, hold_id)
    return Change(hold=after, events=made.events, intents=made.intents)
