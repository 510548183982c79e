"""Webhooks: journal entries, signed, to other systems, in the journal's order, each at least once and until it is
accepted, with growing pauses.

A cursor for each hook follows the journal, so an entry is sent only if it was committed, and no committed entry is
missed. An entry that a hook does not accept for a day, or answers 410 to, is given up: that is journalled, and the hook
goes on with the next. A new hook begins with the entries from now on. There is one lease for each hook: several nodes
share the work, and a node that was too slow cannot move the cursor.

The same entry always gives the same payload. It never has a body or a recipient. Writers, deciders and their comments
are included only if the hook is allowed to know persons; a list of a special category (GDPR Art. 9) is named only if the
hook is allowed to know that. Data that retention has erased meanwhile is left out. It goes as JSON, or as a chat message
with a link, for Slack's incoming webhooks or Microsoft Teams' workflows. Nothing can be decided in the chat: the link
leads to the console, where one signs in first. Anybody can write subjects and addresses, so everything that a chat would
take for markup, a link or a mention is escaped.
"""

from __future__ import annotations

import asyncio
import enum
import hmac
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from smtpguard import __version__
from smtpguard.database.errors import Outage, StoreError
from smtpguard.journal.chain import Clear, Cursor, Entry, News, Pair, utc_text
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind, follows

if TYPE_CHECKING:  # slow to import
    import httpx2

    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
ERROR_SECONDS = 60.0  # after an internal error
LEASE_SECONDS = 120.0
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 3600.0
GIVE_UP = timedelta(days=1)
SCAN = 200  # entries read at once
BEHIND_SECONDS = 600.0  # from this age on it is logged
_MOST = 500
"""The most characters of one quoted text."""


class Topic(enum.Enum):
    HELD = "message.held"
    DECIDED = "message.decided"
    FROZEN = "freeze.set"
    LIFTED = "freeze.lifted"
    STALE = "list.stale"


KINDS: Mapping[Topic, tuple[Kind, ...]] = {
    Topic.HELD: (Kind.VERDICT, Kind.UNCONFIRMED),
    Topic.DECIDED: (Kind.APPROVED, Kind.CONFIRMED, Kind.REJECTED, Kind.WITHDRAWN, Kind.EXPIRED, Kind.REOPENED, Kind.STOPPED),
    Topic.FROZEN: (Kind.FREEZE,),
    Topic.LIFTED: (Kind.THAW,),
    Topic.STALE: (Kind.LIST,),
}  # fmt: skip
_TOPICS = {kind.value: topic for topic, kinds in KINDS.items() for kind in kinds}


Format = Literal["json", "slack", "teams"]
"""How entries are sent, as in the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """``name``: of its cursor, shown to people. ``secret``: for the signature. ``persons``: whether it may know persons;
    ``nameable``: whether it may know a list. ``console``: the console's URL, "" for none."""

    name: str
    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    topics: frozenset[Topic]
    form: Format = "json"
    persons: bool = False
    nameable: Callable[[str], bool] = lambda name: True
    console: str = ""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for topic in Topic if topic in self.topics for kind in KINDS[topic])


def topic_of(entry: Entry) -> Topic | None:
    """Return the topic of an entry, None if no hook gets it: a verdict that holds nothing new, a list that
    was read well, and copies. For a mailing of thousands of messages only the primary hold is sent."""
    topic, data = _TOPICS.get(entry.kind), entry.data
    match topic:
        case Topic.HELD if entry.kind == Kind.UNCONFIRMED.value:
            return topic
        case Topic.HELD if data.get("action") != "hold" or data.get("hold") != entry.id or data.get("retry"):
            return None
        case Topic.HELD if data.get("with"):
            return None
        case Topic.DECIDED if follows(data):
            return None
        case Topic.STALE if not (data.get("problem") or data.get("stale")):
            return None
    return topic


