"""Polls the balancers of all servers for their demand, once a second."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from slotkeeper.api.demand_report import DemandReport
from slotkeeper.desired import names
from slotkeeper.error_text import describe
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.demand.poll_schedule import due_targets
from slotkeeper.reconcile.demand.tracker import ServerDemand, TrackedDemand, merge
from slotkeeper.reconcile.isolation import Isolation
from slotkeeper.reconcile.observe.pods import address, is_ready
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS

POLL_SECONDS = 1.0

log = logging.getLogger(__name__)


class FetchDemand(Protocol):
    """Fetches one balancer's report."""

    async def __call__(self, address: str, *, keep_alive: bool) -> DemandReport:
        """Return the report of the balancer at HOST:PORT.

        `keep_alive`: it is polled again in a second. Raises OSError or ValueError.
        """
        ...


class DemandPoller:
    """Fetches reports; `now` is the clock of all times, in seconds."""

    def __init__(self, fetch: FetchDemand, now: Callable[[], float]) -> None:
        self._fetch = fetch
        self._now = now
        self.isolation = Isolation("poll of demand")

    async def poll(
        self,
        tracked: Iterable[tuple[Key, TrackedDemand]],
        on_update: Callable[[Key, TrackedDemand], object] = lambda *_: None,
    ) -> None:
        """Poll the balancers of all servers that are due.

        `on_update` is called after each server's response: a balancer without replicas responds
        when a request arrives, or late in the second.
        """
        now = self._now()
        targets = [(key, demand) for key, demand in tracked if demand.addresses]
        due = due_targets(targets, lambda target: target[1].schedule, now)
        await asyncio.gather(*(self._poll(*target, now, on_update) for target in due))

    async def fetch_now(self, demand: TrackedDemand) -> ServerDemand | None:
        """The demand at this moment, for a decision that cannot wait for the next poll."""
        return merge(await self._fetch_all(demand, keep_alive=False), self._now())

    async def _poll(
        self,
        key: Key,
        demand: TrackedDemand,
        now: float,
        on_update: Callable[[Key, TrackedDemand], object],
    ) -> None:
        reports = await self._fetch_all(demand, keep_alive=demand.schedule.urgent)
        demand.schedule.polled(now, responded=bool(reports))
        with self.isolation(key):
            if found := merge(reports, self._now()):
                demand.update(found)
                on_update(key, demand)
            else:
                demand.leaderless(len(reports), self._now())

    async def _fetch_all(self, demand: TrackedDemand, *, keep_alive: bool) -> list[DemandReport]:
        reports = await asyncio.gather(
            *(self._fetch_one(address, keep_alive=keep_alive) for address in demand.addresses)
        )
        return [report for report in reports if report]

    async def _fetch_one(self, address: str, *, keep_alive: bool) -> DemandReport | None:
        started = self._now()
        report = None
        with self.isolation(address):
            try:
                report = await self._fetch(address, keep_alive=keep_alive)
            except (OSError, ValueError) as error:
                log.debug("no report from balancer %s: %s", address, describe(error))
        # A response may have lain in the socket for as long as this process was stopped.
        return report if report and self._now() - started <= PEAK_WINDOW_SECONDS else None


def addresses(balancer_pods: Iterable[Manifest]) -> list[str]:
    """HOST:PORT of the metrics ports of the pods that are ready."""
    return sorted(address(pod, names.METRICS_PORT) for pod in balancer_pods if is_ready(pod))
