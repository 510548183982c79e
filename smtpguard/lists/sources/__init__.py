"""Sources of members. Here is what they share; each kind of source has a file beside it.

A source yields the texts that contain addresses, in one pass, in bounded memory, each with its place. A text without an
address is counted by its place, never by its content.

Sources on other machines share credentials in files, the CAs that may sign the server's certificate, and timeouts (for
each answer, for all answers together, and none once the sync is cancelled). A path may begin with
``$CREDENTIALS_DIRECTORY/``, where systemd puts what LoadCredential= names.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import ssl
import stat
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from smtpguard.config.fields import NO_CREDENTIALS, read_secret
from smtpguard.config.problem import Broken
from smtpguard.lists.members import Members, OfMailman, Remote
from smtpguard.locale.phrase import Phrase, Said, Value
from smtpguard.mail.address import Address, BadAddress

log = logging.getLogger(__name__)

SHOWN = 20
"""The most bad rows that are named one by one."""
MIN_BAD = 3
"""The number of bad rows that any source may have."""
LOOK_SECONDS = 0.2
"""The time between two checks whether a wait is to be cut."""
_FOLDER = ("$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}")

Cell = tuple[int, str]
"""A place (a line, a row, an entry, from 1) and the text there that should hold an address."""

Stop = Callable[[], bool]
"""A function that returns whether the caller has given up. A source that waits for others asks it between their answers."""


class SourceError(Exception):
    """The source cannot be read, or is implausible: nothing of it is used. The text names file and line if possible.

    The text is for terminals, logs and mail, and partly from the other side: control characters are removed.
    """

    def __init__(self, said: Said) -> None:
        self.said = _plain(said)
        super().__init__(str(self.said))

    @classmethod
    def saying(cls, msgid: str, /, **values: Value) -> SourceError:
        return cls(Phrase(msgid, **values))


def _plain(value: Said) -> Said:
    if isinstance(value, Phrase):
        return value.with_values(**{k: _plain(v) if isinstance(v, str) else v for k, v in value.values.items()})
    return "".join(c if c.isprintable() else "?" for c in value)


def why_not_opened(path: Path | str, error: OSError) -> Phrase:
    """Return why a file cannot be opened. What happens often can be translated; the system's words are in English."""
    if isinstance(error, FileNotFoundError):
        return Phrase("{name}: No such file or directory", name=str(path))
    if isinstance(error, PermissionError):
        return Phrase("{name}: Permission denied", name=str(path))
    return Phrase("{name}: {why}", name=str(path), why=error.strerror or type(error).__name__)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row without an address. The row is personal data, so only its place is reported."""

    line: int
    why: str
    unit: str = "line"
    source: str = ""

    def __str__(self) -> str:
        return f"{self.unit} {self.line}: {self.why}"


@dataclass(slots=True)
class Tally:
    """The counts of one pass. ``done`` of ``size`` octets were read; a source of unknown size leaves both 0.

    ``unmailed``: rows of people to whom the list server would not send. ``ignored``: targets of a map that are no
    mailbox. ``unit`` and ``source`` name what is being read; a source sets them when it begins.
    """

    rows: int = 0
    bad: int = 0
    unmailed: int = 0
    ignored: int = 0
    shown: list[BadRow] = field(default_factory=list)
    done: int = 0
    size: int = 0
    unit: str = "line"
    source: str = ""

    def begin(self, source: str, unit: str) -> None:
        self.source, self.unit = source, unit

    def reject(self, line: int, why: str) -> None:
        self.bad += 1
        if len(self.shown) < SHOWN:
            self.shown.append(BadRow(line, why, self.unit, self.source))


class Source(ABC):
    """One source of members, opened for one pass."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name for people: a file's name, a server's and a list's, without secrets."""

    @cached_property
    def opening(self) -> bytes:
        """32 octets, different for each opening."""
        return secrets.token_bytes(32)

    def fingerprint(self) -> bytes:
        """Return 32 octets that change whenever the members could have changed. Raises SourceError.

        It is asked before a pass and after it, so it must be cheap: a different answer means that the source changed while it was
        read. A source that cannot tell without being read returns ``opening``, so that it is always read.
        """
        return self.opening

    @abstractmethod
    def cells(self, tally: Tally) -> Iterator[Cell]:
        """Yield every member in its original spelling, and count it in ``tally.rows``. Raises SourceError, midway too."""

    def close(self) -> None:  # noqa: B027 - most have nothing open between two passes
        """Close what ``fingerprint`` or an unfinished pass has left open. Idempotent."""


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, also for a pipe or a device, whose end may never come."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file")
    return file


