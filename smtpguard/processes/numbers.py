"""The numbers of the process tree, for metrics and alarms: connections, refusals, deaths, and what parts count.

A part sends its own numbers with each heartbeat; app defines them. The supervisor adds them up from its start on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessNumbers:
    """The numbers of a process. ``counts``: totals since it began. ``levels``: current values. ``found``: its latest observation of
    something that other processes observe too, as (time by the machine's monotonic clock, value). ``store``: why it takes or delivers
    mail and cannot write to the store, waits for it in vain (queue.Waiting), or, as the alarms part, cannot use it, as phrase.dump
    returns it; "" if it can."""

    counts: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    store: Any = ""

    @classmethod
    def of(cls, beat: Mapping[str, Any]) -> ProcessNumbers:
        """Read the numbers in a heartbeat, which is empty until the part is ready."""
        found = {what: (float(at), int(value)) for what, (at, value) in beat.get("found", {}).items()}
        return cls(
            counts=beat.get("counts", {}), levels=beat.get("levels", {}), found=found, store=beat.get("store", "")
        )


PUT_OFF = "turned away 4xx"
"""The count of 4xx answers that no other count of answers includes."""
CLOCK_AHEAD = "clock ahead"
"""The level of the delivery part: by how many seconds the clock jumped forward, while it is not believed."""
STORE_SERVES = "store serves"
"""The level of a process that takes mail, can read the store, and committed its last transaction. After a failure it serves again
once a transaction is committed: while a balancer sends it no mail, nobody tries."""


def of_relay(what: str, route: str) -> str:
    """Return the name of a relay's number. ``route``: the name of its route, "" for the default relay."""
    return " ".join(filter(None, ("relay", what, route)))


@dataclass(slots=True, kw_only=True)
class Numbers:
    """The numbers of the tree. By the listener's name: ``accepted``, ``refused`` (at the limits), ``strangers`` (not admitted) and
    ``without_descriptor`` (the process had none left). ``deaths``: by the kind of part."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)
    without_descriptor: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    _ended: Counter[str] = field(default_factory=Counter)  # counts of ended processes
    _living: dict[str, ProcessNumbers] = field(default_factory=dict)
    _found: dict[str, tuple[float, int]] = field(default_factory=dict)

    def heard(self, process: str, said: ProcessNumbers) -> None:
        self._living[process] = said
        for what, found in said.found.items():
            self._found[what] = max(found, self._found.get(what, found))

    def ended(self, process: str, part: str, *, died: bool) -> None:
        """Keep the counts of a process that has ended, and drop its levels. What it counted after its last heartbeat is lost."""
        self._ended.update(self._living.pop(process, ProcessNumbers()).counts)
        self.deaths[part] += died

    @property
    def counts(self) -> Counter[str]:
        """The counts of all processes, ended ones included."""
        counts = Counter(self._ended)
        for said in self._living.values():
            counts.update(said.counts)
        return counts

    @property
    def levels(self) -> Counter[str]:
        """The levels of all living processes, added up."""
        levels: Counter[str] = Counter()
        for said in self._living.values():
            levels.update(said.levels)
        return levels

    @property
    def store(self) -> Any:
        """Why a living process cannot write to the store, "" if all can."""
        return next((said.store for said in self._living.values() if said.store), "")

    @property
    def with_refusals(self) -> Mapping[str, int]:
        """The counts with the connections refused by the supervisor, for the share of 4xx answers."""
        return self.counts + Counter({PUT_OFF: self.refused.total() + self.without_descriptor.total()})

    def told(
        self,
        connections: Mapping[str, int],
        listeners: Iterable[str],
        ready: Mapping[str, int],
        memory: Mapping[str, int],
    ) -> dict[str, Any]:
        """Return all numbers as JSON. ``connections``: open ones, by listener; ``ready``: ready processes by kind of part;
        ``memory``: octets by kind of part."""
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
            "levels": dict(self.levels),
            "found": dict(self._found),
            "store": self.store,
        }
