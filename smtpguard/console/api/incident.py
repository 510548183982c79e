"""The API operation for the incident report. It is a POST, since the people asked about must be in no URL and no log.

One report is made at a time, as for the page and the command, and its body is sent in pieces.
"""

from __future__ import annotations

import asyncio

from smtpguard.accounts.model import Scope
from smtpguard.console.api.entry import Call, Long, Operation, not_in_scope
from smtpguard.console.api.incidentreport import Incident, IncidentReport
from smtpguard.console.api.problems import Refusal, Wrong
from smtpguard.console.incidentrow import row
from smtpguard.console.reporting import NothingFits, Occupied, make_once
from smtpguard.incidents.query import IncidentQuery, moment
from smtpguard.incidents.report import TooMany
from smtpguard.journal.chain import microseconds


async def report(call: Call) -> Long:
    body: Incident = call.body
    if (body.names or body.senders or body.subject.strip()) and not call.holder.may(Scope.INCIDENT_NAMES):
        raise not_in_scope(Scope.INCIDENT_NAMES)
    query = _about(call, body)
    if query == IncidentQuery(whole=query.whole):
        problem = "give at least one of ids, lists, senders, subject, since, until"
        raise Refusal(422, errors=[Wrong(at="body", problem=problem)])
    by = (call.who.address, call.holder.by)
    try:
        made = await make_once(call.console, query, prove=body.proof, names=body.names, by=by, language="en")
    except Occupied:
        raise Refusal(
            409, "Another report is being made: ask again in a minute.", headers={"retry-after": "60"}
        ) from None
    except NothingFits as error:
        raise Refusal(404, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    except TooMany as error:
        raise Refusal(422, f"{str(error).capitalize()}.") from None
    return Long(await asyncio.to_thread(row, made))


def _about(call: Call, body: Incident) -> IncidentQuery:
    now, wrong = call.console.clock.now(), list[Wrong]()

    def time(name: str, text: str | None) -> int | None:
        try:
            return None if text is None else microseconds(moment(text, now))
        except ValueError as error:
            wrong.append(Wrong(at=f"body.{name}", problem=str(error)))
            return None

    query = IncidentQuery(
        ids=frozenset(body.ids),
        lists=frozenset(body.lists),
        senders=frozenset(body.senders),
        subject=body.subject.strip(),
        since=time("since", body.since),
        until=time("until", body.until),
        whole=not body.alone,
    )
    if wrong:
        raise Refusal(422, errors=wrong)
    return query


OPERATIONS = (
    Operation(method="POST", path="/incident/report", name="reportIncident", summary="Make an incident report with the proof that the journal is whole; a report with names is journalled",
              scope=Scope.INCIDENT_READ, more=(Scope.INCIDENT_NAMES,), body=Incident, answers=IncidentReport, do=report, refuses=(404, 409)),
)  # fmt: skip
