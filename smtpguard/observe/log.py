"""The log: one line a message, JSON in production, readable on a terminal, and never a secret or a raw control
character.

The journal is the proof; the log is for reading and for grep. Addresses are shown or masked, everywhere alike.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import select
import stat
import sys
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO, cast

import orjson
import structlog

from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import IN_TEXT
from smtpguard.observe.terminal import escaped, terminal_line

_QUOTES = "\"'"
_SECRET = re.compile(r"passw|secret|token|credential|api_?key|private_key", re.I)
_MOST_RECIPIENTS = 20
_MOST_OCTETS = 1 << 14
_MOST_WAIT_MS = 500
"""For a reader of the log that is slower than the log, well within the silence for which a part is killed."""
_RECIPIENTS = frozenset({"recipients", "refused"})
_PLAIN = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_WARNINGS = frozenset(
    {Kind.FREEZE, Kind.THAW, Kind.IN_DOUBT, Kind.VOIDED, Kind.ESCALATED, Kind.TRIPPED, Kind.STREAM, Kind.ALARM}
)


def is_for_journal(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether standard error is systemd's journal (systemd.exec(5)): then lines are JSON before settings are read."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        here = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(here.st_dev), str(here.st_ino))


def failure(sentence: str, *, status: int, error: BaseException | None = None) -> None:
    """Log why the process ends, as its last entries: one for each line of ``sentence``."""
    for line in sentence.splitlines():
        structlog.get_logger("smtpguard").critical("cannot run", problem=line, status=status, exc_info=error)
        error = None


def take_over() -> None:
    """Log the interpreter's warnings and uncaught exceptions. Hooks that are already replaced stay."""
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = lambda kind, error, trace: _uncaught("an error ends the process", error)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda said: _uncaught("an error ends a thread", said.exc_value)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda said: _uncaught(said.err_msg or "an error that nobody can catch", said.exc_value)


def _uncaught(what: str, error: BaseException | None) -> None:
    structlog.get_logger("smtpguard").critical(what, error=type(error).__name__, exc_info=error)


class _Unfailing(io.TextIOBase):
    """A stream whose writes never raise, and never wait for long: a full disk, a closed pipe or file, and a reader that
    has stopped lose log lines and delay no mail."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waits = _MOST_WAIT_MS
        self._lost = 0  # lines, since the reader stopped
        try:
            mode = os.fstat(stream.fileno()).st_mode
        except (OSError, ValueError):
            mode = 0
        self._has_reader = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def write(self, text: str) -> int:
        if self._has_reader and not self._takes():
            self._lost += text.count("\n")
            return len(text)
        lost, self._lost = self._lost, 0
        with suppress(OSError, ValueError):
            if lost:  # not through structlog, whose lock this thread holds
                row = {"timestamp": _now(), "level": "warning", "event": "nobody read the log", "lost": lost}
                said = terminal_line(row, colours=False) if _straight is None else _json(None, "", row)
                self._stream.write(f"{said}\n")
            self._stream.write(text)
        return len(text)

    def _takes(self) -> bool:
        """Return whether the pipe or socket has room for a write (_whole), after a short wait unless the last was in vain."""
        poll = select.poll()  # one for each thread
        try:
            poll.register(self._stream, select.POLLOUT)
            room = bool(poll.poll(self._waits))
        except (OSError, ValueError):
            room = True
        self._waits = _MOST_WAIT_MS if room else 0
        return room

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:
            return False


_part: dict[str, Any] = {}


def speaks(part: str) -> None:
    """Name the part that this process is: its name and pid stand in each line, of libraries and threads too. What
    happened to a message stands in the line of its event, whichever process it was."""
    _part.update(part=part, pid=os.getpid())


def _with_part(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**line, **_part, **line}  # a line about another part names that one


def configure(style: str = "auto", addresses: str = "clear", stream: TextIO | None = None) -> bool:
    """Set up logging for the whole process, other libraries' included. ``style``: auto, json or text; ``addresses``: clear or
    masked. Returns whether lines are JSON."""
    stream = cast("TextIO", _Unfailing(stream or sys.stderr))
    text = style == "text" or (style == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        _with_part,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
        structlog.processors.format_exc_info,
        _without_secrets,
        *([_masked] if addresses == "masked" else []),
        *([_printable] if text else [_first_things_first]),
    ]
    colours = stream.isatty()
    renderer: structlog.typing.Processor = (lambda _, __, row: terminal_line(row, colours=colours)) if text else _json
    global _straight
    _straight = None if text else (stream, addresses == "masked", _whole(stream))
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("smtpguard").setLevel(logging.INFO)
    return not text


def tell(*events: Event) -> None:
    """Log events in few writes: several lines at once, up to a size that is written without lines of another process
    between them. An event without a line does not suppress the others."""
    if _straight is None:
        for event in events:
            with suppress(Exception):
                getattr(structlog.get_logger("smtpguard"), _level(event))(event.kind.value, **fields(event))
        return
    stream, masked, most = _straight
    now = _now()
    lines: list[str] = []
    size = 0
    for event in events:
        try:
            line = _line(event, now, masked=masked)
            octets = len(line) if line.isascii() else len(line.encode("utf-8", "replace"))
        except Exception:
            continue
        if lines and size + octets > most:
            _write(stream, lines)
            lines, size = [], 0
        lines.append(line)
        size += octets
    _write(stream, lines)


def _now() -> str:
    return f"{datetime.now(UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _write(stream: TextIO, lines: Sequence[str]) -> None:
    stream.write("".join(lines))
    stream.flush()


def _line(event: Event, now: str, *, masked: bool) -> str:
    """Return the same line as structlog's processors, which would take half as long as deciding on a message."""
    shown = {"timestamp": now, "level": _level(event), "event": event.kind.value, **fields(event)}
    for name in _secret(tuple(shown)):
        shown[name] = "(secret)"
    return _json(None, "", _masked(None, "", shown) if masked else shown) + "\n"


