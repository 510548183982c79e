"""Plays the MTA for a moment: whether smtpguard, as it is running, answers as a milter where the settings say.

Nothing but a negotiation is spoken.
"""

from __future__ import annotations

import asyncio
import contextlib

from smtpguard.app.finding import Finding, State
from smtpguard.config.settings import MilterListener
from smtpguard.wire.milter.codec import ProtocolError, answers, encode
from smtpguard.wire.milter.packet import VERSION, Actions, Negotiate, Quit
from smtpguard.wire.milter.states import NEEDED

SECONDS = 10.0
_OFFER = Negotiate(VERSION, int(NEEDED | Actions.SET_MACROS), 0x1FFFFF)


async def milter_answers(each: MilterListener) -> Finding:
    name = f"the milter on {each.unix}" if each.unix is not None else f"the milter on {each.address} port {each.port}"
    try:
        async with asyncio.timeout(SECONDS):
            answer = await _negotiated(each)
    except TimeoutError:
        return Finding(about="milter", state=State.WRONG, text=f"{name} says nothing for {SECONDS:g} s")
    except (OSError, ProtocolError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        return Finding(about="milter", state=State.WRONG, text=f"{name} does not answer: {why}")
    if answer is None:
        return Finding(about="milter", state=State.WRONG, text=f"{name} closes the connection")
    return Finding(
        about="milter", state=State.FINE, text=f"{name} answers, in version {answer.version} of the protocol"
    )


async def _negotiated(each: MilterListener) -> Negotiate | None:
    """Its side of a negotiation; None if it has none. Raises OSError and ProtocolError."""
    if each.unix is not None:
        reader, writer = await asyncio.open_unix_connection(each.unix)
    else:
        reader, writer = await asyncio.open_connection(each.address, each.port)
    try:
        writer.write(encode(_OFFER))
        decoder = answers()
        while (answer := decoder.next()) is None:
            came = await reader.read(4096)
            if not came:
                return None
            decoder.feed(came)
        writer.write(encode(Quit()))
        if not isinstance(answer, Negotiate):
            raise ProtocolError("it does not negotiate")
        return answer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
