"""Read the settings that a freeze needs without the models of all the others, which take twice as long as the freeze
itself.

Only plain values are read here. A file with anything unusual in these settings, or with any mistake, is left to the
models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from smtpguard.config.problem import Broken
from smtpguard.config.yaml import load_yaml

STORE = frozenset({"store", "state", "secret_file", "delimiters"})
"""Keys that opening the store needs."""
NAMES = frozenset({
    "hostname", "listen", "trust", "relay", "routes", "expanders", "accepted_ways", "store", "journal", "policy", "state", "secret_file",
    "notices", "console", "webhooks", "returns", "mentions", "metrics", "alarms", "bypass", "limits", "freeze", "freeze_hook", "thaw_hook", "hold", "retention", "audit",
    "dkim_sign",
    "dkim_keys", "resolver", "authserv_ids", "delimiters", "logging", "workers",
})  # fmt: skip
"""All keys. An unknown key may be one of these with a typing error."""
URL = "sqlite:///var/smtpguard.db"
DELIMITERS = "+"
Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class _Store:
    url: str
    password_file: Path | None


@dataclass(frozen=True, slots=True)
class _Hold:
    quota_gb: float = 0.0  # a freeze keeps no content


@dataclass(frozen=True, slots=True)
class _Freeze:
    thaw: str = "two"  # not used to thaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """A part of the settings (settings.Needed). Not for a thaw."""

    store: _Store
    state: Path
    secret_file: Path
    freeze_hook: Commands
    delimiters: str = DELIMITERS
    hold: _Hold = _Hold()
    freeze: _Freeze = _Freeze()
    thaw_hook: Commands = ()


class _Unusual(Exception):
    """Leave the file to the models."""


def read_brief(path: Path) -> Brief | None:
    """None if the file is not plain, or has a mistake in a key that matters."""
    try:
        value = load_yaml(path).value
        if not isinstance(value, dict) or not value.keys() <= NAMES:
            return None
        base = path.parent.absolute()
        store = value.get("store", {})
        if not isinstance(store, dict) or not store.keys() <= {"url", "password_file"}:
            return None
        secret = store.get("password_file")
        if value.get("delimiters", DELIMITERS) != DELIMITERS:
            return None
        return Brief(
            store=_Store(
                absolute(_url(store.get("url", URL)), base), _path(secret, base) if "password_file" in store else None
            ),
            state=_path(value.get("state", "var"), base),
            secret_file=_path(value.get("secret_file", "var/secret"), base),
            freeze_hook=_commands(value.get("freeze_hook", [])),
        )
    except (OSError, Broken, _Unusual):
        return None


def absolute(url: str, base: Path) -> str:
    """A SQLite URL with an absolute path; other URLs are unchanged."""
    head, slashes, path = url.partition(":///")
    if not head.startswith("sqlite") or not slashes or not path or path.startswith(("/", ":memory:", "file:")):
        return url
    return f"{head}:///{base / path}"


def _url(text: Any) -> str:
    try:
        parts = urlsplit(text) if isinstance(text, str) else None
        plain = parts is not None and parts.password is None and not parts.query and "," not in parts.netloc
    except ValueError:
        plain = False
    if not plain or parts is None:
        raise _Unusual
    file = parts.scheme == "sqlite" and not parts.netloc and parts.path.strip("/") not in ("", ":memory:")
    if not file and not (parts.scheme == "postgresql" and parts.hostname):
        raise _Unusual
    return str(text)


def _path(text: Any, base: Path) -> Path:
    if not isinstance(text, str) or not text or "\0" in text or text.startswith("$"):
        raise _Unusual
    return base / text


def _commands(value: Any) -> Commands:
    if not isinstance(value, list):
        raise _Unusual
    several = [value] if value and all(isinstance(word, str) for word in value) else value
    for command in several:
        if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
            raise _Unusual
    return tuple(tuple(command) for command in several)
