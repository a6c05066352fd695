"""Polls the pods that download models for their progress, every two seconds."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice

from slotkeeper.error_text import describe
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.downloads.tracker import TrackedDownload
from slotkeeper.reconcile.isolation import Isolation

PROGRESS_SECONDS = 2.0
"""Between two rounds, and so between two changes of a server's status by its progress."""

MAX_POLLS = 200
"""Pods in one round. More servers take turns: each poll costs 0.4 ms of the operator's one CPU."""

MAX_CONCURRENT = 50
"""Connections at a time: pods that do not respond occupy one each for a second."""

FetchProgress = Callable[[str], Awaitable[ProgressReport]]
"""Fetches the progress of the pod at HOST:PORT. Raises OSError or ValueError."""

log = logging.getLogger(__name__)


class ProgressPoller:
    """Fetches the progress; `now` is the clock of all times, in seconds."""

    def __init__(self, fetch: FetchProgress, now: Callable[[], float]) -> None:
        self._fetch = fetch
        self._now = now
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self.isolation = Isolation("poll of downloads")

    async def poll(self, tracked: Iterable[tuple[Key, TrackedDownload]]) -> None:
        """Poll the pods of the servers whose last round is the longest ago."""
        now = self._now()
        running = [(key, download) for key, download in tracked if download.addresses]
        running.sort(key=lambda each: each[1].polled_at)
        polls = (
            (key, download, *pod) for key, download in running for pod in download.next_pods(now)
        )
        await asyncio.gather(*(self._poll(*each) for each in islice(polls, MAX_POLLS)))

    async def _poll(self, key: Key, download: TrackedDownload, pod: str, address: str) -> None:
        with self.isolation(key):
            try:
                async with self._slots:
                    report = await self._fetch(address)
            except (OSError, ValueError) as error:
                log.debug("no progress of the download at %s: %s", address, describe(error))
                return
            download.update(pod, report, self._now())
