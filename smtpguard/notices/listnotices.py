"""Notices of lists that cannot be refreshed, and the journal entries of syncs.

A list that cannot be refreshed has a notice once an outage, not once an attempt, and another when it is over. An outage
begins with the first sync that fails and ends with the first that succeeds. The id of such a notice contains the time
when the outage began and is of its host, so that no restart, other command or other process sends it twice. Its ``data`` has

==============  ======================================================================================================
all             ``list``: its title, ``list_name``; ``since``: when it began; ``person``: the reader; ``host``: whose index it is
list-failed     ``problem``: what is wrong, as a sentence; ``size``: number of people in the index in use, null for no
                index; ``checked_at``: when all sources were last found unchanged or read, null for never; ``stale``: as
                list-stale
list-stale      the same, when the index has become too old for a "no" to be relied on
list-well       ``size``
==============  ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.journal.chain import utc_text, utc_text_or_none
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.sync import News, Report
from smtpguard.notices import noticedata
from smtpguard.notices.intents import Intents, notice_to, tag
from smtpguard.outbox.model import Intent

# Of several news of one sync, the first is sent. list-failed also says whether the index is stale.
_NOTICES = ((News.FAILED, "list-failed"), (News.STALE, "list-stale"), (News.WELL, "list-well"))


def list_events(report: Report, by: str = "") -> Iterator[Event]:
    """Yield the journal entry of a sync, none if nothing has changed. ``by``: the person who asked for the sync."""
    if not report.news:
        return
    data = {"people": report.people, "version": report.version, "news": sorted(n.value for n in report.news),
            "problem": report.problem or None, "failing_since": utc_text_or_none(report.failing_since),
            "stale": report.stale, "rows": report.rows, "bad_rows": report.bad, "source": report.source,
            "host": report.host}  # fmt: skip
    if report.before:
        data |= {"before": report.before, "added": report.added, "removed": report.removed}
    yield Event(kind=Kind.LIST, id=report.list, at=report.at, data=data, private={"actor": (by,)} if by else {})


def list_notices(report: Report, in_force: InForce) -> Iterator[Intent]:
    """Yield the notices of a sync, to the owner of the list, or to its approvers if it has none."""
    since = report.failing_since or report.ended
    if since is None:
        return
    for news, notice in _NOTICES:
        if news in report.news:
            for person in list_readers(report.list, in_force):
                yield from _list_notice(notice, report, since, person, in_force)
            return


def list_readers(name: str, in_force: InForce) -> list[str]:
    """Return the owner of a list, or its approvers in order if it has none."""
    info = in_force.registry.lists.get(name)
    if info is not None and info.owner:
        return [info.owner]
    quorums = in_force.rules.quorum((name,) if info is not None else ())
    return sorted({person for quorum in quorums for group in quorum.groups for person in in_force.groups.of(group)})


def _list_notice(notice: str, report: Report, since: datetime, person: str, in_force: InForce) -> Intents:
    about = f"{report.list}\0{person}\0{report.host}"
    data: dict[str, Any] = {
        **noticedata.NONE, "notice": notice,
        "list": in_force.title(report.list), "list_name": report.list,
        "since": utc_text(since), "person": person, "problem": report.problem, "stale": report.stale, "host": report.host,
        "size": report.people if report.version else None, "checked_at": utc_text_or_none(report.checked_at),
    }  # fmt: skip
    return notice_to(f"{notice}-{since.astimezone(UTC):%Y%m%dT%H%M%S}-{tag(about, in_force)}", person, data)
