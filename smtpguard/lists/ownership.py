"""Give files that root creates in the state folder to the folder's owner, so that the guard can read and replace them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def hand_over(path: Path, folder: Path) -> None:
    """If root made ``path``, give it to the owner of ``folder``; a symlink is not followed. Raises OSError."""
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
