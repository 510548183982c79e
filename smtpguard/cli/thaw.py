"""smtpguard thaw. Its code is in freeze.py."""

from __future__ import annotations

from smtpguard.cli.freeze import thaw as command

__all__ = ["command"]
