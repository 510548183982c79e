"""Commands over a real store in a folder; each opens the store anew, as the real command does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from click.testing import CliRunner, Result

from smtpguard.admission.preapproval import Corrections
from smtpguard.cli import held
from smtpguard.cli.context import Context
from smtpguard.freezes.service import Freezes
from smtpguard.journal.clock import SteadyClock
from smtpguard.mailings.matching import Matching
from smtpguard.mailings.service import Mailings
from smtpguard.store.store import Store
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN, FakePassage, House, house

T = TypeVar("T")
EVA, DPO, ANNA = "eva@example.com", "dpo@example.com", "anna@example.com"


class Stage:
    """``hooks``: the commands that a freeze runs. ``raw``: the last message held. Commands run five minutes after the
    mail."""

    def __init__(self, folder: Path, documents: dict[str, bytes] = DOCUMENTS) -> None:
        self.folder, self.documents = folder, documents
        self.hooks: tuple[tuple[str, ...], ...] = ()
        self.raw = b""
        self.release_delay = 0
        self.thaw_two = False
        self._numbers = itertools.count(1)
        (folder / "ramadan.csv").write_text("email\n" + "\n".join(f"{m.upper()}" for m in MEMBERS) + "\nno address\n")

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Any]:
        async with house(self.folder, documents=self.documents) as home:
            home.clock.pass_(minutes=5)
            home.term = replace(home.term, release_delay_seconds=self.release_delay)
            mailings = Mailings(home.store, home, home.clock)
            yield SimpleNamespace(
                store=home.store,
                policies=home,
                approvals=home.approvals(),
                mailings=mailings,
                matching=partial(Matching, mailings, home.store, home, self.folder),
                freezes=Freezes(
                    home.store, SteadyClock(home.clock), new_id=lambda: f"F{next(self._numbers)}", freeze_hook=self.hooks,
                    recall_seconds=0, loud=False, thaw_two=self.thaw_two,
                ),
                clock=home.clock,
                digester=home.in_force.registry.digester,
                correcting=lambda: contextlib.nullcontext(
                    Corrections(
                        store=home.store, policies=home, gather=home.gather, clock=home.clock, new_id=lambda: next(home.ids),
                        term=home.term, notices=home.notices,
                    )
                ),
            )  # fmt: skip

    def hold(self, *to: str, n: int = 0, **more: Any) -> None:
        """Submit a message from Anna, by default to the address of the list ramadan; ``n`` becomes its id."""

        async def work(home: House) -> None:
            if n:
                home.ids = iter([f"T{n:015d}"])
            transaction = home.transaction(*(to or (RAMADAN,)), **more)
            self.raw = bytes(transaction.message.raw[:])
            await home.intake()(transaction, FakePassage())

        asyncio.run(self._in(work))

    def send(self, *to: str, n: int = 0, **more: Any) -> None:
        """Submit one copy of a mailing to each address; ``n`` becomes the id of the first."""

        async def work(home: House) -> None:
            intake = home.intake()
            for number, one in enumerate(to, n):
                home.ids = iter([f"T{number:015d}"])
                headers = {"X_Looks": "mailing", "X_Mailing": "spring", "Message_ID": f"<{number}@example.com>"}
                text = {"body": f"Copy {number}", "Subject": "Spring is here"}
                await intake(home.transaction(one, **headers | text | more), FakePassage())

        asyncio.run(self._in(work))

    async def _in(self, work: Callable[[House], Awaitable[None]]) -> None:
        async with house(self.folder, documents=self.documents) as home:
            await work(home)

    def ask(self, question: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self.services() as services:
                return await question(services.store)

        return asyncio.run(run())

    def run(self, command: Any, *args: str) -> Result:
        stage = self

        class Here(Context):
            @asynccontextmanager
            async def services(self, settings: object = None) -> AsyncIterator[Any]:
                async with stage.services() as services:
                    yield services

            brakes = services

            def settings_as_far(self, needed: object) -> Any:
                return SimpleNamespace(state=stage.folder)

        return CliRunner().invoke(command, args, obj=Here(config=Path("none")))

    def rows(self, command: Any, *args: str) -> list[dict[str, Any]]:
        """The command's rows with ``--json``."""
        result = self.run(command, *args, "--json")
        assert result.exit_code == 0, result.output
        return rows(result)

    def state(self) -> list[str]:
        """The state of every hold, by ``held list``."""
        return [row["state"] for row in self.rows(held.command, "list")]


def rows(result: Result) -> list[dict[str, Any]]:
    """The JSON lines of standard output."""
    return [json.loads(line) for line in result.stdout.splitlines()]
