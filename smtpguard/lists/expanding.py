"""Resolve alias maps and list servers to the people behind each address that expands, through aliases of aliases and
lists in lists.

All sources are read and resolved together, since an alias may lead to a Mailman list and that to a list of the policy.
Cycles end. If any source cannot be read, the last good file stays in use as a whole. Memory holds digests only: eight
octets for each person behind each address.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from smtpguard.lists.declared import ListInfo
from smtpguard.lists.expansions import (
    EXPANSIONS,
    MOST_MEMBERS,
    Expansion,
    Expansions,
    expansions_path,
    moved,
    write_expansions,
)
from smtpguard.lists.members import Expands, ExpandsAliases, ExpandsMailman, ExpandsVirtual
from smtpguard.lists.registry import Registry
from smtpguard.lists.sources import MIN_BAD, SourceError, Stop, Tally, cell_address, log_unexpected, maps
from smtpguard.lists.sources.opening import never
from smtpguard.lists.sync import Progress, Report, SourceReport, store_report, stored_report
from smtpguard.locale.phrase import many
from smtpguard.mail.address import Address, BadAddress

MAX_BAD_SHARE = 0.05
MAX_SHRINK = 0.5
"""The greatest share of the addresses that expand by which their number may shrink; not checked for a small map."""
SMALL = 20
"""The most addresses of a small map."""
RETRY_SECONDS = 60


class Expander:
    """The schedule and the sync of the one file of expansions, as sync.Refresher is for lists. One caller at a time."""

    def __init__(self, declared: Sequence[Expands], registry: Registry, *, folder: Path, base: Path,
                 stop: Stop = never) -> None:  # fmt: skip
        self._declared, self._registry = tuple(declared), registry
        self._folder, self._base, self._stop = folder, base, stop
        self._next: tuple[datetime, datetime] | None = None
        self._under: object = None
        self.info = ListInfo(name=EXPANSIONS)

    def due(self, now: datetime) -> list[ListInfo]:
        """Return what to sync now: the expansions at the first call, every ``refresh``, and when members of a list have changed."""
        self._registry.reopen()
        waits = self._next is not None and self._next[0] <= now < self._next[1] and self._under == self._lists()
        return [] if waits or not self._declared else [self.info]

    def sync(self, info: ListInfo, now: datetime, *, force: bool = False, accept_shrink: bool = False,
             progress: Progress | None = None) -> Report:  # fmt: skip
        """Read all sources and replace the file. It blocks while it reads: call it in a thread. It never raises for a problem of a
        source."""
        self._registry.reopen()
        self._under = self._lists()
        graph = Graph(self._registry)
        tallies: list[tuple[str, Tally]] = []
        old = Expansions(self._folder, *self._registry.digester.key_ids)
        old.look()
        problem, checked, found = "", now, old.known
        known, read_at = old.known, old.read_at
        try:
            for expands in self._declared:
                tallies.append((_label(expands), tally := Tally()))
                tally.begin(tallies[-1][0], "line")
                self._read(expands, graph, tally)
            found = resolved(graph, self._registry, self._stop)
            if len(graph) < len(old.known) * (1 - MAX_SHRINK) and len(old.known) > SMALL and not accept_shrink:
                raise SourceError(
                    f"{many(len(graph), 'address expands', 'addresses expand')}, where {len(old.known):,} did before (to accept it: --accept-shrink)"
                )
            old.look()
            if old.read_at is not None and old.read_at != read_at and old.read_at > now:  # by a sync that began later
                found, known, checked = old.known, old.known, old.read_at
            else:
                self._write(found, graph, now)
        except SourceError as error:
            problem = f"{error}; " + (
                "the last good data stays in use" if old.read_at else "no address is known to expand"
            )
        except OSError as error:
            problem = f"{EXPANSIONS}: cannot be written: {error.strerror}"
        except Exception as error:
            problem = f"{log_unexpected(EXPANSIONS, error)}; the last good data stays in use"
        wait = min((expands.refresh for expands in self._declared), default=900)
        self._next = now, now + timedelta(seconds=min(wait, RETRY_SECONDS) if problem else wait)
        sources = tuple(SourceReport(key=label, label=label).with_counts(tally) for label, tally in tallies)
        report = Report(
            list=EXPANSIONS,
            at=now,
            people=len(found),
            sources=sources,
            problem=problem,
            checked_at=checked if not problem else old.read_at,
        )
        report = report.after(stored_report(self._folder, EXPANSIONS), changed=not problem and found != known)
        if report.ok or not self._stop():
            store_report(self._folder, report)
        return report

    def _write(self, found: Mapping[int, Expansion], graph: Graph, now: datetime) -> None:
        """Raises OSError."""
        # local parts that are a list at every domain; a name with few people may be another mailbox elsewhere
        namesakes = {local: n for local, n in graph.locals.items() if n in found and found[n].is_list}
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_expansions(
            expansions_path(self._folder),
            found,
            domains=graph.domains,
            catches=graph.catching,
            key_id=self._registry.digester.key_id,
            at=now,
            namesakes=namesakes,
        )

    def trial(self) -> Iterator[tuple[str, int, str]]:
        """Read each declaration. Yield its label, the number of addresses that it expands now, and its problem, and change
        nothing."""
        for expands in self._declared:
            graph, tally = Graph(self._registry), Tally()
            tally.begin(_label(expands), "line")
            try:
                self._read(expands, graph, tally)
            except SourceError as error:
                yield _label(expands), 0, str(error)
            else:
                yield _label(expands), len(graph), ""

    def _read(self, expands: Expands, graph: Graph, tally: Tally) -> None:
        """Add what a declaration says to the graph. Raises SourceError."""
        delimiters = self._registry.digester.delimiters
        graph.excluded.update(Address.parse(text).canonical(delimiters) for text in expands.exclude)
        match expands:
            case ExpandsMailman():
                self._ask(expands, graph, tally)
            case ExpandsAliases():
                path = maps.map_path(expands.aliases, self._base)
                _Map(graph, tally, path, expands.domains).add(maps.aliases(path))
            case ExpandsVirtual():
                path = maps.map_path(expands.virtual, self._base)
                _Map(graph, tally, path, expands.domains or []).add(maps.virtual(path))
        if tally.bad > max(MIN_BAD, tally.rows * MAX_BAD_SHARE):
            raise SourceError(
                f"{tally.source}: {tally.bad} of {tally.rows} lines are invalid (the first: {tally.shown[0]})"
            )

    def _ask(self, expands: ExpandsMailman, graph: Graph, tally: Tally) -> None:
        """Add every list of a server to the graph. Those that the policy declares with address and members are not asked for."""
        from smtpguard.lists.sources.mailman import Core

        core = Core(expands, self._base, self._stop)
        with closing(core.web):
            for posting, list_id in core.lists():
                address = _parsed(posting, tally, 0)
                if address is None or graph.leaves_out(address):
                    continue
                if (info := self._registry.list_at(address)) is not None and info.members:
                    continue
                graph.expands(address)
                for email in core.roster(list_id, "member"):
                    tally.rows += 1
                    if (member := _parsed(email, tally, tally.rows)) is not None:
                        graph.leads(address, member)

    def _lists(self) -> object:
        return {name: s.index.version if s.index else "" for name, s in self._registry.statuses.items()}


class Graph:
    """The graph of which address leads to which. ``domains``: the domain that each alias domain stands for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.ours: set[int] = set()  # colleagues
        self.excluded: set[str] = set()
        """Canonical addresses that expand to nobody, and are behind nothing."""
        self._edges: dict[int, array[int]] = {}
        self._ends: dict[int, array[int]] = {}
        self.domains: dict[str, str] = {}
        self.catching = False
        self.locals: dict[int, int] = {}
        """The digest of each local part without a domain -> the first address with it that expands."""

    def __len__(self) -> int:
        return len(self._edges)

    def expands(self, address: Address) -> int:
        number = self._number(address)
        if number not in self._edges:
            self._edges[number] = array("Q")
            local = address.canonical(self._registry.digester.delimiters).rpartition("@")[0]
            self.locals.setdefault(int.from_bytes(self._registry.digester.of_canonical(f"{local}@"), "big"), number)
        return number

    def leads(self, address: Address, target: Address, *, finally_: bool = False) -> None:
        """Add that an address leads to a target. ``finally_``: to the mailbox itself, although its name also expands."""
        if self.leaves_out(target):
            return
        edges = self._ends if finally_ else self._edges
        edges.setdefault(self.expands(address), array("Q")).append(self._number(target))

    def leaves_out(self, address: Address) -> bool:
        return address.canonical(self._registry.digester.delimiters) in self.excluded

    def catches(self, domain: str, target: Address) -> None:
        self.catching = True
        everybody = int.from_bytes(self._registry.digester.of_canonical(f"@{domain}"), "big")
        self._edges.setdefault(everybody, array("Q")).append(self._number(target))

    def __iter__(self) -> Iterator[int]:
        return iter(self._edges)

    def behind(self, start: int, lists: Mapping[int, str]) -> tuple[set[int], set[str]]:
        """Return the people behind an address, and the lists whose own address is on the way, where the way ends."""
        people: set[int] = set()
        addressed: set[str] = set()
        seen, ahead = {start}, [start]
        while ahead:
            here = ahead.pop()
            people.update(self._ends.get(here, ()))
            for number in self._edges[here]:
                if number in seen:
                    continue
                seen.add(number)
                if number in lists:
                    addressed.add(lists[number])
                elif number in self._edges:
                    ahead.append(number)
                else:
                    people.add(number)
        return people, addressed

    def _number(self, address: Address) -> int:
        domain = moved(address.ascii_domain, self.domains)
        if domain != address.ascii_domain:
            address = Address(address.local, domain)
        number = int.from_bytes(self._registry.digester.of(address), "big")
        if self._registry.names.is_internal(address) or self._registry.is_one_of_ours(number):
            self.ours.add(number)
        return number


