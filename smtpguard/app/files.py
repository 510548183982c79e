"""Read settings, policy documents and secrets from disk, and name the paths in the state folder.

Imports nothing heavy, so that commands start fast.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from smtpguard.config.documents import policy_documents
from smtpguard.config.secret import secret_text
from smtpguard.lists.digest import BadKey, installation_key
from smtpguard.lists.ownership import hand_over
from smtpguard.policy.verdict import Action

if TYPE_CHECKING:
    from smtpguard.config.brief import Needed
    from smtpguard.config.settings import Settings
    from smtpguard.policy.parse import Policy

_SQLITE = "sqlite:///"


class CannotStart(Exception):
    """It cannot run as things are; one sentence for whoever started it. Trying again would not help, unless it is ``passing``."""

    def __init__(self, sentence: str, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO})
"""Of what the system lacks, or a disk or a server of files says, that it may have again."""


def read_settings(path: Path) -> Settings:
    """The settings in this file. Raises Broken with every problem."""
    from smtpguard.config.settings import read_settings  # which takes longer than whoever freezes is to wait

    return read_settings(path)


def read_policy(settings: Settings) -> Policy:
    """As the files have it now, which need not be what is in force. Raises Broken with every problem."""
    return parse_policy(settings, policy_documents(settings.policy), where=str(settings.policy))


def parse_policy(settings: Settings, documents: Mapping[str, bytes], where: str = "policy.yaml") -> Policy:
    """What these documents say. Raises Broken."""
    from smtpguard.policy.parse import parse  # which takes longer than whoever freezes is to wait

    return parse(
        documents,
        delimiters=settings.delimiters,
        freeze_answer=Action.HOLD if settings.freeze.answer == "hold" else Action.DEFER,
        where=where,
    )


def indexes(settings: Needed) -> Path:
    """Where the lists' indexes stand."""
    return settings.state / "indexes"


def spool(settings: Needed) -> Path:
    """Where large messages wait while they are decided on."""
    return settings.state / "spool"


def make_state(settings: Needed) -> None:
    """The state directory and what is in it: for nobody else to see. Raises CannotStart."""
    try:
        for folder in (settings.state, indexes(settings), spool(settings)):
            if folder.is_dir():
                continue
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            hand_over(folder, settings.state)
    except OSError as e:
        raise CannotStart(f"{e.filename or settings.state}: {e.strerror}", passing=e.errno in NO_ROOM) from None


def exposed(settings: Settings) -> Iterator[tuple[str, str]]:
    """What of it other users of this machine can look into, by the settings' key, and a sentence that says what to do. Made by us it
    is for nobody else; what is there already may have been made by hand."""
    if _others(settings.state, stat.S_IROTH | stat.S_IXOTH):
        yield "state", f"other users of this machine can look into {settings.state}: chmod 700 {settings.state}"
    files = [("secret_file", settings.secret_file)]
    if settings.store.url.startswith(_SQLITE):
        files.append(("store", Path(settings.store.url.removeprefix(_SQLITE))))
    for key, file in files:
        if _others(file, stat.S_IROTH) and _others(file.parent, stat.S_IXOTH):
            yield key, f"other users of this machine can read {file}: chmod 600 {file}"


def _others(path: Path, bits: int) -> bool:
    try:
        return bool(path.stat().st_mode & bits)
    except OSError:
        return False


def installation_secret(settings: Needed) -> bytes:
    """Made at the first start. Raises CannotStart."""
    try:
        return installation_key(settings.secret_file)
    except BadKey as e:
        raise CannotStart(str(e), passing=e.number in NO_ROOM) from None


def store_url(settings: Needed) -> str:
    """With the password in it, from its file. Not to be shown."""
    if settings.store.password_file is None:
        return settings.store.url
    password = quote(secret_text(settings.store.password_file), safe="")
    parts = urlsplit(settings.store.url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{password}{at}{host}"))
