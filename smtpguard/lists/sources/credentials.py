"""Credentials of a source: passwords and tokens from files, and the CAs that may sign the server's certificate.

A path may begin with ``$CREDENTIALS_DIRECTORY/``, where systemd puts what LoadCredential= names.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from smtpguard.config.problem import Broken
from smtpguard.config.secret import read_secret
from smtpguard.lists.sources import SourceError

_FOLDER = ("$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}")


def file_of(written: str, base: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The file that the policy names; ``base`` is the policy's own folder. Raises SourceError."""
    head, _, tail = written.partition("/")
    if head not in _FOLDER:
        return base / written
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise SourceError(
            f"{written}: CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential="
        )
    return Path(folder) / tail


def secret(written: str, base: Path) -> str:
    """The password or token in a file. Raises SourceError, which does not contain it."""
    file = file_of(written, base)
    try:
        return read_secret(file).get_secret_value()
    except Broken as error:
        problem = error.problems[0]
        raise SourceError(f"the secret in {problem.file} {problem.text}") from None


def trust(ca_file: str | None, base: Path) -> ssl.SSLContext:
    """Certificates are verified by the system's CAs, or by those in ``ca_file`` alone. Raises SourceError."""
    if ca_file is None:
        return ssl.create_default_context()
    file = file_of(ca_file, base)
    try:
        return ssl.create_default_context(cafile=str(file))
    except OSError as error:  # an SSLError is one
        why = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else "no certificates in PEM"
        raise SourceError(f"the certificates in {file} cannot be used: {why}") from None