def resolved(graph: Graph, registry: Registry, stop: Stop = never) -> dict[int, Expansion]:
    """Return the addresses with several people, with a customer, or with a list behind them, and what is behind each."""
    lists = registry.numbers()
    found = {}
    for start in graph:
        if stop():
            raise SourceError("stopped before its end")
        if start in lists:
            continue  # the policy has better data
        people, addressed = graph.behind(start, lists)
        counts: dict[str, int] = {}
        members = []
        unplaced = 0
        for number in people:
            colleague = number in graph.ours and (not registry.customers_here or registry.is_one_of_ours(number))
            names = () if colleague else registry.members.names_with(number)
            if names:
                members.append(number)
            elif number not in graph.ours:
                unplaced += 1
            for name in names:
                counts[name] = counts.get(name, 0) + 1
        if len(people) > 1 or members or addressed or graph.catching:  # so that the catch-all does not get their mail
            known = sorted(members) if len(members) <= MOST_MEMBERS else []
            found[start] = Expansion(
                key=start.to_bytes(8, "big"),
                people=len(people),
                customers=len(members),
                unplaced=unplaced,
                lists=dict(sorted(counts.items())),
                addressed=tuple(sorted(addressed)),
                members=tuple(number.to_bytes(8, "big") for number in known),
            )
    return found


