"""Fetches balancers' demand reports over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from slotkeeper.api.demand_report import LOCAL, MAX_BYTES, PATH, DemandReport
from slotkeeper.error_text import describe
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
    kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=3 * POLL_SECONDS)
    closed = aiohttp.TCPConnector(limit=0, force_close=True)
    async with _session(kept) as persistent, _session(closed) as single:

        async def fetch(address: str, *, keep_alive: bool) -> DemandReport:
            # Its own report: without the scope a standby would forward the leader's.
            url = f"http://{address}{PATH}?{LOCAL}"
            if keep_alive:
                url += f"&timeout={LONG_POLL_SECONDS}"
            session = persistent if keep_alive else single
            try:
                # A redirect could lead the operator to any address that it can reach.
                async with session.get(url, allow_redirects=False) as response:
                    if response.status != 200:
                        raise OSError(f"response with status {response.status}")
                    return DemandReport.from_json(await _read(response))
            except aiohttp.ClientError as error:
                raise OSError(describe(error)) from error

        yield fetch


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=POLL_SECONDS),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, or as much of it as shows that it is too long for a report."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            response.close()
            break
    return bytes(body)
