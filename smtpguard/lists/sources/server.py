"""What the sources on other machines share: credentials in files, the CAs that may sign the server's certificate, and timeouts
(for each answer, for all answers together, and none once the sync is cancelled).

A path may begin with ``$CREDENTIALS_DIRECTORY/``, where systemd puts what LoadCredential= names.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smtpguard.config.fields import read_secret
from smtpguard.config.problem import Broken
from smtpguard.lists.members import OfMailman, Remote
from smtpguard.lists.sources import SourceError, Stop
from smtpguard.locale.phrase import Phrase, Said

_FOLDER = ("$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}")


def file_of(written: str, base: Path) -> Path:
    """The file that the policy names; ``base`` is the policy's own folder. Raises SourceError."""
    head, _, tail = written.partition("/")
    if head not in _FOLDER:
        return base / written
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise SourceError(
            f"{written}: CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential="
        )
    return Path(folder) / tail


def secret(written: str, base: Path) -> str:
    """The password or token in a file. Raises SourceError, which does not contain it."""
    file = file_of(written, base)
    try:
        return read_secret(file)
    except Broken as error:
        problem = error.problems[0]
        raise SourceError(Phrase("the secret in {file} {why}", file=problem.file, why=problem.text)) from None


def trust(ca_file: str | None, base: Path) -> ssl.SSLContext:
    """Certificates are verified by the system's CAs, or by those in ``ca_file`` alone. Raises SourceError."""
    if ca_file is None:
        return ssl.create_default_context()
    file = file_of(ca_file, base)
    try:
        return ssl.create_default_context(cafile=str(file))
    except OSError as error:  # an SSLError is one
        why = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else "no certificates in PEM"
        raise SourceError(Phrase("the certificates in {file} cannot be used: {why}", file=str(file), why=why)) from None


LOOK_SECONDS = 0.2


class SourceTimeouts:
    """The time starts when it is created."""

    def __init__(self, declared: Remote | OfMailman, stop: Stop) -> None:
        self.wait_seconds, self._limit, self._stop = declared.timeout, declared.time_limit, stop
        self._end = time.monotonic() + self._limit

    def spent(self) -> Said:
        """Why the time is over, "" before that."""
        if self._stop():
            return Phrase("stopped before its end")
        over = time.monotonic() > self._end
        return Phrase("no end within {seconds} s (time_limit)", seconds=f"{self._limit:g}") if over else ""

    def look(self, label: str) -> None:
        """Called between two answers. Raises SourceError when the time is over."""
        if why := self.spent():
            raise SourceError(Phrase("{name}: {why}", name=label, why=why))

    @contextmanager
    def cutting(self, cut: Callable[[], object]) -> Iterator[None]:
        """For a wait within a library that cannot check: ``cut`` aborts it, from another thread, when the time is over.
        It is called until the wait ends, since the library may connect or change its socket just then."""
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


def late(seconds: float) -> Phrase:
    return Phrase("no answer within {seconds} s (timeout)", seconds=f"{seconds:g}")


def untrusted(said: str) -> Said:
    """The server's certificate is not trusted, in words, by a library's error; "" for another error."""
    if "CERTIFICATE_VERIFY_FAILED" not in said:
        return ""
    why = said.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "not known here"
    return Phrase("its certificate is not trusted: {why} (see ca_file)", why=why)


def shut_down(descriptor: int) -> None:
    """Shut a connection down, so that a wait on it ends even if the network is dead."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        end.shutdown(socket.SHUT_RDWR)
