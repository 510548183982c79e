"""Freeze and thaw, and watch the gate, which is asked before every final dot.

A freeze is committed first; from then on no verdict to relay a message that it stops can be committed anywhere. A
verdict that was committed before, and whose final dot is not sent, is recalled by the fence, at most one second later.
A message that the relay has is past recall; the freeze counts and reports those.

The commands of a freeze and a thaw run without a shell, with the event in their environment; their failures are reported (``Hooks``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from smtpguard.database.errors import Outage, StoreError
from smtpguard.freezes.model import event_of
from smtpguard.holds.model import LET_GO, LIVE, Hold, State, held_up_by
from smtpguard.journal.clock import Clock, SteadyClock
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import STAYED
from smtpguard.locale.phrase import Phrase
from smtpguard.policy.freezing import ITSELF, Freeze, Gate, Selectable, Selector, freezes_mailings, stopped_by

if TYPE_CHECKING:  # a freeze should not wait for these imports
    from smtpguard.mail.envelope import Fence
    from smtpguard.mailings.model import Mailing
    from smtpguard.policy.facts import Facts
    from smtpguard.store.front import Front
    from smtpguard.store.nouns import Gates
    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
FRESH_SECONDS = 1.0
STALE_SECONDS = 10.0
"""If the last read of the gate is older, the store does not answer this process."""
LOOK_SECONDS = 5.0
RECALL_SECONDS = 1.5  # by then all fences stop, and the outcomes of recalled messages are journalled
MOST = 1000
"""The most releases in progress that are looked at before a thaw."""
SHOWN = 20
LOOK_BACK = timedelta(minutes=15)  # longer than the longest wait for a relay's reply (RFC 5321 section 4.5.3.2.6)


@dataclass(eq=False)
class GateWatch:
    """Read the gate four times a second. ``moved`` is called with each gate that differs from the one before. ``front``
    knows the gate's generation at every moment."""

    gates: Gates
    clock: Clock
    moved: Callable[[Gate], None] | None = None
    front: Front | None = None
    gate: Gate | None = field(default=None, init=False)
    _read_at: float = field(default=float("-inf"), init=False)

    @property
    def age_seconds(self) -> float:
        """Seconds since the gate was last read; infinite before the first time."""
        return self.clock.monotonic() - self._read_at

    async def read(self) -> Gate:
        """The newest known gate. Raises StoreError; the last gate stays, and grows stale."""
        asked_at = self.clock.monotonic()  # taken before the read: the answer is at least this new
        gate = await self.gates.read()
        if self.gate is not None and asked_at < self._read_at:  # a later read has returned first
            return self.gate
        before, self.gate = self.gate, gate
        self._read_at = asked_at
        if self.moved is not None and before is not None and before != gate:
            self.moved(gate)
        return gate

    async def run(self) -> None:
        """Never returns. While the store does not answer, the fences stop all mail: doubt stands still."""
        outage = Outage(log, "the gate: waiting for the store", self.clock.monotonic)
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.read()
            except (StoreError, TimeoutError) as error:
                outage.tell(error)
            else:
                outage.over()
            await asyncio.sleep(POLL_SECONDS)

    def stops(self, facts: Facts) -> bool:
        """Whether a known freeze stops a message with these facts; if so its content is kept first. A freeze that this
        process does not know yet costs another round."""
        frozen = facts.identity is not None and self.freezes_mailings  # only the admission knows the mailing
        return frozen or not self.allows(Selectable(facts.lists, facts.senders, "", facts.thread), None)

    @property
    def freezes_mailings(self) -> bool:
        """Whether a mailing is known to be frozen. Then the admission must know of every message which mailing it is a copy
        of; for one that is frozen meanwhile it asks."""
        freezes = self.gate.freezes if self.gate is not None else ()
        return bool(freezes) and freezes_mailings(freezes)

    def allows(self, what: Selectable, policy_sha256: str | None) -> bool:
        """Whether the gate, as last read, lets this message pass: none of its freezes stops it, and the policy that decided
        is in force (None: people decided)."""
        gate = self.gate
        if gate is None or (policy_sha256 is not None and gate.policy_sha256 != policy_sha256):
            return False
        return not gate.freezes or not stopped_by(gate.freezes, what)

    def fence(
        self, what: Selectable, policy_sha256: str | None = None, gone: Callable[[], bool] = lambda: False
    ) -> Fence:
        """Whether the final dot may still be sent. The gate must have been read less than a second ago, and none of its
        freezes may stop this message. The policy that decided must still be in force (None: people decided, and no
        policy changes that). The client must be connected. A freeze or thaw of something else does not matter.

        Before it says no it reads the gate again: the verdict may be newer than the last read, after a thaw or a new
        policy a moment ago. And on a busy machine the last read may be old.
        """

        def holds() -> bool:
            if self.clock.monotonic() - self._read_at >= FRESH_SECONDS or gone():
                return False
            return self.allows(what, policy_sha256)

        async def fence() -> bool:
            if holds() and self._is_newest():
                return True
            if not gone():
                await self._look()
            return holds()

        return fence

    def _is_newest(self) -> bool:
        """Whether no newer gate is known than the one that was last read."""
        newest = self.front.generation if self.front is not None else None
        return newest is None or (self.gate is not None and self.gate.generation == newest)

    async def _look(self) -> None:
        """Read the gate; again if the answer took so long that it is stale."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self.read()
                while self.age_seconds >= FRESH_SECONDS:
                    await self.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """``recalled``: messages that were admitted before the freeze and dropped before their final dot. ``past_recall``:
    ids of messages that the relay has, or may have; those still without its reply are among them."""

    freeze: Freeze
    recalled: tuple[str, ...]
    past_recall: tuple[str, ...]
    hooks: tuple[Hook, ...]
    counted: bool
    """False: the store was lost after the freeze, and how many there are is not known."""


UNCOUNTED = "how many messages were stopped on their way is not known: the store was lost after the freeze"


class SecondPersonNeeded(Exception):
    """Two people are needed to thaw. This one's consent is recorded, and the freeze stays until another person agrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a thaw releases. ``people``: an upper bound; a person who gets several messages counts for each. ``doubt``:
    recipients who may have the message already, and are tried once more. ``kept``: approved messages that other freezes
    stop as well. ``waiting``: messages that wait for a decision, which a thaw does not send. ``first``: the newest of
    those that go, a mailing as one; its reach here is what goes of it, if it is sent in stages."""

    messages: int
    people: int
    lists: tuple[str, ...]
    doubt: int
    kept: int
    waiting: int
    first: tuple[Hold, ...]


def _only(address: str) -> Set[str]:
    return {address}


@dataclass(eq=False)
class Freezes:
    """The service behind ``smtpguard freeze`` and ``thaw``. Hooks are commands that run at once, without a shell. Their
    environment has the event: SMTPGUARD_ACTION, _ID, _SELECTOR, _VALUE, _REASON, _BY. ``loud``: log hooks that fail; a
    command reports them itself."""

    store: Store
    clock: SteadyClock
    new_id: Callable[[], str]
    freeze_hook: Sequence[Sequence[str]] = ()
    thaw_hook: Sequence[Sequence[str]] = ()
    hook_seconds: float = 30.0
    recall_seconds: float = RECALL_SECONDS
    thaw_two: bool = False
    loud: bool = True

    async def freeze(
        self, selector: Selector, value: str, *, reason: str, by: str, for_: timedelta | None = None
    ) -> Frozen:
        """``value``: see Freeze. Raises StoreError: then nothing is frozen (CommitUnknown: it is not
        known), and the caller must say so loudly."""
        now = self.clock.now()
        freeze = Freeze(
            freeze_id=self.new_id(),
            selector=selector,
            value=value,
            reason=reason,
            by=by,
            at=now,
            until=now + for_ if for_ else None,
        )
        await self.store.gate.freeze(freeze, event_of(Kind.FREEZE, freeze, by, self.clock.now()))
        hooks, found = await asyncio.gather(self._hooks(self.freeze_hook, "freeze", freeze, by), self._recalled(freeze))
        recalled, past_recall = found or ((), ())
        return Frozen(freeze=freeze, recalled=recalled, past_recall=past_recall, hooks=hooks, counted=found is not None)

    async def told(self, stop: Freeze) -> tuple[Hook, ...]:
        """The commands of a freeze that stands already, since it was made in another's commit."""
        return await self._hooks(self.freeze_hook, "freeze", stop, stop.by)

    async def thaw(
        self, freeze_id: str, *, by: str, person: str = "", addresses_of: Callable[[str], Set[str]] = _only
    ) -> tuple[Hook, ...]:
        """``person``: the person behind ``by``, if that names a program of theirs. ``addresses_of``: all addresses of a
        person. Raises KeyError if there is no such freeze, and SecondPersonNeeded if two people must agree and this is
        the first."""
        gate = await self.store.gate.read()
        freeze = next((f for f in gate.freezes if f.freeze_id == freeze_id), None)
        if freeze is None:
            raise KeyError(freeze_id)
        who = person or by
        if self.thaw_two and (asked := await self.asked_to_thaw(freeze_id)) in ("", *addresses_of(who)):
            if not asked:
                await self.store.journal.record([event_of(Kind.THAW_ASKED, freeze, who, self.clock.now())])
            raise SecondPersonNeeded
        gate = await self.store.gate.thaw(freeze_id, event_of(Kind.THAW, freeze, by, self.clock.now()))
        if any((other.selector, other.value) == (freeze.selector, freeze.value) for other in gate.freezes):
            return ()  # it is still frozen
        return await self._hooks(self.thaw_hook, "thaw", freeze, by)

    async def asked_to_thaw(self, freeze_id: str) -> str:
        """The person who has already asked to thaw it, from the journal; "" for none."""
        entries = await self.store.journal.history(freeze_id)
        asked = [clear for entry, clear in entries if entry.kind == Kind.THAW_ASKED.value]
        return str((asked[0] or {}).get("actor", [""])[0]) if asked else ""

    async def lift_ended(self) -> tuple[Hook, ...]:
        """Lift freezes whose time is over. Until then they stop mail. If several processes try, one does it. Raises
        StoreError."""

        async def lift(freeze: Freeze) -> tuple[Hook, ...]:
            with contextlib.suppress(KeyError):  # another process was first
                return await self.thaw(freeze.freeze_id, by=ITSELF)
            return ()

        freezes = (await self.store.gate.read()).freezes
        over = [one for one in freezes if one.until is not None and self.clock.has_come(one.until, one.at)]
        ran = await asyncio.gather(*map(lift, over))  # the commands of one keep no other frozen
        return tuple(chain.from_iterable(ran))

    async def active(self, selector: Selector | None = None, value: str = "") -> tuple[Freeze, ...]:
        """The active freezes: all, or those with exactly this selector and value."""
        freezes = (await self.store.gate.read()).freezes
        return tuple(f for f in freezes if selector is None or (f.selector, f.value) == (selector, value))

    async def holding_up(self, *holds: Hold) -> Mapping[str, tuple[Freeze, ...]]:
        """By hold id, the freezes that stop each of these holds, if it is not over. Holds that no freeze stops are left
        out."""
        freezes = (await self.store.gate.read()).freezes
        found = {hold.hold_id: held_up_by(hold, freezes) for hold in holds if hold.state in LIVE}
        return {hold_id: stopped for hold_id, stopped in found.items() if stopped}

    async def released_by(self, lifted: Collection[Freeze]) -> Released:
        """The approved messages that go out as soon as these freezes are lifted. Raises StoreError."""
        ids = {f.freeze_id for f in lifted}
        freezes = (await self.store.gate.read()).freezes
        # Of a mailing in stages the next copies go too, as many as its stage has room for.
        rest = await self.store.holds.several(await self.store.holds.decided_leads())
        behind = {lead.hold_id for lead in rest if lead.state in LET_GO}
        found = [await self.store.mailings.find(id) for id in {lead.mailing_id for lead in rest} if id]
        staged = {one.mailing_id: one for one in found if one is not None and one.progress is not None}
        goes, kept, waiting = list[Hold](), 0, 0
        stored: dict[str, list[Hold]] = {mailing_id: [] for mailing_id in staged}
        async for hold in self.store.holds.every(tuple(LIVE), copies=True):
            stopped = {f.freeze_id for f in held_up_by(hold, freezes)}
            if not stopped & ids:
                continue
            if hold.state is State.WAITING:
                waiting += not hold.primary
                if hold.mailing_id in staged and hold.primary in behind and stopped <= ids:
                    stored[hold.mailing_id].append(hold)
            elif stopped - ids:
                kept += 1
            else:
                goes.append(hold)
        for id, mailing in staged.items():
            out = mailing.out
            for copy in reversed(stored[id]):
                if mailing.progress is None or not mailing.progress.fits(out, copy.reach):
                    break
                goes.append(copy)
                out += copy.reach
            reach = mailing.people.admitted + out - mailing.out
            goes = [replace(one, reach=reach) if one.mailing_id == id and not one.primary else one for one in goes]
        leads = {hold.hold_id for hold in goes}
        single = [hold for hold in goes if not hold.primary or hold.primary not in leads]
        begun = [hold for hold in goes if hold.state is State.RELEASING][:MOST]
        sending = [(await self.store.holds.outgoing(hold.hold_id)).own for hold in begun]
        return Released(
            messages=len(goes),
            people=sum(hold.reach for hold in single),
            lists=tuple(sorted({name for hold in goes for name in hold.lists})),
            doubt=sum(own.doubt for own in sending if own is not None),
            kept=kept,
            waiting=waiting,
            first=tuple(single[:SHOWN]),
        )

    async def against(self, mailing: Mailing) -> tuple[Freeze, ...]:
        """The freezes that stop further messages of a mailing, or those of it that are approved and not sent."""
        what = mailing.selectable
        bound = frozenset().union(
            *(grant.lists for grant in mailing.grants if grant.only)
        )  # a correction goes all the same
        freezes = (await self.store.gate.read()).freezes
        return stopped_by(freezes, what._replace(lists=what.lists - bound))

    async def _recalled(self, freeze: Freeze) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """None if the store is lost: it is frozen all the same."""
        try:
            return await self._recall(freeze)
        except StoreError as error:
            log.error("it is frozen, and what it stopped cannot be counted: %s", error)
            return None

    async def _recall(self, freeze: Freeze) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Wait until fences stop and outcomes are journalled, at most ``recall_seconds``; then find which messages were
        recalled. A release counts if an attempt has begun, however long ago: the relay may have it."""
        since = freeze.at - LOOK_BACK
        under_way, releases = (
            await self.store.journal.in_flight(freeze, since),
            await self.store.outbox.attempted(freeze),
        )
        if not under_way and not releases:
            return (), ()
        end = self.clock.monotonic() + self.recall_seconds
        while self.clock.monotonic() < end and (  # noqa: ASYNC110
            await self.store.journal.in_flight(freeze, since) or await self.store.outbox.attempted(freeze)
        ):
            await asyncio.sleep(0.1)  # other processes write the outcomes: there is no event to wait for
        outcomes = await self.store.journal.outcomes(under_way)
        recalled = {id for id in under_way if outcomes.get(id) in STAYED}
        taken = {releases[intent] for intent in await self.store.outbox.accepted(list(releases))}
        everybody = tuple(dict.fromkeys((*under_way, *releases.values())))
        recalled |= set(releases.values()) - taken
        return tuple(id for id in everybody if id in recalled), tuple(id for id in everybody if id not in recalled)

    async def _hooks(self, commands: Sequence[Sequence[str]], action: str, freeze: Freeze, by: str) -> tuple[Hook, ...]:
        ran = await asyncio.gather(*(run(argv, action, freeze, by, seconds=self.hook_seconds) for argv in commands))
        for hook in ran:
            if self.loud and hook.problem is not None:
                log.error("%s, run at a %s: %s", hook.program, action, hook.problem)
        return tuple(ran)


LAST_OCTETS = 4096  # of standard error, kept while the command runs
LAST_CHARACTERS = 300  # of its last line, for people
_READS = 64  # covers what a full pipe can still hold when the command has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """The result of a command that holds other mail queues. ``program``: its first word; the others may hold a secret.
    ``failed``: None for exit status 0. ``said``: the last line of its standard error, bounded and printable."""

    program: str
    failed: Phrase | None = None
    said: str = ""

    @property
    def problem(self) -> str | None:
        """None for exit status 0."""
        return f"{self.failed}: {self.said}" if self.failed is not None and self.said else self.failed


async def run(argv: Sequence[str], action: str, freeze: Freeze, by: str, *, seconds: float) -> Hook:
    """Run one command, and kill it after ``seconds``."""
    program, error = argv[0], _LastLine()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=error.theirs,
                env=_environment(action, freeze, by),
                start_new_session=True,
            )
        except (OSError, ValueError) as e:
            why = str(getattr(e, "strerror", None) or e)
            return Hook(program=program, failed=Phrase("it could not be started: {value}", value=why))
        finally:
            error.begin()
        try:
            async with asyncio.timeout(seconds):
                status = await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            late = Phrase("it took longer than {value} s and was killed", value=f"{seconds:g}")
            return Hook(program=program, failed=late, said=error.text())
        if status == 0:
            return Hook(program=program)
        return Hook(
            program=program, failed=Phrase("it ended with status {value}", value=str(status)), said=error.text()
        )
    finally:
        error.close()


class _LastLine:
    """Read a pipe and keep its end. Not a pipe of asyncio's: with that, wait() would wait for every process that
    inherited it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._kept = b""

    def begin(self) -> None:
        """Call when the command has its end of the pipe."""
        os.close(self.theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def _read(self) -> bool:
        try:
            some = os.read(self._ours, 65536)
        except BlockingIOError:
            return False
        self._kept = (self._kept + some)[-LAST_OCTETS:]
        if not some:
            asyncio.get_running_loop().remove_reader(self._ours)
        return bool(some)

    def text(self) -> str:
        for _ in range(_READS):
            if not self._read():
                break
        lines = [line for line in self._kept.decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1].strip() if lines else ""
        clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in last)
        return clean if len(clean) <= LAST_CHARACTERS else f"{clean[:LAST_CHARACTERS]}..."

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)


def _environment(action: str, freeze: Freeze, by: str) -> Mapping[str, str]:
    said = {"ACTION": action, "ID": freeze.freeze_id, "SELECTOR": freeze.selector.value, "VALUE": freeze.value,
            "REASON": freeze.reason, "BY": by}  # fmt: skip
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        **{f"SMTPGUARD_{name}": value.replace("\0", "") for name, value in said.items()},
    }
