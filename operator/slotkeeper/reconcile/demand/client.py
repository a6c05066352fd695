"""Ask balancers for their numbers, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from slotkeeper.api.demand_report import LOCAL, PATH, DemandReport
from slotkeeper.reconcile.demand.tracker import POLL_SECONDS, FetchDemand

HOLD_SECONDS = 0.75
"""For how long a balancer without replicas may keep an answer back, until a request comes: whoever
wakes a server is then seen at once. The rest of a look's second is for a machine that is busy."""


@asynccontextmanager
async def open_client() -> AsyncIterator[FetchDemand]:
    """How to ask a balancer, while it is open.

    A connection is kept for who is asked again in a second; of the others there may be thousands. A
    proxy of the environment is for the world outside, not for pods: it is not asked.
    """
    timeout = aiohttp.ClientTimeout(total=POLL_SECONDS)
    kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=3 * POLL_SECONDS)
    closed = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=kept, timeout=timeout) as often,
        aiohttp.ClientSession(connector=closed, timeout=timeout) as seldom,
    ):

        async def ask(address: str, *, keep_alive: bool) -> DemandReport:
            session, query = (
                (often, f"{LOCAL}&timeout={HOLD_SECONDS}") if keep_alive else (seldom, LOCAL)
            )
            # Each its own numbers: else one that stands by says what the one that leads says too.
            url = f"http://{address}{PATH}?{query}"
            try:
                async with session.get(url) as response:
                    response.raise_for_status()
                    return DemandReport.from_json(await response.read())
            except aiohttp.ClientError as error:
                raise OSError(str(error) or type(error).__name__) from error

        yield ask
