"""Daily mails: the report of a guard that only observes, and the newest checkpoint to an auditor.

The daily report of a guard that only observes (``enforce: false``) says what it would have stopped, and by which rules.
It goes to the lists' owners and to the default approvers, every day, even if there is nothing to report: readers wait
for days without a false alarm. Its ``data`` has ``notice``: observed; ``since``, ``until``: the organization's day;
``person``. When it is sent it gets ``judged``: the number of messages with a verdict; ``total``: how many of them would
have been stopped, and ``at_least``: whether there may be more; ``rules``: [{``rule``, ``description``, ``would``: hold
| defer | reject, ``count``}], the most frequent first; ``messages``: [{``subject``, ``from``, ``reach``,
``reach_at_least``, ``lists``, ``rules``}], at most 50.

The daily mail of the newest checkpoint to an auditor is a witness that needs nothing but a mailbox. Its ``data`` has
``notice``: checkpoint. When it is sent it gets ``seq``: the entry, ``at``: when it was signed, and ``note``: the lines
of the signed note, which stand on one in the mail, as in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import PolicyInForce
from smtpguard.journal.chain import first_of, instant, utc_text
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event
from smtpguard.mail.address import Address
from smtpguard.notices.intents import digest, notice_to
from smtpguard.notices.noticedata import NONE
from smtpguard.outbox.model import Intent
from smtpguard.policy.rule import AUTOMATIC, IN_DOUBT, RETURNS, STREAM
from smtpguard.policy.verdict import Action
from smtpguard.store.store import Store

SHOWN = 50
"""The most messages that a report or a digest lists."""
MOST = 20_000
"""The most messages of one day that a report counts."""
_FIXED = {AUTOMATIC: Action.REJECT, STREAM: Action.DEFER, IN_DOUBT: Action.HOLD, RETURNS: Action.HOLD}


@dataclass(slots=True)
class Daily:
    """Write the intents of each day, to be sent at its end, once a day; also over all nodes, since their ids are the
    same. ``made``: returns the intents of the day between the two times."""

    store: Store
    policies: PolicyInForce
    clock: Clock
    made: Callable[[InForce, datetime, datetime], Iterable[Intent]]
    _written: tuple[str, datetime] | None = None

    async def write(self) -> None:
        """Write the intents of today, if this process has not. Raises StoreError."""
        in_force = self.policies.current()
        since, until = day_of(self.clock.now(), in_force)
        if self._written != (in_force.sha256, since):
            if made := tuple(self.made(in_force, since, until)):
                await self.store.journal.record([], made)
            self._written = in_force.sha256, since


def day_of(now: datetime, in_force: InForce) -> tuple[datetime, datetime]:
    """Return the organization's day around ``now``, from midnight to midnight; with its real length when the clock
    changes."""
    zone = in_force.hours.zone
    today = now.astimezone(zone).date()
    since, until = (datetime.combine(d, time(), zone).astimezone(UTC) for d in (today, today + timedelta(days=1)))
    return since, until


def observed_reports(in_force: InForce, since: datetime, until: datetime) -> Iterable[Intent]:
    """Yield the report of an observing policy to each reader."""
    if in_force.enforce:
        return
    told = {info.owner for info in in_force.registry.lists.values() if info.owner}
    for quorum in in_force.rules.quorum(()):
        for group in quorum.groups:
            told |= in_force.groups.of(group)
    for person in sorted(told):
        yield from digest(person, {"notice": "observed"}, since, until, in_force)


async def fill_observed(store: Store, data: Mapping[str, Any], in_force: InForce) -> Mapping[str, Any]:
    """Return the data of a report with the messages of its day. Raises StoreError."""
    since, until = datetime.fromisoformat(data["since"]), datetime.fromisoformat(data["until"])
    judged, events = await store.journal.observed(since, until, MOST)
    counts = Counter(rule for event in events for rule in event.data["observed"])
    own = {rule.rule_id: rule for rule in in_force.rules.rules}
    rules = [
        {
            "rule": name,
            "description": own[name].description if name in own else "",
            "would": (own[name].then if name in own else _FIXED.get(name, Action.HOLD)).word,
            "count": count,
        }
        for name, count in counts.most_common()
    ]
    shown = [_observed_line(event, in_force) for event in events[:SHOWN]]
    return {**data, "judged": judged, "total": len(events), "at_least": len(events) == MOST, "rules": rules, "messages": shown}  # fmt: skip


def _observed_line(event: Event, in_force: InForce) -> dict[str, Any]:
    """Return the data of a message in a report, with the lists that were addressed, not those that single recipients
    are on."""
    lists = (
        in_force.registry.list_at(a)
        for a in map(Address.parse_any, event.private.get("recipients", ()))
        if a is not None
    )
    return {
        **message_data(event),
        "lists": list(dict.fromkeys(info.called for info in lists if info is not None)),
        "rules": list(event.data["observed"]),
    }


def checkpoint_mail(auditor: str, in_force: InForce, since: datetime, until: datetime) -> Iterable[Intent]:
    about = {**NONE, "notice": "checkpoint"}
    return notice_to(f"checkpoint-{since:%Y%m%dT%H%M}", auditor, about, not_before=until)


async def fill_checkpoint(store: Store, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the data of a mail with the newest checkpoint, None if there is none. Raises StoreError."""
    newest = next(iter(await store.journal.checkpoints(-1, 1)), None)
    if newest is None:
        return None
    at = utc_text(instant(newest.at))
    return {**data, "seq": newest.seq, "at": at, "note": newest.note.split("\n")}


def message_data(event: Event) -> dict[str, Any]:
    """Return what the journal has of a message."""
    return {
        "subject": first_of(event.private, "subject"),
        "from": first_of(event.private, "from"),
        "reach": int(event.data["counts"]["reach"]),
        "reach_at_least": bool(event.data.get("reach_at_least")),
    }
