"""An installation in a folder, as the commands find one: settings, the secret, and where its store is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from smtpguard.config.documents import policy_documents
from tests.guard.house import DOCUMENTS, KEY, POLICY, House, house


def install(folder: Path, secret: bytes, url: str = "") -> None:
    """With everything in ``folder``, SQLite where no ``url`` says otherwise; the store itself is still to be made."""
    (folder / "secret").write_bytes(secret)
    (folder / "secret").chmod(0o600)
    (folder / "smtpguard.yaml").write_text(
        f'store: {{url: "{url or f"sqlite:///{folder}/guard.db"}"}}\nstate: {folder}\nsecret_file: {folder}/secret\n'
    )


def lived_in(folder: Path, happens: Callable[[House], Awaitable[None]]) -> Path:
    """One with the house's policy, in whose store is what happened."""
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
    """The policy file, not what is in force."""
    text = POLICY
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (folder / "policy.yaml").write_text(text + more)
