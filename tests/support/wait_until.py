"""Wait for a condition that the event loop is about to fulfill."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Run the loop until `condition()` is true. Raises TimeoutError after 10 s."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the condition sets no event)
            await asyncio.sleep(0.001)
