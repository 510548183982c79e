"""The metrics part: serve GET /metrics, /healthz and /readyz. It writes nothing, and mail does not depend on it.

While its port is taken or the database is away it goes on without, and tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard import __version__
from smtpguard.admission.intake import ANSWERS, UNDECIDED
from smtpguard.admission.model import ADMISSION_SECONDS
from smtpguard.app.certificates import REFUSED, Ending, endings
from smtpguard.app.clock import SystemClock
from smtpguard.app.files import CannotStart, indexes
from smtpguard.app.policies import Following, Look
from smtpguard.app.services import opened
from smtpguard.app.webserver import Health, Server, configure
from smtpguard.config.settings import Settings
from smtpguard.database.errors import Outage, PolicyUnreadable, StoreError
from smtpguard.journal.clock import Clock
from smtpguard.lists.index import IndexStatus
from smtpguard.lists.registry import Registry
from smtpguard.lists.sync import stored_report
from smtpguard.observe import figures
from smtpguard.observe.figures import Waiting
from smtpguard.observe.metrics import FAMILIES, Counters, Family, Samples, Spread, Type
from smtpguard.outbox.asking import SETTLED_WITHIN
from smtpguard.policy.freezing import PUT_BACK, Selector
from smtpguard.policy.parse import Policy
from smtpguard.processes.listeners import CannotListen, Wanted, open_all
from smtpguard.processes.numbers import STORE_SERVES, of_relay
from smtpguard.processes.part import Part
from smtpguard.store.store import Store
from smtpguard.wire.turnedaway import Why

log = logging.getLogger(__name__)

CONNECTIONS = 20
EACH = 10
"""The most connections of one client network."""
LASTS_SECONDS = 30.0
"""The time after which a client that has not read its answer is disconnected."""
PORT_SECONDS = 5.0
"""The pause between attempts to bind the port."""
LOOK_SECONDS = 5.0
"""The pause between two looks at the store."""
OLD_SECONDS = 3 * LOOK_SECONDS
"""The age from which numbers of the store are out of date."""
PAGE = 1000
"""The most entries of the journal that are read at once."""
PAGES = 100
"""The most pages that are read in one look; the rest is read at the next."""
_WIRES = frozenset({"proxy", "milter"})
_RELAYS = frozenset({"proxy", "delivery"})


class Metrics(Part):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if settings.metrics is None:
            raise CannotStart("not in the settings; an address and a port are needed")
        self._settings, self._wanted = settings, settings.metrics
        self._clock = SystemClock()
        self._watching = Watching(settings, self._clock)
        self._server: Server | None = None
        self._stopping = False
        self._unbound = Outage(log, "no metrics", self._clock.monotonic)
        self._unread = Outage(log, "metrics: reading the store", self._clock.monotonic)

    async def start(self) -> None:
        self._listen()

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            while self._server is None and not self._listen():  # noqa: ASYNC110 - nobody tells when a port is free
                await asyncio.sleep(PORT_SECONDS)
            assert self._server is not None
            await self._server.serving
            if not self._stopping:
                raise RuntimeError("the web server ended by itself")

    def told(self, numbers: Mapping[str, Any]) -> None:
        self._watching.told(numbers)

    async def stop(self, grace_seconds: float) -> None:
        self._stopping = True
        if self._server is not None:
            await self._server.end(grace_seconds)

    def _listen(self) -> bool:
        """Start the web server. Returns False if the port cannot be bound now."""
        try:
            listener = open_all([Wanted(address=self._wanted.address, port=self._wanted.port)])[0].socket
        except CannotListen as e:
            self._unbound.report(e)
            return False
        self._unbound.end()
        self._undo.callback(listener.close)
        how = configure(application(self._watching), connections=CONNECTIONS, lasts=LASTS_SECONDS)
        self._server = Server(how, listener, each=EACH)
        return True

    async def _look(self) -> None:
        while True:
            try:
                async with opened(self._settings) as (store, digester):
                    policies = Following(store, self._settings, digester, self._clock)
                    while True:
                        await self._once(store, policies)
                        await asyncio.sleep(LOOK_SECONDS)
            except (StoreError, CannotStart) as e:
                self._watching.failed()
                self._unread.report(e)
            await asyncio.sleep(LOOK_SECONDS)

    async def _once(self, store: Store, policies: Following) -> None:
        try:
            await self._watching.look(store, policies)
        except StoreError as e:
            self._watching.failed()
            self._unread.report(e)
        except Exception as e:  # an internal error: earlier numbers are served all the same
            self._unread.report(e, trace=True)
        else:
            self._unread.end()


def application(watching: Watching) -> Health:
    """Return the application that serves the numbers. Each scrape has its own connection, so a limit on how long one lasts cuts
    off no other."""

    async def metrics(request: Request) -> Response:
        text, kind = Exposition(watching.numbers()).text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind, "connection": "close"})

    return Health(Starlette(routes=[Route("/metrics", metrics, methods=["GET"])]), watching.ready)


class Watching:
    """The numbers that one process serves. Counters begin with the first look. The caller of ``look`` reports a failure with
    ``failed``."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._counters = Counters()
        self._tree: Mapping[str, Any] = {}
        self._waiting: Waiting | None = None
        self._looked = 0.0  # when the store answered, by the monotonic clock
        self._answered = False  # whether the store answered last time
        self._read_to = 0  # the last entry of the journal that was read
        self._under = ""  # the policy whose rules and lists the tally expects
        self._enforced = True
        self._lists: Mapping[str, tuple[IndexStatus, bool]] = {}  # with whether its last sync failed
        self._policy: Look | None = None
        self._certificates: Sequence[Ending] = ()

    def told(self, numbers: Mapping[str, Any]) -> None:
        """Take the numbers of the process tree from its supervisor (processes.numbers)."""
        self._tree = numbers

    async def look(self, store: Store, policies: Following) -> None:
        """Read store and policy file, and the lists in any case. Raises StoreError; earlier numbers stay."""
        try:
            await self._look_at_store(store)
            self._policy = await policies.look()
            try:
                await policies.follow()
            except PolicyUnreadable:  # it has a number of its own
                return
            if policies.policy.sha256 != self._under:
                self._expect(policies.policy)
        finally:
            self._certificates = await asyncio.to_thread(endings, self._settings)
            if self._under:
                self._lists = await asyncio.to_thread(self._looked_at, policies.current().registry)

    async def _look_at_store(self, store: Store) -> None:
        now = self._clock.now()
        waiting = await store.ask(lambda c: figures.look(c, now, settled_within=SETTLED_WITHIN))
        if self._waiting is None or waiting.entries < self._read_to:  # the first look, or another journal in its place
            self._read_to = waiting.entries
        self._waiting, self._looked, self._answered = waiting, self._clock.monotonic(), True
        await self._read_on(store, waiting.entries)

    def failed(self) -> None:
        self._answered = False

    async def _read_on(self, store: Store, end: int) -> None:
        for _ in range(PAGES):
            if self._read_to >= end:
                return
            after = self._read_to
            events, self._read_to = await store.ask(partial(figures.news, after=after, limit=PAGE))
            held = await store.ask(partial(figures.held, events=events))
            for event in events:
                self._counters.add(event, held.get(event.id))

    def _expect(self, policy: Policy) -> None:
        rules = {rule.rule_id: "observed" if rule.observes or not policy.enforce else rule.then.word
                 for rule in policy.rules.rules}  # fmt: skip
        self._counters.expect(rules=rules, lists=policy.lists, hooks=[w.known_as for w in self._settings.webhooks])
        self._under, self._enforced = policy.sha256, policy.enforce

    def _looked_at(self, registry: Registry) -> Mapping[str, tuple[IndexStatus, bool]]:
        registry.reopen()
        found = {}
        for name, status in registry.statuses.items():
            report = stored_report(indexes(self._settings), name)
            found[name] = status, report is not None and not report.ok
        return found

    def numbers(self) -> Samples:
        """Return all numbers that are known now, by metric."""
        return {
            "smtpguard_build_info": {(__version__,): 1},
            **self._counters.numbers(),
            **self._of_store(self._clock.now(), self._clock.monotonic()),
            **self._of_policy(),
            **self._of_lists(self._clock.now()),
            **self._of_certificates(),
            **self._of_tree(self._clock.monotonic()),
        }

    def ready(self) -> Mapping[str, str]:
        """Return the health checks of a host that carries mail (webserver.Checks), as far as this process knows: store, policy,
        relay and the parts that take mail."""
        waiting, tree = self._waiting, self._tree
        fresh = self._answered and self._clock.monotonic() - self._looked < OLD_SECONDS
        levels = tree.get("levels", {})
        serves = bool(levels.get(STORE_SERVES))  # at a full number of connections only those who have one know
        fails = "does not answer" if waiting is None or not fresh else "takes no entry" if tree.get("store") else ""
        in_force = serves if waiting is None else bool(waiting.policy_sha256)
        unreadable = self._policy is not None and bool(self._policy.unreadable)
        relay = tree.get("found", {}).get("relay")
        takes = [n for part, n in tree.get("ready", {}).items() if part in _WIRES]
        return {
            "store": "" if serves else fails,
            "policy": "cannot be read" if unreadable else "" if in_force else "none is known to be in force",
            "relay": "does not answer" if relay is not None and not relay[1] else "",
            "mail": "no process takes it" if takes and not any(takes) else "",
        }

    def _of_store(self, now: datetime, passed: float) -> Samples:
        waiting = self._waiting
        if waiting is None:
            return {"smtpguard_store_up": {(): 0}}
        fresh = self._answered and passed - self._looked < OLD_SECONDS
        told = {
            "store_up": int(fresh and not self._tree.get("store")),
            "store_looked_seconds": passed - self._looked,
            "journal_entry": waiting.entries,
            "journal_unread_entries": waiting.entries - self._read_to,
            "holds_waiting": waiting.holds,
            "holds_oldest_seconds": figures.seconds_since(waiting.held_at, now),
            "holds_asked": waiting.asked,
            "holds_near_deadline": waiting.near,
            "holds_overdue": waiting.overdue,
            "kept_bytes": waiting.kept_bytes,
            "kept_limit_bytes": self._settings.hold.quota,
            "outbox_due": waiting.due,
            "outbox_oldest_due_seconds": figures.seconds_since(waiting.due_at, now),
            "outbox_later": waiting.later,
            "relaying": waiting.relaying,
            "relaying_unsettled": waiting.unsettled,
            "store_put_back": int(any(f.reason == PUT_BACK for f in waiting.freezes)),
            "freezes_oldest_seconds": figures.seconds_since(min((f.at for f in waiting.freezes), default=None), now),
        }
        numbers: dict[str, dict[tuple[str, ...], float]] = {f"smtpguard_{name}": {(): n} for name, n in told.items()}
        numbers["smtpguard_freezes"] = {
            (selector.value,): sum(f.selector is selector for f in waiting.freezes) for selector in Selector
        }
        hooks = {
            hook.known_as: waiting.hooks[hook.known_as]
            for hook in self._settings.webhooks
            if hook.known_as in waiting.hooks
        }
        numbers["smtpguard_webhook_lag_entries"] = {(name,): at.entries for name, at in hooks.items()}
        numbers["smtpguard_webhook_lag_seconds"] = {
            (name,): figures.seconds_since(at.since, now) for name, at in hooks.items()
        }
        numbers["smtpguard_checkpoints_refused_seconds"] = {
            (key,): seconds
            for key, seconds in figures.refusing(waiting.hooks, self._settings.audit.receivers, now).items()
        }
        numbers["smtpguard_policy_info"] = {(waiting.policy_sha256,): 1}
        if self._under:
            numbers["smtpguard_policy_enforced"] = {(): int(self._enforced)}
        return numbers

    def _of_policy(self) -> Samples:
        seen = self._policy
        if seen is None:
            return {}
        return {
            "smtpguard_policy_unreadable": {(): int(bool(seen.unreadable))},
            "smtpguard_policy_file_differs": {(): int(seen.file.differs)},
            "smtpguard_policy_file_differed_at_start": {(): int(seen.started_beside)},
        }

    def _of_lists(self, now: datetime) -> Samples:
        lists = self._lists
        return {
            "smtpguard_list_people": {
                (name,): one.people for name, (one, _) in lists.items() if one.people is not None
            },
            "smtpguard_list_checked_seconds": {
                (name,): figures.seconds_since(one.checked_at, now)
                for name, (one, _) in lists.items()
                if one.checked_at is not None
            },
            "smtpguard_list_stale": {(name,): int(one.stale) for name, (one, _) in lists.items()},
            "smtpguard_list_failing": {(name,): int(failing) for name, (_, failing) in lists.items()},
        }

    def _of_certificates(self) -> Samples:
        return {
            "smtpguard_certificate_end_timestamp_seconds": {
                (each.pair.name,): each.ends.timestamp() for each in self._certificates if each.ends is not None
            },
            "smtpguard_certificate_usable": {
                (each.pair.name,): int(each.ends is not None) for each in self._certificates
            },
        }

    def _of_tree(self, passed: float) -> Samples:
        tree = self._tree
        if not tree:  # a supervisor sends its numbers within a second
            return {}

        def by(key: str) -> dict[tuple[str, ...], float | Spread]:
            return {(name,): number for name, number in tree[key].items()}

        numbers: dict[str, dict[tuple[str, ...], float | Spread]] = {
            "smtpguard_connections": by("connections"),
            "smtpguard_connections_accepted_total": by("accepted"),
            "smtpguard_connections_refused_total": {
                (name, reason): number
                for reason, key in (("limit", "refused"), ("client", "strangers"), ("descriptor", "without_descriptor"))
                for name, number in tree[key].items()
            },
            "smtpguard_certificates_refused_total": {(): tree["counts"].get(REFUSED, 0)},
            "smtpguard_part_processes": by("ready"),
            "smtpguard_part_deaths_total": by("deaths"),
            "smtpguard_part_memory_bytes": by("memory"),
        }
        if tree["connections"]:
            numbers["smtpguard_connections_limit"] = {(): self._settings.limits.connections}
        if not _WIRES.isdisjoint(tree["ready"]):
            counts = tree["counts"]
            numbers["smtpguard_answers_total"] = {(how,): counts.get(f"answered {how}", 0) for how in ANSWERS}
            numbers["smtpguard_undecided_total"] = {(why,): counts.get(f"undecided {why}", 0) for why in UNDECIDED}
            numbers["smtpguard_bypassed_total"] = {(): counts.get("bypassed", 0)}
            turned = {why: counts.get(f"turned-away {why}", 0) for why in Why}
            turned[Why.CONNECTIONS] += sum(tree["refused"].values())
            numbers["smtpguard_turned_away_total"] = {(why.value,): count for why, count in turned.items()}
            numbers["smtpguard_admission_seconds"] = {(): _admissions(counts)}
        if not _RELAYS.isdisjoint(tree["ready"]):
            counts, levels = tree["counts"], tree["levels"]
            relays = [(name, (name,) if name else ()) for name in self._settings.relays]
            numbers["smtpguard_relay_connections"] = {
                (state, *route): levels.get(of_relay(what, name), 0)
                for name, route in relays
                for state, what in (("in-use", "in use"), ("idle", "idle"))
            }
            limits = zip(relays, self._settings.relays.values(), strict=True)
            numbers["smtpguard_relay_connections_limit"] = {route: relay.connections for (_, route), relay in limits}
            numbers["smtpguard_relay_waiting"] = {route: levels.get(of_relay("waiting", n), 0) for n, route in relays}
            numbers["smtpguard_relay_waits_total"] = {route: counts.get(of_relay("waits", n), 0) for n, route in relays}
            numbers["smtpguard_relay_wait_seconds_total"] = {
                route: counts.get(of_relay("wait ms", name), 0) / 1000 for name, route in relays
            }
        found = {((name,) if name else ()): tree["found"].get(of_relay("", name)) for name in self._settings.relays}
        if known := {route: each for route, each in found.items() if each is not None}:
            numbers["smtpguard_relay_up"] = {route: answered for route, (_, answered) in known.items()}
            numbers["smtpguard_relay_tried_seconds"] = {
                route: max(0.0, passed - at) for route, (at, _) in known.items()
            }
        return numbers


