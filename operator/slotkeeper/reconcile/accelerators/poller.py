"""Reads the start of the logs of replicas with accelerators, once for each start of a container."""

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice

from slotkeeper.error_text import describe
from slotkeeper.kube.cluster import ApiError, Cluster
from slotkeeper.kube.objects import Key
from slotkeeper.llamacpp.diagnosis.start import MAX_LOG, read_start
from slotkeeper.reconcile.accelerators.tracker import LogResult, StartedContainer, TrackedLogs
from slotkeeper.reconcile.isolation import Isolation

LOG_SECONDS = 2.0
"""Between two rounds, in which only containers that have just started are read."""

MAX_READS = 50
"""Logs in one round. The others have their turn in the next ones."""

MAX_CONCURRENT = 5
"""Requests at a time: each is one of the API server to a kubelet."""


class StartLogReader:
    """Reads logs by the API server; `now` is the clock of all times, in seconds."""

    def __init__(self, cluster: Cluster, now: Callable[[], float]) -> None:
        self._cluster = cluster
        self._now = now
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self.isolation = Isolation("start of logs")

    async def poll(
        self,
        tracked: Iterable[tuple[Key, TrackedLogs]],
        on_update: Callable[[Key], object] = lambda _: None,
    ) -> None:
        """Read the logs that are due; `on_update` is called for each that shows something new."""
        now = self._now()
        due = ((key, logs, each) for key, logs in tracked for each in logs.due(now))
        await asyncio.gather(*(self._read(*each, on_update) for each in islice(due, MAX_READS)))

    async def _read(
        self,
        key: Key,
        logs: TrackedLogs,
        started: StartedContainer,
        on_update: Callable[[Key], object],
    ) -> None:
        with self.isolation(key):
            async with self._slots:
                result = await self._result(key.namespace, started)
            if logs.update(started, result, self._now()):
                on_update(key)

    async def _result(self, namespace: str, started: StartedContainer) -> LogResult:
        try:
            body = await self._cluster.start_of_log(
                namespace, started.pod, started.container, MAX_LOG
            )
        except ApiError as error:
            return LogResult(error=describe(error))
        return LogResult(read_start(body.decode(errors="replace"), started.layers))