def why_implausible(label: str, people: int, tally: Tally, members: Members) -> tuple[Phrase, str] | None:
    """Return why the result is implausible for this source, with the key of the policy that says so ("" for no members at all);
    None if it is plausible."""
    if tally.bad > max(MIN_BAD, tally.rows * members.max_bad):
        words: dict[str, Value] = {"name": label, "bad": tally.bad, "rows": tally.rows}
        if not tally.shown:
            return Phrase("{name}: {bad} of {rows} rows hold no address", **words), "max_bad"
        first = str(tally.shown[0])
        return Phrase(
            "{name}: {bad} of {rows} rows hold no address (the first: {first})", **words, first=first
        ), "max_bad"
    if not people:
        if not tally.shown:
            return Phrase("{name} has no members", name=label), ""
        return Phrase("{name} has no members: {first}", name=label, first=str(tally.shown[0])), ""
    if people < members.at_least:
        held = Phrase.counted("{n} person", "{n} people", people)
        words = {"name": label, "people": held, "least": members.at_least}
        return Phrase("{name} holds {people}, and the policy expects at least {least}", **words), "at_least"
    return None


def log_unexpected(label: str, error: Exception) -> Phrase:
    """Log an unexpected exception of a library or ours, and return its phrase. The log gets its type and place, not its text,
    which may contain an address."""
    kind, where = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
    log.error("%s while reading %s\n%s", kind, label, where)
    return Phrase("{name} cannot be read: {kind} (see the log)", name=label, kind=kind)


def addresses(source: Source, tally: Tally) -> Iterator[Address]:
    """Yield every member as a mailbox, and count other texts in ``tally``. Raises SourceError, midway too."""
    for place, text in source.cells(tally):
        try:
            yield cell_address(text)
        except BadAddress as error:
            tally.reject(place, str(error))


def cell_address(text: str) -> Address:
    """Return the mailbox in a cell or a line: ``anna@example.se``, ``Anna <anna@example.se>``, ``mailto:anna@example.se``.

    Raises BadAddress.
    """
    text = text.strip().strip("\ufeff\u200b\u00a0 \t;,")
    if text.endswith(">"):
        text = text[:-1].rpartition("<")[2]
    if text[:7].lower() == "mailto:":
        text = text[7:]
    if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
        raise BadAddress("characters in another encoding than expected")
    return Address.parse(text)


def file_of(written: str, base: Path) -> Path:
    """Return the path of a file that the policy names. ``base``: the policy's own folder. Raises SourceError."""
    head, _, tail = written.partition("/")
    if head not in _FOLDER:
        return base / written
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise SourceError(f"{written}: {NO_CREDENTIALS}")
    return Path(folder) / tail


def secret(written: str, base: Path) -> str:
    """Return the password or token in a file. Raises SourceError, which does not contain it."""
    file = file_of(written, base)
    try:
        return read_secret(file)
    except Broken as error:
        problem = error.problems[0]
        raise SourceError.saying("the secret in {file} {why}", file=problem.file, why=problem.text) from None


def tls_context(ca_file: str | None, base: Path) -> ssl.SSLContext:
    """Return a context that verifies certificates by the system's CAs, or by those in ``ca_file`` alone.

    Raises SourceError.
    """
    if ca_file is None:
        return ssl.create_default_context()
    file = file_of(ca_file, base)
    try:
        return ssl.create_default_context(cafile=str(file))
    except OSError as error:  # an SSLError is one
        why = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else "no certificates in PEM"
        raise SourceError.saying("the certificates in {file} cannot be used: {why}", file=str(file), why=why) from None


class SourceTimeouts:
    """The time limits of one source. ``wait_seconds``: for one answer. The time for all answers starts when this is created."""

    def __init__(self, declared: Remote | OfMailman, stop: Stop) -> None:
        self.wait_seconds, self._limit, self._stop = declared.timeout, declared.time_limit, stop
        self._end = time.monotonic() + self._limit

    def spent(self) -> Said:
        """Return why the time is over, "" before that."""
        if self._stop():
            return Phrase("stopped before its end")
        over = time.monotonic() > self._end
        return Phrase("no end within {seconds} s (time_limit)", seconds=f"{self._limit:g}") if over else ""

    def check(self, label: str) -> None:
        """Raise SourceError when the time is over. Sources call this between two answers."""
        if why := self.spent():
            raise SourceError.saying("{name}: {why}", name=label, why=why)

    @contextmanager
    def cutting(self, cut: Callable[[], object]) -> Iterator[None]:
        """Abort a wait within a library that cannot check the time itself: ``cut`` is called from another thread when the time is
        over.

        It is called until the wait ends, since the library may connect or change its socket just then.
        """
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_SECONDS):
                if self.spent():
                    with suppress(Exception):  # the library may be in any state, such as without a socket
                        cut()

        watcher = threading.Thread(target=watch, name="list source watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def too_late(seconds: float) -> Phrase:
    return Phrase("no answer within {seconds} s (timeout)", seconds=f"{seconds:g}")


def why_untrusted(error: str) -> Said:
    """Return why a server's certificate is not trusted, by the text of a library's error; "" for another error."""
    if "CERTIFICATE_VERIFY_FAILED" not in error:
        return ""
    why = error.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "not known here"
    return Phrase("its certificate is not trusted: {why} (see ca_file)", why=why)


def shut_down(descriptor: int) -> None:
    """Shut a connection down, so that a wait on it ends even if the network is dead."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        end.shutdown(socket.SHUT_RDWR)
