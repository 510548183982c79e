"""The daily report of a guard that only observes (``enforce: false``): what it would have stopped, and by which rules.

It goes to the lists' owners and to the default approvers, every day, even if there is nothing to report: readers wait
for days without a false alarm. It is a NOTICE intent like others (notices), whose ``data`` has ``notice``: observed;
``since``, ``until``: the organization's day; ``person``. When it is sent, ``fill`` adds ``judged``: the number of
messages that were judged; ``total``: how many of them would have been stopped, and ``at_least``: whether there may be
more; ``rules``: [{``rule``, ``description``, ``would``: hold | defer | reject, ``count``}], the most frequent first;
``messages``: [{``subject``, ``from``, ``reach``, ``reach_at_least``, ``lists``, ``rules``}], at most 50.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Clock, Ledger, PolicyInForce
from smtpguard.journal.chain import utc_text
from smtpguard.journal.event import Event
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.notices.noticedata import NONE
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.policy.rule import AUTOMATIC, IN_DOUBT, STREAM
from smtpguard.policy.verdict import Action

OBSERVED = "observed"
SHOWN = 50
MOST = 20_000
_FIXED = {AUTOMATIC: Action.REJECT, STREAM: Action.DEFER, IN_DOUBT: Action.HOLD}


class Reports:
    """Writes the intents of each day, once a day; also over all nodes, since their ids are the same."""

    def __init__(self, ledger: Ledger, policies: PolicyInForce, clock: Clock) -> None:
        self._ledger, self._policies, self._clock = ledger, policies, clock
        self._written: tuple[str, datetime] | None = None

    async def write(self) -> None:
        """The reports of today, at its end. Raises LedgerError."""
        in_force = self._policies.current()
        since, until = day_of(self._clock.now(), in_force)
        if in_force.enforce or self._written == (in_force.policy_sha256, since):
            return
        await self._ledger.journal.record([], tuple(daily(in_force, since, until)))
        self._written = in_force.policy_sha256, since


def day_of(now: datetime, in_force: InForce) -> tuple[datetime, datetime]:
    """The organization's day around ``now``, from midnight to midnight; with its real length when the clock changes."""
    zone = in_force.hours.zone
    today = now.astimezone(zone).date()
    since, until = (datetime.combine(d, time(), zone).astimezone(UTC) for d in (today, today + timedelta(days=1)))
    return since, until


def daily(in_force: InForce, since: datetime, until: datetime) -> Iterable[Intent]:
    """One to each reader."""
    told = {info.owner for info in in_force.registry.lists.values() if info.owner}
    for quorum in in_force.rules.quorum(()):
        for group in quorum.groups:
            told |= in_force.people(group)
    for person in sorted(told):
        address = Address.parse_any(person)
        if address is not None:
            yield _intent(address, since, until)


def _intent(person: Address, since: datetime, until: datetime) -> Intent:
    tag = hashlib.sha256(str(person).lower().encode()).hexdigest()[:10]
    return Intent(
        intent_id=f"{OBSERVED}-{since:%Y%m%dT%H%M}-{tag}",
        kind=IntentKind.NOTICE,
        reverse_path=None,
        recipients=(Recipient(address=person, notify="NEVER"),),
        data={**NONE, "notice": OBSERVED, "since": utc_text(since), "until": utc_text(until), "person": str(person)},
        not_before=until,
    )  # fmt: skip


async def fill(ledger: Ledger, data: Mapping[str, Any], in_force: InForce) -> Mapping[str, Any]:
    """The data with the messages of that day. Raises LedgerError."""
    since, until = datetime.fromisoformat(data["since"]), datetime.fromisoformat(data["until"])
    judged, events = await ledger.journal.observed(since, until, MOST)
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
    shown = [_line(event, in_force) for event in events[:SHOWN]]
    return {**data, "judged": judged, "total": len(events), "at_least": len(events) == MOST, "rules": rules, "messages": shown}  # fmt: skip


def _line(event: Event, in_force: InForce) -> dict[str, Any]:
    """A message from the journal; with the lists that were addressed, not those that single recipients are on."""
    lists = (
        in_force.registry.list_at(a)
        for a in map(Address.parse_any, event.private.get("recipients", ()))
        if a is not None
    )
    return {
        "subject": next(iter(event.private.get("subject", ())), ""),
        "from": next(iter(event.private.get("from", ())), ""),
        "reach": int(event.data["counts"]["reach"]),
        "reach_at_least": bool(event.data.get("reach_at_least")),
        "lists": list(dict.fromkeys(info.title or info.name for info in lists if info is not None)),
        "rules": list(event.data["observed"]),
    }
