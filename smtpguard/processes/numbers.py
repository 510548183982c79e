"""Numbers of the process tree, for the metrics part: connections, refusals, deaths, and the numbers that parts report.

Pure bookkeeping, from the supervisor's start on. A part sends its own numbers with each heartbeat; app defines them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The numbers of a process. ``counts``: since it began; ``levels``: current values. ``found``: its latest
    observation of something that others observe too, and when, by the machine's monotonic clock."""

    counts: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, beat: Mapping[str, Any]) -> Said:
        """From a message of the channel; empty until the part is ready."""
        found = {what: (float(at), int(value)) for what, (at, value) in beat.get("found", {}).items()}
        return cls(counts=beat.get("counts", {}), levels=beat.get("levels", {}), found=found)


PUT_OFF = "turned away 4xx"
"""The count of 4xx answers that no other count of answers includes."""


def of_relay(what: str, route: str) -> str:
    """The name of a number of a relay. ``route``: the name of its route, "" for the default relay."""
    return " ".join(filter(None, ("relay", what, route)))


@dataclass(slots=True, kw_only=True)
class Numbers:
    """``accepted``, ``refused`` (at the limits), ``strangers`` (not admitted) and ``without_descriptor`` (the process
    had none left) by the listener's name, ``deaths`` by the kind of part."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)
    without_descriptor: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    _ended: Counter[str] = field(default_factory=Counter)  # counts of ended processes
    _living: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _levels: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _found: dict[str, tuple[float, int]] = field(default_factory=dict)

    def heard(self, process: str, said: Said) -> None:
        self._living[process], self._levels[process] = said.counts, said.levels
        for what, found in said.found.items():
            self._found[what] = max(found, self._found.get(what, found))

    def ended(self, process: str, part: str, *, died: bool) -> None:
        """Its counts stay; what it counted after its last heartbeat is lost, and its levels are dropped."""
        self._levels.pop(process, None)
        self._ended.update(self._living.pop(process, {}))
        self.deaths[part] += died

    @property
    def counts(self) -> Counter[str]:
        """Over all processes, ended ones included."""
        counts = Counter(self._ended)
        for living in self._living.values():
            counts.update(living)
        return counts

    @property
    def with_refusals(self) -> Mapping[str, int]:
        """The same for the share of 4xx answers: with the connections refused here."""
        return self.counts + Counter({PUT_OFF: self.refused.total() + self.without_descriptor.total()})

    def told(
        self,
        connections: Mapping[str, int],
        listeners: Iterable[str],
        ready: Mapping[str, int],
        memory: Mapping[str, int],
    ) -> dict[str, Any]:
        """As JSON. ``connections``: open ones, by listener; ``ready``: ready processes by kind of part; ``memory``:
        bytes by kind of part."""
        levels: Counter[str] = Counter()
        for each in self._levels.values():
            levels.update(each)
        names = list(listeners)
        return {
            "connections": {name: connections.get(name, 0) for name in names},
            "accepted": {name: self.accepted[name] for name in names},
            "refused": {name: self.refused[name] for name in names},
            "strangers": {name: self.strangers[name] for name in names},
            "without_descriptor": {name: self.without_descriptor[name] for name in names},
            "ready": dict(ready),
            "memory": dict(memory),
            "deaths": {part: self.deaths[part] for part in ready},
            "counts": dict(self.counts),
            "levels": dict(levels),
            "found": dict(self._found),
        }
