"""Debian's miltertest, an independent MTA side, runs Lua scripts against the milter server."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from smtpguard.mail import reply
from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected
from tests.wire.milter.speaking import Served, relay_all, served
from tests.wire.relayed import fence_holds

HERE = Path(__file__).parent / "miltertest"
START = (HERE / "start.lua").read_text()
SCRIPTS = sorted(path for path in HERE.glob("*.lua") if path.stem != "start")


async def decide(transaction: Transaction, onward: Onward) -> Disposition:
    """Decide by the local part of a recipient."""
    words = {recipient.address.local: recipient for recipient in transaction.envelope.recipients}
    if "hold" in words:
        return Held(hold_id=transaction.id)
    if "reject" in words:
        return Rejected(reply=reply.rejected("100 % of this is not sent."))
    if "defer" in words:
        return Deferred(reply=reply.deferred("Not now."))
    if "part" in words:
        assert transaction.pass_rest is not None
        await transaction.pass_rest(b"X-Smtpguard: x\r\n", fence_holds, [words["part"]])
        return Held(hold_id=transaction.id, taken=(words["part"],))
    return await relay_all(transaction, onward)


async def run_script(world: Served, script: str) -> tuple[int | None, str]:
    """miltertest's exit status and output: (0, "") if the script passed."""
    process = await asyncio.create_subprocess_exec(
        "miltertest", "-D", f"socket=unix:{world.path}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate((START + script).encode()), 120)
    return process.returncode, out.decode()


@pytest.mark.skipif(shutil.which("miltertest") is None, reason="miltertest is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
async def test_a_lua_script_succeeds(script: Path, tmp_path: Path) -> None:
    async with served(tmp_path, decide) as world:
        assert await run_script(world, script.read_text()) == (0, "")  # noqa: ASYNC240
        seen = world.seen
    if script.stem == "dispositions":
        assert {t.session.auth_user for t in seen} == {"anna@example.com"}
        assert (
            seen[0].message.raw == b"From: Anna <anna@example.com>\r\nSubject: folded\r\n\tonce\r\n\r\nHej\r\nthere\r\n"
        )
        assert seen[0].envelope.recipients[0].notify == "NEVER"
    if script.stem == "parted":
        assert seen[0].session.client_ip == "2001:db8::7"
    if script.stem == "large":
        assert seen[0].message.size_bytes > 3_000_000


@pytest.mark.skipif(shutil.which("miltertest") is None, reason="miltertest is not installed")
async def test_a_failing_script_is_reported(tmp_path: Path) -> None:
    script = 'is(mt.test_action(connected(), SMFIF_ADDRCPT), true, "adds recipients")\n'
    async with served(tmp_path, decide) as world:
        assert await run_script(world, script) == (1, "adds recipients: false is not true\n")