_straight: tuple[TextIO, bool, int] | None = None
"""The stream for events that bypasses structlog, whether addresses are masked, and the octets of one write; None: use
structlog."""


def _whole(stream: TextIO) -> int:
    """Return how many octets the system writes at once: PIPE_BUF to a pipe (pipe(7)). Processes share a file's offset, and a
    socket of systemd's journal takes more."""
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        is_pipe = True
    return select.PIPE_BUF if is_pipe else _MOST_OCTETS


def _level(event: Event) -> str:
    """A list that cannot be read is an error, even if the old index is in use."""
    if event.kind is Kind.LIST and event.data.get("problem"):
        return "error"
    return "warning" if event.kind in _WARNINGS else "info"


def fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event's line: objects and people first, then the decision; empty ones are left out."""
    shown: dict[str, Any] = {"id": event.id}
    for role, values in event.private.items():
        if role in _LONG:
            continue
        if role not in _RECIPIENTS:
            if told := ", ".join(values):
                shown[role] = told
        elif values:
            more = len(values) - _MOST_RECIPIENTS
            shown[role] = list(values) if more <= 0 else [*values[:_MOST_RECIPIENTS], f"and {more} more"]
    rest = {name: value for name, value in event.data.items() if (value or value == 0) and name not in _LONG}
    if "reasons" in rest:
        rest["reasons"] = list(dict.fromkeys(map(_reason, rest["reasons"])))
    if isinstance(rest.get("people"), list):
        del rest["people"]
    return {**shown, **rest, **shown}  # shown comes first, and wins


_LONG = frozenset({"misses", "skipped", "policy", "content", "generation", "facts", "crowds", "behind", "apart_at", "leads",
    "sealed", "kept"})  # fmt: skip
"""In the journal only, since they are long, such as the digests that ``privacy erase`` has sealed; as are a verdict's
``people``. 0 and False are not empty."""


def _reason(reason: object) -> str:
    """ "recipients.reach 400000": the fact and its observed value."""
    if not isinstance(reason, Mapping):
        return str(reason)
    observed = str(reason.get("observed") or "")
    doubt = " (unknown)" if reason.get("uncertain") and not observed.startswith("unknown") else ""
    return f"{reason.get('fact')} {observed}".strip() + doubt


def _first_things_first(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Time, level and event come first, then the process."""
    return {name: line[name] for name in ("timestamp", "level", "event", "part", "pid") if name in line} | dict(line)


@lru_cache(maxsize=1000)
def _secret(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in a line whose values are secret; cached, since lines of one kind have the same names."""
    return tuple(name for name in names if _SECRET.search(name))


def _without_secrets(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in _secret(tuple(line)):
        line[name] = "(secret)"
    return line


def _json(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
    """On one line, readable, with terminal control characters as JSON escapes."""
    try:
        octets = orjson.dumps(line, default=str, option=_PLAIN)
        text = octets.decode()
        if octets.isascii() and b"\x7f" not in octets:  # it has escaped the others
            return text
    except orjson.JSONEncodeError:  # a lone surrogate, a number beyond 64 bits
        text = json.dumps(line, ensure_ascii=False, default=str)
    return escaped(text)


def _masked(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in line.items():
        line[name] = _each_text(value, mask)
    return line


def _printable(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace = line.pop("exception", None)
    shown: dict[str, Any] = {printable(name): _each_text(value, printable) for name, value in line.items()}
    if isinstance(trace, str):  # a traceback keeps its lines
        shown["exception"] = "\n".join(map(printable, trace.splitlines()))
    return shown


def mask(text: str) -> str:
    """Mask every address in the text, also in a link, up to the first letter of its local part: ``k***@example.com``."""
    return IN_TEXT.sub(lambda found: f"{found[1].lstrip(_QUOTES)[:1]}***@{found[2]}", text)


def printable(text: str) -> str:
    """Escape control characters, line ends and bidi controls."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _each_text(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(each, change) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_each_text(each, change) for each in value]
    return value if value is None or isinstance(value, (bool, int, float)) else change(str(value))
