"""The steps of an incident in words, with their times, as the timeline of its report and as its drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from smtpguard.console import labels
from smtpguard.console.entrywords import WORDS
from smtpguard.console.entrywords import entry_in_words as in_words
from smtpguard.console.reporting import Made
from smtpguard.incidents.report import Report
from smtpguard.incidents.statement import Entries, Step, plain
from smtpguard.journal.chain import Clear, Entry, instant
from smtpguard.journal.delivery import DeliveryEvent, reported
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Outcome, relayed
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech

NO_ENTRIES = Entries()
LANES: Mapping[str, int] = {"came": 0, "went": 1, "stopped": 2, "people": 3}
LANE_TITLES = (N_("came"), N_("went out"), N_("stopped"), N_("people"))
"""The lanes of the drawing, from the top."""
MODES: Mapping[str, str] = {
    "enforce": N_("rule {name}"),
    "observe": N_("rule {name} (observes)"),
    "approved": N_("rule {name} (approved)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the timeline. ``utc``, ``here``: when, ``here`` "" where the organization lives by UTC. ``kind``: its lane in the drawing; ``what``: the entry's kind. ``then``: what is left out behind it."""

    seq: int
    at: datetime
    utc: str
    here: str
    text: str
    kind: str
    what: str
    then: str = ""


@dataclass(frozen=True, slots=True)
class Steps:
    """What happened, for one reader."""

    made: Made
    said: Speech

    @property
    def report(self) -> Report:
        return self.made.report

    def of(self, what: str, which: str = "") -> Entries:
        """By the keys of ``Report.entries``."""
        return self.report.entries.get((what, which), NO_ENTRIES)

    @property
    def zone(self) -> ZoneInfo | None:
        """The organization's time zone, if that is not UTC."""
        return ZoneInfo(self.made.purposes.zone) if self.made.purposes.zone not in ("", "UTC") else None

    def here(self, at: datetime) -> str:
        """In UTC, and in the organization's local time."""
        zone = self.zone
        return f"{at:%Y-%m-%d %H:%M:%S} UTC" + (f" ({at.astimezone(zone):%Y-%m-%d %H:%M} {zone.key})" if zone else "")

    def title(self) -> str:
        title = self.said("When, in numbers")
        return f"{title} (UTC, {self.zone.key})" if self.zone else title

    def rows(self) -> Iterator[Row]:
        zone = self.zone
        for step in self.report.steps:
            at = instant(step.entry.at)
            left = self.said.number(step.left_out)
            yield Row(
                seq=step.entry.seq,
                at=at,
                utc=f"{at:%Y-%m-%d %H:%M:%S}",
                here=f"{at.astimezone(zone):%H:%M:%S}" if zone else "",
                text=plain(self.text(step)),
                kind=lane(step.entry),
                what=step.entry.kind,
                then=self.said("... and {n} more of this kind, before the next of it", n=left) if step.left_out else "",
            )

    def text(self, step: Step) -> str:
        entry, said = step.entry, self.said
        words = in_words(entry, step.clear, said)
        parts = [words.text, *self._details(entry, step.clear or {})]
        if self.made.names and words.who:
            to = entry.kind in (Kind.NOTICE.value, Kind.RELEASE.value)
            parts.append(said("to {who}", who=words.who) if to else said("by {who}", who=words.who))
        text = f"{entry.id}  {', '.join(parts)}"
        return f'{text}: "{words.words}"' if self.made.names and words.words else text

    def _details(self, entry: Entry, clear: Clear) -> Iterator[str]:
        """Details that the words for its kind leave out."""
        data, said = entry.data, self.said
        if entry.kind == Kind.VERDICT.value:
            yield said("for {n}", n=said.number(data.get("counts", {}).get("reach", 0)))
            for mode, key in (("enforce", "rules"), ("observe", "observed"), ("approved", "approved")):
                yield from (said(MODES[mode], name=rule) for rule in data.get(key, ()))
        elif entry.kind in (Kind.FREEZE.value, Kind.THAW.value, Kind.THAW_ASKED.value):
            if (selector := str(data.get("selector"))) in labels.FROZEN:
                sender = next(iter(clear.get("from", ())), "") if self.made.names else ""
                yield said(labels.FROZEN[selector], name=data.get("value") or sender or "…")
        elif entry.kind == Kind.POLICY.value:
            yield str(data.get("sha256", ""))[:12]
            if data.get("enforce") is False:
                yield said("it only observed and stopped nothing")
        elif "with" in data:
            yield said("with {id}", id=data["with"])


def lane(entry: Entry) -> str:
    """The lane of the entry in the drawing; "" if it is not drawn."""
    data, kind = entry.data, entry.kind
    if kind == Kind.VERDICT.value:
        return "came" if data.get("action") == "relay" or data.get("retry") else "stopped"
    if kind == Kind.TRIPPED.value:
        return "people" if data.get("observed") else "stopped"
    one = reported(kind, data)
    if relayed(kind, data) is Outcome.DELIVERED or (one is not None and one.event is DeliveryEvent.TAKE):
        return "went"
    return WORDS[kind].lane if kind in WORDS else ""
