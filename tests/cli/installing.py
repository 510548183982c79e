"""An installation in a folder: settings, the secret, the policy, and the store's URL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from smtpguard.cli import main
from smtpguard.config.documents import policy_documents
from tests.guard.house import DOCUMENTS, KEY, POLICY, House, house


def install(folder: Path, secret: bytes, url: str = "") -> None:
    """Everything is in ``folder``; SQLite is used if no ``url`` is given. The store itself is not created."""
    (folder / "secret").write_bytes(secret)
    (folder / "secret").chmod(0o600)
    (folder / "smtpguard.yaml").write_text(
        f'store: {{url: "{url or f"sqlite:///{folder}/guard.db"}"}}\nstate: {folder}\nsecret_file: {folder}/secret\n'
    )


def prepared_installation(folder: Path, happens: Callable[[House], Awaitable[None]]) -> Path:
    """The folder of an installation with the house's policy, after ``happens``."""
    install(folder, KEY)
    (folder / "vocabularies").mkdir()
    for name, data in DOCUMENTS.items():
        (folder / name).write_bytes(data)
    for name in ("ramadan", "news"):
        (folder / f"{name}.csv").write_text("email\n")

    async def work() -> None:
        async with house(folder, documents=policy_documents(folder / "policy.yaml")) as home:
            await happens(home)

    asyncio.run(work())
    return folder


def change(folder: Path, *pairs: tuple[str, str], more: str = "") -> None:
    """Edit the policy file; the policy in force stays."""
    text = POLICY
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (folder / "policy.yaml").write_text(text + more)


def printed(result: Result) -> list[str]:
    """The lines of standard output of a command that was fine."""
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def running(*command: str) -> Callable[..., Result]:
    """Runs this command with the settings of a folder: ``run(folder, *words)``."""

    def run(folder: Path, *words: str, **how: Any) -> Result:
        return CliRunner().invoke(main, ["-c", str(folder / "smtpguard.yaml"), *command, *words], **how)

    return run