def payload(entry: Entry, clear: Clear | None, history: Sequence[Pair], hook: Hook) -> dict[str, Any]:
    """``history``: the entries on the same id, this one among them. Only for an entry with a topic."""
    topic = topic_of(entry)
    assert topic is not None
    data: dict[str, Any]
    match topic:
        case Topic.HELD:
            verdict = next(((e, c) for e, c in history if e.kind == Kind.VERDICT.value), (entry, clear))
            data = _message(*verdict, hook)
        case Topic.DECIDED:
            data = _decided(entry, clear, history, hook)
        case Topic.FROZEN | Topic.LIFTED:
            data = _freeze(entry, clear, hook)
        case Topic.STALE:
            told = {name: entry.data.get(name) for name in ("problem", "failing_since")}
            data = {"stale": bool(entry.data.get("stale")), **told, **_lists([entry.id], hook)}
    id = f"{entry.seq}-{entry.hash.hex()[:16]}"  # the same at every attempt, so that a receiver can drop repetitions
    return {"id": id, "type": topic.value, "at": utc_text(entry.time, "milliseconds"), "data": data}


def _message(verdict: Entry, clear: Clear | None, hook: Hook) -> dict[str, Any]:
    data = verdict.data
    told: dict[str, Any] = {
        "hold": verdict.id,
        "reach": int((data.get("counts") or {}).get("reach") or 0),
        "rules": list(data.get("rules") or ()),
        **_lists(data.get("lists") or (), hook),
        "url": f"{hook.console}/held/{verdict.id}" if hook.console else None,
    }
    if hook.persons:
        told |= {"from": _first(clear, "from"), "subject": _first(clear, "subject")}
    return told


def _decided(entry: Entry, clear: Clear | None, history: Sequence[Pair], hook: Hook) -> dict[str, Any]:
    verdict = next(((e, c) for e, c in history if e.kind == Kind.VERDICT.value), None)
    told = {"hold": entry.id} if verdict is None else _message(*verdict, hook)
    told["outcome"] = entry.kind
    if hook.persons:
        votes = [(e, c) for e, c in history if e.kind == Kind.VOTE.value and e.seq <= entry.seq]
        said = votes[-1][1] if votes and entry.kind in (Kind.APPROVED.value, Kind.REJECTED.value) else clear
        told |= {"by": _first(said, "actor"), "comment": _first(said, "comment")}
    return told


def _freeze(entry: Entry, clear: Clear | None, hook: Hook) -> dict[str, Any]:
    data = entry.data
    selector = data.get("selector")
    value = data.get("value")
    if selector == "list" and value and not hook.nameable(str(value)):
        value = None
    told = {"freeze": entry.id, "selector": selector, "value": value, "until": data.get("until")}
    if hook.persons:
        told |= {"by": _first(clear, "actor"), "reason": _first(clear, "comment")}
        if selector == "sender":
            told["value"] = _first(clear, "from")
    return told


def _lists(names: Sequence[str], hook: Hook) -> dict[str, Any]:
    """Return the lists that may be named, and the number of the others."""
    named = [name for name in names if hook.nameable(name)]
    return {"lists": named, "unnamed_lists": len(names) - len(named)}


def _first(clear: Clear | None, role: str) -> str | None:
    values = (clear or {}).get(role)
    return str(values[0])[:500] if values else None


def shaped(payload: Mapping[str, Any], form: Format) -> Mapping[str, Any]:
    if form == "json":
        return payload
    head, lines = _said(payload["type"], payload["data"])
    words = list(filter(None, lines))
    url = payload["data"].get("url") or ""
    return _slack(head, words, url) if form == "slack" else _teams(head, words, url)


_LOOK = "Look at it"
"""The words of the link to what an event is about."""


