"""Send an alarm to people by mail to ``notices: {contact}`` and by webhook, remember in a file what was sent about this
host, and list the alarms that were sent and are not over.

Neither way needs the store. Mail goes straight to ``alarms: {relay}``, and where that does not take it to the guarded
relay. It is no outbox entry, so neither a freeze nor an unavailable store holds it back.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from smtpguard.app.files import CannotStart, contact
from smtpguard.app.relay import relay_target, target_of
from smtpguard.app.services import notice_head, signer
from smtpguard.config.fields import read_secret
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import replace_file
from smtpguard.database.access import Access
from smtpguard.database.errors import Outage
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address
from smtpguard.mail.codec import Codec
from smtpguard.mail.envelope import Envelope, Lost, Recipient, open_fence
from smtpguard.mail.message import Message
from smtpguard.notices.notice import Notice, NoticeTemplates, choose_language
from smtpguard.notices.render import Sign
from smtpguard.observe import rounds
from smtpguard.observe.alarms import BYPASS, RaisedAlarm
from smtpguard.observe.rounds import AlarmMessage, Phase
from smtpguard.observe.rows import Alarmed
from smtpguard.observe.webhooks import Sender
from smtpguard.policy.parse import Organization
from smtpguard.store.store import Store
from smtpguard.wire.deliveries import Deliveries
from smtpguard.wire.pool import RelayPool
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.target import RelayTarget, Timeouts

log = logging.getLogger(__name__)

PATIENCE = Timeouts(connect=10, greeting=30, command=30, data=30, block=30, final=60)
FILE = "alarms.json"


@dataclass(slots=True)
class AlarmChannels:
    """Sends alarms to people. ``organization``: returns that of the policy in force, as far as it is known. ``sender``: for
    webhooks."""

    settings: Settings
    organization: Callable[[], Organization | None]
    sender: Sender = field(default_factory=Sender)
    _logged: set[tuple[str, Phase]] = field(default_factory=set)
    _sign: Sign | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        try:
            self._sign = signer(self.settings)
        except CannotStart as e:
            log.error("alarms are not signed: %s", e)

    async def send(self, message: AlarmMessage) -> bool:
        """Send an alarm, and log it once. Returns whether anybody got it. If the settings name nobody, the log is enough."""
        self._log(message)
        if message.alarm.condition.name in self.settings.alarms.quiet:
            return True
        ways = [self._send_mail(message, to) for to in self._recipients(message)]
        if self.settings.alarms.webhook is not None:
            ways.append(self._post(message))
        if not ways:
            return True
        heard = any(await asyncio.gather(*ways))
        if not heard:
            log.error("alarm %s could not be sent; it is tried again", message.alarm.key)
        return heard

    def _log(self, message: AlarmMessage) -> None:
        at = message.alarm.key, message.phase
        if at in self._logged:
            return
        self._logged = {(key, phase) for key, phase in self._logged if key != message.alarm.key} | {at}
        if message.phase is Phase.ENDS:
            log.warning("alarm %s is over (it said: %s)", message.alarm.key, message.alarm.title)
        else:
            log.critical("alarm %s: %s", message.alarm.key, message.alarm.line())

    def _recipients(self, message: AlarmMessage) -> list[Address]:
        """Return the contact, and for the alarm of a bypass also those who can begin one."""
        to = contact(self.settings)
        people = self.settings.bypass.people if message.alarm.condition.name == BYPASS else ()
        found = [*([to] if to is not None else ()), *map(Address.parse, people)]
        return list({str(each).lower(): each for each in found}.values())

    async def _send_mail(self, message: AlarmMessage, to: Address) -> bool:
        try:
            raw = await asyncio.to_thread(self._render, message, to)
        except Exception:
            log.exception("alarm %s: its mail could not be written", message.alarm.key)
            return False
        envelope = Envelope(
            reverse_path=None, recipients=(Recipient(address=to, notify="NEVER"),), smtputf8=not raw.isascii()
        )
        for name, target in self._targets(to):
            problem = await _deliver(target, envelope, raw)
            if not problem:
                return True
            log.warning("alarm %s: %s does not take its mail: %s", message.alarm.key, name, problem)
        return False

    def _targets(self, to: Address) -> Iterator[tuple[str, RelayTarget]]:
        if (other := self.settings.alarms.relay) is not None:
            try:
                yield "alarms: relay", replace(target_of(other, self.settings), timeouts=PATIENCE, connections=1)
            except (Broken, OSError) as e:
                log.error("alarms: relay: %s", e)
        route = self.settings.route("", "", to.ascii_domain)
        try:
            target = relay_target(self.settings, route)
            yield "the relay", replace(target, timeouts=PATIENCE, reachability=None, connections=1)
        except (Broken, OSError) as e:
            log.error("relay: %s", e)

    def _render(self, message: AlarmMessage, to: Address) -> bytes:
        head = notice_head(self.settings, self.organization())
        made = Notice(
            id=f"alarm-{message.alarm.key}-{message.phase.value}-{message.at.timestamp():.0f}".replace(" ", "-"),
            to=to,
            data={**row(message), "private": message.alarm.found.private or "", "notice": "alarm"},
            language=choose_language("", head.languages),
            at=message.at,
        )
        raw = NoticeTemplates(head).render(made)
        return self._sign(raw) + raw if self._sign is not None else raw

    async def _post(self, message: AlarmMessage) -> bool:
        """Send the alarm to the webhook, without any text that a person has written."""
        hook = self.settings.alarms.webhook
        assert hook is not None
        try:
            secret = read_secret(hook.secret_file).encode()
        except Broken as e:
            log.error("alarms: webhook: %s", e)
            return False
        id = f"alarm {message.alarm.key} {message.phase.value} {message.at.timestamp():.0f}"
        payload = {"id": id, "type": "alarm", "at": message.at.isoformat(), "data": row(message)}
        answered = await self.sender.send(hook.url, secret, payload, message.at, hook.format)
        if answered.problem:
            log.warning("alarm %s: the webhook does not take it: %s", message.alarm.key, answered.problem)
        return not answered.problem


def row(message: AlarmMessage) -> dict[str, Any]:
    """Return an alarm as a JSON object, without what people have written."""
    alarm, over = message.alarm, message.phase is Phase.ENDS
    return {
        "alarm": alarm.condition.name,
        "about": alarm.found.about or None,
        "phase": message.phase.value,
        "severity": alarm.condition.severity.value,
        "title": alarm.title,
        "says": None if over else alarm.says,
        "does": None if over else alarm.does,
        "since": message.began.isoformat(),
        "key": alarm.key,
        "host": socket.gethostname(),
    }


async def _deliver(target: RelayTarget, envelope: Envelope, raw: bytes) -> str:
    """Deliver one message over a connection of its own. Returns why it was not delivered, "" if it was."""
    try:
        pool = RelayPool(replace(target, wait_seconds=60))
    except OSError as e:  # a file of its TLS
        return str(e)
    try:
        answers = await Deliveries(pool).deliver(envelope, Message.of(raw), b"", open_fence)
    except RelayUnavailable as e:
        return e.why
    except Lost as e:
        return str(e) or "the connection was lost"
    finally:
        await pool.close()
    (reply,) = answers.replies
    return "" if reply.positive else str(reply)


_RAISED = Codec(RaisedAlarm)


class FileMemory:
    """A file in the state folder with the alarms of this host that were sent: process trees that share the folder send each
    once. If the file can be neither read nor written, the process remembers alone."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._kept: dict[str, RaisedAlarm] = {}
        self._alone = False  # the last change could not be written
        self._mine = threading.Lock()  # threads wait for one another; for another process _locked does not
        self._unkept = Outage(log, f"{self._path} does not keep which alarms were sent")

    async def known(self) -> Mapping[str, RaisedAlarm]:
        """Return the alarms that were sent, by key. No lock is needed, since the file is replaced as a whole."""
        return await asyncio.to_thread(self._read)

    async def swap(self, before: RaisedAlarm | None, after: RaisedAlarm | None) -> bool:
        """Replace what is remembered of one alarm; None stands for nothing. Returns False if it is no longer ``before``, or another
        process has the lock."""
        return await asyncio.to_thread(self._swap, before, after)

    def _swap(self, before: RaisedAlarm | None, after: RaisedAlarm | None) -> bool:
        given = before or after
        assert given is not None
        with self._mine, self._locked() as mine:
            known = self._read()
            if not mine or known.get(given.key) != before:
                return False
            known.pop(given.key, None)
            if after is not None:
                known[after.key] = after
            self._kept = known
            self._write(known)
            return True

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Lock the file, if no other process has it, and yield whether that succeeded. It never waits: the other process may be
        stopped, and this one must be able to end."""
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield True
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = True
            except BlockingIOError:
                mine = False
            yield mine
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, RaisedAlarm]:
        if self._alone:
            return dict(self._kept)
        try:
            if self._path.parent.is_dir() and not self._path.exists():
                return {}
            rows = json.loads(self._path.read_text(encoding="utf-8"))
            return {raised.key: raised for raised in map(_RAISED.back, rows)}
        except (OSError, ValueError, KeyError, TypeError):
            return dict(self._kept)

    def _write(self, known: Mapping[str, RaisedAlarm]) -> None:
        rows = [_RAISED.to(each) for each in known.values()]
        try:
            replace_file(self._path, json.dumps(rows, indent=1) + "\n", durable=False)
            self._alone = False
            self._unkept.end()
        except OSError as e:
            self._alone = True
            self._unkept.report(e.strerror or type(e).__name__)


async def active_alarms(settings: Settings, store: Access) -> Sequence[RaisedAlarm]:
    """Return the alarms that were sent and are not over, the oldest first. Those of this host are left out if its state folder
    cannot be read. Raises StoreError."""
    known = {**await Alarmed(store).known(), **await FileMemory(settings.state).known()}.values()
    return sorted(
        (each for each in known if each.told is not None and each.alarm is not None),
        key=lambda each: (each.began, each.name),
    )


async def take_alarm(settings: Settings, store: Store, key: str, *, by: str, at: datetime) -> bool:
    """Record that ``by`` takes this alarm, in the journal first. Returns False if there is no such alarm now. Raises
    StoreError."""
    if key not in {each.key for each in await active_alarms(settings, store)}:
        return False
    await store.journal.record([Event(kind=Kind.TAKEN, id=key, at=at, private={"actor": (by,)})])
    taken = [await rounds.take(memory, key, by, at) for memory in (Alarmed(store), FileMemory(settings.state))]
    return any(taken)
