"""smtpguard thaw: see freeze, beside which it stands. Never here: anything of its own."""

from __future__ import annotations

from smtpguard.cli.freeze import thaw as command

__all__ = ["command"]
