"""The documents of a policy, and those that are shipped with the product.

A policy is its own file, the files in ``policy.d/`` and ``lists.d/`` beside it, and the vocabularies: the shipped ones,
and those in ``vocabularies/`` beside the policy. One of the same name replaces a shipped one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from smtpguard.config.problem import Broken, Problem
from smtpguard.config.yaml import MAX_BYTES

POLICY = "policy.yaml"
VOCABULARIES = "vocabularies"
PARTS, LISTS = "policy.d", "lists.d"
"""Folders beside the policy whose files are parts of it (assembling)."""


def shipped() -> Path:
    """The folder of shipped configuration: within the package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_config"
    return installed if installed.is_dir() else package.parent / "config"


def policy_documents(path: Path) -> dict[str, bytes]:
    """All files of the policy at ``path``: ``policy.yaml``, whatever its file name, ``policy.d/NAME.yaml``,
    ``lists.d/NAME.yaml`` and ``vocabularies/NAME.yaml``.

    Raises Broken for an unreadable file.
    """
    documents = {POLICY: _read(path)}
    for part in (PARTS, LISTS):
        for file in sorted((path.parent / part).glob("*.yaml")):
            documents[f"{part}/{file.name}"] = _read(file)
    for folder in (shipped() / VOCABULARIES, path.parent / VOCABULARIES):
        for file in sorted(folder.glob("*.yaml")):
            documents[f"{VOCABULARIES}/{file.name}"] = _read(file)
    return documents


def digest(documents: Mapping[str, bytes]) -> str:
    """The SHA-256 that identifies these documents: over names and contents, in the order of names."""
    total = sha256()
    for name in sorted(documents):
        total.update(f"{name}\0{len(documents[name])}\0".encode())
        total.update(documents[name])
    return total.hexdigest()


def vocabulary_names(documents: Iterable[str]) -> dict[str, str]:
    """Vocabulary -> its document."""
    prefix = f"{VOCABULARIES}/"
    return {n.removeprefix(prefix).removesuffix(".yaml"): n for n in sorted(documents) if n.startswith(prefix)}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as e:
        raise Broken([Problem(str(path), 1, 1, f"cannot be read: {e.strerror or e}")]) from None
