"""Fetches balancers' demand reports over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from slotkeeper.api.demand_report import LOCAL, MAX_BYTES, PATH, DemandReport
from slotkeeper.reconcile import pod_http
from slotkeeper.reconcile.demand.poller import POLL_SECONDS, FetchDemand

LONG_POLL_SECONDS = 0.75
"""How long a balancer without replicas may hold its response until a request arrives, so that
scaling from zero starts at once. The rest of the second is for a busy machine."""


@asynccontextmanager
async def open_client() -> AsyncIterator[FetchDemand]:
    """An HTTP client for as long as the context lasts.

    Connections are kept for autoscaled servers only: of the others there may be thousands.
    """
    kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=3 * POLL_SECONDS)
    closed = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        pod_http.session(kept, POLL_SECONDS) as persistent,
        pod_http.session(closed, POLL_SECONDS) as single,
    ):

        async def fetch(address: str, *, keep_alive: bool) -> DemandReport:
            # Its own report: without the scope a standby would forward the leader's.
            url = f"http://{address}{PATH}?{LOCAL}"
            if keep_alive:
                url += f"&timeout={LONG_POLL_SECONDS}"
            client = persistent if keep_alive else single
            return DemandReport.from_json(await pod_http.get(client, url, MAX_BYTES))

        yield fetch