def _slack(head: str, words: Sequence[str], url: str) -> Mapping[str, Any]:
    """https://api.slack.com/messaging/webhooks; three characters are escaped, and so no link or mention can be made."""
    lines = [f"*{_escaped(head)}*", *map(_escaped, words), *([f"<{_escaped(url)}|{_LOOK}>"] if url else [])]
    text = "\n".join(lines)
    return {"text": text, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}]}


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\u200b{c}" if c in "*_~`" else c for c in text)


def _teams(head: str, words: Sequence[str], url: str) -> Mapping[str, Any]:
    """An Adaptive Card (schema 1.4) as a workflow posts it; a TextBlock takes some Markdown, a TextRun none."""

    def line(text: str, **more: Any) -> Mapping[str, Any]:
        return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **more}]}

    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [line(head, weight="Bolder"), *map(line, words)],
    }
    if url:
        card["actions"] = [{"type": "Action.OpenUrl", "title": _LOOK, "url": url}]
    return {
        "type": "message",
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        ],
    }


def _said(type_: str, data: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """Return the headline, and further lines. A line may be empty."""
    by = f" by {_short(data['by'])}" if data.get("by") else ""
    match type_:
        case "message.held":
            return f"Held: {_to(data)}", _message_lines(data)
        case "message.decided":
            said = f"“{_short(data['comment'])}”" if data.get("comment") else ""
            return f"{str(data['outcome']).capitalize()}{by}: {_to(data)}", [*_message_lines(data), said]
        case "freeze.set" | "freeze.lifted":
            what = "Frozen" if type_ == "freeze.set" else "Lifted"
            until = f"Until {data['until']}" if data.get("until") else ""
            return f"{what}{by}: {_frozen(data)}", [_short(data.get("reason")), until]
        case "list.stale":
            named = _list_names(data) or "a list"
            what = f"{named} is out of date" if data.get("stale") else f"{named} could not be read"
            return what, [_short(data.get("problem"))]
        case "alarm":
            over = data.get("phase") == "ends"
            take = f"To take it: smtpguard incident ack '{_short(data['key'])}'" if data.get("key") and not over else ""
            head = f"{'Over' if over else str(data.get('severity')).capitalize()}: {_short(data['title'])}"
            return head, [*(_short(data.get(name)) for name in ("says", "does", "host")), take]
    return type_, []


def _to(data: Mapping[str, Any]) -> str:
    reach = int(data.get("reach") or 0)
    people = f"{reach:,} {'person' if reach == 1 else 'people'}"
    return ", ".join(filter(None, (people, _list_names(data))))


def _list_names(data: Mapping[str, Any]) -> str:
    unnamed = int(data.get("unnamed_lists") or 0)
    more = f"{unnamed} {'list' if unnamed == 1 else 'lists'} of a special category" if unnamed else ""
    return ", ".join(filter(None, (*map(_short, data.get("lists") or ()), more)))


def _message_lines(data: Mapping[str, Any]) -> list[str]:
    wrote = f"From {_short(data['from'])}" if data.get("from") else ""
    about = f"“{_short(data['subject'])}”" if data.get("subject") else ""
    rules = f"Rules: {', '.join(map(_short, data['rules']))}" if data.get("rules") else ""
    return [": ".join(filter(None, (wrote, about))), rules]


def _frozen(data: Mapping[str, Any]) -> str:
    selector, value = str(data.get("selector")), data.get("value")
    if selector == "all":
        return "all mail"
    return f"{selector} {_short(value)}" if value else f"a {selector}"


def _short(value: object) -> str:
    text = " ".join(str(value or "").split())
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


class Dispatcher:
    """The sender for all hooks of an installation. ``tell`` raises the store's errors, and no error of a hook."""

    def __init__(self, hooks: Sequence[Hook], store: Store, sender: Sender, clock: Clock) -> None:
        self._hooks = tuple(hooks)
        self._cursors, self._history = store.cursors, store.journal.history
        self._sender, self._clock = sender, clock
        self._said: dict[str, datetime] = {}  # when it was last logged that a hook is behind

    async def run(self) -> None:
        """Send for ever. While the store is unavailable it waits."""
        async with asyncio.TaskGroup() as tasks:
            for hook in self._hooks:
                tasks.create_task(self._serve(hook))

    async def _serve(self, hook: Hook) -> None:
        outage = Outage(log, f"webhook {hook.name}: waiting for the store", self._clock.monotonic)
        while True:
            try:
                told = await self.tell(hook)
            except StoreError as error:
                outage.report(error)
                told = 0
            except Exception:  # an internal error must stop neither mail nor the other hooks
                log.exception("webhook %s", hook.name)
                await asyncio.sleep(ERROR_SECONDS)
                continue
            else:
                outage.end()
            if not told:
                await asyncio.sleep(POLL_SECONDS)

    async def tell(self, hook: Hook) -> int:
        """Send a hook what is due. Return the number of entries that are done."""
        place, now = await self._cursors.at(hook.name), self._clock.now()
        if place.next_at is not None and now < place.next_at:
            return 0
        while True:
            news = await self._cursors.news(place.told, hook.kinds, SCAN)
            if wanted := [(entry, clear) for entry, clear in news.entries if topic_of(entry) in hook.topics]:
                break
            if news.through > place.told:
                if not await self._cursors.pass_over(hook.name, place, news.through):
                    return 0
                place = Cursor(told=news.through, lease=place.lease)
            if news.through >= news.end:
                return 0
        self._say_how_far(hook, place, wanted[0][0], news, now)
        leased = await self._cursors.lease(hook.name, place, now + timedelta(seconds=LEASE_SECONDS))
        return await self._told(hook, leased, wanted, news.through) if leased is not None else 0

    async def _told(self, hook: Hook, place: Cursor, wanted: Sequence[Pair], through: int) -> int:
        """Send entries one after the other, each settled before the next is sent."""
        taken = 0
        for entry, clear in wanted:
            place = await self._one(hook, place, entry, clear)
            if place.told < entry.seq:  # it was not accepted, or the lease is lost
                return taken
            taken += 1
        await self._cursors.settle(hook.name, Cursor(told=max(place.told, through), lease=place.lease))
        return taken

    async def _one(self, hook: Hook, place: Cursor, entry: Entry, clear: Clear | None) -> Cursor:
        answered = await self._sent(hook, entry, clear)
        now = self._clock.now()
        since = place.failing_since or now
        events: tuple[Event, ...] = ()
        after = Cursor(told=entry.seq, lease=place.lease)
        if answered.problem and (answered.gone or now - since >= GIVE_UP):
            events = (self._dead(hook, place, entry, answered.problem, now),)
        elif answered.problem:
            pause = max(answered.wait, min(FIRST_PAUSE * 2 ** min(place.attempts, 20), LONGEST_PAUSE))
            log.warning("webhook %s: %s, again in %.0f s", hook.name, answered.problem, pause)
            after = Cursor(
                told=place.told,
                attempts=place.attempts + 1,
                failing_since=since,
                next_at=now + timedelta(seconds=pause),
                lease=place.lease,
            )
        elif place.failing_since is not None:
            log.warning("webhook %s takes entries again", hook.name)
        keep = now + timedelta(seconds=LEASE_SECONDS) if after.told == entry.seq else None
        written = await self._cursors.settle(hook.name, after, events, keep_until=keep)
        return after if written else place

    def _dead(self, hook: Hook, place: Cursor, entry: Entry, problem: str, now: datetime) -> Event:
        topic = topic_of(entry)
        data = {"hook": hook.name, "type": topic.value if topic else None, "entry": entry.seq, "problem": problem,
                "attempts": place.attempts + 1}  # fmt: skip
        return Event(kind=Kind.WEBHOOK, id=entry.id, at=now, data=data)

    async def _sent(self, hook: Hook, entry: Entry, clear: Clear | None) -> Answered:
        """An entry for which no payload can be made is skipped: the hook goes on with the next."""
        history = await self._history(entry.id)
        try:
            told = payload(entry, clear, history, hook)
        except Exception as error:
            log.exception("webhook %s: entry %d of the journal cannot be sent", hook.name, entry.seq)
            return Answered(problem=type(error).__name__, gone=True)
        return await self._sender.send(hook.url, hook.secret, told, self._clock.now(), hook.form)

    def _say_how_far(self, hook: Hook, place: Cursor, first: Entry, news: News, now: datetime) -> None:
        """Log that it is behind, at intervals."""
        if (now - first.time).total_seconds() < BEHIND_SECONDS:
            self._said.pop(hook.name, None)
            return
        said = self._said.get(hook.name)
        if said is None or (now - said).total_seconds() >= BEHIND_SECONDS:
            self._said[hook.name] = now
            log.warning(
                "webhook %s is behind: %d entries of the journal, since %s",
                hook.name,
                news.end - place.told,
                first.time,
            )


SECONDS = 15.0
CONNECT_SECONDS = 5.0
MOST_WAIT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """``problem``: "" if it was accepted. ``gone``: the receiver wants no more (410). ``wait``: the pause that it asked
    for. ``reply``: if it was asked for."""

    problem: str = ""
    gone: bool = False
    wait: float = 0.0
    reply: bytes = b""


class Sender:
    """``http``: a client for tests. The library is imported at the first attempt: most processes never send."""

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._seconds, self._connect_seconds = seconds, min(connect_seconds, seconds)
        self._http = http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def send(
        self, url: str, secret: bytes, payload: Mapping[str, Any], now: datetime, form: Format = "json"
    ) -> Answered:
        body = json.dumps(shaped(payload, form), ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        headers = {
            "Content-Type": "application/json",
            "Smtpguard-Id": str(payload["id"]),
            HEADER: signed(secret, int(now.timestamp()), body),
        }
        return await self.post(url, body, headers)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, most: int = 0) -> Answered:
        """Total: any error is an answer. It does not contain the url, which may hold a secret. ``most``: octets of a
        reply to be read; 0: it does not matter."""
        import httpx2

        if self._http is None:
            timeout = httpx2.Timeout(self._seconds, connect=self._connect_seconds)
            self._http = httpx2.AsyncClient(timeout=timeout, follow_redirects=False)
        headers = {"User-Agent": f"smtpguard/{__version__}", "Accept-Encoding": "identity", **headers}
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._http.stream("POST", url, content=body, headers=headers) as answer,
            ):
                answered, reply = _read(answer), b""
                if most and not answered.problem:
                    async for some in answer.aiter_raw():  # as it came: to unpack a few octets can take hours
                        reply += some
                        if len(reply) > most:
                            return Answered(problem="its reply is too long")
                return replace(answered, reply=reply)
        except (TimeoutError, httpx2.TimeoutException):
            return Answered(problem="no answer in time")
        except httpx2.ConnectError as error:  # it names the host at most
            return Answered(problem=f"it cannot be reached: {error}")
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            return Answered(problem=type(error).__name__)


def _read(answer: httpx2.Response) -> Answered:
    if answer.is_success:
        return Answered()
    asked = answer.headers.get("retry-after", "")
    wait = min(float(asked), MOST_WAIT) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0.0
    return Answered(problem=f"HTTP {answer.status_code}", gone=answer.status_code == 410, wait=wait)


# Signature of a webhook: HMAC-SHA256 over the time and the body, in one header.
#
# Smtpguard-Signature: t=1767225600,v1=5257a869e7...


HEADER = "Smtpguard-Signature"
TOLERANCE_SECONDS = 300
"""The difference between ``t`` and its own clock that a receiver should allow, so that a recorded request cannot be
replayed."""


def signed(secret: bytes, at: int, body: bytes) -> str:
    return f"t={at},v1={hmac.new(secret, b'%d.' % at + body, 'sha256').hexdigest()}"


def genuine(secret: bytes, header: str, body: bytes, now: int) -> bool:
    """The receiver's check. One valid v1 of several is enough, so that a secret can be changed."""
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t" and value.isdecimal() and len(value) < 20]
    if len(times) != 1 or abs(now - int(times[0])) > TOLERANCE_SECONDS:
        return False
    right = signed(secret, int(times[0]), body).partition("v1=")[2]
    return any(hmac.compare_digest(value.encode(), right.encode()) for name, _, value in pairs if name == "v1")
