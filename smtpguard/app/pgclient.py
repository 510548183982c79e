"""PostgreSQL's client programs: dump the store's database, and put a dump back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from smtpguard.app.files import store_url
from smtpguard.config.settings import Settings
from smtpguard.database.engine import for_libpq


class BadBackup(Exception):
    """The file is no backup, is damaged, or cannot be made or restored here; one sentence, with the first line of a
    program that failed."""


def dump(settings: Settings, file: Path) -> None:
    """Write a dump, and read it back. Raises BadBackup."""
    client, environment = _client(settings, "pg_dump")
    _run([*client, "--format=custom", f"--file={file}"], environment)
    _run(["pg_restore", f"--file={os.devnull}", str(file)])


def put_back(settings: Settings, dump: Path, *, then: str) -> None:
    """Replace the tables by those of a dump and execute the statement ``then``, in one transaction. Raises BadBackup.

    psql commits only when it is told to: if this process or pg_restore dies, it comes to the end of its input, and the
    server rolls back."""
    client, environment = _client(settings, "psql")
    failed: BadBackup | None = None
    with _started(
        [*client, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"], subprocess.DEVNULL, environment, subprocess.PIPE
    ) as psql:
        assert psql.stdin is not None
        with suppress(BrokenPipeError), psql.stdin as script:
            script.write(b"BEGIN;\n")
            script.flush()
            try:
                _run(["pg_restore", "--clean", "--if-exists", "--no-owner", "--file=-", str(dump)], output=script)
                script.write(f"RESET search_path;\n{then};\nCOMMIT;\n".encode())  # pg_restore has emptied it
            except BadBackup as e:  # also if psql has ended; then psql's message is the reason
                failed = e
    if failed is not None:
        raise failed


def _client(settings: Settings, program: str) -> tuple[list[str], Mapping[str, str]]:
    """The command, and its environment. The password goes into the environment, which no other user can read."""
    url = for_libpq(store_url(settings))
    plain = url.set(password=None).render_as_string(hide_password=False)
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    return [program, f"--dbname={plain}"], {**os.environ, **password}


def _run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
) -> None:
    with _started(command, output, environment):
        pass


@contextmanager
def _started(
    command: Sequence[str],
    output: IO[bytes] | int,
    environment: Mapping[str, str] | None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Wait for its end. Raises BadBackup."""
    with TemporaryFile() as said:
        try:
            running = subprocess.Popen(command, stdin=stdin, stdout=output, stderr=said, env=environment)
        except FileNotFoundError:
            raise BadBackup(f"{command[0]} is not installed: it comes with PostgreSQL's client programs") from None
        with running:
            yield running
        if running.returncode:
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").splitlines()
            reason = next((line for line in lines if line.strip()), f"exit {running.returncode}")
            raise BadBackup(f"{command[0]} failed: {reason}")
