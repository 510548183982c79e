"""Files of the state folder: given to the folder's owner, replaced as a whole, and synced with their folder. And which of
them a SQLite database is."""

from __future__ import annotations

import errno
import glob
import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from smtpguard.locale.phrase import N_

NO_SPACE = N_("no space left for {file}. Make room on its disk")
READ_ONLY = N_("{file} is on a read-only file system. Repair the disk and mount it for writing")


def hand_over(path: Path, folder: Path) -> None:
    """If root made ``path``, give it to the owner of ``folder``, so that the guard can read and replace it; a symlink is
    not followed. Raises OSError."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def owner_of(path: Path) -> str:
    """The owner's name, or the uid without one. Raises OSError."""
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


LEAST_ROOM = 1 << 16
_DRAFT = ".draft"


def refusal(folder: Path) -> OSError | None:
    """Why no file of ``LEAST_ROOM`` octets can be made there: no room, inode or quota; mounted read-only, or made so by the
    kernel after an error of the disk, which not every kernel shows otherwise. The file for it has no name."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, LEAST_ROOM)
    except OSError as e:
        return e
    return None


def read_only(folder: Path) -> bool:
    """Whether its file system is read-only."""
    refused = refusal(folder)
    return refused is not None and refused.errno == errno.EROFS


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for a database on a server. SQLAlchemy, which is slow to import, says the same."""
    return Path(unquote(url.removeprefix("sqlite:///").partition("?")[0])) if url.startswith("sqlite:///") else None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError that names no file, as of a write to a full disk, name ``path``."""
    try:
        yield
    except OSError as e:
        if e.filename is None and e.errno is not None:
            e.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in it survive a power cut."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def swap(draft: Path, path: Path, *, durable: bool = True) -> None:
    """Put a draft in the place of ``path``, in the same folder. ``durable``: also after a power cut, if the draft is
    synced. Raises OSError."""
    hand_over(draft, path.parent)
    draft.replace(path)
    if durable:
        sync_folder(path.parent)


def remove_drafts(path: Path) -> None:
    """Remove the drafts of a file that killed processes have left. No other process may write the file meanwhile. Raises OSError."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_DRAFT}"):
        left.unlink()


@contextmanager
def drafted(path: Path, octets: bytes, *, durable: bool = True) -> Iterator[Path]:
    """Write a draft of a file beside it, which only its owner can read. It is removed at the end, unless it was moved. ``durable``:
    synced. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_DRAFT, dir=path.parent)
    draft = Path(name)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            if durable:
                file.flush()
                os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def overwrite_file(path: Path, text: str) -> None:
    """Overwrite a file in place, without a change of its size, so that it can be written on a full disk. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(file, text.encode().ljust(os.fstat(file).st_size), 0)
    finally:
        os.close(file)


def replace_file(path: Path, content: str | bytes, *, durable: bool, at: float | None = None) -> None:
    """Replace a file as a whole; only the folder's owner can read it. ``at``: its time, instead of now. Raises OSError,
    and then the old file stays."""
    with drafted(path, content if isinstance(content, bytes) else content.encode(), durable=durable) as draft:
        if at is not None:
            os.utime(draft, (at, at))
        swap(draft, path, durable=durable)