def _admissions(counts: Mapping[str, int]) -> Spread:
    """Return the times of admissions, summed over all processes that take mail (guardline.counts)."""
    each = [counts.get(f"admission {n}", 0) for n in range(len(ADMISSION_SECONDS) + 1)]
    return Spread(
        bounds=ADMISSION_SECONDS, counts=tuple(accumulate(each)), total=counts.get("admission us", 0) / 1_000_000
    )


class Exposition(Collector):
    """The response to a scrape. Families without numbers are left out: they are unknown now."""

    def __init__(self, numbers: Samples) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            if series := self._numbers.get(family.name):
                yield _metric(family, series)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text and its content type, as the Accept header prefers."""
        try:
            encoder, kind = choose_encoder(accept)
        except (ValueError, TypeError):  # it asks for a version that does not exist
            encoder, kind = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        return encoder(self), kind


def _metric(family: Family, series: Mapping[tuple[str, ...], float | Spread]) -> Metric:
    name, says, labels = family.name, family.says, family.labels
    if family.kind is Type.INFO:
        info = InfoMetricFamily(name.removesuffix("_info"), says)
        for values in series:
            info.add_metric((), dict(zip(labels, values, strict=True)))
        return info
    if family.kind is Type.HISTOGRAM:
        histogram = HistogramMetricFamily(name, says, labels=labels)
        for values, spread in series.items():
            assert isinstance(spread, Spread)
            ends = [*(str(bound) for bound in spread.bounds), "+Inf"]
            histogram.add_metric(values, list(zip(ends, spread.counts, strict=True)), spread.total)
        return histogram
    metric = (CounterMetricFamily if family.kind is Type.COUNTER else GaugeMetricFamily)(name, says, labels=labels)
    for values, number in sorted(series.items()):
        assert isinstance(number, (int, float))
        metric.add_metric(values, number)
    return metric