class _Map:
    """One map of Postfix, added to the graph."""

    def __init__(self, graph: Graph, tally: Tally, path: Path, domains: Sequence[str]) -> None:
        self._graph, self._tally, self._path, self._domains = graph, tally, path, domains

    def add(self, entries: Iterable[maps.Entry]) -> None:
        entries = list(entries)
        for entry in entries:
            if entry.name.startswith("@") and len(entry.values) == 1 and entry.values[0].startswith("@"):
                self._graph.domains[entry.name[1:].lower()] = entry.values[0][1:].lower()
        for entry in entries:
            self._tally.rows += 1
            if entry.wrong:
                self._tally.reject(entry.line, entry.wrong)
            else:
                self._entry(entry)

    def _entry(self, entry: maps.Entry) -> None:
        names = [entry.name] if "@" in entry.name else [f"{entry.name}@{domain}" for domain in self._domains]
        if not names and "." not in entry.name:  # with a dot it is a domain that the map declares
            self._tally.reject(entry.line, "a name without a domain (declare domains)")
        targets = [(target, value.startswith("\\")) for value in self._values(entry)
                   if (target := self._target(value.removeprefix("\\"), entry)) is not None]  # fmt: skip
        for name in names:
            if name.startswith("@"):
                for target, _ in targets:
                    self._graph.catches(name[1:].lower(), target)
            elif (address := _parsed(name, self._tally, entry.line)) is not None and not self._graph.leaves_out(
                address
            ):
                self._graph.expands(address)
                for target, here in targets:
                    self._graph.leads(address, target, finally_=here)

    def _values(self, entry: maps.Entry) -> Iterator[str]:
        for value in entry.values:
            for inner in maps.expanded(value, self._path.parent):
                if maps.is_elsewhere(inner):
                    self._tally.ignored += 1
                elif not inner.startswith("@"):
                    yield inner

    def _target(self, value: str, entry: maps.Entry) -> Address | None:
        if "@" not in value:
            if not self._domains:
                self._tally.reject(entry.line, "a name without a domain (declare domains)")
                return None
            value = f"{value}@{self._domains[0]}"
        return _parsed(value, self._tally, entry.line)


def _parsed(text: str, tally: Tally, place: int) -> Address | None:
    try:
        return cell_address(text)
    except BadAddress as error:
        tally.reject(place, str(error))
        return None


def _label(expands: Expands) -> str:
    written = str(getattr(expands, expands.source))
    return written if isinstance(expands, ExpandsMailman) else written.rpartition(":")[2]
