"""Fetches balancers' demand reports over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from slotkeeper.api.demand_report import LOCAL, PATH, DemandReport
from slotkeeper.reconcile.demand.poller import POLL_SECONDS, FetchDemand

LONG_POLL_SECONDS = 0.75
"""How long a balancer without replicas may hold its response until a request arrives, so that
scaling from zero starts at once. The rest of the second is for a busy machine."""


@asynccontextmanager
async def open_client() -> AsyncIterator[FetchDemand]:
    """An HTTP client for as long as the context lasts.

    Connections are kept for autoscaled servers only: of the others there may be thousands.
    HTTP_PROXY and the like are ignored: pods are not reached through a proxy.
    """
    timeout = aiohttp.ClientTimeout(total=POLL_SECONDS)
    kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=3 * POLL_SECONDS)
    closed = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=kept, timeout=timeout) as persistent,
        aiohttp.ClientSession(connector=closed, timeout=timeout) as single,
    ):

        async def fetch(address: str, *, keep_alive: bool) -> DemandReport:
            # Its own report: without the scope a standby would forward the leader's.
            url = f"http://{address}{PATH}?{LOCAL}"
            if keep_alive:
                url += f"&timeout={LONG_POLL_SECONDS}"
            session = persistent if keep_alive else single
            try:
                async with session.get(url) as response:
                    response.raise_for_status()
                    return DemandReport.from_json(await response.read())
            except aiohttp.ClientError as error:
                raise OSError(str(error) or type(error).__name__) from error

        yield fetch
