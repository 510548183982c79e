"""The parts of ``smtpguard serve`` by name.

Never here: what a part does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from smtpguard.app.files import read_settings
from smtpguard.config.settings import Settings
from smtpguard.observe import log
from smtpguard.processes.part import Part
from smtpguard.processes.places import Allowance


def _proxy(settings: Settings) -> Part:
    from smtpguard.app.proxy import Proxy

    return Proxy(settings)


def _milter(settings: Settings) -> Part:
    from smtpguard.app.milter import Milter

    return Milter(settings)


def _delivery(settings: Settings) -> Part:
    from smtpguard.app.delivery import Deliverer

    return Deliverer(settings)


def _console(settings: Settings) -> Part:
    from smtpguard.app.console import Console

    return Console(settings)


def _metrics(settings: Settings) -> Part:
    from smtpguard.app.metrics import Metrics

    return Metrics(settings)


def _alarms(settings: Settings) -> Part:
    from smtpguard.app.alarms import Alarms

    return Alarms(settings)


PARTS: Mapping[str, Callable[[Settings], Part]] = {
    "proxy": _proxy,
    "milter": _milter,
    "delivery": _delivery,
    "console": _console,
    "metrics": _metrics,
    "alarms": _alarms,
}


def part(name: str, config: Path) -> Part:
    """Raises config.problem.Broken."""
    settings = read_settings(config)
    log.configure(settings.logging.format, settings.logging.addresses)
    made = PARTS[name](settings)
    made.places = Allowance(settings.relay.connections)
    return made
