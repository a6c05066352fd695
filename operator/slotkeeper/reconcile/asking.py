"""Ask balancers for their numbers, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from slotkeeper.reconcile.demand import LOOK_SECONDS, Ask


@asynccontextmanager
async def asking() -> AsyncIterator[Ask]:
    """How to ask a balancer, while it is open.

    A connection is kept for who is asked with every look; the hundreds that take turns get one each
    time. A proxy of the environment is for the world outside, not for pods: it is not asked.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3 * LOOK_SECONDS)
    timeout = aiohttp.ClientTimeout(total=LOOK_SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(address: str) -> Any:
            try:
                async with session.get(f"http://{address}/autoscaling") as response:
                    response.raise_for_status()
                    return await response.json()
            except aiohttp.ClientError as error:
                raise OSError(str(error) or type(error).__name__) from error

        yield ask
