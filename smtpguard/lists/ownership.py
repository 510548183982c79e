"""Give files that root creates in the state folder to the folder's owner, so that the guard can read and replace them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def hand_over(path: Path, folder: Path) -> None:
    """Made by root, ``path`` belongs to whom ``folder`` belongs; where a link in its place leads stays as it is. Raises OSError."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def owner_of(path: Path) -> str:
    """By name, as far as it has one. Raises OSError."""
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
