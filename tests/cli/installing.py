"""An installation in a folder, as the commands find one: settings, the secret, and where its store is."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, secret: bytes, url: str = "") -> None:
    """With everything in ``folder``, SQLite where no ``url`` says otherwise; the store itself is still to be made."""
    (folder / "secret").write_bytes(secret)
    (folder / "secret").chmod(0o600)
    (folder / "smtpguard.yaml").write_text(
        f'store: {{url: "{url or f"sqlite:///{folder}/guard.db"}"}}\nstate: {folder}\nsecret_file: {folder}/secret\n'
    )
