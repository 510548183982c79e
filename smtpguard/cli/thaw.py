"""smtpguard thaw: see freeze, beside which it stands."""

from __future__ import annotations

from smtpguard.cli.freeze import thaw as command

__all__ = ["command"]
