"""Read settings, policy documents and secrets from disk, and name the paths in the state folder.

Imports nothing heavy, so that commands start fast.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import BaseModel

from smtpguard.config.documents import policy_documents
from smtpguard.config.fields import read_secret
from smtpguard.config.problem import Broken
from smtpguard.config.statefiles import LEAST_ROOM, NO_SPACE, READ_ONLY, hand_over, read_only, refusal, sqlite_file
from smtpguard.journal.linefiles import CHECKPOINTS
from smtpguard.lists.digest import BadKey, installation_key
from smtpguard.locale.phrase import Phrase, Said
from smtpguard.policy.verdict import Action

if TYPE_CHECKING:
    from smtpguard.config.settings import Settings
    from smtpguard.config.yaml import Place
    from smtpguard.mail.address import Address
    from smtpguard.policy.parse import Policy


class CannotStart(Exception):
    """The program cannot run as things are. The message is one sentence for the person who started it. Trying again would not
    help, unless it is ``passing``."""

    def __init__(self, sentence: str, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


MOUNTS = Path("/proc/self/mountinfo")
_IN_MEMORY = ("tmpfs", "ramfs")
_FOR_TRIALS = (Path("/dev/shm"), Path("/tmp"), Path(os.environ.get("TMPDIR") or "/tmp"))
SHORTEST_SECRET = 16
"""The fewest characters of a webhook's secret."""
NO_ROOM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.EROFS}
)
"""Error numbers that may pass: for lack of a resource, or from a disk or file server."""


def read_policy(settings: Settings) -> Policy:
    """Read the policy in the files, which may differ from the one in force. Raises Broken with every problem."""
    return parse_policy(settings, policy_documents(settings.policy), where=str(settings.policy))


def parse_policy(settings: Settings, documents: Mapping[str, bytes], where: str = "policy.yaml") -> Policy:
    """Parse the documents of a policy. ``where``: the name of its file in problems. Raises Broken."""
    from smtpguard.policy.parse import parse  # a slow import; a freeze should not wait for it

    return parse(
        documents,
        delimiters=settings.delimiters,
        freeze_answer=Action.HOLD if settings.freeze.answer == "hold" else Action.DEFER,
        where=where,
    )


def indexes(settings: Settings) -> Path:
    return settings.state / "indexes"


def spool(settings: Settings) -> Path:
    """Return the folder for large messages that are being decided on."""
    return settings.state / "spool"


def make_state(settings: Settings) -> None:
    """Make the state folder and its subfolders, for their owner only. Raises CannotStart."""
    try:
        for folder in (settings.state, indexes(settings), spool(settings)):
            if folder.is_dir():
                continue
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            hand_over(folder, settings.state)
    except OSError as e:
        raise CannotStart(f"{e.filename or settings.state}: {e.strerror}", passing=e.errno in NO_ROOM) from None


def folder_id(settings: Settings) -> str:
    """Return what tells this state folder from that of another host with the same name: a random id, made once. If it cannot be
    read or made, it is one for this process alone. A copy of the folder has the same id."""
    try:
        return installation_key(settings.state / "id").hex()[:16]
    except BadKey:
        return os.urandom(8).hex()


_SECRETS = frozenset(
    {"secret_file", "password_file", "token_file", "client_secret_file", "key_file", "key", "client_key"}
)
"""The settings that name a file with a secret."""


def exposed(settings: Settings) -> Iterator[tuple[Place, str]]:
    """Yield the files that other users of this machine can read: the place in the settings, and a sentence on what to do. Those that
    we make are private; existing ones may have been made by hand."""
    if _others(settings.state, stat.S_IROTH | stat.S_IXOTH):
        yield ("state",), f"other users of this machine can read {settings.state}: chmod 700 {settings.state}"
    files = [(place, file) for place, file in paths(settings) if place[-1] in _SECRETS]
    if (database := sqlite_file(settings.store.url)) is not None:
        files.append((("store",), database))
    for place, file in files:
        if sentence := exposed_file(file):
            yield place, sentence


def exposed_file(file: Path) -> str:
    """Return that other users can read a file, and what to do; "" if they cannot, or if a container's engine has put it into the
    container, as Docker and Kubernetes put secrets: read-only, in memory."""
    if _others(file, stat.S_IROTH) and _others(file.parent, stat.S_IXOTH):
        _, kind, read_only = _mount(file)
        if not (read_only and kind in _IN_MEMORY):
            return f"other users of this machine can read {file}: chmod o= {file}"
    return ""


def fleeting(settings: Settings) -> Iterator[tuple[Place, str]]:
    """Yield where what must be kept would not last: the place in the settings, and a sentence. A folder for temporary files is for a
    trial."""
    secret = "the secret and " if settings.secret_file.is_relative_to(settings.state) else ""
    folders = [("state", settings.state, f"{secret}the checkpoints")]
    if (database := sqlite_file(settings.store.url)) is not None:
        folders.insert(0, ("store", database.parent, "held mail and the journal"))
    told: set[str] = set()
    for key, folder, lost in folders:
        if any(folder.is_relative_to(each) for each in _FOR_TRIALS):
            continue
        point, kind, _ = _mount(folder)
        lasts = "a reboot" if kind in _IN_MEMORY else "this container" if (point, kind) == ("/", "overlay") else ""
        if lasts and point not in told:
            told.add(point)
            yield (key,), f"{folder} is on {kind}, which {lasts} ends: {lost} are lost then"


