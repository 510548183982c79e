"""``Journal``: entries of an incident, written one by one for tests of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from smtpguard.incidents.intrusion import Usual
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Case, Report
from smtpguard.incidents.statement import Entries
from smtpguard.journal.chain import Entry, Pair, Seal, body_of, microseconds
from smtpguard.journal.event import Event, Kind

SEAL = Seal(b"a secret of thirty-two bytes, ok", "journal")
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LIST = "ramadan-greetings"
ALL = IncidentQuery(since=0)


class Journal:
    """Entries in order, one second apart."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def write(self, kind: Kind, id: str, *, after: timedelta = timedelta(seconds=1), private: Mapping[str, Sequence[str]] | None = None, **data: Any) -> None:  # fmt: skip
        before = self.pairs[-1][0] if self.pairs else None
        at = (before.time if before is not None else T0) + after
        event = Event(kind=kind, id=id, at=at, data=data, private={r: tuple(v) for r, v in (private or {}).items()})
        entry = Entry(
            seq=len(self.pairs) + 1,
            at=microseconds(at),
            kind=kind.value,
            id=id,
            body=body_of(event, SEAL),
            prev=b"",
            hash=b"",
        )
        self.pairs.append((entry, private))

    def verdict(self, id: str, action: str, *, sender: str = "kalle@example.com", subject: str = "SV: Dieten", reach: int = 1, **more: Any) -> None:  # fmt: skip
        """``reach``: the number of recipients, all distinct people; or what ``people`` and ``crowds`` say."""
        data: dict[str, Any] = {
            "action": action,
            "counts": {"reach": reach},
            "lists": [LIST],
            "mailing": "M1",
            "policy": "p1",
        }
        crowd: dict[str, Any] = {"people": [{"lists": [0]}], "crowds": {LIST: [f"v{reach}", reach, reach]}}
        data |= crowd if reach > 1000 else {"people": [f"{id}.{n}" for n in range(reach)]}
        if action == "hold":
            data["hold"] = id
        private = {"from": [sender], "subject": [subject], "reverse_path": [sender]}
        private["recipients"] = more.pop("recipients", [])
        self.write(Kind.VERDICT, id, private=private, **{**data, **more})

    def relayed(self, id: str, outcome: str = "relayed", **more: Any) -> None:
        self.verdict(id, "relay", **more)
        self.write(Kind.OUTCOME, id, outcome=outcome)

    def approved(self, **more: Any) -> None:
        """H1, which was held."""
        self.verdict("H1", "hold", **more)
        self.write(Kind.APPROVED, "H1")

    def tried(self, outcome: str, *who: str, people: int = 1, kind: Kind = Kind.RELEASE, **more: Any) -> None:
        """An entry on the release of H1 to ``who``."""
        said: dict[str, Any] = {
            "intent": "H1-release",
            "attempt": 1,
            "recipients": len(who),
            "people": people,
            "outcome": outcome,
        }
        self.write(kind, "H1", private={"recipients": who}, **said | more)

    def case(self, query: IncidentQuery = ALL) -> Case:
        case = Case(query, SEAL)
        for entry, clear in self.pairs:
            if entry.kind == Kind.VERDICT.value:
                case.add_verdict(entry, clear)
        for entry, clear in self.pairs:
            if entry.kind != Kind.VERDICT.value and entry.id in case.ids:
                case.add_entry(entry, clear)
        for pair in self.pairs:
            case.add_surrounding(*pair)
        return case

    def report(self, query: IncidentQuery = ALL) -> Report:
        return self.case(query).report(Usual(entries=Entries(), shared={}), {})
