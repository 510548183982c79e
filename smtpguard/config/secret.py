"""Read secrets. They are only in files, never in YAML, nor in the settings.

A ``*_file`` may begin with ``$CREDENTIALS_DIRECTORY/``, where systemd puts what LoadCredential= names.
"""

from __future__ import annotations

from pathlib import Path

from smtpguard.config.problem import Broken, Problem

MAX_BYTES = 64 << 10


def read_secret(path: Path) -> str:
    """The file's text without the final line end that editors add. Raises Broken, without the content."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as e:
        raise Broken([Problem(str(path), 1, 1, f"cannot be read: {e.strerror or 'error'}")]) from None
    if len(raw) > MAX_BYTES:
        raise Broken([Problem(str(path), 1, 1, "is too large to be a secret")])
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Broken([Problem(str(path), 1, 1, "is not UTF-8")]) from None
    if not text:
        raise Broken([Problem(str(path), 1, 1, "is empty")])
    return text