def _mount(path: Path) -> tuple[str, str, bool]:
    """Return the mount point of a path, which need not exist yet, the kind of file system there, and whether it is read-only
    (proc_pid_mountinfo(5))."""
    real, found = f"{os.path.realpath(path)}/", ("", "", False)
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        mount, _, kind = line.partition(" - ")
        point, options = mount.split()[4:6]
        if real.startswith(f"{point.rstrip('/')}/") and len(point) >= len(found[0]):
            found = point, kind.split()[0], "ro" in options.split(",")
    return found


def paths(section: BaseModel, at: Place = ()) -> Iterator[tuple[Place, Path]]:
    """Yield every path in a section of the settings, with its place in the file."""
    for name, info in type(section).model_fields.items():
        value, place = getattr(section, name), (*at, info.alias or name)
        if isinstance(value, Path):
            yield place, value
        elif isinstance(value, BaseModel):
            yield from paths(value, place)
        elif isinstance(value, (list, tuple)):
            for n, each in enumerate(value):
                if isinstance(each, BaseModel):
                    yield from paths(each, (*place, n))


def _others(path: Path, bits: int) -> bool:
    try:
        return bool(path.stat().st_mode & bits)
    except OSError:
        return False


def installation_secret(settings: Settings) -> bytes:
    """Return the secret of this installation. It is made at the first start, but not beside a store that has another one. Raises
    CannotStart."""
    if not settings.secret_file.exists() and (settings.state / CHECKPOINTS).exists():
        raise CannotStart(other_secret(settings, missing=True))
    try:
        return installation_key(settings.secret_file)
    except BadKey as e:
        raise CannotStart(str(e), passing=e.number in NO_ROOM) from None


def other_secret(settings: Settings, *, missing: bool) -> str:
    file, database = settings.secret_file, sqlite_file(settings.store.url)
    if missing and database is not None and not database.exists():
        return f"{file} and {database} are gone: is their disk mounted? Put both back, or restore a backup"
    wrong = "is missing" if missing else "is another secret"
    aside = sorted(file.parent.glob(f"{file.name}.old-*"))
    kept = f"; a renewal has kept {', '.join(path.name for path in aside)} beside it" if aside else ""
    return (
        f"{file} {wrong}: {settings.store.url} was written with the secret that was there before. Put it "
        f"back{kept}. If it is lost or leaked, smtpguard renew-secret makes a new one"
    )


def store_url(settings: Settings) -> str:
    """Return the store's url, with the file of its password, if it has one (Database). Raises Broken if that cannot be read."""
    url, file = settings.store.url, settings.store.password_file
    if file is None:
        return url
    read_secret(file)
    return f"{url}{'&' if '?' in url else '?'}password_file={quote(str(file))}"


def no_room(settings: Settings) -> Said:
    """Return whether the disk of a SQLite database is full, as a sentence, "" if not. If it is, no record can be written, and mail
    is answered 452."""
    database = sqlite_file(settings.store.url)
    return Phrase(NO_SPACE, file=str(database)) if database is not None and _full(database.parent) else ""


def unwritable(settings: Settings) -> Said:
    """Return why no process can write a SQLite database, though it may be readable; "" if that cannot be seen from here."""
    database = sqlite_file(settings.store.url)
    wrong = database is not None and read_only(database.parent)
    return Phrase(READ_ONLY, file=str(database)) if wrong else ""


def no_spool(settings: Settings) -> str:
    """Return why no large message can be kept in the state folder; "" if one can, if a SQLite database has the same problem, or
    if this user cannot know."""
    if no_room(settings) or unwritable(settings):
        return ""
    if full := _full(settings.state):
        return full
    refused = refusal(spool(settings))
    others = isinstance(refused, PermissionError) and not os.access(settings.state, os.W_OK)
    return "" if refused is None or others else f"{spool(settings)}: {refused.strerror}"


def _full(folder: Path) -> str:
    try:
        room = os.statvfs(folder)
    except OSError:
        return ""
    return f"no space left in {folder}" if room.f_bavail * room.f_frsize < LEAST_ROOM else ""


def webhook_secret(file: Path) -> bytes:
    """Read the secret that signs what is sent to a webhook, or comes from one. Raises CannotStart."""
    try:
        secret = read_secret(file)
    except Broken as e:
        raise CannotStart(str(e)) from None
    if len(secret) < SHORTEST_SECRET:
        raise CannotStart(f"{file}: a webhook's secret has at least {SHORTEST_SECRET} characters")
    return secret.encode()


def contact(settings: Settings) -> Address | None:
    """Return who gets alarms; None if the contact is no mailbox, but a telephone number, say."""
    from smtpguard.mail.address import BadAddress
    from smtpguard.mail.compose import mailbox_of  # a freeze should not wait for it

    try:
        return mailbox_of(settings.notices.contact)[1]
    except BadAddress:
        return None
