"""Waiting for what the event loop is about to do."""

import asyncio
from collections.abc import Callable


async def until(true: Callable[[], object]) -> None:
    """Let the loop run until `true()` is; TimeoutError after seconds that no test needs."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 (what is watched sets no event)
            await asyncio.sleep(0.001)
