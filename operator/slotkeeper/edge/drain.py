"""The end of a process that serves clients: it waits for their requests."""

import asyncio
from contextlib import suppress


async def wait_idle(idle: asyncio.Event, seconds: float) -> None:
    """Wait while `idle` is not set, at most this long.

    What begins just after it is set is waited for, too: a waiter of an event runs some time later.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not idle.is_set():
                await idle.wait()
