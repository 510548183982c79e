"""A small organization with a few lists on disk, and a clock that moves when told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from smtpguard.lists.digest import Digester
from smtpguard.lists.names import Names
from smtpguard.lists.registry import Registry
from smtpguard.lists.sources import Stop
from smtpguard.lists.sources.opening import never
from smtpguard.lists.sync import Refresher, Report
from smtpguard.mail.address import Address
from tests.clocks import Clock
from tests.lists.declaring import lists_of


class House:
    """Lists declared as in a policy, their CSV files, and registries over them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.digester = Digester(b"k" * 32, "+")
        self.sections: dict[str, dict[str, Any]] = {}

    @property
    def folder(self) -> Path:
        return self.path / "state"

    def list(self, name: str, members: Iterable[str] | None = None, **section: Any) -> None:
        if members is not None:
            (self.path / f"{name}.csv").write_text("email\n" + "".join(f"{m}\n" for m in members))
            section["members"] = {"csv": f"{name}.csv", **section.pop("options", {})}
        self.sections[name] = section

    def sync(self, name: str, *, stop: Stop = never, **options: Any) -> Report:
        lists, _ = lists_of(self.sections, delimiters="+")
        refresher = Refresher(lists, folder=self.folder, base=self.path, digester=self.digester, stop=stop)
        return refresher.sync(lists[name], self.clock.now(), **options)

    def registry(self, streams: Mapping[str, Any] | None = None, **options: Any) -> Registry:
        delimiters = self.digester.delimiters
        lists, built = lists_of(self.sections, streams, delimiters)
        named = {one: options.pop(one) for one in ("domains", "host_names", "mailboxes", "elsewhere") if one in options}
        return Registry(
            names=Names(lists, **{"domains": ["example.com", "*.corp.example"], **named}, delimiters=delimiters),
            lists=lists,
            streams=built,
            digester=self.digester,
            folder=self.folder,
            now=self.clock.now,
            **options,
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def parse() -> Callable[..., list[Address]]:
    return lambda *texts: [Address.parse(t) for t in texts]
