"""Work that a part does again and again beside its connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from smtpguard.database.errors import StoreError

log = logging.getLogger(__name__)


async def every(seconds: float, what: str, work: Callable[[], Awaitable[object]]) -> NoReturn:
    """Do ``work`` every so many seconds, for ever. If the store does not answer it is tried again the next time."""
    while True:
        try:
            await work()
        except StoreError as e:
            log.warning("%s: the store does not answer: %s", what, type(e).__name__)
        await asyncio.sleep(seconds)


async def drain(seconds: float, what: str, work: Callable[[], Awaitable[int]], most: int) -> NoReturn:
    """Do ``work``, which returns how much it did, for ever: again at once if that was ``most``, else after a pause."""
    while True:
        try:
            done = await work()
        except StoreError as e:
            log.warning("%s: the store does not answer: %s", what, type(e).__name__)
            done = 0
        if done < most:
            await asyncio.sleep(seconds)


async def slices(work: Callable[[], Awaitable[bool]], pause_seconds: float = 0.05) -> None:
    """Do ``work``, a slice at a time, between admissions, while there is more."""
    more = True
    while more:
        more = await work()
        await asyncio.sleep(pause_seconds)
