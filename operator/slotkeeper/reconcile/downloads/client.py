"""Fetches the progress of downloads over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from slotkeeper.api.download_progress import MAX_BYTES, PATH
from slotkeeper.reconcile import pod_http
from slotkeeper.reconcile.downloads.poller import FetchProgress
from slotkeeper.reconcile.downloads.report import ProgressReport

TIMEOUT_SECONDS = 1.0


@asynccontextmanager
async def open_progress_client() -> AsyncIterator[FetchProgress]:
    """An HTTP client for as long as the context lasts. Connections are not kept."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with pod_http.session(connector, TIMEOUT_SECONDS) as client:

        async def fetch(address: str) -> ProgressReport:
            body = await pod_http.get(client, f"http://{address}{PATH}", MAX_BYTES)
            return ProgressReport.parse(body)

        yield fetch
